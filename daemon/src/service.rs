//! The service manager: readiness notifications, and the socket it may pass. Without a manager, as under launchd or in a shell,
//! nothing happens here.

use std::{
    io,
    os::unix::net::{UnixDatagram, UnixListener},
};

use listenfd::ListenFd;

use crate::environment;
use cc_core::visible;

/// The socket that systemd passed, if it did. To be called once, before any thread is started, because it removes the variables
/// from the environment.
///
/// # Errors
/// What was passed is not exactly one Unix stream socket.
pub fn passed() -> io::Result<Option<UnixListener>> {
    let mut passed = ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => passed.take_unix_listener(0),
        n => Err(io::Error::other(format!("{n} sockets were passed, one is expected"))),
    }
}

/// Sends `state`, such as `READY=1`, to the manager if it listens at a path, as user managers do. Nobody listening counts as no
/// manager.
pub fn notify(state: &str) {
    // A line break would begin another assignment.
    let state = &*visible::line(state);
    if let Some(address) = environment::raw("NOTIFY_SOCKET")
        && let Err(error) = UnixDatagram::unbound().and_then(|socket| socket.send_to(state.as_bytes(), &address))
    {
        tracing::warn!(%error, state, "the service manager does not answer");
    }
}
