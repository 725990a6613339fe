//! `cc-langfuse-hook`: hands one Claude Code hook event to the daemon and exits.
//!
//! Claude Code waits for this process, so it does as little as possible: no runtime, no JSON, hardly any allocation.
//! The daemon judges what the event means.
//!
//! Whatever happens it exits 0 and prints nothing: Claude Code shows a hook's failure to its user, and gives what a hook
//! prints to the model. Only a person who asks for its version or for help on a terminal gets an answer.

#![no_main]

mod asked;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use interprocess::{
    ConnectWaitMode,
    local_socket::{ConnectOptions, GenericFilePath, Stream, prelude::*},
};
use proto::{
    MAX_PAYLOAD, env,
    frame::Frame,
    paths::{Paths, UnsafeDir, check_private},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

/// Limit for connecting, sending and the daemon's answer together; after that the event is spooled.
const DELIVERY: Duration = Duration::from_millis(250);

/// Largest `config.toml` that is read, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// Where the daemon looks for git and for the program of a `secret_command`.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin";

/// How long stdin may stay silent before the hook drops the event: Claude Code writes and closes it at once.
const STDIN_SILENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// How many events, and how many bytes, the spool holds before the oldest are removed.
const SPOOL_FILES: usize = 1000;
const SPOOL_BYTES: u64 = 16 << 20;

/// The C entry point: the standard library's own start-up reads `/proc/self/maps` and sets up an overflow handler,
/// which takes as long as all of the work below. The one thing it would do for this program, ignoring SIGPIPE, is not
/// needed: nothing is written to a pipe, and sockets are written without signals.
#[allow(unsafe_code, reason = "the name of the C entry point; nothing else in this program has it")]
#[unsafe(no_mangle)]
pub extern "C" fn main(arguments: i32) -> i32 {
    std::panic::set_hook(Box::new(|_| {}));
    let _ = std::panic::catch_unwind(|| {
        // The first argument is the program's name.
        if arguments > 1 && asked::answer().is_some() { Some(()) } else { run() }
    });
    0
}

/// Delivers the event, spools it or, if neither is possible, drops it; `None` and `Some` only shorten the code.
fn run() -> Option<()> {
    let enabled = env::is_on(|name| std::env::var(name).ok());
    if !enabled {
        return None;
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    let paths = Paths::new(Path::new(&home), std::env::var_os(env::STATE_DIR).as_deref());
    let (payload, cut) = read_payload();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos() as u64;
    let frame = Frame {
        id: format!("{now:x}-{:x}", std::process::id()),
        fired_ns: now,
        cut,
        env: env::forwarded().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect(),
        payload,
    };
    let Err(why) = deliver(&paths, &frame) else { return Some(()) };
    let kept = spool(&paths, &frame);
    if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        start(Path::new(&home), &paths);
    }
    kept.ok()
}

/// Starts the daemon if none listens and the user's own `config.toml` asks for hooks to start it. The new daemon takes
/// over the spool; if another one started first, it exits by itself.
///
/// Neither the directory nor the environment of a project reaches it: the program is the one beside this one, and
/// `HOME` is the only variable passed on. Hooks start no daemon for a state directory that a variable names.
fn start(home: &Path, paths: &Paths) -> Option<()> {
    if std::env::var_os(env::STATE_DIR).is_some() || !is_wanted(&paths.config)? {
        return None;
    }
    let daemon = std::env::current_exe().ok()?.parent()?.join("cc-langfused");
    let owner = fs::metadata(&daemon).ok().filter(|meta| meta.is_file() && meta.mode() & 0o002 == 0)?.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut command = std::process::Command::new(daemon);
    command.arg("--detached").env_clear().env("HOME", home).env("PATH", PATH).current_dir("/");
    let none = std::process::Stdio::null;
    command.stdin(none()).stdout(none()).stderr(none()).spawn().ok().map(drop)
}

/// True if only the user can change `config` and it says `start = "hook"` before its first table. The daemon reads it
/// as TOML and says what is wrong with it.
fn is_wanted(config: &Path) -> Option<bool> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(config).ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_CONFIG).read_to_string(&mut text).ok()?;
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    let said = lines.filter_map(|line| {
        let value = line.strip_prefix("start")?.trim_start().strip_prefix('=')?.trim_start();
        Some(value.starts_with("\"hook\"") || value.starts_with("'hook'"))
    });
    said.last()
}

/// Reads stdin to its end, so that Claude Code never meets a closed pipe, and keeps the first [`MAX_PAYLOAD`] bytes.
fn read_payload() -> (Vec<u8>, bool) {
    let mut stdin = io::stdin().lock();
    let mut kept = Vec::with_capacity(8 << 10);
    let mut cut = false;
    let mut chunk = [0; 16 << 10];
    loop {
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&STDIN_SILENCE)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(1..) => {}
            _ => break,
        }
        match stdin.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(n) => {
                let room = n.min(MAX_PAYLOAD - kept.len());
                kept.extend_from_slice(&chunk[..room]);
                cut |= room < n;
            }
        }
    }
    (kept, cut)
}

/// One request over the socket; `Ok` only if the daemon answers that the event is committed.
fn deliver(paths: &Paths, frame: &Frame) -> io::Result<()> {
    let deadline = Instant::now() + DELIVERY;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let refused = |why| match why {
        UnsafeDir::Missing => io::Error::from(io::ErrorKind::NotFound),
        _ => io::Error::from(io::ErrorKind::PermissionDenied),
    };
    check_private(paths.socket.parent().unwrap_or(&paths.state)).map_err(refused)?;
    let name = paths.socket.as_path().to_fs_name::<GenericFilePath>()?;
    let mut stream: Stream =
        ConnectOptions::new().name(name).wait_mode(ConnectWaitMode::Timeout(left()?)).connect_sync()?;
    // The frame carries the secret key: it goes to a process of the same user or nowhere.
    if stream.peer_creds()?.euid() != Some(rustix::process::geteuid().as_raw()) {
        return Err(refused(UnsafeDir::OtherOwner));
    }
    let body = frame.encode();
    let mut request = format!(
        "POST {} HTTP/1.1\r\nhost: cc-langfuse\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        proto::HOOK_PATH,
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    stream.set_send_timeout(Some(left()?))?;
    stream.write_all(&request)?;
    let mut answer = [0; 256];
    let mut got = 0;
    while got < b"HTTP/1.1 2".len() {
        stream.set_recv_timeout(Some(left()?))?;
        match stream.read(&mut answer[got..])? {
            0 => break,
            n => got += n,
        }
    }
    if answer.starts_with(b"HTTP/1.1 2") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Leaves the event, without its secret, for the daemon to find. Refuses a spool where others could read or replace it.
fn spool(paths: &Paths, frame: &Frame) -> io::Result<()> {
    private_dir(&paths.state)?;
    private_dir(&paths.spool)?;
    let [part, whole] = ["part", "event"].map(|ext| paths.spool.join(format!("{}.{ext}", frame.id)));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(&frame.encode_for_disk()).and_then(|()| fs::rename(&part, whole)).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })?;
    make_room(paths)
}

/// Creates `dir` if it is missing; refuses an existing one that is not private.
fn private_dir(dir: &Path) -> io::Result<()> {
    let mut checked = check_private(dir);
    if checked == Err(UnsafeDir::Missing) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        checked = check_private(dir);
    }
    checked.map_err(|_| io::ErrorKind::PermissionDenied.into())
}

/// Removes the oldest events when the spool holds too many or they are too large: the daemon may never start. A removed
/// event loses only the time the model stopped; the conversation itself is in the transcripts, and a later event of the
/// session leads there.
fn make_room(paths: &Paths) -> io::Result<()> {
    let spool = &paths.spool;
    let ours = rustix::process::geteuid().as_raw();
    let mut files = Vec::new();
    let mut size = 0;
    for entry in fs::read_dir(spool)?.filter_map(Result::ok) {
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.file_name();
        let event = Path::new(&name).extension().is_some_and(|ext| ext == "event" || ext == "part");
        if event && meta.is_file() && meta.uid() == ours {
            size += meta.len();
            files.push((name, meta.len()));
        }
    }
    let mut count = files.len();
    // Names begin with the time.
    files.sort();
    let mut evicted = Vec::new();
    for (name, length) in files {
        if count <= SPOOL_FILES && size <= SPOOL_BYTES {
            break;
        }
        // Another hook may remove files too: each file is counted by the hook that removed it.
        if fs::remove_file(spool.join(name)).is_ok() {
            evicted.push(b'.');
        }
        count -= 1;
        size -= length;
    }
    if evicted.is_empty() {
        return Ok(());
    }
    // The daemon counts these bytes.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed())
        .open(&paths.evicted)?;
    file.write_all(&evicted)
}
