//! `uninstall` reverts everything that `setup` wrote, whatever was there before and whatever interrupts it.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tests::{
    Home, bins,
    home::run,
    say,
    setup::{FILES, KEYS, QUIET, SECRET, ctl, files, git, json_of, place, setup, succeeds, text},
    strace::{self, Order, Point, Thread},
    tries,
};

#[test]
fn uninstall_leaves_every_file_as_it_was() {
    for scope in ["--user", "--project"] {
        for content in [None].into_iter().chain(FILES.map(Some)) {
            let home = Home::new();
            let (dir, file) = place(&home, scope, content);
            let before = files(home.path());

            let dry = succeeds(&setup(&home, &dir, scope, &["--dry-run", "--no-check", "--no-service"]));
            assert!(dry.contains("+++") && files(home.path()) == before, "{dry}");

            succeeds(&setup(&home, &dir, scope, &QUIET));
            let settings = json_of(&file);
            assert_eq!(settings["env"]["LANGFUSE_SECRET_KEY"], SECRET);
            assert_eq!(settings["env"]["TRACE_TO_LANGFUSE"], "true");
            assert_eq!(settings["env"]["CC_LANGFUSE_SEMANTICS"], "measured");
            let stop = settings["hooks"]["Stop"].to_string();
            assert!(stop.contains(bins().hook.to_str().expect("text")) && !stop.contains("/old place"), "{stop}");
            let after = files(home.path());
            assert!(after.iter().any(|(path, mode, _)| *path == file && *mode == 0o600));

            let again = succeeds(&setup(&home, &dir, scope, &QUIET));
            assert!(again.contains("nothing to change") && files(home.path()) == after, "{again}");

            // Other keys, and back.
            let other = ["--secret-key", "sk-lf-another-canary-2222"];
            let keys = [&["setup", scope][..], &KEYS[..2], &other, &KEYS[4..], &QUIET].concat();
            succeeds(&ctl(&home, &dir, None, &keys));
            assert_eq!(json_of(&file)["env"]["LANGFUSE_SECRET_KEY"], "sk-lf-another-canary-2222");

            succeeds(&ctl(&home, &dir, None, &["uninstall", "--dry-run"]));
            succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
            assert_eq!(files(home.path()), before, "{scope} {content:?}");
            // A hook from an earlier installation without a record is found by the next uninstall.
            let next = succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
            let had_hook = content.is_some_and(|text| text.contains("cc-langfuse-hook"));
            assert_eq!(next.contains("nothing to undo"), !had_hook, "{next}");
        }
    }
}

#[test]
fn semantics_that_the_user_chose_are_kept() {
    let why = "Langfuse counts cached tokens too";
    for (content, elsewhere, expect) in [
        (None, None, Some("measured")),
        (Some(r#"{"env":{"CC_LANGFUSE_SEMANTICS":" "}}"#), None, Some("measured")),
        (Some(r#"{"env":{"CC_LANGFUSE_SEMANTICS":"spec"}}"#), None, Some("spec")),
        (Some(r#"{"env":{"CC_LANGFUSE_SEMANTICS":"Measured"}}"#), None, Some("Measured")),
        (None, Some("spec"), None),
        (None, Some(""), Some("measured")),
        (None, Some("measured"), Some("measured")),
        (Some(r#"{"env":{"CC_LANGFUSE_SEMANTICS":"measured"}}"#), Some("spec"), Some("measured")),
    ] {
        let home = Home::new();
        let (dir, file) = place(&home, "--user", content);
        let go = |args: &[&str]| {
            let mut command = home.command(&bins().ctl);
            command.args(args).current_dir(&dir);
            command.envs(elsewhere.map(|value| ("CC_LANGFUSE_SEMANTICS", value)));
            succeeds(&run(command, b"").0)
        };
        let written = || json_of(&file)["env"]["CC_LANGFUSE_SEMANTICS"].as_str().map(str::to_owned);
        let args = [&["setup", "--user"][..], &KEYS, &QUIET].concat();
        let said = go(&args);
        assert_eq!(written().as_deref(), expect, "{content:?} {elsewhere:?}");
        assert_eq!(said.contains(why), expect == Some("measured"), "{said}");
        assert!(go(&args).contains("nothing to change"), "{content:?} {elsewhere:?}");
        // A later change is kept.
        let text = fs::read_to_string(&file).expect("settings").replace("\"measured\"", "\"spec\"");
        fs::write(&file, text).expect("written");
        let mut other = args.clone();
        other[5] = "sk-lf-another-canary-3333";
        go(&other);
        let expect = expect.map(|value| if value == "measured" { "spec" } else { value });
        assert_eq!(written().as_deref(), expect, "{content:?} {elsewhere:?}");
        go(&["uninstall", "--yes"]);
        let own = content.map(|text| text.replace("\"measured\"", "\"spec\""));
        assert_eq!(fs::read_to_string(&file).ok(), own, "{content:?} {elsewhere:?}");
    }
}

#[test]
fn later_changes_survive_uninstall() {
    for content in [None].into_iter().chain(FILES.map(Some)) {
        let home = Home::new();
        let (dir, file) = place(&home, "--user", content);
        succeeds(&setup(&home, &dir, "--user", &QUIET));
        let text = fs::read_to_string(&file).expect("there");
        let at = text.rfind('}').expect("an object");
        fs::write(&file, format!("{}, \"later\": {{}} {}", &text[..at], &text[at..])).expect("written");
        // Once more, with an addition in between that must be kept.
        succeeds(&setup(&home, &dir, "--user", &QUIET));
        succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
        let before = content.map(|text| text.trim_start_matches('\u{feff}')).filter(|text| !text.is_empty());
        let mut expected: Value = serde_json::from_str(before.unwrap_or("{}")).expect("JSON");
        expected["later"] = json!({});
        assert_eq!(json_of(&file), expected, "{content:?}");
        assert!(!home.path().join(".claude/state").exists());
    }
}

#[test]
fn uninstall_finds_a_hook_without_a_record() {
    let home = Home::new();
    let hook = "{\"hooks\": {\"Stop\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"/x/cc-langfuse-hook\"}]}]}, \"a\": 1}";
    let (dir, user) = place(&home, "--user", Some(hook));
    let (_, project) = place(&home, "--project", Some(hook));
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert_eq!([&user, &project].map(|file| json_of(file)), [json!({"a": 1}), json!({"a": 1})]);
    // In the home itself, whose settings are both the user's and the project's.
    fs::write(&user, hook).expect("written");
    succeeds(&ctl(&home, home.path(), None, &["uninstall", "--yes"]));
    assert_eq!(json_of(&user), json!({"a": 1}));
}

#[test]
fn only_a_changed_setup_stops_uninstall() {
    let home = Home::new();
    let (dir, user) = place(&home, "--user", Some("{}"));
    let gone = home.project("gone");
    succeeds(&setup(&home, &dir, "--user", &QUIET));
    succeeds(&setup(&home, &gone, "--project", &QUIET));
    // A project replaced by something else, and one with unreadable settings.
    fs::remove_dir_all(&gone).expect("removed");
    fs::write(&gone, "a file").expect("written");
    fs::create_dir_all(dir.join(".claude/settings.json")).expect("made");
    // It cannot know that the project is gone rather than renamed with its keys.
    let output = ctl(&home, &dir, None, &["uninstall", "--yes"]);
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("not found"), "{said}");
    assert_eq!(fs::read_to_string(&user).expect("there"), "{}");
}

#[test]
fn setup_overrides_settings_in_other_files() {
    let home = Home::new();
    let elsewhere =
        json!({"env": {"CC_LANGFUSE_BASE_URL": "https://other.example.org", "CC_LANGFUSE_PUBLIC_KEY": "pk-lf-1"}});
    let (dir, _) = place(&home, "--user", Some(&elsewhere.to_string()));
    let (_, file) = place(&home, "--project", Some("{}"));
    let go = |args: &[&str]| {
        let mut command = home.command(&bins().ctl);
        command.args(args).current_dir(&dir).env("CC_LANGFUSE_SECRET_KEY", "sk-lf-of-the-other");
        succeeds(&run(command, b"").0)
    };
    let args = [&["setup", "--project"][..], &KEYS, &QUIET].concat();
    go(&args);
    // A stronger variable is used only if necessary.
    let env = json_of(&file)["env"].clone();
    assert_eq!((&env["CC_LANGFUSE_SECRET_KEY"], &env["CC_LANGFUSE_PUBLIC_KEY"]), (&json!(SECRET), &Value::Null));
    let config: Value = serde_json::from_str(&go(&["config", "--json"])).expect("JSON");
    let settings = config["project"]["settings"].as_array().expect("settings");
    let of = |name: &str| settings.iter().find(|setting| setting["name"] == name).expect(name);
    assert_eq!(of("CC_LANGFUSE_BASE_URL")["value"], "https://langfuse.example.org");
    assert_eq!(of("CC_LANGFUSE_SECRET_KEY")["from"], file.to_str().expect("text"));
    assert!(go(&args).contains("nothing to change"));
    go(&["uninstall", "--yes"]);
    assert_eq!(fs::read_to_string(&file).expect("there"), "{}");
}

#[test]
fn concurrent_setups_wait_for_each_other() {
    let home = Home::new();
    let dirs: Vec<PathBuf> = (0..6).map(|number| place_in(&home.project(&format!("p{number}")))).collect();
    std::thread::scope(|scope| {
        for dir in &dirs {
            scope.spawn(|| succeeds(&setup(&home, dir, "--project", &QUIET)));
        }
    });
    succeeds(&ctl(&home, home.path(), None, &["uninstall", "--yes"]));
    for dir in &dirs {
        assert_eq!(fs::read_to_string(dir.join(".claude/settings.local.json")).expect("there"), "{ }");
    }
}

/// A project with settings.
fn place_in(dir: &Path) -> PathBuf {
    fs::create_dir(dir.join(".claude")).expect("made");
    fs::write(dir.join(".claude/settings.local.json"), "{ }").expect("written");
    dir.to_owned()
}

#[test]
fn setup_changes_nothing_if_a_name_cannot_be_recorded() {
    let home = Home::new();
    let dir = home.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&dir).expect("a directory");
    let refused = setup(&home, &dir, "--project", &QUIET);
    assert!(refused.status.code() == Some(1) && text(&refused).contains("is not UTF-8"), "{}", text(&refused));
    assert_eq!((files(home.path()), fs::read_dir(&dir).expect("there").count()), (vec![], 0));
}

#[test]
fn keys_are_kept_out_of_commits() {
    let home = Home::new();
    let (dir, file) = place(&home, "--project", Some("{}"));
    if git(&dir, &["init", "-q"]).is_none() {
        return;
    }
    let exclude = dir.join(".git/info/exclude");
    let before = fs::read(&exclude).ok();
    // From a subdirectory of the project.
    let deep = home.project("work/src/deep");
    fs::write(dir.join("README"), "x").expect("written");
    assert!(succeeds(&setup(&home, &deep, "--project", &QUIET)).contains("would commit"));
    assert_eq!(git(&dir, &["status", "--porcelain"]).expect("git"), "?? README\n");
    assert_eq!(json_of(&file)["env"]["LANGFUSE_SECRET_KEY"], SECRET);
    assert!(succeeds(&setup(&home, &deep, "--project", &QUIET)).contains("nothing to change"));
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert_eq!((fs::read(&exclude).ok(), fs::read_to_string(&file).expect("there")), (before, "{}".to_owned()));

    git(&dir, &["add", "-f", ".claude/settings.local.json"]);
    let all = files(home.path());
    let refused = setup(&home, &dir, "--project", &QUIET);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("tracked by git") && text(&refused).contains("--user"), "{}", text(&refused));
    assert_eq!(files(home.path()), all);
}

#[test]
fn backups_with_any_name_are_kept_out_of_commits() {
    let home = Home::new();
    let (dir, file) = place(&home, "--project", Some("{}"));
    if git(&dir, &["init", "-q"]).is_none() {
        return;
    }
    // A backup from an earlier run, which must not be overwritten.
    let older = file.with_file_name("settings.local.json.before-cc-langfuse");
    fs::write(&older, "older").expect("written");
    succeeds(&setup(&home, &dir, "--project", &QUIET));
    assert!(fs::read_dir(dir.join(".claude")).expect("a directory").count() == 3);
    assert_eq!(git(&dir, &["status", "--porcelain"]).expect("git"), "");
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert_eq!(fs::read_to_string(&older).expect("there"), "older");
}

/// The changes to a settings file, in order; each is killed at its system calls.
const STEPS: [&[&str]; 3] = [
    &["setup", "--project", "--public-key", "pk-lf-1", "--secret-key", SECRET, "--yes", "--no-check", "--no-service"],
    &[
        "setup",
        "--project",
        "--public-key",
        "pk-lf-1",
        "--secret-key",
        "sk-lf-canary-2222",
        "--yes",
        "--no-check",
        "--no-service",
    ],
    &["uninstall", "--yes"],
];

#[test]
fn setup_and_uninstall_can_be_repeated_after_a_kill_at_any_system_call() {
    if !strace::works() {
        return;
    }
    let original = "{\n  \"env\": {\"LANGFUSE_PUBLIC_KEY\": \"mine\"},\n  \"hooks\": {}\n}";
    // A repository, and the steps done before.
    let stage = |done: usize| {
        let home = Home::new();
        let (dir, file) = place(&home, "--project", Some(original));
        git(&dir, &["init", "-q"])?;
        STEPS[..done].iter().for_each(|args| drop(succeeds(&ctl(&home, &dir, None, args))));
        Some((home, dir, file))
    };
    let go = |home: &Home, dir: &Path, order: Order, step: usize| {
        let mut command = strace::command(home, order, &bins().ctl);
        command.args(STEPS[step]).current_dir(dir);
        run(command, b"").0
    };
    // Everything except git's own files and unknown backups.
    let kept = |home: &Home| {
        let mut all = files(home.path());
        all.retain(|(path, mode, bytes)| {
            let path = path.to_string_lossy();
            assert!(*mode == 0o600 || !String::from_utf8_lossy(bytes).contains("canary"), "{path}");
            !path.contains(".before-cc-langfuse") && (!path.contains("/.git/") || path.ends_with("/info/exclude"))
        });
        all
    };
    let mut points: Vec<(usize, Point)> = Vec::new();
    let mut texts = vec![original.to_owned()];
    for step in 0..STEPS.len() {
        let Some((home, dir, file)) = stage(step) else { return };
        let calls = home.path().join("calls");
        assert_eq!(go(&home, &dir, Order::record(&calls), step).status.code(), Some(0));
        points.extend(
            strace::points(&home, Thread::Main, &strace::recorded(&calls)).into_iter().map(|point| (step, point)),
        );
        texts.push(fs::read_to_string(&file).expect("there"));
    }
    let count = tries(30, points.len()).min(points.len());
    let mut kills = 0;
    for index in 0..count {
        let (step, point) = &points[index * points.len() / count];
        let (home, dir, file) = stage(0).expect("git");
        let before = kept(&home);
        STEPS[..*step].iter().for_each(|args| drop(succeeds(&ctl(&home, &dir, None, args))));
        let killed = go(&home, &dir, Order::inject(&home, point, "signal=SIGKILL"), *step);
        kills += usize::from(killed.status.code().is_none());
        let now = fs::read_to_string(&file).expect("there");
        assert!(texts[*step..step + 2].contains(&now), "{point:?} {now}");
        let seen = git(&dir, &["status", "--porcelain", "-uall"]).expect("git");
        let is_bare = now == original && seen == "?? .claude/settings.local.json\n";
        assert!(seen.is_empty() || is_bare, "{step} {point:?}: git would commit {seen}");
        if index % 2 == 0 {
            succeeds(&ctl(&home, &dir, None, STEPS[1]));
        }
        succeeds(&ctl(&home, &dir, None, STEPS[2]));
        assert_eq!(kept(&home), before, "{step} {point:?}");
    }
    say(&format!("kill -9 of setup and uninstall: {count} of {} points, {kills} kills", points.len()));
    assert!(kills > count / 2);
}

#[test]
fn a_linked_settings_file_is_written_at_its_target() {
    let home = Home::new();
    let (dir, file) = place(&home, "--user", Some("{ }"));
    let target = home.path().join("dotfiles.json");
    fs::rename(&file, &target).expect("moved");
    symlink(&target, &file).expect("linked");
    succeeds(&setup(&home, &dir, "--user", &QUIET));
    assert!(fs::symlink_metadata(&file).expect("there").is_symlink());
    assert_eq!(json_of(&target)["env"]["LANGFUSE_SECRET_KEY"], SECRET);
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert!(fs::symlink_metadata(&file).expect("there").is_symlink());
    assert_eq!(fs::read_to_string(&target).expect("there"), "{ }");

    fs::remove_file(&target).expect("removed");
    assert!(text(&setup(&home, &dir, "--user", &QUIET)).contains("points to nothing"));
    fs::remove_file(&file).expect("removed");
    for (content, why) in
        [("{\n// mine\n}", "line 2"), ("{\"env\": 1}", "`env` is not an object"), ("[]", "not an object")]
    {
        fs::write(&file, content).expect("written");
        let refused = setup(&home, &dir, "--user", &QUIET);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused).contains(why), "{}", text(&refused));
        assert_eq!(fs::read_to_string(&file).expect("there"), content);
    }
}

#[test]
fn a_purge_removes_only_the_programs_own_files() {
    let home = Home::new();
    let state = home.paths().state;
    let server = tests::Server::new();
    let daemon = home.daemon();
    tests::Story::new(&home, "work", "one").turn("question", "answer");
    home.hook(&tests::Story::new(&home, "work", "one").stop("answer"), &server.env());
    drop(daemon);
    // This program's own files: an event without a daemon, backups, damaged files, and partly written ones.
    home.hook(&tests::Story::new(&home, "work", "two").stop("answer"), &server.env());
    assert_eq!(home.spooled().len(), 1);
    let database = fs::read(home.paths().database).expect("a database");
    fs::create_dir(state.join("corrupt-1790000000000")).expect("made");
    let copies =
        ["state.v1.bak", "state.db.new", "corrupt-1790000000000/state.db", "corrupt-1790000000000/state.db-wal"];
    // The last two are the index of `usage` and `view`.
    for name in copies.into_iter().chain(["index.db", "index.db-wal"]) {
        fs::write(state.join(name), &database).expect("written");
    }
    for name in ["setup.json.before-cc-langfuse-aB3dE9", "spool/18a2f-3e.part", "spool.evicted", "begun", "begun.part"]
    {
        fs::write(state.join(name), "{").expect("written");
    }
    let mut kept = Vec::new();
    for name in [
        "notes.txt",
        "state.db.backup",
        "state.db-old",
        "index.db.mine",
        "state.v9.bak",
        "state.db.new.mine",
        "setup.json.mine",
        "corrupt-notes/x",
        "corrupt-1790000000000/notes",
        "spool/readme",
        "spool/my.event",
        "spool/deep/18a2f-3e.event",
        "daemon.log",
        "media/x.png",
    ] {
        let path = state.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, "of another program").expect("written");
        kept.push(path);
    }
    kept.sort();
    let said = succeeds(&ctl(&home, home.path(), None, &["uninstall", "--yes", "--purge"]));
    let left: Vec<_> = files(&state).into_iter().map(|(path, ..)| path).collect();
    assert_eq!(left, kept, "{said}");
    assert!(said.contains("holds other files") && !home.paths().log.exists(), "{said}");
}
