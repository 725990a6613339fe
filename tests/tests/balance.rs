//! The book balances to the token: scenarios with the real Claude Code against a scripted API, each with its own API and session, all
//! with one daemon that receives Claude Code's telemetry.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};
use tests::{
    Home, Server, Span, bins, eventually, home,
    real_claude::{self, Scene},
    say,
    scripted_api::{Act, Answered, ScriptedApi, text, tools},
};

/// How many scenarios run at a time.
const AT_A_TIME: usize = 4;

/// What Claude Code may take the words of a cut answer for, in tokens.
const ESTIMATE: u64 = 10;

/// What a scenario runs with.
struct Run<'s> {
    claude: &'s Path,
    home: &'s Home,
    env: &'s [(String, String)],
    api: ScriptedApi,
    dir: PathBuf,
    /// The id of its session.
    session: String,
}

impl Run<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(self.claude);
        command.args(args).envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(&self.dir);
        command.env("ANTHROPIC_BASE_URL", &self.api.url);
        command
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        home::run(self.command(args), input.as_bytes()).0
    }

    /// One prompt that must succeed.
    fn ask(&self, args: &[&str]) {
        let output = self.run(&[&["-p"], args].concat(), "");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    }

    /// One that must fail, after a second try.
    fn fail(&self, args: &[&str]) {
        let mut command = self.command(args);
        command.env("CLAUDE_CODE_MAX_RETRIES", "1");
        let (output, _) = home::run(command, b"");
        assert_ne!(output.status.code(), Some(0), "{args:?}: {output:?}");
    }

    /// The first prompt of its session.
    fn begin(&self, prompt: &str, more: &[&str]) {
        self.ask(&[&[prompt, "--session-id", &self.session], more].concat());
    }

    /// Says these to it as a program that drives Claude Code.
    fn talk(&self, lines: &[Value]) {
        let formats = ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"];
        let mut command = self.command(&[&formats[..], &["--session-id", &self.session]].concat());
        // Without it there are titles.
        command.env_remove("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC");
        let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (output, _) = home::run(command, input.as_bytes());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    /// The next prompt of it.
    fn resume(&self, prompt: &str, more: &[&str]) {
        self.ask(&[&[prompt, "--resume", &self.session], more].concat());
    }
}

/// A prompt in the form of a program that drives Claude Code.
fn prompt(text: &str) -> Value {
    let message = json!({"role": "user", "content": [{"type": "text", "text": text}]});
    json!({"type": "user", "message": message, "parent_tool_use_id": null, "session_id": ""})
}

/// What a scenario is to show besides the balance.
#[derive(Clone, Copy, PartialEq)]
enum Hidden {
    /// Every call is traced.
    Traced,
    /// Calls without a line are the remainder: nothing names them one by one.
    Remainder,
}

struct Scenario {
    name: &'static str,
    rules: fn() -> Vec<(&'static str, Act)>,
    play: fn(&Run<'_>),
    /// How many calls the API answers.
    calls: usize,
    hidden: Hidden,
}

fn bash(id: &str, command: &str) -> Act {
    tools(&[(id, "Bash", json!({"command": command, "description": "Say it"}))])
}

fn agent(id: &str, prompt: &str, more: &Value) -> Value {
    let mut input = json!({"description": "A part", "prompt": prompt, "subagent_type": "general-purpose"});
    input.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    json!({"type": "tool_use", "id": id, "name": "Agent", "input": input})
}

/// The first prompt of every scenario.
const GO: &str = "Set out.";

const ALLOW: &[&str] = &["--allowedTools", "Bash,WebSearch,Agent,mcp__own"];

fn scenario(name: &'static str, calls: usize, rules: fn() -> Vec<(&'static str, Act)>, play: fn(&Run<'_>)) -> Scenario {
    Scenario { name, rules, play, calls, hidden: Hidden::Traced }
}

fn all() -> Vec<Scenario> {
    vec![
        scenario("an answer", 1, Vec::new, |run| run.begin(GO, &[])),
        scenario("a tool", 2, || vec![(GO, bash("t1", "echo arrived"))], |run| run.begin(GO, ALLOW)),
        scenario(
            "parallel tools",
            2,
            || {
                let bash = |id, word| (id, "Bash", json!({"command": format!("echo {word}"), "description": "Say it"}));
                vec![(GO, tools(&[bash("t1", "one"), bash("t2", "two"), bash("t3", "three")]))]
            },
            |run| run.begin(GO, ALLOW),
        ),
        scenario("a tool that fails", 2, || vec![(GO, bash("t1", "exit 3"))], |run| run.begin(GO, ALLOW)),
        scenario(
            "a denied permission",
            2,
            || vec![(GO, bash("t1", "touch x"))],
            |run| {
                run.begin(GO, &["--disallowedTools", "Bash"]);
            },
        ),
        scenario(
            "a web search",
            3,
            || vec![(GO, tools(&[("t1", "WebSearch", json!({"query": "rust"}))]))],
            |run| run.begin(GO, ALLOW),
        ),
        scenario(
            "a compaction",
            3,
            || vec![("Do NOT call any tools", text("<analysis>Short.</analysis><summary>It went well.</summary>"))],
            |run| {
                run.begin(GO, &[]);
                run.resume("/compact", &[]);
                run.resume("And on.", &[]);
            },
        ),
        scenario(
            "a subagent",
            4,
            || {
                let foreground = json!({"run_in_background": false});
                vec![(GO, Act::Say(vec![agent("t1", "the part", &foreground)])), ("the part", bash("t2", "echo part"))]
            },
            |run| run.begin(GO, ALLOW),
        ),
        scenario(
            "background subagents",
            0,
            || vec![(GO, Act::Say(vec![agent("t1", "part one", &json!({})), agent("t2", "part two", &json!({}))]))],
            |run| run.begin(GO, ALLOW),
        ),
        scenario(
            "a subagent with another model",
            3,
            || {
                vec![(
                    GO,
                    Act::Say(vec![agent("t1", "the part", &json!({"run_in_background": false, "model": "haiku"}))]),
                )]
            },
            |run| run.begin(GO, ALLOW),
        ),
        scenario(
            "retries after 529",
            2,
            || {
                vec![
                    (GO, Act::Fail(529, "overloaded_error")),
                    (GO, Act::Fail(529, "overloaded_error")),
                    (GO, bash("t1", "echo arrived")),
                ]
            },
            |run| run.begin(GO, ALLOW),
        ),
        scenario("a retry after 429", 1, || vec![(GO, Act::Fail(429, "rate_limit_error"))], |run| run.begin(GO, &[])),
        scenario(
            "an API failure in the middle",
            2,
            || {
                let refused = ("arrived", Act::Fail(401, "authentication_error"));
                vec![(GO, bash("t1", "echo arrived")), refused.clone(), refused]
            },
            |run| {
                run.fail(&[&["-p", GO, "--session-id", &run.session], ALLOW].concat());
                run.resume("And on.", &[]);
            },
        ),
        scenario(
            "an API that fails for good",
            1,
            || vec![(GO, Act::Fail(529, "overloaded_error")); 2],
            |run| {
                run.fail(&["-p", GO, "--session-id", &run.session]);
                run.resume("And on.", &[]);
            },
        ),
        scenario("a stream that is cut", 1, || vec![(GO, Act::Cut)], |run| run.begin(GO, &[])),
        scenario(
            "the output limit",
            2,
            || vec![(GO, Act::Stop("max_tokens", vec![json!({"type": "text", "text": "It begins"})]))],
            |run| run.begin(GO, &[]),
        ),
        scenario(
            "thinking",
            1,
            || {
                let thinking = json!({"type": "thinking", "thinking": "Hm.", "signature": "c2ln"});
                vec![(GO, Act::Say(vec![thinking, json!({"type": "text", "text": "Done."})]))]
            },
            |run| run.begin(GO, &[]),
        ),
        scenario(
            "an interrupt",
            2,
            || vec![(GO, bash("t1", "echo arrived")), ("arrived", Act::Hang)],
            |run| {
                let mut command = run.command(&[&["-p", GO, "--session-id", &run.session], ALLOW].concat());
                let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
                eventually("the second request", || run.api.cut().len() == 1);
                let pid = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
                child.wait().expect("it ends");
                run.resume("And on.", &[]);
            },
        ),
        scenario("a resumed session", 2, Vec::new, |run| {
            run.begin(GO, &[]);
            run.resume("again", &[]);
        }),
        scenario("--continue", 2, Vec::new, |run| {
            run.begin(GO, &[]);
            run.ask(&["again", "--continue"]);
        }),
        scenario("a fork", 3, Vec::new, |run| {
            run.begin(GO, &[]);
            run.resume("on a branch", &["--fork-session"]);
            run.resume("on the trunk", &[]);
        }),
        scenario(
            "a fork of a session with a web search",
            4,
            || vec![(GO, tools(&[("t1", "WebSearch", json!({"query": "rust"}))]))],
            |run| {
                run.begin(GO, ALLOW);
                run.resume("on a branch", &["--fork-session"]);
            },
        ),
        scenario("several models", 3, Vec::new, |run| {
            run.begin(GO, &["--model", "sonnet"]);
            run.resume("again", &["--model", "haiku"]);
            run.resume("and again", &["--model", "opus"]);
        }),
        scenario("a slash command", 1, Vec::new, |run| {
            let dir = run.dir.join(".claude/commands");
            fs::create_dir_all(&dir).expect("a directory");
            fs::write(dir.join("say.md"), "Say something.").expect("written");
            run.begin("/say", &[]);
        }),
        scenario(
            "an MCP tool",
            2,
            || vec![(GO, tools(&[("t1", "mcp__own__usage", json!({}))]))],
            |run| {
                let server = json!({"mcpServers": {"own": {"command": bins().ctl, "args": ["mcp"]}}}).to_string();
                run.begin(GO, &[&["--mcp-config", &server], ALLOW].concat());
            },
        ),
        scenario("several prompts at once", 2, Vec::new, |run| run.talk(&[prompt(GO), prompt("And on.")])),
        scenario("a title", 2, Vec::new, |run| {
            let about = "Please write a program that sorts the lines of a file, and explain how it does that.";
            let ask = json!({"subtype": "generate_session_title", "description": about, "persist": true});
            run.talk(&[prompt(GO), json!({"type": "control_request", "request_id": "c1", "request": ask})]);
        }),
        scenario("a question on the side", 2, Vec::new, |run| {
            let ask = json!({"subtype": "side_question", "question": "What is this?"});
            run.talk(&[prompt(GO), json!({"type": "control_request", "request_id": "c1", "request": ask})]);
        }),
        Scenario {
            hidden: Hidden::Remainder,
            ..scenario(
                "telemetry off",
                3,
                || vec![(GO, tools(&[("t1", "WebSearch", json!({"query": "rust"}))]))],
                |run| {
                    let off = json!({"env": {"CLAUDE_CODE_ENABLE_TELEMETRY": "0"}}).to_string();
                    run.begin(GO, &[&["--settings", &off], ALLOW].concat());
                },
            )
        },
        Scenario {
            hidden: Hidden::Remainder,
            ..scenario(
                "an answer without content",
                3,
                || vec![("arrived", Act::Say(vec![])), (GO, bash("t1", "echo arrived"))],
                |run| run.begin(GO, ALLOW),
            )
        },
    ]
}

/// What Claude Code's telemetry says that each call cost, by request.
fn costs(collector: &Server) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for request in collector.requests() {
        let body: Value = serde_json::from_slice(&request.plain).unwrap_or_default();
        let each = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
        let scopes = each(&body, "resourceLogs").into_iter().flat_map(|of| each(&of, "scopeLogs"));
        for record in scopes.flat_map(|scope| each(&scope, "logRecords")) {
            let value = |key: &str| {
                let all = each(&record, "attributes");
                let value = all.into_iter().find(|attribute| attribute["key"] == key)?["value"].clone();
                let text = value["stringValue"].as_str().map(str::to_owned);
                text.or_else(|| value.as_object()?.values().next().map(Value::to_string))
            };
            if record["body"]["stringValue"] == "claude_code.api_request"
                && let Some((id, cost)) = value("request_id").zip(value("cost_usd"))
            {
                found.insert(id, cost.parse().expect("a number"));
            }
        }
    }
    found
}

/// Tokens of a generation as the API counts them.
fn tokens(span: &Span) -> [u64; 5] {
    let usage: Value = serde_json::from_str(span.observation("usage_details")).expect("JSON");
    let of = |key: &str| usage[key].as_u64().unwrap_or_default();
    let rest = of("input_cache_creation");
    let keys = ["input", "output", "cache_read_input_tokens", "input_cache_creation_5m", "input_cache_creation_1h"];
    let mut tokens = keys.map(of);
    tokens[3] += rest;
    tokens
}

/// Cache writes as one: telemetry does not say for how long they are.
fn joined([input, output, read, five, hour]: [u64; 5]) -> [u64; 4] {
    [input, output, read, five + hour]
}

fn sum(row: &Value) -> u64 {
    ["input", "output", "cache_read", "cache_write_5m", "cache_write_1h"]
        .iter()
        .map(|bucket| row[bucket].as_u64().unwrap_or_default())
        .sum()
}

/// What is wrong with the books of a scenario; the line about it otherwise.
fn balance(
    scenario: &Scenario,
    (answered, cut): &(Vec<Answered>, Vec<Answered>),
    home: &Home,
    spans: &[Span],
    costs: &BTreeMap<String, f64>,
) -> Result<String, String> {
    let traced: BTreeMap<&str, &Span> = spans
        .iter()
        .filter(|span| span.is_generation())
        .map(|span| (span.observation("metadata.request_id"), span))
        .collect();
    let mut hidden = 0;
    for call in answered {
        let Some(span) = traced.get(&*call.request_id) else {
            if scenario.hidden == Hidden::Traced {
                return Err(format!("{call:?} is not traced"));
            }
            hidden += 1;
            continue;
        };
        let is_hidden = span.observation("metadata.measured_by") == "telemetry";
        hidden += usize::from(is_hidden);
        let found = tokens(span);
        if found != call.tokens && !(is_hidden && joined(found) == joined(call.tokens)) {
            return Err(format!("{call:?} is traced with {found:?}"));
        }
    }
    let json = |args: &[&str]| -> Value {
        let output = home.ctl(args);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {output:?}"))
    };
    let (mut paths, mut total, mut rest) = (Vec::new(), 0, 0);
    for session in answered.iter().map(|call| &*call.session_id).collect::<BTreeSet<_>>() {
        let found = json(&["reconcile", session, "--json"]);
        let of =
            |key: &str| -> u64 { found["models"].as_array().into_iter().flatten().map(|row| sum(&row[key])).sum() };
        let (known, untraced) = (of("traced") + sum(&found["telemetry"]), sum(&found["untraced"]));
        let of_parent = if found["traced"]["is_fork"] == true { of("unseen") - untraced } else { 0 };
        if known + untraced + of_parent != of("stated") || found["exceeds"] == true {
            return Err(format!("session {session} does not balance: {found}"));
        }
        paths.push(found["transcript"].as_str().expect("a path").to_owned());
        rest += untraced;
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let mut cost = 0.0;
    if !paths.is_empty() {
        let used = json(&[&["usage", "--json"], &paths[..]].concat());
        for row in ["total", "telemetry", "untraced"] {
            total += sum(&used[row]);
            cost += used[row]["cost_usd"].as_f64().unwrap_or_default();
        }
        if sum(&used["untraced"]) != rest {
            return Err(format!("usage says another remainder than reconcile, {rest}: {used}"));
        }
    }
    let truth: u64 = answered.iter().flat_map(|call| call.tokens).sum();
    // Of an answer that was cut, Claude Code counts what it had received, if anything, and of its output an estimate.
    let cut: u64 = cut.iter().flat_map(|call| call.tokens).sum();
    if total != truth && (cut == 0 || !(truth + cut..truth + cut + ESTIMATE).contains(&total)) {
        return Err(format!("the API answered with {truth} tokens, usage has {total}"));
    }
    let allowed = if cut == 0 { 0 } else { cut + ESTIMATE };
    if scenario.hidden == Hidden::Traced && rest > allowed {
        return Err(format!("{rest} tokens are untraced"));
    }
    let stated: f64 = answered.iter().filter_map(|call| costs.get(&call.request_id)).sum();
    let has_all = answered.iter().all(|call| costs.contains_key(&call.request_id));
    if has_all && total == truth && (cost - stated).abs() > stated * 0.001 {
        let each: Vec<_> =
            answered.iter().map(|call| (&call.model, call.tokens, costs.get(&call.request_id))).collect();
        return Err(format!("it cost {stated} by the telemetry, {cost} by usage: {each:?}"));
    }
    Ok(format!("{} calls, {hidden} without a line, {truth} tokens, ${cost:.4}", answered.len()))
}

#[test]
fn every_call_that_the_api_answered_is_in_the_book_with_its_tokens_and_its_cost() {
    let test = "every_call_that_the_api_answered_is_in_the_book_with_its_tokens_and_its_cost";
    let Some(Scene { claude, home, server, api }) = real_claude::scene(test) else { return };
    let collector = Server::new();
    let settings = home.path().join(".claude/settings.json");
    fs::create_dir_all(settings.parent().expect("a directory")).expect("made");
    let own = json!({"env": {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}});
    fs::write(&settings, own.to_string()).expect("written");
    let output =
        home.ctl_with(&["setup", "--user", "--yes", "--no-service", "--no-check", "--native-otel"], &server.env());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let daemon = home.daemon();
    let env: Vec<_> =
        real_claude::env(&api, &server).into_iter().filter(|(name, _)| !name.contains("LANGFUSE")).collect();
    let only = std::env::var("CC_LANGFUSE_TEST_SCENARIO").unwrap_or_default();
    let scenarios: Vec<Scenario> = all().into_iter().filter(|scenario| scenario.name.contains(&only)).collect();
    let (next, books) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        let worker = || {
            while let Some((at, scenario)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, scenarios.get(at)?)))
            {
                let api = ScriptedApi::new(scenario.name, (scenario.rules)());
                let run = Run {
                    claude: &claude,
                    home: &home,
                    env: &env,
                    dir: home.project(&format!("scenario-{at}")),
                    session: format!("00000000-0000-4000-8000-{at:012}"),
                    api: api.clone(),
                };
                (scenario.play)(&run);
                books.lock().expect("whole").insert(at, (api.answered(), api.cut()));
            }
        };
        (0..AT_A_TIME).for_each(|_| drop(scope.spawn(worker)));
    });
    let books = books.into_inner().expect("whole");
    home.flush();
    let wanted = |at: &usize| scenarios[*at].name != "telemetry off";
    let ids = || {
        books.iter().filter(|(at, _)| wanted(at)).flat_map(|(_, (answered, _))| answered).map(|call| &call.request_id)
    };
    eventually("the costs that telemetry says", || {
        let known = costs(&collector);
        ids().all(|id| known.contains_key(id))
    });
    let (spans, costs) = (server.spans(), costs(&collector));
    let mut wrong = Vec::new();
    for (at, book) in &books {
        let scenario = &scenarios[*at];
        let found = balance(scenario, book, &home, &spans, &costs).and_then(|line| {
            let is_expected = scenario.calls == 0 || scenario.calls == book.0.len();
            if is_expected { Ok(line) } else { Err(format!("{} calls, not {}", book.0.len(), scenario.calls)) }
        });
        match found {
            Ok(line) => say(&format!("balance: {}: {line}", scenario.name)),
            Err(why) => {
                say(&format!("balance: {}: WRONG: {why}", scenario.name));
                wrong.push(scenario.name);
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    drop(daemon);
}
