//! The basis of the black-box tests: the built programs, temporary homes, a server with scripted failures, and
//! recorded sessions.
//!
//! Nothing here depends on how the programs work inside: hooks are run like Claude Code runs them, and spans are
//! examined where they arrive.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

pub mod browser;
pub mod flat;
pub mod home;
pub mod messages_api;

pub mod langfuse;
pub mod lines;
pub mod proxy;
pub mod raw;
pub mod real;
pub mod real_claude;
pub mod recording;
pub mod scene;
pub mod scores;
pub mod scripted_api;
pub mod server;
pub mod setup;
pub mod source;
pub mod stage;
pub mod storage;
mod story;
pub mod strace;
pub mod terminal;
pub mod tls;
pub mod ui;
pub mod units;

pub use home::{Daemon, Home};
pub use proxy::Proxy;
pub use server::{Answer, Request, Server, Span};
pub use storage::MediaApi;
pub use story::Story;
pub use tls::{Authority, Identity};

/// How long a test waits for anything before it fails.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The built programs.
#[derive(Debug)]
pub struct Bins {
    /// `cc-langfuse-hook`.
    pub hook: PathBuf,
    /// `cc-langfused`.
    pub daemon: PathBuf,
    /// `cc-langfusectl`.
    pub ctl: PathBuf,
}

/// Builds the programs once per test process, in the directory and profile of the tests.
///
/// # Panics
/// If they cannot be built.
pub fn bins() -> &'static Bins {
    static BINS: OnceLock<Result<Bins, String>> = OnceLock::new();
    BINS.get_or_init(build).as_ref().expect("the programs can be built")
}

fn build() -> Result<Bins, String> {
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let dir = exe.parent().and_then(Path::parent).ok_or("not in target/PROFILE/deps")?;
    let target = dir.parent().ok_or("not in target/PROFILE")?;
    cargo(target, &["-p", "daemon", "-p", "ctl", "-p", "hook-client", "--bins"])?;
    let program = |name: &str| dir.join(name);
    Ok(Bins { hook: program("cc-langfuse-hook"), daemon: program("cc-langfused"), ctl: program("cc-langfusectl") })
}

/// The same with a second kind of backend in hook and daemon.
///
/// # Panics
/// If they cannot be built.
pub fn toys() -> &'static Bins {
    static TOYS: OnceLock<Result<Bins, String>> = OnceLock::new();
    TOYS.get_or_init(build_toys).as_ref().expect("the programs can be built")
}

fn build_toys() -> Result<Bins, String> {
    let usual = bins();
    let dir = usual.daemon.parent().ok_or("not in target/PROFILE")?;
    let target = dir.parent().ok_or("not in target/PROFILE")?;
    // The toy build of the daemon has its own name, that of the hook does not.
    cargo(target, &["-p", "daemon", "--features", "toy", "--bin", "cc-langfused-toy"])?;
    let apart = target.join("toy");
    cargo(&apart, &["-p", "hook-client", "--features", "toy", "--bins"])?;
    let profile = dir.file_name().unwrap_or_default();
    Ok(Bins {
        hook: apart.join(profile).join("cc-langfuse-hook"),
        daemon: dir.join("cc-langfused-toy"),
        ctl: usual.ctl.clone(),
    })
}

/// Builds what `args` name into `target`, with the profile of the tests.
fn cargo(target: &Path, args: &[&str]) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let is_release = exe.parent().and_then(Path::parent).is_some_and(|dir| dir.ends_with("release"));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--locked"])
        .args(args)
        .arg("--target-dir")
        .arg(target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    // Cargo sets variables about this package for the test. Build scripts that read them would run again each time.
    for (name, _) in std::env::vars_os() {
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"];
        if name.to_str().is_some_and(|name| of_package.iter().any(|part| name.starts_with(part))) {
            cargo.env_remove(name);
        }
    }
    if is_release {
        cargo.arg("--release");
    }
    let built = cargo.output().map_err(|error| error.to_string())?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    Ok(())
}

/// `short` tries, or `long` ones where `CC_LANGFUSE_LONG=1` asks for the long form (`.ci/run --long`).
pub fn tries(short: usize, long: usize) -> usize {
    if std::env::var("CC_LANGFUSE_LONG").is_ok_and(|value| value == "1") { long } else { short }
}

/// A fixed sequence of numbers that look random.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Each `seed` gives another sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The generator SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Prints something for the person who runs the tests, whether they pass or not: what was skipped or counted.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Reports that the present test is skipped, and why.
pub fn skipped(why: &str) {
    say(&format!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("a test")));
}

/// True if this process can act as any user; reports if not.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped("needs root");
    }
    root
}

/// Trace and span id of each of `spans`; these two identify a span.
pub fn ids(spans: &[Span]) -> BTreeSet<(String, String)> {
    spans.iter().map(|span| (span.trace_id.clone(), span.span_id.clone())).collect()
}

/// Waits until `found` returns something.
///
/// # Panics
/// After [`TIMEOUT`].
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {TIMEOUT:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `is_so` returns true.
///
/// # Panics
/// After [`TIMEOUT`].
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    until(what, || is_so().then_some(()));
}

/// Text that hardly compresses: what a proxy counts are compressed bytes.
pub fn noise(length: usize, seed: u64) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,;";
    let mut state = seed;
    let mut next = || {
        // The generator xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[(state >> 32) as usize % LETTERS.len()])
    };
    (0..length).map(|at| if at % 60 == 59 { ' ' } else { next() }).collect()
}
