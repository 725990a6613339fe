//! The doctor finds problems, gives a remedy for each, and shows no key.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use tests::{
    Answer, Story, bins,
    home::run,
    langfuse::{self, http_date},
    say, server,
    stage::{CURRENT, Stage, chmod},
};

#[test]
fn doctor_sends_a_trace_and_reads_it_back_if_everything_works() {
    let stage = Stage::running();
    let before = stage.server.spans().len();
    let seen = stage.doctor(&[]);
    assert_eq!((seen.failing(), seen.code), (vec![], Some(0)), "{}", seen.report);
    seen.has("claude", "ok", CURRENT, "");
    seen.has("hook-events", "ok", "on Stop", "");
    seen.has("hook-program", "ok", "cc-langfuse-hook runs", "");
    seen.has("server", "ok", &langfuse::project_name("pk-lf-test"), "");
    seen.has("delivery", "ok", "2 observations delivered", "");
    seen.has("events", "ok", "latest session s, 1 turn", "");
    seen.has("clock", "ok", "within", "");
    let spans = stage.server.spans();
    let [probe] = &spans[before..] else { panic!("not one span: {spans:?}") };
    assert_eq!((probe.name.as_str(), probe.get("langfuse.trace.name")), ("cc-langfuse doctor", "cc-langfuse doctor"));
    assert_eq!((probe.is_root(), probe.observation("model.name"), probe.get("session.id")), (true, "", ""));
    seen.has("probe", "ok", &probe.trace_id, "");
    // With --no-probe no trace is sent.
    let seen = stage.doctor(&["--no-probe"]);
    assert_eq!((seen.failing(), stage.server.spans().len()), (vec![], before + 1));
    // The form for people is lines.
    let mut command = stage.home.command(&bins().ctl);
    command.args(["doctor", "--no-probe"]).env("PATH", &stage.bin).current_dir(&stage.project);
    let text = String::from_utf8(run(command, b"").0.stdout).expect("text");
    assert!(text.starts_with("Claude Code\n  ✓ claude ") && !text.contains('\x1b'), "{text}");
}

/// A change to a stage, the check that finds it, its state, and parts of the finding and the remedy.
type Breakage = (&'static str, fn(&mut Stage), &'static str, &'static str, &'static str, &'static str);

/// A change to the settings of a project.
type Change = fn(&mut Vec<(String, String)>);

fn each(breakages: &[Breakage], stage: fn() -> Stage) {
    for (name, breaks, check, state, seen, remedy) in breakages {
        let mut stage = stage();
        breaks(&mut stage);
        let report = stage.doctor(&["--wait", "300ms"]);
        assert!(report.failing().contains(check), "{name}: {}", report.report);
        report.has(check, state, seen, remedy);
    }
}

#[test]
fn doctor_finds_problems_with_settings_and_hook() {
    each(
        &[
            ("no hook", |s| s.register(&[]), "hook-events", "problem", "no settings file registers", "setup"),
            (
                "another event",
                |s| s.register(&[("SessionEnd", &s.hook().display().to_string())]),
                "hook-events",
                "problem",
                "not for Stop",
                "setup",
            ),
            (
                "unknown event",
                |s| {
                    let hook = s.hook().display().to_string();
                    s.register(&[("Stop", &hook), ("StopFailure", &hook)]);
                    s.program("claude", "echo '2.1.71 (Claude Code)'");
                },
                "hook-events",
                "problem",
                "2.1.71 does not know the event `StopFailure`",
                "remove `StopFailure`",
            ),
            ("no claude", |s| fs::remove_file(s.bin.join("claude")).unwrap(), "claude", "warning", "not found", "PATH"),
            (
                "bad JSON",
                |s| s.write_user("{\n\"hooks\": {\n,}}"),
                "user-settings",
                "problem",
                "not valid JSON",
                "correct line 3",
            ),
            (
                "bad form",
                |s| s.write_user(r#"{"hooks":{"Stop":"x"}}"#),
                "user-settings",
                "problem",
                "`hooks.Stop` is not a list",
                "settings.json",
            ),
            (
                "hooks off",
                |s| {
                    let text = fs::read_to_string(s.user_settings()).unwrap();
                    s.write_user(&text.replacen('{', r#"{"disableAllHooks":true,"#, 1));
                },
                "hooks",
                "problem",
                "turns all hooks off",
                "remove `disableAllHooks`",
            ),
            (
                "no program",
                |s| fs::remove_file(s.hook()).unwrap(),
                "hook-program",
                "problem",
                "does not exist",
                "setup",
            ),
            ("not executable", |s| chmod(&s.hook(), 0o644), "hook-program", "problem", "is not executable", "chmod +x"),
            (
                "another program",
                |s| s.program("cc-langfuse-hook", "exit 0"),
                "hook-program",
                "problem",
                "is not this version's cc-langfuse-hook",
                "same build",
            ),
            (
                "open to others",
                |s| chmod(&s.hook(), 0o777),
                "hook-program",
                "warning",
                "other users can replace",
                "chmod go-w",
            ),
            (
                "the tool for Node",
                |s| {
                    let (hook, other) =
                        (s.hook().display().to_string(), "LANGFUSE_SECRET_KEY=sk-lf-test npx cc-langfuse");
                    s.register(&[("Stop", &hook), ("SessionEnd", other)]);
                },
                "other-tracer",
                "warning",
                "traced twice",
                "`hooks.SessionEnd`",
            ),
        ],
        Stage::new,
    );
}

#[test]
fn doctor_does_not_run_a_program_that_a_project_names() {
    let stage = Stage::new();
    let (hook, ran) = (stage.project.join("cc-langfuse-hook"), stage.home.path().join("ran"));
    // It answers like a hook.
    let mut script = format!("#!/bin/sh\n: >'{}'\nexit 0\n", ran.display()).into_bytes();
    script.extend(fs::read(bins().hook.as_path()).expect("the hook"));
    fs::write(&hook, script).expect("written");
    chmod(&hook, 0o755);
    let register = |command: &Path| json!({"hooks": {"Stop": [{"hooks": [{"type": "command", "command": command}]}]}});
    stage.write_user("{}");
    fs::write(stage.project.join(".claude/settings.json"), register(&hook).to_string()).expect("written");
    stage.doctor(&["--no-probe"]).has("hook-program", "ok", "it is not run", "");
    assert!(!ran.exists());
    // The user's own settings may name any program, and every settings file the one beside the doctor.
    stage.write_user(&register(&hook).to_string());
    fs::remove_file(stage.project.join(".claude/settings.json")).expect("removed");
    stage.doctor(&["--no-probe"]).has("hook-program", "ok", "cc-langfuse-hook runs", "");
    assert!(ran.exists());
    stage.write_user("{}");
    fs::write(stage.project.join(".claude/settings.json"), register(&bins().hook).to_string()).expect("written");
    stage.doctor(&["--no-probe"]).has("hook-program", "ok", "cc-langfuse-hook runs", "");
}

#[test]
fn doctor_finds_problems_with_the_projects_keys() {
    let settings = |s: &Stage, change: Change| {
        let mut env = s.server.env();
        change(&mut env);
        s.home.settings("p", &env);
    };
    let set: [(Change, _, _, _, _); 6] = [
        (|env| env.retain(|(name, _)| name != "TRACE_TO_LANGFUSE"), "tracing", "problem", "set nowhere", "setup"),
        (|env| env[0].1 = "yes".into(), "tracing", "problem", "other than \"true\"", "TRACE_TO_LANGFUSE"),
        (|env| drop(env.remove(1)), "keys", "problem", "no public key", "LANGFUSE_PUBLIC_KEY"),
        (|env| drop(env.remove(2)), "keys", "problem", "no secret key", "LANGFUSE_SECRET_KEY"),
        (
            |env| (env[1].1, env[2].1) = ("sk-lf-test".into(), "pk-lf-test".into()),
            "keys",
            "problem",
            "looks like a secret key",
            "swap LANGFUSE_PUBLIC_KEY",
        ),
        (|env| env[3].1 = "http://lf.example.org".into(), "base-url", "problem", "unencrypted", "https://"),
    ];
    for (change, check, state, seen, remedy) in set {
        let stage = Stage::new();
        settings(&stage, change);
        stage.doctor(&["--no-probe"]).has(check, state, seen, remedy);
    }
}

#[test]
fn keys_in_a_file_that_git_tracks_are_reported_and_not_used() {
    let stage = Stage::new();
    let git =
        |args: &[&str]| Command::new("git").current_dir(&stage.project).env("HOME", "/nowhere").args(args).output();
    if git(&["init", "-q"]).is_err() {
        return say("SKIPPED keys_in_a_file_that_git_tracks_are_reported_and_not_used: no git here");
    }
    assert!(git(&["add", "."]).expect("git").status.success());
    let seen = stage.doctor(&[]);
    seen.has("tracked-keys", "warning", "settings.local.json holds a secret key", "git rm --cached");
    seen.has(
        "server",
        "problem",
        "which others can write, sets TRACE_TO_LANGFUSE",
        "cc-langfusectl trust http://127.0.0.1:",
    );
    assert_eq!(stage.server.requests().len(), 0, "a server that a repository chose was asked");
}

#[test]
fn doctor_finds_problems_with_the_daemon_and_its_files() {
    let seen = Stage::new().doctor(&[]);
    seen.has("daemon", "problem", "not running", "cc-langfused");
    assert_eq!(seen.failing(), ["daemon"], "{}", seen.report);

    let stage = Stage::new();
    stage.home.hook(&Story::new(&stage.home, "p", "s").event("Stop"), &stage.server.env());
    stage.doctor(&[]).has("daemon", "problem", "1 event in the spool", "cc-langfused");

    each(
        &[
            (
                "open directory",
                |s| chmod(&s.home.paths().state, 0o755),
                "state-directory",
                "problem",
                "other users can open",
                "chmod 700",
            ),
            (
                "open socket",
                |s| chmod(&s.home.paths().socket, 0o666),
                "socket",
                "problem",
                "other users can open",
                "chmod 600",
            ),
            (
                "unreadable spool",
                |s| chmod(&s.home.paths().spool, 0o070),
                "spool-directory",
                "problem",
                "other users can open",
                "chmod 700",
            ),
            (
                "open database",
                |s| chmod(&s.home.paths().database, 0o644),
                "database-file",
                "problem",
                "other users can open",
                "chmod 600",
            ),
            (
                "no socket",
                |s| fs::remove_file(s.home.paths().socket).unwrap(),
                "daemon",
                "problem",
                "not running",
                "cc-langfused",
            ),
            (
                "bad configuration",
                |s| s.home.configure("outbox_mb = 1"),
                "configuration",
                "problem",
                "did you mean `outbox_mib`?",
                "cc-langfusectl restart",
            ),
            (
                "no service",
                |s| s.program("systemctl", "printf 'LoadState=not-found\\nActiveState=inactive\\nUnitFileState=\\n'"),
                "unit",
                "warning",
                "no cc-langfused.service",
                "setup",
            ),
            (
                "service off",
                |s| {
                    s.program("systemctl", "printf 'LoadState=loaded\\nActiveState=active\\nUnitFileState=disabled\\n'")
                },
                "unit",
                "warning",
                "is disabled",
                "systemctl --user enable",
            ),
        ],
        Stage::running,
    );
}

#[test]
fn doctor_finds_problems_with_the_server() {
    each(
        &[
            (
                "wrong keys",
                |s| {
                    s.server.change(|request| {
                        let said = format!("no such key {}", request.key());
                        Answer::status(401).body(&said)
                    });
                },
                "server",
                "problem",
                "does not take the keys",
                "LANGFUSE_SECRET_KEY",
            ),
            (
                "away",
                |s| {
                    s.home.settings(
                        "p",
                        &server::env(&format!("http://{}", server::unused()), "pk-lf-test", "sk-lf-test"),
                    )
                },
                "server",
                "problem",
                "could not connect to 127.0.0.1:",
                "LANGFUSE_BASE_URL",
            ),
            (
                "something else",
                |s| s.server.change(|_| Answer::status(404).body("<html>")),
                "server",
                "problem",
                "does not answer as Langfuse does",
                "LANGFUSE_BASE_URL",
            ),
            (
                "in trouble",
                |s| s.server.change(|_| Answer::status(503)),
                "server",
                "problem",
                "is not ready",
                "nothing is lost",
            ),
            (
                "another time",
                |s| {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                    s.server.change(move |_| Answer::ok().header("date", http_date(now - 600)));
                },
                "clock",
                "warning",
                "ahead of the server",
                "timedatectl",
            ),
            (
                "nothing shows",
                |s| {
                    s.server.change(|request| match &*request.path {
                        path if path.starts_with("/api/public/v2/") => Answer::ok().body(r#"{"data":[],"meta":{}}"#),
                        path if path.starts_with("/api/public/traces/") => Answer::status(404),
                        _ => Answer::ok(),
                    });
                },
                "probe",
                "problem",
                "does not show it within 0.3 s",
                "--wait 5m",
            ),
            (
                "no traces",
                |s| {
                    s.server.change(|request| {
                        if request.method == "POST" { Answer::status(403).body("suspended") } else { Answer::ok() }
                    });
                },
                "probe",
                "problem",
                "suspended",
                "see the finding on the server",
            ),
        ],
        Stage::new,
    );
}

#[test]
fn doctor_reads_a_trace_back_from_old_new_and_slow_servers() {
    let stage = Stage::running();
    stage.server.change(langfuse::v3);
    stage.doctor(&[]).has("probe", "ok", "v4 API: no such API; older API: after", "");
    stage.server.change(langfuse::v4);
    let seen = stage.doctor(&[]);
    seen.has("probe", "ok", "v4 API: after", "");
    seen.has("probe", "ok", "older API: no such API", "");
    let mut asked = 0;
    stage.server.change(move |request| {
        asked += u32::from(request.path.starts_with("/api/public/v2/"));
        let is_early = asked < 3 && request.path.contains(if asked == 0 { "/traces/" } else { "/v2/" });
        if is_early { Answer::ok().body(r#"{"data":[],"meta":{}}"#) } else { langfuse::v4(request) }
    });
    let seen = stage.doctor(&[]);
    let text = seen.finding("probe")["seen"].as_str().expect("text").to_owned();
    let lag = text.split("v4 API: after ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    assert!(lag.is_some_and(|lag| lag >= 0.7), "asked after 0, 0.25 and 0.75 s: {text}");
}

#[test]
fn doctor_recognises_a_server_without_its_database() {
    let stage = Stage::running();
    stage.server.change(langfuse::without_postgres);
    let mut story = Story::new(&stage.home, "p", "t");
    story.turn("q", "a");
    stage.home.hook(&story.stop("a"), &stage.server.env());
    stage.home.flush();
    stage.doctor(&[]).has("server", "problem", "is in trouble: HTTP 500", "nothing is lost");
}

#[test]
fn doctor_reports_what_the_daemon_cannot_deliver() {
    let stage = Stage::running();
    stage.server.change(|_| Answer::status(401));
    let mut story = Story::new(&stage.home, "p", "t");
    story.turn("q", "a");
    stage.home.hook(&story.stop("a"), &stage.server.env());
    stage.home.status_until("it to be parked", |status| status["destinations"][0]["state"] == "parked");
    let seen = stage.doctor(&[]);
    seen.has("delivery", "problem", "is parked, 2 observations waiting: HTTP 401", "flush");
    assert_eq!(seen.failing(), ["server", "delivery"], "{}", seen.report);
}

#[test]
fn doctor_reports_untraced_transcripts_that_are_about_to_be_removed() {
    let stage = Stage::running();
    let days = |days: u64| SystemTime::now() - Duration::from_secs(days * 86_400 + 60);
    let old = |name: &str, since: u64| {
        let mut story = Story::new(&stage.home, "p", name);
        story.turn("q", "a");
        let file = fs::File::options().append(true).open(&story.path).expect("the transcript");
        file.set_modified(days(since)).expect("a time");
        story
    };
    // The session that the daemon knows, one with time left, and one of a project that is not traced.
    let file = fs::File::options().append(true).open(Story::new(&stage.home, "p", "s").path).expect("the transcript");
    file.set_modified(days(29)).expect("a time");
    old("young", 20);
    let mut other = Story::new(&stage.home, "other", "o");
    other.turn("q", "a");
    let file = fs::File::options().append(true).open(&other.path).expect("the transcript");
    file.set_modified(days(29)).expect("a time");
    assert_eq!(stage.doctor(&["--no-probe"]).failing(), Vec::<&str>::new());

    let story = old("forgotten", 26);
    let seen = stage.doctor(&["--no-probe"]);
    let remedy = format!("cc-langfusectl backfill {}", story.path.display());
    seen.has("transcripts", "warning", "1 transcript of traced projects about to be deleted", &remedy);
    // A longer cleanup period gives more time.
    let text = fs::read_to_string(stage.user_settings()).expect("settings");
    stage.write_user(&text.replacen('{', r#"{"cleanupPeriodDays":90,"#, 1));
    assert_eq!(stage.doctor(&["--no-probe"]).failing(), Vec::<&str>::new());
}
