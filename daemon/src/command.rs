//! Runs another program and returns its output, within a time limit. Blocks for that long: call it from a thread that has
//! nothing else to do.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process_group},
};
use zeroize::Zeroizing;

use crate::{clock, environment};

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The program is missing or may not be run.
    #[error("cannot be started: {0}")]
    Start(#[source] io::Error),
    /// It exceeded this time limit.
    #[error("did not end within {0:?}")]
    Late(Duration),
    /// It wrote more bytes than this.
    #[error("wrote more than {0} bytes")]
    Long(usize),
    /// Its output cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It exited with this status.
    #[error("failed with {0}")]
    Status(ExitStatus),
}

/// Runs `command` and returns its output of at most `longest` bytes. It has no input, its errors are discarded, and
/// after `limit` it is killed with all its children.
///
/// # Errors
/// [`Failed`].
pub fn output(mut command: Command, limit: Duration, longest: usize) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let deadline = clock::monotonic() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(Failed::Start)?;
    let said = match child.stdout.take() {
        Some(stdout) => read(stdout, deadline, longest),
        None => Ok(None),
    };
    // A process that has exited keeps its own status.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let ended = child.wait().map_err(Failed::Read)?;
    let said = said?.ok_or(Failed::Late(limit))?;
    if ended.success() || ended.code().is_none() { Ok(said) } else { Err(Failed::Status(ended)) }
}

/// All output; `None` if it does not end in time.
fn read(mut from: ChildStdout, deadline: Instant, longest: usize) -> Result<Option<Zeroizing<Vec<u8>>>, Failed> {
    // Allocated once: growing would leave copies of a secret in memory.
    let mut said = Zeroizing::new(Vec::with_capacity(longest));
    loop {
        let Some(left) = deadline.checked_duration_since(clock::monotonic()) else { return Ok(None) };
        let timeout = Timespec::try_from(left).ok();
        let ready = poll(&mut [PollFd::new(&from, PollFlags::IN)], timeout.as_ref());
        if ready.map_err(|errno| Failed::Read(errno.into()))? == 0 {
            return Ok(None);
        }
        let mut part = Zeroizing::new([0; 512]);
        match from.read(&mut *part).map_err(Failed::Read)? {
            0 => return Ok(Some(said)),
            n if said.len() + n > longest => return Err(Failed::Long(longest)),
            n => said.extend_from_slice(&part[..n]),
        }
    }
}

/// The output of a program.
pub struct Said {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs `command`, and kills it with all its children if it takes longer than `timeout`.
///
/// # Errors
/// If it cannot be started, or was killed.
pub fn run(mut command: Command, timeout: Duration) -> io::Result<Said> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
    let (sender, lines) = mpsc::channel();
    let pipes: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|pipe| Box::new(pipe) as _), child.stderr.take().map(|pipe| Box::new(pipe) as _)];
    for (at, pipe) in pipes.into_iter().enumerate() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            let _ = sender.send((at, String::from_utf8_lossy(&bytes).into_owned()));
        });
    }
    let mut texts = [String::new(), String::new()];
    for _ in 0..texts.len() {
        let Ok((at, text)) = lines.recv_timeout(timeout) else {
            let _ = rustix::process::kill_process_group(
                rustix::process::Pid::from_child(&child),
                rustix::process::Signal::KILL,
            );
            let _ = child.wait();
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end within {timeout:?}")));
        };
        texts[at] = text;
    }
    let status = child.wait()?;
    let [out, err] = texts;
    Ok(Said { status, out, err })
}

/// The program `name` on `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let dirs = environment::raw("PATH")?;
    std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.is_absolute() && is_executable(path))
}

/// True if it is an executable file.
pub fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_says_all_it_says_in_time_or_nothing() {
        let run = |script: &str, limit: u64| {
            let mut sh = Command::new("sh");
            sh.args(["-c", script]);
            output(sh, Duration::from_millis(limit), 100)
        };
        for (script, expect) in
            [("echo one; echo two", "one\ntwo\n"), ("echo; echo no >&2", "\n"), ("cat", ""), ("true", "")]
        {
            assert_eq!(**run(script, 20_000).as_ref().unwrap(), *expect.as_bytes(), "{script}");
        }
        for (script, limit, expect) in [
            ("echo half; sleep 60", 200, "did not end within 200ms"),
            ("sleep 60 & echo x", 200, "did not end within 200ms"),
            ("echo x; exit 3", 20_000, "failed with exit status: 3"),
            ("yes", 20_000, "wrote more than 100 bytes"),
        ] {
            let began = Instant::now();
            assert_eq!(run(script, limit).unwrap_err().to_string(), expect, "{script}");
            assert!(began.elapsed() < Duration::from_secs(30), "{script}: what it started is not waited for");
        }
        let missing = output(Command::new("/no/such/program"), Duration::from_secs(1), 100).unwrap_err();
        assert!(matches!(missing, Failed::Start(_)), "{missing}");
    }
}
