//! Asks git for the user's address. It may take a while: call it from a thread that has nothing else to do.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{command, environment};

pub mod exclude;
pub mod fate;

/// The value of `LANGFUSE_USER_ID` that stands for the address in git's settings.
pub const EMAIL: &str = "git-email";

/// How long git may take.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// Longest address, in bytes.
const MAX_EMAIL_BYTES: usize = 320;

/// `user.email` in the first of `dirs` in which git has one. Reading git's settings runs nothing of the repository.
pub fn email(dirs: &[PathBuf]) -> Option<String> {
    dirs.iter().find_map(|dir| ask(dir))
}

fn ask(dir: &Path) -> Option<String> {
    let kept = ["HOME", "PATH", "XDG_CONFIG_HOME"].into_iter().filter_map(|name| Some((name, environment::raw(name)?)));
    let mut git = Command::new("git");
    git.args(["config", "--get", "user.email"]).current_dir(dir).env_clear().envs(kept);
    let said = command::output(git, TIME_LIMIT, MAX_EMAIL_BYTES).ok()?;
    let email = std::str::from_utf8(&said).ok()?.trim();
    (!email.is_empty()).then(|| email.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn the_address_is_that_of_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| Command::new("git").current_dir(dir.path()).args(args).stdout(Stdio::null()).status();
        let Ok(made) = git(&["init", "-q"]) else { return };
        assert!(made.success() && git(&["config", "user.email", "ada@example.org"]).unwrap().success());
        let nowhere = dir.path().join("nowhere");
        assert_eq!(email(&[nowhere.clone(), dir.path().into()]).as_deref(), Some("ada@example.org"));
        assert_eq!(email(&[nowhere]), None);
        git(&["config", "user.email", &"x".repeat(400)]).unwrap();
        assert_eq!(email(&[dir.path().into()]), None, "nobody's address");
    }
}
