//! MLflow without a server: one command sets it up, and every turn becomes files that MLflow can read.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tests::{
    Home, Story, bins, eventually,
    home::run,
    say,
    setup::{ctl, json_of, succeeds, text},
    strace::{self, Order, Point, Thread},
    tries, until,
};

const SWITCH: &str = "MLFLOW_CLAUDE_TRACING_ENABLED";

/// The environment of a hook in the project `dir`: the variables of its settings, and the directory.
fn env(dir: &Path) -> Vec<(String, String)> {
    let settings = json_of(&dir.join(".claude/settings.local.json"));
    let env = settings["env"].as_object().expect("variables").iter();
    let env = env.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()));
    env.chain([("CLAUDE_PROJECT_DIR".to_owned(), dir.display().to_string())]).collect()
}

/// The directories of the traces in an experiment.
fn traces(experiment: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(experiment.join("traces")).into_iter().flatten();
    let dirs = entries.map(|entry| entry.expect("an entry").path());
    dirs.filter(|dir| dir.join("trace_info.yaml").exists()).collect()
}

fn spans(trace: &Path) -> Vec<Value> {
    let spans = json_of(&trace.join("artifacts/traces.json"))["spans"].clone();
    spans.as_array().expect("a list").clone()
}

/// A project of `home` that was set up by `setup --mlflow`.
fn project(home: &Home, more: &[&str]) -> PathBuf {
    let dir = home.project("work");
    let args = [&["setup", "--mlflow", "--project", "--yes", "--no-service"], more].concat();
    succeeds(&ctl(home, &dir, None, &args));
    dir
}

#[test]
fn one_command_and_every_turn_is_a_trace_in_the_project() {
    let home = Home::new();
    let dir = project(&home, &[]);
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s-files");
    for (turn, answer) in ["a1", "a2"].into_iter().enumerate() {
        story.turn("q", answer);
        home.hook(&story.stop(answer), &env(&dir));
        home.flush();
        assert_eq!(traces(&dir.join(".claude/mlflow/runs/0")).len(), turn + 1);
    }
    for trace in traces(&dir.join(".claude/mlflow/runs/0")) {
        let info = fs::read_to_string(trace.join("trace_info.yaml")).expect("text");
        assert!(info.contains("state: OK") && info.contains("request_preview: \"q\""), "{info}");
        let usage = json_of(&trace.join("request_metadata/mlflow.trace.tokenUsage"));
        assert!(usage["total_tokens"].as_u64() > Some(0), "{usage}");
        assert_eq!(fs::read_to_string(trace.join("request_metadata/mlflow.trace.session")).expect("text"), "s-files");
        assert_eq!(spans(&trace).iter().filter(|span| span["parent_span_id"].is_null()).count(), 1);
    }
    assert_eq!(fs::read_to_string(dir.join(".claude/mlflow/.gitignore")).expect("text"), "*\n");
    let log = fs::read_to_string(dir.join(".claude/mlflow/claude_tracing.log")).expect("text");
    assert_eq!(log.lines().filter(|line| line.contains("s-files")).count(), 2, "{log}");
    // A daemon that starts afresh writes nothing twice.
    assert!(daemon.terminate().success());
    let _daemon = home.daemon();
    home.flush();
    assert_eq!(traces(&dir.join(".claude/mlflow/runs/0")).len(), 2);
}

#[test]
fn history_is_written_to_the_file_store_without_any_hook() {
    let home = Home::new();
    let dir = project(&home, &[]);
    let mut story = Story::new(&home, "work", "s-history");
    story.turn("q1", "a1");
    story.turn("q2", "a2");
    let _daemon = home.daemon();
    succeeds(&ctl(&home, &dir, None, &["backfill", "--yes"]));
    home.flush();
    assert_eq!(traces(&dir.join(".claude/mlflow/runs/0")).len(), 2);
}

#[test]
fn the_daemon_waits_for_a_store_that_cannot_be_written() {
    let home = Home::new();
    let dir = project(&home, &["--tracking-uri", "store", "--experiment", "night: shift"]);
    let elsewhere = home.project("elsewhere");
    symlink(&elsewhere, dir.join("store")).expect("a link");
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s-link");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &env(&dir));
    let parked = until("the destination to be parked", || {
        let status = home.status();
        let mut destinations = status["destinations"].as_array()?.iter();
        destinations.find(|to| to["state"] == "parked").map(ToString::to_string)
    });
    assert!(parked.contains("is a link"), "{parked}");
    assert_eq!(fs::read_dir(&elsewhere).expect("there").count(), 0);
    fs::remove_file(dir.join("store")).expect("removed");
    home.flush();
    let store = dir.join("store");
    let experiments = fs::read_dir(&store).expect("made").map(|entry| entry.expect("an entry").path());
    let experiments: Vec<PathBuf> = experiments.filter(|path| path.join("meta.yaml").exists()).collect();
    assert_eq!(experiments.len(), 1);
    assert!(fs::read_to_string(experiments[0].join("meta.yaml")).expect("text").contains("name: \"night: shift\""));
    assert_eq!(traces(&experiments[0]).len(), 1);
}

#[test]
fn mlflows_own_integration_is_turned_off_and_on_again() {
    let home = Home::new();
    let dir = home.project("work");
    let file = dir.join(".claude/settings.local.json");
    let before = json!({
        "enabledPlugins": {"mlflow-tracing@mlflow-plugins": true, "a@b": true},
        "hooks": {"Stop": [{"hooks": [{"type": "command", "command": "mlflow autolog claude stop-hook"}]}]},
        "env": {SWITCH: "true"},
    });
    fs::create_dir_all(dir.join(".claude")).expect("made");
    fs::write(&file, before.to_string()).expect("written");
    let args = ["setup", "--mlflow", "--project", "--yes", "--no-service", "--tracking-uri", "runs"];
    succeeds(&ctl(&home, &dir, None, &args));
    let settings = json_of(&file);
    assert_eq!(settings["enabledPlugins"], json!({"mlflow-tracing@mlflow-plugins": false, "a@b": true}));
    assert!(!settings["hooks"].to_string().contains("autolog"), "{settings}");
    assert_eq!((&settings["env"][SWITCH], &settings["env"]["MLFLOW_TRACKING_URI"]), (&"true".into(), &"runs".into()));
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert_eq!(json_of(&file), before);
}

#[test]
fn while_mlflows_own_integration_is_active_nothing_is_sent() {
    let home = Home::new();
    let dir = project(&home, &[]);
    let user = home.path().join(".claude/settings.json");
    fs::write(&user, r#"{"enabledPlugins":{"mlflow-tracing@mlflow-plugins":true}}"#).expect("written");
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s-rival");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &env(&dir));
    eventually("the destination to be parked", || home.status().to_string().contains("MLflow's own integration"));
    assert!(!dir.join(".claude/mlflow").exists());
    let said = text(&ctl(&home, &dir, None, &["doctor", "--no-probe"]));
    assert!(said.contains("MLflow's own integration is active"), "{said}");
    fs::remove_file(&user).expect("removed");
    home.flush();
    assert_eq!(traces(&dir.join(".claude/mlflow/runs/0")).len(), 1);
}

#[test]
fn a_link_named_claude_mlflow_runs_claude_code_traced() {
    let home = Home::new();
    let (dir, path) = (home.project("work"), home.project("path"));
    let mut story = Story::new(&home, "work", "s-wrapper");
    story.turn("q", "a");
    fs::write(dir.join("event"), story.stop("a").to_string()).expect("written");
    // Does with the given settings what Claude Code does.
    let claude = r#"[ "$1" = --version ] && { echo '2.1.329 (Claude Code)'; exit; }
hook=$(sed 's/.*"Stop":\[{"hooks":\[{"command":"\([^"]*\)".*/\1/' "$2")
grep -q '"MLFLOW_CLAUDE_TRACING_ENABLED":"true"' "$2" || exit 9
MLFLOW_CLAUDE_TRACING_ENABLED=true CLAUDE_PROJECT_DIR=$PWD sh -c "$hook" < event
shift 2; echo "$@"; exit 7"#;
    tests::setup::script(&path, "claude", claude);
    let link = path.join("claude-mlflow");
    symlink(&bins().ctl, &link).expect("a link");
    let mut command = home.command(&link);
    let places = format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default());
    command.args(["--help", "-p", "two words"]).env("PATH", places).current_dir(&dir);
    let (output, _) = run(command, b"");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--help -p two words\n");
    assert_eq!(traces(&dir.join(".claude/mlflow/runs/0")).len(), 1, "{}", text(&output));

    // A problem is reported with the name of the variable that was set.
    let mut command = home.command(&link);
    let places = format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default());
    command.env("PATH", places).env("MLFLOW_TRACKING_URI", "file://name").current_dir(&dir);
    let said = text(&run(command, b"").0);
    assert!(said.contains("not traced: MLFLOW_TRACKING_URI") && !said.contains("LANGFUSE_PUBLIC_KEY"), "{said}");
}

#[test]
fn the_store_stays_readable_after_a_kill_at_any_system_call() {
    if !strace::works() {
        return;
    }
    // More calls than are made: those beyond the last kill nothing.
    let points =
        ["mkdirat", "renameat", "fsync", "write"].into_iter().flat_map(|call| (1..=24).map(move |nth| (call, nth)));
    let all: Vec<(&str, usize)> = points.collect();
    let count = tries(32, all.len());
    let kills = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (all, kills) = (&all, &kills);
            scope.spawn(move || {
                for index in (worker..count).step_by(4) {
                    let (call, nth) = all[index * all.len() / count];
                    let home = Home::new();
                    let dir = project(&home, &[]);
                    let mut story = Story::new(&home, "work", "s-kill");
                    story.turn("q", "a");
                    home.hook(&story.stop("a"), &env(&dir));
                    let point = Point { thread: Thread::Main, call: call.to_owned(), nth, file: None };
                    let mut daemon = strace::anywhere(&home, Order::inject(&home, &point, "signal=SIGKILL"));
                    let store = dir.join(".claude/mlflow/runs/0");
                    until("the trace, or the end of the daemon", || {
                        (daemon.end().is_some() || traces(&store).len() == 1).then_some(())
                    });
                    // A reader finds valid files at that moment.
                    traces(&store).iter().for_each(|trace| assert!(!spans(trace).is_empty(), "{call} {nth}"));
                    if daemon.end().is_some() {
                        kills.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    } else {
                        daemon.kill();
                    }
                    let _daemon = home.daemon();
                    home.flush();
                    let found = traces(&store);
                    assert_eq!(found.len(), 1, "{call} {nth}");
                    let info = fs::read_to_string(found[0].join("trace_info.yaml")).expect("text");
                    assert!(info.contains("state: OK"), "{call} {nth}: {info}");
                    assert_eq!(spans(&found[0]).len(), 2, "{call} {nth}");
                    assert!(!found[0].join(".unfinished").exists(), "{call} {nth}");
                }
            });
        }
    });
    let kills = kills.into_inner();
    say(&format!(
        "kill -9 at system calls of writing a trace: {kills} kills at {count} of {} points, every trace readable",
        all.len()
    ));
    assert!(kills * 3 > count, "{kills} of {count}");
}
