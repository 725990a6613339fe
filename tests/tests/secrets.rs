//! No secret is in anything that is written, printed or sent, except in the one header it is for.

use std::{
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tests::{Answer, Daemon, Home, Request, Server, Story, bins, home, server};

/// 32 random hex digits.
fn canary() -> String {
    let half = || RandomState::new().hash_one(0);
    format!("{:016x}{:016x}", half(), half())
}

fn contains(bytes: &[u8], what: &str) -> bool {
    bytes.windows(what.len()).any(|window| window == what.as_bytes())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let kind = entry.file_type().expect("its kind");
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// Texts that must not be found, each with its name.
struct Canaries(Vec<(String, String)>);

impl Canaries {
    /// Adds a new one.
    fn add(&mut self, what: &str) -> String {
        let canary = canary();
        self.0.push((what.to_owned(), canary.clone()));
        canary
    }

    fn look(&self, place: &str, bytes: &[u8]) {
        for (what, canary) in &self.0 {
            assert!(!contains(bytes, canary), "{what} is in {place}");
        }
    }

    /// Searches everything under `home` that the test did not write itself, and the output of the programs.
    fn look_around(&self, when: &str, home: &Home, said: &[PathBuf]) {
        let own = |path: &Path| path.ends_with("settings.local.json") || path.extension().is_some_and(|e| e == "jsonl");
        let found: Vec<PathBuf> = files(home.path()).into_iter().filter(|path| !own(path)).collect();
        assert!(!found.is_empty(), "{when}");
        for path in found.iter().chain(said) {
            // A file may disappear while it is examined.
            self.look(&format!("{when}: {}", path.display()), &fs::read(path).unwrap_or_default());
        }
    }

    fn ask(&self, when: &str, home: &Home) {
        for args in [&["status"][..], &["status", "--json"], &["dead-letters"], &["dead-letters", "--json"]] {
            let output = home.ctl(args);
            // 1 if there is a problem, which status then names.
            assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
            self.look(&format!("{when}: {args:?}"), &output.stdout);
            self.look(&format!("{when}: {args:?}"), &output.stderr);
        }
        self.look(&format!("{when}: /metrics"), home.ask("/metrics").as_bytes());
    }
}

/// A daemon with the most detailed log, and its output.
fn talkative(home: &Home, said: &Path, env: &[(&str, &str)]) -> Daemon {
    let mut command: Command = home.command(&bins().daemon);
    let open = |name: &str| File::options().append(true).create(true).open(said.join(name)).expect("a file");
    command.envs([("CC_LANGFUSE_DEBUG", "true"), ("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")]);
    command.envs(env.iter().copied()).stdout(open("stdout")).stderr(open("stderr"));
    let mut daemon = Home::spawn(command);
    home.wait_for(&mut daemon);
    daemon
}

#[test]
fn a_secret_leaves_memory_only_in_the_header_for_its_own_server() {
    let home = Home::new();
    let elsewhere = tempfile::tempdir().expect("a directory");
    let said = [elsewhere.path().join("stdout"), elsewhere.path().join("stderr")];
    let mut canaries = Canaries(Vec::new());
    let [key, outdone] = ["the key", "the key that is outdone"].map(|what| format!("sk-lf-{}", canaries.add(what)));
    let pair = |key: &str| STANDARD.encode(format!("pk-lf-test:{key}"));
    for (what, key) in [("the header", &key), ("the outdone header", &outdone)] {
        canaries.0.push((what.to_owned(), pair(key)));
        canaries.0.push((format!("{what} alone"), STANDARD.encode(key).trim_end_matches('=').to_owned()));
    }

    let stranger = Server::new();
    // A server that repeats what it was sent, in every form.
    let (echoed, pair_sent) = (key.clone(), pair(&key));
    let echo = move |status: u16| {
        let body = format!("no {echoed}, nor Basic {pair_sent}");
        move |_: &Request| Answer::status(status).body(&body).header("retry-after", "0")
    };
    let server = Server::answering(echo(401));

    let url = server.url.replace("://", &format!("://user:{}@", canaries.add("the address's password")));
    let mut env = server::env(&url, "pk-lf-test", &outdone);
    env.push(("CC_LANGFUSE_SECRET_KEY".into(), key.clone()));
    env.push(("CC_LANGFUSE_DEBUG".into(), "true".into()));
    for name in ["ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "OPENAI_API_KEY"] {
        env.push((name.into(), canaries.add(name)));
    }
    for number in 0..45 {
        let name =
            ["LANGFUSE_ADMIN", "CC_LANGFUSE_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "DATABASE_URL", "HOOK"][number % 5];
        let name = format!("{name}_{number}");
        env.push((name.clone(), canaries.add(&name)));
    }
    let mut story = Story::new(&home, "work", "s");
    let [prompted, printed] = ["the prompt's password", "the tool's password"].map(|what| canaries.add(what));
    let answered = canary();
    let answer = format!("It is password: \"{answered}\".");
    story.prompt(&format!("log in with password={prompted} please"));
    story.tool(&format!("export DB_PASSWORD={printed}\ncurl https://me:{printed}@example.org/"));
    story.answer(&answer);
    let stop = story.stop(&answer);

    home.hook(&stop, &env);
    assert_eq!(home.spooled().len(), 1);
    canaries.look_around("spooled", &home, &said);
    // A hook that finds no daemon leaves the event as Claude Code gave it, including the last answer; the daemon does
    // not keep that.
    canaries.0.push(("the answer's password".to_owned(), answered));

    let mut daemon = talkative(&home, elsewhere.path(), &[]);
    home.hook(&story.event("SessionEnd"), &env);
    let parked = |what: &str| {
        home.status_until(what, |status| {
            status["destinations"][0]["last_error"].as_str().is_some_and(|why| why.contains(what))
        });
    };
    for status in [401, 500, 307, 400] {
        let location = stranger.url.clone();
        let answer = echo(status);
        server.change(move |request| answer(request).header("location", location.clone()));
        // A refused key is tried again when the user asks for it.
        home.ctl(&["flush", "--timeout", "200ms"]);
        if status == 400 {
            home.status_until("dead letters", |status| status["dead_letters"].as_u64().is_some_and(|n| n > 0));
        } else {
            parked(&status.to_string());
        }
        canaries.look_around(&status.to_string(), &home, &said);
        canaries.ask(&status.to_string(), &home);
        if status == 500 {
            daemon.kill();
            canaries.look_around("killed", &home, &said);
            home.settings("work", &server::env(&server.url, "pk-lf-test", &key));
            daemon = talkative(&home, elsewhere.path(), &[]);
        }
    }
    server.change(|_| Answer::ok());
    assert_eq!(home.ctl(&["dead-letters", "--retry", "all"]).status.code(), Some(0));
    home.hook(&story.event("SessionEnd"), &env);
    home.flush();
    canaries.ask("delivered", &home);
    assert!(daemon.terminate().success());
    canaries.look_around("delivered", &home, &said);
    assert_eq!(stranger.requests().len(), 0, "redirects are not followed");
    assert!(!server.spans().is_empty());
    let sent = server.requests();
    assert!(sent.iter().all(|request| request.key() == format!("pk-lf-test:{key}")));
    for request in sent {
        canaries.look("a path", request.path.as_bytes());
        canaries.look("a body", &request.raw);
        canaries.look("a body, unpacked", &request.plain);
        for (name, value) in request.headers.iter().filter(|(name, _)| name != "authorization") {
            canaries.look("a header", format!("{name}: {value}").as_bytes());
        }
    }
    assert!(home.log().contains("event"), "the log is a talkative one: {}", home.log());
}

#[test]
fn no_password_in_an_address_is_stored_in_any_spelling() {
    let home = Home::new();
    let mut canaries = Canaries(Vec::new());
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let secret = canaries.add("the address's password");
    let addresses = [
        "https://user:PW@langfuse.invalid",
        "user:PW@langfuse.invalid",
        "https:/user:PW@langfuse.invalid",
        "https:user:PW@langfuse.invalid",
        "//user:PW@langfuse.invalid/",
        " https://user:PW@langfuse.invalid ",
        "https://PW@langfuse.invalid",
        "https://us@er:PW@langfuse.invalid/x",
        "HTTPS://user:PW@langfuse.invalid",
    ];
    let hook = |address: &str| {
        let mut env = server::env(&address.replace("PW", &secret), "pk", "sk");
        env.push(("LANGFUSE_HOST".into(), address.replace("PW", &secret)));
        env.push(("CC_LANGFUSE_DEBUG".into(), "true".into()));
        home.hook(&story.stop("a"), &env);
    };
    for address in addresses {
        hook(address);
        canaries.look_around(&format!("spooled with {address}"), &home, &[]);
    }
    let _daemon = talkative(&home, home.path(), &[]);
    addresses.iter().for_each(|address| hook(address));
    home.status_until("the events to be handled", |status| status["inbox"]["pending"] == 0);
    canaries.look_around("taken up", &home, &[]);
    canaries.ask("taken up", &home);
}

#[test]
fn no_message_contains_the_password_of_a_proxy() {
    let home = Home::new();
    let mut canaries = Canaries(Vec::new());
    let secret = canaries.add("the proxy's password");
    canaries.0.push(("the proxy's header".into(), STANDARD.encode(format!("user:{secret}"))));
    let proxy = format!("http://user:{secret}@{}", server::unused());
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let env = [("HTTPS_PROXY", proxy.as_str()), ("ALL_PROXY", &proxy), ("https_proxy", &proxy)];
    let _daemon = talkative(&home, home.path(), &env);
    home.hook(&story.stop("a"), &server::env("https://langfuse.invalid", "pk", "sk"));
    home.status_until("the proxy to be missed", |status| status["destinations"][0]["last_error"].is_string());
    canaries.look_around("refused", &home, &[]);
    canaries.ask("refused", &home);
}

#[test]
fn the_search_for_secrets_finds_a_planted_one() {
    let home = Home::new();
    let mut canaries = Canaries(Vec::new());
    let secret = canaries.add("a secret");
    home::settings(&home.path().join("deep/er/state.db"), &[("x".into(), format!("y{secret}z"))]);
    let found = std::panic::catch_unwind(|| canaries.look_around("hidden", &home, &[]));
    assert!(found.is_err_and(|panic| panic.downcast_ref::<String>().is_some_and(|why| why.contains("a secret is in"))));
}
