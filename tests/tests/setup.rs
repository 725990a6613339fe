//! `setup` and `uninstall`: what they write, what they never write, and that all of it can be taken back.

use std::{
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use tests::{
    Answer, Home, Server, Story, bins,
    home::run,
    say, server,
    strace::{self, Order, Point, Thread},
    tries,
};

const SECRET: &str = "sk-lf-0a1b2c3d-canary-77aa";

const KEYS: [&str; 6] =
    ["--public-key", "pk-lf-1", "--secret-key", SECRET, "--base-url", "https://langfuse.example.org"];

/// Without server and service.
const QUIET: [&str; 3] = ["--yes", "--no-check", "--no-service"];

/// Settings files as people have them.
const FILES: [&str; 9] = [
    "",
    "{}",
    "{ }\n",
    "{\n  \"model\": \"opus\"\n}\n",
    "{\r\n\t\"env\": {\"A\": \"1\"},\r\n\t\"hooks\": { }\r\n}",
    "\u{feff}{\"env\":{\"A\":\"1\"},\"hooks\":{\"Stop\":[{\"hooks\":[{\"type\":\"command\",\"command\":\"say\"}]}]}}",
    "{\n    \"hooks\": {\n        \"Stop\": [\n        ]\n    },\n    \"x\": [1,2,\n 3], \"x\": 2\n}\n\n",
    "{\n  \"env\": {\"LANGFUSE_SECRET_KEY\": \"sk-lf-former-canary-0001\", \"CC_LANGFUSE_BASE_URL\": \"https://old\"}\n}",
    "{\"hooks\": {\"Stop\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"'/old place/cc-langfuse-hook'\"}]}]}}",
];

/// Runs `cc-langfusectl` in `dir`, with `path` as its `PATH`, if any.
fn ctl(home: &Home, dir: &Path, path: Option<&Path>, args: &[&str]) -> Output {
    let mut command = home.command(&bins().ctl);
    command.args(args).current_dir(dir);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    run(command, b"").0
}

fn setup(home: &Home, dir: &Path, scope: &str, more: &[&str]) -> Output {
    ctl(home, dir, None, &[&["setup", scope][..], &KEYS, more].concat())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn succeeds(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
    text(output)
}

/// A settings file with `content`; the directory to run in, and the flag that means it.
fn place(home: &Home, scope: &'static str, content: Option<&str>) -> (PathBuf, PathBuf) {
    let dir = home.project("work");
    let file = match scope {
        "--user" => home.path().join(".claude/settings.json"),
        _ => dir.join(".claude/settings.local.json"),
    };
    if let Some(content) = content {
        fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        fs::write(&file, content).expect("written");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("its mode");
    }
    (dir, file)
}

fn json_of(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("a file");
    serde_json::from_str(text.trim_start_matches('\u{feff}')).expect("JSON")
}

/// Every file below `dir`, with mode and content.
fn files(dir: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o7777;
            found.push((path.clone(), mode, fs::read(&path).expect("readable")));
        }
    }
    found.sort();
    found
}

fn script(dir: &Path, name: &str, body: &str) {
    fs::create_dir_all(dir).expect("made");
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
}

/// Runs git; false, and a word, where there is none.
fn git(dir: &Path, args: &[&str]) -> Option<String> {
    let Ok(output) = Command::new("git").current_dir(dir).env("HOME", dir).args(args).output() else {
        say("SKIPPED: no git here");
        return None;
    };
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

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
            // A hook that was there before is found by the next one, which knows of no setup.
            let next = succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
            let had_hook = content.is_some_and(|text| text.contains("cc-langfuse-hook"));
            assert_eq!(next.contains("nothing to take back"), !had_hook, "{next}");
        }
    }
}

#[test]
fn what_was_written_since_outlives_uninstall() {
    for content in [None].into_iter().chain(FILES.map(Some)) {
        let home = Home::new();
        let (dir, file) = place(&home, "--user", content);
        succeeds(&setup(&home, &dir, "--user", &QUIET));
        let text = fs::read_to_string(&file).expect("there");
        let at = text.rfind('}').expect("an object");
        fs::write(&file, format!("{}, \"later\": {{}} {}", &text[..at], &text[at..])).expect("written");
        // Once more in between: what was added since is nobody's to lose.
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
fn a_hook_of_which_no_record_tells_is_found() {
    let home = Home::new();
    let hook = "{\"hooks\": {\"Stop\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"/x/cc-langfuse-hook\"}]}]}, \"a\": 1}";
    let (dir, user) = place(&home, "--user", Some(hook));
    let (_, project) = place(&home, "--project", Some(hook));
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert_eq!([&user, &project].map(|file| json_of(file)), [json!({"a": 1}), json!({"a": 1})]);
    // In the home itself, whose settings are the user's and the project's.
    fs::write(&user, hook).expect("written");
    succeeds(&ctl(&home, home.path(), None, &["uninstall", "--yes"]));
    assert_eq!(json_of(&user), json!({"a": 1}));
}

#[test]
fn nothing_but_what_was_set_up_is_in_the_way_of_uninstall() {
    let home = Home::new();
    let (dir, user) = place(&home, "--user", Some("{}"));
    let gone = home.project("gone");
    succeeds(&setup(&home, &dir, "--user", &QUIET));
    succeeds(&setup(&home, &gone, "--project", &QUIET));
    // A project whose place something else has taken, and another one with settings that nobody can read.
    fs::remove_dir_all(&gone).expect("removed");
    fs::write(&gone, "a file").expect("written");
    fs::create_dir_all(dir.join(".claude/settings.json")).expect("made");
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert_eq!(fs::read_to_string(&user).expect("there"), "{}");
}

#[test]
fn what_is_set_up_counts_whatever_is_set_elsewhere() {
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
    // A name that wins is used only where it has to be.
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
fn those_at_the_same_time_wait_for_each_other() {
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
fn where_a_name_cannot_be_recorded_nothing_is_begun() {
    let home = Home::new();
    let dir = home.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&dir).expect("a directory");
    let refused = setup(&home, &dir, "--project", &QUIET);
    assert!(refused.status.code() == Some(1) && text(&refused).contains("is not UTF-8"), "{}", text(&refused));
    assert_eq!((files(home.path()), fs::read_dir(&dir).expect("there").count()), (vec![], 0));
}

#[test]
fn only_events_that_the_installed_version_knows_are_registered() {
    for (prints, events) in [
        (None, &["Stop", "SubagentStop"][..]),
        (Some("echo '1.0.59 (Claude Code)'"), &["Stop", "SubagentStop"]),
        (Some("echo nonsense; exit 1"), &["Stop", "SubagentStop"]),
        (Some("echo '2.1.71 (Claude Code)'"), &["SessionEnd", "SessionStart", "Stop", "SubagentStop"]),
        (Some("echo '2.1.329 (Claude Code)'"), &["SessionEnd", "SessionStart", "Stop", "StopFailure", "SubagentStop"]),
        // An older one than at first: what it does not know goes.
        (Some("echo '2.0.75 (Claude Code)'"), &["SessionEnd", "SessionStart", "Stop", "SubagentStop"]),
    ] {
        let home = Home::new();
        let path = home.path().join("path");
        fs::create_dir_all(&path).expect("made");
        if prints.is_some_and(|prints| prints.contains("2.0.75")) {
            script(&path, "claude", "echo '2.1.329 (Claude Code)'");
            succeeds(&ctl(&home, home.path(), Some(&path), &[&["setup", "--user"][..], &KEYS, &QUIET].concat()));
        }
        if let Some(prints) = prints {
            script(&path, "claude", prints);
        }
        succeeds(&ctl(&home, home.path(), Some(&path), &[&["setup", "--user"][..], &KEYS, &QUIET].concat()));
        let settings = json_of(&home.path().join(".claude/settings.json"));
        let registered: Vec<&String> = settings["hooks"].as_object().expect("hooks").keys().collect();
        assert_eq!(registered, events, "{prints:?}");
    }
}

#[test]
fn keys_are_kept_out_of_what_git_commits() {
    let home = Home::new();
    let (dir, file) = place(&home, "--project", Some("{}"));
    if git(&dir, &["init", "-q"]).is_none() {
        return;
    }
    let exclude = dir.join(".git/info/exclude");
    let before = fs::read(&exclude).ok();
    // From anywhere in the project.
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
fn copies_are_kept_out_too_whatever_they_are_called() {
    let home = Home::new();
    let (dir, file) = place(&home, "--project", Some("{}"));
    if git(&dir, &["init", "-q"]).is_none() {
        return;
    }
    // One from another time, which is nobody's to overwrite.
    let older = file.with_file_name("settings.local.json.before-cc-langfuse");
    fs::write(&older, "older").expect("written");
    succeeds(&setup(&home, &dir, "--project", &QUIET));
    assert!(fs::read_dir(dir.join(".claude")).expect("a directory").count() == 3);
    assert_eq!(git(&dir, &["status", "--porcelain"]).expect("git"), "");
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert_eq!(fs::read_to_string(&older).expect("there"), "older");
}

/// What is done to a settings file, one after the other: each is killed at its system calls.
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
fn killed_at_any_system_call_they_can_be_done_again_and_taken_back() {
    if !strace::works() {
        return;
    }
    let original = "{\n  \"env\": {\"LANGFUSE_PUBLIC_KEY\": \"mine\"},\n  \"hooks\": {}\n}";
    // A repository, and what was done to it before.
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
    // Everything but git's own and copies nobody knows of any more.
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
        points.extend(strace::points(Thread::Main, &strace::recorded(&calls)).into_iter().map(|point| (step, point)));
        texts.push(fs::read_to_string(&file).expect("there"));
    }
    let count = tries(30, points.len()).min(points.len());
    let mut kills = 0;
    for index in 0..count {
        let (step, point) = &points[index * points.len() / count];
        let (home, dir, file) = stage(0).expect("git");
        let before = kept(&home);
        STEPS[..*step].iter().for_each(|args| drop(succeeds(&ctl(&home, &dir, None, args))));
        let killed = go(&home, &dir, Order::inject(point, "signal=SIGKILL"), *step);
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
fn a_linked_file_is_written_where_the_link_leads() {
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
    assert!(text(&setup(&home, &dir, "--user", &QUIET)).contains("leads nowhere"));
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
fn keys_are_tried_before_anything_is_written() {
    let server = Server::answering(|request| {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/api/public/projects"));
        let known = request.key() == format!("pk-lf-1:{SECRET}");
        Answer::status(if known { 200 } else { 401 }).body(r#"{"data":[{"id":"p1","name":"Night shift"}]}"#)
    });
    let args = |url: &str, secret: &str| {
        let args = ["setup", "--user", "--public-key", "pk-lf-1", "--secret-key", secret, "--base-url", url];
        args.into_iter().chain(["--yes", "--no-service"]).map(str::to_owned).collect::<Vec<_>>()
    };
    let tried = |url: &str, secret: &str| {
        let home = Home::new();
        let args = args(url, secret);
        let output = ctl(&home, home.path(), None, &args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(home.path().join(".claude").exists(), output.status.success());
        assert!(!text(&output).contains(secret), "{}", text(&output));
        (output.status.code(), text(&output))
    };
    let (code, said) = tried(&server.url, SECRET);
    assert!(code == Some(0) && said.contains("Night shift"), "{said}");
    let unused = format!("http://{}", server::unused());
    let secret = "sk-lf-99999999-wrong-8888";
    for (url, status, why) in [
        (&server.url, 401, "does not know these keys"),
        (&server.url, 403, "organisation"),
        (&server.url, 404, "is this the address of a Langfuse server?"),
        (&unused, 0, "cannot be reached"),
        (&"http://langfuse.example.org".to_owned(), 0, "use https"),
    ] {
        if status != 401 {
            server.change(move |_| Answer::status(status));
        }
        let (code, said) = tried(url, secret);
        assert!(code == Some(1) && said.contains(why), "{said}");
    }
    server.change(|_| Answer::ok().body(r#"{"data":[]}"#));
    assert!(tried(&server.url, SECRET).1.contains("names no project"));
}

#[test]
fn what_is_missing_is_named() {
    let home = Home::new();
    for (args, parts) in [
        (&["setup"][..], &["--user or --project", "--public-key", "--secret-key", "--yes"][..]),
        (&["setup", "--user", "--yes", "--public-key", "pk"], &["--secret-key"]),
        (&["setup", "--user", "--project"], &["cannot be used with"]),
        (&["setup", "--mlflow"], &["not supported yet"]),
        (&["setup", "--user", "--yes", "--public-key", "sk-1", "--secret-key", "pk-1"], &["interchanged"]),
        (
            &["setup", "--user", "--yes", "--public-key", "pk", "--secret-key", "sk", "--base-url", "x y"],
            &["not an address"],
        ),
        (&["uninstall"], &["--yes"]),
    ] {
        let output = home.ctl(args);
        assert_eq!(output.status.code(), Some(2), "{args:?} {}", text(&output));
        for part in parts {
            assert!(text(&output).contains(part), "{}", text(&output));
        }
    }
    // From the environment, and from the standard input.
    let env = [("LANGFUSE_PUBLIC_KEY".to_owned(), "pk-lf-1".to_owned())];
    let mut command = home.command(&bins().ctl);
    command.args(["setup", "--user", "--secret-key", "-"]).args(QUIET).envs(env).current_dir(home.path());
    succeeds(&run(command, format!("{SECRET}\n").as_bytes()).0);
    assert_eq!(json_of(&home.path().join(".claude/settings.json"))["env"]["LANGFUSE_SECRET_KEY"], SECRET);
}

#[test]
fn a_question_is_asked_until_it_is_answered() {
    if !cfg!(target_os = "linux") || Command::new("script").arg("--version").output().is_err() {
        return say("SKIPPED a_question_is_asked_until_it_is_answered: needs script");
    }
    let home = Home::new();
    let dir = home.project("work");
    let mut command = home.command(Path::new("script"));
    let all = format!(
        "{} setup --public-key pk --base-url http://localhost --no-check --no-service --dry-run",
        bins().ctl.display()
    );
    command.env("SHELL", "/bin/sh").env("LANGFUSE_SECRET_KEY", SECRET).args(["-qec", &all, "/dev/null"]);
    command.current_dir(&dir);
    let said = succeeds(&run(command, b"this project\n2\n").0);
    assert_eq!(said.matches("What is to be traced?").count(), 2, "{said}");
    assert!(said.contains("work/.claude/settings.local.json"), "{said}");
}

#[test]
fn the_service_is_installed_started_and_taken_away_again() {
    for forbidden in [false, true] {
        let home = Home::new();
        let path = home.path().join("path");
        let (log, units) = (home.path().join("calls"), home.path().join("xdg/systemd/user"));
        let drop_in = units.join("cc-langfused.service.d/10-namespaces.conf");
        let fails = if forbidden {
            format!(
                "case \"$2\" in restart|start) [ -e '{}' ] && exit 1;; show) echo 226;; esac\nexit 0",
                drop_in.display()
            )
        } else {
            "exit 0".to_owned()
        };
        script(&path, "systemctl", &format!("echo \"$@\" >>'{}'\n{fails}", log.display()));
        let before = files(home.path());
        let go = |args: &[&str]| {
            let mut command = home.command(&bins().ctl);
            command
                .args(args)
                .current_dir(home.path())
                .env("PATH", &path)
                .env("XDG_CONFIG_HOME", home.path().join("xdg"));
            succeeds(&run(command, b"").0)
        };
        let args = [&["setup", "--user"][..], &KEYS, &["--yes", "--no-check"]].concat();
        let said = go(&args);
        assert_eq!(said.contains("running under systemd, without"), forbidden, "{said}");
        let service = fs::read_to_string(units.join("cc-langfused.service")).expect("a unit");
        assert!(service.contains(&format!("\nExecStart={}\n", bins().daemon.display())), "{service}");
        assert_eq!(drop_in.exists(), !forbidden);
        let calls = fs::read_to_string(&log).expect("calls");
        assert!(
            calls.contains("--user daemon-reload")
                && calls.contains("--user enable cc-langfused.socket cc-langfused.service"),
            "{calls}"
        );
        assert!(go(&args).contains("nothing to change"));
        go(&["uninstall", "--yes"]);
        let calls = fs::read_to_string(&log).expect("calls");
        assert!(calls.contains("--user disable --now cc-langfused.socket cc-langfused.service"), "{calls}");
        fs::remove_file(&log).expect("removed");
        assert_eq!(files(home.path()), before);
        assert!(!units.exists());
    }
}

#[test]
fn the_service_finds_a_state_directory_that_was_moved() {
    let home = Home::new();
    let path = home.path().join("path");
    script(&path, "systemctl", "exit 0");
    let state = home.path().join("state of 100%");
    let go = |args: &[&str]| {
        let mut command = home.command(&bins().ctl);
        command.args(args).current_dir(home.path()).env("PATH", &path).env("CC_LANGFUSE_STATE_DIR", &state);
        succeeds(&run(command, b"").0)
    };
    go(&[&["setup", "--user"][..], &KEYS, &["--yes", "--no-check"]].concat());
    let units = home.path().join(".config/systemd/user");
    let read = |name: &str| fs::read_to_string(units.join(name)).expect("a unit");
    let word = state.to_str().expect("text").replace('%', "%%");
    let (service, drop_in) = (read("cc-langfused.service"), read("cc-langfused.service.d/10-namespaces.conf"));
    assert!(service.contains(&format!("\nEnvironment=\"CC_LANGFUSE_STATE_DIR={word}\"\n")), "{service}");
    assert!(drop_in.contains(&format!("\nReadWritePaths=\"{word}\"\n")), "{drop_in}");
    // The socket's unit has its path.
    assert!(!units.join("cc-langfused.socket").exists());
    go(&["uninstall", "--yes", "--purge"]);
    assert_eq!(files(home.path()).len(), 1, "but for systemctl");
}

#[test]
fn a_service_that_does_not_start_is_something_left_undone() {
    let home = Home::new();
    let path = home.path().join("path");
    script(&path, "systemctl", "case \"$2\" in start|restart) echo 'no such luck' >&2; exit 1;; esac");
    let before = files(home.path());
    let args = [&["setup", "--user"][..], &KEYS, &["--yes", "--no-check"]].concat();
    succeeds(&ctl(&home, home.path(), Some(&path), &[&args[..], &["--no-service"]].concat()));
    assert!(!home.path().join(".config").exists(), "a service that nobody wants");
    let tried = ctl(&home, home.path(), Some(&path), &args);
    assert_eq!(tried.status.code(), Some(1), "{}", text(&tried));
    assert!(
        text(&tried).contains("no such luck") && text(&tried).contains("systemctl --user status"),
        "{}",
        text(&tried)
    );
    succeeds(&ctl(&home, home.path(), Some(&path), &["uninstall", "--yes"]));
    assert_eq!(files(home.path()), before);
}

#[test]
fn the_secret_is_in_the_settings_file_and_nowhere_else() {
    for content in [None].into_iter().chain(FILES.map(Some)) {
        let home = Home::new();
        let (dir, file) = place(&home, "--project", content);
        let mut said = succeeds(&setup(&home, &dir, "--project", &QUIET));
        for (path, mode, bytes) in files(home.path()) {
            let holds = String::from_utf8_lossy(&bytes).contains(SECRET);
            assert_eq!(holds, path == file, "{}", path.display());
            let is_record = path.ends_with("setup.json");
            let is_copy = path.to_string_lossy().contains(".before-cc-langfuse");
            assert!(mode == 0o600 || !(holds || is_record || is_copy), "{} {mode:o}", path.display());
            assert!(!is_record || !String::from_utf8_lossy(&bytes).contains("canary"));
        }
        said += &succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
        assert!(said.contains("sk-lf-…77aa") && !said.contains("canary"), "{said}");
    }
    // A key that is written otherwise in JSON, one that it begins with under a name that stands twice, and one in the place of
    // the address.
    let home = Home::new();
    let (dir, _) = place(&home, "--user", Some(r#"{"env": {"LANGFUSE_SECRET_KEY": "my"}, "env": {}}"#));
    let odd = ["--public-key", "pk", "--secret-key", r#"my"canary\key"#, "--base-url", "https://langfuse.example.org"];
    let mut said = succeeds(&ctl(&home, &dir, None, &[&["setup", "--user"][..], &odd, &QUIET].concat()));
    let swapped = ["--public-key", "pk", "--secret-key", "sk", "--base-url", SECRET];
    said += &text(&ctl(&home, &dir, None, &[&["setup", "--user"][..], &swapped, &QUIET].concat()));
    assert!(
        said.contains("LANGFUSE_SECRET_KEY") && said.contains("not an address") && !said.contains("canary"),
        "{said}"
    );
}

#[test]
fn after_setup_a_turn_becomes_a_trace() {
    let home = Home::new();
    let server = Server::answering(|request| match request.method.as_str() {
        "GET" => Answer::ok().body(r#"{"data":[{"id":"p1","name":"Night shift"}]}"#),
        _ => Answer::ok(),
    });
    let dir = home.project("work");
    let keys = ["--public-key", "pk-lf-1", "--secret-key", SECRET, "--base-url", &server.url];
    let args = [&["setup", "--project"][..], &keys, &["--yes", "--no-service"]].concat();
    succeeds(&ctl(&home, &dir, None, &args));
    let settings = json_of(&dir.join(".claude/settings.local.json"));
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let mut command = home.command(Path::new("sh"));
    command.arg("-c").arg(settings["hooks"]["Stop"][0]["hooks"][0]["command"].as_str().expect("a command"));
    let env = settings["env"].as_object().expect("variables");
    command.envs(env.iter().map(|(name, value)| (name, value.as_str().expect("text"))));
    tests::home::assert_silent(&run(command, story.stop("a").to_string().as_bytes()).0);
    assert_eq!(server.wait_for(2).iter().filter(|span| span.is_root()).count(), 1);
    home.flush();
    let sent = server.requests().into_iter().find(|request| !request.spans.is_empty()).expect("a batch");
    assert_eq!(sent.key(), format!("pk-lf-1:{SECRET}"));

    // The data goes only if it is to, and the daemon before it.
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert!(home.paths().database.exists() && !dir.join(".claude").exists());
    let mut daemon = daemon;
    let other = home.paths().state.join("notes");
    fs::write(&other, "of somebody").expect("written");
    assert!(succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes", "--purge"])).contains("something else in it"));
    assert!(daemon.ended().success());
    assert!(files(&home.paths().state).iter().all(|(path, ..)| *path == other) && !home.paths().log.exists());
    fs::remove_file(&other).expect("it stayed");
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes", "--purge"]));
    assert!(!home.paths().state.exists());
}
