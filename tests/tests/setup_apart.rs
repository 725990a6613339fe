//! Settings that are in a repository get no keys; what `setup` cannot know later, as a renamed project, does not stop `uninstall`.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::json;
use tests::{
    Answer, Home, Request, Server, Story,
    home::run,
    setup::{KEYS, QUIET, SECRET, ctl, files, git, json_of, place, setup, succeeds, text},
};

/// The user's settings in a repository that tracks them; `None` where there is no git.
fn dotfiles(home: &Home) -> Option<()> {
    let dir = home.path().join(".claude");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("settings.json"), "{\n  \"model\": \"opus\"\n}\n").expect("written");
    git(&dir, &["init", "-q"])?;
    git(&dir, &["add", "settings.json"])?;
    Some(())
}

/// Knows the keys of [`KEYS`].
fn langfuse() -> Server {
    Server::answering(|request: &Request| match request.method.as_str() {
        "GET" => Answer::ok().body(r#"{"data":[{"id":"p1","name":"Night shift"}]}"#),
        _ => Answer::ok(),
    })
}

/// The files below `home` with the secret in them.
fn with_secret(home: &Home) -> Vec<String> {
    let all = files(home.path()).into_iter();
    let found = all.filter(|(_, _, bytes)| String::from_utf8_lossy(bytes).contains(SECRET));
    found.map(|(path, ..)| path.strip_prefix(home.path()).expect("below").display().to_string()).collect()
}

/// Calls the hook as Claude Code does with the settings at `file`.
fn call_hook(home: &Home, file: &Path, story: &Story, answer: &str) {
    let settings = json_of(file);
    let mut command = home.command(Path::new("sh"));
    command.arg("-c").arg(settings["hooks"]["Stop"][0]["hooks"][0]["command"].as_str().expect("a command"));
    let env = settings["env"].as_object().expect("variables");
    command.envs(env.iter().map(|(name, value)| (name, value.as_str().expect("text"))));
    tests::home::assert_silent(&run(command, story.stop(answer).to_string().as_bytes()).0);
}

#[test]
fn settings_that_git_tracks_get_the_hook_and_the_keys_lie_apart() {
    let scripts = |home: &Home| {
        let key = home.path().join("key store/key");
        fs::create_dir_all(key.parent().expect("a directory")).expect("made");
        fs::write(&key, format!("{SECRET}\nmore\n")).expect("written");
        format!("cat '{}'", key.display())
    };
    for in_file in [true, false] {
        let (home, server) = (Home::new(), langfuse());
        let Some(()) = dotfiles(&home) else { return };
        let dir = home.project("work");
        let file = home.path().join(".claude/settings.json");
        let command = scripts(&home);
        if in_file {
            fs::remove_dir_all(home.path().join("key store")).expect("removed");
        }
        let before = files(home.path());
        let refused = setup(&home, &dir, "--user", &QUIET);
        let said = text(&refused);
        assert!(
            !refused.status.success() && said.contains("--keys-in config") && said.contains("--secret-command"),
            "{said}"
        );
        assert_eq!(files(home.path()), before);

        let keys = ["setup", "--user", "--public-key", "pk-lf-1", "--base-url", &server.url];
        let how: &[&str] = match in_file {
            true => &["--keys-in", "config", "--secret-key", SECRET],
            false => &["--secret-command", &command],
        };
        let args = [&keys[..], how, &["--yes", "--no-service"]].concat();
        let dry = succeeds(&ctl(&home, &dir, None, &[&args[..], &["--dry-run"]].concat()));
        assert!(!dry.contains(SECRET) && files(home.path()) == before, "{dry}");
        let said = succeeds(&ctl(&home, &dir, None, &args));
        assert!(!said.contains(SECRET) && said.contains("Night shift"), "{said}");
        let expect = if in_file { ".config/cc-langfuse/langfuse.secret" } else { "key store/key" };
        assert_eq!(with_secret(&home), [expect]);
        if in_file {
            let secret = home.path().join(".config/cc-langfuse/langfuse.secret");
            assert_eq!(fs::metadata(secret).expect("there").permissions().mode() & 0o777, 0o600);
        }
        let names: Vec<String> = json_of(&file)["env"].as_object().expect("env").keys().cloned().collect();
        assert_eq!(names, ["CC_LANGFUSE_SEMANTICS", "CC_LANGFUSE_TRACE"]);

        let daemon = home.daemon();
        let mut story = Story::new(&home, "work", "s");
        story.turn("q", "a");
        call_hook(&home, &file, &story, "a");
        server.wait_for(2);
        daemon.terminate();
        let daemon = home.daemon();
        story.turn("q2", "a2");
        call_hook(&home, &file, &story, "a2");
        server.wait_for(4);
        home.flush();
        daemon.terminate();
        let sent = server.requests().into_iter().filter(|request| !request.spans.is_empty());
        sent.for_each(|request| assert_eq!(request.key(), format!("pk-lf-1:{SECRET}")));

        let now = files(home.path());
        let again = succeeds(&ctl(&home, &dir, None, &args));
        assert!(again.contains("nothing to change"), "{again}");
        // Without the flag it stays where it is.
        let plain = [&keys[..], &["--secret-key", SECRET, "--yes", "--no-service"]].concat();
        let again = succeeds(&ctl(&home, &dir, None, &plain));
        assert!(again.contains("nothing to change"), "{again}");
        let settled = |all: Vec<(std::path::PathBuf, u32, Vec<u8>)>| {
            all.into_iter()
                .filter(|(path, ..)| !path.starts_with(home.path().join(".claude/state")))
                .collect::<Vec<_>>()
        };
        assert_eq!(settled(files(home.path())), settled(now));
        succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
        let of_people = |all: Vec<(std::path::PathBuf, u32, Vec<u8>)>| {
            let own = [".claude/state", ".claude/projects"].map(|dir| home.path().join(dir));
            all.into_iter()
                .filter(|(path, ..)| !own.iter().any(|own| path.starts_with(own)) && !path.ends_with("daemon.log"))
                .collect::<Vec<_>>()
        };
        let left: Vec<_> = of_people(files(home.path())).into_iter().filter(|file| !before.contains(file)).collect();
        assert!(left.iter().all(|(path, ..)| path.extension().is_some_and(|ext| ext == "log")), "{left:?}");
    }
}

#[test]
fn what_people_write_into_config_toml_since_outlives_uninstall() {
    let home = Home::new();
    let dir = home.project("work");
    let own = "outbox_mib = 300\n\n[[destination]]\nname = \"team\"\nkind = \"langfuse\"\naddress = \"https://team.example\"\nLANGFUSE_PUBLIC_KEY = \"pk-lf-2\"\nsecret_command = [\"true\"]\n";
    home.configure(own);
    let apart = [&["setup", "--user"][..], &KEYS, &["--keys-in", "config"], &QUIET].concat();
    succeeds(&ctl(&home, &dir, None, &apart));
    let config = home.paths().config;
    let now = fs::read_to_string(&config).expect("there");
    assert!(now.starts_with(own) && now.contains("name = \"langfuse\""), "{now}");
    // Since: a table of the same form, whose lines are others' but for the mark.
    let later = "[[destination]]\nname = \"later\"\nkind = \"langfuse\"\naddress = \"https://langfuse.example.org\"\nLANGFUSE_PUBLIC_KEY = \"pk-lf-3\"\nsecret_command = [\"true\"]\n";
    fs::write(&config, format!("{now}{later}")).expect("written");
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert_eq!(fs::read_to_string(&config).expect("there"), format!("{own}{later}"));
    assert_eq!(with_secret(&home), Vec::<String>::new());

    // One that is called as ours would be is not touched.
    let theirs = own.replace("team", "langfuse");
    home.configure(&theirs);
    let refused = ctl(&home, &dir, None, &apart);
    assert!(!refused.status.success() && text(&refused).contains("must not be called langfuse"), "{refused:?}");
    assert_eq!(fs::read_to_string(&config).expect("there"), theirs);
}

#[test]
fn beside_a_plugin_that_works_no_hook_is_registered() {
    let home = Home::new();
    let (dir, file) = place(&home, "--user", Some(r#"{"enabledPlugins":{"cc-langfuse@mine":true}}"#));
    let plugins = home.path().join(".claude/plugins");
    let market = home.path().join("clone/plugin");
    fs::create_dir_all(market.join(".claude-plugin")).expect("a directory");
    fs::create_dir_all(market.join("cc-langfuse/hooks")).expect("a directory");
    fs::create_dir_all(&plugins).expect("a directory");
    fs::write(market.join("cc-langfuse/hooks/hooks.json"), "{}").expect("written");
    let known = json!({"mine": {"installLocation": market}});
    fs::write(plugins.join("known_marketplaces.json"), known.to_string()).expect("written");
    let installed = json!({"plugins": {"cc-langfuse@mine": [{"installPath": "/nowhere"}]}});
    fs::write(plugins.join("installed_plugins.json"), installed.to_string()).expect("written");
    // While it fails to load, the hook is registered; when it works again, it is not.
    for (is_there, expect) in [(false, true), (true, false)] {
        let manifest = market.join(".claude-plugin/marketplace.json");
        if is_there {
            fs::write(&manifest, "{}").expect("written");
        }
        let said = succeeds(&setup(&home, &dir, "--user", &QUIET));
        assert_eq!(said.contains("cc-langfuse@mine registers the hook"), is_there, "{said}");
        let settings = json_of(&file);
        assert_eq!(settings["hooks"]["Stop"].is_array(), expect, "{settings}");
        assert_eq!(settings["env"]["LANGFUSE_SECRET_KEY"], SECRET);
    }
}

#[test]
fn a_renamed_project_is_cleaned_where_it_is_now() {
    let home = Home::new();
    let (dir, file) = place(&home, "--project", Some("{\n  \"model\": \"opus\"\n}\n"));
    succeeds(&setup(&home, &dir, "--project", &QUIET));
    let renamed = home.path().join("renamed");
    fs::rename(&dir, &renamed).expect("renamed");
    let file = renamed.join(file.strip_prefix(&dir).expect("below"));
    // From elsewhere it says what it cannot find, and changes nothing.
    let output = ctl(&home, home.path(), None, &["uninstall", "--dry-run"]);
    let dry = text(&output);
    assert_eq!(output.status.code(), Some(1), "{dry}");
    assert!(
        dry.contains("not found")
            && dry.contains("keys are still in it")
            && dry.contains("work/.claude/settings.local.json"),
        "{dry}"
    );
    let said = succeeds(&ctl(&home, &renamed, None, &["uninstall", "--yes"]));
    assert!(said.contains("moved"), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("there"), "{\n  \"model\": \"opus\"\n}\n");
    assert_eq!(with_secret(&home), Vec::<String>::new());
    assert!(files(&renamed).iter().all(|(path, ..)| *path == file), "{:?}", files(&renamed));
    // One that is gone for good is kept in mind, as it may be renamed, but not in the way.
    let (dir, _) = place(&home, "--project", None);
    succeeds(&setup(&home, &dir, "--project", &QUIET));
    fs::remove_dir_all(&dir).expect("removed");
    let record = home.path().join(".claude/state/cc-langfuse/setup.json");
    let output = ctl(&home, home.path(), None, &["uninstall", "--yes"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not found") && said.contains("--purge forgets it") && record.exists(), "{said}");
    let said = succeeds(&ctl(&home, home.path(), None, &["uninstall", "--yes", "--purge"]));
    assert!(said.contains("by hand") && !record.exists(), "{said}");
}

#[test]
fn another_project_is_not_taken_for_a_renamed_one() {
    let home = Home::new();
    let dirs = ["r1", "r2", "r3"].map(|name| home.project(name));
    dirs.iter().for_each(|dir| drop(succeeds(&setup(&home, dir, "--project", &QUIET))));
    let renamed = home.path().join("r1-renamed");
    fs::rename(&dirs[0], &renamed).expect("renamed");
    let output = ctl(&home, &dirs[1], None, &["uninstall", "--yes"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("moved") && said.contains("not found"), "{said}");
    assert!(dirs[1..].iter().all(|dir| !dir.join(".claude").exists()), "{said}");
    // What it says helps.
    let said = succeeds(&ctl(&home, &renamed, None, &["uninstall", "--yes"]));
    assert!(said.contains("moved") && !renamed.join(".claude").exists(), "{said}");
    assert_eq!(with_secret(&home), Vec::<String>::new());
}

#[test]
fn a_file_that_cannot_be_read_is_left_and_all_others_are_cleaned() {
    let home = Home::new();
    let (dir, file) = place(&home, "--user", None);
    succeeds(&setup(&home, &dir, "--user", &QUIET));
    let (project, local) = place(&home, "--project", None);
    succeeds(&setup(&home, &project, "--project", &QUIET));
    let whole = fs::read_to_string(&file).expect("there");
    fs::write(&file, whole.replace('}', "")).expect("written");
    let output = ctl(&home, &dir, None, &["uninstall", "--yes"]);
    let said = text(&output);
    assert!(
        output.status.code() == Some(1) && said.contains("left") && said.contains(".claude/settings.json"),
        "{said}"
    );
    assert!(!local.exists(), "{said}");
    // When it is right again, the rest is taken back.
    fs::write(&file, whole).expect("written");
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert!(!file.exists() && with_secret(&home).is_empty());
    // A file that was never touched stays as it is.
    fs::create_dir_all(home.path().join(".claude")).expect("a directory");
    fs::write(&file, "{ not JSON").expect("written");
    let (project, local) = place(&home, "--project", None);
    succeeds(&setup(&home, &project, "--project", &QUIET));
    succeeds(&ctl(&home, &project, None, &["uninstall", "--yes"]));
    assert!(!local.exists());
    let said = succeeds(&ctl(&home, &project, None, &["uninstall", "--yes"]));
    assert!(said.contains("nothing to undo"), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("there"), "{ not JSON");
}
