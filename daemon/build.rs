//! Version, commit and commit date for `--version`. Only the version if the sources are not a git
//! checkout of their own.

#![allow(clippy::print_stdout, reason = "so a build script speaks to cargo")]
#![expect(clippy::disallowed_methods, reason = "so cargo speaks to a build script")]

use std::{path::Path, process::Command};

/// The paths from which the programs are built.
const SOURCES: [&str; 12] = [
    "src",
    "Cargo.toml",
    "../proto/src",
    "../proto/Cargo.toml",
    "../Cargo.toml",
    "../Cargo.lock",
    "core/src",
    "core/Cargo.toml",
    "ctl/src",
    "ctl/Cargo.toml",
    "../systemd",
    "../launchd",
];

fn main() {
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo::rerun-if-changed=build.rs");
    let text = commit().map_or_else(|| version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=CC_LANGFUSE_VERSION={text}");
}

fn commit() -> Option<String> {
    // An archive may have been unpacked inside another repository.
    let top = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if Path::new("..").canonicalize().ok()? != top {
        return None;
    }
    for path in SOURCES.map(str::to_owned).into_iter().chain(head()) {
        println!("cargo::rerun-if-changed={path}");
    }
    let commit = git(&["log", "-1", "--abbrev=12", "--format=%h %cs"])?;
    let (hash, date) = commit.split_once(' ')?;
    let status = git(&[&["status", "--porcelain", "--untracked-files=no", "--"], &SOURCES[..]].concat())?;
    let dirty = if status.is_empty() { "" } else { "-dirty" };
    Some(format!("{hash}{dirty} {date}"))
}

/// The files that change when HEAD moves, and rarely otherwise. All of them exist: for a missing file Cargo would rebuild each time.
fn head() -> Vec<String> {
    let there = |path: &str| git(&["rev-parse", "--git-path", path]).filter(|path| Path::new(path).exists());
    match there("logs/HEAD") {
        Some(log) => vec![log],
        None => ["HEAD", "packed-refs", "refs/heads", "reftable"].into_iter().filter_map(there).collect(),
    }
}

fn git(args: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    // A git hook that runs this build sets these for its own repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(name);
    }
    // Without this, git may write to the index.
    let output = git.env("GIT_OPTIONAL_LOCKS", "0").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
