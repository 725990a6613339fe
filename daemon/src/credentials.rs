//! Where a destination's secret key comes from, and the type that keeps it from going anywhere else (invariant 6).
//!
//! A key is known from the hook that brought it; after a restart, or when the server refuses it, the `env` blocks of the
//! project's and the user's Claude Code settings are read again. A key is used only with the base URL and public key it
//! stood beside.
//!
//! Claude Code hands the `env` block of a project's settings to hooks, and those files may be part of a repository that
//! somebody else wrote: [`origin`] tells whether it was the user who chose where spans go.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use zeroize::Zeroizing;

use crate::hook::{DEFAULT_BASE_URL, Destination, Env};

pub mod tracked;
pub use tracked::is_tracked;

/// Largest settings file that is read or written, in bytes.
pub const MAX_SETTINGS: u64 = 1 << 20;

/// Editors may put it in front of a text; Claude Code passes over it.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// A secret key. It can be compared and turned into an `Authorization` header, and nothing else: there is no way to print,
/// log or serialise it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the key into custody.
    pub fn new(key: &str) -> Self {
        Self(Zeroizing::new(key.to_owned()))
    }

    /// `Basic` credentials for Langfuse.
    pub fn basic_auth(&self, public_key: &str) -> http::HeaderValue {
        use base64::Engine;
        let pair = Zeroizing::new(format!("{public_key}:{}", *self.0));
        let text =
            Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())));
        // Base64 is always a valid header value.
        let mut value = http::HeaderValue::from_str(&text).unwrap_or(http::HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// `text` without the key, and without the credentials made of it: a server may repeat what it was sent.
    pub fn conceal(&self, public_key: &str, text: &str) -> String {
        let header = self.basic_auth(public_key);
        let encoded = header.to_str().unwrap_or_default().trim_start_matches("Basic ");
        [encoded, &self.0].into_iter().filter(|secret| !secret.is_empty()).fold(text.to_owned(), |text, secret| {
            if text.contains(secret) { text.replace(secret, "[secret]") } else { text }
        })
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.bytes().zip(other.0.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}

/// Where Claude Code keeps the settings of the user whose home is `home`. `config_dir` is what `CLAUDE_CONFIG_DIR` says.
pub fn user_dir(config_dir: Option<&Path>, home: &Path) -> PathBuf {
    config_dir.map_or_else(|| home.join(".claude"), Path::to_owned)
}

/// Looks for the secret of `destination` in the settings files of the projects that use it, and of the user: in `home`, and in
/// the `config_dirs` of sessions that had one.
pub fn from_settings(
    destination: &Destination,
    project_dirs: &[PathBuf],
    config_dirs: &[PathBuf],
    home: &Path,
) -> Option<Secret> {
    let dirs = || project_dirs.iter().map(|dir| Some(dir.as_path())).chain([None]);
    let users = config_dirs.iter().map(|dir| Some(dir.as_path())).chain([None]).map(|dir| user_dir(dir, home));
    users.flat_map(|user| dirs().map(move |dir| settings_env(dir, &user))).find_map(|merged| {
        let env = Env::new(merged.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        // The key must have been meant for this server.
        (env.destination().as_ref() == Ok(destination)).then(|| env.secret()).flatten()
    })
}

/// The environment that Claude Code's settings files give to hooks: those of the user, in `user`, and of the project at `dir`.
pub fn settings_env(dir: Option<&Path>, user: &Path) -> BTreeMap<String, String> {
    // An empty value in a later file unsets that of an earlier one.
    settings_files(dir, user).iter().flat_map(|file| read_env(file)).collect()
}

/// Those files, later ones winning.
pub fn settings_files(dir: Option<&Path>, user: &Path) -> Vec<PathBuf> {
    let of_project = dir
        .into_iter()
        .flat_map(|dir| ["settings.json", "settings.local.json"].map(|name| dir.join(".claude").join(name)));
    std::iter::once(user.join("settings.json")).chain(of_project).collect()
}

/// Who chose a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user: by the environment, the user's settings, or a project file that git does not track.
    User,
    /// Whoever wrote this settings file, which git tracks.
    Repository(PathBuf),
}

/// Says who chose that `secret` goes to `destination`, for sessions in `project_dirs` with the user's settings in `config_dirs`.
///
/// It was a repository if the key stands in nothing but settings files that git tracks; or if the address does, unless the
/// key beside it was put into the project's own untracked settings. A tracked file that cannot be read may say anything.
pub fn origin(
    destination: &Destination,
    secret: &Secret,
    project_dirs: &[PathBuf],
    config_dirs: &[PathBuf],
    home: &Path,
) -> Origin {
    let (mut own_key, mut project_key, mut own_url) = (false, false, destination.base_url == DEFAULT_BASE_URL);
    let (mut tracked_key, mut tracked_url) = (None, None);
    // A repository can name a directory of its own in CLAUDE_CONFIG_DIR; the one in home is nobody else's.
    let user = config_dirs.iter().map(|dir| (dir.join("settings.json"), false));
    let user = user.filter(|(file, _)| !file.starts_with(home.join(".claude")));
    let home_file = home.join(".claude/settings.json");
    let projects = project_dirs.iter().flat_map(|dir| dir.ancestors().take_while(|dir| *dir != home));
    let files =
        projects.flat_map(|dir| ["settings.json", "settings.local.json"].map(|name| dir.join(".claude").join(name)));
    for (file, of_project) in user.chain([(home_file.clone(), false)]).chain(files.map(|file| (file, true))) {
        let vars = env_of(&file);
        let is_clear = vars.is_some();
        let vars = vars.unwrap_or_default();
        let env = Env::new(vars.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let key = !is_clear || env.secrets().any(|key| key == *secret);
        let url = !is_clear || env.base_urls().any(|url| url == destination.base_url);
        if !key && !url {
            continue;
        }
        if file != home_file && tracked::is_tracked(&file) {
            tracked_key = tracked_key.or(key.then(|| file.clone()));
            tracked_url = tracked_url.or(url.then_some(file));
        } else if is_clear {
            own_key |= key;
            own_url |= url;
            project_key |= key && of_project;
        }
    }
    match (tracked_key, tracked_url) {
        (Some(file), _) if !own_key => Origin::Repository(file),
        (_, Some(file)) if !own_url && !project_key => Origin::Repository(file),
        _ => Origin::User,
    }
}

/// The `env` block of a settings file; empty if there is none to be read with trust.
pub fn read_env(path: &Path) -> BTreeMap<String, String> {
    env_of(path).unwrap_or_default()
}

/// The same; `None` if there is something that cannot be read here, and perhaps by Claude Code.
fn env_of(path: &Path) -> Option<BTreeMap<String, String>> {
    let bytes = match read_regular(path, MAX_SETTINGS) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Some(BTreeMap::new());
        }
        read => Zeroizing::new(read.ok()?),
    };
    let mut settings: Value = match serde_json::from_slice(bytes.strip_prefix(MARK).unwrap_or(&bytes)) {
        Ok(settings) => settings,
        Err(_) if ["LANGFUSE", "\\u"].iter().any(|part| memchr::memmem::find(&bytes, part.as_bytes()).is_some()) => {
            return None;
        }
        // However it is understood, nothing of ours is in it.
        Err(_) => return Some(BTreeMap::new()),
    };
    let Some(Value::Object(env)) = settings.get_mut("env").map(Value::take) else { return Some(BTreeMap::new()) };
    let text = |value| match value {
        Value::String(text) => Some(text),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    Some(env.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect())
}

/// The bytes of a regular file of ours, of at most `limit`. Never blocks.
pub(crate) fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    use rustix::fs::{Mode, OFlags};
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
    let meta = file.metadata()?;
    if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() || meta.len() > limit {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::Kind;

    fn write(dir: &Path, name: &str, env: &str) {
        std::fs::create_dir_all(dir.join(".claude")).unwrap();
        std::fs::write(dir.join(".claude").join(name), format!(r#"{{"hooks":{{}},"env":{env}}}"#)).unwrap();
    }

    fn found(destination: &Destination, dirs: &[PathBuf], home: &Path) -> Option<String> {
        from_settings(destination, dirs, &[], home).map(|secret| secret.0.to_string())
    }

    #[test]
    fn a_key_is_found_beside_its_own_server_only() {
        let base = tempfile::tempdir().unwrap();
        let (home, a, b) = (base.path().join("home"), base.path().join("a"), base.path().join("b"));
        let to =
            |url: &str, key: &str| Destination { kind: Kind::Langfuse, base_url: url.into(), public_key: key.into() };
        write(&a, "settings.json", r#"{"LANGFUSE_PUBLIC_KEY":"pk-a","LANGFUSE_SECRET_KEY":"committed"}"#);
        write(
            &a,
            "settings.local.json",
            r#"{"LANGFUSE_BASE_URL":"https://A.example/","LANGFUSE_SECRET_KEY":"local","X":1}"#,
        );
        write(
            &b,
            "settings.local.json",
            r#"{"LANGFUSE_PUBLIC_KEY":"pk-b","LANGFUSE_SECRET_KEY":"b","CC_LANGFUSE_SECRET_KEY":""}"#,
        );
        write(
            &home,
            "settings.json",
            r#"{"CC_LANGFUSE_PUBLIC_KEY":"","LANGFUSE_PUBLIC_KEY":"pk-u","LANGFUSE_SECRET_KEY":"user"}"#,
        );
        let dirs = [a, b];
        assert_eq!(found(&to("https://a.example", "pk-a"), &dirs, &home).as_deref(), Some("local"));
        assert_eq!(found(&to("https://cloud.langfuse.com", "pk-a"), &dirs, &home), None);
        assert_eq!(found(&to("https://cloud.langfuse.com", "pk-b"), &dirs, &home).as_deref(), Some("b"));
        assert_eq!(found(&to("https://cloud.langfuse.com", "pk-u"), &dirs, &home).as_deref(), Some("user"));
        assert_eq!(found(&to("https://evil.example", "pk-u"), &dirs, &home), None);
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn a_repository_cannot_choose_where_spans_go() {
        let url = |url: &str| format!(r#""LANGFUSE_BASE_URL":"{url}""#);
        let (key, evil) = (r#""LANGFUSE_SECRET_KEY":"sk""#, url("https://evil.example/"));
        let both = format!("{key},{evil}");
        // The address spans would go to, and the settings: tracked, untracked local, of the user; then whether they may.
        for (to, tracked, local, user, expect) in [
            ("https://evil.example", &*both, "", "", false),
            ("https://evil.example", &both, "", &both, true),
            ("https://evil.example", &both, &both, "", true),
            ("https://evil.example", &evil, "", key, false),
            ("https://evil.example", &evil, "", "", false),
            ("https://evil.example", &evil, key, "", true),
            ("https://evil.example", "", "", key, true),
            ("https://evil.example", "", "", "", true),
            ("https://evil.example", "", &both, "", true),
            ("https://evil.example", r#""CC_LANGFUSE_HOST":"https://EVIL.example""#, "", key, false),
            (DEFAULT_BASE_URL, key, "", "", false),
            (DEFAULT_BASE_URL, key, "", key, true),
            (DEFAULT_BASE_URL, &url(DEFAULT_BASE_URL), "", key, true),
        ] {
            let base = tempfile::tempdir().unwrap();
            let (home, repo) = (base.path().join("home"), base.path().join("home/repo"));
            write(&repo, "settings.json", &format!("{{{tracked}}}"));
            let git = |args: &[&str]| std::process::Command::new("git").current_dir(&repo).args(args).output();
            if git(&["init", "-q"]).is_err() {
                println!("skipped: no git here");
                return;
            }
            assert!(git(&["add", "."]).unwrap().status.success());
            write(&repo, "settings.local.json", &format!("{{{local}}}"));
            write(&home, "settings.json", &format!("{{{user}}}"));
            let destination = Destination { kind: Kind::Langfuse, base_url: to.into(), public_key: "pk".into() };
            for dir in [repo.clone(), repo.join("src/deep")] {
                let origin = origin(&destination, &Secret::new("sk"), &[dir], &[], &home);
                assert_eq!(origin == Origin::User, expect, "{to}: {tracked} | {local} | {user}: {origin:?}");
            }
        }
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn no_way_of_writing_hides_what_a_repository_chose() {
        let base = tempfile::tempdir().unwrap();
        let repo = base.path().join("repo");
        let file = repo.join(".claude/settings.json");
        std::fs::create_dir_all(repo.join(".claude")).unwrap();
        std::fs::write(&file, "{}").unwrap();
        let git = |args: &[&str]| std::process::Command::new("git").current_dir(&repo).args(args).output();
        if git(&["init", "-q"]).is_err() {
            println!("skipped: no git here");
            return;
        }
        assert!(git(&["add", "."]).unwrap().status.success());
        write(base.path(), "settings.json", r#"{"LANGFUSE_SECRET_KEY":"sk"}"#);
        let to = Destination { kind: Kind::Langfuse, base_url: "https://evil.example".into(), public_key: "pk".into() };
        let origin = || origin(&to, &Secret::new("sk"), std::slice::from_ref(&repo), &[], base.path());
        let env = r#""env":{"LANGFUSE_BASE_URL":"https://evil.example"}"#;
        for text in [
            format!("{{{env}}}"),
            format!("\u{feff}{{{env}}}"),
            format!(r#"{{"env":{{}},{env}}}"#),
            // What JavaScript understands, and not everybody else does.
            format!(r#"{{"x":"\ud800",{env}}}"#),
            format!(r#"{{"x":1e999,{env}}}"#),
            format!(r#"{{"x":1e999,{}}}"#, env.replace('L', r"\u004c")),
            format!(r#"{{"x":{}{},{env}}}"#, "[".repeat(200), "]".repeat(200)),
            format!("{{{env}}}{}", " ".repeat(MAX_SETTINGS as usize)),
        ] {
            std::fs::write(&file, &text).unwrap();
            assert_eq!(origin(), Origin::Repository(file.clone()), "{:.80}", text);
        }
        for harmless in ["{}", "{\n// not ours\n}"] {
            std::fs::write(&file, harmless).unwrap();
            assert_eq!(origin(), Origin::User);
        }
    }

    #[test]
    fn settings_are_read_as_claude_code_reads_them() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("settings.json");
        std::fs::write(&path, "\u{feff}{\"env\":{\"A\":\"0\"},\"env\":{\"B\":true,\"C\":1,\"D\":\"x\",\"E\":[]}}")
            .unwrap();
        let env = read_env(&path).into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        assert_eq!(env, ["B=true", "C=1", "D=x"]);
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn the_users_settings_may_be_elsewhere_but_not_in_a_repository() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        let env = r#"{"env":{"LANGFUSE_PUBLIC_KEY":"pk","LANGFUSE_SECRET_KEY":"sk","LANGFUSE_BASE_URL":"https://e.example"}}"#;
        let to = Destination { kind: Kind::Langfuse, base_url: "https://e.example".into(), public_key: "pk".into() };
        let secret = Secret::new("sk");
        for name in ["moved", "repo/claude"] {
            std::fs::create_dir_all(at(name)).unwrap();
            std::fs::write(at(name).join("settings.json"), env).unwrap();
            let dirs = [at("nowhere"), at(name)];
            assert!(from_settings(&to, &[], &dirs, &at("home")) == Some(secret.clone()), "{name}");
            assert_eq!(origin(&to, &secret, &[], &dirs, &at("home")), Origin::User, "{name}");
        }
        let git = |args: &[&str]| std::process::Command::new("git").current_dir(at("repo")).args(args).output();
        if git(&["init", "-q"]).is_err() {
            println!("skipped: no git here");
            return;
        }
        assert!(git(&["add", "."]).unwrap().status.success());
        let file = at("repo/claude/settings.json");
        assert_eq!(origin(&to, &secret, &[], &[at("repo/claude")], &at("home")), Origin::Repository(file));
    }

    #[test]
    fn a_file_that_cannot_be_trusted_is_not_read() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("settings.json");
        assert!(read_env(&path).is_empty(), "missing");
        std::fs::write(&path, "{").unwrap();
        assert!(read_env(&path).is_empty(), "not JSON");
        assert!(read_env(base.path()).is_empty(), "a directory");
        std::fs::write(&path, vec![b' '; MAX_SETTINGS as usize + 1]).unwrap();
        assert!(read_env(&path).is_empty(), "too large");
    }
}
