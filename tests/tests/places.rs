//! Where transcripts lie: links of the user's own and other names for the same place lead to them; what is refused is named.

use std::{
    fs,
    os::unix::fs::{chown, lchown, symlink},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tests::{Home, Server, Story};

/// A session of one turn in the project directory `dir`, whose hooks name it as `named`.
fn put(home: &Home, dir: &Path, session: &str, named: &Path) -> Story {
    let mut story = Story::new(home, "work", session);
    story.turn("hello", "hi");
    fs::create_dir_all(dir).expect("a directory");
    fs::rename(&story.path, dir.join(format!("{session}.jsonl"))).expect("moved");
    story.path = named.join(format!("{session}.jsonl"));
    story
}

fn status(home: &Home) -> Value {
    serde_json::from_slice(&home.ctl(&["status", "--json"]).stdout).expect("JSON")
}

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// How the directory of the project "-p" comes to be below a home; the directory it leads to.
type Arrange = fn(&Path) -> PathBuf;

fn arrangements() -> Vec<(&'static str, Arrange)> {
    vec![
        ("a link out of the root", |home| {
            let to = home.join("shared/-p");
            fs::create_dir_all(&to).expect("a directory");
            symlink(&to, home.join(".claude/projects/-p")).expect("a link");
            to
        }),
        ("a link to its neighbour", |home| {
            let to = home.join(".claude/projects/-main");
            fs::create_dir_all(&to).expect("a directory");
            symlink("-main", home.join(".claude/projects/-p")).expect("a link");
            to
        }),
        ("a link to a link", |home| {
            let to = home.join("shared/-p");
            fs::create_dir_all(&to).expect("a directory");
            symlink(&to, home.join("by-way-of")).expect("a link");
            symlink("../../by-way-of", home.join(".claude/projects/-p")).expect("a link");
            to
        }),
    ]
}

#[test]
fn a_project_directory_that_is_a_link_of_ours_is_followed_live_and_in_history() {
    for (what, arrange) in arrangements() {
        let (home, server) = (Home::new(), Server::new());
        let _daemon = home.daemon();
        let projects = home.path().join(".claude/projects");
        fs::create_dir_all(&projects).expect("a directory");
        let (real, named) = (arrange(home.path()), projects.join("-p"));
        let live = put(&home, &real, "live", &named);
        home.hook(&live.stop("hi"), &server.env());
        server.wait_for(2);
        put(&home, &real, "old", &named);
        let backfill = |args: &[&str]| {
            let args: Vec<&str> = ["backfill", "--yes", "--json"].iter().chain(args).copied().collect();
            let output = home.ctl_with(&args, &server.env());
            serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{what}: {output:?}"))
        };
        // By its own name, by that of what it leads to, and with all others.
        let own = backfill(&[named.to_str().expect("text")]);
        assert_eq!((&own["sessions"], &own["spans_queued"]), (&json!(2), &json!(2)), "{what}: {own}");
        for args in [&[real.to_str().expect("text")][..], &[]] {
            let again = backfill(args);
            let figures = (&again["sessions"], &again["spans_already_sent"], &again["skipped"]);
            assert_eq!(figures, (&json!(2), &json!(4), &json!(0)), "{what}: {again}");
        }
        home.flush();
        assert_eq!(server.spans().len(), 4, "{what}");
        let replay = home.ctl_with(&["replay", real.join("live.jsonl").to_str().expect("text")], &server.env());
        assert!(replay.status.success(), "{what}: {replay:?}");
        assert_eq!((server.spans().len(), &status(&home)["skipped_lines"]), (4, &json!({})), "{what}");
    }
}

#[test]
fn a_session_named_by_another_way_to_a_root_is_read_where_it_lies() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let real = home.path().join(".claude/projects/-p");
    let alias = home.path().join("alias");
    symlink(home.path(), &alias).expect("a link");
    // A container's home, which is not there for the daemon, and a linked one.
    for (n, root) in ["/home/vscode/.claude/projects".into(), alias.join(".claude/projects")].iter().enumerate() {
        let story = put(&home, &real, &format!("s{n}"), &Path::new(root).join("-p"));
        home.hook(&story.stop("hi"), &server.env());
        server.wait_for(2 * (n + 1));
    }
    // One that is written only after its first event.
    let late = put(&home, &home.path().join("aside"), "late", Path::new("/home/vscode/.claude/projects/-p"));
    home.hook(&late.stop("hi"), &server.env());
    fs::rename(home.path().join("aside/late.jsonl"), real.join("late.jsonl")).expect("moved");
    server.wait_for(6);
    assert_eq!(status(&home)["skipped_lines"], json!({}));
    assert_eq!(home.log().matches("not read").count(), 0, "{}", home.log());
}

#[test]
fn what_is_refused_is_counted_and_named_once_in_the_log_and_by_each_command() {
    let (home, server) = (Home::new(), Server::new());
    let daemon = home.daemon();
    let projects = home.path().join(".claude/projects");
    fs::create_dir_all(projects.join("-p")).expect("a directory");
    // The same project in a place that is no root, and a linked file.
    let elsewhere = home.path().join("elsewhere/-q");
    let story = put(&home, &elsewhere, "outside", &elsewhere);
    put(&home, &elsewhere, "file", &elsewhere);
    symlink(elsewhere.join("file.jsonl"), projects.join("-p/file.jsonl")).expect("a link");
    for _ in 0..3 {
        home.hook(&story.stop("hi"), &server.env());
        home.flush();
    }
    assert_eq!(status(&home)["skipped_lines"], json!({"transcript_outside_roots": 3}));
    let named = |name: &str| home.log().lines().filter(|line| line.contains("not read") && line.contains(name)).count();
    assert_eq!((named("outside.jsonl"), home.log().matches("transcript_roots").count()), (1, 1), "{}", home.log());
    let doctor = text(&home.ctl_with(&["doctor", "--no-probe"], &server.env()));
    assert!(doctor.contains("transcript outside roots 3") && !doctor.contains("no event was heard"), "{doctor}");
    for (path, why) in [(&story.path, "transcript_roots"), (&projects.join("-p/file.jsonl"), "not a regular file")] {
        let path = path.to_str().expect("text");
        let replay = home.ctl_with(&["replay", path], &server.env());
        assert!(replay.status.code() == Some(1) && text(&replay).contains(why), "{path}: {replay:?}");
        assert!(!text(&replay).contains("handed over"), "{path}: {replay:?}");
    }
    if !rustix::process::geteuid().is_root() {
        return tests::say("SKIPPED links of another user: only root can make them");
    }
    lchown(projects.join("-p/file.jsonl"), None, None).expect("nothing changed");
    symlink(&elsewhere, projects.join("-theirs")).expect("a link");
    lchown(projects.join("-theirs"), Some(4321), None).expect("theirs");
    chown(home.path().join("elsewhere"), None, None).expect("nothing changed");
    let mut theirs = Story::new(&home, "work", "outside");
    theirs.path = projects.join("-theirs/outside.jsonl");
    home.hook(&theirs.stop("hi"), &server.env());
    home.flush();
    assert_eq!(status(&home)["skipped_lines"]["transcript_other_owner"], json!(1));
    for args in
        [&["doctor", "--no-probe"][..], &["backfill", "--yes"], &["replay", theirs.path.to_str().expect("text")]]
    {
        let said = text(&home.ctl_with(args, &server.env()));
        assert!(said.contains("-theirs") && said.contains("another user"), "{args:?}: {said}");
    }
    assert_eq!(server.spans().len(), 0);
    drop(daemon);
}
