//! The commands that work for Langfuse also work for MLflow, its file store and Phoenix; for other receivers they
//! report what is not known.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tests::{
    Answer, Home, Request, Server, Story, ids, real,
    setup::{ctl, succeeds, text},
};

/// Traces by id, each with the experiment or project it is in.
#[derive(Clone, Default)]
struct Stored(Arc<Mutex<BTreeMap<String, String>>>);

impl Stored {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.lock().len()
    }
}

/// Properties of the servers of a test.
#[derive(Clone, Copy)]
struct Like {
    version: &'static str,
    store: &'static str,
    stage: &'static str,
}

const GOOD: Like = Like { version: "3.17.2", store: "SqlStore", stage: "active" };

/// An MLflow server with the API that is used: a trace stays in the experiment it first arrived in.
fn mlflow(stored: &Stored, like: Like) -> Server {
    let stored = stored.clone();
    Server::answering(move |request| {
        let mut traces = stored.lock();
        let none = || Answer::status(404).body(r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"none"}"#);
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        match (request.method.as_str(), path) {
            ("POST", "/v1/traces") => {
                let experiment = request.header("x-mlflow-experiment-id").unwrap_or_default();
                for span in &request.spans {
                    traces.entry(span.trace_id.clone()).or_insert_with(|| experiment.to_owned());
                }
                Answer::ok()
            }
            // MLflow labels it like this.
            ("GET", "/version") => Answer::ok().header("content-type", "text/html; charset=utf-8").body(like.version),
            ("GET", "/api/3.0/mlflow/server-info") => Answer::ok().body(&json!({"store_type": like.store}).to_string()),
            ("GET", "/api/2.0/mlflow/experiments/get") => {
                let id = query.trim_start_matches("experiment_id=");
                let experiment = json!({"experiment_id": id, "name": "mine", "lifecycle_stage": like.stage});
                Answer::ok().body(&json!({ "experiment": experiment }).to_string())
            }
            ("GET", "/api/3.0/mlflow/traces/get") => {
                let id = query.trim_start_matches("trace_id=tr-");
                let Some(experiment) = traces.get(id) else { return none() };
                let location = json!({"mlflow_experiment": {"experiment_id": experiment}});
                let info = json!({"trace_id": format!("tr-{id}"), "trace_location": location});
                Answer::ok().body(&json!({"trace": {"trace_info": info}}).to_string())
            }
            ("POST", "/api/2.0/mlflow/traces/delete-traces") => {
                let query: Value = serde_json::from_slice(&request.plain).expect("JSON");
                let all = traces.len();
                for id in query["request_ids"].as_array().expect("ids") {
                    let id = id.as_str().expect("text").trim_start_matches("tr-");
                    if traces.get(id).is_some_and(|experiment| query["experiment_id"] == **experiment) {
                        traces.remove(id);
                    }
                }
                Answer::ok().body(&json!({"traces_deleted": all - traces.len()}).to_string())
            }
            ("DELETE", path) if path.starts_with("/api/2.0/mlflow-artifacts/artifacts/") => Answer::ok().body("{}"),
            _ => none(),
        }
    })
}

/// A Phoenix server with the API that is used. It shows a trace only when asked for it the second time.
fn phoenix(stored: &Stored) -> Server {
    let (stored, mut asked) = (stored.clone(), 0);
    Server::answering(move |request| {
        let mut traces = stored.lock();
        let answer = match request.method.as_str() {
            "POST" => {
                traces.extend(request.spans.iter().map(|span| (span.trace_id.clone(), String::new())));
                Answer::ok()
            }
            "GET" => Answer::ok().body("OK"),
            _ => {
                asked += 1;
                let id = request.path.trim_start_matches("/v1/traces/");
                let is_gone = asked > 1 && traces.remove(id).is_some();
                if is_gone { Answer::status(204) } else { Answer::status(404).body("Trace not found") }
            }
        };
        answer.header("x-phoenix-server-version", "20.26.1")
    })
}

fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn at_mlflow(url: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    vars(&[&[("MLFLOW_CLAUDE_TRACING_ENABLED", "true"), ("MLFLOW_TRACKING_URI", url)], more].concat())
}

fn at_otlp(server: &Server) -> Vec<(String, String)> {
    vars(&[("CC_LANGFUSE_OTLP_ENDPOINT", &format!("{}/v1/traces", server.url))])
}

/// Adds a turn, with the project's current settings.
fn turn(home: &Home, story: &mut Story, env: &[(String, String)]) {
    home.settings("work", env);
    story.turn("q", "a");
    home.hook(&story.stop("a"), env);
    home.flush();
}

/// The last line of the output of a command that must succeed.
fn said(output: &Output) -> String {
    succeeds(output).trim().to_owned()
}

#[test]
fn a_session_at_mlflow_is_opened_and_forgotten_in_all_its_experiments() {
    let (home, stored) = (Home::new(), Stored::default());
    let server = mlflow(&stored, GOOD);
    let _daemon = home.daemon();
    let (mut gone, mut kept) = (Story::new(&home, "work", "gone"), Story::new(&home, "work", "kept"));
    turn(&home, &mut gone, &at_mlflow(&server.url, &[]));
    turn(&home, &mut gone, &at_mlflow(&server.url, &[("MLFLOW_EXPERIMENT_ID", "5")]));
    turn(&home, &mut kept, &at_mlflow(&server.url, &[("MLFLOW_EXPERIMENT_ID", "5")]));
    assert_eq!(stored.len(), 3);
    let page = said(&home.ctl(&["open", "--print", "gone"]));
    let at = format!("{}/#/experiments/5/traces?startTimeLabel=ALL&selectedEvaluationId=tr-", server.url);
    assert!(page.strip_prefix(&at).is_some_and(|id| stored.lock().contains_key(id)), "{page}");
    let page = said(&home.ctl(&["open", "--print", "--session", "--to", "mlflow", "gone"]));
    assert_eq!(page, format!("{}/#/experiments/5/chat-sessions/gone", server.url));
    assert_eq!(home.ctl(&["open", "--print", "--to", "langfuse", "gone"]).status.code(), Some(1));

    let forgotten = succeeds(&home.ctl(&["forget", "--yes", "gone"]));
    assert!(forgotten.contains("2 traces of session gone"), "{forgotten}");
    assert_eq!(stored.lock().values().collect::<Vec<_>>(), ["5"], "{forgotten}");
    let asks = |request: &Request| request.path.contains("mlflow-artifacts") && request.method == "DELETE";
    assert!(server.requests().iter().any(asks), "images beside the traces go as well");
    succeeds(&home.ctl(&["backfill", "--yes"]));
    succeeds(&home.ctl_with(&["replay", "--to", "mlflow", "gone"], &[]));
    assert_eq!(stored.len(), 1, "nothing comes back");
    let again = succeeds(&home.ctl(&["forget", "--yes", "gone"]));
    assert!(again.contains("0 deleted") && again.contains("2 were not there"), "{again}");
}

#[test]
fn a_deletion_that_the_server_did_not_carry_out_is_reported() {
    let (home, stored) = (Home::new(), Stored::default());
    let (kept, server) = (stored.clone(), mlflow(&stored, GOOD));
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    turn(&home, &mut story, &at_mlflow(&server.url, &[]));
    let honest = kept.lock().clone();
    server.change(move |request| {
        let id = request.path.rsplit("tr-").next().unwrap_or_default();
        let location = json!({"mlflow_experiment": {"experiment_id": "0"}});
        let info = json!({"trace_id": format!("tr-{id}"), "trace_location": location});
        match request.method.as_str() {
            "GET" if honest.contains_key(id) => Answer::ok().body(&json!({"trace": {"trace_info": info}}).to_string()),
            _ => Answer::ok().body("{}"),
        }
    });
    let failed = home.ctl(&["forget", "--yes", "s"]);
    assert!(failed.status.code() == Some(1) && text(&failed).contains("still shows it"), "{failed:?}");
    // A server that is no longer MLflow does not count as having no such trace.
    server.change(|_| Answer::status(404).body("<html>not here</html>"));
    let failed = home.ctl(&["forget", "--yes", "s"]);
    assert!(failed.status.code() == Some(1) && text(&failed).contains("404"), "{failed:?}");
}

#[test]
fn forget_waits_for_phoenix_to_store_and_delete_a_trace() {
    let (home, stored) = (Home::new(), Stored::default());
    let server = phoenix(&stored);
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    turn(&home, &mut story, &at_otlp(&server));
    let page = said(&home.ctl(&["open", "--print", "s"]));
    let trace = stored.lock().keys().next().expect("a trace").clone();
    assert_eq!(page, format!("{}/redirects/traces/{trace}", server.url));
    let forgotten = succeeds(&home.ctl(&["forget", "--yes", "s"]));
    assert!(forgotten.contains("1 trace of session s: 1 deleted"), "{forgotten}");
    assert_eq!(stored.len(), 0);
}

#[test]
fn forget_reports_a_receiver_that_cannot_delete_and_sends_it_nothing_more() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s-7");
    turn(&home, &mut story, &at_otlp(&server));
    assert_eq!(
        said(&home.ctl(&["open", "--print", "s-7"])).lines().next(),
        Some(&*format!("{}/v1/traces", server.url))
    );
    let sent = ids(&server.spans());
    let refused = home.ctl(&["forget", "--yes", "s-7"]);
    let why = text(&refused);
    assert!(
        refused.status.code() == Some(1) && why.contains("no way to delete") && why.contains("session.id = s-7"),
        "{why}"
    );
    assert!(server.requests().iter().all(|request| request.method != "DELETE"));
    succeeds(&home.ctl_with(&["replay", "--to", "otlp", "s-7"], &[]));
    assert_eq!(ids(&server.spans()), sent);
}

/// A project set up by `setup --mlflow`: its directory, its variables, and the directories of its traces.
fn files_of(home: &Home) -> (PathBuf, Vec<(String, String)>) {
    let dir = home.project("work");
    let env = vars(&[("MLFLOW_CLAUDE_TRACING_ENABLED", "true")]);
    home.settings("work", &env);
    (dir.clone(), [env, vars(&[("CLAUDE_PROJECT_DIR", &dir.display().to_string())])].concat())
}

fn traces(store: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.join("0/traces")).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_session_in_the_file_store_is_opened_and_forgotten_for_good() {
    let home = Home::new();
    let (dir, env) = files_of(&home);
    let _daemon = home.daemon();
    for session in ["gone", "kept"] {
        let mut story = Story::new(&home, "work", session);
        for _ in 0..2 {
            story.turn("q", "a");
            home.hook(&story.stop("a"), &env);
            home.flush();
        }
    }
    let store = dir.join(".claude/mlflow/runs");
    assert_eq!(traces(&store).len(), 4);
    let shown = said(&ctl(&home, &dir, None, &["open", "gone"]));
    let (path, how) = shown.split_once('\n').expect("two lines");
    assert!(traces(&store).contains(&PathBuf::from(path)), "{shown}");
    assert!(how.contains(&format!("mlflow ui --backend-store-uri {}", store.display())), "{shown}");
    assert_eq!(said(&ctl(&home, &dir, None, &["open", "--print", "--session", "gone"])), store.display().to_string());

    let forgotten = succeeds(&ctl(&home, &dir, None, &["forget", "--yes", "gone"]));
    assert!(forgotten.contains("2 traces of session gone: 2 deleted"), "{forgotten}");
    assert_eq!(traces(&store).len(), 2);
    assert!(!PathBuf::from(path).exists());
    succeeds(&ctl(&home, &dir, None, &["backfill", "--yes"]));
    succeeds(&ctl(&home, &dir, None, &["replay", "--to", "mlflow", "gone"]));
    assert_eq!(traces(&store).len(), 2, "nothing comes back");
}

/// The doctor's findings for `checks` in the project of `home`.
fn findings(home: &Home, checks: &[&str]) -> Vec<(String, String, String)> {
    let mut command: Command = home.command(&tests::bins().ctl);
    command.args(["doctor", "--json", "--wait", "10s"]).current_dir(home.project("work"));
    let output = command.output().expect("the doctor");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = report["findings"].as_array().expect("findings").iter();
    let found = all.filter(|finding| checks.iter().any(|check| finding["check"] == *check));
    found
        .map(|finding| {
            let seen = word(&finding["seen"]) + " → " + &word(&finding["remedy"]);
            (word(&finding["check"]), word(&finding["state"]), seen)
        })
        .collect()
}

/// True if one of them has this state and contains this text.
fn is_said(found: &[(String, String, String)], check: &str, state: &str, what: &str) -> bool {
    found.iter().any(|(name, is, seen)| name == check && is == state && seen.contains(what))
}

#[test]
fn the_doctor_tests_mlflow_with_a_trace_and_names_the_server() {
    for (like, check, state, what) in [
        (GOOD, "probe", "ok", "and deleted again"),
        (Like { version: "3.14.0", ..GOOD }, "server", "warning", "update the server to MLflow 3.15"),
        (Like { version: "3.14.0", ..GOOD }, "probe", "ok", "and deleted again"),
        (Like { store: "FileStore", ..GOOD }, "server", "problem", "--backend-store-uri sqlite"),
        (Like { stage: "deleted", ..GOOD }, "server", "problem", "was deleted"),
    ] {
        let (home, stored) = (Home::new(), Stored::default());
        let server = mlflow(&stored, like);
        home.settings("work", &at_mlflow(&server.url, &[]));
        let found = findings(&home, &["server", "probe"]);
        assert!(is_said(&found, check, state, what), "{what}: {found:?}");
        assert_eq!(stored.len(), 0, "nothing is left");
        let sent = server.spans().len();
        assert_eq!(sent, usize::from(like.store == GOOD.store && like.stage == GOOD.stage), "{found:?}");
    }
}

#[test]
fn the_doctor_tests_an_otlp_receiver_with_a_trace_and_deletes_it_at_phoenix() {
    let (home, stored) = (Home::new(), Stored::default());
    let (plain, known) = (Server::new(), phoenix(&stored));
    for (server, what) in [(&plain, "this receiver is not read back"), (&known, "and deleted again")] {
        home.settings("work", &at_otlp(server));
        let found = findings(&home, &["server", "probe"]);
        assert!(is_said(&found, "probe", "ok", what), "{found:?}");
        assert_eq!(server.spans().len(), 1, "{found:?}");
    }
    assert_eq!(stored.len(), 0);
    plain.change(|_| Answer::status(401));
    home.settings("work", &at_otlp(&plain));
    let found = findings(&home, &["probe"]);
    assert!(is_said(&found, "probe", "problem", "CC_LANGFUSE_OTLP_ENDPOINT"), "{found:?}");
}

#[test]
fn the_doctor_checks_a_file_store() {
    let home = Home::new();
    let (dir, env) = files_of(&home);
    let store = dir.join(".claude/mlflow/runs");
    let found = || findings(&home, &["store"]);
    assert!(is_said(&found(), "store", "ok", "is created with the first trace"), "{:?}", found());
    let is_git = tests::setup::git(&dir, &["init", "-q"]).is_some();
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &env);
    home.flush();
    assert!(is_said(&found(), "store", "ok", "only for you"), "{:?}", found());
    if is_git {
        assert!(is_said(&found(), "store", "ok", "git ignores"), "{:?}", found());
        fs::write(dir.join(".claude/mlflow/.gitignore"), "").expect("emptied");
        assert!(is_said(&found(), "store", "ok", "git ignores"), "by git's own list: {:?}", found());
        fs::write(dir.join(".git/info/exclude"), "").expect("emptied");
        assert!(is_said(&found(), "store", "warning", "git add"), "{:?}", found());
    }
    for open in [home.path(), &dir, &dir.join(".claude"), &dir.join(".claude/mlflow"), &store] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    assert!(is_said(&found(), "store", "warning", "other users"), "{:?}", found());
    assert!(daemon.terminate().success());
    fs::remove_dir_all(&store).expect("removed");
    std::os::unix::fs::symlink(home.path(), &store).expect("a link");
    assert!(is_said(&found(), "store", "problem", "is a link"), "{:?}", found());
}

#[test]
fn the_doctor_recognises_hooks_and_variables_from_guides_of_other_tracers() {
    let home = Home::new();
    let dir = home.project("work").join(".claude");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("hooks.json"), r#"{"stop": {"command": ["python", "stop_hook.py"]}}"#).expect("written");
    let wrong = json!({"environment": {"MLFLOW_CLAUDE_TRACING_ENABLED": "true"}});
    fs::write(dir.join("settings.json"), wrong.to_string()).expect("written");
    let found = findings(&home, &["hooks-file", "project-settings", "tracing"]);
    assert!(is_said(&found, "hooks-file", "warning", "cc-langfusectl setup"), "{found:?}");
    assert!(is_said(&found, "project-settings", "warning", "rename `environment` to `env`"), "{found:?}");
    assert!(is_said(&found, "tracing", "problem", "off for"), "{found:?}");
}

#[test]
fn backfill_and_replay_send_to_one_kind_if_requested() {
    let (langfuse, otlp, stored) = (Server::new(), Server::new(), Stored::default());
    let server = mlflow(&stored, GOOD);
    let home = Home::new();
    let env = [langfuse.env(), at_otlp(&otlp), at_mlflow(&server.url, &[])].concat();
    home.settings("work", &env);
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1");
    story.turn("q2", "a2");
    let sent = || [langfuse.spans().len(), otlp.spans().len(), server.spans().len()];
    succeeds(&home.ctl(&["backfill", "--to", "mlflow", "--yes"]));
    home.flush();
    assert_eq!(sent(), [0, 0, 4]);
    succeeds(&home.ctl(&["replay", "--to", "otlp", "s"]));
    home.flush();
    assert_eq!(sent(), [0, 4, 4]);
    succeeds(&home.ctl(&["replay", "--to", "langfuse", "s"]));
    succeeds(&home.ctl(&["backfill", "--to", "mlflow", "--yes"]));
    home.flush();
    assert_eq!(sent(), [4, 4, 4]);
    home.settings("work", &langfuse.env());
    let nowhere = home.ctl(&["replay", "--to", "mlflow", "s"]);
    assert!(nowhere.status.code() == Some(1) && text(&nowhere).contains("MLFLOW_TRACKING_URI"), "{nowhere:?}");
    assert_eq!(home.ctl(&["backfill", "--to", "kafka"]).status.code(), Some(2));
}

#[test]
fn a_real_mlflow_shows_the_doctors_trace_and_deletes_forgotten_ones() {
    const REAL: &str = "CC_LANGFUSE_TEST_MLFLOW";
    let Ok(programs) = std::env::var(REAL) else {
        return tests::skipped(&format!("{REAL} names no directory with the programs of MLflow 3.17.2"));
    };
    let (home, real) = (Home::new(), real::Real::mlflow(&programs));
    let there = |experiment: &str| {
        let location = json!({"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}});
        let found = real.ask("POST", "/api/3.0/mlflow/traces/search", &json!({"locations": [location]}).to_string());
        found["traces"].as_array().map_or(0, Vec::len)
    };
    let env = at_mlflow(&real.url(), &[]);
    home.settings("work", &env);
    let found = findings(&home, &["server", "probe"]);
    assert!(is_said(&found, "probe", "ok", "and deleted again"), "{found:?}");
    assert!(is_said(&found, "server", "ok", "MLflow 3."), "{found:?}");
    assert_eq!(there("0"), 0, "nothing is left");

    let _daemon = home.daemon();
    let (mut gone, mut kept) = (Story::new(&home, "work", "gone"), Story::new(&home, "work", "kept"));
    turn(&home, &mut gone, &env);
    turn(&home, &mut kept, &env);
    let named = at_mlflow(&real.url(), &[("MLFLOW_EXPERIMENT_NAME", "its own")]);
    turn(&home, &mut gone, &named);
    let own = real.ask("GET", "/api/2.0/mlflow/experiments/get-by-name?experiment_name=its%20own", "");
    let own = own["experiment"]["experiment_id"].as_str().expect("an experiment").to_owned();
    assert_eq!((there("0"), there(&own)), (2, 1));
    let page = said(&home.ctl(&["open", "--print", "gone"]));
    assert!(page.starts_with(&format!("{}/#/experiments/{own}/traces?", real.url())), "{page}");
    let forgotten = succeeds(&home.ctl(&["forget", "--yes", "gone"]));
    assert!(forgotten.contains("2 traces of session gone"), "{forgotten}");
    assert_eq!((there("0"), there(&own)), (1, 0), "{forgotten}");

    real.ask("POST", "/api/2.0/mlflow/experiments/delete", &json!({ "experiment_id": own }).to_string());
    let found = findings(&home, &["server"]);
    assert!(is_said(&found, "server", "problem", "was deleted"), "{found:?}");
}

#[test]
fn a_real_phoenix_deletes_forgotten_traces() {
    const PHOENIX: &str = "CC_LANGFUSE_TEST_PHOENIX";
    let Ok(programs) = std::env::var(PHOENIX) else {
        return tests::skipped(&format!("{PHOENIX} names no directory with the programs of Arize Phoenix"));
    };
    if !real::is_apart("a_real_phoenix_deletes_forgotten_traces") {
        return;
    }
    let (home, real) = (Home::new(), real::phoenix(&programs));
    let there = || real.ask("GET", "/v1/projects/default/traces", "")["data"].as_array().map_or(0, Vec::len);
    let env = vars(&[("CC_LANGFUSE_OTLP_ENDPOINT", &format!("{}/v1/traces", real.url()))]);
    home.settings("work", &env);
    let found = findings(&home, &["probe"]);
    assert!(is_said(&found, "probe", "ok", "and deleted again"), "{found:?}");
    let _daemon = home.daemon();
    let (mut gone, mut kept) = (Story::new(&home, "work", "gone"), Story::new(&home, "work", "kept"));
    turn(&home, &mut gone, &env);
    turn(&home, &mut gone, &env);
    turn(&home, &mut kept, &env);
    // At once, while some of it may not be stored yet.
    let forgotten = succeeds(&home.ctl(&["forget", "--yes", "gone"]));
    assert!(forgotten.contains("2 traces of session gone"), "{forgotten}");
    tests::eventually("only the other session to be there", || there() == 1);
    let page = said(&home.ctl(&["open", "--print", "kept"]));
    assert!(page.starts_with(&format!("{}/redirects/traces/", real.url())), "{page}");
}
