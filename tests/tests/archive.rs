//! With `archive = true` a session can be looked at after Claude Code has deleted its transcript: masked, bounded, and gone when it is
//! forgotten.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tests::{
    Home, Server, Story,
    home::mode,
    recording::{Mode, Recording},
};

const KEY: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

fn archive(home: &Home) -> PathBuf {
    home.paths().state.join("archive")
}

/// Every file below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect();
    found.sort();
    found
}

fn printed(home: &Home, args: &[&str]) -> String {
    let done = home.ctl(args);
    assert!(done.status.success(), "{args:?}: {done:?}");
    String::from_utf8(done.stdout).expect("UTF-8")
}

fn json(home: &Home, args: &[&str]) -> Value {
    serde_json::from_str(&printed(home, args)).expect("JSON")
}

/// Waits until that many sessions are archived.
fn archived(home: &Home, sessions: u64) -> Value {
    home.status_until("the sessions to be archived", |status| status["archive"]["sessions"] == sessions)
}

/// A home with an archive, a server, and the settings of a project that sends there.
fn traced(config: &str) -> (Home, Server) {
    let (home, server) = (Home::new(), Server::new());
    home.configure(config);
    home.settings("work", &server.env());
    (home, server)
}

/// A session of `project` that has ended.
fn session(home: &Home, server: &Server, project: &str, id: &str, answer: &str) -> Story {
    let mut story = Story::new(home, project, id);
    story.turn("what is it?", answer);
    home.hook(&story.stop(answer), &server.env());
    home.hook(&story.event("SessionEnd"), &server.env());
    story
}

#[test]
fn a_session_is_shown_as_before_when_its_transcript_is_gone() {
    let (home, server) = traced("archive = true");
    let _daemon = home.daemon();
    let answer = format!("the key is {KEY}");
    let story = session(&home, &server, "work", "kept", &answer);
    archived(&home, 1);
    let usage = |by: &str| json(&home, &["usage", "--json", "--by", by]);
    let before: Vec<Value> = ["session", "project", "model", "day"].map(usage).into();
    assert_eq!(before[0]["total"]["calls"], 1);
    let shown = json(&home, &["show", "kept", "--json"]);
    for file in files(&archive(&home)) {
        assert_eq!(mode(&file) & 0o777, 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().expect("a directory")) & 0o777, 0o700, "{}", file.display());
    }
    fs::remove_file(&story.path).expect("deleted, as by Claude Code");
    let after: Vec<Value> = ["session", "project", "model", "day"].map(usage).into();
    assert_eq!(after, before);
    let again = json(&home, &["show", "kept", "--json"]);
    assert_eq!(again, shown);
    assert!(again.to_string().contains("[REDACTED:") && !again.to_string().contains(KEY), "{again}");
    assert!(printed(&home, &["status"]).contains("archive       1 session, "));
    // Nothing is sent from a copy.
    let replayed = home.ctl_with(&["replay", "kept"], &server.env());
    let why = String::from_utf8_lossy(&replayed.stderr);
    assert!(!replayed.status.success() && why.contains("the archive has a copy to look at"), "{replayed:?}");
}

#[test]
fn nothing_is_kept_unless_it_is_asked_for() {
    let (home, server) = traced("");
    let _daemon = home.daemon();
    session(&home, &server, "work", "s", "a");
    server.wait_for(2);
    home.flush();
    assert!(!archive(&home).exists() && home.status()["archive"].is_null());
}

#[test]
fn what_consent_does_not_cover_is_left_out_and_counted() {
    let (home, server) = traced("archive = true");
    for project in ["off", "paused", "sizes"] {
        home.settings(project, &server.env());
    }
    let sizes = [server.env(), vec![("CC_LANGFUSE_CAPTURE".to_owned(), "metadata".to_owned())]].concat();
    home.settings("sizes", &sizes);
    // A server that a repository chooses waits for trust.
    let theirs = Server::new();
    tests::home::settings(&home.project("held").join(".claude/settings.json"), &theirs.env());
    let daemon = home.daemon();
    let of = |project: &str| match project {
        "sizes" => sizes.clone(),
        "held" => theirs.env(),
        _ => server.env(),
    };
    for project in ["work", "off", "paused", "sizes", "held"] {
        let mut story = Story::new(&home, project, &format!("s-{project}"));
        story.turn("q", "a");
        home.hook(&story.stop("a"), &of(project));
    }
    home.status_until("all to be read", |status| {
        status["inbox"]["pending"] == 0 && status["sessions"].as_array().is_some_and(|all| all.len() == 5)
    });
    assert!(home.ctl(&["pause", home.project("paused").to_str().expect("UTF-8")]).status.success());
    fs::remove_file(home.project("off").join(".claude/settings.local.json")).expect("tracing is off");
    // The search at the start looks at all of them.
    assert!(daemon.terminate().success());
    let _daemon = home.daemon();
    let status = home.status_until("all to be judged", |status| {
        let left_out = status["archive"]["left_out"].as_object();
        let left_out: u64 = left_out.into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
        status["archive"]["sessions"] == 1 && left_out == 4
    });
    let left_out = &status["archive"]["left_out"];
    assert_eq!(*left_out, json!({"off": 1, "paused": 1, "held": 1, "capture_metadata": 1}), "{left_out}");
    assert_eq!(files(&archive(&home)), [archive(&home).join("-work/s-work.jsonl")]);
}

#[test]
fn forget_removes_the_copy_for_good() {
    let (home, server) = traced("archive = true");
    let _daemon = home.daemon();
    session(&home, &server, "work", "gone", "a");
    session(&home, &server, "work", "stays", "b");
    archived(&home, 2);
    // Also when only the copy says which traces the session has.
    fs::remove_file(home.path().join(".claude/projects/-work/gone.jsonl")).expect("deleted");
    let done = home.ctl(&["forget", "--yes", "gone"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(files(&archive(&home)), [archive(&home).join("-work/stays.jsonl")]);
    let done = home.ctl(&["forget", "--yes", "stays"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(files(&archive(&home)), Vec::<PathBuf>::new());
    // It does not come back although its transcript is still there.
    session(&home, &server, "work", "last", "c");
    let status = archived(&home, 1);
    assert_eq!(files(&archive(&home)), [archive(&home).join("-work/last.jsonl")], "{status}");
    assert_eq!(json(&home, &["usage", "--json", "--by", "session"])["total"]["calls"], 2);
}

#[test]
fn forget_removes_the_copies_of_forks_too() {
    let (home, server) = traced("archive = true");
    let recording = Recording::load("fork");
    recording.play_in(&home, &server.env(), Mode::Plain, || {});
    let _daemon = home.daemon();
    let sessions = recording.sessions().len();
    assert!(sessions > 1);
    archived(&home, sessions as u64);
    let copies = files(&archive(&home));
    let is_fork = |path: &PathBuf| {
        let id = path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
        let origin = home.path().join(".claude/projects/-home-dev-project").join(format!("{id}.jsonl"));
        fs::read_to_string(origin).expect("a transcript").contains("requestSessionId")
    };
    let (forks, first): (Vec<_>, Vec<_>) = copies.into_iter().partition(is_fork);
    assert!(!forks.is_empty() && first.len() == 1, "{forks:?} {first:?}");
    let id = first[0].file_stem().expect("a name").to_str().expect("UTF-8");
    let done = home.ctl(&["forget", "--yes", id]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(files(&archive(&home)), Vec::<PathBuf>::new());
}

#[test]
fn the_archive_keeps_to_its_limit_and_uninstall_removes_it() {
    let (home, server) = traced("archive = true\narchive_mib = 1");
    let daemon = home.daemon();
    // Text that does not compress: each takes over a quarter of the limit.
    for n in 0..4 {
        let id = format!("s-{n}");
        session(&home, &server, "work", &id, &tests::noise(400 << 10, n + 1));
        home.status_until("it to be archived", |_| archive(&home).join(format!("-work/{id}.jsonl")).exists());
    }
    let status = home.status_until("the oldest to be removed", |status| {
        status["archive"]["removed"].as_u64().is_some_and(|removed| removed > 0)
    });
    let left = files(&archive(&home));
    assert!(left.contains(&archive(&home).join("-work/s-3.jsonl")), "{left:?}");
    assert!(!left.contains(&archive(&home).join("-work/s-0.jsonl")), "{left:?}");
    assert!(status["archive"]["bytes"].as_u64().is_some_and(|bytes| bytes <= 1 << 20), "{status}");
    // What was removed is not archived again only to be removed.
    assert!(daemon.terminate().success());
    let daemon = home.daemon();
    let again = home.status_until("the search", |status| status["archive"]["left_out"]["no_room"] != Value::Null);
    assert_eq!(again["archive"]["removed"], status["archive"]["removed"]);
    assert_eq!(files(&archive(&home)), left);
    assert!(daemon.terminate().success());
    let done = home.ctl(&["uninstall", "--yes", "--purge"]);
    assert!(done.status.success() && !archive(&home).exists() && !home.paths().state.exists(), "{done:?}");
}

#[test]
fn subagents_are_archived_with_their_session() {
    let (home, server) = traced("archive = true");
    Recording::load("subagents_par").play_in(&home, &server.env(), Mode::Plain, || {});
    // The search at the start finds it.
    let _daemon = home.daemon();
    archived(&home, 1);
    let before = json(&home, &["usage", "--json", "--by", "agent"]);
    fs::remove_dir_all(home.path().join(".claude/projects")).expect("deleted");
    assert_eq!(json(&home, &["usage", "--json", "--by", "agent"]), before);
    assert!(before["rows"].as_array().is_some_and(|rows| rows.len() > 1), "{before}");
}
