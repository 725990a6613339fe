//! The service manager: what it wants to be told, and the socket it may hand over. Where there is none, as under launchd or
//! in a shell, nothing happens here.

use std::{
    io,
    os::unix::net::{UnixDatagram, UnixListener},
};

use listenfd::ListenFd;

use crate::environment;
use cc_core::visible;

/// The socket systemd listens on for us, if it does. Asked once, before any thread is started: the answer is taken out of
/// the environment.
///
/// # Errors
/// What was passed is not one Unix stream socket.
pub fn passed() -> io::Result<Option<UnixListener>> {
    let mut passed = ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => passed.take_unix_listener(0),
        n => Err(io::Error::other(format!("{n} sockets were passed, one is expected"))),
    }
}

/// Tells the manager `state`, such as `READY=1`; where, a path tells, as user managers give it. Nobody listening is as good as
/// no manager.
pub fn tell(state: &str) {
    // A line break would begin another assignment.
    let state = &*visible::line(state);
    if let Some(address) = environment::raw("NOTIFY_SOCKET")
        && let Err(error) = UnixDatagram::unbound().and_then(|socket| socket.send_to(state.as_bytes(), &address))
    {
        tracing::warn!(%error, state, "the service manager cannot be told");
    }
}
