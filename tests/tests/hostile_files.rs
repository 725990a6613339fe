//! Odd transcripts and odd transcript paths.
//!
//! For a line of 100 MB see `a_line_of_100_mb_is_counted_and_skipped_without_being_held_in_memory` in `turns.rs`.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, RandomState},
    io::Write,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};
use tests::{Home, Random, Server, Span, Story, eventually, ids, say};

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("the transcript");
    file.write_all(bytes).expect("written");
}

/// Removes the file of `story` and returns its bytes.
fn take(story: &Story) -> Vec<u8> {
    let bytes = fs::read(&story.path).expect("the transcript");
    fs::remove_file(&story.path).expect("removed");
    bytes
}

fn skipped(home: &Home) -> BTreeMap<String, u64> {
    serde_json::from_value(home.status()["skipped_lines"].clone()).expect("counts")
}

/// The first two turns with other ids and the same length.
fn retold(story: &Story) -> String {
    let text = fs::read_to_string(&story.path).expect("the transcript");
    text.replace("-line-", "-LINE-").replace("\"msg-", "\"MSG-")
}

/// What happens to a transcript of two turns, `q1` and `q2`.
type Change = fn(&Home, &Server, &mut Story);

#[test]
fn a_changed_transcript_is_emitted_completely_and_once() {
    // The number is how many spans were emitted in total after the third turn.
    let changes: [(&str, Change, usize); 9] = [
        ("unchanged", |_, _, _| {}, 6),
        (
            "cut off after the first turn",
            |_, _, story| {
                let text = fs::read_to_string(&story.path).expect("the transcript");
                let first: String = text.split_inclusive('\n').take(2).collect();
                OpenOptions::new().write(true).open(&story.path).expect("it").set_len(first.len() as u64).expect("cut");
            },
            6,
        ),
        (
            "emptied and written again",
            |home, server, story| {
                let text = fs::read(&story.path).expect("the transcript");
                File::create(&story.path).expect("emptied");
                home.hook(&story.event("PostToolUse"), &server.env());
                append(&story.path, &text);
            },
            6,
        ),
        ("emptied", |_, _, story| drop(File::create(&story.path).expect("emptied")), 6),
        ("rewritten in place, as long", |_, _, story| fs::write(&story.path, retold(story)).expect("written"), 10),
        (
            "rewritten in place, longer",
            |_, _, story| {
                let filler = "{\"type\":\"summary\",\"summary\":\"longer\"}\n";
                fs::write(&story.path, format!("{filler}{}", retold(story))).expect("written");
            },
            10,
        ),
        (
            "another file under its name",
            |_, _, story| {
                let other = story.path.with_extension("tmp");
                fs::write(&other, retold(story)).expect("written");
                fs::rename(other, &story.path).expect("replaced");
            },
            10,
        ),
        (
            "moved to the directory of another project",
            |home, _, story| {
                let moved = Story::new(home, "worktree", &story.session).path;
                fs::rename(&story.path, &moved).expect("moved");
                story.path = moved;
            },
            6,
        ),
        (
            "copied to the directory of another project",
            |home, _, story| {
                let copy = Story::new(home, "worktree", &story.session).path;
                fs::copy(&story.path, &copy).expect("copied");
                story.path = copy;
            },
            6,
        ),
    ];
    for restart in [false, true] {
        let (home, server) = (Home::new(), Server::new());
        let daemon = home.daemon();
        home.settings("work", &server.env());
        let mut stories: Vec<Story> = (0..changes.len())
            .map(|number| {
                let mut story = Story::new(&home, "work", &format!("s{number}"));
                story.turn("q1", "a1").turn("q2", "a2");
                home.hook(&story.stop("a2"), &server.env());
                story
            })
            .collect();
        home.flush();
        assert_eq!(server.spans().len(), 4 * changes.len());
        let running = if restart {
            daemon.kill();
            None
        } else {
            Some(daemon)
        };
        for ((_, change, _), story) in changes.iter().zip(&mut stories) {
            change(&home, &server, story);
        }
        let _daemon = running.unwrap_or_else(|| home.daemon());
        for story in &mut stories {
            story.turn("q3", "a3");
            home.hook(&story.stop("a3"), &server.env());
        }
        home.flush();
        let spans = server.spans();
        for ((what, _, count), story) in changes.iter().zip(&stories) {
            let own: Vec<Span> = spans.iter().filter(|span| span.get("session.id") == story.session).cloned().collect();
            let sent = (own.len(), ids(&own).len(), own.iter().any(|span| span.content("output") == "a3"));
            assert_eq!(sent, (*count, *count, true), "{what}, restart: {restart}");
        }
    }
}

#[test]
fn a_last_line_without_newline_counts_once_nothing_follows() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let cut = |session: &str, keep: fn(&[u8]) -> usize| {
        let mut story = Story::new(&home, "work", session);
        story.turn("q1", "a1").turn("q2", "a2");
        let text = take(&story);
        let keep = keep(&text);
        append(&story.path, &text[..keep]);
        (story, text[keep..].to_vec())
    };
    let (completed, rest) = cut("completed", |text| text.len() - 40);
    let (whole, newline) = cut("whole", |text| text.len() - 1);
    let (broken, more) = cut("broken", |text| text.len() - 40);
    assert_eq!(newline, b"\n");
    home.hook(&completed.stop("a2"), &server.env());
    for story in [&whole, &broken] {
        home.hook(&story.event("SessionEnd"), &server.env());
    }
    let count = |session: &str| {
        let spans = server.spans();
        let own: Vec<Span> = spans.into_iter().filter(|span| span.get("session.id") == session).collect();
        assert_eq!(own.len(), ids(&own).len(), "{session}");
        own.iter().filter(|span| span.content("output") == "a2").count()
    };
    // Half a line yields nothing, whatever is emitted of its turn.
    eventually("the first turns", || server.spans().len() >= 6);
    assert_eq!((count("completed"), count("whole"), count("broken")), (0, 0, 0));
    append(&completed.path, &rest);
    eventually("the completed line", || count("completed") == 2);
    eventually("the line that lacks nothing but its newline", || count("whole") == 2);
    home.flush();
    assert_eq!(count("broken"), 0);
    assert_eq!(skipped(&home), BTreeMap::new(), "a line that is not there yet is not passed over");
    // If the file grows after all, nothing is lost and nothing is emitted twice.
    append(&broken.path, &more);
    home.hook(&broken.event("SessionEnd"), &server.env());
    append(&whole.path, &newline);
    home.hook(&whole.event("SessionEnd"), &server.env());
    home.flush();
    assert_eq!((count("completed"), count("whole"), count("broken")), (2, 2, 2));
}

#[test]
fn invalid_bytes_in_a_line_do_not_affect_other_lines() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let hole = vec![0; 1 << 20];
    let with = |from: &str, to: &[u8]| {
        let (from, to) = (from.as_bytes().to_vec(), to.to_vec());
        move |line: &[u8]| {
            let at = line.windows(from.len()).position(|window| window == from).expect("it is there");
            [&line[..at], &to, &line[at + from.len()..]].concat()
        }
    };
    // The change to the prompt's line, the prompt that arrives, and what is counted.
    type Row<'a> = (&'a str, Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>, &'a str, &'a [(&'a str, u64)]);
    let rows: Vec<Row<'_>> = vec![
        ("nothing", Box::new(<[u8]>::to_vec), "the prompt", &[]),
        ("invalid UTF-8", Box::new(with("the", b"t\xff\xc3(e")), "t\u{fffd}(e prompt", &[]),
        ("a lone surrogate", Box::new(with("the", b"t\\ud83de")), "t\u{fffd}e prompt", &[]),
        ("surrogates in the wrong order", Box::new(with("the", b"\\ude00\\ud83d")), " prompt", &[]),
        (
            "a line separator",
            Box::new(with("the", "the\u{2028}\u{2029}\u{85}".as_bytes())),
            "the\u{2028}\u{2029}\u{85} prompt",
            &[],
        ),
        ("colours", Box::new(with("the", b"\\u001b[31mthe")), "\u{1b}[31mthe prompt", &[]),
        ("an escaped NUL", Box::new(with("the", b"t\\u0000e")), "t\0e prompt", &[]),
        ("a hole before it", Box::new(|line| [&hole, line].concat()), "the prompt", &[]),
        ("a line of NULs before it", Box::new(|line| [&hole, &b"\n"[..], line].concat()), "the prompt", &[]),
        ("CRLF", Box::new(|line| [line, b"\r"].concat()), "the prompt", &[]),
        ("a byte order mark before it", Box::new(|line| [b"\xef\xbb\xbf\n", line].concat()), "the prompt", &[]),
        (
            "invalid UTF-8 before it",
            Box::new(|line| [b"\xff\xfe\x80\n", line].concat()),
            "the prompt",
            &[("not_json", 1)],
        ),
        (
            "NULs within a line before it",
            Box::new(|line| [b"{\"type\":\0\0\"user\"}\n", line].concat()),
            "the prompt",
            &[("not_json", 1)],
        ),
        (
            "half a line before it",
            Box::new(|line| [&line[..line.len() / 2], b"\n", line].concat()),
            "the prompt",
            &[("not_json", 1)],
        ),
        (
            "depth",
            Box::new(|line| [&b"[".repeat(100_000), &b"\n"[..], line].concat()),
            "the prompt",
            &[("not_json", 1)],
        ),
    ];
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for (number, (what, change, prompt, counted)) in rows.iter().enumerate() {
        let mut story = Story::new(&home, "work", &format!("s{number}"));
        story.turn("the prompt", "the answer");
        let text = take(&story);
        let end = text.iter().position(|byte| *byte == b'\n').expect("a line");
        append(&story.path, &[&change(&text[..end]), &text[end..]].concat());
        home.hook(&story.stop("the answer"), &server.env());
        let spans = server.wait_for(2 * (number + 1)).split_off(2 * number);
        // The number of replacement characters does not matter.
        let plain =
            |text: String| text.split_inclusive('\u{fffd}').filter(|part| *part != "\u{fffd}").collect::<String>();
        let seen: Vec<_> = spans.iter().map(|span| (plain(span.content("input")), span.content("output"))).collect();
        assert!(seen.contains(&((*prompt).to_owned(), "the answer".to_owned())), "{what}: {seen:?}");
        for (reason, count) in *counted {
            *expected.entry((*reason).to_owned()).or_default() += count;
        }
        eventually(&format!("the count of {what}"), || skipped(&home) == expected);
    }
}

#[test]
fn a_path_outside_the_transcript_roots_is_counted_and_not_read() {
    const CANARY: &str = "marmalade-canary";
    let (home, server) = (Home::new(), Server::new());
    let root = home.path().join(".claude/projects/-work");
    let (outside, configured) = (home.path().join("outside"), home.path().join("configured"));
    for dir in [&root, &outside, &configured] {
        fs::create_dir_all(dir).expect("a directory");
    }
    home.configure(&format!("transcript_roots = [{:?}]", configured.to_str().expect("text")));
    let _daemon = home.daemon();
    // A valid transcript with a canary, which would arrive if it were read.
    let bait = |session: &str| {
        let mut story = Story::new(&home, "bait", session);
        story.turn(CANARY, CANARY);
        take(&story)
    };
    let write = |path: PathBuf| {
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, bait("bait")).expect("written");
        path
    };
    let secret = write(outside.join("secret.jsonl"));
    write(outside.join("deep/secret.jsonl"));
    let link = |to: &Path, name: &str| {
        symlink(to, root.join(name)).expect("a link");
        root.join(name)
    };
    let node = |name: &str, kind, dev| {
        let path = root.join(name);
        mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, dev).is_ok().then_some(path)
    };
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let below = |name: &str| text(&root.join(name));
    let _socket = UnixListener::bind(root.join("socket.jsonl")).expect("a socket");
    fs::create_dir(root.join("directory.jsonl")).expect("a directory");
    link(&outside, "linked");
    link(&root.join("round"), "round");
    let mut rows = vec![
        (text(&secret), "transcript_outside_roots"),
        (text(&write(home.path().join(".claude/secret.jsonl"))), "transcript_outside_roots"),
        (text(&write(home.path().join(".claude/projects-too/secret.jsonl"))), "transcript_outside_roots"),
        (below("../../../outside/secret.jsonl"), "transcript_outside_roots"),
        (below("../-work/../../../outside/secret.jsonl"), "transcript_outside_roots"),
        (text(&home.path().join("configured/../outside/secret.jsonl")), "transcript_outside_roots"),
        ("/tmp/secret.jsonl".to_owned(), "transcript_outside_roots"),
        (text(&link(&secret, "link.jsonl")), "transcript_not_a_file"),
        (below("linked/secret.jsonl"), "transcript_not_a_file"),
        (below("linked/deep/secret.jsonl"), "transcript_not_a_file"),
        (below("round/s.jsonl"), "transcript_not_a_file"),
        (text(&link(Path::new("/proc/self/mem"), "mem.jsonl")), "transcript_not_a_file"),
        (text(&link(Path::new("/dev/stdin"), "stdin.jsonl")), "transcript_not_a_file"),
        (below("directory.jsonl"), "transcript_not_a_file"),
        (below("socket.jsonl"), "transcript_not_a_file"),
        (text(&node("fifo.jsonl", FileType::Fifo, 0).expect("a FIFO")), "transcript_not_a_file"),
        ("/proc/self/mem".to_owned(), "hook_transcript_path"),
        ("/etc/shadow".to_owned(), "hook_transcript_path"),
        ("/dev/zero".to_owned(), "hook_transcript_path"),
        (text(&home.path().join(".claude/projects")), "hook_transcript_path"),
        ("secret.jsonl".to_owned(), "hook_transcript_path"),
        (String::new(), "hook_transcript_path"),
        (below("not-there.jsonl"), "transcript_missing"),
        (below("nul\0.jsonl"), "transcript_unreadable"),
        (below(&format!("{}.jsonl", "x".repeat(5000))), "transcript_unreadable"),
    ];
    // Only root can create these.
    match node("zero.jsonl", FileType::CharacterDevice, makedev(1, 5)) {
        // Where devices are disabled, opening one is refused.
        Some(path) if File::open(&path).is_ok() => rows.push((text(&path), "transcript_not_a_file")),
        _ => say("skipped: a device, which cannot be made here"),
    }
    let foreign = write(root.join("foreign.jsonl"));
    match std::os::unix::fs::chown(&foreign, Some(rustix::process::geteuid().as_raw() + 1), None) {
        Ok(()) => {
            fs::hard_link(&foreign, root.join("hard.jsonl")).expect("a second name");
            rows.push((text(&foreign), "transcript_other_owner"));
            rows.push((below("hard.jsonl"), "transcript_other_owner"));
        }
        Err(_) => say("skipped: another user's file, which cannot be made here"),
    }

    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for (number, (path, reason)) in rows.iter().enumerate() {
        let payload = json!({
            "session_id": format!("hostile-{number}"), "transcript_path": path, "cwd": home.path(),
            "hook_event_name": "SessionEnd",
        });
        home.hook(&payload, &server.env());
        *expected.entry((*reason).to_owned()).or_default() += 1;
    }
    let mut honest = Story::new(&home, "honest", "honest");
    honest.turn("q", "a");
    let started = Instant::now();
    home.hook(&honest.stop("a"), &server.env());
    server.wait_for(2);
    assert!(started.elapsed() < Duration::from_secs(2), "an honest session waited {:?}", started.elapsed());
    home.flush();
    assert_eq!(skipped(&home), expected);
    assert!(server.spans().iter().all(|span| span.get("session.id") == "honest"));
    assert!(server.requests().iter().all(|request| !contains(&request.plain, CANARY)));

    // The same bytes are read where the user or Claude Code allows transcripts.
    let claude = home.path().join("claude-config");
    let mut env = server.env();
    env.push(("CLAUDE_CONFIG_DIR".into(), text(&claude)));
    for (number, (path, env)) in
        [(configured.join("p/s.jsonl"), server.env()), (claude.join("projects/p/s.jsonl"), env)].into_iter().enumerate()
    {
        let session = format!("allowed-{number}");
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, bait(&session)).expect("written");
        let payload = json!({
            "session_id": session, "transcript_path": path, "cwd": home.path(), "hook_event_name": "SessionEnd",
        });
        home.hook(&payload, &env);
        home.flush();
        let arrived = server.spans().iter().filter(|span| span.get("session.id") == session).count();
        assert_eq!(arrived, 2, "{}", path.display());
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_sparse_file_of_100_gb_delays_nothing() {
    let (home, server) = (Home::new(), Server::new());
    let daemon = home.daemon();
    for (number, length) in [100u64 << 30, 8 << 40].into_iter().enumerate() {
        let mut hollow = Story::new(&home, "work", &format!("hollow-{number}"));
        hollow.turn("q", "a");
        let file = OpenOptions::new().write(true).open(&hollow.path).expect("the transcript");
        if file.set_len(length).is_err() {
            say(&format!("skipped: no file of {length} bytes can be made here"));
            continue;
        }
        let started = Instant::now();
        home.hook(&hollow.event("SessionEnd"), &server.env());
        let mut honest = Story::new(&home, "work", &format!("honest-{number}"));
        honest.turn("q", "a");
        home.hook(&honest.stop("a"), &server.env());
        server.wait_for(2 * (number + 1));
        home.flush();
        // Reading the first of them would take much longer.
        assert!(started.elapsed() < Duration::from_secs(20), "{length} bytes: {:?}", started.elapsed());
        assert_eq!(skipped(&home), BTreeMap::from([("transcript_hollow".to_owned(), number as u64 + 1)]));
    }
    assert!(server.spans().iter().all(|span| span.get("session.id").starts_with("honest")));
    if let Some(peak) = daemon.peak_kib() {
        assert!(peak < 100 << 10, "the daemon held {peak} KiB");
    }
}

#[test]
fn a_session_read_in_pieces_gives_the_same_spans() {
    const PIECES: usize = 4;
    let sessions = tests::tries(20, 200);
    let seed = RandomState::new().hash_one(0);
    let mut random = Random::new(seed);
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    // Names of equal length, so that the texts differ in nothing else.
    let name = |number: usize| format!("session-{number:03}");
    let texts: Vec<Vec<u8>> = (0..=sessions)
        .map(|number| {
            let mut story = Story::new(&home, "work", &name(number));
            story.turn("q1 – größer", "a1\u{2028}").prompt("q2").tool("t1").tool("t2").answer("a2");
            story.prompt("q3").thinking("hm").rest("a3").prompt("q4").tool("t3").answer("a4");
            take(&story)
        })
        .collect();
    let length = texts[0].len();
    let stories: Vec<Story> = (0..=sessions).map(|number| Story::new(&home, "work", &name(number))).collect();
    let cuts: Vec<Vec<usize>> = (0..=sessions)
        .map(|number| {
            // The first one is complete; the others are compared with it.
            let mut cuts: Vec<usize> = (1..PIECES).map(|_| random.below(length as u64) as usize).collect();
            cuts.sort_unstable();
            if number == 0 { vec![0; PIECES - 1] } else { cuts }
        })
        .collect();
    for piece in 0..PIECES {
        let daemon = home.daemon();
        for (number, story) in stories.iter().enumerate() {
            let from = if piece == 0 { 0 } else { cuts[number][piece - 1] };
            let to = cuts[number].get(piece).copied().unwrap_or(length);
            append(&story.path, &texts[number][from..to]);
            let event = if to == length { story.stop("a4") } else { story.event("PostToolUse") };
            home.hook(&event, &server.env());
        }
        home.flush();
        daemon.kill();
    }
    let mut sent: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for span in server.spans() {
        let session = span.get("session.id").to_owned();
        let attrs = format!("{:?}", span.attrs).replace(&session, "");
        let sent = sent.entry(session).or_default();
        sent.push(json!([span.name, span.start, span.end, attrs, span.is_root()]));
    }
    for list in sent.values_mut() {
        list.sort_by_key(Value::to_string);
    }
    assert_eq!(sent.len(), sessions + 1);
    let whole = &sent[&name(0)];
    assert_eq!(whole.len(), 2 + 6 + 2 + 4, "{whole:#?}");
    for (number, cuts) in cuts.iter().enumerate() {
        assert_eq!(&sent[&name(number)], whole, "cut at {cuts:?} (seed {seed})");
    }
}
