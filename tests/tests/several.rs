//! Destinations from the user's own file, any number beside those that variables name: each gets everything once,
//! independently of the others.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tests::{Answer, Daemon, Home, Request, Server, Story, ids, server};

/// Writes a file with this mode.
fn write(path: &Path, text: &str, mode: u32) -> PathBuf {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
    path.to_owned()
}

/// A table for a Langfuse server with its secret key in a file.
fn langfuse(home: &Home, name: &str, server: &Server) -> String {
    write(&home.path().join(format!(".keys/{name}")), &format!("sk-{name}\n"), 0o600);
    fs::set_permissions(home.path().join(".keys"), fs::Permissions::from_mode(0o700)).expect("its mode");
    format!(
        "[[destination]]\nname = '{name}'\nkind = 'langfuse'\naddress = '{}'\nLANGFUSE_PUBLIC_KEY = 'pk-{name}'\nsecret_file = '~/.keys/{name}'\n",
        server.url
    )
}

/// A table for an OTLP receiver.
fn otlp(name: &str, server: &Server, more: &str) -> String {
    format!("[[destination]]\nname = '{name}'\nkind = 'otlp'\naddress = '{}'\n{more}\n", server.url)
}

/// The switch that turns tracing on without choosing a kind.
fn trace() -> Vec<(String, String)> {
    vec![("CC_LANGFUSE_TRACE".to_owned(), "true".to_owned())]
}

/// `destinations --json`: name, state, and how many spans wait.
fn known(home: &Home) -> Vec<(String, String, u64)> {
    let output = home.ctl(&["destinations", "--json"]);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
    rows.iter().map(|row| (text(row, "name"), text(row, "state"), row["waiting"].as_u64().expect("a number"))).collect()
}

/// Waits until everything sent to these is acknowledged: anything else is sent again after a kill.
fn settled(home: &Home, names: &[&str]) {
    home.status_until("it to be acknowledged", |_| {
        known(home).iter().filter(|row| names.contains(&&*row.0)).all(|row| row.2 == 0)
    });
}

fn state(home: &Home, name: &str) -> String {
    known(home).into_iter().find(|row| row.0 == name).map(|row| row.1).unwrap_or_default()
}

/// All `count` spans arrived once.
fn has_all(server: &Server, count: usize, what: &str) {
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (count, count), "{what}");
}

fn said(home: &Home, args: &[&str]) -> String {
    let output = home.ctl(args);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A new daemon with another file.
fn restart(home: &Home, daemon: Daemon, config: &str) -> Daemon {
    daemon.kill();
    home.configure(config);
    home.daemon()
}

#[test]
fn each_of_three_destinations_gets_everything_while_another_is_down() {
    for down in 0..3 {
        let home = Home::new();
        let all = [Server::new(), Server::new(), Server::new()];
        let command = "secret_command = ['sh', '-c', 'echo x-key=hidden']";
        home.configure(&(langfuse(&home, "team", &all[1]) + &otlp("otel", &all[2], command)));
        let up: Vec<&Server> = (0..3).filter(|at| *at != down).map(|at| &all[at]).collect();
        all[down].change(|_| Answer::status(503).header("retry-after", "0"));
        let daemon = home.daemon();
        let mut story = Story::new(&home, "work", "s");
        story.turn("q1", "a1");
        home.hook(&story.stop("a1"), &all[0].env());
        up.iter().for_each(|server| drop(server.wait_for(2)));
        let names = ["langfuse-3", "team", "otel"];
        settled(&home, &[&names[..down], &names[down + 1..]].concat());
        // Each is reached again without any hook.
        daemon.kill();
        let _daemon = home.daemon();
        story.turn("q2", "a2");
        home.hook(&story.stop("a2"), &all[0].env());
        up.iter().for_each(|server| drop(server.wait_for(4)));
        assert_eq!(ids(&all[down].spans()).len(), 0);
        all[down].change(|_| Answer::ok());
        home.flush();
        for (at, server) in all.iter().enumerate() {
            has_all(server, 4, &format!("{at}, while {down} is down"));
            assert_eq!(ids(&server.spans()), ids(&all[0].spans()));
        }
        let keys = |server: &Server| server.requests().iter().map(Request::key).collect::<BTreeSet<_>>();
        assert_eq!(keys(&all[0]), BTreeSet::from(["pk-lf-test:sk-lf-test".to_owned()]));
        assert_eq!(keys(&all[1]), BTreeSet::from(["pk-team:sk-team".to_owned()]));
        let headers = all[2].requests();
        assert!(headers.iter().all(|request| request.header("x-key") == Some("hidden")));
        let names: Vec<String> = known(&home).into_iter().map(|row| row.0).collect();
        assert_eq!(names, ["team", "otel", "langfuse-3"]);
        let metrics = home.ask("/metrics");
        assert!(metrics.contains("destination_info{name=\"team\","), "{metrics}");
        for args in
            [&["status"][..], &["status", "--json"], &["config"], &["config", "--json"], &["doctor", "--no-probe"]]
        {
            let said = said(&home, args);
            assert!(said.contains("team") && said.contains("otel"), "{args:?}: {said}");
            assert!(!said.contains("hidden") && !said.contains("sk-team"), "{args:?}: {said}");
        }
        assert!(!home.log().contains("hidden"));
    }
}

#[test]
fn a_destination_joins_only_its_traced_projects() {
    let home = Home::new();
    let [all, code, variable] = [Server::new(), Server::new(), Server::new()];
    home.configure(&(otlp("all", &all, "") + &otlp("code", &code, "projects = ['~/code/**']")));
    let daemon = home.daemon();
    let mlflow_off = ("MLFLOW_CLAUDE_TRACING_ENABLED".to_owned(), "false".to_owned());
    for (project, env, spans) in [
        ("code", trace(), [2, 2, 0]),
        ("code/deep/er", trace(), [2, 2, 0]),
        ("codeshop", trace(), [2, 0, 0]),
        ("other", variable.env(), [2, 0, 2]),
        ("code/both", [variable.env(), trace()].concat(), [2, 2, 2]),
        ("code/off", vec![("CC_LANGFUSE_TRACE".to_owned(), "false".to_owned()), mlflow_off], [0, 0, 0]),
        ("code/nothing", vec![], [0, 0, 0]),
    ] {
        let servers = [&all, &code, &variable];
        let before = servers.map(|server| server.spans().len());
        let mut story = Story::new(&home, project, &project.replace('/', "-"));
        story.turn("q", "a");
        home.hook(&story.stop("a"), &env);
        home.flush();
        let came: Vec<usize> =
            servers.iter().zip(before).map(|(server, before)| server.spans().len() - before).collect();
        assert_eq!(came, spans, "{project}");
    }
    assert_eq!(home.status()["skipped_lines"].get("hook_no_destination"), None);
    // Tracing is on, but nothing names a destination.
    let daemon = restart(&home, daemon, &otlp("code", &code, "projects = ['~/code/**']"));
    let mut story = Story::new(&home, "other", "nowhere");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &trace());
    home.flush();
    assert_eq!(home.status()["skipped_lines"]["hook_no_destination"], 1);
    // Langfuse is off, so its keys are not used.
    let keys: Vec<_> = variable.env().into_iter().filter(|(name, _)| name != "TRACE_TO_LANGFUSE").collect();
    home.settings("other", &[trace(), keys].concat());
    let before = variable.requests().len();
    said(&home, &["doctor", "--wait", "1s", "--project", home.project("other").to_str().expect("text")]);
    assert_eq!(variable.requests().len(), before, "nothing is asked where it is off");
    let doctor = said(&home, &["doctor", "--no-probe", "--project", home.project("other").to_str().expect("text")]);
    assert!(doctor.contains("no destination in") && doctor.contains("add a [[destination]]"), "{doctor}");
    drop(daemon);
}

#[test]
fn a_session_without_an_event_is_found_if_only_config_toml_has_a_destination() {
    let (home, otel) = (Home::new(), Server::new());
    home.configure(&otlp("otel", &otel, ""));
    home.settings("work", &trace());
    let daemon = home.daemon();
    // The scan at the start records existing sessions.
    tests::eventually("the search", || home.paths().begun.exists());
    daemon.kill();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let _daemon = home.daemon();
    otel.wait_for(2);
    home.flush();
    has_all(&otel, 2, "found");
}

#[test]
fn a_destination_chosen_by_others_is_held_and_the_users_own_is_not() {
    let (home, theirs, own) = (Home::new(), Server::new(), Server::new());
    home.configure(&langfuse(&home, "own", &own));
    let project = home.project("work");
    let endpoint = [("CC_LANGFUSE_OTLP_ENDPOINT".to_owned(), format!("{}/v1/traces", theirs.url))];
    let _daemon = home.daemon();
    // Chosen by others in one project, and by the user's own file.
    let same = server::env(&own.url, "pk-own", "sk-theirs");
    for (session, env) in [("endpoint", &endpoint[..]), ("same", &same[..])] {
        tests::home::settings(&project.join(".claude/settings.json"), env);
        let before = own.spans().len();
        let mut story = Story::new(&home, "work", session);
        story.turn("q", "a");
        home.hook(&story.stop("a"), env);
        own.wait_for(before + 2);
        has_all(&own, before + 2, session);
        assert_eq!(state(&home, "own"), "ok", "{session}");
    }
    assert_eq!(theirs.requests().len(), 0);
    assert!(known(&home).iter().any(|row| row.1 == "held"));
    let keys: BTreeSet<String> = own.requests().iter().map(Request::key).collect();
    assert_eq!(keys, BTreeSet::from(["pk-own:sk-own".to_owned()]), "their key is not used for it");
}

#[test]
fn a_destination_named_by_variable_and_config_toml_is_one() {
    let (home, one) = (Home::new(), Server::new());
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1");
    home.hook(&story.stop("a1"), &server::env(&one.url, "pk-one", "sk-one"));
    home.flush();
    let config = langfuse(&home, "one", &one);
    let daemon = restart(&home, daemon, &config);
    story.turn("q2", "a2");
    home.hook(&story.stop("a2"), &server::env(&format!("{}/", one.url), "pk-one", "sk-one"));
    home.flush();
    // Only the file is left.
    story.turn("q3", "a3");
    home.hook(&story.stop("a3"), &trace());
    home.flush();
    let daemon = restart(&home, daemon, "");
    story.turn("q4", "a4");
    home.hook(&story.stop("a4"), &server::env(&one.url, "pk-one", "sk-one"));
    home.flush();
    has_all(&one, 8, "one");
    assert_eq!(known(&home), [("langfuse-1".to_owned(), "ok".to_owned(), 0)]);
    drop(daemon);
}

#[test]
fn a_removed_destination_gets_nothing_until_it_is_back() {
    let (home, first, second) = (Home::new(), Server::new(), Server::new());
    let (one, two) = (otlp("one", &first, ""), otlp("two", &second, ""));
    home.configure(&(one.clone() + &two));
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    let turn = |story: &mut Story, number: u8| {
        story.turn(&format!("q{number}"), &format!("a{number}"));
        home.hook(&story.stop(&format!("a{number}")), &trace());
    };
    turn(&mut story, 1);
    home.flush();
    second.change(|_| Answer::status(503));
    turn(&mut story, 2);
    first.wait_for(4);
    home.status_until("two to wait", |_| state(&home, "two") == "retrying");
    settled(&home, &["one"]);
    // It is back before its removal was noticed; nothing is sent there although no key is needed.
    let daemon = restart(&home, daemon, &one);
    second.change(|_| Answer::ok());
    turn(&mut story, 3);
    first.wait_for(6);
    home.status_until("two to be parked", |_| known(&home).iter().any(|row| row.0 == "otlp-2" && row.1 == "parked"));
    let listed = said(&home, &["destinations"]);
    assert!(listed.contains("no longer in config.toml") && listed.contains("destinations drop"), "{listed}");
    assert_eq!(ids(&second.spans()).len(), 2);
    let daemon = restart(&home, daemon, &(one.clone() + &two));
    turn(&mut story, 4);
    home.flush();
    has_all(&first, 8, "one");
    // The third turn was added while it was not in the file: it arrives only if it had not been read completely when
    // the daemon was killed.
    let came = second.spans().len();
    assert!(came == 6 || came == 8, "{came}");
    has_all(&second, came, "two");
    // Removed again, with waiting spans: they are dropped under the name it has then.
    second.change(|_| Answer::status(503));
    turn(&mut story, 5);
    first.wait_for(10);
    home.status_until("two to wait", |_| state(&home, "two") == "retrying");
    settled(&home, &["one"]);
    let _daemon = restart(&home, daemon, &one);
    assert!(said(&home, &["destinations", "drop", "otlp-2", "--yes"]).contains("2 observations dropped"));
    home.flush();
    has_all(&first, 10, "one");
}

#[test]
fn waiting_spans_can_be_moved_and_dropped_by_name() {
    let (home, old, new) = (Home::new(), Server::answering(|_| Answer::status(401)), Server::new());
    home.configure(&(langfuse(&home, "old", &old) + &langfuse(&home, "new", &new)));
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1");
    home.hook(&story.stop("a1"), &trace());
    home.status_until("old to be parked", |_| state(&home, "old") == "parked" && new.spans().len() == 2);
    assert!(said(&home, &["destinations", "move", "old", "new"]).contains("2 observations were sent there before"));
    story.turn("q2", "a2");
    home.hook(&story.stop("a2"), &trace());
    home.status_until("old to wait", |_| known(&home).iter().any(|row| row.0 == "old" && row.2 == 2));
    assert!(said(&home, &["destinations", "drop", "old", "--yes"]).contains("2 observations dropped"));
    home.flush();
    has_all(&new, 4, "new");
}

#[test]
fn a_changed_key_is_read_again_without_running_its_command_for_each_event() {
    let (home, by_file, by_command) = (Home::new(), Server::new(), Server::new());
    let (runs, key) = (home.path().join("runs"), write(&home.path().join("key"), "x-key=old", 0o600));
    let script = format!("echo >> {}; cat {}", runs.display(), key.display());
    let table = otlp("command", &by_command, &format!("secret_command = ['sh', '-c', '{script}']"));
    home.configure(&(table + &otlp("file", &by_file, "secret_file = '~/key'")));
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    for turn in 0..5 {
        story.turn("q", &format!("a{turn}"));
        home.hook(&story.stop(&format!("a{turn}")), &trace());
        home.flush();
    }
    assert_eq!(fs::read_to_string(&runs).expect("it ran").len(), 1, "once");
    for server in [&by_file, &by_command] {
        server.change(|request| match request.header("x-key") {
            Some("new") => Answer::ok(),
            _ => Answer::status(401),
        });
    }
    story.turn("q", "b");
    home.hook(&story.stop("b"), &trace());
    home.status_until("both to be parked", |_| known(&home).iter().all(|row| row.1 == "parked"));
    write(&key, "x-key=new", 0o600);
    home.flush();
    has_all(&by_file, 12, "file");
    has_all(&by_command, 12, "command");
}

#[test]
fn forget_works_for_a_server_that_only_config_toml_names() {
    let (home, server) = (Home::new(), Server::new());
    home.configure(&langfuse(&home, "team", &server));
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &trace());
    server.wait_for(2);
    home.flush();
    let done = home.ctl(&["forget", "--yes", story.path.to_str().expect("UTF-8")]);
    assert!(done.status.success(), "{done:?}");
    server.work();
    assert_eq!(server.spans().len(), 0);
    // A secret that cannot be read is reported, not ignored.
    fs::set_permissions(home.path().join(".keys/team"), fs::Permissions::from_mode(0o644)).expect("its mode");
    let refused = said(&home, &["forget", "--yes", story.path.to_str().expect("UTF-8")]);
    assert!(refused.contains(".keys/team") && refused.contains("chmod"), "{refused}");
}

#[test]
fn an_invalid_destination_is_reported_and_affects_no_other() {
    let (home, good, fixed) = (Home::new(), Server::new(), Server::new());
    let _ = langfuse(&home, "open", &fixed);
    fs::set_permissions(home.path().join(".keys/open"), fs::Permissions::from_mode(0o644)).expect("its mode");
    let bad = |name: &str, more: &str| {
        format!(
            "[[destination]]\nname = '{name}'\nkind = 'langfuse'\naddress = '{}'\nLANGFUSE_PUBLIC_KEY = 'pk-{name}'\n{more}\n",
            fixed.url
        )
    };
    let tables = [
        (
            "kind",
            "[[destination]]\nname = 'kind'\nkind = 'langfuze'\naddress = 'https://x'\n".to_owned(),
            "langfuse, mlflow, otlp",
        ),
        ("address", "[[destination]]\nname = 'address'\nkind = 'otlp'\n".to_owned(), "needs an `address`"),
        ("glob", otlp("glob", &good, "projects = ['work']"), "must begin with"),
        ("inline", bad("inline", "LANGFUSE_SECRET_KEY = 'sk-hidden'"), "must not be in this file"),
        ("open", bad("open", "secret_file = '~/.keys/open'"), "chmod 600"),
        ("missing", bad("missing", "secret_file = '~/.keys/missing'"), "is missing"),
        ("fails", bad("fails", "secret_command = ['sh', '-c', 'echo hidden; exit 7']"), "exit status: 7"),
        ("empty", bad("empty", "secret_command = ['true', 'hidden']"), "gives no secret key"),
        ("nothing", bad("nothing", "secret_command = ['/no/such/program']"), "by its whole path"),
    ];
    let config: String = tables.iter().map(|(_, table, _)| table.as_str()).collect();
    home.configure(&(config + &otlp("good", &good, "")));
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &trace());
    good.wait_for(2);
    home.status_until("the others to be parked", |_| {
        known(&home).iter().all(|row| (row.1 == "parked") == (row.0 != "good"))
    });
    let views = [
        said(&home, &["config"]),
        said(&home, &["config", "--json"]),
        said(&home, &["doctor", "--no-probe"]),
        said(&home, &["destinations"]),
        said(&home, &["status"]),
    ];
    for (name, _, why) in &tables {
        for (view, text) in views.iter().enumerate() {
            let found = text.lines().any(|line| line.contains(why)) && text.contains(name);
            assert!(found, "{name} in view {view}: {text}");
        }
    }
    assert!(!views.concat().contains("hidden") && !home.log().contains("hidden"), "{views:?}");
    assert_eq!(home.ctl(&["doctor", "--no-probe"]).status.code(), Some(1));
    let metrics = home.ask("/metrics");
    let ups: Vec<&str> = metrics.lines().filter(|line| line.starts_with("cc_langfuse_destination_up{")).collect();
    assert_eq!(ups.len(), tables.len() + 1, "{ups:?}");
    // A corrected secret is used without a restart.
    fs::set_permissions(home.path().join(".keys/open"), fs::Permissions::from_mode(0o600)).expect("its mode");
    home.ctl(&["flush", "--timeout", "1ms"]);
    home.status_until("the fixed one to be used", |_| state(&home, "open") == "ok");
    has_all(&fixed, 2, "fixed");
}

#[test]
fn config_shows_prices_and_destinations_with_their_lines() {
    let (home, otel) = (Home::new(), Server::new());
    let price = "[[price]]\nmodel = 'mine'\nspeed = 'fast'\ninput = 1.5\noutput = 7\n";
    home.configure(&(price.to_owned() + &otlp("otel", &otel, "")));
    let shown = said(&home, &["config"]);
    let line = |part: &str| shown.lines().find(|line| line.contains(part)).unwrap_or_default().to_owned();
    assert!(line("mine (fast): 1.5 in, 7 out").ends_with("config.toml:1"), "{shown}");
    assert!(line("otel: otlp at").ends_with("config.toml:6"), "{shown}");
    let json: Value = serde_json::from_str(&said(&home, &["config", "--json"])).expect("JSON");
    assert_eq!(json["daemon"]["price"][0]["cache_read"], Value::Null);
    let found = &json["daemon"]["destination"][0];
    assert_eq!((&found["name"], &found["account"], &found["problem"]), (&json!("otel"), &json!("both"), &Value::Null));
}

#[test]
fn changes_to_config_toml_count_from_the_next_event() {
    let (home, one, two) = (Home::new(), Server::new(), Server::new());
    home.configure(&langfuse(&home, "one", &one));
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    let mut say = |answer: &str| {
        story.turn("q", answer);
        home.hook(&story.stop(answer), &trace());
        home.flush();
    };
    say("a0");
    say("a1");
    has_all(&one, 4, "one");
    // Another key, while a connection with the first is open.
    home.configure(&(langfuse(&home, "one", &one) + &otlp("two", &two, "")));
    say("a2");
    has_all(&one, 6, "one");
    // The following turns, and the last one before: it could have grown.
    has_all(&two, 4, "two");
    // One that is not for this project, and one that was removed.
    home.configure(&otlp("two", &two, "projects = ['~/elsewhere']"));
    say("a3");
    assert_eq!((one.spans().len(), two.spans().len()), (6, 4));
    // An invalid file changes nothing, and is reported.
    home.configure(&(langfuse(&home, "one", &one) + &otlp("two", &two, "")));
    say("a4");
    let before = (one.spans().len(), two.spans().len());
    home.configure("outbox_mb = 1");
    say("a5");
    assert_eq!((one.spans().len(), two.spans().len()), (before.0 + 2, before.1 + 2));
    let error = home.status()["config_error"].as_str().map(str::to_owned).expect("a reason");
    assert!(error.contains("config.toml") && error.contains("outbox_mib"), "{error}");
    assert!(said(&home, &["status"]).contains("the file cannot be used"));
    assert!(said(&home, &["doctor", "--no-probe"]).contains("outbox_mib"));
    home.configure(&langfuse(&home, "one", &one));
    assert!(home.status()["config_error"].is_null());
    // Others can change it, so it is not read.
    let config = home.paths().config;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).expect("its mode");
    assert!(home.status()["config_error"].as_str().is_some_and(|why| why.contains("chmod go-w")));
    // A missing file is no error.
    fs::remove_file(&config).expect("removed");
    assert!(home.status()["config_error"].is_null());
    assert!(known(&home).iter().all(|row| row.0 != "one" && row.0 != "two"), "{:?}", known(&home));
}

#[test]
fn a_stricter_privacy_floor_applies_once_config_toml_has_it() {
    let (home, one) = (Home::new(), Server::new());
    home.configure(&langfuse(&home, "one", &one));
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("first words", "a1");
    home.hook(&story.stop("a1"), &trace());
    home.flush();
    home.configure(&format!("capture_at_most = 'metadata'\n{}", langfuse(&home, "one", &one)));
    story.turn("second words", "a2");
    home.hook(&story.stop("a2"), &trace());
    home.flush();
    has_all(&one, 4, "one");
    let sent = format!("{:?}", one.spans());
    assert!(sent.contains("first words") && !sent.contains("second words"), "{sent}");
}

#[test]
fn doctor_tests_each_destination_with_a_trace() {
    let (home, one, two) = (Home::new(), Server::new(), Server::new());
    home.configure(&(langfuse(&home, "one", &one) + &otlp("two", &two, "")));
    let _daemon = home.daemon();
    let doctor = home.ctl_with(&["doctor", "--json", "--wait", "10s"], &trace());
    let report: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let findings = report["findings"].as_array().expect("a list").iter();
    let probes: Vec<&str> = findings.filter(|it| it["check"] == "probe").filter_map(|it| it["seen"].as_str()).collect();
    assert_eq!(probes.len(), 2, "{report}");
    assert!(probes.iter().any(|seen| seen.contains("read back")), "{probes:?}");
    assert_eq!((one.spans().len(), two.spans().len()), (1, 1));
    // A wrong key is found there.
    fs::write(home.path().join(".keys/one"), "sk-wrong\n").expect("written");
    one.change(|request| if request.key() == "pk-one:sk-one" { Answer::ok() } else { Answer::status(401) });
    let said = said(&home, &["doctor", "--wait", "1s"]);
    assert!(said.contains(&format!("{} does not take the keys", one.url)) && !said.contains("sk-wrong"), "{said}");
}
