//! Whatever happens, the hook exits 0 at once, prints nothing, and loses no event that could be kept.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Home, Server, Story, bins, eventually, home, home::mode, server, terminal};

/// The longest time that a hook may delay Claude Code here, on a busy machine. A stuck daemon alone takes 250 ms of it.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn a_hook_of_an_untraced_project_reads_and_writes_nothing() {
    let home = Home::new();
    for value in [None, Some(""), Some("false"), Some("1"), Some("yes"), Some("true "), Some("truee")] {
        let mut command = home.command(&bins().hook);
        command.envs(value.map(|value| ("TRACE_TO_LANGFUSE", value)));
        // The pipe stays open and empty: a hook that read it would wait.
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let held = child.stdin.take();
        let started = Instant::now();
        eventually("the hook to end", || child.try_wait().expect("it is ours").is_some());
        assert!(started.elapsed() < AT_ONCE, "{value:?} took {:?}", started.elapsed());
        drop(held);
        home::assert_silent(&child.wait_with_output().expect("it has ended"));
        assert_eq!(fs::read_dir(home.path()).expect("the home").count(), 0, "{value:?} left something");
    }
}

#[test]
fn tracing_is_on_in_any_letter_case() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    for (number, value) in ["true", "TRUE", "True", "tRuE"].into_iter().enumerate() {
        let mut story = Story::new(&home, "work", &format!("case-{number}"));
        story.turn("q", "a");
        let mut env = server.env();
        env[0].1 = value.to_owned();
        home.hook(&story.stop("a"), &env);
        server.wait_for(2 * (number + 1));
    }
}

#[test]
fn an_event_without_a_daemon_waits_in_a_private_file_without_the_secret() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let mut story = Story::new(&home, "work", "away");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    let paths = home.paths();
    let files = home.spooled();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!((mode(&files[0]), mode(&paths.spool), mode(&paths.state)), (0o600, 0o700, 0o700));
    let content = String::from_utf8_lossy(&fs::read(&files[0]).expect("readable")).into_owned();
    assert!(content.contains("pk-lf-test") && content.contains("last_assistant_message"), "{content:?}");
    assert!(!content.contains("sk-lf"), "the secret is on disk");

    let _daemon = home.daemon();
    let spans = server.wait_for(2);
    assert_eq!(spans.len(), 2);
    home.flush();
    assert_eq!(home.spooled(), Vec::<std::path::PathBuf>::new(), "a file that was taken is removed");
    assert_eq!(server.spans().len(), 2);
}

#[test]
fn an_event_spooled_while_the_daemon_runs_is_found() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let mut story = Story::new(&home, "work", "found");
    story.turn("q", "a");
    // The hook creates the state directory, so the file is created elsewhere and moved in.
    let elsewhere = Home::new();
    elsewhere.hook(&story.stop("a"), &server.env());
    let file = elsewhere.spooled().remove(0);
    let _daemon = home.daemon();
    fs::rename(&file, home.paths().spool.join(file.file_name().expect("a name"))).expect("on one file system");
    server.wait_for(2);
}

#[test]
fn an_invalid_event_is_only_counted_by_its_reason() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let env = server.env();
    let without = |name: &str| env.iter().filter(|(n, _)| n != name).cloned().collect::<Vec<_>>();
    let with = |name: &str, value: &str| {
        let mut env = without(name);
        env.push((name.to_owned(), value.to_owned()));
        env
    };
    let story = Story::new(&home, "work", "s");
    let projects = story.path.parent().expect("a directory").to_path_buf();
    let at = |name: &str| projects.join(name);
    fs::create_dir(at("directory.jsonl")).expect("made");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo.jsonl"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("made");
    symlink("/etc/passwd", at("link.jsonl")).expect("made");
    let on =
        |path: &str| json!({"session_id": "s", "transcript_path": path, "hook_event_name": "SessionEnd"}).to_string();
    let path = |name: &str| on(at(name).to_str().expect("UTF-8"));

    let of_payload = [
        ("hook_not_json", String::new()),
        ("hook_not_json", "not JSON".into()),
        ("hook_not_json", "[]".into()),
        ("hook_not_json", "null".into()),
        ("hook_not_json", r#"{"session_id":"s","transcript_path":"/a.jsonl""#.into()),
        ("hook_fields_missing", "{}".into()),
        ("hook_fields_missing", r#"{"session_id":"s"}"#.into()),
        ("hook_fields_missing", r#"{"transcript_path":"/a.jsonl"}"#.into()),
        ("hook_fields_missing", r#"{"session_id":"","transcript_path":"/a.jsonl"}"#.into()),
        ("hook_transcript_path", on("relative.jsonl")),
        ("hook_transcript_path", on("/etc/passwd")),
        ("hook_transcript_path", on("")),
        ("transcript_missing", path("missing.jsonl")),
        ("transcript_not_a_file", path("directory.jsonl")),
        ("transcript_not_a_file", path("fifo.jsonl")),
        ("transcript_not_a_file", path("link.jsonl")),
    ];
    let of_environment = [
        ("hook_keys_missing", on("/a.jsonl"), without("LANGFUSE_PUBLIC_KEY")),
        ("hook_base_url", on("/a.jsonl"), with("LANGFUSE_BASE_URL", "ftp://example.com")),
    ];
    let of_payload = of_payload.map(|(reason, payload)| (reason, payload, env.clone()));
    let mut expect = std::collections::BTreeMap::<&str, u64>::new();
    for (reason, payload, env) in of_payload.iter().chain(&of_environment) {
        home.hook_with(payload.as_bytes(), env);
        *expect.entry(reason).or_default() += 1;
        home.status_until(&format!("{reason} to be counted for {payload:?}"), |status| {
            status["skipped_lines"] == json!(expect) && status["inbox"]["pending"] == 0
        });
    }
    assert_eq!((home.spooled().len(), server.requests().len()), (0, 0));
}

#[test]
fn a_payload_of_64_mib_does_no_harm() {
    let (home, server) = (Home::new(), Server::new());
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "large");
    story.turn("q", "a");
    let filler = "x".repeat(64 << 20);
    let event = story.stop("a");
    let head = event.to_string();
    let payload = format!("{},\"tool_response\":\"{filler}\"}}", head.strip_suffix('}').expect("an object"));
    home.hook_with(payload.as_bytes(), &server.env());
    assert_eq!(server.wait_for(2).len(), 2, "what identifies the event came first");
    // The same with the identifying fields beyond the part that is kept.
    let payload = format!("{{\"tool_response\":\"{filler}\",{}", head.strip_prefix('{').expect("an object"));
    home.hook_with(payload.as_bytes(), &server.env());
    home.status_until("the event to be counted", |status| {
        status["skipped_lines"].as_object().is_some_and(|s| !s.is_empty())
    });
    if let Some(peak) = daemon.peak_kib() {
        assert!(peak < 100 << 10, "the daemon held {peak} KiB");
    }
}

#[test]
fn a_stdin_that_is_never_closed_delays_the_hook_only_briefly() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let mut command = home.command(&bins().hook);
    command.envs(server.env()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(story.stop("a").to_string().as_bytes()).expect("written");
    eventually("the hook to end", || child.try_wait().expect("it is ours").is_some());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(stdin);
    home::assert_silent(&child.wait_with_output().expect("it has ended"));
    server.wait_for(2);
}

#[test]
fn a_daemon_that_never_answers_delays_the_hook_briefly_and_loses_no_event() {
    let home = Home::new();
    let paths = home.paths();
    fs::create_dir_all(&paths.state).expect("made");
    fs::set_permissions(&paths.state, fs::Permissions::from_mode(0o700)).expect("closed");
    // Answers nothing, answers nonsense, reports an error.
    for (round, answer) in
        [None, Some("nonsense\r\n\r\n"), Some("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")].iter().enumerate()
    {
        let listener = UnixListener::bind(&paths.socket).expect("bound");
        let answer = *answer;
        let stuck = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the hook");
            let mut seen = [0; 1 << 14];
            if let Some(answer) = answer {
                let _ = stream.read(&mut seen);
                let _ = stream.write_all(answer.as_bytes());
            }
            // Until the hook has exited.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let took =
            home.hook(&Story::new(&home, "work", "s").stop("a"), &server::env("http://127.0.0.1:1", "pk", "sk-secret"));
        assert!(took < AT_ONCE, "{answer:?} took {took:?}");
        assert_eq!(home.spooled().len(), round + 1, "{answer:?}");
        stuck.join().expect("it saw the hook go");
        fs::remove_file(&paths.socket).expect("removed");
    }
}

#[test]
fn an_event_that_was_both_spooled_and_accepted_counts_once() {
    let (home, server) = (Home::new(), Server::new());
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    daemon.signal(Signal::STOP);
    let took = home.hook(&story.stop("a"), &server.env());
    assert!(took < AT_ONCE, "{took:?}");
    assert_eq!(home.spooled().len(), 1);
    daemon.signal(Signal::CONT);
    server.wait_for(2);
    home.flush();
    assert_eq!((server.spans().len(), home.spooled().len()), (2, 0));
    assert_eq!(home.status()["skipped_lines"], json!({}));
}

#[test]
fn many_hooks_at_once_lose_nothing() {
    const AT_A_TIME: usize = 8;
    const EACH: usize = 6;
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    std::thread::scope(|scope| {
        for thread in 0..AT_A_TIME {
            let (home, server) = (&home, &server);
            scope.spawn(move || {
                // The hooks of a session come one after another, as from Claude Code.
                let mut story = Story::new(home, "work", &format!("s-{thread}"));
                for turn in 0..EACH {
                    let answer = format!("answer {turn}");
                    story.turn("q", &answer);
                    home.hook(&story.stop(&answer), &server.env());
                }
            });
        }
    });
    home.flush();
    let spans = server.spans();
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!((spans.len(), ids.len()), (2 * AT_A_TIME * EACH, 2 * AT_A_TIME * EACH));
}

#[test]
fn other_files_in_the_spool_are_counted_or_left_alone() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    let spool = home.paths().spool;
    let precious = home.path().join("precious");
    fs::write(&precious, "precious").expect("written");
    fs::write(spool.join("0.event"), "").expect("written");
    fs::write(spool.join("1.event"), "cc-langfuse-event/2\0from the future").expect("written");
    fs::write(spool.join("2.event"), vec![b'x'; 8 << 20]).expect("written");
    fs::write(spool.join("unfinished.part"), "cc-lang").expect("written");
    fs::create_dir(spool.join("3.event")).expect("made");
    symlink(&precious, spool.join("4.event")).expect("made");
    let _daemon = home.daemon();
    server.wait_for(2);
    home.flush();
    let status = home.status();
    assert_eq!(status["skipped_lines"], json!({"hook_frame": 2}));
    assert_eq!(status["left_in_spool"], json!({"other_version": 1, "not_a_file": 2}));
    assert_eq!(fs::read_to_string(&precious).expect("there"), "precious");
    let mut left: Vec<_> = home.spooled().iter().map(|path| path.file_name().expect("a name").to_owned()).collect();
    left.sort();
    assert_eq!(left, ["1.event", "3.event", "4.event", "unfinished.part"]);
}

#[test]
fn an_event_for_a_dead_socket_is_spooled() {
    let home = Home::new();
    let paths = home.paths();
    fs::create_dir_all(&paths.state).expect("made");
    fs::set_permissions(&paths.state, fs::Permissions::from_mode(0o700)).expect("closed");
    drop(UnixListener::bind(&paths.socket).expect("bound"));
    home.hook(&Story::new(&home, "work", "s").stop("a"), &server::env("http://127.0.0.1:1", "pk", "sk-secret"));
    assert_eq!(home.spooled().len(), 1);
}

#[test]
fn a_state_directory_open_to_others_gets_no_event() {
    let home = Home::new();
    let paths = home.paths();
    fs::create_dir_all(&paths.state).expect("made");
    fs::set_permissions(&paths.state, fs::Permissions::from_mode(0o777)).expect("opened");
    let listener = UnixListener::bind(&paths.socket).expect("bound");
    listener.set_nonblocking(true).expect("set");
    home.hook(&Story::new(&home, "work", "s").stop("a"), &server::env("http://127.0.0.1:1", "pk", "sk-secret"));
    assert!(listener.accept().is_err(), "the hook connected to a socket that anybody could have put there");
}

#[test]
fn the_hook_succeeds_without_a_usable_home() {
    let home = Home::new();
    let file = home.path().join("file");
    fs::write(&file, "").expect("written");
    let closed = home.path().join("closed");
    fs::create_dir(&closed).expect("made");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("closed");
    let payload = Story::new(&home, "work", "s").stop("a").to_string();
    let places = [file.join("below"), file, closed.clone(), "/dev/null".into(), "".into()];
    for place in places.iter().map(Some).chain([None]) {
        let mut command = home.command(&bins().hook);
        command.env_remove("HOME").envs(place.map(|place| ("HOME", place))).current_dir(home.path());
        command.envs(server::env("http://127.0.0.1:1", "pk", "sk-secret"));
        home::assert_silent(&home::run(command, payload.as_bytes()).0);
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("opened");
}

#[test]
fn every_event_name_leads_to_reading_the_transcript() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let events = ["SubagentStop", "PostToolUse", "Notification", "PreCompact", "SomethingNew", ""];
    for (number, name) in events.into_iter().enumerate() {
        let mut story = Story::new(&home, "work", &format!("any-{number}"));
        // A second prompt ends the first turn, whatever the event means for the second.
        story.turn("q", "a").prompt("next");
        home.hook(&story.event(name), &server.env());
        server.wait_for(2 * (number + 1));
    }
    let mut story = Story::new(&home, "work", "nameless");
    story.turn("q", "a").prompt("next");
    let mut event = story.event("");
    event.as_object_mut().expect("an object").remove("hook_event_name");
    event["hook_event_version"] = Value::from(7);
    home.hook(&event, &server.env());
    let spans = server.wait_for(2 * (events.len() + 1));
    assert_eq!(spans.iter().filter(|span| span.is_root()).count(), events.len() + 1);
}

#[test]
fn a_person_on_a_terminal_learns_version_and_purpose_and_nobody_else_does() {
    let home = Home::new();
    let version = concat!("cc-langfuse-hook ", env!("CARGO_PKG_VERSION"), "\n");
    for (arguments, expect) in [
        (&["--version"][..], version),
        (&["-V"], version),
        (&["--help"], "cc-langfusectl setup"),
        (&["-h"], "cc-langfusectl setup"),
        (&["--unknown"], ""),
        (&[], ""),
    ] {
        let mut command = home.command(&bins().hook);
        command.args(arguments);
        let shown = terminal::on_terminal(command, "");
        assert!(shown.contains(expect) && shown.is_empty() == expect.is_empty(), "{arguments:?}: {shown}");
        let mut command = home.command(&bins().hook);
        command.args(arguments).envs(Server::new().env());
        home::assert_silent(&home::run(command, b"{}").0);
    }
}
