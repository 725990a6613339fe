//! Daily use: states have the right word, exit codes report problems, and names are short.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use tests::{Answer, Home, Server, Story, bins, home, terminal::Dialogue};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A server that knows the keys of the tests, and their project.
fn langfuse() -> Server {
    Server::answering(|request| match &*request.path {
        "/api/public/projects" => Answer::ok().body(r#"{"data":[{"id":"proj-7","name":"Seven"}]}"#),
        _ => Answer::ok(),
    })
}

/// A server that refuses them like Langfuse.
fn refusing() -> Server {
    Server::answering(|_| {
        Answer::status(401).body(r#"{"error":"UnauthorizedError","message":"Invalid credentials. Confirm your keys."}"#)
    })
}

#[test]
fn status_reports_current_problems_by_its_exit_code() {
    let (home, server) = (Home::new(), refusing());
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    assert_eq!(home.ctl(&["status"]).status.code(), Some(0));
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    home.status_until("it to be parked", |status| status["destinations"][0]["state"] == "parked");
    let output = home.ctl(&["status"]);
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("Invalid credentials. Confirm your keys.") && !shown.contains(r#"{""#), "{shown}");
    assert!(shown.contains("last error") && shown.contains("is parked: cc-langfusectl doctor"), "{shown}");
    let listed = said(&home.ctl(&["destinations"]));
    assert!(listed.contains("Invalid credentials") && !listed.contains(r#"{""#), "{listed}");
    let flushed = said(&home.ctl(&["flush", "--timeout", "300ms"]));
    assert!(flushed.contains("Invalid credentials") && !flushed.contains(r#"{""#), "{flushed}");
    server.change(|_| Answer::ok());
    home.flush();
    let output = home.ctl(&["status"]);
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(!shown.contains("last error") && !shown.contains("Invalid"), "{shown}");
}

#[test]
fn try_ends_at_once_if_the_keys_are_refused_and_else_shows_the_trace() {
    // They are built before the time is measured.
    bins();
    let (home, server) = (Home::new(), refusing());
    let started = Instant::now();
    let output = home.ctl_with(&["try"], &server.env());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let shown = said(&output);
    assert!(shown.contains("Invalid credentials") && shown.contains("try again"), "{shown}");
    let server = langfuse();
    let shown = said(&home.ctl_with(&["try"], &server.env()));
    assert!(shown.contains(&format!("{}/project/proj-7/traces/", server.url)), "{shown}");
}

/// Does with the hook what Claude Code does at the end of a turn.
const CLAUDE: &str = r#"#!/bin/sh
if [ "$1" = --version ]; then echo '2.1.329 (Claude Code)'; exit; fi
here=$(dirname "$0")
settings=$2
printf '%s\n' "$@" > "$here/args"
hook=$(sed 's/.*"Stop":\[{"hooks":\[{"command":"\([^"]*\)".*/\1/' "$settings")
vars=$(sed 's/.*"env":{\([^}]*\)}.*/\1/' "$settings" | tr , '\n' | sed 's/"\([^"]*\)":"\(.*\)"/\1=\2/')
env $vars sh -c "$hook" < "$here/stop.event"
exit 5
"#;

fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// A home with a fake Claude Code in `bin` that has a turn; `cc-langfusectl` runs `args` with it on the `PATH`.
fn with_claude(home: &Home, server: &Server, args: &[&str]) -> Output {
    let bin = home.project("bin");
    script(&bin.join("claude"), CLAUDE);
    let mut story = Story::new(home, "work", "s-tree");
    story.turn("hello", "hi");
    fs::write(bin.join("stop.event"), story.stop("hi").to_string()).expect("written");
    let mut command = home.command(&bins().ctl);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a PATH"));
    command.args(args).env("PATH", path).env("TMPDIR", home.project("tmp")).current_dir(home.project("work"));
    command.envs(server.env().into_iter().filter(|(name, _)| name != "TRACE_TO_LANGFUSE"));
    home::run(command, b"").0
}

#[test]
fn run_traces_a_process_tree_whatever_starts_claude_in_it() {
    for args in [
        &["run", "--", "timeout", "60", "claude", "-p", "hello"][..],
        &["run", "--ephemeral", "--", "sh", "-c", "cd / && claude -p hello; exit 5"],
        &["run", "claude", "-p", "hello"],
        &["run", "--timeout", "20s", "env", "X=1", "claude", "-p", "hello"],
        &["run", "--", "claude", "-p", "hello"],
    ] {
        let (home, server) = (Home::new(), langfuse());
        let output = with_claude(&home, &server, args);
        assert_eq!(output.status.code(), Some(5), "{args:?}: {output:?}");
        let roots: Vec<_> = server.spans().into_iter().filter(|span| span.is_root()).map(|span| span.id().0).collect();
        assert_eq!(roots.len(), 1, "{args:?}: {output:?}");
        let given = fs::read_to_string(home.path().join("bin/args")).expect("its arguments");
        assert!(given.starts_with("--settings\n") && given.ends_with("-p\nhello\n"), "{args:?}: {given}");
        let url = format!("{}/project/proj-7/traces/{}", server.url, roots[0]);
        assert!(said(&output).contains(&url), "{args:?}: {output:?}");
        let left: Vec<_> = fs::read_dir(home.path().join("tmp")).expect("there").collect();
        assert!(left.is_empty(), "{args:?}: {left:?}");
    }
}

#[test]
fn run_keeps_settings_that_the_tree_passes_to_claude() {
    let (home, server) = (Home::new(), Server::new());
    let nested = r#"claude --settings '{"model":"opus"}' -p hello"#;
    let output = with_claude(&home, &server, &["run", "--", "sh", "-c", nested]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(server.spans().iter().filter(|span| span.is_root()).count(), 1, "{output:?}");
    let given = fs::read_to_string(home.path().join("bin/args")).expect("its arguments");
    assert_eq!(given.matches("--settings").count(), 1, "{given}");
}

#[test]
fn a_refused_run_ends_at_once_and_explains_how_to_send_later() {
    // They are built before the time is measured.
    bins();
    let (home, server) = (Home::new(), refusing());
    let started = Instant::now();
    let output = with_claude(&home, &server, &["run", "--", "claude", "-p", "hello"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(5), "{shown}");
    assert!(shown.contains("Invalid credentials") && !shown.contains(r#"{""#), "{shown}");
    assert!(shown.contains("kept in ") && shown.contains("cc-langfusectl backfill"), "{shown}");
    assert!(shown.contains("s-tree.jsonl"), "{shown}");
    // Follows the advice in the message.
    server.change(|_| Answer::ok());
    let _daemon = home.daemon();
    let sent = home.ctl_with(
        &["backfill", "--yes", home.path().join(".claude/projects/-work/s-tree.jsonl").to_str().expect("text")],
        &server.env(),
    );
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    assert_eq!(server.spans().iter().filter(|span| span.is_root()).count(), 1);
}

#[test]
fn a_table_fits_the_terminal_and_its_ids_can_be_typed() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let project = "code/with/a/long/way/to/it/the-project";
    let id = "01628e54-f2e1-4452-8e4e-eede11a0a73e";
    let mut story = Story::new(&home, "x", id);
    story.cwd = home.project(project);
    story.turn("Why do the tests of the parser fail since yesterday evening?", "a");
    home.hook(&story.stop("a"), &server.env());
    home.flush();
    let listed = |size: (u16, u16)| {
        let mut command = home.command(&bins().ctl);
        command.arg("sessions");
        Dialogue::start(command, size).end().1
    };
    for size in [(80, 24), (200, 50)] {
        let shown = listed(size);
        assert!(shown.lines().all(|line| line.chars().count() <= size.0.into()), "{shown}");
        assert!(shown.contains("Why do the tests") && shown.contains("the-project"), "{shown}");
        let name = shown.lines().nth(1).and_then(|row| row.split_whitespace().next()).expect("a row").to_owned();
        let found = home.ctl(&["show", &name]);
        assert!(said(&found).contains("Why do the tests"), "{name}: {found:?}");
    }
}

#[test]
fn replay_and_forget_without_a_name_take_the_latest_session() {
    let (home, server) = (Home::new(), langfuse());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    home.flush();
    let within = |args: &[&str]| {
        let mut command = home.command(&bins().ctl);
        command.args(args).envs(server.env()).current_dir(&story.cwd);
        command
    };
    let replayed = home::run(within(&["replay", "--dry-run"]), b"").0;
    assert!(said(&replayed).contains("1 turn"), "{replayed:?}");
    let unasked = home::run(within(&["forget", "--yes"]), b"").0;
    assert_eq!(unasked.status.code(), Some(2), "{unasked:?}");
    let mut asked = Dialogue::start(within(&["forget"]), (80, 24));
    asked.expect("of session s").say("n");
    assert_eq!(asked.end().0, Some(1));
}

#[test]
fn session_ids_are_completed_in_the_shell() {
    let home = Home::new();
    for id in ["01628e54-f2e1", "ffff0000-1111"] {
        Story::new(&home, "work", id).turn("q", "a");
    }
    let script = said(&home.ctl(&["completions", "bash"]));
    let ask = format!(
        "{script}\nCOMP_WORDS=(cc-langfusectl show 0162) COMP_CWORD=2\n_cc-langfusectl-sessions cc-langfusectl 0162 show\necho \"${{COMPREPLY[@]}}\"\n\
         COMP_WORDS=(cc-langfusectl pa) COMP_CWORD=1\n_cc-langfusectl-sessions cc-langfusectl pa cc-langfusectl\necho \"${{COMPREPLY[@]}}\""
    );
    let Ok(bash) = Command::new("bash").arg("-c").arg("true").output() else { return tests::say("SKIPPED: no bash") };
    assert!(bash.status.success());
    let mut command = home.command(Path::new("bash"));
    let dir = bins().ctl.parent().expect("a directory").display().to_string();
    command.args(["-c", &ask]).env("PATH", format!("{dir}:{}", std::env::var("PATH").expect("a PATH")));
    let output = home::run(command, b"").0;
    assert_eq!(said(&output).lines().collect::<Vec<_>>(), ["01628e54-f2e1", "pause"], "{output:?}");
}
