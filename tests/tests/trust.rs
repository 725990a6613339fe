//! A repository cannot choose where its readers' conversations go.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use tests::{Answer, Home, MediaApi, Server, Story, home::settings, ids, say, server};

/// Runs git in `dir`; false where there is no git.
fn git(home: &Home, dir: &Path, args: &[&str]) -> bool {
    let Ok(output) = Command::new("git").current_dir(dir).env("HOME", home.path()).args(args).output() else {
        say("skipped: no git here");
        return false;
    };
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// A project in a repository that tracks a `.claude/settings.json` with this `env` block.
fn repository(home: &Home, env: &[(String, String)]) -> bool {
    let dir = home.project("repo");
    settings(&dir.join(".claude/settings.json"), env);
    git(home, &dir, &["init", "-q"]) && git(home, &dir, &["add", ".claude/settings.json"])
}

fn of(names: &[&str], env: &[(String, String)]) -> Vec<(String, String)> {
    env.iter().filter(|(name, _)| names.contains(&name.as_str())).cloned().collect()
}

fn held(status: &Value) -> bool {
    status["destinations"][0]["state"] == "held"
}

/// Images go to the same server as spans.
fn image() -> Value {
    json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJDRA=="}}])
}

#[test]
fn spans_wait_for_the_users_trust_if_a_repository_names_the_server() {
    let all = ["TRACE_TO_LANGFUSE", "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY", "LANGFUSE_BASE_URL"];
    // The variables that the repository sets; the user's own settings have the rest.
    for by_repository in [&all[..], &["LANGFUSE_BASE_URL"]] {
        let (home, media) = (Home::new(), MediaApi::default());
        let uploads = media.clone();
        let stranger = Server::answering(move |request| media.answer(request));
        let env = stranger.env();
        if !repository(&home, &of(by_repository, &env)) {
            return;
        }
        let rest: Vec<(String, String)> =
            env.iter().filter(|(name, _)| !by_repository.contains(&name.as_str())).cloned().collect();
        settings(&home.path().join(".claude/settings.json"), &rest);
        let mut daemon = home.daemon();
        let mut story = Story::new(&home, "repo", "s");
        story.prompt_of(&image()).answer("a1");
        // Claude Code gives all of them to its hooks.
        home.hook(&story.stop("a1"), &env);
        let status = home
            .status_until("the spans to be held", |status| held(status) && status["destinations"][0]["waiting"] == 2);
        let why = status["destinations"][0]["last_error"].as_str().expect("why").to_owned();
        let file = home.path().join("repo/.claude/settings.json");
        let command = format!("cc-langfusectl trust {} pk-", stranger.url);
        assert!(why.contains(file.to_str().expect("text")) && why.contains(&command), "{why}");
        let printed = home.ctl(&["status"]);
        let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
        assert!(printed.contains("held") && printed.contains(&command), "{printed}");
        // Neither waiting, nor a restart, nor trust in another server changes that.
        assert_eq!(home.ctl(&["flush", "--timeout", "500ms"]).status.code(), Some(1));
        assert_eq!(home.ctl(&["trust", "https://langfuse.example.org"]).status.code(), Some(1), "which account?");
        assert_eq!(home.ctl(&["trust", "https://langfuse.example.org", "pk-lf-1"]).status.code(), Some(0));
        assert_eq!(home.ctl(&["trust", &stranger.url, "pk-other"]).status.code(), Some(0));
        assert_eq!(home.ctl(&["trust", "no address"]).status.code(), Some(1));
        daemon.kill();
        daemon = home.daemon();
        home.hook(&story.stop("a1"), &env);
        assert_eq!(home.ctl(&["flush", "--timeout", "500ms"]).status.code(), Some(1));
        home.status_until("the spans to be held", held);
        assert_eq!(stranger.requests().len(), 0);

        // All spellings of an address are the same.
        assert_eq!(home.ctl(&["trust", &format!("{}/", stranger.url)]).status.code(), Some(0));
        home.flush();
        assert_eq!((stranger.spans().len(), ids(&stranger.spans()).len()), (2, 2));
        daemon.kill();
        daemon = home.daemon();
        story.turn("q2", "a2");
        home.hook(&story.stop("a2"), &env);
        home.flush();
        assert_eq!((stranger.spans().len(), ids(&stranger.spans()).len()), (4, 4));
        // Trust also holds while the server accepts no spans.
        stranger.change(|request| match request.method.as_str() {
            "GET" => Answer::ok().body(r#"{"data":[{"id":"p1","name":"P"}]}"#),
            _ => Answer::status(503),
        });
        story.turn("q", "a");
        home.hook(&story.stop("a"), &env);
        home.status_until("the server to be out of time", |status| status["destinations"][0]["state"] == "retrying");
        let opened = home.ctl(&["open", "s", "--print"]);
        assert_eq!(opened.status.code(), Some(0), "{opened:?}");
        stranger.change(move |request| uploads.answer(request));
        home.flush();
        assert_eq!((stranger.spans().len(), ids(&stranger.spans()).len()), (6, 6));

        assert_eq!(home.ctl(&["trust", &stranger.url, "--revoke"]).status.code(), Some(0));
        let requests = stranger.requests().len();
        for restart in [false, true] {
            if restart {
                daemon.kill();
                daemon = home.daemon();
            }
            story.prompt_of(&image()).answer("a3");
            home.hook(&story.stop("a3"), &env);
            home.status_until("the spans to be held again", held);
        }
        assert_eq!(stranger.requests().len(), requests);
        assert_eq!(home.ctl(&["trust", &stranger.url]).status.code(), Some(0));
        home.flush();
        assert_eq!((stranger.spans().len(), ids(&stranger.spans()).len()), (10, 10));
        drop(daemon);
    }
}

#[test]
fn the_users_own_destination_is_used_at_once_in_any_repository() {
    let (home, server) = (Home::new(), Server::new());
    let harmless = [("EDITOR".to_owned(), "vi".to_owned())];
    if !repository(&home, &harmless) {
        return;
    }
    let mut daemon = home.daemon();
    // By the environment only.
    let mut story = Story::new(&home, "repo", "s");
    story.turn("q1", "a1");
    home.hook(&story.stop("a1"), &server.env());
    server.wait_for(2);
    // By an untracked file that also has the server; after a restart only the file has it.
    home.settings("repo", &server.env());
    story.turn("q2", "a2");
    home.hook(&story.stop("a2"), &server.env());
    home.flush();
    daemon.kill();
    daemon = home.daemon();
    let keyless: Vec<_> = server.env().into_iter().filter(|(name, _)| name != "LANGFUSE_SECRET_KEY").collect();
    story.turn("q3", "a3");
    home.hook(&story.stop("a3"), &keyless);
    server.wait_for(6);
    // Another project beside that repository is not held, either.
    let other = Server::new();
    let env = server::env(&other.url, "pk-other", "sk-other");
    settings(&home.path().join(".claude/settings.json"), &env);
    let mut next = Story::new(&home, "plain", "t");
    next.turn("q", "a");
    home.hook(&next.stop("a"), &env);
    other.wait_for(2);
    home.flush();
    assert_eq!((server.spans().len(), other.spans().len()), (6, 2));
    drop(daemon);
}
