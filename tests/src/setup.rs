//! Users' settings files, and `setup` and `uninstall` on them.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{Home, bins, home::run, say};

/// A secret key.
pub const SECRET: &str = "sk-lf-0a1b2c3d-canary-77aa";

/// Flags that answer all questions of `setup`.
pub const KEYS: [&str; 6] =
    ["--public-key", "pk-lf-1", "--secret-key", SECRET, "--base-url", "https://langfuse.example.org"];

/// Flags for no server and no service.
pub const QUIET: [&str; 3] = ["--yes", "--no-check", "--no-service"];

/// Settings files as people have them.
pub const FILES: [&str; 9] = [
    "",
    "{}",
    "{ }\n",
    "{\n  \"model\": \"opus\"\n}\n",
    "{\r\n\t\"env\": {\"A\": \"1\"},\r\n\t\"hooks\": { }\r\n}",
    "\u{feff}{\"env\":{\"A\":\"1\"},\"hooks\":{\"Stop\":[{\"hooks\":[{\"type\":\"command\",\"command\":\"say\"}]}]}}",
    "{\n    \"hooks\": {\n        \"Stop\": [\n        ]\n    },\n    \"x\": [1,2,\n 3], \"x\": 2\n}\n\n",
    "{\n  \"env\": {\"LANGFUSE_SECRET_KEY\": \"sk-lf-former-canary-0001\", \"CC_LANGFUSE_BASE_URL\": \"https://old\"}\n}",
    "{\"hooks\": {\"Stop\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"'/old place/cc-langfuse-hook'\"}]}]}}",
];

/// Runs `cc-langfusectl` in `dir`, with `path` as its `PATH` if given.
pub fn ctl(home: &Home, dir: &Path, path: Option<&Path>, args: &[&str]) -> Output {
    let mut command = home.command(&bins().ctl);
    command.args(args).current_dir(dir);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    run(command, b"").0
}

/// Runs `setup` with [`KEYS`].
pub fn setup(home: &Home, dir: &Path, scope: &str, more: &[&str]) -> Output {
    ctl(home, dir, None, &[&["setup", scope][..], &KEYS, more].concat())
}

/// The output of a program.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The output of a program that must succeed.
pub fn succeeds(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
    text(output)
}

/// A settings file with `content`; returns the directory to run in, and the flag that selects the file.
pub fn place(home: &Home, scope: &'static str, content: Option<&str>) -> (PathBuf, PathBuf) {
    let dir = home.project("work");
    let file = match scope {
        "--user" => home.path().join(".claude/settings.json"),
        _ => dir.join(".claude/settings.local.json"),
    };
    if let Some(content) = content {
        fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        fs::write(&file, content).expect("written");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("its mode");
    }
    (dir, file)
}

/// A settings file, parsed.
pub fn json_of(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("a file");
    serde_json::from_str(text.trim_start_matches('\u{feff}')).expect("JSON")
}

/// Every file below `dir`, with mode and content.
pub fn files(dir: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o7777;
            found.push((path.clone(), mode, fs::read(&path).expect("readable")));
        }
    }
    found.sort();
    found
}

/// A program that is a shell script.
pub fn script(dir: &Path, name: &str, body: &str) {
    fs::create_dir_all(dir).expect("made");
    let path = dir.join(name);
    // In another process, as in [`Home::install`].
    let mut written = Command::new("tee");
    written.arg(&path).stdout(Stdio::null()).stdin(Stdio::piped());
    let mut written = written.spawn().expect("tee runs");
    let text = format!("#!/bin/sh\n{body}\n");
    written.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    assert!(written.wait().expect("it ends").success(), "{}", path.display());
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
}

/// Runs git; `None` with a notice if git is missing.
pub fn git(dir: &Path, args: &[&str]) -> Option<String> {
    let Ok(output) = Command::new("git").current_dir(dir).env("HOME", dir).args(args).output() else {
        say("SKIPPED: no git here");
        return None;
    };
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
