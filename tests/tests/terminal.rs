//! Text from transcripts, repositories, servers and arguments is shown visibly, and has no effect on the terminal.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tests::{
    Answer, Daemon, Home, Server, Story, bins,
    home::{run, settings},
    server::env,
    setup::files,
    terminal::{harm, hostile, is_hidden, on_terminal},
};

/// Hostile text as it is shown.
const SEEN: &str = "\\u{1b}]0;";

struct Scene {
    home: Home,
    _daemon: Daemon,
    _server: Server,
    /// A transcript with hostile text in every field.
    story: Story,
    /// Another one, at a hostile path.
    elsewhere: PathBuf,
    /// A project in a hostile directory.
    dir: PathBuf,
    env: Vec<(String, String)>,
}

impl Scene {
    /// A home in which everything is hostile and known to the daemon.
    fn new() -> Self {
        let home = Home::new();
        let server = Server::answering(|request| {
            if request.path.starts_with("/api/public/projects") {
                let project = json!({"id": hostile("id"), "name": hostile("project")});
                Answer::status(200).body(&json!({"data": [project]}).to_string())
            } else {
                Answer::status(400).body(&hostile("body"))
            }
        });
        let daemon = home.daemon_with(&[("CC_LANGFUSE_DEBUG", "true")]);
        let dir = home.project(&hostile("dir"));
        settings(&dir.join(".claude/settings.local.json"), &[("LANGFUSE_USER_ID".into(), hostile("user"))]);
        fs::write(dir.join(".claude/settings.json"), format!("{{\n  \"x\": \"{}\"\n}}", "\u{9b}2J\u{202e}\u{7f}"))
            .unwrap();

        let mut story = Story::new(&home, "one", "one");
        story_of(&mut story);
        let env = env(&server.url, "pk-lf-test", "sk-lf-test");
        home.hook(&story.stop(&hostile("answer")), &env);

        let mut other = Story::new(&home, &hostile("project"), &hostile("sid"));
        other.cwd.clone_from(&dir);
        other.turn("question", "answer");
        let elsewhere = other.path.clone();
        home.hook(&other.stop("answer"), &env);

        let mut key = Story::new(&home, "three", "three");
        key.turn("question", "answer");
        let own = tests::server::env(&server.url, &hostile("pk"), "sk-lf-test");
        home.hook(&key.stop("answer"), &own);
        home.status_until("dead letters", |status| status["dead_letters"].as_u64().is_some_and(|count| count >= 6));
        Self { home, _daemon: daemon, _server: server, story, elsewhere, dir, env }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&bins().ctl);
        command.args(args).envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(&self.dir);
        command
    }

    /// Every command, and whether its output contains hostile text.
    fn commands(&self) -> Vec<(Vec<String>, bool)> {
        let story = self.story.path.to_str().unwrap();
        let elsewhere = self.elsewhere.to_str().unwrap();
        let (sid, arg) = (&*hostile("sid"), &*hostile("arg"));
        let runs: &[(&[&str], bool)] = &[
            (&[arg], true),
            (&["show", &format!("--{arg}")], true),
            (&["flush", "--timeout", arg], true),
            (&["try"], false),
            (&["setup", "--project", "--public-key", "pk-lf-x", "--yes", "--dry-run", "--no-service"], true),
            (&["setup", "--project", "--dry-run", "--base-url", arg], false),
            (&["uninstall", "--dry-run"], false),
            (&["start"], false),
            (&["view", "--help"], false),
            (&["usage", "--help"], false),
            (&["statusline"], false),
            (&["mcp"], false),
            (&["score", arg, "useful", "true"], true),
            (&["stop", "--help"], false),
            (&["restart", "--help"], false),
            (&["doctor", "--wait", "1s"], true),
            (&["doctor", "--json", "--no-probe"], false),
            (&["run", "--", arg], true),
            (&["status"], true),
            (&["status", "--json"], false),
            (&["top", "--once"], true),
            (&["sessions"], true),
            (&["sessions", "--json"], false),
            (&["open", "--print", story], false),
            (&["show", story], true),
            (&["show", story, "--json"], false),
            (&["show", elsewhere], false),
            (&["show", arg], true),
            (&["show", &format!("{arg}/x.jsonl")], true),
            (&["reconcile", story], true),
            (&["reconcile", story, "--json"], false),
            (&["logs"], true),
            (&["flush", "--timeout", "100ms"], false),
            (&["backfill", "--dry-run"], false),
            (&["backfill", "--dry-run", "--json"], false),
            (&["backfill", arg], true),
            (&["replay", elsewhere, "--dry-run"], false),
            (&["replay", &format!("{arg}/x.jsonl")], true),
            (&["import-state", arg], true),
            (&["pause", &format!("--{arg}")], true),
            (&["pause"], true),
            (&["resume"], true),
            (&["forget", sid], false),
            (&["forget", &format!("{arg}/x.jsonl")], true),
            (&["dead-letters"], true),
            (&["destinations"], true),
            (&["destinations", "drop", arg], true),
            (&["dead-letters", "--json"], false),
            (&["dead-letters", "--retry", arg], true),
            (&["trust", arg], true),
            (&["config"], true),
            (&["config", "--json"], false),
            (&["completions", arg], true),
            (&["completions", "bash"], false),
            (&["man"], false),
            (&["man", "/dev/null"], false),
        ];
        runs.iter().map(|(args, speaks)| (args.iter().map(|arg| (*arg).to_owned()).collect(), *speaks)).collect()
    }
}

/// Hostile text in every field that a transcript has.
fn story_of(story: &mut Story) {
    let base = |kind: &str, number: u32| {
        json!({
            "parentUuid": null, "isSidechain": false, "type": kind, "uuid": format!("own-{number}"), "sessionId": "one",
            "cwd": hostile("cwd"), "version": format!("2.9.9{}", hostile("version")), "gitBranch": hostile("branch"),
            "timestamp": format!("2026-11-20T08:00:{number:02}.000Z"), "slug": hostile("slug"),
        })
    };
    let mut number = 0;
    let mut line = |kind: &str, more: Value| {
        number += 1;
        let mut line = base(kind, number);
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        story.raw(line.to_string().as_bytes());
    };
    let answer = |id: &str, block: Value| {
        json!({"requestId": hostile("request"), "message": {
            "id": format!("{id}{}", hostile("message")), "type": "message", "role": "assistant", "model": hostile("model"),
            "content": [block], "stop_reason": hostile("stop"),
            "usage": {"input_tokens": 3, "output_tokens": 5, "service_tier": hostile("tier"), "speed": hostile("speed")},
        }})
    };
    line("summary", json!({"summary": hostile("summary"), "leafUuid": "x"}));
    line("custom-title", json!({"customTitle": hostile("title")}));
    line("user", json!({"message": {"role": "user", "content": hostile("prompt")}}));
    let tool = json!({"type": "tool_use", "id": hostile("tool"), "name": hostile("name"), "input": {hostile("key"): hostile("input")}});
    line("assistant", answer("a", tool));
    let result =
        json!({"type": "tool_result", "tool_use_id": hostile("tool"), "content": hostile("result"), "is_error": true});
    line("user", json!({"message": {"role": "user", "content": [result]}}));
    let error = json!({"message": hostile("error"), "status": 529, "type": hostile("type")});
    line(
        "system",
        json!({"subtype": "api_error", "level": "error", "error": error, "cause": {"code": hostile("cause")}}),
    );
    let compact = json!({"trigger": hostile("trigger"), "preTokens": 5});
    line("system", json!({"subtype": "compact_boundary", "content": hostile("compact"), "compactMetadata": compact}));
    line(&hostile("kind"), json!({hostile("field"): 1}));
    let slash =
        format!("<command-name>/{}</command-name><command-args>{}</command-args>", hostile("slash"), hostile("args"));
    line("user", json!({"message": {"role": "user", "content": slash}}));
    line("assistant", answer("b", json!({"type": "text", "text": hostile("answer")})));
}

#[test]
fn no_command_passes_control_characters_to_the_terminal() {
    let scene = Scene::new();
    let mut tried = BTreeSet::new();
    for (args, speaks) in scene.commands() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        tried.insert(args[0].to_owned());
        let output = run(scene.command(&args), b"sk-lf-x\n").0;
        for (stream, shown) in [("out", &output.stdout), ("err", &output.stderr)] {
            let shown = String::from_utf8_lossy(shown).replace('\t', " ");
            assert_eq!(harm(shown.as_bytes()), [""; 0], "{args:?} {stream}");
        }
        let all = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!speaks || all.contains("\\u{"), "{args:?} shows nothing hostile, so nothing is tried:\n{all}");
    }
    // A new command needs its line above.
    let help = String::from_utf8(run(scene.command(&["--help"]), b"").0.stdout).unwrap();
    let commands = help.split_once("Commands:").unwrap().1.split("\n\n");
    let lines = commands.flat_map(str::lines).take_while(|line| !line.starts_with("Options:"));
    for command in lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty()) {
        assert!(command == "help" || tried.contains(command), "{command} is not tried");
    }
}

#[test]
fn on_a_terminal_colours_are_the_only_control_sequences() {
    let scene = Scene::new();
    let story = scene.story.path.to_str().unwrap();
    for (args, keys) in [
        (&["show", story][..], ""),
        (&["status"], ""),
        (&["sessions"], ""),
        (&["logs"], ""),
        (&["dead-letters"], ""),
        (&["doctor", "-v", "--no-probe"], ""),
        (&["config"], ""),
        (&["setup", "--project", "--public-key", "pk-lf-x", "--dry-run", "--no-check", "--no-service"], ""),
        (&["top"], "q"),
        (&[&*hostile("arg")], ""),
    ] {
        let shown = on_terminal(scene.command(args), keys);
        assert_eq!(harm(shown.as_bytes()), [""; 0], "{args:?}");
        assert!(shown.contains("\\u{"), "{args:?} shows nothing hostile, so nothing is tried:\n{shown}");
    }
}

#[test]
fn json_output_escapes_hidden_characters_and_keeps_the_data() {
    let scene = Scene::new();
    let json = |args: &[&str]| {
        let output = run(scene.command(args), b"").0.stdout;
        assert_eq!(harm(&output), [""; 0]);
        serde_json::from_slice::<Value>(&output).unwrap()
    };
    let shown = json(&["show", scene.story.path.to_str().unwrap(), "--json"]);
    assert!(shown.as_array().unwrap().iter().any(|span| span["name"] == *hostile("name")), "{shown:#}");
    let status = json(&["status", "--json"]);
    let keys: Vec<&str> =
        status["destinations"].as_array().unwrap().iter().filter_map(|to| to["public_key"].as_str()).collect();
    assert!(keys.contains(&hostile("pk").trim()), "{keys:?}");
}

#[test]
fn hostile_text_adds_no_lines_to_log_and_metrics() {
    let scene = Scene::new();
    let log = scene.home.log();
    assert_eq!(harm(log.as_bytes()), [""; 0]);
    assert!(log.contains(SEEN), "{log}");
    for line in log.lines() {
        assert!(line.split(' ').next().is_some_and(|time| time.ends_with('Z') && time.starts_with("20")), "{line}");
    }
    let metrics = scene.home.ask("/metrics").replace('\r', "");
    assert_eq!(harm(metrics.as_bytes()), [""; 0]);
    assert!(metrics.contains(&SEEN.replace('\\', "\\\\")), "{metrics}");
}

#[test]
fn long_text_is_cut_for_people_and_complete_in_json() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "one", "one");
    story.turn("question", "answer");
    let long = format!("s{}", "x".repeat(1_000_000));
    let mut stop = story.stop("answer");
    stop["session_id"] = long.clone().into();
    home.hook(&stop, &server.env());
    home.status_until("the session", |status| {
        status["sessions"].as_array().is_some_and(|all| all.iter().any(|session| session["session_id"] == *long))
    });
    for args in [&["status"][..], &["sessions"], &["top", "--once"], &["logs"]] {
        let shown = String::from_utf8(home.ctl(args).stdout).unwrap();
        let longest = shown.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(longest <= 8192, "{args:?}: {longest}");
        if args[0] != "logs" {
            assert!(longest < 500 && shown.contains("sxxx") && shown.contains('…'), "{args:?}: {shown}");
        }
    }
}

/// The only module that prints, but for the hook's answer to a person on a terminal.
const OUTPUT: &str = "output.rs";
const OF_HOOK: &str = "hook-client/src/asked.rs";

/// Other ways to print, or to control a terminal.
const PRINTS: [&str; 9] =
    ["println!", "print!(", concat!("dbg", "!("), "stdout()", "stderr()", ".print()", "/dev/std", r"\x1b", r"\u{1b}"];

#[test]
fn only_the_output_module_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut looked_at = 0;
    for (path, _, text) in ["daemon/core/src", "daemon/src", "daemon/ctl/src", "hook-client/src"]
        .iter()
        .flat_map(|dir| files(&root.join(dir)))
    {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let is_test = name.contains("/tests/") || name.ends_with("/tests.rs");
        if !name.ends_with(".rs")
            || name.ends_with(OUTPUT)
            || name == OF_HOOK
            || is_test
            || name.ends_with("redact/ordinary.rs")
        {
            continue;
        }
        looked_at += 1;
        let text = String::from_utf8(text).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            // Text that is searched for is not printed.
            let is_sought = |print: &str| print.starts_with('\\') && name.contains("/redact/");
            let found = PRINTS.iter().find(|print| line.contains(*print) && !is_sought(print));
            assert_eq!(found, None, "{name}:{}: {line}: use the module `output`", number + 1);
        }
    }
    assert!(looked_at > 80, "{looked_at}");
    let output = fs::read_to_string(root.join("daemon/src").join(OUTPUT)).unwrap();
    assert!(PRINTS.iter().any(|print| output.contains(print)), "they are found where they are");
    assert!(hostile("x").chars().filter(|c| is_hidden(*c)).count() > 25);
}
