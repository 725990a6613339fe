//! Settings, as a user meets them: the daemon's file, and what a project asks for.

use std::{fs, os::unix::fs::PermissionsExt};

use tests::{Home, Server, Story, bins, home::run};

/// Writes the configuration of `home`.
fn configure(home: &Home, text: &str) {
    let path = home.paths().config;
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(&path, text).expect("the configuration");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("its mode");
}

/// What the daemon says when it does not start.
fn refused(home: &Home) -> String {
    let (output, _) = run(home.command(&bins().daemon), b"");
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_configuration_that_is_wrong_stops_the_start_and_says_where() {
    let home = Home::new();
    let path = home.paths().config;
    for (text, parts) in [
        ("\noutbox_mb = 1", &["line 2", "unknown key `outbox_mb`, did you mean `outbox_mib`?"][..]),
        ("[[redact]]\nname = 'ticket'\npattern = '('", &["line 1", "\"ticket\"", "unclosed group"]),
        ("transcript_roots = ['/']", &["line 1", "`transcript_roots`"]),
    ] {
        configure(&home, text);
        let said = refused(&home);
        for part in parts.iter().copied().chain([path.to_str().expect("text"), "mend"]) {
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
fn a_rule_of_ones_own_masks_from_the_hook_to_the_server() {
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
fn a_project_that_sends_no_text_sends_sizes() {
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
