//! `setup`: its questions and checks before it writes, the service it installs, and that turns become traces.

use std::{fs, path::Path, process::Command};

use tests::{
    Answer, Home, Server, Story, bins,
    home::run,
    say, server,
    setup::{FILES, KEYS, QUIET, SECRET, ctl, files, json_of, place, script, setup, succeeds, text},
};

#[test]
fn only_events_that_the_installed_version_supports_are_registered() {
    for (prints, events) in [
        (None, &["Stop", "SubagentStop"][..]),
        (Some("echo '1.0.59 (Claude Code)'"), &["Stop", "SubagentStop"]),
        (Some("echo nonsense; exit 1"), &["Stop", "SubagentStop"]),
        (Some("echo '2.1.71 (Claude Code)'"), &["SessionEnd", "SessionStart", "Stop", "SubagentStop"]),
        (Some("echo '2.1.329 (Claude Code)'"), &["SessionEnd", "SessionStart", "Stop", "StopFailure", "SubagentStop"]),
        // A downgrade: unsupported events are removed.
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
fn setup_checks_the_keys_before_it_writes() {
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
        (&unused, 0, "could not connect to 127.0.0.1:"),
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
fn setup_names_missing_answers() {
    let home = Home::new();
    for (args, parts) in [
        (&["setup"][..], &["--user or --project", "--public-key", "--secret-key", "--yes"][..]),
        (&["setup", "--user", "--yes", "--public-key", "pk"], &["--secret-key"]),
        (&["setup", "--user", "--project"], &["cannot be used with"]),
        (&["setup", "--mlflow"], &["--user or --project, --yes"]),
        (&["setup", "--mlflow", "--public-key", "pk"], &["cannot be used with"]),
        (&["setup", "--experiment", "x"], &["--mlflow"]),
        (
            &["setup", "--mlflow", "--user", "--yes", "--tracking-uri", "sqlite:///x.db"],
            &["mlflow server --backend-store-uri sqlite:///x.db"],
        ),
        (&["setup", "--mlflow", "--user", "--yes", "--tracking-uri", "file://name"], &["nor a directory"]),
        (
            &["setup", "--mlflow", "--user", "--yes", "--tracking-uri", "http://me:pw@x"],
            &["leave user and password out"],
        ),
        (&["setup", "--user", "--yes", "--public-key", "sk-1", "--secret-key", "pk-1"], &["swapped"]),
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
    // From the environment, and from standard input.
    let env = [("LANGFUSE_PUBLIC_KEY".to_owned(), "pk-lf-1".to_owned())];
    let mut command = home.command(&bins().ctl);
    command.args(["setup", "--user", "--secret-key", "-"]).args(QUIET).envs(env).current_dir(home.path());
    succeeds(&run(command, format!("{SECRET}\n").as_bytes()).0);
    assert_eq!(json_of(&home.path().join(".claude/settings.json"))["env"]["LANGFUSE_SECRET_KEY"], SECRET);
}

#[test]
fn setup_repeats_a_question_until_it_is_answered() {
    if !cfg!(target_os = "linux") || Command::new("script").arg("--version").output().is_err() {
        return say("SKIPPED setup_repeats_a_question_until_it_is_answered: needs script");
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
fn setup_installs_and_starts_the_service_and_uninstall_removes_it() {
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
fn the_service_uses_a_moved_state_directory() {
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
    // The socket's unit has the moved path.
    assert!(!units.join("cc-langfused.socket").exists());
    go(&["uninstall", "--yes", "--purge"]);
    assert_eq!(files(home.path()).len(), 1, "but for systemctl");
}

#[test]
fn setup_reports_a_service_that_does_not_start() {
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
fn the_secret_is_only_in_the_settings_file() {
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
    // A key with JSON escapes, one that it begins with under a duplicate name, and one in place of the address.
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
fn after_setup_for_an_otlp_receiver_a_turn_arrives_there() {
    let (home, server) = (Home::new(), Server::new());
    let dir = home.project("work");
    let endpoint = format!("{}/v1/traces", server.url);
    let header = [
        ("CC_LANGFUSE_OTLP_HEADERS", "x-api-key=canary-of-the-receiver"),
        ("CC_LANGFUSE_OTLP_DIALECT", "openinference"),
        ("CC_LANGFUSE_OTLP_NAME", " "),
    ];
    let setup = |address: &str, env: &[(&str, &str)]| {
        let mut command = home.command(&tests::bins().ctl);
        command.args(["setup", "--otlp", address, "--project", "--yes", "--no-service"]);
        command.envs(env.iter().copied()).current_dir(&dir);
        run(command, b"").0
    };
    let refused = setup("phoenix", &[]);
    assert!(refused.status.code() == Some(2) && text(&refused).contains("--otlp is not an address"), "{refused:?}");
    assert!(!dir.join(".claude").exists());
    let said = succeeds(&setup(&endpoint, &header));
    assert!(said.contains(&endpoint) && !said.contains("canary") && !said.contains("Langfuse counts"), "{said}");
    let settings = json_of(&dir.join(".claude/settings.local.json"));
    let env = settings["env"].as_object().expect("variables");
    assert!(!env.contains_key("TRACE_TO_LANGFUSE") && !env.contains_key("CC_LANGFUSE_OTLP_NAME"), "{settings}");
    assert_eq!(env["CC_LANGFUSE_OTLP_DIALECT"], "openinference");
    let env: Vec<_> =
        env.iter().map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect();
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &env);
    assert_eq!(server.wait_for(2).iter().filter(|span| span.is_root()).count(), 1);
    let sent = server.requests().into_iter().find(|request| !request.spans.is_empty()).expect("a batch");
    assert_eq!(sent.header("x-api-key"), Some("canary-of-the-receiver"), "{sent:?}");
    let doctor = ctl(&home, &dir, None, &["doctor", "--no-probe", "-v"]);
    assert!(text(&doctor).contains(&endpoint) && !text(&doctor).contains("canary"), "{}", text(&doctor));
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert!(!dir.join(".claude").exists());
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

    // Data is removed only on request, and after the daemon.
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert!(home.paths().database.exists() && !dir.join(".claude").exists());
    let mut daemon = daemon;
    let other = home.paths().state.join("notes");
    fs::write(&other, "of another program").expect("written");
    assert!(succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes", "--purge"])).contains("holds other files"));
    assert!(daemon.ended().success());
    assert!(files(&home.paths().state).iter().all(|(path, ..)| *path == other) && !home.paths().log.exists());
    fs::remove_file(&other).expect("it stayed");
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes", "--purge"]));
    assert!(!home.paths().state.exists());
}

#[test]
fn a_project_that_is_set_up_needs_no_keys_again() {
    for scope in ["--project", "--user"] {
        let home = Home::new();
        let (dir, file) = place(&home, scope, None);
        succeeds(&setup(&home, &dir, scope, &QUIET));
        let before = files(home.path());
        let again = |more: &[&str]| ctl(&home, &dir, None, &[&["setup", scope][..], &QUIET, more].concat());
        assert!(succeeds(&again(&[])).contains("nothing to change"));
        assert_eq!(files(home.path()), before);
        // The keys are those of one server.
        let output = again(&["--base-url", "https://other.example.org"]);
        let said = text(&output);
        assert!(output.status.code() == Some(2) && said.contains("--public-key, --secret-key"), "{said}");
        // Another public key is of another project of that server, with a secret of its own.
        let output = again(&["--public-key", "pk-lf-2"]);
        let said = text(&output);
        assert!(output.status.code() == Some(2) && said.contains("--secret-key"), "{said}");
        assert_eq!(files(home.path()), before);
        assert_eq!(json_of(&file)["env"]["LANGFUSE_SECRET_KEY"], SECRET);
    }
}
