//! Where transcripts are found: the user's own links and other paths to the same directory are followed; what is
//! refused is named.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tests::{Home, Server, Story};

/// A session of one turn in the project directory `dir`, which its hooks call `named`.
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

/// A way to place the directory of the project "-p" below a home; returns the real directory.
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
fn a_project_directory_that_the_user_linked_is_followed_live_and_in_history() {
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
        // By its own path, by its target's, and together with all others.
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
fn a_session_named_by_another_path_is_read_in_its_real_place() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let real = home.path().join(".claude/projects/-p");
    let alias = home.path().join("alias");
    symlink(home.path(), &alias).expect("a link");
    // A container's home, which is not there for the daemon, a linked one, and a way that goes up again.
    let up = home.path().join(".claude/projects/../../.claude/projects");
    let roots = ["/home/vscode/.claude/projects".into(), alias.join(".claude/projects"), up];
    for (n, root) in roots.iter().enumerate() {
        let story = put(&home, &real, &format!("s{n}"), &Path::new(root).join("-p"));
        home.hook(&story.stop("hi"), &server.env());
        server.wait_for(2 * (n + 1));
    }
    // A transcript that is written only after its first event.
    let late = put(&home, &home.path().join("aside"), "late", Path::new("/home/vscode/.claude/projects/-p"));
    home.hook(&late.stop("hi"), &server.env());
    fs::rename(home.path().join("aside/late.jsonl"), real.join("late.jsonl")).expect("moved");
    server.wait_for(8);
    assert_eq!(status(&home)["skipped_lines"], json!({}));
    assert_eq!(home.log().matches("not read").count(), 0, "{}", home.log());
}

#[test]
fn a_container_that_names_its_own_configuration_directory_is_traced_across_a_restart() {
    let (home, server) = (Home::new(), Server::new());
    let real = home.path().join(".claude/projects/-p");
    let config_dir = "/home/vscode/.claude";
    fs::create_dir_all(home.path().join(".claude")).expect("a directory");
    tests::home::settings(&home.path().join(".claude/settings.json"), &server.env());
    let mut env = server.env();
    env.push(("CLAUDE_CONFIG_DIR".to_owned(), config_dir.to_owned()));
    let daemon = home.daemon();
    let mut story = put(&home, &real, "s", &Path::new(config_dir).join("projects/-p"));
    home.hook(&story.stop("hi"), &env);
    server.wait_for(2);
    daemon.terminate();
    // The key of the user's own settings is found although the event named another directory.
    let named = std::mem::replace(&mut story.path, real.join("s.jsonl"));
    story.turn("again", "sure");
    story.path = named;
    env.retain(|(name, _)| name != "LANGFUSE_SECRET_KEY");
    let _daemon = home.daemon();
    home.hook(&story.stop("sure"), &env);
    server.wait_for(4);
    assert_eq!(status(&home)["skipped_lines"], json!({}));
}

#[test]
fn each_command_takes_the_name_that_a_container_has_for_a_transcript() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    put(&home, &home.path().join(".claude/projects/-p"), "s", Path::new("/nowhere"));
    let there = "/home/vscode/.claude/projects/-p";
    let transcript = format!("{there}/s.jsonl");
    for (args, expect) in [
        (&["backfill", there, "--dry-run"][..], "2 observations"),
        (&["backfill", &transcript, "--yes"], "2 observations added"),
        (&["backfill", &transcript, "--yes"], "2 observations are there already"),
        (&["replay", &transcript], "given to the daemon"),
        (&["show", &transcript], "hello"),
    ] {
        let output = home.ctl_with(args, &server.env());
        assert!(output.status.success() && text(&output).contains(expect), "{args:?}: {output:?}");
    }
    home.flush();
    assert_eq!(server.spans().len(), 2);
    for args in
        [&["backfill", "/home/vscode/.claude/projects/-q", "--dry-run"], &["replay", &format!("{there}/t.jsonl")][..]]
    {
        let output = home.ctl_with(args, &server.env());
        assert!(!output.status.success() && text(&output).contains("/home/vscode/"), "{args:?}: {output:?}");
    }
}

/// A command of `home`, as its owner `uid` where the tests run as another user.
fn as_owner(home: &Home, program: &str, uid: Option<u32>) -> std::process::Command {
    let program = home.path().join(".local/bin").join(program);
    let Some(uid) = uid else { return home.command(&program) };
    let mut command = home.command(Path::new("setpriv"));
    command.args([format!("--reuid={uid}"), "--clear-groups".to_owned()]).arg(program);
    command
}

#[test]
fn what_the_user_may_not_read_is_an_error_for_each_command_until_it_can_be_read() {
    let (home, server) = (Home::new(), Server::new());
    home.install();
    let projects = home.path().join(".claude/projects");
    let story = put(&home, &projects.join("-dir"), "in-dir", &projects.join("-dir"));
    let file = put(&home, &projects.join("-file"), "in-file", &projects.join("-file"));
    tests::home::settings(&home.path().join(".claude/settings.json"), &server.env());
    let closed = [projects.join("-dir"), file.path.clone()];
    let mode = |mode| {
        let set = |path: &PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        closed.iter().for_each(set);
    };
    let uid = rustix::process::geteuid().is_root().then_some(4321);
    if let Some(uid) = uid {
        if std::process::Command::new("setpriv").arg("--version").output().is_err() {
            return tests::skipped("no setpriv, and root reads everything");
        }
        let all = std::process::Command::new("chown").args(["-R", &uid.to_string()]).arg(home.path()).status();
        assert!(all.is_ok_and(|status| status.success()));
    }
    mode(0o000);
    let mut daemon = Home::spawn(as_owner(&home, "cc-langfused", uid));
    home.wait_for(&mut daemon);
    let ctl = |args: &[&str]| {
        let mut command = as_owner(&home, "cc-langfusectl", uid);
        command.args(args).envs(server.env()).current_dir(home.path());
        tests::home::run(command, b"").0
    };
    for story in [&story, &file] {
        let mut command = as_owner(&home, "cc-langfuse-hook", uid);
        command.envs(server.env());
        tests::home::assert_silent(&tests::home::run(command, story.stop("hi").to_string().as_bytes()).0);
    }
    tests::eventually("both to be named", || {
        serde_json::from_slice::<Value>(&ctl(&["status", "--json"]).stdout)
            .is_ok_and(|status| status["unread"][1].is_object())
    });
    for (args, also) in [
        (&["doctor", "--no-probe"][..], "chmod"),
        (&["backfill", "--yes"], "chmod"),
        (&["backfill", "--dry-run"], "chmod"),
        (&["replay", file.path.to_str().expect("text")], "cannot be read"),
    ] {
        let output = ctl(args);
        let said = text(&output);
        assert!(output.status.code() == Some(1) && said.contains(also), "{args:?}: {output:?}");
        assert!(said.contains("in-file.jsonl") && !said.contains("given to the daemon"), "{args:?}: {said}");
        assert!(args[0] == "replay" || said.contains("-dir"), "{args:?}: {said}");
    }
    mode(0o700);
    assert!(!text(&ctl(&["doctor", "--no-probe"])).contains("chmod u+rX"));
    let output = ctl(&["backfill", "--yes"]);
    assert!(output.status.success(), "{output:?}");
    server.wait_for(4);
}

#[test]
fn refused_paths_are_counted_and_named_in_the_log_and_by_each_command() {
    let (home, server) = (Home::new(), Server::new());
    let daemon = home.daemon();
    let projects = home.path().join(".claude/projects");
    fs::create_dir_all(projects.join("-p")).expect("a directory");
    // The same project outside all roots, and a linked file.
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
    let output = home.ctl_with(&["doctor", "--no-probe"], &server.env());
    let doctor = text(&output);
    assert!(output.status.code() == Some(1) && doctor.contains("outside.jsonl"), "{doctor}");
    let output = home.ctl(&["status"]);
    assert!(output.status.code() == Some(1) && text(&output).contains("not read"), "{output:?}");
    assert_eq!(status(&home)["unread"][0]["reason"], "transcript_outside_roots");
    assert!(doctor.contains("transcript outside roots 3") && !doctor.contains("no event has arrived"), "{doctor}");
    for (path, why) in [(&story.path, "transcript_roots"), (&projects.join("-p/file.jsonl"), "not a regular file")] {
        let path = path.to_str().expect("text");
        let replay = home.ctl_with(&["replay", path], &server.env());
        assert!(replay.status.code() == Some(1) && text(&replay).contains(why), "{path}: {replay:?}");
        assert!(!text(&replay).contains("given to the daemon"), "{path}: {replay:?}");
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
        assert!(args[0] != "backfill" || said.contains("file.jsonl: not a regular file"), "{args:?}: {said}");
    }
    assert_eq!(server.spans().len(), 0);
    drop(daemon);
}
