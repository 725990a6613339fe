//! A session can be named in several ways; if a name matches none or several, the candidates are shown.

use std::{path::Path, process::Output, time::Duration};

use tests::{Home, Server, Story, bins, home};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn within(home: &Home, dir: &Path, args: &[&str]) -> Output {
    let mut command = home.command(&bins().ctl);
    command.args(args).current_dir(dir);
    home::run(command, b"").0
}

/// A session of `project` with one turn whose prompt contains `id`.
fn story(home: &Home, project: &str, id: &str) -> Story {
    let mut story = Story::new(home, project, id);
    story.turn(&format!("asked in {id}"), "answer");
    story
}

/// Makes `later` the newest transcript, whatever the resolution of the file system's clock.
fn is_newer(later: &Story, than: &Story) {
    let at = |story: &Story| std::fs::metadata(&story.path).and_then(|meta| meta.modified()).expect("a time");
    let file = std::fs::File::options().append(true).open(&later.path).expect("the transcript");
    file.set_modified(at(later).max(at(than)) + Duration::from_secs(2)).expect("set");
}

#[test]
fn a_session_can_be_named_by_its_id_a_prefix_or_its_transcript() {
    let home = Home::new();
    let one = story(&home, "one", "01628e54-f2e1");
    story(&home, "two", "01628e99-0000");
    let path = one.path.to_str().expect("UTF-8");
    for name in ["01628e54-f2e1", "01628E5", path] {
        for command in [&["show"][..], &["reconcile"], &["replay", "--dry-run"]] {
            let output = home.ctl(&[command, &[name]].concat());
            assert_eq!(output.status.code(), Some(0), "{command:?} {name}: {output:?}");
            match command[0] {
                "show" => assert!(said(&output).contains("asked in 01628e54-f2e1"), "{output:?}"),
                "replay" => assert!(said(&output).contains("1 turn, 2 observations"), "{output:?}"),
                _ => assert!(said(&output).contains("1 call traced"), "{output:?}"),
            }
        }
    }
}

#[test]
fn without_a_name_the_latest_session_of_the_directory_is_meant() {
    let home = Home::new();
    let (old, new) = (story(&home, "work", "old"), story(&home, "work", "new"));
    let other = story(&home, "other", "other");
    is_newer(&new, &old);
    is_newer(&other, &new);
    let deep = home.project("work/src/deep");
    for command in ["show", "reconcile"] {
        let output = within(&home, &deep, &[command]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(command != "show" || said(&output).contains("asked in new"), "{output:?}");
    }
    is_newer(&old, &other);
    assert!(said(&within(&home, &deep, &["show"])).contains("asked in old"));
    let nowhere = within(&home, &home.project("elsewhere"), &["show"]);
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    assert!(said(&nowhere).contains("cc-langfusectl sessions"), "{nowhere:?}");
}

#[test]
fn an_ambiguous_or_unknown_name_shows_the_candidates() {
    let home = Home::new();
    for (project, id) in [("one", "01628e54-f2e1"), ("two", "01628e99-0000"), ("two", "ffff0000-1111")] {
        story(&home, project, id);
    }
    let missing = home.path().join(".claude/projects/-one/01628e54-f2e2.jsonl");
    let missing = missing.to_str().expect("UTF-8");
    for (name, expect, but_not) in [
        ("01628", &["names 2 sessions", "01628e54-f2e1", "01628e99-0000"][..], "ffff"),
        ("01682e54", &["no session 01682e54", "did you mean", "01628e54-f2e1"], "ffff"),
        (missing, &["no transcript", "did you mean", "01628e54-f2e1"], "ffff"),
        ("nothing-like-it", &["no session nothing-like-it", "cc-langfusectl sessions"], "did you mean"),
        ("/nowhere", &["no transcript /nowhere"], "did you mean"),
        ("", &["no session"], "did you mean"),
    ] {
        for command in [&["show"][..], &["reconcile"], &["replay", "--dry-run"]] {
            let output = home.ctl(&[command, &[name]].concat());
            let said = said(&output);
            assert_eq!(output.status.code(), Some(1), "{command:?} {name}: {said}");
            assert!(output.stdout.is_empty(), "{output:?}");
            assert!(expect.iter().all(|part| said.contains(part)) && !said.contains(but_not), "{name}: {said}");
        }
    }
}

#[test]
fn part_of_the_title_suffices_but_unprompted_commands_need_the_whole_id() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    for (id, title) in [("aaaa-1", "Fix the parser"), ("bbbb-2", "Release notes")] {
        let mut story = story(&home, "work", id);
        story.raw(format!(r#"{{"type":"custom-title","customTitle":"{title}","sessionId":"{id}"}}"#).as_bytes());
        story.turn("again", "answer");
        home.hook(&story.stop("answer"), &server.env());
    }
    home.flush();
    home.status_until("titles", |status| {
        status["sessions"].as_array().is_some_and(|all| all.iter().all(|session| session["title"].is_string()))
    });
    let sent = server.spans().len();
    let shown = home.ctl(&["show", "RELEASE"]);
    assert!(said(&shown).contains("asked in bbbb-2"), "{shown:?}");
    let near = home.ctl(&["show", "relaese"]);
    assert!(near.status.code() == Some(1) && said(&near).contains("Release notes"), "{near:?}");
    let opened = home.ctl_with(&["open", "--print", "--session", "parser"], &server.env());
    assert!(said(&opened).trim_end().ends_with("/sessions/aaaa-1"), "{opened:?}");
    let planned = home.ctl_with(&["backfill", "--dry-run", "--json", "notes"], &server.env());
    assert!(said(&planned).contains(r#""sessions":1"#), "{planned:?}");
    // These commands do not ask whether it is the right one.
    for name in ["aaaa", "parser"] {
        let forgotten = home.ctl_with(&["forget", "--yes", name], &server.env());
        assert_eq!(forgotten.status.code(), Some(1), "{forgotten:?}");
        assert!(said(&forgotten).contains("aaaa-1"), "{forgotten:?}");
        let sought = home.ctl_with(&["backfill", "--yes", name], &server.env());
        assert_eq!(sought.status.code(), Some(2), "{sought:?}");
    }
    assert_eq!(server.spans().len(), sent, "nothing is deleted, and nothing sent again");
    assert_eq!(home.ctl_with(&["show", "aaaa-1"], &server.env()).status.code(), Some(0));
}

#[test]
fn a_session_without_a_title_is_named_by_its_first_prompt() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    for id in ["aaaa-1", "bbbb-2"] {
        let story = story(&home, "work", id);
        home.hook(&story.stop("answer"), &server.env());
    }
    home.flush();
    let shown = home.ctl(&["show", "asked in bbbb"]);
    assert!(shown.status.success() && said(&shown).contains("asked in bbbb-2"), "{shown:?}");
    let several = home.ctl(&["show", "asked in"]);
    assert!(several.status.code() == Some(1) && said(&several).contains("names 2 sessions"), "{several:?}");
    // What does not ask before it acts needs the whole id.
    let forgotten = home.ctl_with(&["forget", "--yes", "asked in bbbb"], &server.env());
    assert_eq!(forgotten.status.code(), Some(1), "{forgotten:?}");
}
