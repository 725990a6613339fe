use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    destination::{
        Kind,
        langfuse::{DEFAULT_BASE_URL, SECRET_KEY},
    },
    project::{Capture, Semantics},
    secret::Secret,
};

const ENV: [(&str, &str); 3] =
    [("TRACE_TO_LANGFUSE", "true"), ("LANGFUSE_PUBLIC_KEY", "pk-1"), ("LANGFUSE_SECRET_KEY", "sk-1")];

fn payload() -> serde_json::Value {
    json!({"session_id": "s-1", "transcript_path": "/home/dev/.claude/projects/x/s-1.jsonl", "cwd": "/home/dev/app",
        "hook_event_name": "Stop", "last_assistant_message": "done"})
}

fn frame(payload: impl Into<Vec<u8>>, env: &[(&str, &str)]) -> Frame {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Frame { id: "e-1".into(), fired_ns: 42, cut: false, env, payload: payload.into() }
}

fn accepted(payload: &serde_json::Value, env: &[(&str, &str)]) -> (Hint, Option<Secret>) {
    let (hint, vars) =
        read(frame(payload.to_string(), env), |_| {}).unwrap_or_else(|refused| panic!("{payload}: {refused:?}"));
    (hint, secret(&Env::of(&vars)))
}

fn secret(env: &Env<'_>) -> Option<Secret> {
    env.destination().ok()?.1.get(SECRET_KEY).cloned()
}

fn refused(payload: impl Into<Vec<u8>>, env: &[(&str, &str)]) -> Option<Refused> {
    read(frame(payload, env), |_| {}).err()
}

/// `ENV` with added or replaced values.
fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    ENV.into_iter().chain(more.iter().copied()).collect()
}

fn is(secret: Option<Secret>, key: &str) -> bool {
    secret == Some(Secret::new(key))
}

#[test]
fn an_event_becomes_a_hint_without_secrets() {
    let (hint, secret) = accepted(&payload(), &ENV);
    let expect = Hint {
        id: "e-1".into(),
        source: Source::Hook,
        fired_ns: 42,
        session_id: "s-1".into(),
        transcript: "/home/dev/.claude/projects/x/s-1.jsonl".into(),
        event: Event::Stopped { answer: Some(Fingerprint::of("done")) },
        config_dir: None,
        project_dirs: vec!["/home/dev/app".into()],
        targets: vec![
            Destination { kind: Kind::Langfuse, address: "https://cloud.langfuse.com".into(), account: "pk-1".into() }
                .into(),
        ],
        former: Vec::new(),
        settings_on: false,
        options: Options::default(),
        debug: false,
        totals_follow: false,
    };
    assert_eq!(hint, expect);
    assert!(is(secret, "sk-1"));
    let stored = serde_json::to_string(&hint).unwrap();
    assert!(!stored.contains("sk-1"));
    assert_eq!(serde_json::from_str::<Hint>(&stored).unwrap(), hint);
}

#[test]
fn events_of_untraced_projects_are_refused_unread() {
    for switch in [None, Some(""), Some("false"), Some("1"), Some("yes"), Some("truely"), Some(" ")] {
        let env: Vec<_> =
            switch.map(|value| ("TRACE_TO_LANGFUSE", value)).into_iter().chain(ENV[1..].to_vec()).collect();
        assert_eq!(refused(payload().to_string(), &env), Some(Refused::NotEnabled), "{switch:?}");
        assert_eq!(refused("not json", &env), Some(Refused::NotEnabled), "{switch:?}");
    }
    for switch in ["true", "TRUE", "True"] {
        assert_eq!(refused(payload().to_string(), &with(&[("TRACE_TO_LANGFUSE", switch)])), None, "{switch}");
    }
}

#[test]
fn a_payload_that_is_not_a_json_object_is_refused() {
    for payload in ["", " ", "null", "[]", "\"text\"", "{", "{\"session_id\":\"s\"", "{} {}", "\u{0}"] {
        assert_eq!(refused(payload, &ENV), Some(Refused::NotJson), "{payload:?}");
    }
    let cut = payload().to_string();
    assert_eq!(refused(&cut[..cut.len() - 1], &ENV), Some(Refused::NotJson), "an end that is missing");
}

#[test]
fn an_event_needs_a_session_and_a_transcript() {
    for (key, value, expect) in [
        ("session_id", json!(null), Refused::FieldsMissing),
        ("session_id", json!(""), Refused::FieldsMissing),
        ("session_id", json!(7), Refused::NotJson),
        ("transcript_path", json!(null), Refused::FieldsMissing),
        ("transcript_path", json!(["/a.jsonl"]), Refused::NotJson),
        ("transcript_path", json!(""), Refused::TranscriptPath),
        ("transcript_path", json!("relative/s-1.jsonl"), Refused::TranscriptPath),
        ("transcript_path", json!("~/s-1.jsonl"), Refused::TranscriptPath),
        ("transcript_path", json!("/etc/passwd"), Refused::TranscriptPath),
        ("transcript_path", json!("/home/dev/s-1.json"), Refused::TranscriptPath),
        ("transcript_path", json!("/home/dev/.jsonl"), Refused::TranscriptPath),
    ] {
        let mut payload = payload();
        payload[key] = value;
        assert_eq!(refused(payload.to_string(), &ENV), Some(expect), "{payload}");
        payload.as_object_mut().unwrap().remove(key);
        assert_eq!(refused(payload.to_string(), &ENV), Some(Refused::FieldsMissing), "{payload}");
    }
    assert_eq!(refused("{}", &ENV), Some(Refused::FieldsMissing));
}

#[test]
fn unused_fields_may_have_any_value() {
    let mut payload = payload();
    for (key, value) in
        [("cwd", json!(7)), ("last_assistant_message", json!({"text": "x"})), ("new_field", json!([{"a": 1.5}]))]
    {
        payload[key] = value;
    }
    let (hint, _) = accepted(&payload, &ENV);
    assert_eq!((hint.event, hint.project_dirs), (Event::Stopped { answer: None }, vec![]));
}

#[test]
fn the_fields_before_a_cut_count() {
    let whole = r#"{"session_id":"s-1","transcript_path":"/a/s-1.jsonl","hook_event_name":"Stop","last_assistant_message":"long"#;
    let cut = |payload: &str| read(Frame { cut: true, ..frame(payload, &ENV) }, |_| {});
    let (hint, _) = cut(whole).unwrap_or_else(|refused| panic!("{refused:?}"));
    assert_eq!((hint.session_id.as_str(), hint.event), ("s-1", Event::Stopped { answer: None }));
    assert_eq!(cut(r#"{"session_id":"s-1","prompt":"long"#).err(), Some(Refused::FieldsMissing));
    assert_eq!(cut(r#"{"prompt":"long"#).err(), Some(Refused::NotJson));
    assert_eq!(refused(whole, &ENV), Some(Refused::NotJson), "only where it says so");
}

#[test]
fn the_meaning_of_an_event_follows_from_its_name_and_subject() {
    let stopped = |answer: Option<&str>| Event::Stopped { answer: answer.map(Fingerprint::of) };
    let agent_stopped = || Event::AgentStopped { agent: "agent-1".into() };
    for (name, agent, answer, expect) in [
        (json!("Stop"), None, json!("done"), stopped(Some("done"))),
        (json!("Stop"), None, json!(" \n"), stopped(None)),
        (json!("Stop"), None, json!(null), stopped(None)),
        (json!("StopFailure"), None, json!("API Error"), stopped(Some("API Error"))),
        (json!("Stop"), Some("agent-1"), json!("done"), agent_stopped()),
        (json!("StopFailure"), Some("agent-1"), json!("done"), agent_stopped()),
        (json!("SessionEnd"), None, json!(null), Event::Ended),
        (json!("Replay"), None, json!(null), Event::Ended),
        (json!("SubagentStop"), Some("agent-1"), json!("done"), agent_stopped()),
        (json!("PostToolUse"), Some("agent-1"), json!(null), Event::Other),
        (json!("UserPromptSubmit"), None, json!(null), Event::Other),
        (json!("stop"), None, json!("done"), Event::Other),
        (json!(null), None, json!("done"), Event::Other),
    ] {
        let mut payload = payload();
        payload["hook_event_name"] = name;
        payload["last_assistant_message"] = answer;
        if let Some(agent) = agent {
            payload["agent_id"] = json!(agent);
        }
        assert_eq!(accepted(&payload, &ENV).0.event, expect, "{payload}");
    }
}

#[test]
fn a_returned_tool_has_its_run_time_if_the_hook_reports_it() {
    let ended = |took_ms| Event::ToolEnded { tool: "t-1".into(), took_ms };
    for (name, tool, took, expect) in [
        ("PostToolUse", json!("t-1"), json!(1234), ended(1234)),
        ("PostToolUseFailure", json!("t-1"), json!(0.5), ended(0)),
        ("PostToolUse", json!("t-1"), json!(null), Event::Other),
        ("PostToolUse", json!("t-1"), json!(-1), Event::Other),
        ("PostToolUse", json!("t-1"), json!("12"), Event::Other),
        ("PostToolUse", json!(null), json!(1234), Event::Other),
        ("PreToolUse", json!("t-1"), json!(1234), Event::Other),
    ] {
        let mut payload = payload();
        (payload["hook_event_name"], payload["tool_use_id"], payload["duration_ms"]) = (json!(name), tool, took);
        assert_eq!(accepted(&payload, &ENV).0.event, expect, "{payload}");
    }
}

#[test]
fn half_a_surrogate_pair_does_not_lose_the_event() {
    let payload = r#"{"session_id":"s-1","transcript_path":"/a/s-1.jsonl","hook_event_name":"Stop","last_assistant_message":"cut \ud83d"}"#;
    assert_eq!(refused(payload, &ENV), None);
}

#[test]
fn half_a_surrogate_pair_in_an_unused_field_is_ignored() {
    let payload =
        r#"{"session_id":"s-1","prompt":"cut \ud83d","transcript_path":"/a/s-1.jsonl","hook_event_name":"Stop"}"#;
    assert_eq!(refused(payload, &ENV), None);
}

#[test]
fn settings_are_searched_in_the_directories_of_session_and_project() {
    for (cwd, project, expect) in [
        (json!("/a"), None, vec!["/a"]),
        (json!("/a"), Some("/b"), vec!["/a", "/b"]),
        (json!("/a"), Some("/a"), vec!["/a"]),
        (json!("a"), Some("./b"), vec![]),
        (json!(null), Some("/b"), vec!["/b"]),
        (json!(null), None, vec![]),
    ] {
        let mut payload = payload();
        payload["cwd"] = cwd;
        let env = with(&project.map(|dir| ("CLAUDE_PROJECT_DIR", dir)).into_iter().collect::<Vec<_>>());
        let expect: Vec<PathBuf> = expect.into_iter().map(PathBuf::from).collect();
        assert_eq!(accepted(&payload, &env).0.project_dirs, expect);
    }
}

#[test]
fn cc_langfuse_trace_alone_turns_no_kind_of_backend_on() {
    const TRACE: (&str, &str) = ("CC_LANGFUSE_TRACE", "true");
    let event = || frame(payload().to_string(), &[TRACE, ENV[1], ENV[2]]);
    assert_eq!(read(event(), |_| {}).err(), Some(Refused::NoDestination));
    let theirs = accepted(&payload(), &ENV).0.targets;
    let joined = read(event(), |hint| hint.targets.clone_from(&theirs)).unwrap().0;
    assert_eq!(joined.targets, theirs);
    assert!(Env::new([ENV[1], ENV[2]]).destination().is_ok(), "nothing is on: where they could go");
    assert_eq!(Env::new([TRACE, ENV[1], ENV[2]]).destination().err(), Some(Refused::KeysMissing));
    assert!(Env::new([TRACE, ENV[0], ENV[1], ENV[2]]).destination().is_ok());
}

#[test]
fn a_public_key_is_required_and_the_secret_key_may_come_later() {
    let event = payload().to_string();
    assert_eq!(refused(event.clone(), &ENV[..1]), Some(Refused::KeysMissing));
    assert_eq!(refused(event.clone(), &[ENV[0], ENV[2], ("LANGFUSE_PUBLIC_KEY", " ")]), Some(Refused::KeysMissing));
    assert_eq!(refused(event, &[ENV[0], ENV[2]]), Some(Refused::KeysMissing));
    assert!(accepted(&payload(), &ENV[..2]).1.is_none());
}

#[test]
fn prefixed_variables_win_unless_they_are_empty() {
    let all = [
        ("CC_LANGFUSE_PUBLIC_KEY", "pk-2"),
        ("CC_LANGFUSE_SECRET_KEY", "sk-2"),
        ("CC_LANGFUSE_BASE_URL", "https://two.example.org"),
        ("LANGFUSE_BASE_URL", "https://one.example.org"),
    ];
    let (hint, secret) = accepted(&payload(), &with(&all));
    assert_eq!(
        (hint.targets[0].destination.account.as_str(), hint.targets[0].destination.address.as_str()),
        ("pk-2", "https://two.example.org")
    );
    assert!(is(secret, "sk-2"));
    let empty = all.map(|(name, value)| (name, if name.starts_with("CC_") { "" } else { value }));
    let (hint, secret) = accepted(&payload(), &with(&empty));
    assert_eq!(
        (hint.targets[0].destination.account.as_str(), hint.targets[0].destination.address.as_str()),
        ("pk-1", "https://one.example.org")
    );
    assert!(is(secret, "sk-1"));
}

#[test]
fn a_key_from_a_settings_file_equals_the_key_from_an_event() {
    let env = Env::new(ENV);
    assert!(is(secret(&env), "sk-1"));
    assert!(is(accepted(&payload(), &ENV).1, "sk-1"));
    assert!(secret(&Env::new([])).is_none());
}

#[test]
fn blanks_around_a_key_are_removed() {
    let blank = with(&[("LANGFUSE_SECRET_KEY", " sk-1\n"), ("LANGFUSE_PUBLIC_KEY", " pk-1 ")]);
    let (hint, secret) = accepted(&payload(), &blank);
    assert_eq!(hint.targets[0].destination.account, "pk-1");
    assert!(is(secret, "sk-1"));
}

#[test]
fn an_address_is_canonical_and_without_secrets() {
    for (url, expect) in [
        (None, Some(DEFAULT_BASE_URL)),
        (Some(""), Some(DEFAULT_BASE_URL)),
        (Some("https://lf.example.org"), Some("https://lf.example.org")),
        (Some(" https://LF.Example.org/ "), Some("https://lf.example.org")),
        (Some("http://localhost:3000//"), Some("http://localhost:3000")),
        (Some("https://lf.example.org/sub/path/"), Some("https://lf.example.org/sub/path")),
        (Some("https://me:secret@lf.example.org/x"), Some("https://lf.example.org/x")),
        (Some("https://lf.example.org/x?key=secret#top"), Some("https://lf.example.org/x")),
        (Some("http://[::1]:3000"), Some("http://[::1]:3000")),
        (Some("lf.example.org"), None),
        (Some("ftp://lf.example.org"), None),
        (Some("file:///etc"), None),
        (Some("/relative"), None),
        (Some("https://"), None),
        (Some("https://a b"), None),
    ] {
        let more: Vec<_> = url.map(|url| ("LANGFUSE_BASE_URL", url)).into_iter().collect();
        let found = Env::new(with(&more)).destination().map(|(to, _)| to.address);
        assert_eq!(found, expect.map(str::to_owned).ok_or(Refused::BaseUrl), "{url:?}");
    }
}

#[test]
fn only_tls_and_loopback_are_private() {
    for (url, expect) in [
        ("https://lf.example.org", true),
        ("https://10.0.0.1:8443/sub", true),
        ("http://localhost:3000", true),
        ("http://LOCALHOST", true),
        ("http://127.0.0.1:3000/sub", true),
        ("http://127.8.9.10", true),
        ("http://[::1]:3000", true),
        ("http://someone:else@127.0.0.1", true),
        ("HTTP://127.0.0.1", true),
        // Other spellings of an address; the connection uses the canonical one.
        ("http://localhost.", true),
        ("http://127.1", true),
        ("http://2130706433", true),
        ("http://0x7f.0.0.1", true),
        ("http://0177.0.0.1", true),
        ("http://lf.example.org", false),
        ("http://127.0.0.1.evil.example", false),
        ("http://localhost.evil.example", false),
        ("http://evil.example/127.0.0.1", false),
        ("http://evil.example?http://localhost", false),
        ("http://evil.example#@localhost", false),
        ("http://127.0.0.1@evil.example", false),
        ("http://localhost:80@evil.example", false),
        ("http://localhost.localdomain", false),
        ("http://notlocalhost", false),
        ("http://0.0.0.0", false),
        ("http://10.0.0.1", false),
        ("http://128.0.0.1", false),
        ("http://[::]", false),
        ("http://[::ffff:127.0.0.1]", false),
        ("http://[::ffff:10.0.0.1]", false),
        ("http://[::127.0.0.1]", false),
        ("http://[fe80::1]", false),
    ] {
        let destination = Env::new(with(&[("LANGFUSE_BASE_URL", url)])).destination().unwrap().0;
        assert_eq!(destination.is_private(), expect, "{url}: {}", destination.address);
    }
}

#[test]
fn langfuse_host_is_an_alias_of_the_base_url() {
    for (more, expect) in [
        (vec![("LANGFUSE_HOST", "https://a.example.org")], "https://a.example.org"),
        (
            vec![("LANGFUSE_HOST", "https://a.example.org"), ("LANGFUSE_BASE_URL", "https://b.example.org")],
            "https://b.example.org",
        ),
        (
            vec![("CC_LANGFUSE_HOST", "https://a.example.org"), ("LANGFUSE_BASE_URL", "https://b.example.org")],
            "https://b.example.org",
        ),
    ] {
        assert_eq!(accepted(&payload(), &with(&more)).0.targets[0].destination.address, expect, "{more:?}");
    }
}

#[test]
fn options_are_parsed_and_invalid_ones_ignored() {
    let set = |more: &[(&str, &str)]| Env::new(more.iter().copied()).options();
    let base = Options::default;
    for (name, value, expect) in [
        ("CC_LANGFUSE_SEMANTICS", "Measured", Options { semantics: Semantics::Measured, ..base() }),
        ("CC_LANGFUSE_SEMANTICS", "spec", base()),
        ("CC_LANGFUSE_SEMANTICS", "guessed", base()),
        ("CC_LANGFUSE_SCORES", "Off", Options { unscored: true, ..base() }),
        ("CC_LANGFUSE_SCORES", "on", base()),
        ("CC_LANGFUSE_SCORES", "guessed", base()),
        ("CC_LANGFUSE_CAPTURE", "Metadata", Options { capture: Capture::Metadata, ..base() }),
        ("CC_LANGFUSE_CAPTURE", "full", base()),
        ("CC_LANGFUSE_CAPTURE", "guessed", base()),
        ("LANGFUSE_TRACING_ENVIRONMENT", "Staging", Options { environment: Some("staging".into()), ..base() }),
        ("LANGFUSE_TRACING_ENVIRONMENT", "not one!", base()),
        ("LANGFUSE_RELEASE", "v7", Options { release: Some("v7".into()), ..base() }),
        ("CC_LANGFUSE_RELEASE", "v8", Options { release: Some("v8".into()), ..base() }),
        ("LANGFUSE_USER_ID", "ada", Options { user_id: Some("ada".into()), ..base() }),
        ("CC_LANGFUSE_TAGS", " a, b c,,", Options { tags: vec!["a".into(), "b c".into()], ..base() }),
        ("CC_LANGFUSE_TAGS", ",", base()),
        (
            "CC_LANGFUSE_METADATA",
            r#"{"team":"tools","n":7,"deep":{"a":[1]}}"#,
            Options {
                metadata: [("team", "tools"), ("n", "7"), ("deep", r#"{"a":[1]}"#)]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                ..base()
            },
        ),
        ("CC_LANGFUSE_METADATA", "[1]", base()),
        ("CC_LANGFUSE_METADATA", "{", base()),
        ("LANGFUSE_SAMPLE_RATE", "0.25", Options { sample_rate: Some(0.25), ..base() }),
        ("LANGFUSE_SAMPLE_RATE", "0", Options { sample_rate: Some(0.0), ..base() }),
        ("LANGFUSE_SAMPLE_RATE", "1", base()),
        ("LANGFUSE_SAMPLE_RATE", "1.5", base()),
        ("LANGFUSE_SAMPLE_RATE", "-1", base()),
        ("LANGFUSE_SAMPLE_RATE", "NaN", base()),
        ("LANGFUSE_SAMPLE_RATE", "half", base()),
    ] {
        assert_eq!(set(&[(name, value)]), expect, "{name}={value}");
    }
    assert_eq!(set(&[]), base());
}

#[test]
fn a_project_can_turn_on_the_debug_log() {
    for (value, expect) in [("true", true), ("TRUE", true), ("1", false), ("", false)] {
        assert_eq!(accepted(&payload(), &with(&[("CC_LANGFUSE_DEBUG", value)])).0.debug, expect, "{value}");
    }
}

#[test]
fn every_refusal_has_its_own_reason() {
    use Refused::{BaseUrl, FieldsMissing, Frame, KeysMissing, NotEnabled, NotJson, TranscriptPath};
    let all = [Frame, NotJson, FieldsMissing, TranscriptPath, NotEnabled, KeysMissing, BaseUrl];
    let names: std::collections::BTreeSet<_> = all.map(Refused::reason).into();
    assert_eq!(names.len(), all.len());
    assert!(names.iter().all(|name| name.starts_with("hook_")));
}

proptest! {
    #[test]
    fn arbitrary_payloads_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..300), cut in any::<bool>()) {
        let _ = read(Frame { cut, ..frame(payload, &ENV) }, |_| {});
    }

    #[test]
    fn a_truncated_or_changed_payload_never_panics(at in 0usize..200, byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = payload().to_string().into_bytes();
        let at = at % bytes.len();
        let _ = read(Frame { cut, ..frame(&bytes[..at], &ENV) }, |_| {});
        bytes[at] = byte;
        let _ = read(Frame { cut, ..frame(bytes, &ENV) }, |_| {});
    }

    #[test]
    fn arbitrary_settings_never_panic_and_an_accepted_address_is_stable(
        values in proptest::collection::vec("\\PC*", 8),
        url in "(https?://)?[a-zA-Z0-9@:./?#\\[\\]-]{0,40}",
    ) {
        let names = ["LANGFUSE_RELEASE", "LANGFUSE_USER_ID", "CC_LANGFUSE_TAGS", "CC_LANGFUSE_METADATA",
            "CC_LANGFUSE_SEMANTICS", "LANGFUSE_SAMPLE_RATE", "LANGFUSE_TRACING_ENVIRONMENT", "CLAUDE_PROJECT_DIR"];
        let more: Vec<_> = names.into_iter().zip(values.iter().map(String::as_str)).chain([("LANGFUSE_BASE_URL", url.as_str())]).collect();
        if let Ok((hint, _)) = read(frame(payload().to_string(), &with(&more)), |_| {}) {
            let once = hint.targets[0].destination.address.clone();
            let env = with(&[("LANGFUSE_BASE_URL", once.as_str())]);
            prop_assert_eq!(Env::new(env).destination().map(|(to, _)| to.address), Ok(once.clone()));
        }
    }
}

#[test]
fn an_incoming_event_takes_its_source_from_its_id() {
    for (id, source) in [
        ("1f-2a", Source::Hook),
        ("scan-s-1", Source::Scan),
        ("recover-s-1", Source::Recovery),
        ("again-s-1", Source::Reread),
        ("backfill-1", Source::Backfill),
        ("replay-1", Source::Replay),
    ] {
        let (hint, _) = read(Frame { id: id.into(), ..frame(payload().to_string(), &ENV) }, |_| {}).unwrap();
        assert_eq!(hint.source, source, "{id}");
    }
}

#[test]
fn a_stored_event_keeps_its_source_or_has_it_from_its_id() {
    let (hint, _) = accepted(&payload(), &ENV);
    let all = [Source::Hook, Source::Scan, Source::Recovery, Source::Reread, Source::Backfill, Source::Replay];
    for source in all {
        let hint = Hint { source, ..hint.clone() };
        let stored = serde_json::to_value(&hint).unwrap();
        assert_eq!(stored.get("source").is_some(), source != Source::Hook, "{stored}");
        assert_eq!(serde_json::from_value::<Hint>(stored).unwrap(), hint);
        let mut earlier = serde_json::to_value(Hint { id: source.id("1"), ..hint.clone() }).unwrap();
        earlier.as_object_mut().unwrap().remove("source");
        assert_eq!(serde_json::from_value::<Hint>(earlier).unwrap().source, source);
    }
    let mut newer = serde_json::to_value(Hint { source: Source::Scan, ..hint }).unwrap();
    newer["source"] = "Elsewhere".into();
    assert!(serde_json::from_value::<Hint>(newer).is_err(), "for a version that knows it");
}
