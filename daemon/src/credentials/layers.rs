//! Which settings files determine the variables Claude Code gives to its hooks, in which order, and who can write each.
//!
//! Claude Code's own order: managed > local (the directory's, the git root's, in a linked worktree the main worktree's) >
//! project > user.

use std::{
    collections::HashSet,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::files::{self, Rules};

use super::{MAX_SETTINGS, owner::owner, user_dir};
use cc_core::{
    consent::{Layer, Owner},
    settings::block::{Unclear, Vars, env_block},
};

/// The administrator's settings. The files of a directory count in the order of their names.
const MANAGED: [(&str, &str); 2] = [
    ("/etc/claude-code/managed-settings.json", "/etc/claude-code/managed-settings.d"),
    (
        "/Library/Application Support/ClaudeCode/managed-settings.json",
        "/Library/Application Support/ClaudeCode/managed-settings.d",
    ),
];

/// The settings files that Claude Code resolves in `dir`; later ones win. `user` is the directory of the user's settings.
pub fn files(dir: Option<&Path>, user: &Path) -> Vec<PathBuf> {
    let mut files = vec![user.join("settings.json")];
    if let Some(dir) = dir {
        let root = git_root(dir);
        files.push(project_file(dir, "settings.json"));
        let main = root.and_then(main_worktree);
        let locals = [main.as_deref(), root.filter(|root| *root != dir), Some(dir)];
        files.extend(locals.into_iter().flatten().map(|dir| project_file(dir, "settings.local.json")));
    }
    files.extend(managed());
    files
}

/// The variables that Claude Code gives to hooks in `dir`; an empty value in a later file unsets that of an earlier one.
pub fn resolve(dir: Option<&Path>, user: &Path) -> Vars {
    files(dir, user).iter().flat_map(|file| read(file).unwrap_or_default()).collect()
}

/// The same with `CLAUDE_PROJECT_DIR`, which Claude Code adds for a hook, and to which a place can be relative.
pub fn for_hook(dir: Option<&Path>, user: &Path) -> Vars {
    let mut vars = resolve(dir, user);
    if let Some(dir) = dir.and_then(Path::to_str) {
        vars.entry("CLAUDE_PROJECT_DIR".to_owned()).or_insert_with(|| dir.to_owned());
    }
    vars
}

/// Every settings file that may have contributed to the variables of a hook in one of `dirs`, weakest first. A session's
/// directory can change, so files further up count too.
pub fn all_around(dirs: &[PathBuf], config_dir: Option<&Path>, home: &Path) -> Vec<PathBuf> {
    let user = home.join(".claude/settings.json");
    let mut files = vec![user.clone()];
    files.extend(config_dir.map(|dir| dir.join("settings.json")));
    for dir in dirs {
        let around: Vec<&Path> = match dir == home {
            true => vec![dir],
            false => dir.ancestors().take_while(|dir| *dir != home).collect(),
        };
        let main = around.iter().find_map(|dir| main_worktree(dir));
        for dir in main.as_deref().into_iter().chain(around.into_iter().rev()) {
            let names = ["settings.json", "settings.local.json"].map(|name| project_file(dir, name));
            files.extend(names.into_iter().filter(|file| *file != user));
        }
    }
    files.extend(managed());
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    files
}

/// The contents of these files, and who can write each.
pub fn around(dirs: &[PathBuf], config_dir: Option<&Path>, home: &Path) -> Vec<Layer> {
    let user = home.join(".claude/settings.json");
    let given = config_dir.map(|dir| dir.join("settings.json")).filter(|file| *file != user);
    let layer = |file: PathBuf| {
        let env = read(&file);
        let says_nothing = env.as_ref().is_ok_and(Vars::is_empty);
        let is_managed = MANAGED.iter().any(|(one, several)| file == Path::new(one) || file.starts_with(several));
        let within = |file: &Path| dirs.iter().any(|dir| dir != home && file.starts_with(dir));
        let owner = match () {
            () if file == user || is_managed || says_nothing => Owner::User,
            // A repository can set CLAUDE_CONFIG_DIR to a directory of its own.
            () if given.as_ref() == Some(&file) && within(&file) => Owner::Repository,
            () => owner(&file, home),
        };
        Layer { file, owner, env }
    };
    let mut layers: Vec<Layer> = all_around(dirs, config_dir, home).into_iter().map(layer).collect();
    let names_dir = |layer: &Layer| match &layer.env {
        Ok(env) => env.contains_key("CLAUDE_CONFIG_DIR"),
        Err(Unclear) => true,
    };
    if layers.iter().any(|layer| layer.owner == Owner::Repository && names_dir(layer)) {
        layers
            .iter_mut()
            .filter(|layer| given.as_ref() == Some(&layer.file))
            .for_each(|layer| layer.owner = Owner::Repository);
    }
    layers
}

/// Settings belong to the user or to root; `limit` in bytes.
fn rules(limit: u64) -> Rules {
    Rules { owner: files::Owner::UserOrRoot, ..Rules::users(limit) }
}

/// The variables of a settings file; none if it is missing.
pub fn read(file: &Path) -> Result<Vars, Unclear> {
    match files::read(file, &rules(MAX_SETTINGS)) {
        Ok(bytes) => env_block(&Zeroizing::new(bytes)),
        Err(refused) if refused.is_absence() => Ok(Vars::new()),
        Err(_) => Err(Unclear),
    }
}

/// `None` if it is missing or unreadable.
pub(super) fn text(file: &Path) -> Option<String> {
    String::from_utf8(files::read(file, &rules(MAX_SETTINGS)).ok()?).ok()
}

/// The identity and state of a file: device, inode, size, times of change.
pub type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// The stamps of all settings files that affect a session in `dirs`.
pub fn stamps(dirs: &[PathBuf], config_dir: Option<&Path>, home: &Path) -> Vec<(PathBuf, Stamp)> {
    let user = user_dir(config_dir, home);
    let mut paths = all_around(dirs, config_dir, home);
    for file in files(dirs.last().map(PathBuf::as_path), &user) {
        if !paths.contains(&file) {
            paths.push(file);
        }
    }
    paths.into_iter().map(|file| (stamp(&file), file)).map(|(stamp, file)| (file, stamp)).collect()
}

/// True if none of these files has changed.
pub fn are_as_before(stamps: &[(PathBuf, Stamp)]) -> bool {
    stamps.iter().all(|(file, known)| stamp(file) == *known)
}

/// `None` if it is missing.
pub fn stamp(file: &Path) -> Stamp {
    let of = |meta: Metadata| {
        let (changed, written) = ((meta.ctime(), meta.ctime_nsec()), (meta.mtime(), meta.mtime_nsec()));
        (meta.dev(), meta.ino(), meta.size(), changed.0, changed.1, written.0, written.1)
    };
    std::fs::metadata(file).ok().map(of)
}

fn project_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(".claude").join(name)
}

fn managed() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (one, several) in MANAGED {
        files.push(PathBuf::from(one));
        let mut more: Vec<PathBuf> =
            std::fs::read_dir(several).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        more.retain(|file| file.extension().is_some_and(|ext| ext == "json"));
        more.sort();
        files.extend(more);
    }
    files
}

fn git_root(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.join(".git").exists())
}

/// The main working tree, if `root` is a linked one.
fn main_worktree(root: &Path) -> Option<PathBuf> {
    let bytes = files::read(&root.join(".git"), &rules(4096)).ok()?;
    let git_dir = root.join(std::str::from_utf8(&bytes).ok()?.strip_prefix("gitdir:")?.trim());
    let common = files::read(&git_dir.join("commondir"), &rules(4096)).ok()?;
    let common = git_dir.join(std::str::from_utf8(&common).ok()?.trim()).canonicalize().ok()?;
    (common.file_name()? == ".git").then(|| common.parent().map(Path::to_path_buf)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &Path, value: &str) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, format!(r#"{{"env":{{"LANGFUSE_HOST":"{value}"}}}}"#)).unwrap();
    }

    #[test]
    fn files_win_in_the_order_of_claude_code() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().canonicalize().unwrap();
        let (user, repo, tree) = (root.join("user"), root.join("repo"), root.join("tree"));
        let sub = repo.join("sub");
        std::fs::create_dir_all(repo.join(".git/worktrees/tree")).unwrap();
        std::fs::write(repo.join(".git/worktrees/tree/commondir"), "../..\n").unwrap();
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(tree.join(".git"), format!("gitdir: {}\n", repo.join(".git/worktrees/tree").display())).unwrap();
        let host = |dir: Option<&Path>| resolve(dir, &user).get("LANGFUSE_HOST").cloned().unwrap_or_default();
        assert_eq!(host(Some(&sub)), "");
        write(&user.join("settings.json"), "user");
        assert_eq!((host(None), host(Some(&sub))), ("user".into(), "user".into()));
        write(&project_file(&sub, "settings.json"), "project");
        assert_eq!(host(Some(&sub)), "project");
        write(&project_file(&repo, "settings.local.json"), "root");
        assert_eq!(
            (host(Some(&sub)), host(Some(&repo)), host(Some(&tree))),
            ("root".into(), "root".into(), "root".into())
        );
        write(&project_file(&sub, "settings.local.json"), "local");
        write(&project_file(&tree, "settings.local.json"), "");
        assert_eq!((host(Some(&sub)), host(Some(&tree))), ("local".into(), String::new()));
    }
}
