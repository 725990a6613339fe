//! Which MLflow servers are trusted, and which client certificate they get, follows the variables of MLflow's own
//! client, if the user has set them.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use rustls::version::TLS13;
use tests::{Authority, Home, Identity, Server, Story, home};

const SERVER: &str = "MLFLOW_TRACKING_SERVER_CERT_PATH";
const CLIENT: &str = "MLFLOW_TRACKING_CLIENT_CERT_PATH";
const INSECURE: &str = "MLFLOW_TRACKING_INSECURE_TLS";

fn env(url: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let all = [("MLFLOW_CLAUDE_TRACING_ENABLED", "true"), ("MLFLOW_TRACKING_URI", url)];
    all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// One turn of `session` in `project`.
fn play_turn(home: &Home, project: &str, session: &str, env: &[(String, String)]) {
    let mut story = Story::new(home, project, session);
    story.turn("question", "answer");
    home.hook(&story.stop("answer"), env);
}

fn file(home: &Home, name: &str, text: &str) -> String {
    let path = home.path().join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    path.to_str().expect("UTF-8").to_owned()
}

fn secure(identity: &Identity) -> Server {
    Server::secure(([127, 0, 0, 1], 0).into(), identity, &TLS13)
}

/// The error of the destination at `url`, which gets nothing.
fn parked(home: &Home, url: &str) -> String {
    let of = |status: &serde_json::Value| {
        let all = status["destinations"].as_array().expect("a list");
        all.iter().find(|to| to["base_url"] == url && to["state"] == "parked").cloned()
    };
    let status = home.status_until("it to be parked", |status| of(status).is_some());
    of(&status).expect("it is parked")["last_error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_users_own_authority_can_be_a_file_or_a_directory() {
    let home = Home::new();
    let _daemon = home.daemon();
    let ours = Authority::new("ours");
    let bundle = file(&home, "bundle.pem", &[Authority::new("other").pem(), ours.pem()].concat());
    let of_dir = PathBuf::from(file(&home, "certificates/ours.pem", &ours.pem()));
    file(&home, "certificates/README", "none");
    let dir = of_dir.parent().and_then(|dir| dir.to_str()).expect("UTF-8").to_owned();
    let identity = ours.certify("127.0.0.1");
    for (name, path) in [("file", &*bundle), ("directory", &*dir), ("home", "~/bundle.pem")] {
        let server = secure(&identity);
        play_turn(&home, "app", &format!("{name}-without"), &env(&server.url, &[]));
        let why = parked(&home, &server.url);
        assert!(why.contains("UnknownIssuer") && why.contains(SERVER), "{why}");
        // Waiting spans are sent too: it is the same destination.
        play_turn(&home, "app", name, &env(&server.url, &[(SERVER, path)]));
        home.flush();
        assert_eq!(server.spans().len(), 4, "{name}");
        drop(server);
    }
}

#[test]
fn the_users_own_authority_replaces_all_others() {
    let home = Home::new();
    let ours = Authority::new("ours");
    let trusted = file(&home, "ours.pem", &ours.pem());
    let other = file(&home, "other.pem", &Authority::new("other").pem());
    let _daemon = home.daemon_with(&[("NODE_EXTRA_CA_CERTS", &trusted)]);
    let server = secure(&ours.certify("127.0.0.1"));
    play_turn(&home, "app", "one", &env(&server.url, &[(SERVER, &other)]));
    assert!(parked(&home, &server.url).contains("UnknownIssuer"));
    // An event without the variable takes the setting back.
    play_turn(&home, "app", "two", &env(&server.url, &[]));
    home.flush();
    assert_eq!(server.spans().len(), 4);
}

#[test]
fn a_server_that_asks_for_a_client_certificate_gets_the_users() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (ours, clients) = (Authority::new("ours"), Authority::new("clients"));
    let server = Server::secure_for(&ours.certify("127.0.0.1"), &clients);
    let authority = file(&home, "ours.pem", &ours.pem());
    let identity = clients.certify("client.example.org");
    let good = file(&home, "client.pem", &[identity.pem(), identity.key_pem()].concat());
    let turned = file(&home, "turned.pem", &[identity.key_pem(), identity.pem()].concat());
    let own = |path: &str| env(&server.url, &[(SERVER, &authority), (CLIENT, path)]);
    let bare = file(&home, "bare.pem", &identity.pem());
    let key = file(&home, "key.pem", &identity.key_pem());
    for (name, path, part) in [
        ("none", "/nowhere/client.pem", "is missing"),
        ("bare", &*bare, "has no key"),
        ("key", &*key, "has no certificate"),
        ("relative", "client.pem", "write the whole path"),
    ] {
        play_turn(&home, "app", name, &own(path));
        let said = |status: &serde_json::Value| {
            let why = status["destinations"][0]["last_error"].as_str().unwrap_or_default();
            why.contains(CLIENT) && why.contains(part)
        };
        home.status_until(part, said);
    }
    assert_eq!(server.requests().len(), 0);
    play_turn(&home, "app", "good", &own(&good));
    home.flush();
    assert_eq!(server.spans().len(), 10);
    play_turn(&home, "app", "turned", &own(&turned));
    home.flush();
    assert_eq!(server.spans().len(), 12);
}

#[test]
fn certificate_files_that_others_can_change_or_that_are_empty_are_not_used() {
    let home = Home::new();
    let _daemon = home.daemon();
    let ours = Authority::new("ours");
    let identity = ours.certify("127.0.0.1");
    let server = secure(&identity);
    let writable = file(&home, "writable.pem", &ours.pem());
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o666)).expect("set");
    let empty = file(&home, "empty.pem", "");
    let text = file(&home, "text.pem", "no certificate");
    let broken = file(&home, "broken.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let none = home.path().join("none");
    fs::create_dir(&none).expect("made");
    for (name, path, part) in [
        ("writable", &*writable, "chmod go-w"),
        ("empty", &*empty, "no certificate"),
        ("text", &*text, "no certificate"),
        ("broken", &*broken, "is no PEM"),
        ("missing", "/nowhere/ca.pem", "is missing"),
        ("fifo", "/dev/null", "is no file"),
        ("none", none.to_str().expect("UTF-8"), "no certificate"),
        ("relative", "ca.pem", "write the whole path"),
    ] {
        play_turn(&home, "app", name, &env(&server.url, &[(SERVER, path)]));
        let said = |status: &serde_json::Value| {
            let why = status["destinations"][0]["last_error"].as_str().unwrap_or_default();
            status["destinations"][0]["state"] == "parked" && why.contains(SERVER) && why.contains(part)
        };
        home.status_until(&format!("{name}: {part}"), said);
    }
    let good = file(&home, "good.pem", &ours.pem());
    play_turn(&home, "app", "insecure-too", &env(&server.url, &[(SERVER, &good), (INSECURE, "true")]));
    home.status_until("both to be one too many", |status| {
        status["destinations"][0]["last_error"].as_str().is_some_and(|why| why.contains("remove one of them"))
    });
    assert_eq!(server.requests().len(), 0);
    play_turn(&home, "app", "good", &env(&server.url, &[(SERVER, &good)]));
    home.flush();
    assert_eq!(server.spans().len(), 20);
}

#[test]
fn only_the_user_can_turn_off_the_certificate_check() {
    let home = Home::new();
    let _daemon = home.daemon();
    let identity = Authority::new("nobody").certify("elsewhere.example.org");
    let (server, other) = (secure(&identity), secure(&identity));
    play_turn(&home, "app", "off", &env(&server.url, &[(INSECURE, "false")]));
    parked(&home, &server.url);
    play_turn(&home, "app", "on", &env(&server.url, &[(INSECURE, "true")]));
    home.flush();
    assert_eq!(server.spans().len(), 4);
    play_turn(&home, "app", "other", &env(&other.url, &[]));
    parked(&home, &other.url);
    let said = home.ctl_with(&["doctor", "--no-probe", "--project", "app"], &env(&server.url, &[(INSECURE, "true")]));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains(INSECURE) && said.contains(SERVER), "{said}");
    // Without it, nothing more is sent.
    play_turn(&home, "app", "off-again", &env(&server.url, &[]));
    parked(&home, &server.url);
    assert_eq!((server.spans().len(), other.requests().len()), (4, 0));
}

#[test]
fn tls_settings_of_a_repository_are_ignored_even_for_a_trusted_server() {
    let home = Home::new();
    let mut daemon = home.daemon();
    let ours = Authority::new("ours");
    let server = secure(&ours.certify("127.0.0.1"));
    let authority = file(&home, "ours.pem", &ours.pem());
    let project = home.project("app");
    let shared = |vars: &[(&str, &str)]| {
        let vars: Vec<_> = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        home::settings(&project.join(".claude/settings.json"), &vars);
    };
    for (number, name) in [SERVER, INSECURE].into_iter().enumerate() {
        let value = if name == SERVER { &*authority } else { "true" };
        shared(&[(name, value)]);
        home.settings("app", &env(&server.url, &[]));
        play_turn(&home, "app", &format!("shared-{number}"), &env(&server.url, &[(name, value)]));
        assert!(parked(&home, &server.url).contains("UnknownIssuer"));
        // Also after a restart, when only the settings files have it.
        drop(daemon);
        daemon = home.daemon();
        assert!(parked(&home, &server.url).contains("UnknownIssuer"));
        assert_eq!(home.ctl(&["trust", &server.url, "0"]).status.code(), Some(0));
        play_turn(&home, "app", &format!("trusted-{number}"), &env(&server.url, &[(name, value)]));
        assert!(parked(&home, &server.url).contains("UnknownIssuer"));
        let said = home.ctl(&["doctor", "--no-probe", "--project", project.to_str().expect("UTF-8")]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(&format!("{name} stands in a file that others can write")), "{said}");
    }
    assert_eq!(server.requests().len(), 0);
    // The user's own value beside it is used.
    home.settings("app", &env(&server.url, &[(SERVER, &authority)]));
    shared(&[(SERVER, "/elsewhere/ca.pem")]);
    play_turn(&home, "app", "own", &env(&server.url, &[(SERVER, &authority)]));
    home.flush();
    assert_eq!(server.spans().len(), 10);
    drop(daemon);
}

#[test]
fn after_a_restart_or_a_spool_the_certificate_files_come_from_the_users_settings() {
    let home = Home::new();
    let ours = Authority::new("ours");
    let server = secure(&ours.certify("127.0.0.1"));
    let authority = file(&home, "ours.pem", &ours.pem());
    let own = env(&server.url, &[(SERVER, &authority), ("MLFLOW_TRACKING_TOKEN", "t-1")]);
    home.settings("app", &own);
    play_turn(&home, "app", "spooled", &own);
    let spooled: Vec<u8> = home.spooled().iter().flat_map(|path| fs::read(path).expect("a file")).collect();
    assert!(!String::from_utf8_lossy(&spooled).contains("ours.pem"));
    let _daemon = home.daemon();
    home.flush();
    assert_eq!(server.spans().len(), 2);
    assert_eq!(server.requests()[0].header("authorization"), Some("Bearer t-1"));
}

#[test]
fn a_destination_in_config_toml_can_have_certificate_files() {
    let home = Home::new();
    let ours = Authority::new("ours");
    let server = secure(&ours.certify("127.0.0.1"));
    let authority = file(&home, "ours.pem", &ours.pem());
    home.configure(&format!(
        "[[destination]]\nname = 'team'\nkind = 'mlflow'\naddress = '{}'\n{SERVER} = '{authority}'\n",
        server.url
    ));
    let _daemon = home.daemon();
    play_turn(&home, "app", "s", &[("CC_LANGFUSE_TRACE".to_owned(), "true".to_owned())]);
    home.flush();
    assert_eq!(server.spans().len(), 2);
}
