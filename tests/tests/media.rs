//! Images and documents reach the server beside the spans, independently of each other; no span carries their bytes.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tests::{Answer, Home, MediaApi, Random, Request, Server, Span, Story, eventually};

/// Bytes that pass for an image.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length).map(|_| random.below(256) as u8).collect()
}

fn block(kind: &str, media_type: &str, bytes: &[u8]) -> Value {
    json!({"type": kind, "source": {"type": "base64", "media_type": media_type, "data": STANDARD.encode(bytes)}})
}

fn png(bytes: &[u8]) -> Value {
    block("image", "image/png", bytes)
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn is_media(request: &Request) -> bool {
    request.path.starts_with("/api/public/media") || request.method == "PUT"
}

/// A server with a media API; `plan` answers first, if it wants.
fn server(api: &MediaApi, mut plan: impl FnMut(&Request) -> Option<Answer> + Send + 'static) -> Server {
    let api = api.clone();
    Server::answering(move |request| plan(request).unwrap_or_else(|| api.answer(request)))
}

/// One turn with `image` in the prompt and in the output of its only tool: four spans, three of which show it.
fn play(home: &Home, image: &[u8], env: &[(String, String)]) -> Story {
    home.settings("work", env);
    let mut story = Story::new(home, "work", "s");
    story.prompt_of(&json!([text("look"), png(image)])).tool_of(&json!([png(image)])).answer("seen");
    home.hook(&story.stop("seen"), env);
    story
}

fn only_file(api: &MediaApi) -> Vec<u8> {
    let files = api.files();
    assert_eq!(files.len(), 1, "{:?}", files.keys());
    files.into_values().next().expect("one")
}

/// Ids of the media references in `text` in Langfuse's form, each the whole of its string.
fn references(text: &str) -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.extend(
                text.strip_prefix("@@@langfuseMedia:type=")
                    .and_then(|rest| rest.strip_suffix("|source=bytes@@@"))
                    .and_then(|rest| rest.split_once("|id="))
                    .map(|(_, id)| id.to_owned()),
            ),
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Value::Object(fields) => fields.values().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&serde_json::from_str(text).unwrap_or_default(), &mut found);
    found
}

/// Every reference in the input or output of an observation, with trace, observation and field.
fn shown(spans: &[Span]) -> BTreeSet<[String; 4]> {
    let of = |span: &Span, field: &str| {
        let found = references(span.observation(field)).into_iter();
        found.map(|id| [id, span.trace_id.clone(), span.span_id.clone(), field.to_owned()]).collect::<Vec<_>>()
    };
    spans.iter().flat_map(|span| [of(span, "input"), of(span, "output")].concat()).collect()
}

#[test]
fn each_image_arrives_once_and_is_linked_to_every_span_that_shows_it() {
    let (home, api) = (Home::new(), MediaApi::default());
    let server = server(&api, |_| None);
    let _daemon = home.daemon();
    let (image, document) = (bytes(1, 300_000), bytes(2, 70_000));
    let pdf = block("document", "application/pdf", &document);
    let mut story = Story::new(&home, "work", "s");
    story.prompt_of(&json!([text("before"), png(&image), text("after"), pdf])).tool("no media");
    story.tool_of(&json!([text("it is"), png(&image)])).tool_of(&json!([pdf])).answer("one");
    story.prompt_of(&json!([png(&image)])).answer("two");
    home.hook(&story.stop("two"), &server.env());
    home.flush();
    let (spans, seen) = (server.spans(), api.seen());
    assert_eq!(spans.len(), 10);
    let files: BTreeSet<Vec<u8>> = api.files().into_values().collect();
    assert_eq!(files, BTreeSet::from([image.clone(), document.clone()]));
    let kinds: BTreeSet<&str> = seen.files.values().flatten().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(["image/png", "application/pdf"]));
    assert!(seen.files.values().all(|puts| puts.len() == 1), "once each");
    assert_eq!(seen.refused, [""; 0], "as it was signed for");
    // Two in the first prompt, on the turn and its first call; one in each of two tools; one in the second prompt.
    let links: BTreeSet<[String; 4]> = seen.links.iter().cloned().collect();
    assert_eq!((links.len(), seen.links.len(), &links), (8, 8, &shown(&spans)));
    for encoded in [STANDARD.encode(&image), STANDARD.encode(&document)] {
        for span in &spans {
            let all = String::from_utf8_lossy(&span.encoded);
            assert!(
                !all.contains(&encoded[..100]) && !all.contains(&encoded[1000..1100]),
                "{} carries bytes",
                span.name
            );
        }
    }
    let first = spans.iter().find(|span| span.is_root() && span.name == "Turn 1").expect("the first turn");
    let message: Value = serde_json::from_str(first.observation("input")).expect("JSON");
    let ids = references(first.observation("input"));
    let part = |kind: &str, id: &str| json!({"type": "image_url", "image_url": {"url": format!("@@@langfuseMedia:type={kind}|id={id}|source=bytes@@@")}});
    let content = json!([text("before"), part("image/png", &ids[0]), text("after"), part("application/pdf", &ids[1])]);
    assert_eq!(message, json!([{"role": "user", "content": content}]));
    for request in server.requests().iter().filter(|request| is_media(request)) {
        // Requests with the bytes do not have the key.
        let key = if request.method == "PUT" { "" } else { "pk-lf-test:sk-lf-test" };
        assert_eq!(request.key(), key);
        let length = request.header("x-amz-checksum-sha256").map(str::len);
        assert_eq!(length, (request.method == "PUT").then_some(44));
    }
    assert_eq!(home.status()["media"]["pending"], 0);
}

#[test]
fn spans_do_not_wait_for_media_and_media_survive_a_restart() {
    let (home, api) = (Home::new(), MediaApi::default());
    let server = server(&api, |request| is_media(request).then(|| Answer::status(500)));
    let daemon = home.daemon();
    let image = bytes(3, 100_000);
    play(&home, &image, &server.env());
    assert_eq!(server.wait_for(4).len(), 4);
    let left = home.ctl(&["flush", "--timeout", "300ms"]);
    let said = String::from_utf8_lossy(&left.stderr).into_owned();
    assert_eq!(left.status.code(), Some(1), "{said}");
    assert!(said.contains("0 observations, 3 images") && said.contains("HTTP 500"), "{said}");
    daemon.kill();
    assert_eq!(api.seen().links.len(), 0);
    let answers = api.clone();
    server.change(move |request| answers.answer(request));
    let _daemon = home.daemon();
    home.flush();
    assert_eq!(only_file(&api), image);
    let seen = api.seen();
    assert_eq!(seen.links.iter().cloned().collect::<BTreeSet<_>>(), shown(&server.spans()));
    assert_eq!((seen.links.len(), server.spans().len()), (3, 4));
}

#[test]
fn a_media_api_that_never_answers_delays_no_span() {
    let (home, api) = (Home::new(), MediaApi::default());
    let server = server(&api, |request| is_media(request).then(Answer::never));
    let daemon = home.daemon();
    let mut story = play(&home, &bytes(4, 1000), &server.env());
    assert_eq!(server.wait_for(4).len(), 4);
    story.turn("more", "words");
    home.hook(&story.stop("words"), &server.env());
    assert_eq!(server.wait_for(6).len(), 6);
    assert!(daemon.terminate().success());
}

#[test]
fn a_failed_upload_is_tried_again() {
    let (home, api) = (Home::new(), MediaApi::default());
    let elsewhere = Server::new();
    let redirect = Answer::status(307).header("location", format!("{}/storage", elsewhere.url));
    let mut answers = vec![Answer::status(503), Answer::status(403), redirect, Answer::lost()];
    let server = server(&api, move |request| (request.method == "PUT").then(|| answers.pop()).flatten());
    let _daemon = home.daemon();
    let image = bytes(5, 50_000);
    play(&home, &image, &server.env());
    // Each time a user waits, everything is tried at once.
    eventually("everything to arrive", || home.ctl(&["flush", "--timeout", "200ms"]).status.success());
    assert_eq!(only_file(&api), image);
    assert_eq!((server.spans().len(), elsewhere.requests().len()), (4, 0));
    let reports = server.requests().into_iter().filter(|request| request.method == "PATCH");
    let said: Vec<Value> = reports.map(|report| serde_json::from_slice(&report.plain).expect("JSON")).collect();
    let mut statuses: Vec<u64> = said.iter().filter_map(|report| report["uploadHttpStatus"].as_u64()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 307, 403, 503]);
}

#[test]
fn a_lost_report_is_sent_again() {
    let (home, api) = (Home::new(), MediaApi::default());
    let mut answers = vec![Answer::status(502)];
    let server = server(&api, move |request| (request.method == "PATCH").then(|| answers.pop()).flatten());
    let _daemon = home.daemon();
    let image = bytes(6, 5000);
    play(&home, &image, &server.env());
    home.flush();
    assert_eq!(only_file(&api), image);
}

#[test]
fn a_server_without_media_gets_the_spans_and_media_are_counted() {
    let home = Home::new();
    let server = Server::answering(|request| Answer::status(if is_media(request) { 404 } else { 200 }));
    let _daemon = home.daemon();
    play(&home, &bytes(7, 1000), &server.env());
    home.flush();
    assert_eq!(server.spans().len(), 4);
    let status = home.status();
    assert_eq!((&status["skipped_lines"]["media_unsupported"], &status["media"]["pending"]), (&json!(3), &json!(0)));
    assert!(server.requests().iter().all(|request| request.method != "PUT"));
}

#[test]
fn nothing_is_uploaded_over_a_connection_that_others_could_read() {
    let home = Home::new();
    let body = json!({"mediaId": "x", "uploadUrl": "http://storage.example/x"}).to_string();
    let server = Server::answering(move |_| Answer::ok().body(&body));
    let _daemon = home.daemon();
    play(&home, &bytes(8, 1000), &server.env());
    home.flush();
    assert_eq!(home.status()["skipped_lines"]["media_refused"], 3);
}

#[test]
fn a_refused_key_is_tried_again_when_a_hook_brings_another() {
    let (home, api) = (Home::new(), MediaApi::default());
    let server = server(&api, |request| {
        (is_media(request) && request.method != "PUT" && request.key() != "pk:sk-new").then(|| Answer::status(401))
    });
    let _daemon = home.daemon();
    let image = bytes(9, 1000);
    let story = play(&home, &image, &tests::server::env(&server.url, "pk", "sk-old"));
    assert_eq!(server.wait_for(4).len(), 4);
    home.status_until("the refusal to be seen", |status| {
        status["media"]["last_error"].as_str().is_some_and(|why| why.contains("401"))
    });
    home.hook(&story.event("SessionEnd"), &tests::server::env(&server.url, "pk", "sk-new"));
    home.flush();
    assert_eq!(only_file(&api), image);
}

#[test]
fn in_metadata_mode_no_image_is_sent() {
    let home = Home::new();
    let server = Server::new();
    let _daemon = home.daemon();
    let mut env = server.env();
    env.push(("CC_LANGFUSE_CAPTURE".into(), "metadata".into()));
    play(&home, &bytes(10, 1000), &env);
    home.flush();
    assert!(!server.requests().iter().any(is_media));
    let spans = server.spans();
    assert_eq!(shown(&spans), BTreeSet::new());
    let root = spans.iter().find(|span| span.is_root()).expect("the turn");
    assert_eq!(root.content("input"), "[4 characters] [image/png, 1000 bytes]");
}

#[test]
fn an_output_too_long_for_the_transcript_is_read_from_its_file_up_to_a_limit() {
    let (home, api) = (Home::new(), MediaApi::default());
    let server = server(&api, |_| None);
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    let dir = story.path.with_extension("").join("tool-results");
    std::fs::create_dir_all(&dir).expect("a directory");
    let preview = |name: &str| {
        let path = dir.join(name);
        format!(
            "<persisted-output>\nOutput too large (411KB). Full output saved to: {}\n\nPreview (first 2KB):\nthe beginning\n...\n</persisted-output>",
            path.display()
        )
    };
    let key = format!("ghp_{}", "a1B2".repeat(9));
    let (short, long) = (format!("line\n{key}\n").repeat(1000), "0123456789abcdef".repeat(30_000));
    let image = bytes(11, 40_000);
    for (name, content) in [("short.txt", short.as_bytes()), ("long.txt", long.as_bytes()), ("shot.png", &image)] {
        std::fs::write(dir.join(name), content).expect("written");
    }
    story.prompt("go");
    for name in ["short.txt", "long.txt", "shot.png", "none.txt"] {
        story.tool(&preview(name));
    }
    home.hook(&story.answer("done").stop("done"), &server.env());
    home.flush();
    let spans = server.spans();
    let mut tools: Vec<&Span> = spans.iter().filter(|span| span.name == "Bash").collect();
    tools.sort_by_key(|span| span.start);
    let outputs: Vec<&str> = tools.iter().map(|span| span.observation("output")).collect();
    let [short_seen, long_seen, shot, none] = outputs[..] else { panic!("{} tools", outputs.len()) };
    assert!(short_seen == short.replace(&key, "[REDACTED:github]"), "{}", &short_seen[..100]);
    let cut = format!("{} [TRUNCATED 262144 of 480000 bytes]", &long[..262_144]);
    assert!(long_seen == cut, "{} bytes", long_seen.len());
    assert_eq!(references(shot).len(), 1, "{shot}");
    assert_eq!(none, preview("none.txt"));
    assert_eq!(only_file(&api), image);
}
