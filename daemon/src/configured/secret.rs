//! Looks up the secret of a destination where `config.toml` says. Secrets are never logged or shown.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use zeroize::Zeroizing;

use crate::{
    command::{self, Failed},
    files::{self, Refused, Rules},
};
use cc_core::{
    config::destination::{Entry, SecretFrom},
    secret::Secrets,
};

/// How long a command may take.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Largest file and longest output, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// How many links a path may follow.
const MAX_LINKS: usize = 40;

/// The secret of `entry`; empty if it needs none. A command takes up to 10 s.
///
/// # Errors
/// Why there is none and what to do, for people.
pub fn find(entry: &Entry, home: &Path) -> Result<Secrets, String> {
    let (what, text) = match &entry.secret {
        None => return Ok(entry.open_secrets()),
        Some(SecretFrom::File(path)) => {
            let path = path.strip_prefix("~").map_or_else(|_| path.clone(), |rest| home.join(rest));
            (format!("the secret file {}", path.display()), of_file(&path)?)
        }
        Some(SecretFrom::Command(words)) => {
            // The arguments may be confidential.
            let program = words.first().map_or("", String::as_str);
            (format!("the secret command {program}"), of_command(words, home, TIME_LIMIT)?)
        }
    };
    let word = entry.destination.kind.backend().words().secret;
    let text = std::str::from_utf8(&text).map_err(|_| format!("{what} gives something that is no text"))?;
    entry.secrets_in(text).ok_or_else(|| {
        format!("{what} gives no {word}: it must be the first line, or a line NAME=value with its variable")
    })
}

/// What the command `words` writes, as that of a destination.
///
/// # Errors
/// Why it writes nothing and what to do, for people.
pub fn written_by(words: &[String], home: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    of_command(words, home, TIME_LIMIT)
}

fn of_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let bad = |why: &str| format!("the secret file {} {why}", path.display());
    if let Some(dir) = open_to_others(path) {
        return Err(bad(&format!("is reached through {}, which others can change: chmod go-w {0}", dir.display())));
    }
    let opened = files::open(path, &Rules::users(MAX_BYTES as u64)).map_err(|refused| match refused {
        Refused::Missing => bad("is missing: write the secret into it, with mode 0600"),
        Refused::NotAFile => bad("is not a regular file"),
        Refused::OtherOwner => bad("belongs to another user: chown it to yourself"),
        Refused::TooLarge => bad("is larger than 64 KiB: that is no secret"),
        other => bad(&format!("cannot be read: {other}")),
    })?;
    if opened.meta.mode() & 0o077 != 0 {
        return Err(bad(&format!("can be read or changed by others: chmod 600 {}", path.display())));
    }
    opened.read(MAX_BYTES as u64).map(Zeroizing::new).map_err(|error| bad(&format!("cannot be read: {error}")))
}

/// A directory on the way to `path` in which others could replace something.
fn open_to_others(path: &Path) -> Option<PathBuf> {
    let mut names = vec![path.to_path_buf()];
    let mut at = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let Ok(to) = std::fs::read_link(&at) else { break };
        at = at.parent().map(|dir| dir.join(&to)).unwrap_or(to);
        names.push(at.clone());
    }
    names.extend(path.canonicalize());
    let user = rustix::process::geteuid().as_raw();
    let is_open = |dir: &&Path| {
        let Ok(meta) = std::fs::metadata(dir) else { return false };
        // With the sticky bit, users can change only their own entries.
        let is_shared = meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0;
        is_shared || ![0, user].contains(&meta.uid())
    };
    names.iter().flat_map(|name| name.ancestors().skip(1)).find(is_open).map(Path::to_path_buf)
}

fn of_command(words: &[String], home: &Path, limit: Duration) -> Result<Zeroizing<Vec<u8>>, String> {
    let (program, arguments) = words.split_first().ok_or("the secret command is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(home);
    command::output(command, limit, MAX_BYTES).map_err(|failed| {
        let remedy = match failed {
            Failed::Start(_) => "name a program by its whole path",
            Failed::Late(_) => "it has no terminal and must ask nobody",
            Failed::Long(_) => "it must write the secret alone",
            Failed::Read(_) | Failed::Status(_) => "run it in a terminal to see why",
        };
        format!("the secret command {program} {failed}: {remedy}")
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use cc_core::config::Config;

    fn entry(secret: &str) -> Entry {
        let text = format!(
            "[[destination]]\nname = 'a'\nkind = 'langfuse'\naddress = 'https://x'\nLANGFUSE_PUBLIC_KEY = 'pk'\n{secret}\n"
        );
        Config::parse(&text).unwrap().destinations.remove(0).entry.unwrap()
    }

    /// A home that only its user can change, whatever the umask.
    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        home
    }

    #[test]
    fn a_secret_is_read_from_a_file_of_the_users_alone() {
        let home = home();
        let at = |name: &str| home.path().join(name);
        let write = |name: &str, text: &[u8], mode| {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), text).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        let dir = |name: &str, mode| {
            fs::create_dir_all(at(name)).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        write("good", b"sk-lf-hidden\n", 0o600);
        write("readonly", b"sk-lf-hidden", 0o400);
        write("group", b"sk-lf-hidden", 0o640);
        write("others", b"sk-lf-hidden", 0o604);
        write("written", b"sk-lf-hidden", 0o620);
        write("empty", b"", 0o600);
        write("blank", b"\n\n", 0o600);
        write("binary", b"\xffsk-lf-hidden", 0o600);
        write("large", &vec![b'x'; MAX_BYTES + 1], 0o600);
        write("open/key", b"sk-lf-hidden", 0o600);
        write("safe/key", b"sk-lf-hidden", 0o600);
        dir("open", 0o777);
        dir("safe", 0o700);
        dir("sticky", 0o1777);
        dir("directory", 0o700);
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(at(to), at(name)).unwrap();
        link("good", "link");
        link("open/key", "to-open");
        link("safe/key", "open/link");
        link("open/link", "chain");
        link("good", "sticky/link");
        link("group", "to-group");
        for (name, expect) in [
            ("good", Ok(())),
            ("readonly", Ok(())),
            ("link", Ok(())),
            ("sticky/link", Ok(())),
            ("safe/key", Ok(())),
            ("none", Err("is missing")),
            ("group", Err("chmod 600")),
            ("others", Err("chmod 600")),
            ("written", Err("chmod 600")),
            ("to-group", Err("chmod 600")),
            ("empty", Err("gives no secret key")),
            ("blank", Err("gives no secret key")),
            ("binary", Err("no text")),
            ("large", Err("larger than 64 KiB")),
            ("directory", Err("not a regular file")),
            ("fifo", Err("not a regular file")),
            ("open/key", Err("chmod go-w")),
            ("to-open", Err("chmod go-w")),
            ("open/link", Err("chmod go-w")),
            ("chain", Err("chmod go-w")),
        ] {
            for secret in [format!("secret_file = '~/{name}'"), format!("secret_file = '{}'", at(name).display())] {
                match (find(&entry(&secret), home.path()), expect) {
                    (Ok(secrets), Ok(())) => assert!(secrets.get("LANGFUSE_SECRET_KEY").is_some(), "{name}"),
                    (Err(why), Err(part)) => {
                        assert!(why.contains(part) && !why.contains("hidden"), "{name}: {why}");
                    }
                    (found, _) => panic!("{name}: {}", found.err().unwrap_or_default()),
                }
            }
        }
    }

    #[test]
    fn a_secret_is_what_a_command_writes_and_what_fails_is_said_without_its_arguments() {
        let home = home();
        let found = |words: &str| find(&entry(&format!("secret_command = {words}")), home.path());
        assert!(found("['sh', '-c', 'echo sk-lf-1; echo url: x']").is_ok());
        for (words, part) in [
            ("['sh', '-c', 'echo hidden; exit 3']", "sh failed with exit status: 3"),
            ("['true', 'hidden']", "true gives no secret key"),
            ("['/no/such/program', 'hidden']", "by its whole path"),
            ("['sh', '-c', 'yes hidden']", "must write the secret alone"),
        ] {
            let why = found(words).err().unwrap_or_else(|| panic!("{words} is fine"));
            assert!(why.contains(part) && !why.contains("hidden"), "{words}: {why}");
        }
        let late = ["sh", "-c", "sleep 60"].map(str::to_owned);
        let why = of_command(&late, home.path(), Duration::from_millis(100)).unwrap_err();
        assert!(why.contains("did not end within 100ms: it has no terminal"), "{why}");
    }
}
