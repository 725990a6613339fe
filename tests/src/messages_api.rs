//! A Messages API on loopback with scripted answers: enough for Claude Code to finish a turn.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

/// One answer of the model: its content blocks and the tokens it costs.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Content blocks: `text` or `tool_use`.
    pub content: Vec<Value>,
    /// `usage` in the form of the API.
    pub usage: Value,
}

/// A Messages API that gives its replies in order to requests that include tools, which are those of a conversation;
/// other requests get a short text.
pub struct MessagesApi {
    pub url: String,
}

impl MessagesApi {
    /// Starts it.
    ///
    /// # Panics
    /// If nothing can listen on loopback.
    pub fn new(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let replies = Arc::new(Mutex::new(replies.into_iter().enumerate()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let replies = replies.clone();
                std::thread::spawn(move || {
                    let next = || replies.lock().unwrap_or_else(PoisonError::into_inner).next();
                    serve(stream, next)
                });
            }
        });
        Self { url }
    }
}

/// The path and the body of a request.
pub(crate) fn read(stream: &TcpStream) -> Option<(String, Value)> {
    let mut input = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    let (mut length, path) = (0, line.split(' ').nth(1)?.to_owned());
    loop {
        let mut header = String::new();
        input.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    Some((path, serde_json::from_slice(&body).unwrap_or_default()))
}

/// Answers the one request of a connection.
fn serve(mut stream: TcpStream, next: impl Fn() -> Option<(usize, Reply)>) -> Option<()> {
    let (path, request) = read(&stream)?;
    let messages = path.starts_with("/v1/messages") && !path.contains("count_tokens");
    let conversation = request["tools"].as_array().is_some_and(|tools| !tools.is_empty());
    let reply = if messages && conversation { next() } else { None };
    let request_id = format!("req_scripted_{}", reply.as_ref().map_or(999, |(number, _)| *number));
    let word = || (999, Reply { content: vec![json!({"type": "text", "text": "ok"})], usage: json!({}) });
    let (kind, answer) = match (messages, request["stream"] == true) {
        (true, true) => ("text/event-stream", events(&request, reply.unwrap_or_else(word))),
        (true, false) => ("application/json", message(&request, &reply.unwrap_or_else(word)).to_string()),
        _ => ("application/json", json!({ "input_tokens": 1 }).to_string()),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nrequest-id: {request_id}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes())).ok()
}

fn stop_reason(reply: &Reply) -> &'static str {
    if reply.content.iter().any(|block| block["type"] == "tool_use") { "tool_use" } else { "end_turn" }
}

fn message(request: &Value, (number, reply): &(usize, Reply)) -> Value {
    json!({
        "id": format!("msg_scripted_{number}"), "type": "message", "role": "assistant", "model": request["model"],
        "content": reply.content, "stop_reason": stop_reason(reply), "stop_sequence": null, "usage": reply.usage,
    })
}

fn events(request: &Value, numbered: (usize, Reply)) -> String {
    let mut start = message(request, &numbered);
    let reply = numbered.1;
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = 1.into();
    let mut events = vec![json!({"type": "message_start", "message": start})];
    for (index, block) in reply.content.iter().enumerate() {
        let (empty, delta) = if block["type"] == "tool_use" {
            let json = block["input"].to_string();
            let empty = json!({"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}});
            (empty, json!({"type": "input_json_delta", "partial_json": json}))
        } else {
            (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": block["text"]}))
        };
        events.push(json!({"type": "content_block_start", "index": index, "content_block": empty}));
        events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    let delta = json!({"stop_reason": stop_reason(&reply), "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": reply.usage}));
    events.push(json!({"type": "message_stop"}));
    let line = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    events.iter().map(line).collect()
}
