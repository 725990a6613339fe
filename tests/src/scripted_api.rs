//! A Messages API on loopback that follows a script and keeps the books: what it answered, and with which tokens.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};

use crate::messages_api::read;

/// What the API does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers with these content blocks.
    Say(Vec<Value>),
    /// The same, for this reason to stop.
    Stop(&'static str, Vec<Value>),
    /// Refuses it with this status and type of error.
    Fail(u16, &'static str),
    /// Closes the connection in the middle of its answer.
    Cut,
    /// Begins an answer and never ends it.
    Hang,
}

/// Answers with a text.
pub fn text(text: &str) -> Act {
    Act::Say(vec![json!({"type": "text", "text": text})])
}

/// Answers with calls of these tools, each with its id and input.
pub fn tools(calls: &[(&str, &str, Value)]) -> Act {
    let block =
        |(id, name, input): &(&str, &str, Value)| json!({"type": "tool_use", "id": id, "name": name, "input": input});
    Act::Say(calls.iter().map(block).collect())
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Answered {
    pub request_id: String,
    pub session_id: String,
    pub model: String,
    /// Input, output, read from the cache, written to it for five minutes and for an hour.
    pub tokens: [u64; 5],
}

#[derive(Debug, Default)]
struct Book {
    /// Each serves the first request whose last message of the user contains its text.
    rules: Vec<(&'static str, Act)>,
    answered: Vec<Answered>,
    /// Those of which it sent the beginning only.
    cut: Vec<Answered>,
    count: u64,
}

/// The API of one scenario.
#[derive(Clone)]
pub struct ScriptedApi {
    pub url: String,
    name: String,
    book: Arc<Mutex<Book>>,
}

impl ScriptedApi {
    /// Starts it. A request for which there is no rule gets a short text.
    ///
    /// # Panics
    /// If nothing can listen on loopback.
    pub fn new(name: &str, rules: Vec<(&'static str, Act)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let api = Self { url, name, book: Arc::new(Mutex::new(Book { rules, ..Book::default() })) };
        let serving = api.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let api = serving.clone();
                std::thread::spawn(move || api.serve(stream));
            }
        });
        api
    }

    /// What was answered so far.
    pub fn answered(&self) -> Vec<Answered> {
        self.book().answered.clone()
    }

    /// Those of which it has sent the beginning, with the tokens of that.
    pub fn cut(&self) -> Vec<Answered> {
        self.book().cut.clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the one request of a connection.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let (path, request) = read(&stream)?;
        if !path.starts_with("/v1/messages") || path.contains("count_tokens") {
            let body = json!({ "input_tokens": 1 }).to_string();
            return whole(&mut stream, "200 OK", "", "application/json", &body);
        }
        let is_user = |message: &&Value| message["role"] == "user";
        let last = request["messages"].as_array().and_then(|all| all.iter().rfind(is_user)).unwrap_or(&Value::Null);
        let last = last.to_string();
        let (number, act) = {
            let mut book = self.book();
            book.count += 1;
            let at = book.rules.iter().position(|(of, _)| last.contains(of));
            (book.count, at.map_or_else(|| text("Done."), |at| book.rules.remove(at).1))
        };
        let id = format!("req_{}_{number}", self.name);
        let is_search = request["tools"].as_array().into_iter().flatten().any(|tool| tool["name"] == "web_search");
        let tokens = [100 + number, 200 + number, 4000 + number, 50 + number, 20 + number];
        let mut usage = usage(tokens);
        if is_search {
            usage["server_tool_use"] = json!({"web_search_requests": 1});
        }
        let answered = |tokens| Answered {
            request_id: id.clone(),
            session_id: session(&request),
            model: request["model"].as_str().unwrap_or_default().to_owned(),
            tokens,
        };
        let (content, reason) = match act {
            Act::Fail(status, kind) => {
                let body = json!({"type": "error", "error": {"type": kind, "message": "scripted"}}).to_string();
                let head = format!("request-id: {id}\r\nretry-after: 0\r\n");
                return whole(&mut stream, &format!("{status} Scripted"), &head, "application/json", &body);
            }
            Act::Cut | Act::Hang => {
                let all = events(&request, number, &[json!({"type": "text", "text": "It begins"})], "end_turn", &usage);
                let cut = all.split_inclusive("\n\n").take(3).collect::<String>();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: {id}\r\ncontent-length: 99999\r\n\r\n"
                );
                stream.write_all([head, cut].concat().as_bytes()).ok()?;
                let [input, _, read, five, hour] = tokens;
                self.book().cut.push(answered([input, 0, read, five, hour]));
                if matches!(act, Act::Hang) {
                    // Until the other end closes it.
                    let _ = stream.read(&mut [0; 1]);
                }
                return None;
            }
            Act::Stop(reason, content) => (content, reason),
            Act::Say(content) => {
                let is_call = content.iter().any(|block| block["type"] == "tool_use");
                (content, if is_call { "tool_use" } else { "end_turn" })
            }
        };
        self.book().answered.push(answered(tokens));
        let head = format!("request-id: {id}\r\n");
        if request["stream"] == true {
            let body = events(&request, number, &content, reason, &usage);
            return whole(&mut stream, "200 OK", &head, "text/event-stream", &body);
        }
        let mut body = message(&request, number);
        (body["content"], body["stop_reason"], body["usage"]) = (content.into(), reason.into(), usage);
        whole(&mut stream, "200 OK", &head, "application/json", &body.to_string())
    }
}

fn whole(stream: &mut TcpStream, status: &str, head: &str, kind: &str, body: &str) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{head}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all([&head, body].concat().as_bytes()).ok()
}

/// The session that a request says it is of.
fn session(request: &Value) -> String {
    let user = request["metadata"]["user_id"].as_str().unwrap_or_default();
    let json: Value = serde_json::from_str(user).unwrap_or_default();
    let named = json["session_id"].as_str().or_else(|| user.rsplit_once("_session_").map(|(_, id)| id));
    named.unwrap_or_default().to_owned()
}

fn usage([input, output, read, five, hour]: [u64; 5]) -> Value {
    json!({
        "input_tokens": input, "output_tokens": output, "cache_read_input_tokens": read,
        "cache_creation_input_tokens": five + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
    })
}

fn message(request: &Value, number: u64) -> Value {
    json!({
        "id": format!("msg_{number}_{}", session(request)), "type": "message", "role": "assistant", "model": request["model"],
        "content": [], "stop_reason": null, "stop_sequence": null,
    })
}

fn events(request: &Value, number: u64, content: &[Value], reason: &str, usage: &Value) -> String {
    let mut start = message(request, number);
    start["usage"] = usage.clone();
    start["usage"]["output_tokens"] = 1.into();
    let mut events = vec![json!({"type": "message_start", "message": start})];
    for (index, block) in content.iter().enumerate() {
        let (empty, delta) = match block["type"].as_str() {
            Some("tool_use") => (
                json!({"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}}),
                json!({"type": "input_json_delta", "partial_json": block["input"].to_string()}),
            ),
            Some("thinking") => (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                json!({"type": "thinking_delta", "thinking": block["thinking"]}),
            ),
            _ => (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": block["text"]})),
        };
        events.push(json!({"type": "content_block_start", "index": index, "content_block": empty}));
        events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        if block["type"] == "thinking" {
            let signature = json!({"type": "signature_delta", "signature": block["signature"]});
            events.push(json!({"type": "content_block_delta", "index": index, "delta": signature}));
        }
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
    events.push(json!({"type": "message_stop"}));
    let line = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    events.iter().map(line).collect()
}
