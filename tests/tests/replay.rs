//! A replay that cannot arrive without the user's action reports that, and does not wait.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tests::{
    Answer, Home, Server, Story, bins,
    home::{run, settings},
    setup::git,
};

/// Far less than a replay waits for a server that is down.
const AT_ONCE: Duration = Duration::from_secs(15);

/// The message of a replay that fails at once.
fn fails(home: &Home, dir: &Path, path: &str, env: &[(String, String)]) -> String {
    let mut command = home.command(&bins().ctl);
    command.args(["replay", path]).envs(env.iter().cloned()).current_dir(dir);
    let started = Instant::now();
    let output = run(command, b"").0;
    let (took, said) = (started.elapsed(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.code() == Some(1) && took < AT_ONCE, "{took:?}: {output:?}");
    said
}

fn story(home: &Home, project: &str) -> String {
    let mut story = Story::new(home, project, "s");
    story.turn("question", "answer");
    story.path.to_str().expect("text").to_owned()
}

#[test]
fn a_replay_to_a_held_server_names_the_trust_command() {
    let (home, server) = (Home::new(), Server::new());
    let dir = home.project("repo");
    settings(&dir.join(".claude/settings.json"), &server.env());
    if git(&dir, &["init", "-q"]).is_none() {
        return;
    }
    git(&dir, &["add", ".claude/settings.json"]);
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "repo", "s");
    story.turn("question", "answer");
    home.hook(&story.stop("answer"), &server.env());
    home.status_until("the spans to be held", |status| status["destinations"][0]["state"] == "held");
    for _ in 0..2 {
        let said = fails(&home, &dir, story.path.to_str().expect("text"), &server.env());
        assert!(said.contains("held") && said.contains("cc-langfusectl trust"), "{said}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_replay_without_a_valid_key_names_what_is_missing() {
    let (home, server) = (Home::new(), Server::answering(|_| Answer::status(401)));
    let _daemon = home.daemon();
    let path = story(&home, "work");
    let keyless: Vec<_> = server.env().into_iter().filter(|(name, _)| name != "LANGFUSE_SECRET_KEY").collect();
    let said = fails(&home, home.path(), &path, &keyless);
    assert!(said.contains("parked") && said.contains("no secret key"), "{said}");
    let said = fails(&home, home.path(), &path, &server.env());
    assert!(said.contains("parked") && said.contains("401"), "{said}");
    // With another key that the server accepts, everything works.
    server.change(|_| Answer::ok());
    let other = tests::server::env(&server.url, "pk-lf-test", "sk-lf-other");
    let output = home.ctl_with(&["replay", &path], &other);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(server.spans().len(), 2);
}
