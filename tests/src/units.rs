//! The units that start the daemon, and a service manager's end of them.

use std::{
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
};

use crate::{Home, TIMEOUT};

/// The service unit.
pub const SERVICE: &str = include_str!("../../systemd/cc-langfused.service");

/// The value of a directive of the service.
///
/// # Panics
/// If it does not occur exactly once.
pub fn directive(name: &str) -> &'static str {
    let values: Vec<_> = SERVICE.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect();
    let [value] = values[..] else { panic!("{name} is there {} times", values.len()) };
    value
}

/// The output of `program args`; `None` if it cannot be run or fails.
pub fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A manager's end of `NOTIFY_SOCKET`, and the value of that variable.
pub fn notified(home: &Home) -> (UnixDatagram, String) {
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(TIMEOUT)).expect("set");
    (socket, path.to_str().expect("UTF-8").to_owned())
}

/// The next message to the manager.
pub fn received(socket: &UnixDatagram) -> String {
    let mut state = [0; 256];
    let length = socket.recv(&mut state).expect("ready in time");
    String::from_utf8_lossy(&state[..length]).into_owned()
}
