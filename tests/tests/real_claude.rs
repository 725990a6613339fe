//! Tests with the real Claude Code, against a scripted API, without any network but loopback.

use std::{fs, path::Path};

use serde_json::json;
use tests::{
    Span, bins, home,
    messages_api::{MessagesApi, Reply},
    real_claude::{Scene, VERSION, env, prompt, scene},
};

/// The turn, two generations with the tokens of the script, and a tool.
fn is_whole(spans: &[Span]) {
    let roots: Vec<_> = spans.iter().filter(|span| span.is_root()).collect();
    assert_eq!(roots.len(), 1, "{spans:?}");
    assert!(spans.iter().all(|span| span.trace_id == roots[0].trace_id));
    let mut usages: Vec<String> = spans
        .iter()
        .filter(|span| span.is_generation())
        .map(|span| {
            let usage: serde_json::Value = serde_json::from_str(span.observation("usage_details")).expect("JSON");
            format!("{}/{}/{}", usage["input"], usage["output"], usage["cache_read_input_tokens"])
        })
        .collect();
    usages.sort();
    assert_eq!(usages, ["123/45/7", "234/56/7"]);
    assert_eq!(spans.iter().filter(|span| span.observation("type") == "tool").count(), 1, "{spans:?}");
}

#[test]
fn run_traces_the_real_claude_code() {
    let Some(Scene { claude, home, server, api }) = scene("run_traces_the_real_claude_code") else { return };
    let mut command = home.command(&bins().ctl);
    command.args(["run", "--ephemeral", "--"]).arg(&claude);
    assert_eq!(prompt(command, &home, &env(&api, &server)).trim(), "It is done.");
    is_whole(&server.spans());

    let mut command = home.command(&bins().ctl);
    command.args(["run", "--ephemeral", "--"]).arg(&claude).args(["-p", "--no-such-option"]);
    let mut plain = home.command(&claude);
    plain.args(["-p", "--no-such-option"]);
    let (traced, plain) = (home::run(command, b"").0, home::run(plain, b"").0);
    assert_eq!((traced.status.code(), traced.status.success()), (plain.status.code(), false));
}

#[test]
fn after_setup_the_real_claude_code_is_traced_and_doctor_finds_nothing_wrong() {
    let test = "after_setup_the_real_claude_code_is_traced_and_doctor_finds_nothing_wrong";
    let Some(Scene { claude, home, server, api }) = scene(test) else { return };
    let path =
        format!("{}:{}", claude.parent().expect("a directory").display(), std::env::var("PATH").expect("a path"));
    let path = [("PATH".to_owned(), path)];
    let keys: Vec<_> = server.env().into_iter().chain(path.clone()).collect();
    let ctl = |args: &[&str], env: &[(String, String)]| {
        let output = home.ctl_with(args, env);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let printed = ctl(&["setup", "--user", "--yes", "--no-service"], &keys);
    assert!(printed.contains(VERSION), "{printed}");
    let _daemon = home.daemon();
    // The keys come from the settings only.
    let env: Vec<_> = env(&api, &server).into_iter().filter(|(name, _)| !name.contains("LANGFUSE")).collect();
    prompt(home.command(&claude), &home, &env);
    home.flush();
    is_whole(&server.spans());
    let found: serde_json::Value = serde_json::from_str(&ctl(&["doctor", "--json"], &path)).expect("JSON");
    let version = found["findings"].as_array().expect("findings").iter().find(|finding| finding["check"] == "claude");
    let version = version.expect("Claude Code is looked at");
    assert!(version["state"] == "ok" && version["seen"].to_string().contains(VERSION), "{version}");
    ctl(&["uninstall", "--yes"], &path);
    assert!(!home.path().join(".claude/settings.json").exists());
}

#[test]
fn the_plugin_is_valid_and_its_hook_fires() {
    let test = "the_plugin_is_valid_and_its_hook_fires";
    let Some(Scene { claude, home, server, api }) = scene(test) else { return };
    let mut env = env(&api, &server);
    env.push(("TRACE_TO_LANGFUSE".into(), "true".into()));
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin").canonicalize().expect("the plugin");
    let plugin = plugin.to_str().expect("text");
    let inner = format!("{plugin}/cc-langfuse");
    for args in [
        &["plugin", "validate", "--strict", plugin][..],
        &["plugin", "validate", "--strict", &inner],
        &["plugin", "marketplace", "add", plugin],
        &["plugin", "install", "cc-langfuse@cc-langfuse"],
    ] {
        let mut command = home.command(&claude);
        command.args(args).envs(env.iter().map(|(name, value)| (name, value)));
        let (output, _) = home::run(command, b"");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    }
    let bin = home.path().join(".local/bin");
    fs::create_dir_all(&bin).expect("a directory");
    std::os::unix::fs::symlink(&bins().hook, bin.join("cc-langfuse-hook")).expect("a link");
    let _daemon = home.daemon();
    prompt(home.command(&claude), &home, &env);
    home.flush();
    is_whole(&server.spans());
}

#[test]
fn with_its_own_telemetry_every_call_of_the_real_claude_code_is_traced_also_those_without_a_line() {
    let test = "with_its_own_telemetry_every_call_of_the_real_claude_code_is_traced_also_those_without_a_line";
    let Some(Scene { claude, home, server, .. }) = scene(test) else { return };
    let usage = |input: u64, output: u64| json!({"input_tokens": input, "output_tokens": output});
    let search = json!({"type": "tool_use", "id": "toolu_search", "name": "WebSearch", "input": {"query": "x y"}});
    let text = |text: &str| vec![json!({"type": "text", "text": text})];
    let api = MessagesApi::new(vec![
        Reply { content: vec![search], usage: usage(123, 45) },
        // A request of the search itself, which no transcript has.
        Reply { content: text("nothing"), usage: usage(77, 33) },
        Reply { content: text("It is done."), usage: usage(234, 56) },
    ]);
    let keys: Vec<_> = server.env();
    let output = home.ctl_with(&["setup", "--user", "--yes", "--no-service", "--no-check", "--native-otel"], &keys);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let _daemon = home.daemon();
    let env: Vec<_> = env(&api, &server).into_iter().filter(|(name, _)| !name.contains("LANGFUSE")).collect();
    let mut command = home.command(&claude);
    command.args(["-p", "Do it.", "--allowedTools", "WebSearch"]);
    command.envs(env.iter().map(|(name, value)| (name, value))).current_dir(home.project("work"));
    let (output, _) = home::run(command, b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    home.flush();
    let spans = server.spans();
    let mut calls: Vec<_> = spans
        .iter()
        .filter(|span| span.is_generation())
        .map(|span| {
            let usage: serde_json::Value = serde_json::from_str(span.observation("usage_details")).expect("JSON");
            let first: u64 = span.observation("metadata.time_to_first_token_ms").parse().expect("a number");
            assert!(first < 60_000);
            (usage["input"].as_u64(), usage["output"].as_u64(), span.observation("metadata.measured_by").to_owned())
        })
        .collect();
    calls.sort();
    let row = |input, output, by: &str| (Some(input), Some(output), by.to_owned());
    assert_eq!(calls, [row(77, 33, "telemetry"), row(123, 45, ""), row(234, 56, "")]);
}
