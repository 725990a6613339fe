//! A client of the daemon's socket that is not the hook.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use proto::frame::Frame;
use serde_json::Value;

/// The event that a hook would make of `payload`.
pub fn frame(id: &str, payload: &Value, env: &[(String, String)]) -> Frame {
    Frame { id: id.into(), fired_ns: 1, cut: false, env: env.to_vec(), payload: payload.to_string().into_bytes() }
}

/// The request that a hook would make of an encoded event.
pub fn request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: cc-langfuse\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        proto::HOOK_PATH,
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends `body` to the daemon like a hook; returns the status of the answer.
///
/// # Errors
/// If there is no answer within `timeout`.
pub fn post(socket: &Path, body: &[u8], timeout: Duration) -> io::Result<u16> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(&request(body))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
