//! Settings for users: the daemon's file, and a project's options.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use tests::{
    Home, Server, Story, bins,
    home::{run, settings},
    say,
};

/// Writes the configuration of `home`.
fn configure(home: &Home, text: &str) {
    let path = home.paths().config;
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(&path, text).expect("the configuration");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("its mode");
}

/// The message of a daemon that does not start.
fn refused(home: &Home) -> String {
    let (output, _) = run(home.command(&bins().daemon), b"");
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn an_invalid_configuration_stops_the_start_and_names_the_line() {
    let home = Home::new();
    let path = home.paths().config;
    for (text, parts) in [
        ("\noutbox_mb = 1", &["line 2", "unknown key `outbox_mb`, did you mean `outbox_mib`?"][..]),
        ("[[redact]]\nname = 'ticket'\npattern = '('", &["line 1", "\"ticket\"", "unclosed group"]),
        ("transcript_roots = ['/']", &["line 1", "`transcript_roots`"]),
    ] {
        configure(&home, text);
        let said = refused(&home);
        for part in parts.iter().copied().chain([path.to_str().expect("text"), "fix"]) {
            assert!(said.contains(part), "{said}");
            assert!(home.log().contains(part), "{}", home.log());
        }
        let shown = home.ctl(&["show", "/nowhere.jsonl"]);
        assert_eq!(shown.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&shown.stderr).contains(parts[1]), "{shown:?}");
    }
    configure(&home, "");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("its mode");
    assert!(refused(&home).contains("chmod go-w"));
    configure(&home, "outbox_mib = 1");
    home.daemon();
}

#[test]
fn a_custom_rule_masks_in_what_is_stored_and_sent() {
    let home = Home::new();
    configure(&home, "[[redact]]\nname = 'ticket'\npattern = 'TICKET-[0-9]{6}'\n");
    let server = Server::new();
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "p", "s");
    story.prompt("look at TICKET-123456").tool("TICKET-654321 is open, TICKET-1 is not").answer("done");
    home.hook(&story.stop("done"), &server.env());
    home.flush();
    let sent = format!("{:?}", server.spans());
    assert!(sent.contains("look at [REDACTED:ticket]"), "{sent}");
    assert!(sent.contains("[REDACTED:ticket] is open, TICKET-1 is not"), "{sent}");
    assert!(!sent.contains("123456") && !sent.contains("654321"), "{sent}");
    assert!(home.status()["redacted"]["ticket"].as_u64().is_some(), "{}", home.status());

    let shown = home.ctl(&["show", "--json", story.path.to_str().expect("text")]);
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.contains("look at [REDACTED:ticket]") && !shown.contains("123456"), "{shown}");
}

#[test]
fn show_has_the_semantics_of_the_sessions_project() {
    let home = Home::new();
    let mut story = Story::new(&home, "p", "s");
    story.prompt("q").tool("one").tool("two").answer("done");
    let starts = || {
        let shown = home.ctl(&["show", "--json", story.path.to_str().expect("text")]);
        let spans: Vec<serde_json::Value> = serde_json::from_slice(&shown.stdout).expect("JSON");
        spans.iter().map(|span| (span["start_ns"].clone(), span["end_ns"].clone())).collect::<Vec<_>>()
    };
    let spec = starts();
    home.settings("p", &[("CC_LANGFUSE_SEMANTICS".to_owned(), "measured".to_owned())]);
    assert_ne!(starts(), spec);
    home.settings("p", &[("CC_LANGFUSE_SEMANTICS".to_owned(), "spec".to_owned())]);
    assert_eq!(starts(), spec);
    // For people a call takes as long as it took.
    let shown = home.ctl(&["show", story.path.to_str().expect("text")]);
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(!shown.lines().any(|line| line.contains("generation") && line.contains(" 0 ms")), "{shown}");
}

#[test]
fn a_project_in_metadata_mode_sends_sizes() {
    let home = Home::new();
    let server = Server::new();
    let _daemon = home.daemon();
    let mut env = server.env();
    env.push(("CC_LANGFUSE_CAPTURE".to_owned(), "metadata".to_owned()));
    let mut story = Story::new(&home, "work", "s");
    story.prompt("confidential question").tool("confidential file").thinking("confidentially").rest("confidential");
    home.hook(&story.stop("confidential"), &env);
    home.flush();
    let spans = server.spans();
    assert_eq!(spans.len(), 4);
    assert!(!format!("{spans:?}").contains("confidential"), "{spans:?}");
    let root = spans.iter().find(|span| span.is_root()).expect("the root");
    assert_eq!((root.content("input"), root.content("output")), ("[21 characters]".into(), "[12 characters]".into()));
    let tool = spans.iter().find(|span| span.name == "Bash").expect("the tool");
    assert_eq!(tool.observation("output"), "[17 characters]");
}

/// The output of `config --json` in `dir`.
fn effective(home: &Home, dir: &Path, env: &[(&str, &str)]) -> Value {
    let mut command = home.command(&bins().ctl);
    command.args(["config", "--json"]).current_dir(dir).envs(env.iter().copied());
    let (output, _) = run(command, b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn every_setting_is_shown_with_its_source() {
    let home = Home::new();
    let (project, user) = (home.project("p"), home.path().join(".claude/settings.json"));
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    settings(
        &user,
        &own(&[("LANGFUSE_PUBLIC_KEY", "pk-u"), ("LANGFUSE_SECRET_KEY", "sk-hidden"), ("LANGFUSE_RELEASE", "1")]),
    );
    home.settings(
        "p",
        &own(&[("TRACE_TO_LANGFUSE", "true"), ("LANGFUSE_PUBLIC_KEY", "pk-p"), ("LANGFUSE_RELEASE", "")]),
    );
    configure(&home, "# mine\noutbox_mib = 3\n[[redact]]\nname = 'ticket'\npattern = 'T-[0-9]+'\n");
    let shown = effective(&home, &project, &[("LANGFUSE_USER_ID", "me"), ("LANGFUSE_PUBLIC_KEY", "pk-e")]);
    let file = home.paths().config;
    let at = |line: u64| json!({"file": file, "line": line});
    assert_eq!(shown["daemon"]["outbox_mib"], json!({"value": 3, "place": at(2)}));
    assert_eq!(shown["daemon"]["transcript_roots"], json!({"value": [], "place": null}));
    let rule = json!({"name": "ticket", "pattern": "T-[0-9]+"});
    assert_eq!(shown["daemon"]["redact"], json!([{"value": rule, "place": at(3)}]));
    let local = project.join(".claude/settings.local.json");
    let found = shown["project"]["settings"].as_array().expect("a list");
    for (name, value, from) in [
        ("TRACE_TO_LANGFUSE", json!("true"), json!(local)),
        ("LANGFUSE_PUBLIC_KEY", json!("pk-p"), json!(local)),
        ("LANGFUSE_SECRET_KEY", json!("set, not shown"), json!(user)),
        ("LANGFUSE_RELEASE", json!(null), json!(null)),
        ("LANGFUSE_USER_ID", json!("me"), json!("environment")),
        ("LANGFUSE_BASE_URL", json!("https://cloud.langfuse.com"), json!(null)),
    ] {
        let setting = found.iter().find(|setting| setting["name"] == name).expect("the setting");
        assert_eq!((&setting["value"], &setting["from"]), (&value, &from), "{name}");
    }
    let mut command = home.command(&bins().ctl);
    command.arg("config").current_dir(&project);
    let text = String::from_utf8(run(command, b"").0.stdout).expect("text");
    for part in
        ["~/.config/cc-langfuse/config.toml:2", "~/p/.claude/settings.local.json", "ticket: T-[0-9]+", "default"]
    {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(!format!("{shown}{text}").contains("sk-hidden"), "{text}");
}

#[test]
fn the_administrators_file_is_below_every_users() {
    let test = "the_administrators_file_is_below_every_users";
    let home = Home::new();
    // A namespace with an /etc of its own, where the user who runs this is root.
    let with = |fleet: &str, program: &Path, args: &[&str]| {
        let file = home.path().join("fleet.toml");
        fs::write(&file, fleet).expect("the administrator's file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("its mode");
        let script = "mount -t tmpfs none /etc && mkdir /etc/cc-langfuse && cp -p \"$0\" /etc/cc-langfuse/config.toml || exit 77; exec \"$@\"";
        let mut command = home.command(Path::new("unshare"));
        command.args(["-rm", "sh", "-c", script]).arg(&file).arg(program).args(args);
        run(command, b"").0
    };
    let can = std::process::Command::new("unshare").args(["-rm", "sh", "-c", "mount -t tmpfs none /etc"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return say(&format!("SKIPPED {test}: needs user namespaces"));
    }
    let fleet = "outbox_mib = 7\ntranscript_roots = ['/srv/fleet']\n[[redact]]\nname = 'badge'\npattern = 'B-[0-9]+'\n";
    configure(&home, "outbox_mib = 9\n[[redact]]\nname = 'ticket'\npattern = 'T-[0-9]+'\n");
    let output = with(fleet, &bins().ctl, &["config", "--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(
        (&shown["daemon"]["outbox_mib"]["value"], &shown["daemon"]["outbox_mib"]["place"]["line"]),
        (&json!(9), &json!(1))
    );
    let roots = &shown["daemon"]["transcript_roots"];
    assert_eq!(roots["value"], json!(["/srv/fleet"]));
    assert_eq!(roots["place"], json!({"file": "/etc/cc-langfuse/config.toml", "line": 2}));
    let names: Vec<_> =
        shown["daemon"]["redact"].as_array().expect("rules").iter().map(|rule| &rule["value"]["name"]).collect();
    assert_eq!(names, ["badge", "ticket"]);
    // The rules of both files mask.
    let mut story = Story::new(&home, "p", "s");
    story.turn("look at B-1 and T-2", "done");
    let output = with(fleet, &bins().ctl, &["show", "--json", story.path.to_str().expect("text")]);
    let spans = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(spans.contains("look at [REDACTED:badge] and [REDACTED:ticket]"), "{output:?}");
    // An error in it stops the daemon, which names it.
    let output = with("outbox_mb = 1", &bins().daemon, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/etc/cc-langfuse/config.toml: line 1: unknown key `outbox_mb`"), "{said}");
}
