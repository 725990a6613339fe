//! What git knows of the user. It may take its time: nobody asks it who has something else to do.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{clock, environment};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Value of `LANGFUSE_USER_ID` that stands for the address git has.
pub const EMAIL: &str = "git-email";

/// How long git may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest address, in bytes.
const LONGEST: u64 = 320;

/// `user.email` as git has it in the first of `dirs` where it has one. Reading its settings runs nothing of a repository's.
pub fn email(dirs: &[PathBuf]) -> Option<String> {
    dirs.iter().find_map(|dir| ask(dir))
}

fn ask(dir: &Path) -> Option<String> {
    let kept = ["HOME", "PATH", "XDG_CONFIG_HOME"].into_iter().filter_map(|name| Some((name, environment::raw(name)?)));
    let mut git = Command::new("git")
        .args(["config", "--get", "user.email"])
        .current_dir(dir)
        .env_clear()
        .envs(kept)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let said = git.stdout.take().and_then(|stdout| read(stdout, clock::monotonic() + PATIENCE));
    let _ = git.kill();
    let ended = git.wait().ok()?;
    let email = said?.trim().to_owned();
    (!email.is_empty() && (ended.success() || ended.code().is_none())).then_some(email)
}

/// All of it, if it ends in time and is no longer than an address.
fn read(mut from: std::process::ChildStdout, deadline: Instant) -> Option<String> {
    let mut said = Vec::new();
    loop {
        let left = deadline.checked_duration_since(clock::monotonic())?;
        let timeout = Timespec::try_from(left).ok()?;
        if poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&timeout)).ok()? == 0 {
            return None;
        }
        let mut part = [0; 512];
        match from.read(&mut part).ok()? {
            0 => return String::from_utf8(said).ok(),
            n => said.extend_from_slice(&part[..n]),
        }
        if said.len() as u64 > LONGEST {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
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
