use super::*;
use crate::doctor::State;

fn file(place: Place, text: &str) -> File {
    let path = PathBuf::from(format!("/{place:?}"));
    File { place, path, content: Content::Text(text.to_owned().into()), tracked: place == Place::Project }
}

fn only(text: &str) -> (Settings, Vec<Finding>) {
    read(&[file(Place::User, text)], [])
}

#[test]
fn commands_of_this_hook_and_of_the_other_tracer_are_recognised() {
    for (command, own, other) in [
        ("/home/a/cc-langfuse-hook", Some("/home/a/cc-langfuse-hook"), None),
        ("'/home/a b/cc-langfuse-hook'", Some("/home/a b/cc-langfuse-hook"), None),
        (r#"X=1 "$HOME/bin/cc-langfuse-hook" --x"#, Some("$HOME/bin/cc-langfuse-hook"), None),
        (r"/a\ b/cc-langfuse-hook;true", Some("/a b/cc-langfuse-hook"), None),
        ("npx -y cc-langfuse", None, Some("cc-langfuse")),
        ("pnpm dlx github:elct9620/cc-langfuse#main", None, Some("github:elct9620/cc-langfuse#main")),
        ("npx cc-langfuse@0.2.2", None, Some("cc-langfuse@0.2.2")),
        ("node /x/cc-langfuse/dist/index.js", None, Some("/x/cc-langfuse/dist/index.js")),
        ("my-hook cc-langfused", None, None),
        ("", None, None),
    ] {
        assert_eq!((program(command).as_deref(), other_program(command).as_deref()), (own, other), "{command}");
    }
}

#[test]
fn an_unsupported_event_is_reported_because_it_turns_off_all_hooks() {
    let text = |event: &str| {
        format!(
            r#"{{"hooks":{{"Stop":[{{"hooks":[{{"type":"command","command":"/cc-langfuse-hook"}}]}}],"{event}":[]}}}}"#
        )
    };
    for (event, version, expect) in [
        ("SessionEnd", Some(Version(1, 0, 59)), State::Problem),
        ("SessionEnd", Some(Version(2, 0, 75)), State::Ok),
        ("StopFailure", Some(Version(2, 1, 71)), State::Problem),
        ("StopFailure", Some(Version(2, 1, 80)), State::Warning),
        ("StopFailure", Some(Version(2, 1, 94)), State::Ok),
        ("TaskCreated", Some(Version(2, 1, 3)), State::Problem),
        ("TaskCreated", Some(Version(2, 1, 94)), State::Warning),
        ("Nonsense", Some(Version(2, 1, 120)), State::Ok),
        ("Nonsense", None, State::Ok),
    ] {
        let finding = only(&text(event)).0.judge_events(version, None);
        assert_eq!(finding.state, expect, "{event} {version:?}: {finding:?}");
    }
}

#[test]
fn settings_that_claude_code_refuses_are_reported() {
    for (text, expect) in [
        ("[]", "not a JSON object"),
        (r#"{"env":[]}"#, "`env` is not"),
        (r#"{"env":{"A":{}}}"#, "`env.A` is not"),
        (r#"{"hooks":[]}"#, "`hooks` is not"),
        (r#"{"hooks":{"Stop":[{}]}}"#, "an entry of `hooks.Stop`"),
        (r#"{"hooks":{"Stop":[{"hooks":[{"type":"command"}]}]}}"#, "no `command`"),
        ("{\n\"env\": {\"LANGFUSE_SECRET_KEY\": \"sk-1\"", "not valid JSON"),
    ] {
        let (_, findings) = only(text);
        assert_eq!(findings[0].state, State::Problem, "{text}");
        assert!(findings[0].seen.contains(expect) && !findings[0].seen.contains("sk-1"), "{}", findings[0].seen);
    }
    let good = r#"{"hooks":{"Stop":[{"hooks":[{"type":"prompt"}]}]},"env":{"A":1}}"#;
    assert_eq!([good, &format!("\u{feff}{good}")].map(|text| only(text).1[0].state), [State::Ok; 2]);
}

#[test]
fn the_stronger_settings_win_and_an_empty_value_unsets() {
    let on = r#"{"env":{"TRACE_TO_LANGFUSE":"true","LANGFUSE_PUBLIC_KEY":"pk-1","LANGFUSE_SECRET_KEY":"sk-1"},"cleanupPeriodDays":7}"#;
    let state = |files: &[File]| {
        let (settings, _) = read(files, [("TRACE_TO_LANGFUSE".to_owned(), "false".to_owned())]);
        settings.judge_project(Path::new("/p"))
    };
    assert_eq!(
        state(&[])[0].seen,
        "off for /p: TRACE_TO_LANGFUSE is set by the environment to something other than \"true\""
    );
    assert_eq!(state(&[file(Place::User, on)])[0].seen, "on for /p, by /User");
    let off = file(Place::Local, r#"{"env":{"TRACE_TO_LANGFUSE":""}}"#);
    assert_eq!(state(&[file(Place::User, on), off])[0].state, State::Problem);
    let tracked = state(&[file(Place::Project, on)]);
    assert_eq!(tracked.last().map(|finding| (finding.check, finding.state)), Some(("tracked-keys", State::Warning)));
    assert_eq!((only(on).0.cleanup_days(), only("{}").0.cleanup_days()), (7, 30));
    let managed = read(&[file(Place::Managed, r#"{"allowManagedHooksOnly":true}"#)], []).0;
    assert_eq!(managed.judge_hooks(None, None)[0].state, State::Problem);
}

#[test]
fn keys_are_judged_even_if_the_address_is_wrong() {
    for (address, keys, base_url) in [
        ("https://x.example", State::Ok, State::Ok),
        ("http://x.example", State::Ok, State::Problem),
        ("x.example", State::Ok, State::Problem),
        ("ftp://x.example", State::Ok, State::Problem),
    ] {
        for (secret, keys) in [(r#","LANGFUSE_SECRET_KEY":"sk-1""#, keys), ("", State::Problem)] {
            let settings = format!(
                r#"{{"env":{{"TRACE_TO_LANGFUSE":"true","LANGFUSE_BASE_URL":"{address}","LANGFUSE_PUBLIC_KEY":"pk-1"{secret}}}}}"#
            );
            let findings = only(&settings).0.judge_project(Path::new("/p"));
            let state = |check| findings.iter().find(|finding| finding.check == check).map(|finding| finding.state);
            assert_eq!((state("keys"), state("base-url")), (Some(keys), Some(base_url)), "{address} {secret}");
        }
    }
}

#[test]
fn mlflows_settings_are_judged_and_its_own_integration_is_reported() {
    let judged = |more: &str, rest: &str| {
        let settings = format!(r#"{{"env":{{"MLFLOW_CLAUDE_TRACING_ENABLED":"yes"{more}}}{rest}}}"#);
        let findings = only(&settings).0.judge_project(Path::new("/p"));
        findings.into_iter().filter(|finding| finding.check.starts_with("mlflow")).collect::<Vec<_>>()
    };
    let uri = |uri: &str| format!(r#","MLFLOW_TRACKING_URI":"{uri}""#);
    for (uri, state, seen) in [
        (String::new(), State::Ok, "files in /p/.claude/mlflow/runs, experiment 0"),
        (uri("http://127.0.0.1:5000"), State::Ok, "http://127.0.0.1:5000, experiment 0"),
        (uri("http://mlflow.example"), State::Warning, "unencrypted"),
        (uri("sqlite:///x.db"), State::Problem, "mlflow server --backend-store-uri sqlite:///x.db"),
        (uri("file://name"), State::Problem, "neither a server nor a directory"),
    ] {
        let findings = judged(&uri, "");
        assert_eq!(findings.len(), 1, "{uri}");
        assert!(findings[0].state == state && findings[0].seen.contains(seen), "{uri} {:?}", findings[0]);
    }
    let plugin = r#","enabledPlugins":{"mlflow-tracing@mlflow-plugins":true}"#;
    assert_eq!(judged("", plugin).iter().filter(|finding| finding.check == "mlflow-own").count(), 1);
}
