//! Hook and daemon of different versions lose nothing between them.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    time::Duration,
};

use serde_json::json;
use tests::{Home, Server, Story, eventually, raw, server};

/// The request of the first version's hook, byte for byte, except for its home and server.
const VERSION_1: &[u8] = b"cc-langfuse-event/1\x0018a9e6d37d7f7e27-1f2b\x001777000000123456789\0\0\
    TRACE_TO_LANGFUSE=true\0LANGFUSE_PUBLIC_KEY=pk-lf-test\0LANGFUSE_SECRET_KEY=sk-lf-test\0LANGFUSE_BASE_URL={url}\0\
    CLAUDE_PROJECT_DIR={home}/work\0\0\
    {\"session_id\":\"old\",\"transcript_path\":\"{home}/.claude/projects/-work/old.jsonl\",\"cwd\":\"{home}/work\",\
    \"permission_mode\":\"default\",\"hook_event_name\":\"Stop\",\"stop_hook_active\":false,\"last_assistant_message\":\"a\"}";

const TIMEOUT: Duration = Duration::from_secs(10);

fn recorded(home: &Home, server: &Server) -> Vec<u8> {
    let text = std::str::from_utf8(VERSION_1).expect("UTF-8");
    text.replace("{home}", home.path().to_str().expect("UTF-8")).replace("{url}", &server.url).into_bytes()
}

/// A possible request of a later version's hook.
fn later(payload: &str) -> Vec<u8> {
    [&b"cc-langfuse-event/2\0something=new\0\xff\xfe\0"[..], payload.as_bytes()].concat()
}

#[test]
fn events_of_an_old_hook_are_accepted() {
    for spooled in [false, true] {
        let (home, server) = (Home::new(), Server::new());
        home.settings("work", &server.env());
        Story::new(&home, "work", "old").turn("q", "a");
        let event = recorded(&home, &server);
        let _daemon = home.daemon();
        if spooled {
            let part = home.paths().spool.join("18a9e6d37d7f7e27-1f2b.part");
            fs::write(&part, &event).expect("written");
            fs::rename(&part, part.with_extension("event")).expect("renamed");
        } else {
            assert_eq!(raw::post(&home.paths().socket, &event, TIMEOUT).expect("an answer"), 204);
        }
        let spans = server.wait_for(2);
        assert!(spans.iter().all(|span| span.get("session.id") == "old"));
        home.flush();
        assert_eq!((server.spans().len(), home.spooled().len()), (2, 0));
    }
}

#[test]
fn an_event_of_a_later_version_is_refused_and_counted() {
    let home = Home::new();
    let _daemon = home.daemon();
    for count in 1..=3 {
        let status = raw::post(&home.paths().socket, &later("{}"), TIMEOUT).expect("an answer");
        assert_eq!(status, 400, "a hook must not take this for a yes");
        assert_eq!(home.status()["skipped_lines"], json!({"hook_version": count}));
    }
    assert_eq!(home.status()["inbox"]["pending"], 0);
    // What no version can read is counted and dropped: it would never be accepted.
    for body in [&b""[..], b"{}", b"cc-langfuse-event/1\0\0"] {
        assert_eq!(raw::post(&home.paths().socket, body, TIMEOUT).expect("an answer"), 204, "{body:?}");
    }
    assert_eq!(home.status()["skipped_lines"], json!({"hook_version": 3, "hook_frame": 3}));
}

#[test]
fn a_spooled_event_of_a_later_version_waits_for_a_newer_daemon() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    let kept = [home.paths().spool.join("0.event"), home.paths().spool.join("f.event")];
    for file in &kept {
        fs::write(file, later("{}")).expect("written");
    }
    for _ in 0..2 {
        let daemon = home.daemon();
        server.wait_for(2);
        home.flush();
        home.flush();
        let status = home.status();
        assert_eq!(status["left_in_spool"], json!({"other_version": 2}), "{status}");
        assert_eq!(status["skipped_lines"], json!({}), "{status}");
        assert!(String::from_utf8_lossy(&home.ctl(&["status"]).stdout).contains("2 hook events of another version"));
        daemon.kill();
        assert_eq!(home.spooled().len(), 2);
        assert!(kept.iter().all(|file| fs::read(file).expect("kept") == later("{}")));
    }
    // The next daemon that knows it removes it.
    let _daemon = home.daemon();
    fs::remove_file(&kept[0]).expect("removed");
    home.flush();
    assert_eq!(home.status()["left_in_spool"], json!({"other_version": 1}));
}

#[test]
fn a_hook_spools_an_event_that_the_daemon_does_not_know() {
    let home = Home::new();
    let paths = home.paths();
    fs::create_dir_all(&paths.state).expect("made");
    fs::set_permissions(&paths.state, fs::Permissions::from_mode(0o700)).expect("closed");
    let listener = UnixListener::bind(&paths.socket).expect("bound");
    let env = server::env("http://127.0.0.1:1", "pk", "sk-secret");
    for (round, line) in
        ["400 Bad Request", "404 Not Found", "405 Not Allowed", "301 Moved", "100 Continue", "501 X"].iter().enumerate()
    {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().expect("the hook");
                let mut seen = [0; 1 << 14];
                let _ = stream.read(&mut seen);
                let _ = stream.write_all(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").as_bytes());
            });
            home.hook(&Story::new(&home, "work", "s").stop("a"), &env);
        });
        assert_eq!(home.spooled().len(), round + 1, "{line}");
    }
    // Each is a valid event.
    drop(listener);
    let _daemon = home.daemon();
    eventually("the events to be taken", || home.spooled().is_empty());
}
