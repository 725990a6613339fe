//! Which settings trace a session: what the real Claude Code does beside what the commands say.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tests::{
    bins, home,
    messages_api::{MessagesApi, Reply},
    real_claude::{Scene, env, manage, scene},
};

/// A machine with Claude Code and a running daemon, where nothing is set up.
struct Machine {
    scene: Scene,
    daemon: Option<home::Daemon>,
}

impl Machine {
    fn new(test: &str) -> Option<Self> {
        let reply = Reply {
            content: vec![json!({"type": "text", "text": "It is done."})],
            usage: json!({"input_tokens": 11, "output_tokens": 3}),
        };
        let scene = Scene { api: MessagesApi::new(vec![reply; 20]), ..scene(test)? };
        Some(Self { daemon: Some(scene.home.daemon()), scene })
    }

    /// What `setup` would write, as a settings file.
    fn settings(&self) -> String {
        let command = format!("[ -x {0} ] && exec {0}; :", bins().hook.display());
        let hook = json!([{ "hooks": [{ "type": "command", "command": command }] }]);
        let env: serde_json::Map<_, _> =
            self.scene.server.env().into_iter().map(|(name, value)| (name, Value::from(value))).collect();
        json!({ "env": env, "hooks": { "Stop": hook } }).to_string()
    }

    fn write(&self, file: &Path) {
        fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        fs::write(file, self.settings()).expect("written");
    }

    /// Lets Claude Code answer one prompt in `dir`, with `more` arguments.
    fn prompt(&self, dir: &Path, more: &[&str]) {
        let mut command = self.scene.home.command(&self.scene.claude);
        let own = env(&self.scene.api, &self.scene.server);
        let own = own.iter().filter(|(name, _)| !name.contains("LANGFUSE"));
        command.args(["-p", "Do it."]).args(more).envs(own.map(|(name, value)| (name, value))).current_dir(dir);
        let output = home::run(command, b"").0;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    /// How many turns the server has.
    fn turns(&self) -> usize {
        self.scene.home.flush();
        self.scene.server.spans().iter().filter(|span| span.is_root()).count()
    }

    /// The states of what `doctor` says about the hook and the switch in `dir`.
    fn doctor(&self, dir: &Path) -> [String; 2] {
        let mut command = self.scene.home.command(&bins().ctl);
        command.args(["doctor", "--json", "--no-probe"]).current_dir(dir);
        let output = home::run(command, b"").0;
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let findings = report["findings"].as_array().expect("findings");
        ["hook-events", "tracing"].map(|check| {
            let state = findings.iter().find(|found| found["check"] == check).map(|found| &found["state"]);
            state.and_then(Value::as_str).unwrap_or("missing").to_owned()
        })
    }

    /// What `backfill` would send.
    fn untraced(&self) -> String {
        let output = self.scene.home.ctl(&["backfill", "--dry-run"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

fn git(dir: &Path, args: &[&str]) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=x", "-c", "user.email=x@example.org"]).args(args).current_dir(dir);
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// A repository with a directory below it, and a linked worktree.
fn repository(home: &tests::Home, name: &str) -> [PathBuf; 3] {
    let repo = home.project(name);
    let sub = repo.join("sub/dir");
    fs::create_dir_all(&sub).expect("a directory");
    git(&repo, &["init", "-q"]);
    git(&repo, &["commit", "-q", "--allow-empty", "-m", "first"]);
    let tree = home.path().join(format!("{name}-tree"));
    git(&repo, &["worktree", "add", "-q", tree.to_str().expect("text")]);
    [repo, sub, tree]
}

#[test]
fn doctor_and_backfill_agree_with_the_real_claude_code_about_where_tracing_is_on() {
    let test = "doctor_and_backfill_agree_with_the_real_claude_code_about_where_tracing_is_on";
    let Some(machine) = Machine::new(test) else { return };
    let home = &machine.scene.home;
    let [local, local_sub, local_tree] = repository(home, "local");
    machine.write(&local.join(".claude/settings.local.json"));
    let [shared, shared_sub, shared_tree] = repository(home, "shared");
    machine.write(&shared.join(".claude/settings.json"));
    // A repository's own file chooses the server here; the user agrees.
    let trusted = home.ctl(&["trust", &machine.scene.server.url, "pk-lf-test"]);
    assert!(trusted.status.success(), "{trusted:?}");
    let plain = home.project("plain");
    let check = |what: &str, dir: &Path| {
        let before = machine.turns();
        machine.prompt(dir, &[]);
        let traced = machine.turns() > before;
        let said = machine.doctor(dir);
        let expect = if traced { ["ok", "ok"] } else { ["problem", "problem"] };
        assert_eq!(said, expect, "{what} ({}): traced is {traced}", dir.display());
        traced
    };
    // What was traced is there; where tracing is off, nothing is offered.
    let is_complete = || assert!(machine.untraced().contains("nothing to add"), "{}", machine.untraced());
    assert!(check("local settings", &local));
    assert!(check("local settings of the git root", &local_sub));
    assert!(check("local settings of the main worktree", &local_tree));
    assert!(check("shared settings", &shared));
    check("shared settings of the git root", &shared_sub);
    check("shared settings, not committed, of the main worktree", &shared_tree);
    assert!(!check("no settings", &plain));
    is_complete();
    if manage(test, &machine.settings()) {
        assert!(check("managed settings", &plain));
    }
}

#[test]
fn a_resumed_session_brings_its_earlier_turns_unless_setup_leaves_them_out() {
    let test = "a_resumed_session_brings_its_earlier_turns_unless_setup_leaves_them_out";
    for (more, expect) in [(&[][..], 2), (&["--from-now"][..], 1)] {
        let Some(mut machine) = Machine::new(test) else { return };
        // The daemon starts with `setup`, and has not seen the project without tracing.
        machine.daemon = None;
        let dir = machine.scene.home.project("work");
        machine.prompt(&dir, &[]);
        let home = &machine.scene.home;
        let keys: Vec<_> = machine.scene.server.env();
        let setup = [&["setup", "--user", "--yes", "--no-service", "--no-check"], more].concat();
        let output = home.ctl_with(&setup, &keys);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        machine.daemon = Some(home.daemon());
        machine.prompt(&dir, &["--continue"]);
        assert_eq!(machine.turns(), expect, "{more:?}");
    }
}
