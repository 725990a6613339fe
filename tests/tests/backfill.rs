//! History is sent once, with its true times, however often and wherever it is interrupted.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tests::{
    Answer, Home, Random, Server, Story, bins, eventually, ids, recording::Recording, server::env, tries, until,
};

/// The last line of `backfill --json`.
fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{output:?}"))
}

fn figures(output: &Output) -> (Option<i32>, [u64; 5]) {
    let report = report(output);
    let names = ["sessions", "turns", "spans_queued", "spans_already_sent", "skipped"];
    (output.status.code(), names.map(|name| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))))
}

fn backfill(home: &Home, args: &[&str], env: &[(String, String)]) -> Output {
    home.ctl_with(&[&["backfill", "--yes", "--json"], args].concat(), env)
}

fn aged(path: &Path, hours: u64) {
    let time = SystemTime::now() - Duration::from_secs(hours * 3600);
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("its time");
}

/// A session of `turns` turns of two calls and a tool: 4 spans each.
fn session(home: &Home, project: &str, id: &str, turns: usize) -> Story {
    let mut story = Story::new(home, project, id);
    for turn in 0..turns {
        story.prompt(&format!("question {turn}")).tool("output").answer(&format!("answer {turn}"));
    }
    story
}

#[test]
fn history_is_sent_once_with_its_true_times() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let stories: Vec<Story> = (0..5).map(|n| session(&home, "work", &format!("s{n}"), n + 1)).collect();
    let before = report(&home.ctl_with(&["backfill", "--dry-run", "--json"], &server.env()));
    assert_eq!((&before["spans_to_add"], &before["spans_queued"]), (&json!(60), &json!(0)));
    assert_eq!(server.spans(), [], "a dry run");
    let first = backfill(&home, &[], &server.env());
    assert_eq!(figures(&first), (Some(0), [5, 15, 60, 0, 0]), "{first:?}");
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (60, 60));
    for story in &stories {
        let own: Vec<_> = spans.iter().filter(|span| span.get("session.id") == story.session).collect();
        let text = fs::read_to_string(&story.path).expect("the transcript");
        let times: Vec<u64> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).expect("a line")["timestamp"].as_str().expect("a time").to_owned()
            })
            .map(|time| 1_795_132_800_000_000_000 + seconds(&time) * 1_000_000_000)
            .collect();
        assert_eq!(own.iter().map(|span| span.start).min(), times.first().copied(), "{}", story.session);
        assert_eq!(own.iter().map(|span| span.end).max(), times.last().copied(), "{}", story.session);
    }
    assert_eq!(figures(&backfill(&home, &[], &server.env())), (Some(0), [5, 15, 0, 60, 0]));
    assert_eq!(server.spans().len(), 60);
}

/// Seconds since the beginning of 2026-11-20.
fn seconds(time: &str) -> u64 {
    let part = |at: usize| time[at..at + 2].parse::<u64>().expect("a number");
    assert!(time.starts_with("2026-11-20T"), "{time}");
    part(11) * 3600 + part(14) * 60 + part(17)
}

#[test]
fn backfill_adds_nothing_to_a_session_that_was_traced_live() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    let mut story = session(&home, "work", "live", 2);
    home.hook(&story.stop("answer 1"), &server.env());
    server.wait_for(8);
    home.flush();
    assert_eq!(figures(&backfill(&home, &[], &[])), (Some(0), [1, 2, 0, 8, 0]));
    story.prompt("more").tool("output").answer("done");
    home.hook(&story.stop("done"), &server.env());
    home.flush();
    assert_eq!((server.spans().len(), ids(&server.spans()).len()), (12, 12));
}

#[test]
fn backfill_sends_each_session_where_its_project_says_and_skips_untraced_ones() {
    let (home, one, two) = (Home::new(), Server::new(), Server::new());
    let _daemon = home.daemon();
    home.settings("one", &env(&one.url, "pk-1", "sk-1"));
    home.settings("two", &env(&two.url, "pk-2", "sk-2"));
    for project in ["one", "two", "off"] {
        session(&home, project, &format!("s-{project}"), 1);
    }
    fs::write(Story::new(&home, "one", "none").path, "").expect("an empty one");
    fs::write(Story::new(&home, "one", "agent-x").path, "{}\n").expect("a subagent");
    let output = backfill(&home, &[], &[]);
    assert_eq!(figures(&output), (Some(0), [2, 2, 8, 0, 3]), "{output:?}");
    let reasons = json!({"empty": 1, "not_traced": 1, "subagent": 1});
    assert_eq!(report(&output)["skipped_by_reason"], reasons);
    let keys = |server: &Server| -> Vec<String> { server.requests().iter().map(tests::Request::key).collect() };
    assert!(keys(&one).iter().all(|key| key == "pk-1:sk-1") && keys(&two).iter().all(|key| key == "pk-2:sk-2"));
    assert_eq!((one.spans().len(), two.spans().len()), (4, 4));
}

#[test]
fn backfill_sends_only_the_requested_sessions() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let old = session(&home, "work", "old", 1);
    let new = session(&home, "work/deep", "new", 1);
    session(&home, "workshop", "other", 1);
    aged(&old.path, 50);
    let dry = |args: &[&str]| {
        let output = home.ctl_with(&[&["backfill", "--dry-run", "--json"], args].concat(), &server.env());
        report(&output)["sessions"].as_u64().expect("a number")
    };
    let work = home.path().join("work");
    let counts = [
        dry(&[]),
        dry(&["--since", "2d"]),
        dry(&["--since", "3d"]),
        dry(&["--project", &work.to_string_lossy()]),
        dry(&["--project", &work.to_string_lossy(), "--since", "12h"]),
        dry(&[&new.path.to_string_lossy()]),
        dry(&[&new.path.parent().expect("a directory").to_string_lossy(), &old.path.to_string_lossy()]),
    ];
    assert_eq!(counts, [3, 2, 3, 2, 1, 1, 2]);
    let nobody = home.ctl_with(&["backfill"], &server.env());
    assert_eq!((nobody.status.code(), server.spans().len()), (Some(2), 0), "{nobody:?}");
    for since in ["soon", "30", "99999999999w"] {
        assert_eq!(home.ctl(&["backfill", "--since", since, "--yes"]).status.code(), Some(2), "{since}");
    }
    assert_eq!(home.ctl(&["backfill", "/nowhere", "--yes"]).status.code(), Some(2));
    drop(_daemon);
    assert_eq!(backfill(&home, &[], &server.env()).status.code(), Some(3));
}

#[test]
fn a_turn_in_progress_is_left_until_it_is_complete() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = session(&home, "work", "live", 1);
    // Its times are recent: Claude Code is still working on it.
    let now = until("a time", || home.ctl(&["--version"]).status.success().then(SystemTime::now));
    let stamp = |back: u64| timestamp(now - Duration::from_secs(back));
    let line = |kind: &str, id: &str, message: &Value| {
        json!({"type": kind, "uuid": id, "sessionId": "live", "timestamp": stamp(5), "message": message}).to_string()
    };
    let call = json!({"id": "m-now", "role": "assistant", "model": "m", "stop_reason": "tool_use", "usage": {"output_tokens": 1},
        "content": [{"type": "tool_use", "id": "t-now", "name": "Bash", "input": {}}]});
    story.raw(line("user", "u-now", &json!({"role": "user", "content": "now"})).as_bytes());
    story.raw(line("assistant", "a-now", &call).as_bytes());
    let output = backfill(&home, &[], &server.env());
    assert_eq!(figures(&output), (Some(0), [1, 2, 4, 0, 0]), "{output:?}");
    assert_eq!(server.spans().len(), 4, "the turn before");
    let result = json!({"type": "tool_result", "tool_use_id": "t-now", "content": "output"});
    story.raw(line("user", "r-now", &json!({"role": "user", "content": [result]})).as_bytes());
    story.answer("done");
    home.hook(&story.stop("done"), &server.env());
    let spans = server.wait_for(8);
    assert_eq!((spans.len(), ids(&spans).len()), (8, 8));
}

fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    // Days to a date, by Howard Hinnant's algorithm.
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, plus) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{}-{month:02}-{day:02}T{:02}:{:02}:{:02}.000Z",
        year + era * 400 + plus,
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[test]
fn history_is_sent_to_a_second_server_too() {
    let (home, one, two) = (Home::new(), Server::new(), Server::new());
    let _daemon = home.daemon();
    session(&home, "work", "a", 3);
    session(&home, "work", "b", 2);
    assert_eq!(figures(&backfill(&home, &[], &one.env())), (Some(0), [2, 5, 20, 0, 0]));
    assert_eq!(figures(&backfill(&home, &[], &two.env())), (Some(0), [2, 5, 20, 0, 0]));
    assert_eq!(ids(&one.spans()), ids(&two.spans()));
    assert_eq!((one.spans().len(), two.spans().len()), (20, 20));
}

#[test]
fn a_server_that_is_down_is_named_and_gets_the_rest_later() {
    let (home, server) = (Home::new(), Server::answering(|_| Answer::status(401)));
    let _daemon = home.daemon();
    session(&home, "work", "a", 3);
    let output = backfill(&home, &["--patience", "1s"], &server.env());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let left = report(&output)["left"].to_string();
    assert!(left.contains("parked") && left.contains(&server.url), "{left}");
    let again = backfill(&home, &["--patience", "1s"], &server.env());
    assert_eq!(figures(&again), (Some(1), [1, 3, 0, 12, 0]), "nothing of it has arrived: {again:?}");
    server.change(|_| Answer::ok());
    assert_eq!(figures(&backfill(&home, &[], &server.env())), (Some(0), [1, 3, 0, 12, 0]));
    assert_eq!((server.spans().len(), ids(&server.spans()).len()), (12, 12));
}

#[test]
fn turns_copied_by_a_fork_count_once() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let first = session(&home, "work", "first", 2);
    let fork = first.path.with_file_name("fork.jsonl");
    let copied = fs::read_to_string(&first.path).expect("the transcript");
    let copied = copied.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).expect("a line");
        line["sessionId"] = "fork".into();
        line["forkedFrom"] = json!({"sessionId": "first", "messageUuid": line["uuid"]});
        format!("{line}\n")
    });
    fs::write(&fork, copied.collect::<String>()).expect("a fork");
    let output = backfill(&home, &[], &server.env());
    assert_eq!(figures(&output), (Some(0), [1, 2, 8, 0, 1]), "{output:?}");
    assert_eq!(report(&output)["skipped_by_reason"], json!({"copies_of_another_session": 1}));
    assert_eq!(server.spans().len(), 8);
    let output = backfill(&home, &[], &server.env());
    assert_eq!(figures(&output), (Some(0), [1, 2, 0, 8, 1]), "{output:?}");
}

/// The orders in which `n` things can stand.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let with_last = |order: Vec<usize>| (0..n).map(move |at| [&order[..at], &[n - 1], &order[at..]].concat());
    orders(n - 1).into_iter().flat_map(with_last).collect()
}

/// What Claude Code wrote last of sessions that copy each other is no proof of which was first: the lines are.
#[test]
fn recorded_forks_and_continued_sessions_come_in_the_same_whatever_their_files_are_dated() {
    let mut several = 0;
    for recording in Recording::all() {
        let sessions = recording.sessions().len();
        let is_named = ["resume", "rewind", "chain"].contains(&&*recording.name);
        if sessions < 2 && !is_named {
            continue;
        }
        several += usize::from(sessions > 1);
        let truth = recording.truth();
        // Early versions put the copy's own session in each line: which was first, only the dates of the files say.
        let is_known = truth.copied.is_empty() || truth.calls.values().any(|call| call.forked_from.is_some());
        let mut first = None;
        for order in orders(sessions) {
            let (home, server) = (Home::new(), Server::new());
            let _daemon = home.daemon();
            let files = recording.write_in(&home);
            order.iter().zip(900..).for_each(|(at, hours)| aged(&files[*at], hours));
            let output = backfill(&home, &[], &server.env());
            let what = format!("{} in the order {order:?}", recording.name);
            assert_eq!(output.status.code(), Some(0), "{what}: {output:?}");
            let spans = server.spans();
            let mut found: Vec<String> = Vec::new();
            for span in &spans {
                let place = (&span.trace_id, &span.span_id, &span.parent, &span.name, span.get("session.id"));
                found.push(format!("{place:?}"));
            }
            found.sort();
            let once: BTreeSet<&String> = found.iter().collect();
            assert_eq!(once.len(), found.len(), "{what}: a span comes twice");
            for (id, call) in &truth.calls {
                let own: Vec<&str> = spans
                    .iter()
                    .filter(|span| span.is_generation() && span.observation("metadata.message_id") == id)
                    .map(|span| span.get("session.id"))
                    .collect();
                assert_eq!(own.len(), 1, "{what}: call {id} is in {own:?}");
                if let Some(session) = call.session.as_ref().filter(|_| is_known) {
                    assert_eq!(own, [session], "{what}: call {id}");
                }
            }
            if is_known {
                assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{what}");
            }
        }
    }
    assert!(several >= 5, "{several} recordings have several sessions");
}

#[test]
fn a_second_run_brings_the_key_to_a_daemon_that_lost_it() {
    let (home, server) = (Home::new(), Server::answering(|_| Answer::status(401)));
    let daemon = home.daemon();
    session(&home, "work", "a", 3);
    assert_eq!(backfill(&home, &["--patience", "1s"], &server.env()).status.code(), Some(1));
    daemon.kill();
    server.change(|_| Answer::ok());
    let _daemon = home.daemon();
    assert_eq!(figures(&backfill(&home, &[], &server.env())), (Some(0), [1, 3, 0, 12, 0]));
    assert_eq!((server.spans().len(), ids(&server.spans()).len()), (12, 12));
}

#[test]
fn a_paused_project_is_skipped_and_backfilled_later() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let dir = session(&home, "work", "a", 1).cwd.canonicalize().expect("a project");
    session(&home, "other", "b", 1);
    let dir = dir.to_str().expect("UTF-8");
    assert_eq!(home.ctl(&["pause", dir]).status.code(), Some(0));
    let output = backfill(&home, &[], &server.env());
    assert_eq!(figures(&output), (Some(0), [1, 1, 4, 0, 1]), "{output:?}");
    assert_eq!(report(&output)["skipped_by_reason"], json!({"paused": 1}));
    assert_eq!(home.ctl(&["resume", dir]).status.code(), Some(0));
    assert_eq!(figures(&backfill(&home, &[], &server.env())), (Some(0), [2, 2, 4, 4, 0]));
    assert_eq!((server.spans().len(), ids(&server.spans()).len()), (8, 8));
}

#[test]
fn transcripts_are_found_by_any_path_and_not_read_elsewhere() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let story = session(&home, "work", "a", 1);
    let projects = home.path().join(".claude/projects");
    let link = home.path().join("link");
    std::os::unix::fs::symlink(&projects, &link).expect("a link");
    let dry = |path: &Path| {
        let output = home.ctl_with(&["backfill", "--dry-run", "--json", &path.to_string_lossy()], &server.env());
        (figures(&output), report(&output)["spans_to_add"].as_u64())
    };
    let file = story.path.strip_prefix(&projects).expect("below it");
    for path in [&link, &link.join(file), &projects.join("../projects"), &home.path().join(".claude"), home.path()] {
        assert_eq!(dry(path), ((Some(0), [1, 1, 0, 0, 0]), Some(4)), "{}", path.display());
    }
    let copy = home.project("elsewhere").join("a.jsonl");
    fs::copy(&story.path, &copy).expect("copied");
    for path in [&*copy, copy.parent().expect("a directory")] {
        let output = home.ctl_with(&["backfill", "--yes", "--json", &path.to_string_lossy()], &server.env());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("transcript_roots"), "{output:?}");
    }
    use std::os::unix::ffi::OsStrExt;
    let odd = projects.join(std::ffi::OsStr::from_bytes(b"-w\xff"));
    if fs::create_dir(&odd).is_err() {
        return tests::say("SKIPPED a name that is not UTF-8: there is none on this file system");
    }
    fs::copy(&story.path, odd.join("b.jsonl")).expect("copied");
    let output = backfill(&home, &[], &server.env());
    assert_eq!(figures(&output), (Some(0), [1, 1, 4, 0, 1]), "{output:?}");
    assert_eq!(report(&output)["skipped_by_reason"], json!({"not_utf8": 1}));
}

#[test]
fn a_killed_backfill_that_is_repeated_sends_every_span_once() {
    let rounds = tries(6, 60);
    for round in 0..rounds {
        let (home, server) = (Home::new(), Server::new());
        home.settings("work", &server.env());
        let expect: usize =
            (0..20).map(|n| session(&home, "work", &format!("s{n}"), 1 + n % 5)).map(|_| 0).sum::<usize>()
                + (0..20).map(|n| (1 + n % 5) * 4).sum::<usize>();
        let mut random = Random::new(round as u64);
        let mut daemon = home.daemon();
        for _ in 0..3 {
            let mut command: Command = home.command(&bins().ctl);
            command.args(["backfill", "--yes", "--json"]).stdout(std::process::Stdio::null());
            let mut ctl = command.spawn().expect("ctl");
            std::thread::sleep(Duration::from_millis(random.below(600)));
            if random.below(2) == 0 {
                daemon.kill();
                daemon = home.daemon();
            }
            ctl.kill().expect("killed");
            ctl.wait().expect("ended");
        }
        let last = backfill(&home, &[], &[]);
        assert_eq!(last.status.code(), Some(0), "{last:?}");
        home.flush();
        eventually("all to be there", || ids(&server.spans()).len() == expect);
        let requests = server.requests();
        let twice: usize = server.spans().len() - expect;
        // A daemon that is killed before it hears an answer sends that batch again, byte for byte.
        let largest = requests.iter().map(|request| request.spans.len()).max().unwrap_or(0);
        assert!(twice <= largest * 3, "round {round}: {twice} twice");
        assert_eq!(figures(&backfill(&home, &[], &[])), (Some(0), [20, 60, 0, expect as u64, 0]), "round {round}");
        drop(daemon);
    }
}

#[test]
fn backfill_waits_for_a_restarted_daemon_and_brings_the_key_again() {
    let (home, server) = (Home::new(), Server::answering(|_| Answer::status(503)));
    let daemon = home.daemon();
    session(&home, "work", "a", 3);
    session(&home, "work", "b", 2);
    let mut command = home.command(&bins().ctl);
    command.args(["backfill", "--yes", "--json"]).envs(server.env()).stdout(std::process::Stdio::piped());
    let ctl = command.spawn().expect("ctl");
    home.status_until("all to wait", |status| status["outbox"]["pending"] == 20 && status["inbox"]["pending"] == 0);
    daemon.kill();
    server.change(|_| Answer::ok());
    let _daemon = home.daemon();
    let output = ctl.wait_with_output().expect("it ends");
    assert_eq!(figures(&output), (Some(0), [2, 5, 20, 0, 0]), "{output:?}");
    assert_eq!((server.spans().len(), ids(&server.spans()).len()), (20, 20));
}

#[test]
fn backfill_sends_nothing_to_a_server_that_a_repository_chose() {
    let (home, evil) = (Home::new(), Server::new());
    let repo = home.project("repo");
    tests::home::settings(&repo.join(".claude/settings.json"), &evil.env());
    let git = |args: &[&str]| Command::new("git").current_dir(&repo).args(args).output();
    if git(&["init", "-q"]).is_err() {
        return tests::say("SKIPPED backfill_sends_nothing_to_a_server_that_a_repository_chose: needs git");
    }
    assert!(git(&["add", "."]).expect("git").status.success());
    let _daemon = home.daemon();
    session(&home, "repo", "s", 2);
    let output = backfill(&home, &[], &[]);
    let left = report(&output)["left"].to_string();
    assert!(output.status.code() == Some(1) && left.contains("held") && left.contains("trust"), "{output:?}");
    assert!(evil.requests().is_empty(), "nothing was sent");
    assert_eq!(home.ctl(&["trust", &evil.url]).status.code(), Some(0));
    home.flush();
    assert_eq!(figures(&backfill(&home, &[], &[])), (Some(0), [1, 2, 0, 8, 0]));
    assert_eq!(evil.spans().len(), 8);
}
