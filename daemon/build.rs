//! Version, commit and its date for `--version`; the version alone where this is no checkout of its own.

#![allow(clippy::print_stdout, reason = "so a build script speaks to cargo")]

use std::{path::Path, process::Command};

fn main() {
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo::rerun-if-changed=build.rs");
    let text = commit().map_or_else(|| version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=CC_LANGFUSE_VERSION={text}");
}

fn commit() -> Option<String> {
    // Not the repository that an unpacked archive happens to lie in.
    let top = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if Path::new("..").canonicalize().ok()? != top {
        return None;
    }
    // Changes with each commit and checkout; that files differ from the commit is seen when they are built.
    for path in [git(&["rev-parse", "--git-path", "logs/HEAD"])?.as_str(), "src", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let commit = git(&["log", "-1", "--abbrev=12", "--format=%h %cs"])?;
    let (hash, date) = commit.split_once(' ')?;
    let dirty = if git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() { "" } else { "-dirty" };
    Some(format!("{hash}{dirty} {date}"))
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
