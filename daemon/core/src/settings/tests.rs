use super::*;

const HOOK_PATH: &str = "/home/dev/.local/bin/cc-langfuse-hook";

const ENV: [(&str, &str); 2] = [("TRACE_TO_LANGFUSE", "true"), ("LANGFUSE_SECRET_KEY", "sk-lf-1")];

fn desired<'a>(events: &'a [&'a str]) -> Desired<'a> {
    static NOTHING: BTreeMap<String, String> = BTreeMap::new();
    Desired { hook: HOOK_PATH, events, env: &ENV, elsewhere: &NOTHING, replaces_mlflow: None, status_line: None }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(split_mark(text).1).unwrap()
}

/// Settings files as people write them.
const FILES: &[&str] = &[
    "",
    "\n",
    "{}",
    "{ }\n",
    "{\n}\n",
    "\u{feff}{\r\n  \"model\": \"opus\"\r\n}\r\n",
    r#"{"env":{"A":"1"},"hooks":{"Stop":[{"hooks":[{"type":"command","command":"say done"}]}]}}"#,
    "{\n\t\"hooks\": {},\n\t\"env\": { }\n}",
    "{\n  \"hooks\": {\n    \"Stop\": [\n    ],\n    \"PreToolUse\": [ {\"matcher\": \"Bash\", \"hooks\": []} ]\n  }\n}",
    "{\n  \"env\": {\"LANGFUSE_SECRET_KEY\": \"old\", \"LANGFUSE_SECRET_KEY\": \"older\", \"Z\": \"\\u00e9\"},\n  \"x\": [1,\n2]\n}",
    "{\n    \"hooks\": {\n        \"Stop\": [{ \"hooks\": [{ \"type\": \"command\", \"command\": \"A=1 '/old/cc-langfuse-hook'\" }, {\"type\":\"command\",\"command\":\"x\"}] }]\n    }\n}\n",
    "{\n  \"hooks\": {\"Stop\": [{\"hooks\": [{\"command\": \"/home/dev/.local/bin/cc-langfuse-hook\"}]}]},\n  \"env\": {\"TRACE_TO_LANGFUSE\": \"true\", \"CC_LANGFUSE_SECRET_KEY\": \"mine\"}\n}",
];

#[test]
fn undo_restores_the_text_byte_for_byte() {
    for file in FILES {
        for events in [&["Stop"][..], &["Stop", "SessionEnd"]] {
            let (text, ours) = apply(file, desired(events)).unwrap();
            let value = parsed(&text);
            for event in events {
                let all = value["hooks"][event].to_string();
                // Once where it is looked for, and once where it is run.
                assert_eq!(all.matches(HOOK).count() - all.matches("[ -x ").count(), 1, "{text}");
                assert!(all.contains(HOOK_PATH), "{text}");
            }
            assert_eq!(value["env"]["TRACE_TO_LANGFUSE"], "true");
            assert!(!ours.env.is_empty());
            // A second time changes nothing.
            assert_eq!(apply(&text, desired(events)).unwrap(), (text.clone(), Ours::default()));
            assert_eq!(undo(&text, Some(file), &ours).unwrap().as_deref(), Some(*file), "{text}");
            assert_eq!(undo(file, Some(file), &ours).unwrap().as_deref(), Some(*file));
        }
    }
}

#[test]
fn later_additions_of_others_are_kept() {
    for file in FILES {
        let (text, ours) = apply(file, desired(&["Stop", "SessionEnd"])).unwrap();
        let others = [
            edit::put(split_mark(&text).1, &[Step::Key("env"), Step::Key("LATER")], &"1".into()).unwrap(),
            edit::push(
                split_mark(&text).1,
                &[Step::Key("hooks"), Step::Key("Stop")],
                &json!({"hooks": [{"command": "later"}]}),
            )
            .unwrap(),
            edit::put(split_mark(&text).1, &[Step::Key("LATER")], &json!({})).unwrap(),
        ];
        for other in others {
            let left = undo(&other, Some(file), &ours).unwrap().unwrap();
            assert!(left.to_lowercase().contains("later") && !left.contains("sk-lf-1"), "{left}");
            let mut expected = if file.trim().is_empty() { json!({}) } else { parsed(file) };
            if left.contains("LATER") && parsed(&left).get("LATER").is_some() {
                expected["LATER"] = json!({});
            } else if left.contains("LATER") {
                expected["env"]["LATER"] = "1".into();
            } else {
                let mut stop = expected["hooks"]["Stop"].as_array().cloned().unwrap_or_default();
                stop.push(json!({"hooks": [{"command": "later"}]}));
                expected["hooks"]["Stop"] = stop.into();
            }
            assert_eq!(parsed(&left), expected, "{left}");
        }
    }
}

#[test]
fn without_a_record_only_the_hook_is_removed() {
    let (text, _) = apply("", desired(&["Stop", "SessionEnd"])).unwrap();
    let ours = registered(&text).unwrap();
    assert_eq!((&*ours.events, ours.env.len()), (&["Stop".to_owned(), "SessionEnd".to_owned()][..], 0));
    let left = undo(&text, None, &ours).unwrap().unwrap();
    assert_eq!(parsed(&left), json!({"env": {"TRACE_TO_LANGFUSE": "true", "LANGFUSE_SECRET_KEY": "sk-lf-1"}}));
    let (text, ours) = apply("", desired(&["Stop"])).unwrap();
    assert_eq!(undo(&text, None, &ours).unwrap(), None);
    assert_eq!(registered("").unwrap(), Ours::default());
}

#[test]
fn several_registrations_keep_their_positions() {
    let hooks = |commands: &[&str]| {
        let hooks: Vec<Value> = commands.iter().map(|command| json!({"type": "command", "command": command})).collect();
        json!({"hooks": {"Stop": [{"hooks": hooks}]}}).to_string()
    };
    let (a, b) = ("/a/cc-langfuse-hook", "/b/cc-langfuse-hook");
    let file = hooks(&[a, "say", b]);
    let (text, ours) = apply(&file, desired(&["Stop"])).unwrap();
    assert!(text.contains(HOOK_PATH) && !text.contains(a) && text.contains(b), "{text}");
    let since = |text: &str| edit::put(text, &[Step::Key("later")], &json!(1)).unwrap();
    assert_eq!(parsed(&undo(&since(&text), Some(&file), &ours).unwrap().unwrap()), parsed(&since(&file)));
    // If one of them was removed since, the position of the other is still known.
    let fewer = since(&hooks(&[HOOK_PATH, "say"]));
    assert_eq!(parsed(&undo(&fewer, Some(&file), &ours).unwrap().unwrap()), parsed(&since(&hooks(&[a, "say"]))));
}

#[test]
fn settings_of_an_unexpected_shape_are_not_changed() {
    for (text, why) in [
        (r#"{"hooks": []}"#, "`hooks` is not an object"),
        (r#"{"hooks": {"Stop": {}}}"#, "`hooks.Stop` is not an array"),
        (r#"{"env": "A=1"}"#, "`env` is not an object"),
        ("[]", "`settings` is not an object"),
    ] {
        assert_eq!(apply(text, desired(&["Stop"])).unwrap_err().to_string(), why);
    }
}

#[test]
fn the_hook_is_recognised_in_any_shell_command() {
    for (command, expect) in [
        ("/a/cc-langfuse-hook", Some("/a/cc-langfuse-hook")),
        ("A=1 '/a b/cc-langfuse-hook' 2>/dev/null", Some("/a b/cc-langfuse-hook")),
        (r"/a\ b/cc-langfuse-hook", Some("/a b/cc-langfuse-hook")),
        ("exec \"/a/cc-langfuse-hook\"", Some("/a/cc-langfuse-hook")),
        ("/a/cc-langfuse-hook-other", None),
        ("", None),
        ("echo '", None),
    ] {
        assert_eq!(program(command).as_deref(), expect, "{command}");
    }
    for path in ["/plain/x", "/a b/cc-langfuse-hook", "/it's/$HOME/\"q\"/cc-langfuse-hook", "/é/cc-langfuse-hook", ""]
    {
        assert_eq!(words(&quoted(path)), [path]);
        let said =
            std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted(path))]).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap(), path);
    }
}

#[test]
fn a_masked_key_is_recognisable_but_not_revealed() {
    for (key, expect) in [
        ("sk-lf-12345678-abcd-9f3c", "sk-lf-…9f3c"),
        ("sk-lf-short", "sk-lf-…"),
        ("0123456789ab", "…89ab"),
        ("ключключключ", "…ключ"),
        ("", "…"),
    ] {
        assert_eq!(masked(key), expect);
    }
}
