//! `view` shows the user's own history, and only to the user.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tests::{
    Answer, Home, Server, Story, bins,
    browser::{self, Browser},
    eventually,
    recording::Recording,
    until,
};

/// A server that is stopped on drop.
struct View {
    child: Child,
    /// Its address, including the secret.
    url: String,
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl View {
    fn start(home: &Home, args: &[&str]) -> Self {
        let mut command = home.command(&bins().ctl);
        command.args(["view", "--no-open"]).args(args);
        Self::of(command)
    }

    /// That of a command which says its address.
    fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stdin(Stdio::null()).current_dir("/");
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let url = lines.map_while(Result::ok).find(|line| line.starts_with("http://")).expect("an address");
        Self { child, url }
    }

    fn host(&self) -> &str {
        self.url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("a host")
    }

    fn secret(&self) -> &str {
        self.url.rsplit('/').find(|part| part.len() == 32).expect("a secret")
    }

    /// Sends `head` unchanged; returns status, head and body of the answer.
    fn raw(&self, head: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.host()).expect("it listens");
        stream.write_all(head.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, head.to_lowercase(), body.to_owned())
    }

    fn request(&self, method: &str, path: &str, more: &str) -> (u16, String, String) {
        self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{more}\r\n", self.host()))
    }

    /// The page at this path, with the secret added.
    fn get(&self, path: &str) -> String {
        let (status, _, body) = self.request("GET", &format!("/{}/{path}", self.secret()), "");
        assert_eq!(status, 200, "{path}: {body}");
        // Bodies are chunked.
        body
    }

    fn json(&self, path: &str) -> Value {
        let body = self.get(path);
        let from = body.find(['[', '{']).expect("JSON");
        serde_json::Deserializer::from_str(&body[from..]).into_iter().next().expect("a value").expect("JSON")
    }
}

/// The fixtures as a user's history.
fn with_history(names: &[&str]) -> Home {
    let home = Home::new();
    for name in names {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name).join("projects");
        copy(&from, &home.path().join(".claude/projects"));
    }
    home
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        let target = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            fs::copy(&entry, &target).expect("a copy");
        }
    }
}

/// A session of one turn.
fn write_session(home: &Home, id: &str, prompt: &str, answer: &str, output: &str) -> PathBuf {
    let dir = home.path().join(".claude/projects/-app");
    fs::create_dir_all(&dir).expect("a directory");
    let path = dir.join(format!("{id}.jsonl"));
    let at = "2026-11-20T10:00:00.000Z";
    let usage = json!({"input_tokens": 10, "output_tokens": 20});
    let lines = [
        json!({"type": "user", "uuid": "u1", "timestamp": at, "sessionId": id, "cwd": "/home/dev/<b>app</b>", "gitBranch": "<i>x</i>",
            "message": {"role": "user", "content": prompt}}),
        json!({"type": "assistant", "uuid": "a1", "parentUuid": "u1", "timestamp": at, "sessionId": id, "message": {
            "id": "m1", "model": "claude-sonnet-4-5", "usage": usage, "stop_reason": "tool_use",
            "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "cat <x>"}}]}}),
        json!({"type": "user", "uuid": "r1", "parentUuid": "a1", "timestamp": at, "sessionId": id, "message": {"role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": output}]}}),
        json!({"type": "assistant", "uuid": "a2", "parentUuid": "r1", "timestamp": at, "sessionId": id, "message": {
            "id": "m2", "model": "claude-sonnet-4-5", "usage": usage, "stop_reason": "end_turn",
            "content": [{"type": "text", "text": answer}]}}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(&path, text).expect("a transcript");
    path
}

#[test]
fn a_page_of_many_rows_has_the_first_of_them_and_leads_to_all() {
    const SESSIONS: usize = 260;
    let home = Home::new();
    for number in 0..SESSIONS {
        Story::new(&home, "p", &format!("s{number:03}")).turn("hello", "done");
    }
    let view = View::start(&home, &[]);
    let rows = |page: &str| page.matches("href=\"session/").count();
    let first = view.get("usage?by=session");
    assert_eq!(rows(&first), 250);
    assert!(first.contains("10 more are not shown") && first.len() < 150_000, "{} bytes", first.len());
    let all = view.get("usage?all=1&by=session");
    assert_eq!(rows(&all), SESSIONS);
    assert!(!all.contains("not shown"));
}

#[test]
fn sessions_have_the_figures_of_usage() {
    let names = ["bash1", "nested", "fork", "rewind", "subagents_par", "compact"];
    let home = with_history(&names);
    let view = View::start(&home, &[]);
    let output = home.ctl(&["usage", "--json", "--by", "session"]);
    let usage: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let listed = view.json("api/sessions.json");
    let listed = listed.as_array().expect("a list");
    for row in usage["rows"].as_array().expect("rows") {
        let one = listed.iter().find(|one| one["session_id"] == row["key"]).expect("the session");
        for figure in ["turns", "calls", "input", "output", "cache_read", "cache_write_5m", "cache_write_1h"] {
            assert_eq!(one[figure], row[figure], "{figure} of {}", row["key"]);
        }
        let near = |one: &Value, other: &Value| match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => (one - other).abs() < 1e-9,
            (one, other) => one == other,
        };
        assert!(near(&one["cost_usd"], &row["cost_usd"]));
    }
    // Every page of every session exists.
    for id in listed.iter().map(|one| one["session_id"].as_str().expect("an id")) {
        let page = view.get(&format!("session/{id}"));
        for path in ["?mode=tree", "/cache", "/export/session.html", "/export/session.json", "/export/session.csv"] {
            view.get(&format!("session/{id}{path}"));
        }
        let turns: Vec<&str> = page.match_indices("href=\"../turn/").map(|(at, _)| &page[at + 9..]).collect();
        let first = turns.first().and_then(|rest| rest.split('"').next()).expect("a turn");
        assert!(view.get(first).contains("<svg class=\"waterfall\""), "{first}");
    }
    for path in
        ["", "usage", "usage?by=model&days=30", "forks", "search?q=a", "style.css", "page.js", "api/usage.json?by=day"]
    {
        view.get(path);
    }
    let missing = view.request("GET", &format!("/{}/session/nobody", view.secret()), "");
    assert_eq!(missing.0, 404);
}

#[test]
fn a_given_path_replaces_the_users_history() {
    let home = Home::new();
    let [path] = &Recording::load("bash1").sessions()[..] else { panic!("one session") };
    let view = View::start(&home, &[path.to_str().expect("UTF-8")]);
    assert_eq!(view.json("api/sessions.json").as_array().expect("a list").len(), 1);
    assert!(!home.paths().state.join("index.db").exists(), "nothing is kept of it");
}

#[test]
fn a_growing_session_is_announced_to_the_page() {
    let home = with_history(&["bash1"]);
    let view = View::start(&home, &[]);
    let since = view.json("news?since=0")["version"].as_u64().expect("a version");
    write_session(&home, "new-one", "a prompt of now", "an answer", "output");
    let now = view.json(&format!("news?since={since}"))["version"].as_u64().expect("a version");
    assert!(now > since);
    assert!(view.get("").contains("a prompt of now"));
}

#[test]
fn only_the_user_gets_an_answer() {
    let home = with_history(&["bash1"]);
    let view = View::start(&home, &[]);
    let (host, secret) = (view.host().to_owned(), view.secret().to_owned());
    let good = format!("/{secret}/");
    let with_host =
        |host: &str| view.raw(&format!("GET {good} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).0;
    let port = host.rsplit(':').next().expect("a port");
    assert_eq!(with_host(&host), 200);
    for other in [
        format!("localhost:{port}"),
        format!("evil.example:{port}"),
        "127.0.0.1".into(),
        format!("{host}.evil.example"),
        String::new(),
    ] {
        assert_eq!(with_host(&other), 421, "{other:?}");
    }
    for (method, path, more, expect) in [
        ("GET", "/".to_owned(), "", 404),
        ("GET", format!("/{}/", "0".repeat(32)), "", 404),
        ("GET", format!("/{}", &secret[..31]), "", 404),
        ("GET", format!("/x/../{secret}/"), "", 400),
        ("GET", format!("/{secret}/%2e%2e/x"), "", 400),
        ("POST", good.clone(), "Content-Length: 0\r\n", 405),
        ("OPTIONS", good.clone(), "Origin: https://evil.example\r\nAccess-Control-Request-Method: GET\r\n", 405),
        (
            "GET",
            format!("{good}api/sessions.json"),
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n",
            403,
        ),
        (
            "GET",
            format!("{good}page.js"),
            "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n",
            403,
        ),
        (
            "GET",
            good.clone(),
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
            403,
        ),
        (
            "GET",
            good.clone(),
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
            200,
        ),
    ] {
        let (status, head, body) = view.request(method, &path, more);
        assert_eq!(status, expect, "{method} {path} {more}");
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{method} {path}: {head}");
        }
        assert!(!head.contains("access-control-"), "{head}");
        assert!(expect == 200 || !body.contains(&secret), "{body}");
    }
    // It listens on no other address, and no argument visible to others holds the secret.
    let listens = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let hex = format!(":{:04X} ", port.parse::<u16>().expect("a port"));
    assert!(
        listens
            .lines()
            .filter(|line| line.contains(" 0A "))
            .all(|line| !line.contains(&hex) || line.contains("0100007F"))
    );
    if let Ok(arguments) = fs::read(format!("/proc/{}/cmdline", view.child.id())) {
        assert!(!String::from_utf8_lossy(&arguments).contains(&secret));
    }
}

#[test]
fn hostile_text_in_a_transcript_is_shown_and_never_run() {
    let home = Home::new();
    let secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    let attack =
        "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u{1b}[31m\u{202e}";
    let prompt = format!("{attack} [click](javascript:alert(1)) ![x](https://evil.example/p.png)");
    write_session(&home, "hostile", &prompt, attack, &format!("token {secret} {attack}"));
    let view = View::start(&home, &[]);
    let turn = {
        let page = view.get("session/hostile");
        let at = page.find("../turn/").expect("a turn") + 3;
        page[at..].split('"').next().expect("its address").to_owned()
    };
    let pages = [
        "",
        "session/hostile",
        "session/hostile?mode=tree",
        "session/hostile/export/session.html",
        &turn,
        "search?q=script",
        "usage?by=project",
        "usage?by=branch",
    ];
    for path in pages {
        let page = view.get(path);
        assert!(
            !page.contains("<script>") && !page.contains("<img src=x") && !page.contains("href=\"javascript:"),
            "{path}: {page}"
        );
        assert!(!page.contains("<b>app") && !page.contains("<i>x") && !page.contains("src=\"https:"), "{path}: {page}");
        assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'), "{path}");
        assert!(!page.contains(secret), "{path}: a secret");
    }
    assert!(view.get(&turn).contains("&lt;script&gt;"), "it is shown");
    let json = view.get("session/hostile/export/session.json");
    assert!(json.contains("document.title") && !json.contains(secret));
    let Some(browser) = browser::installed() else {
        tests::skipped("no chromium here: pages were not opened in a browser");
        return;
    };
    // An export is a download, which opens no page.
    for path in pages.into_iter().filter(|path| !path.contains("export")) {
        let dom = dom(&browser, &format!("{}{path}", view.url));
        let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap_or_default();
        assert!(!title.is_empty() && title != "owned", "{path}: {title:?}");
    }
}

/// The page in the browser after its script has run.
fn dom(browser: &Path, url: &str) -> String {
    let profile = Home::new();
    let mut command = Command::new(browser);
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--timeout=3000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    let output = command.output().expect("the browser runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every kind of page, from the top.
fn all_pages(view: &View) -> Vec<String> {
    let mut pages: Vec<String> =
        ["", "usage", "usage?by=model", "forks", "search", "search?q=a"].map(String::from).to_vec();
    let sessions = view.json("api/sessions.json");
    for one in sessions.as_array().expect("a list") {
        let id = one["session_id"].as_str().expect("an id");
        let page = view.get(&format!("session/{id}"));
        pages.extend(["", "?mode=tree", "/cache"].map(|more| format!("session/{id}{more}")));
        let turn = page.split("href=\"../turn/").nth(1).and_then(|rest| rest.split('"').next()).expect("a turn");
        pages.push(format!("turn/{turn}"));
    }
    pages
}

const ACCESSIBLE: &str = include_str!("../src/accessible.js");

#[test]
fn every_page_can_be_read_by_everybody() {
    let Some(program) = browser::installed() else {
        return tests::skipped("no chromium here: contrast, labels and width of the pages were not checked");
    };
    let home =
        with_history(&["bash1", "nested", "fork", "rewind", "compact", "toolerr", "thinking", "image", "err529"]);
    home.configure("[budget]\nday = 0.01\n");
    let now = jiff::Timestamp::now().to_string();
    let path = write_session(&home, "now", "a prompt of now", &"long ".repeat(200), &"wide".repeat(200));
    let text = fs::read_to_string(&path).expect("a transcript").replace("2026-11-20T10:00:00.000Z", &now);
    fs::write(&path, text.replace("\"input_tokens\":10", "\"input_tokens\":100000")).expect("written");
    let view = View::start(&home, &[]);
    assert!(view.get("").contains("Over budget"), "it is judged too");
    let (mut browser, pages) = (Browser::start(&program), all_pages(&view));
    let base = format!("http://{}/{}/", view.host(), view.secret());
    let mut checked = 0;
    for (width, scheme) in [(400, "light"), (400, "dark"), (1200, "light"), (1200, "dark")] {
        browser.set_width(width);
        browser.set_scheme(scheme);
        for page in &pages {
            browser.open(&format!("{base}{page}"));
            let judged = browser.run(ACCESSIBLE);
            assert_eq!(judged["found"], json!([]), "{page} at {width} px, {scheme}");
            checked += judged["checked"].as_u64().expect("a number");
        }
    }
    assert!(checked > 5000, "{checked}");
    // The check finds what is wrong.
    browser.set_width(400);
    for (broken, why) in [
        ("document.querySelector('h1').style.color = '#999'; document.body.style.background = '#fff'", "contrast"),
        ("document.querySelector('input').style.borderColor = 'transparent'", "edge"),
        ("document.querySelector('label').remove()", "no label"),
        ("document.querySelector('main').style.width = '900px'", "px too wide"),
        ("document.querySelector('th').removeAttribute('scope')", "no scope"),
        ("document.querySelector('nav').removeAttribute('aria-label')", "a nav without a name"),
        ("document.querySelector('h1').remove()", "0 h1"),
    ] {
        browser.open(&base);
        browser.run(broken);
        let judged = browser.run(ACCESSIBLE);
        assert!(judged["found"].to_string().contains(why), "{broken}: {judged}");
    }
}

#[test]
fn a_page_follows_its_session_and_its_keys() {
    let Some(program) = browser::installed() else {
        return tests::skipped("no chromium here: pages were not clicked through");
    };
    let home = with_history(&["bash1", "nested"]);
    let view = View::start(&home, &[]);
    let mut browser = Browser::start(&program);
    let base = format!("http://{}/{}/", view.host(), view.secret());
    browser.open(&base);
    let press = |browser: &mut Browser, key: &str| {
        browser.run(&format!(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}}))"
        ));
    };
    press(&mut browser, "j");
    browser.run("document.activeElement.click()");
    until("a session", || browser.run("location.href").as_str().filter(|url| url.contains("/session/")).map(drop));
    until("it", || (browser.run("document.readyState") == "complete").then_some(()));
    browser.run("document.querySelector('a[href*=\"turn/\"]').click()");
    until("a turn", || browser.run("location.href").as_str().filter(|url| url.contains("/turn/")).map(drop));
    browser.open(&base);
    write_session(&home, "new-one", "a prompt of now", "an answer", "output");
    // Without a reload by hand.
    until("the new session", || {
        let text = browser.run("document.body.innerText");
        text.as_str().filter(|text| text.contains("a prompt of now")).map(drop)
    });
}

#[test]
fn a_session_says_what_is_delivered_and_leads_to_its_trace() {
    let home = Home::new();
    let server = Server::answering(|request| match request.path.as_str() {
        "/api/public/projects" => Answer::ok().body(r#"{"data":[{"id":"proj-7","name":"Night shift"}]}"#),
        _ => Answer::ok(),
    });
    home.settings("p", &server.env());
    let mut story = Story::new(&home, "p", "s");
    story.turn("q", "a");
    let view = View::start(&home, &[]);
    assert!(!view.get("session/s").contains("Spans by destination"), "nothing was sent");
    assert!(!view.get("").contains("Delivery"), "the list has no column for it");
    let daemon = home.daemon();
    home.hook(&story.stop("a"), &server.env());
    let spans = server.wait_for(2).len();
    home.flush();
    let cells = |delivered: usize, waiting: usize, refused: usize| {
        let refused = if refused > 0 { format!("<span class=\"error\">{refused}<") } else { "0<".to_owned() };
        format!("<td class=\"n\">{delivered}</td><td class=\"n\">{waiting}</td><td class=\"n\">{refused}")
    };
    let page = view.get("session/s");
    assert!(page.contains("langfuse-1") && page.contains(&cells(spans, 0, 0)), "{page}");
    let list = view.get("");
    assert!(list.contains("langfuse-1: delivered<"), "{list}");
    let turn = page.split("href=\"../turn/").nth(1).and_then(|rest| rest.split('"').next()).expect("a turn").to_owned();
    let trace = turn.rsplit('/').next().expect("a trace").to_owned();
    let page = view.get(&format!("turn/{turn}"));
    assert!(page.contains(&format!("href=\"../../go/s/{trace}/0\"")), "{page}");
    let go = |path: &str| view.request("GET", &format!("/{}/go/{path}", view.secret()), "");
    let (status, head, _) = go(&format!("s/{trace}/0"));
    let to = format!("location: {}/project/proj-7/traces/{trace}", server.url);
    assert_eq!(status, 303, "{head}");
    assert!(head.contains(&to) && head.contains("referrer-policy: no-referrer"), "{head}");
    for path in [format!("s/{trace}/1"), format!("s/{trace}/x"), format!("nobody/{trace}/0"), "s/zz/0".to_owned()] {
        assert_eq!(go(&path).0, 404, "{path}");
    }
    // What the server refuses is counted as that, with and without the daemon.
    server.change(|request| Answer::status(if request.path.contains("otel") { 400 } else { 200 }));
    story.turn("q2", "b");
    home.hook(&story.stop("b"), &server.env());
    home.status_until("refused", |status| {
        status["dead_letters"].as_u64() > Some(0) && status["outbox"]["pending"] == 0
    });
    let refused = home.status()["dead_letters"].as_u64().expect("a number") as usize;
    view.json("news?since=1");
    until("the refused ones", || view.get("session/s").contains(&cells(spans, 0, refused)).then_some(()));
    let words = format!("langfuse-1: <span class=\"error\">{refused} refused<");
    assert!(view.get("").contains(&words), "{}", view.get(""));
    assert!(daemon.terminate().success());
    assert!(view.get("session/s").contains(&cells(spans, 0, refused)), "from its database");
    assert!(view.get("").contains(&words), "the list too");
    server.change(|_| Answer::status(401));
    let (status, _, body) = go(&format!("s/{trace}/0"));
    assert!(status == 500 && body.contains("does not know these keys"), "{body}");
}

#[test]
fn try_shows_its_sample_and_leaves_nothing() {
    let (home, temporary) = (Home::new(), Home::new());
    assert!(String::from_utf8_lossy(&home.ctl(&["try"]).stdout).contains("cc-langfusectl try --view"));
    let mut command = home.command(&bins().ctl);
    command.args(["try", "--view", "--no-open"]).env("TMPDIR", temporary.path());
    let mut view = View::of(command);
    let sessions = view.json("api/sessions.json");
    let [one] = &sessions.as_array().expect("a list")[..] else { panic!("one session: {sessions}") };
    let id = one["session_id"].as_str().expect("an id");
    assert!(view.url.ends_with(&format!("/session/{id}")), "it begins with the sample: {}", view.url);
    assert!(one["calls"].as_u64() > Some(1) && view.get(&format!("session/{id}")).contains("off-by-one"));
    assert!(!home.path().join(".claude").exists(), "the user's own directory is left alone");
    let pid = rustix::process::Pid::from_child(&view.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    assert_eq!(view.child.wait().expect("its end").code(), Some(0));
    let left: Vec<_> = fs::read_dir(temporary.path()).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn view_ends_on_a_signal() {
    let home = with_history(&["bash1"]);
    let mut view = View::start(&home, &[]);
    let pid = rustix::process::Pid::from_child(&view.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    eventually("it to end", || view.child.try_wait().expect("its state").is_some());
    assert_eq!(view.child.wait().expect("its end").code(), Some(0));
}
