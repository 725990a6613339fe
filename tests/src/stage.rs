//! A home in which all is well, for `doctor` to find what a test breaks in it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{Daemon, Home, Server, Story, bins, home::run};

/// What is on PATH says it is this version.
pub const CURRENT: &str = "2.1.329";

/// A home in which all is well, to be broken.
pub struct Stage {
    pub home: Home,
    pub server: Server,
    pub daemon: Option<Daemon>,
    pub project: PathBuf,
    /// The only directory on PATH.
    pub bin: PathBuf,
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    /// Without a daemon.
    pub fn new() -> Self {
        let (home, server) = (Home::new(), Server::new());
        let (project, bin) = (home.project("p"), home.project("bin"));
        let stage = Self { daemon: None, project, bin, home, server };
        stage.program("claude", &format!("echo '{CURRENT} (Claude Code)'"));
        stage.program("systemctl", "exit 1");
        fs::copy(&bins().hook, stage.hook()).expect("the hook");
        chmod(&stage.hook(), 0o755);
        let hook = stage.hook();
        stage.register(&[("Stop", &hook.display().to_string())]);
        stage.home.settings("p", &stage.server.env());
        stage
    }

    /// With a daemon that has heard of a session and delivered it.
    pub fn running() -> Self {
        let mut stage = Self::new();
        stage.daemon = Some(stage.home.daemon());
        let mut story = Story::new(&stage.home, "p", "s");
        story.turn("q", "a");
        stage.home.hook(&story.stop("a"), &stage.server.env());
        stage.server.wait_for(2);
        stage.home.flush();
        stage
    }

    /// A program on `PATH`.
    pub fn program(&self, name: &str, script: &str) {
        fs::write(self.bin.join(name), format!("#!/bin/sh\n{script}\n")).expect("a program");
        chmod(&self.bin.join(name), 0o755);
    }

    /// The hook's program.
    pub fn hook(&self) -> PathBuf {
        self.home.path().join("bin/cc-langfuse-hook")
    }

    pub fn user_settings(&self) -> PathBuf {
        self.home.path().join(".claude/settings.json")
    }

    pub fn register(&self, hooks: &[(&str, &str)]) {
        let entry = |command: &str| json!([{"hooks": [{"type": "command", "command": command}]}]);
        let hooks: serde_json::Map<String, Value> =
            hooks.iter().map(|(event, command)| ((*event).to_owned(), entry(command))).collect();
        self.write_user(&json!({ "hooks": hooks }).to_string());
    }

    pub fn write_user(&self, text: &str) {
        fs::create_dir_all(self.home.path().join(".claude")).expect("a directory");
        fs::write(self.user_settings(), text).expect("settings");
    }

    /// What `doctor --json` finds.
    pub fn doctor(&self, more: &[&str]) -> Seen {
        let mut command = self.home.command(&bins().ctl);
        command.args(["doctor", "--json"]).args(more).env("PATH", &self.bin).current_dir(&self.project);
        let output = run(command, b"").0;
        let all = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&all).into_owned();
        for secret in ["sk-lf-test", &STANDARD.encode("pk-lf-test:sk-lf-test")] {
            assert!(!text.contains(secret), "a key is shown: {text}");
        }
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {text}"));
        let seen = Seen { code: output.status.code(), report };
        let expect = if seen.report["worst"] == "problem" { 1 } else { 0 };
        assert_eq!(seen.code, Some(expect), "{}", seen.report);
        seen
    }
}

pub struct Seen {
    pub code: Option<i32>,
    pub report: Value,
}

impl Seen {
    /// Every finding that is not well, but for the disk of the machine that runs the tests.
    pub fn failing(&self) -> Vec<&str> {
        let findings = self.report["findings"].as_array().expect("findings").iter();
        let failing = findings.filter(|finding| finding["state"] != "ok" && finding["check"] != "disk");
        failing.map(|finding| finding["check"].as_str().expect("a check")).collect()
    }

    /// The finding of `check`, which is there once.
    pub fn finding(&self, check: &str) -> &Value {
        let findings = self.report["findings"].as_array().expect("findings");
        let mut found = findings.iter().filter(|finding| finding["check"] == check);
        let finding = found.next().unwrap_or_else(|| panic!("no {check}: {}", self.report));
        assert!(found.next().is_none(), "{check} is there twice: {}", self.report);
        finding
    }

    /// `check` is in this state, what was seen and the remedy contain these.
    #[track_caller]
    pub fn has(&self, check: &str, state: &str, seen: &str, remedy: &str) {
        let finding = self.finding(check);
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(finding["state"], state, "{}", self.report);
        assert!(text("seen").contains(seen), "{seen:?} is not in {finding}");
        assert!(text("remedy").contains(remedy), "{remedy:?} is not in {finding}");
        assert_eq!(finding["remedy"].is_null(), state == "ok", "{finding}");
    }
}

/// Sets a mode.
pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}
