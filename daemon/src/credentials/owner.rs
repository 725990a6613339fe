//! Can anyone but the user have written a project's settings file?

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use super::is_tracked;
use cc_core::consent::Owner;

/// The directories of version control systems other than git at the top of a working tree. Their indexes are not read here.
const OTHER_VERSION_CONTROL: [&str; 10] =
    [".jj", ".hg", ".sl", ".svn", ".bzr", ".pijul", "_darcs", "CVS", ".fslckout", "_FOSSIL_"];

/// How far apart two times of one file may be that were set at the same moment.
const SAME_MOMENT: Duration = Duration::from_secs(2);

/// Who can write `file`, a project's settings file, below `home` or elsewhere.
///
/// `settings.json` is the file that a project shares. `settings.local.json` is the user's unless git tracks it, another version
/// control system is in use around it, or its times show that it was unpacked or copied.
pub fn owner(file: &Path, home: &Path) -> Owner {
    if file.file_name().is_some_and(|name| name == "settings.json")
        && file.parent().is_some_and(|dir| dir.ends_with(".claude"))
    {
        return Owner::Repository;
    }
    let real = file.canonicalize().ok().filter(|real| real != file);
    let is_foreign = |file: &Path| {
        // A stranger's working tree does not begin at the user's home.
        let trees = file.ancestors().skip(1).take_while(|tree| *tree != home);
        trees
            .into_iter()
            .any(|tree| OTHER_VERSION_CONTROL.iter().any(|name| tree.join(name).symlink_metadata().is_ok()))
    };
    let foreign = is_foreign(file) || real.as_deref().is_some_and(is_foreign);
    if foreign || is_tracked(file) || came_along(file) { Owner::Repository } else { Owner::User }
}

/// True if the file's times were not made by writing it here but by an archive, a copy that kept them, or a sync. On a file
/// system without creation times, only a modification time older than the last change shows that.
fn came_along(file: &Path) -> bool {
    let Ok(meta) = std::fs::metadata(file) else { return false };
    let Ok(written) = meta.modified() else { return false };
    let changed = u64::try_from(meta.ctime()).ok().map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at));
    let is_from_before = meta.created().is_ok_and(|born| written + SAME_MOMENT < born);
    let is_from_later = changed.is_some_and(|changed| written > changed + SAME_MOMENT);
    is_from_before || is_from_later
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(root: &Path) -> std::path::PathBuf {
        let file = root.join("work/.claude/settings.local.json");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "{}").unwrap();
        file
    }

    #[test]
    fn other_version_control_makes_a_projects_files_anybodys() {
        for name in OTHER_VERSION_CONTROL {
            let base = tempfile::tempdir().unwrap();
            let (home, file) = (base.path().canonicalize().unwrap(), local(&base.path().canonicalize().unwrap()));
            assert_eq!(owner(&file, &home), Owner::User);
            // Around the home it is the user's own.
            std::fs::create_dir(home.join(name)).unwrap();
            assert_eq!(owner(&file, &home), Owner::User, "{name}");
            std::fs::create_dir(home.join("work").join(name)).unwrap();
            assert_eq!(owner(&file, &home), Owner::Repository, "{name}");
        }
    }

    #[test]
    fn a_file_with_times_from_elsewhere_came_from_there() {
        let base = tempfile::tempdir().unwrap();
        let home = base.path().canonicalize().unwrap();
        let file = local(&home);
        let set = |at: SystemTime| std::fs::File::options().write(true).open(&file).unwrap().set_modified(at).unwrap();
        let now = SystemTime::now();
        set(now + Duration::from_secs(1));
        assert_eq!(owner(&file, &home), Owner::User);
        set(now + Duration::from_secs(3600));
        assert_eq!(owner(&file, &home), Owner::Repository, "from the future");
        set(now - Duration::from_secs(3600));
        let knows_birth = std::fs::metadata(&file).unwrap().created().is_ok();
        assert_eq!(owner(&file, &home) == Owner::Repository, knows_birth, "from the past");
        // Written here since then.
        std::fs::write(&file, "{ }").unwrap();
        assert_eq!(owner(&file, &home), Owner::User);
    }

    #[test]
    fn the_shared_file_is_never_the_users_alone() {
        let base = tempfile::tempdir().unwrap();
        let home = base.path().canonicalize().unwrap();
        let file = local(&home).with_file_name("settings.json");
        std::fs::write(&file, "{}").unwrap();
        assert_eq!(owner(&file, &home), Owner::Repository);
    }
}
