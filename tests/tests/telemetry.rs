//! Claude Code's own telemetry, received on loopback: what it adds to a session's trace, and what it cannot do.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::Stdio,
};

use serde_json::{Value, json};
use tests::{Daemon, Home, Server, Story, server};

/// SHA-256 of `token`.
const HASH: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";

/// A home whose daemon receives telemetry.
struct Scene {
    home: Home,
    server: Server,
    port: u16,
    daemon: Daemon,
}

impl Scene {
    fn new(more: &str) -> Self {
        let (home, server, port) = (Home::new(), Server::new(), server::unused().port());
        home.configure(&format!("[telemetry]\nport = {port}\ntoken_sha256 = \"{HASH}\"\n{more}"));
        let daemon = home.daemon();
        tests::eventually("the port", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { home, server, port, daemon }
    }

    /// What the receiver answers to `body`.
    fn post(&self, path: &str, head: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the receiver");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{head}content-length: {}\r\n\r\n",
            body.len()
        );
        // Of a request that is too long, not all is read.
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.lines().next().unwrap_or_default().to_owned()
    }

    fn logs(&self, service: &str, records: &[Value]) -> String {
        let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": service}}]});
        let body = json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]});
        self.post("/v1/logs", "authorization: Bearer token\r\n", body.to_string().as_bytes())
    }

    fn received(&self, what: &str) -> u64 {
        self.home.status()["telemetry"][what].as_u64().expect(what)
    }
}

/// A session of one turn with two calls and a tool, whose lines name their requests.
fn session(home: &Home) -> Story {
    let mut story = Story::new(home, "work", "s");
    let line = |kind: &str, n: u64, message: &Value| {
        json!({
            "type": kind, "uuid": format!("line-{n}"), "sessionId": "s", "promptId": "p1", "version": "2.1.332",
            "requestId": format!("req-{n}"), "message": message, "timestamp": format!("2026-11-20T08:00:0{n}.000Z"),
        })
    };
    let answer = |n: u64, block: &Value, reason: &str| {
        let message = json!({
            "id": format!("msg-{n}"), "type": "message", "role": "assistant", "model": "claude-opus-5-5",
            "content": [block], "stop_reason": reason, "usage": {"input_tokens": 100 + n, "output_tokens": n},
        });
        line("assistant", n, &message)
    };
    let tool = json!({"type": "tool_use", "id": "toolu-1", "name": "WebSearch", "input": {"query": "x"}});
    let result = json!([{"type": "tool_result", "tool_use_id": "toolu-1", "content": "found"}]);
    for line in [
        line("user", 1, &json!({"role": "user", "content": "look it up"})),
        answer(2, &tool, "tool_use"),
        line("user", 4, &json!({"role": "user", "content": result})),
        answer(5, &json!({"type": "text", "text": "done"}), "end_turn"),
    ] {
        story.raw(line.to_string().as_bytes());
    }
    story
}

/// The event of a call, as Claude Code 2.1.332 writes it.
fn request(id: &str, source: &str) -> Value {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let number = |key: &str, value: f64| json!({"key": key, "value": {"doubleValue": value}});
    let attributes = json!([
        text("session.id", "s"),
        text("prompt.id", "p1"),
        text("request_id", id),
        text("query_source", source),
        text("model", "claude-opus-5-5"),
        number("input_tokens", 200.0),
        number("output_tokens", 20.0),
        number("cost_usd", 0.0161),
        number("duration_ms", 900.0),
        number("ttft_ms", 400.0),
    ]);
    let at = 1_795_939_203_000_000_000_u64;
    json!({"timeUnixNano": at.to_string(), "body": {"stringValue": "claude_code.api_request"}, "attributes": attributes})
}

fn all() -> [Value; 3] {
    [request("req-2", "sdk"), request("req-hidden", "web_search_tool"), request("req-5", "sdk")]
}

fn check(server: &Server) {
    let spans = server.wait_for(5);
    assert_eq!(spans.len(), 5, "each once: a turn, two calls, a tool, and the call without a line");
    let calls: Vec<_> = spans.iter().filter(|span| span.is_generation()).collect();
    let first: Vec<_> = calls.iter().map(|span| span.observation("metadata.time_to_first_token_ms")).collect();
    assert_eq!(first, ["400"; 3]);
    let hidden = calls.iter().find(|span| span.observation("metadata.request_id") == "req-hidden").expect("the search");
    assert_eq!((&*hidden.name, hidden.observation("metadata.measured_by")), ("web search", "telemetry"));
    assert_eq!(hidden.observation("cost_details"), r#"{"total":0.0161}"#);
    let usage: Value = serde_json::from_str(hidden.observation("usage_details")).expect("JSON");
    assert_eq!((&usage["input"], &usage["output"]), (&json!(200), &json!(20)));
}

#[test]
fn calls_have_their_times_and_a_call_without_a_line_is_traced_whether_telemetry_comes_first_or_while_the_turn_waits() {
    for is_first in [true, false] {
        let scene = Scene::new("");
        let story = session(&scene.home);
        let send = || assert_eq!(scene.logs("claude-code", &all()), "HTTP/1.1 200 OK");
        if is_first {
            send();
        }
        scene.home.hook(&story.stop("done"), &scene.server.env());
        if !is_first {
            send();
        }
        scene.home.flush();
        check(&scene.server);
        assert_eq!(scene.received("taken"), 3);
        // It comes again, as after a lost answer, and so does the event.
        send();
        scene.home.hook(&story.event("SessionEnd"), &scene.server.env());
        scene.home.flush();
        check(&scene.server);
    }
}

#[test]
fn a_call_without_a_line_that_comes_after_its_turn_was_sent_is_added_and_nothing_is_sent_twice() {
    let scene = Scene::new("");
    let story = session(&scene.home);
    // Without an event, the settings must say that the session is traced.
    scene.home.settings("work", &scene.server.env());
    scene.home.hook(&story.stop("done"), &scene.server.env());
    scene.home.flush();
    assert_eq!(scene.server.spans().len(), 4, "the turn went without what did not come");
    scene.logs("claude-code", &all());
    let spans = scene.server.wait_for(5);
    scene.home.flush();
    assert_eq!(scene.server.spans().len(), 5);
    let hidden = spans.iter().find(|span| span.observation("metadata.measured_by") == "telemetry").expect("the search");
    let root = spans.iter().find(|span| span.is_root()).expect("a turn");
    assert_eq!((&hidden.trace_id, &hidden.parent), (&root.trace_id, &root.span_id));
}

#[test]
fn who_does_not_know_the_token_says_nothing_and_odd_requests_do_no_harm() {
    let scene = Scene::new("");
    let body = json!({"resourceLogs": []}).to_string();
    for head in ["", "authorization: Bearer wrong\r\n", "authorization: token\r\n", "authorization: Bearer \r\n"] {
        assert_eq!(scene.post("/v1/logs", head, body.as_bytes()), "HTTP/1.1 401 Unauthorized", "{head}");
    }
    let allowed = "authorization: Bearer token\r\n";
    assert_eq!(scene.post("/v1/other", allowed, b"{}"), "HTTP/1.1 404 Not Found");
    for (head, body) in
        [("", &b"no JSON"[..]), ("content-encoding: gzip\r\n", b"no gzip"), ("content-encoding: br\r\n", b"{}")]
    {
        assert_eq!(scene.post("/v1/traces", &format!("{allowed}{head}"), body), "HTTP/1.1 200 OK");
    }
    assert!(!scene.post("/v1/logs", allowed, &vec![b' '; 9 << 20]).contains("200"));
    // Another program of the same user, to whom Claude Code's variables came down.
    scene.logs("my-service", &all());
    let counts = ["refused", "unreadable", "foreign", "taken"].map(|what| scene.received(what));
    assert_eq!(counts, [4, 4, 3, 0]);
    let story = session(&scene.home);
    scene.home.hook(&story.stop("done"), &scene.server.env());
    scene.home.flush();
    assert_eq!(scene.server.spans().len(), 4);
}

#[test]
fn a_port_that_is_taken_costs_the_telemetry_alone_and_is_a_problem_with_a_remedy() {
    let (home, server) = (Home::new(), Server::new());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    home.configure(&format!("[telemetry]\nport = {port}\ntoken_sha256 = \"{HASH}\"\n"));
    let _daemon = home.daemon();
    let story = session(&home);
    home.hook(&story.stop("done"), &server.env());
    home.flush();
    assert_eq!(server.spans().len(), 4);
    let output = home.ctl(&["status"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("port {port}")) && said.contains("setup --native-otel"), "{said}");
}

#[test]
fn what_the_users_own_collector_was_sent_before_is_passed_on_unchanged() {
    let collector = Server::answering(|_| server::Answer::status(503));
    let more = format!("forward_to = \"{}\"\nforward_headers = \"x-key=of-the-user\"\n", collector.url);
    let scene = Scene::new(&more);
    scene.logs("claude-code", &all());
    scene.logs("my-service", &all());
    let got = collector.wait_for_requests(2);
    for request in &got {
        assert_eq!((&*request.path, request.header("x-key")), ("/v1/logs", Some("of-the-user")));
        assert_eq!(request.header("authorization"), None, "the token is for nobody else");
        assert!(String::from_utf8_lossy(&request.plain).contains("req-hidden"));
    }
    tests::eventually("what it did not take to be counted", || scene.received("not_passed_on") == 2);
}

#[test]
fn setup_has_claude_code_send_its_telemetry_and_uninstall_restores_what_was_there() {
    let (home, server) = (Home::new(), Server::new());
    let settings = home.path().join(".claude/settings.json");
    std::fs::create_dir_all(settings.parent().expect("a directory")).expect("made");
    let before = r#"{"env": {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=of-the-user"}}"#;
    std::fs::write(&settings, before).expect("written");
    let setup = |more: &[&str]| {
        let args = ["setup", "--user", "--public-key", "pk-lf-1", "--secret-key", "sk-lf-1", "--base-url", &server.url];
        let args = [&args[..], &["--yes", "--no-check", "--no-service"], more].concat();
        let output = home.ctl(&args);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    home.configure("outbox_mib = 64\n");
    std::fs::set_permissions(home.paths().config, std::fs::Permissions::from_mode(0o644)).expect("its mode");
    let of_project = home.ctl(&["setup", "--project", "--native-otel", "--yes"]);
    assert_eq!(of_project.status.code(), Some(2), "Claude Code does not take it from there: {of_project:?}");
    let said = setup(&["--native-otel"]);
    assert!(said.contains("passed on to http://127.0.0.1:9"), "{said}");
    let read = || std::fs::read_to_string(&settings).expect("settings");
    let env = |name: &str| {
        let json: Value = serde_json::from_str(&read()).expect("JSON");
        json["env"][name].as_str().expect(name).to_owned()
    };
    let token = env("OTEL_EXPORTER_OTLP_HEADERS");
    let token = token.strip_prefix("authorization=").expect("a token");
    let config = std::fs::read_to_string(home.paths().config).expect("the configuration");
    assert!(token.len() > 64 && !said.contains(token) && !config.contains(token), "only the settings have it");
    assert!(
        config.contains("of-the-user") && !said.contains("of-the-user"),
        "kept for the collector, and not shown: {said}"
    );
    let mode = std::fs::metadata(home.paths().config).expect("the configuration").permissions().mode();
    assert_eq!(mode & 0o077, 0, "for the user alone, although it was there before");
    let written = read();
    assert!(setup(&[]).contains("nothing to change"), "a second setup keeps it");
    assert_eq!(read(), written);

    // The daemon takes what the settings say.
    let daemon = home.daemon();
    let endpoint = env("OTEL_EXPORTER_OTLP_ENDPOINT");
    let port = endpoint.rsplit_once(':').expect("a port").1.parse().expect("a number");
    let scene = Scene { port, server, daemon, home };
    tests::eventually("the port", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let answer = scene.post("/v1/logs", &format!("authorization: {token}\r\n"), b"{\"resourceLogs\": []}");
    assert_eq!(answer, "HTTP/1.1 200 OK");
    let output = scene.home.ctl(&["uninstall", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(std::fs::read_to_string(&settings).expect("settings"), before);
    assert_eq!(std::fs::read_to_string(scene.home.paths().config).expect("as before"), "outbox_mib = 64\n");
}

#[test]
fn what_telemetry_explains_is_not_said_again_as_untraced_calls() {
    // The totals of the lines and the search, and 5 tokens more in one of them.
    for (more, expect) in [(0, None), (5, Some("5"))] {
        let scene = Scene::new("");
        let mut story = session(&scene.home);
        scene.logs("claude-code", &all());
        scene.home.hook(&story.stop("done"), &scene.server.env());
        totals(&mut story, more);
        scene.home.hook(&story.event("SessionEnd"), &scene.server.env());
        scene.home.flush();
        let spans = scene.server.spans();
        let found = spans.iter().find(|span| span.name == "untraced calls");
        assert_eq!(found.map(|span| span.observation("metadata.tokens")), expect, "{more}");
        assert_eq!(spans.iter().filter(|span| span.is_generation()).count(), 3);
    }
}

/// Adds Claude Code's totals: those of the lines and the search, and `more` input tokens.
fn totals(story: &mut Story, more: u64) {
    let usage = json!({"inputTokens": 102 + 105 + 200 + more, "outputTokens": 2 + 5 + 20, "costUSD": 0.5});
    let totals =
        json!({"type": "cost-state", "sessionId": "s", "totalCostUSD": 0.5, "modelUsage": {"claude-opus-5-5": usage}});
    story.raw(totals.to_string().as_bytes());
}

fn sum(row: &Value) -> u64 {
    let buckets = ["input", "output", "cache_read", "cache_write_5m", "cache_write_1h"];
    buckets.iter().map(|bucket| row[bucket].as_u64().unwrap_or_else(|| panic!("{bucket}: {row}"))).sum()
}

/// What `view` shows of the session.
fn session_page(home: &Home) -> String {
    let mut command = home.command(&tests::bins().ctl);
    command.args(["view", "--no-open"]).stdout(Stdio::piped()).stdin(Stdio::null()).current_dir("/");
    let mut view = command.spawn().expect("it starts");
    let lines = BufReader::new(view.stdout.take().expect("its output")).lines();
    let url = lines.map_while(Result::ok).find(|line| line.starts_with("http://")).expect("an address");
    let (host, path) = url["http://".len()..].split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("it listens");
    let request = format!("GET /{path}session/s HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a page");
    view.kill().expect("it ends");
    view.wait().expect("it ended");
    page
}

/// Traced, from telemetry, and untraced, as `reconcile` and `usage` say it of the session.
fn balances(home: &Home, story: &Story) -> [[u64; 3]; 2] {
    let json = |args: &[&str]| -> Value {
        let output = home.ctl(args);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {output:?}"))
    };
    let reconciled = json(&["reconcile", story.path.to_str().expect("UTF-8"), "--json"]);
    let traced = reconciled["models"].as_array().expect("models").iter().map(|row| sum(&row["traced"])).sum();
    let used = json(&["usage", "--json"]);
    [
        [traced, sum(&reconciled["telemetry"]), sum(&reconciled["untraced"])],
        [sum(&used["total"]), sum(&used["telemetry"]), sum(&used["untraced"])],
    ]
}

#[test]
fn a_kill_does_not_lose_what_telemetry_named_and_the_balance_is_the_same_without_the_daemon() {
    let scene = Scene::new("");
    let mut story = session(&scene.home);
    scene.home.settings("work", &scene.server.env());
    scene.logs("claude-code", &all());
    scene.home.hook(&story.stop("done"), &scene.server.env());
    scene.home.flush();
    check(&scene.server);
    let Scene { home, server, daemon, .. } = scene;
    daemon.kill();
    totals(&mut story, 5);
    let (lines, search) = (102 + 105 + 2 + 5, 200 + 20);
    assert_eq!(balances(&home, &story), [[lines, search, 5]; 2], "before the daemon runs again");
    let daemon = home.daemon();
    home.hook(&story.event("SessionEnd"), &server.env());
    home.flush();
    let found: Vec<_> = server.spans().into_iter().filter(|span| span.name == "untraced calls").collect();
    assert_eq!(found.iter().map(|span| span.observation("metadata.tokens")).collect::<Vec<_>>(), ["5"]);
    assert_eq!(server.spans().iter().filter(|span| span.is_generation()).count(), 3, "and nothing comes again");
    assert_eq!(balances(&home, &story), [[lines, search, 5]; 2]);
    let said = home.ctl(&["reconcile", story.path.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("from telemetry") && said.contains("5 tokens of this session are untraced"), "{said}");
    let used = home.ctl(&["usage"]);
    let used = String::from_utf8_lossy(&used.stdout).into_owned();
    assert!(used.contains("From telemetry, in no row above: 200 tokens in, 20 out"), "{used}");

    let page = session_page(&home);
    assert!(page.contains("From telemetry, in no row above: 220 tokens, 20 of them output, $0.0161"), "{page}");

    // What is forgotten is in no table: only Claude Code's totals know of it.
    let forgotten = home.ctl(&["forget", "--yes", story.path.to_str().expect("UTF-8")]);
    assert!(forgotten.status.success(), "{forgotten:?}");
    assert_eq!(balances(&home, &story), [[lines, 0, search + 5]; 2]);
    assert!(daemon.terminate().success());
    assert_eq!(balances(&home, &story), [[lines, 0, search + 5]; 2]);
}
