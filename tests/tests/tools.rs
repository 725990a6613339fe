//! The commands for looking at tracing: `logs`, `sessions`, `open`, `top`, `config`, completions and man pages.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::{Answer, Home, Server, Story, TIMEOUT, bins, eventually, home, say, server, until};

/// The output of a command that succeeded.
fn text(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The names of all commands, from `--help`.
fn commands(home: &Home) -> Vec<String> {
    let help = text(&home.ctl(&["--help"]));
    let list = help.split("Commands:\n").nth(1).expect("commands").split("\n\n").next().expect("a list");
    let names: Vec<String> = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 10, "{names:?}");
    names
}

/// True if `program` is installed; reports if not.
fn has(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        say(&format!("SKIPPED {test}: needs {program}"));
    }
    found
}

#[test]
fn completions_know_every_command() {
    let home = Home::new();
    let names = commands(&home);
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&home.ctl(&["completions", shell]));
        for name in &names {
            assert!(script.contains(name.as_str()), "{shell} does not know {name}");
        }
    }
    if has("bash", "completions in bash") {
        let script = home.path().join("completion");
        fs::write(&script, text(&home.ctl(&["completions", "bash"]))).expect("the script");
        let ask = format!(
            "source {}; set -- $(complete -p cc-langfusectl); while [ \"$1\" != -F ]; do shift; done; \
             COMP_WORDS=(cc-langfusectl dead) COMP_CWORD=1; $2 cc-langfusectl dead cc-langfusectl; \
             echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let answer = text(&Command::new("bash").args(["-c", &ask]).output().expect("bash"));
        assert_eq!(answer.trim(), "dead-letters");
    }
    assert_eq!(home.ctl(&["completions", "nonsense"]).status.code(), Some(2));
}

#[test]
fn every_command_has_a_manual_page() {
    let home = Home::new();
    let dir = home.path().join("man/man1");
    text(&home.ctl(&["man", dir.to_str().expect("text")]));
    let renders = has("man", "rendering of manual pages");
    for name in commands(&home).iter().map(|name| format!("cc-langfusectl-{name}")).chain(["cc-langfusectl".into()]) {
        let page = dir.join(format!("{name}.1"));
        let roff = fs::read_to_string(&page).expect("a page");
        assert!(roff.contains(".TH ") && roff.contains(".SH NAME"), "{roff}");
        if renders {
            let mut man = Command::new("man");
            man.env("MANPAGER", "cat").env("MANROFFOPT", "-c").arg("-l").arg(&page);
            let output = man.output().expect("man");
            let shown = text(&output);
            assert!(shown.contains("SYNOPSIS") && shown.contains(&name), "{shown}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
        }
    }
    let main = text(&home.ctl(&["man"]));
    assert_eq!(main, fs::read_to_string(dir.join("cc-langfusectl.1")).expect("the page"));
}

/// A line in the form of the daemon's log.
fn line(level: &str, what: &str) -> String {
    format!("2026-11-20T08:00:00.000000Z {level:>5} {what}\n")
}

fn append(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path).expect("the log");
    file.write_all(text.as_bytes()).expect("written");
}

/// Rotates the log like the daemon when the file is large.
fn rotate(path: &Path) {
    fs::rename(path, format!("{}.1", path.display())).expect("rotated");
}

#[test]
fn the_last_lines_of_the_log_are_shown() {
    let home = Home::new();
    let log = home.paths().log;
    let none = home.ctl(&["logs"]);
    assert_eq!(none.status.code(), Some(1));
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(said.contains("no log yet") && said.contains(log.to_str().expect("text")), "{said}");
    (0..60).for_each(|n| append(&log, &line("INFO", &format!("old {n}"))));
    append(&log, &(line("WARN", "strange") + "with a second line\n"));
    rotate(&log);
    append(&log, &(line("DEBUG", "detail") + &line("ERROR", "broken")));
    let lines = |args: &[&str]| -> Vec<String> {
        let shown = text(&home.ctl(args));
        shown.lines().map(|line| line.split("Z ").last().unwrap_or_default().trim().to_owned()).collect()
    };
    assert_eq!(lines(&["logs", "-n", "2"]), ["DEBUG detail", "ERROR broken"]);
    assert_eq!(lines(&["logs", "-n", "0"]), [""; 0]);
    assert_eq!(lines(&["logs", "--level", "warn"]), ["WARN strange", "with a second line", "ERROR broken"]);
    assert_eq!(lines(&["logs", "--level", "info", "-n", "4"])[0], "INFO old 59");
    let all = lines(&["logs"]);
    assert_eq!((all.len(), &*all[0], &*all[49]), (50, "INFO old 14", "ERROR broken"));
}

/// A running command and the lines it prints; killed on drop.
struct Going {
    child: Child,
    lines: Receiver<String>,
}

impl Going {
    fn start(home: &Home, args: &[&str]) -> Self {
        let mut command = home.command(&bins().ctl);
        let mut child = command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(TIMEOUT).expect("a line")
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_log_is_followed_across_rotations() {
    let home = Home::new();
    let log = home.paths().log;
    append(&log, &line("INFO", "start"));
    let going = Going::start(&home, &["logs", "-f", "--level", "info"]);
    assert!(going.next().ends_with("start"));
    for round in 0..3 {
        // A line is shown only when it is complete.
        let (first, rest) = (line("INFO", &format!("before {round}")), line("WARN", &format!("last {round}")));
        let (begin, end) = first.split_at(20);
        append(&log, begin);
        append(&log, &(end.to_owned() + &line("DEBUG", "not wanted") + &rest));
        rotate(&log);
        append(&log, &line("INFO", &format!("after {round}")));
        for expect in ["before", "last", "after"] {
            let shown = going.next();
            assert!(shown.ends_with(&format!("{expect} {round}")), "{shown}, not {expect} {round}");
        }
    }
    // Emptied by hand.
    fs::write(&log, line("INFO", "again")).expect("the log");
    assert!(going.next().ends_with("again"));
}

#[test]
fn following_ends_when_the_reader_is_gone() {
    let home = Home::new();
    append(&home.paths().log, &line("INFO", "start"));
    let mut command = home.command(&bins().ctl);
    command.args(["logs", "-f"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut first = String::new();
    out.read_line(&mut first).expect("a line");
    drop(out);
    let status = until("its end", || child.try_wait().expect("it is ours"));
    let said = child.wait_with_output().expect("it has ended").stderr;
    assert_eq!((status.code(), String::from_utf8_lossy(&said).into_owned()), (Some(0), String::new()));
}

/// A session that is delivered.
fn delivered_session(home: &Home, server: &Server, project: &str, session: &str) -> Story {
    let mut story = Story::new(home, project, session);
    story.turn("first", "one").turn("second", "two");
    home.hook(&story.stop("two"), &server.env());
    home.flush();
    story
}

#[test]
fn sessions_are_listed_with_the_newest_first() {
    let home = Home::new();
    assert_eq!(home.ctl(&["sessions"]).status.code(), Some(3));
    let server = Server::new();
    let _daemon = home.daemon();
    assert!(text(&home.ctl(&["sessions"])).contains("none yet"));
    delivered_session(&home, &server, "alpha", "session-a");
    let mut b = Story::new(&home, "beta", "session-b");
    b.raw(br#"{"type":"ai-title","aiTitle":"x","title":"Mend the\u001b[31m parser","sessionId":"session-b"}"#);
    b.turn("hello", "hi");
    home.hook(&b.stop("hi"), &server.env());
    home.flush();
    let list = |args: &[&str]| -> Vec<Value> { serde_json::from_str(&text(&home.ctl(args))).expect("a list") };
    let all = list(&["sessions", "--json"]);
    let ids: Vec<_> = all.iter().map(|session| session["session_id"].as_str().expect("an id")).collect();
    assert_eq!(ids, ["session-b", "session-a"]);
    assert_eq!(list(&["sessions", "--json", "-n", "1"]).len(), 1);
    assert_eq!(
        (&all[1]["turns"], &all[1]["transcript"]),
        (&json!(2), &json!(home.path().join(".claude/projects/-alpha/session-a.jsonl")))
    );
    assert!(all[0]["last_heard"].as_str() > all[1]["last_heard"].as_str(), "{all:?}");
    let table = text(&home.ctl(&["sessions"]));
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    let column = |name: &str| lines[0].find(name).expect("a column");
    for (row, session, project, turns) in [(1, "session-b", "~/beta", "1"), (2, "session-a", "~/alpha", "2")] {
        assert!(lines[row].starts_with(session), "{table}");
        assert!(lines[row][column("TURNS")..].starts_with(turns), "{table}");
        assert!(lines[row][column("PROJECT")..].starts_with(project), "{table}");
        assert!(lines[row][column("LAST HEARD")..column("PROJECT")].trim().ends_with("s ago"), "{table}");
        assert!(lines[row].ends_with(&format!("/{session}.jsonl")), "{table}");
    }
    assert!(lines[1].contains("Mend the [31m parser") && !table.contains('\x1b'), "{table}");
}

/// A server that knows its project.
fn langfuse() -> Server {
    Server::answering(|request| match &*request.path {
        "/api/public/projects" if request.key() == "pk-lf-test:sk-lf-test" => {
            Answer::ok().body(r#"{"data":[{"id":"proj-7","name":"Seven"}]}"#)
        }
        "/api/public/projects" => Answer::status(401),
        _ => Answer::ok(),
    })
}

#[test]
fn a_session_is_found_in_langfuse() {
    let home = Home::new();
    let server = langfuse();
    let missing = home.ctl(&["open", "--print"]);
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    let daemon = home.daemon();
    let story = delivered_session(&home, &server, "work", "s-1");
    delivered_session(&home, &server, "work", "s-2");
    let roots: Vec<_> = server.spans().into_iter().filter(|span| span.is_root()).collect();
    let last = |session: &str| {
        let of_session = roots.iter().filter(|root| root.get("session.id") == session);
        of_session.max_by_key(|root| root.start).expect("a root").trace_id.clone()
    };
    let page = |session: &str| format!("{}/project/proj-7/traces/{}\n", server.url, last(session));
    // The key from the environment, then from the project's settings.
    assert_eq!(text(&home.ctl_with(&["open", "--print", "s-1"], &server.env())), page("s-1"));
    let no_key = home.ctl(&["open", "--print", "s-1"]);
    assert_eq!(no_key.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&no_key.stderr).contains("no secret key"), "{no_key:?}");
    home.settings("work", &server.env());
    assert_eq!(text(&home.ctl(&["open", "--print", "s-1"])), page("s-1"));
    let whole = text(&home.ctl(&["open", "--print", "--session", "s-1"]));
    assert_eq!(whole, format!("{}/project/proj-7/sessions/s-1\n", server.url));
    // Without a name: the latest session of the project around the working directory; no browser without a terminal.
    let within = |dir: &Path, args: &[&str]| {
        let mut command = home.command(&bins().ctl);
        command.args(args).current_dir(dir);
        home::run(command, b"").0
    };
    let deep = home.project("work/src/deep");
    assert_eq!(text(&within(&deep, &["open"])), page("s-2"));
    let elsewhere = within(&home.project("elsewhere"), &["open"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("cc-langfusectl sessions"), "{elsewhere:?}");
    // Without the daemon, the transcript gives the project.
    daemon.terminate();
    assert_eq!(text(&home.ctl(&["open", "--print", "s-1"])), page("s-1"));
    assert_eq!(text(&home.ctl(&["open", "--print", story.path.to_str().expect("text")])), page("s-1"));
    assert_eq!(within(&deep, &["open"]).status.code(), Some(3));
    // If a server does not know the key, the message names it and the session.
    home.settings("work", &server::env(&server.url, "pk-lf-test", "sk-other"));
    let refused = home.ctl(&["open", "--print", "s-1"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("401") && said.contains("s-1"), "{said}");
    assert!(!said.contains("sk-other"), "{said}");
}

#[test]
fn open_does_not_send_a_key_to_a_server_that_a_repository_chose() {
    if !has("git", "open in a stranger's repository") {
        return;
    }
    let home = Home::new();
    let server = langfuse();
    let mut story = Story::new(&home, "repo", "s-1");
    story.turn("hello", "hi");
    let repo = home.project("repo");
    home::settings(&repo.join(".claude/settings.json"), &[("LANGFUSE_BASE_URL".into(), server.url.clone())]);
    let keys: Vec<_> = server.env().into_iter().filter(|(name, _)| name.ends_with("_KEY")).collect();
    home::settings(&home.path().join(".claude/settings.json"), &keys);
    for args in [&["init", "-q"][..], &["add", "."]] {
        assert!(Command::new("git").current_dir(&repo).args(args).status().expect("git").success());
    }
    let output = home.ctl(&["open", "--print", "s-1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains(&format!("trust {}", server.url)), "{said}");
    assert_eq!(server.requests().len(), 0);
    // The user's trust counts until it is withdrawn.
    let _daemon = home.daemon();
    assert!(home.ctl(&["trust", &server.url, "pk-lf-test"]).status.success());
    assert!(text(&home.ctl(&["open", "--print", "s-1"])).contains("/project/proj-7/"));
    home.hook(&story.stop("hi"), &server.env());
    home.flush();
    assert!(home.ctl(&["trust", "--revoke", &server.url]).status.success());
    let before = server.requests().len();
    let output = home.ctl(&["open", "--print", "s-1"]);
    assert!(output.status.code() == Some(1) && server.requests().len() == before, "{output:?}");
}

#[test]
fn status_shows_the_latest_sessions_with_their_tokens() {
    let home = Home::new();
    assert_eq!(home.ctl(&["top"]).status.code(), Some(3));
    let server = Server::new();
    let _daemon = home.daemon();
    let mut story = delivered_session(&home, &server, "work", "s-1");
    let row = || {
        let shown = text(&home.ctl(&["status"]));
        let (head, row) = (
            shown.lines().find(|line| line.starts_with("SESSION")),
            shown.lines().find(|line| line.starts_with("s-1")),
        );
        let (head, row) = (head.expect("heads").to_owned(), row.expect("the session").to_owned());
        let cell = move |name: &str| {
            let from = head.find(name).expect("a column");
            row[from..].split_whitespace().next().unwrap_or_default().to_owned()
        };
        (shown, ["TURNS", "IN", "OUT", "CACHED", "COST"].map(cell))
    };
    let (shown, cells) = row();
    assert_eq!(cells, ["2", "20", "3", "14", "$0.0001"], "{shown}");
    assert!(shown.contains("hook events   0 waiting"), "{shown}");
    assert!(shown.contains(&format!("{} (pk-lf-test)", server.url)) && shown.contains(" ok, "), "{shown}");
    assert!(!shown.contains('\x1b'), "{shown}");
    // Claude Code's own total, until the session continues.
    story.raw(br#"{"type":"cost-state","sessionId":"s-1","totalCostUSD":0.25,"modelUsage":{}}"#);
    assert_eq!(row().1, ["2", "20", "3", "14", "$0.2500"]);
    story.turn("third", "three");
    let (_, cells) = row();
    assert_eq!(cells[1..], ["30", "6", "21", "$0.0002"]);
    // `top` cannot draw on a pipe, and prints the same; `top --once` did so before.
    for args in [&["top"][..], &["top", "--once"]] {
        assert!(text(&home.ctl(args)).contains("s-1"), "{args:?}");
    }
}

#[test]
fn top_restores_the_terminal_when_it_ends() {
    if !cfg!(target_os = "linux") || !has("script", "top on a terminal") {
        return;
    }
    let home = Home::new();
    let server = Server::new();
    let _daemon = home.daemon();
    delivered_session(&home, &server, "work", "s-1");
    let pid = home.path().join("pid");
    for end in ["q", "\x03", "TERM"] {
        let _ = fs::remove_file(&pid);
        let inner = format!("echo $$ > {}; exec {} top --interval 100ms", pid.display(), bins().ctl.display());
        let all = format!("stty cols 100 rows 30; stty -g; sh -c '{inner}'; echo ended $?; stty -g");
        let mut command = home.command(Path::new("script"));
        command.env("SHELL", "/bin/sh").args(["-qec", &all, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("script");
        let mut input = child.stdin.take().expect("piped");
        let output = child.stdout.take().expect("piped");
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut chunk = Vec::new();
            while output.read_until(b'\n', &mut chunk).is_ok_and(|n| n > 0)
                && sender.send(std::mem::take(&mut chunk)).is_ok()
            {}
        });
        let mut seen = Vec::new();
        // Rates appear from the second view on.
        eventually("the live view", || {
            seen.extend(chunks.try_iter().flatten());
            String::from_utf8_lossy(&seen).contains("heard, 0.0/s")
        });
        match end {
            "TERM" => {
                let pid: i32 = fs::read_to_string(&pid).expect("the pid").trim().parse().expect("a number");
                kill_process(Pid::from_raw(pid).expect("a pid"), Signal::TERM).expect("it can be printed");
            }
            key => input.write_all(key.as_bytes()).and_then(|()| input.flush()).expect("a key"),
        }
        let status = until("its end", || child.try_wait().expect("it is ours"));
        seen.extend(chunks.iter().flatten());
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(status.success() && seen.contains("ended 0"), "{end:?}: {seen}");
        let (before, view) = seen.split_once("\x1b[?1049h").expect("another screen");
        let after = view.rsplit_once("\x1b[?1049l").expect("the screen is left").1;
        assert!(after.contains("ended 0"), "{end:?}: {seen}");
        assert_eq!(before.trim(), after.trim().lines().last().expect("the settings").trim(), "{end:?}");
        assert!(view.contains("s-1") && view.contains("\x1b[?25h"), "{seen}");
        assert!(view.lines().all(|line| line.chars().count() < 130), "{view}");
    }
}
