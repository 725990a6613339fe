//! Every state in which nothing is traced has its own finding in `doctor`, and a remedy that helps.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tests::{
    Answer, Home, Server, Story, bins,
    home::run,
    server,
    stage::{Seen, Stage},
};

/// Puts our plugin where Claude Code 2.1.332 has one that was added from the directory `from`.
fn install_plugin(stage: &Stage, from: &Path) {
    let name = "cc-langfuse@cc-langfuse";
    let plugins = stage.home.path().join(".claude/plugins");
    let copy = plugins.join("cache/cc-langfuse/cc-langfuse/0.1.0");
    for dir in [copy.join("hooks"), from.join(".claude-plugin")] {
        fs::create_dir_all(dir).expect("a directory");
    }
    fs::write(copy.join("hooks/hooks.json"), "{}").expect("written");
    fs::write(from.join(".claude-plugin/marketplace.json"), "{}").expect("written");
    let known = json!({"cc-langfuse": {"source": {"source": "directory", "path": from}, "installLocation": from}});
    fs::write(plugins.join("known_marketplaces.json"), known.to_string()).expect("written");
    let installed = json!({"version": 2, "plugins": {name: [{"scope": "user", "installPath": copy}]}});
    fs::write(plugins.join("installed_plugins.json"), installed.to_string()).expect("written");
    let settings: Value =
        serde_json::from_str(&fs::read_to_string(stage.user_settings()).expect("settings")).expect("JSON");
    let mut settings = settings;
    settings["enabledPlugins"] = json!({ name: true });
    stage.write_user(&settings.to_string());
}

#[test]
fn a_plugin_that_works_or_fails_to_load_or_doubles_the_hooks_is_told_apart() {
    let stage = Stage::running();
    let clone = stage.home.path().join("clone/plugin");
    install_plugin(&stage, &clone);
    let doctor = || stage.doctor(&["--no-probe"]);
    doctor().has("hook-events", "warning", "registered twice: by the plugin cc-langfuse@", "claude plugin disable");
    let both = fs::read_to_string(stage.user_settings()).expect("settings");
    stage.register(&[]);
    install_plugin(&stage, &clone);
    let seen = doctor();
    seen.has("hook-events", "ok", "registered by the plugin", "");
    seen.has("hook-program", "ok", "cc-langfuse-hook runs", "");
    assert_eq!(seen.failing(), Vec::<&str>::new(), "{}", seen.report);

    fs::rename(stage.home.path().join("clone"), stage.home.path().join("moved")).expect("moved");
    let seen = doctor();
    seen.has("hook-events", "problem", "fails to load: Claude Code runs no hook", "cc-langfusectl setup");
    seen.has("plugin", "warning", "no longer at", "claude plugin marketplace remove cc-langfuse, then add it");
    // With hooks of its own all is traced, and the plugin is still named.
    stage.write_user(&both);
    let seen = doctor();
    seen.has("hook-events", "ok", "on Stop", "");
    assert_eq!(seen.failing(), ["plugin"], "{}", seen.report);

    install_plugin(&stage, &clone);
    let plugins = stage.home.path().join(".claude/plugins");
    fs::remove_dir_all(plugins.join("cache")).expect("removed");
    doctor().has("plugin", "warning", "not installed", "claude plugin install cc-langfuse@cc-langfuse");
    fs::write(plugins.join("known_marketplaces.json"), "{}").expect("written");
    doctor().has("plugin", "warning", "knows no marketplace cc-langfuse", "claude plugin marketplace add");
    // A stronger file turns it off.
    fs::write(stage.project.join(".claude/settings.json"), r#"{"enabledPlugins":{"cc-langfuse@cc-langfuse":false}}"#)
        .expect("written");
    assert_eq!(doctor().failing(), Vec::<&str>::new());
}

#[test]
fn a_plugin_without_the_program_is_found() {
    let stage = Stage::running();
    stage.register(&[]);
    install_plugin(&stage, &stage.home.path().join("clone"));
    fs::remove_file(stage.hook()).expect("removed");
    stage.doctor(&["--no-probe"]).has(
        "hook-program",
        "problem",
        ".local/bin/cc-langfuse-hook does not exist",
        "install",
    );
}

#[test]
fn settings_of_the_git_root_count_below_it_and_in_its_linked_worktrees() {
    let stage = Stage::running();
    let (repo, tree) = (stage.project.clone(), stage.home.path().join("tree"));
    let sub = repo.join("a/b");
    fs::create_dir_all(&sub).expect("a directory");
    fs::create_dir_all(repo.join(".git/worktrees/tree")).expect("a directory");
    fs::write(repo.join(".git/worktrees/tree/commondir"), "../..\n").expect("written");
    fs::create_dir_all(&tree).expect("a directory");
    fs::write(tree.join(".git"), format!("gitdir: {}\n", repo.join(".git/worktrees/tree").display())).expect("written");
    // The hook is registered there too, and not by the user.
    let user = fs::read_to_string(stage.user_settings()).expect("settings");
    let mut local: Value = serde_json::from_str(&user).expect("JSON");
    local["env"] = stage.server.env().into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect();
    fs::write(repo.join(".claude/settings.local.json"), local.to_string()).expect("written");
    stage.write_user("{}");
    for dir in [&repo, &sub, &tree] {
        let seen = stage.doctor(&["--no-probe", "--project", dir.to_str().expect("text")]);
        seen.has("tracing", "ok", "settings.local.json", "");
        seen.has("hook-events", "ok", "on Stop", "");
        assert_eq!(seen.failing(), Vec::<&str>::new(), "{dir:?}: {}", seen.report);
    }
    let outside = stage.home.project("outside");
    let seen = stage.doctor(&["--no-probe", "--project", outside.to_str().expect("text")]);
    seen.has("tracing", "problem", "set nowhere", "setup");
}

#[test]
fn a_pause_is_named_with_the_command_that_ends_it() {
    let stage = Stage::running();
    for (args, remedy) in [
        (&["pause", "--all"][..], "cc-langfusectl resume --all".to_owned()),
        (
            &["pause", stage.project.to_str().expect("text")],
            format!("cc-langfusectl resume {}", stage.project.display()),
        ),
    ] {
        assert!(stage.home.ctl(args).status.success());
        let seen = stage.doctor(&["--no-probe"]);
        seen.has("pause", "warning", "is paused: what is said until you resume is never sent", &remedy);
        let words: Vec<&str> = remedy.split(' ').skip(1).collect();
        assert!(stage.home.ctl(&words).status.success(), "{remedy}");
        assert_eq!(stage.doctor(&["--no-probe"]).failing(), Vec::<&str>::new());
    }
}

#[test]
fn each_state_of_a_service_has_its_remedy() {
    let launchd = |agent: &str| format!("case $2 in */cc-langfused) {agent};; *) exit 0;; esac");
    let print = |state: &str, code: &str| {
        launchd(&format!("printf 'gui/0/cc-langfused = {{\\n\\tstate = {state}\\n\\tlast exit code = {code}\\n}}\\n'"))
    };
    let systemd = |active: &str| format!("printf 'LoadState=loaded\\nActiveState={active}\\nUnitFileState=enabled\\n'");
    for (is_running, program, script, state, seen, remedy) in [
        (false, "systemctl", systemd("failed"), "problem", "has failed", "systemctl --user status cc-langfused"),
        (true, "systemctl", systemd("active"), "ok", "enabled, active", ""),
        (true, "systemctl", systemd("failed"), "warning", "by hand", "cc-langfusectl restart"),
        (false, "launchctl", launchd("exit 113"), "warning", "launchd does not know", "cc-langfusectl setup"),
        (true, "launchctl", print("running", "(never exited)"), "ok", "running under launchd", ""),
        (true, "launchctl", print("not running", "0"), "warning", "by hand", "cc-langfusectl restart"),
        (false, "launchctl", print("spawn scheduled", "78: EX_CONFIG"), "problem", "ended with 78: EX_CONFIG", "logs"),
    ] {
        let stage = if is_running { Stage::running() } else { Stage::new() };
        stage.program(program, &script);
        stage.doctor(&["--no-probe"]).has("unit", state, seen, remedy);
    }
}

/// A server that answers the first bytes of each connection with `said`.
fn speaks(said: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = [0; 4096];
            let _ = stream.read(&mut bytes);
            let _ = stream.write_all(said);
        }
    });
    address.to_string()
}

#[test]
fn what_answers_in_the_place_of_the_server_has_its_own_remedy() {
    let of = |change: &dyn Fn(&Stage)| {
        let stage = Stage::new();
        change(&stage);
        stage.doctor(&["--no-probe"])
    };
    let answers = |answer: fn() -> Answer| of(&|stage| stage.server.change(move |_| answer()));
    let at = |url: String| of(&|stage| stage.home.settings("p", &server::env(&url, "pk-lf-test", "sk-lf-test")));
    let plain =
        format!("https://{}", speaks(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    let tls = format!(
        "http://{}",
        speaks(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 50\r\nConnection: close\r\n\r\nThe plain HTTP request was sent to HTTPS port.....")
    );
    let portal = || {
        Answer::ok()
            .header("content-type", "text/html")
            .body("<html><head><title>Hotel WiFi</title></head>sign in</html>")
    };
    for (what, seen, said, remedy) in [
        ("TLS to a plain port", at(plain), "does not speak TLS at that port", "to the port where it does"),
        ("plain to a TLS port", at(tls), "speaks TLS", "write https:// in LANGFUSE_BASE_URL"),
        ("429", answers(|| Answer::status(429)), "takes no more requests for now", "waits as long as the server asks"),
        ("503", answers(|| Answer::status(503)), "is not ready", "has started"),
        ("500", answers(|| Answer::status(500)), "is in trouble", "the log of the server"),
        ("a portal", answers(portal), "Hotel WiFi", "sign in to the network"),
        ("a portal that says so", answers(|| Answer::status(511)), "asks for a sign-in", "sign in to the network"),
        (
            "a redirect",
            answers(|| Answer::status(302).header("location", "http://portal.example/")),
            "redirect",
            "sign in there first",
        ),
    ] {
        let finding = seen.finding("server");
        assert_eq!(finding["state"], "problem", "{what}: {finding}");
        seen.has("server", "problem", said, remedy);
    }
}

#[test]
fn a_key_that_was_copied_badly_is_named() {
    let of = |public: &str, secret: &str| -> Seen {
        let stage = Stage::new();
        let mut env = stage.server.env();
        for (name, value) in &mut env {
            match name.as_str() {
                "LANGFUSE_PUBLIC_KEY" => *value = public.to_owned(),
                "LANGFUSE_SECRET_KEY" => *value = secret.to_owned(),
                _ => {}
            }
        }
        stage.home.settings("p", &env);
        stage.doctor(&["--no-probe"])
    };
    for (public, secret, state, seen, remedy) in [
        ("pk-lf-test", "\"sk-lf-test\"", "warning", "LANGFUSE_SECRET_KEY is in quotes", "remove the quotes"),
        ("'pk-lf-test'", "sk-lf-test", "warning", "LANGFUSE_PUBLIC_KEY is in quotes", "remove the quotes"),
        (
            "pk-lf-test",
            "sk-lf-\u{201c}test",
            "problem",
            "LANGFUSE_SECRET_KEY contains a character",
            "copy the key again",
        ),
        ("pk-lf-test", "sk-lf- test", "problem", "LANGFUSE_SECRET_KEY contains a character", "copy the key again"),
        ("pk-lf-test", "\"sk-lf-test", "problem", "LANGFUSE_SECRET_KEY contains a character", "copy the key again"),
        ("pk-lf-test", "sk-lf-test", "ok", "pk-lf-test, from", ""),
    ] {
        of(public, secret).has("keys", state, seen, remedy);
    }
}

#[test]
fn a_state_directory_that_is_not_used_is_named() {
    let stage = Stage::new();
    let mut command = stage.home.command(&bins().ctl);
    command.args(["doctor", "--json", "--no-probe"]).env("CC_LANGFUSE_STATE_DIR", "state").current_dir(&stage.project);
    let report: Value = serde_json::from_slice(&run(command, b"").0.stdout).expect("JSON");
    let found =
        report["findings"].as_array().expect("findings").iter().find(|found| found["check"] == "state-directory");
    let seen = found.and_then(|found| found["seen"].as_str()).unwrap_or_default();
    assert!(seen.contains("is state, which is not an absolute path"), "{report}");
}

#[test]
fn findings_are_shown_while_the_server_is_still_asked() {
    let stage = Stage::running();
    stage.server.change(|_| Answer::never());
    let mut command = stage.home.command(&bins().ctl);
    command.args(["doctor", "--no-probe"]).env("PATH", &stage.bin).current_dir(&stage.project);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("doctor");
    let mut seen = String::new();
    let mut out = child.stdout.take().expect("its output");
    let mut bytes = [0; 4096];
    while !seen.contains("configuration") {
        let n = out.read(&mut bytes).expect("read");
        assert!(n > 0, "it ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
    }
    assert!(child.try_wait().expect("asked").is_none() && !seen.contains("server "), "{seen}");
    child.kill().and_then(|()| child.wait()).expect("ended");
}

#[test]
fn status_ends_with_1_for_programs_too_while_there_is_a_problem() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let code = |args: &[&str]| home.ctl(args).status.code();
    assert_eq!((code(&["status"]), code(&["status", "--json"])), (Some(0), Some(0)));
    server.change(|_| Answer::status(401));
    let mut story = Story::new(&home, "p", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    home.status_until("it to be parked", |status| status["destinations"][0]["state"] == "parked");
    assert_eq!((code(&["status"]), code(&["status", "--json"])), (Some(1), Some(1)));
    let output = home.ctl(&["status", "--json"]);
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok(), "{output:?}");
    // The finding names the key that was refused, and what to do if it is gone.
    let output = home.ctl(&["doctor", "--no-probe"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("(pk-lf-test) is parked") && text.contains("destinations move langfuse-1"), "{text}");
}

#[test]
fn a_plain_registration_becomes_one_that_passes_where_the_program_is_gone() {
    let home = Home::new();
    let bin = home.install();
    let hook = bin.join("cc-langfuse-hook");
    let file = home.path().join(".claude/settings.json");
    fs::create_dir_all(home.path().join(".claude")).expect("a directory");
    let entry = |command: &str| json!([{"hooks": [{"type": "command", "command": command}]}]);
    let own = format!("CC_LANGFUSE_DEBUG=1 {}", hook.display());
    let before = json!({"hooks": {"Stop": entry(&hook.display().to_string()), "SessionEnd": entry(&own)}});
    fs::write(&file, before.to_string()).expect("written");
    let setup = || {
        let mut command = home.command(&bin.join("cc-langfusectl"));
        command.args(["setup", "--user", "--public-key", "pk-lf-test", "--secret-key", "sk-lf-test", "--yes"]);
        command.args(["--no-check", "--no-service"]).current_dir(home.path());
        let output = run(command, b"").0;
        assert!(output.status.success(), "{output:?}");
    };
    setup();
    let text = fs::read_to_string(&file).expect("settings");
    let settings: Value = serde_json::from_str(&text).expect("JSON");
    let command = |event: &str| settings["hooks"][event][0]["hooks"][0]["command"].as_str().expect("text").to_owned();
    assert_eq!(command("Stop"), format!("[ -x {0} ] && exec {0}; :", hook.display()));
    assert_eq!(command("SessionEnd"), own, "what people made their own stays");
    setup();
    assert_eq!(fs::read_to_string(&file).expect("settings"), text);
    fs::remove_file(&hook).expect("removed");
    let output = Command::new("sh").args(["-c", &command("Stop")]).output().expect("it runs");
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}
