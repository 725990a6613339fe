//! Between the daemon and its servers: TLS, proxies, names, and servers that are down. A key is sent only where it
//! belongs, and an obstacle is named.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tests::{Answer, Authority, Home, Identity, Proxy, Server, Span, Story, eventually, noise, server, tries};

const SECRET: &str = "sk-lf-8d1f0c52-canary";

fn env(url: &str) -> Vec<(String, String)> {
    server::env(url, "pk", SECRET)
}

/// `pk:SECRET` in the form of an `Authorization` header.
fn authorization() -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(format!("pk:{SECRET}"))
}

/// A session of one turn in `project`: two spans.
fn play(home: &Home, project: &str, url: &str) {
    let mut story = Story::new(home, project, &format!("session-{project}"));
    story.turn("question", "answer");
    home.hook(&story.stop("answer"), &env(url));
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// Waits until `count` destinations are in `state`, and returns the error of each.
fn errors(home: &Home, count: usize, state: &str) -> Vec<(String, String)> {
    let status = home.status_until(&format!("{count} destinations to be {state}"), |status| {
        let all = status["destinations"].as_array().expect("a list");
        all.len() == count && all.iter().all(|destination| destination["state"] == state)
    });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = status["destinations"].as_array().expect("a list").iter();
    all.map(|destination| (text(&destination["base_url"]), text(&destination["last_error"]))).collect()
}

fn pem(home: &Home, name: &str, certificates: &[String]) -> String {
    let path = home.path().join(name);
    fs::write(&path, certificates.concat()).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn a_key_is_sent_unencrypted_only_on_this_machine() {
    let home = Home::new();
    let proxy = Proxy::new(Err(502));
    let through = format!("http://{}", proxy.address);
    let _daemon = home.daemon_with(&[("HTTP_PROXY", &through), ("ALL_PROXY", &through)]);
    let server = Server::new();
    let port = server.address.port();
    // All but the last lead to a listener on this machine; none in a form that is certain to.
    let hosts = ["0.0.0.0", "localhost.localdomain", "[::ffff:127.0.0.1]", "lf.example.org"];
    for (number, host) in hosts.iter().enumerate() {
        play(&home, &format!("p{number}"), &format!("http://{host}:{port}"));
    }
    for (url, why) in errors(&home, hosts.len(), "parked") {
        assert!(why.contains("unencrypted") && why.contains("https"), "{url}: {why}");
    }
    let left = home.ctl(&["flush", "--timeout", "200ms"]);
    assert_eq!(left.status.code(), Some(1), "{left:?}");
    assert!(String::from_utf8_lossy(&left.stderr).contains("unencrypted"), "{left:?}");
    assert_eq!(home.status()["outbox"]["pending"], 2 * hosts.len());
    assert_eq!((server.requests().len(), proxy.heads()), (0, vec![]));
}

#[test]
fn this_machine_is_reached_without_a_proxy() {
    let home = Home::new();
    let authority = Authority::new("ours");
    let proxy = Proxy::new(Err(502));
    let through = format!("http://{}", proxy.address);
    let trusted = pem(&home, "ca.pem", &[authority.pem()]);
    let mut variables = vec![("NODE_EXTRA_CA_CERTS", &*trusted)];
    let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    variables.extend(proxies.map(|name| (name, &*through)));
    let _daemon = home.daemon_with(&variables);
    let plain = Server::new();
    let secure = Server::secure(anywhere(), &authority.certify("127.0.0.1"), &TLS13);
    play(&home, "address", &plain.url);
    play(&home, "name", &plain.url.replace("127.0.0.1", "localhost"));
    play(&home, "secure", &secure.url);
    home.flush();
    assert_eq!((plain.spans().len(), secure.spans().len()), (4, 2));
    assert_eq!(proxy.heads(), Vec::<String>::new());
}

#[test]
fn a_proxy_learns_only_the_host() {
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let home = Home::new();
        let authority = Authority::new("ours");
        let server = Server::secure(anywhere(), &authority.certify("lf.example.org"), &TLS13);
        let proxy = Proxy::new(Ok(server.address));
        let trusted = pem(&home, "ca.pem", &[authority.pem()]);
        let through = format!("http://me:proxy-canary@{}", proxy.address);
        let _daemon = home.daemon_with(&[(variable, &through), ("NODE_EXTRA_CA_CERTS", &trusted)]);
        play(&home, "work", "https://lf.example.org");
        home.flush();
        assert_eq!((server.spans().len(), server.requests()[0].key()), (2, format!("pk:{SECRET}")));
        let heads = proxy.heads();
        let [head] = heads.as_slice() else { panic!("{heads:?}") };
        let lines: Vec<&str> = head.split("\r\n").collect();
        // The user and password of the proxy, me:proxy-canary.
        let credentials = "Proxy-Authorization: Basic bWU6cHJveHktY2FuYXJ5";
        assert_eq!(lines, ["CONNECT lf.example.org:443 HTTP/1.1", "Host: lf.example.org:443", credentials]);
        let bytes = proxy.bytes();
        assert!(bytes.len() > head.len() + 500, "the tunnel was used");
        for secret in [SECRET, &authorization(), "api/public/otel"] {
            assert!(!contains(&bytes, secret), "{secret}");
        }
        let said = format!("{}{}", home.log(), home.status());
        assert!(!said.contains("proxy-canary") && !said.contains("bWU6cHJveHktY2FuYXJ5"), "{said}");
    }
}

#[test]
fn hosts_in_no_proxy_are_reached_directly() {
    let home = Home::new();
    let authority = Authority::new("ours");
    // An address that leads here but is not one of those that never use a proxy.
    let direct = Server::secure(anywhere(), &authority.certify("0.0.0.0"), &TLS13);
    let tunnelled = Server::secure(anywhere(), &authority.certify("lf.example.org"), &TLS13);
    let proxy = Proxy::new(Ok(tunnelled.address));
    let through = format!("http://{}", proxy.address);
    let trusted = pem(&home, "ca.pem", &[authority.pem()]);
    let _daemon = home.daemon_with(&[
        ("ALL_PROXY", &through),
        ("NO_PROXY", "other.example.org, 0.0.0.0"),
        ("NODE_EXTRA_CA_CERTS", &trusted),
    ]);
    play(&home, "direct", &format!("https://0.0.0.0:{}", direct.address.port()));
    play(&home, "tunnelled", "https://lf.example.org:8443/sub");
    home.flush();
    assert_eq!((direct.spans().len(), tunnelled.spans().len()), (2, 2));
    let heads = proxy.heads();
    assert!(matches!(&*heads, [head] if head.starts_with("CONNECT lf.example.org:8443 ")), "{heads:?}");
}

#[test]
fn a_failing_proxy_is_named_and_tried_again() {
    let home = Home::new();
    let authority = Authority::new("ours");
    let server = Server::secure(anywhere(), &authority.certify("lf.example.org"), &TLS13);
    let proxy = Proxy::new(Err(407));
    let through = format!("http://{}", proxy.address);
    let trusted = pem(&home, "ca.pem", &[authority.pem()]);
    let daemon = home.daemon_with(&[("HTTPS_PROXY", &through), ("NODE_EXTRA_CA_CERTS", &trusted)]);
    home.settings("work", &env("https://lf.example.org"));
    play(&home, "work", "https://lf.example.org");
    let why = errors(&home, 1, "retrying").remove(0).1;
    assert!(why.contains(&proxy.address.to_string()) && why.contains("authorization required"), "{why}");
    proxy.change(Err(503));
    home.status_until("the other failure to be seen", |status| {
        status["destinations"][0]["last_error"]
            .as_str()
            .is_some_and(|why| why.contains("it did not connect to the server"))
    });
    assert_eq!(server.requests().len(), 0);
    drop(daemon);
    // Nothing is sent to a proxy with another protocol.
    let other = format!("socks5://me:proxy-canary@{}", proxy.address);
    let before = proxy.bytes().len();
    let daemon = home.daemon_with(&[("HTTPS_PROXY", &other), ("NODE_EXTRA_CA_CERTS", &trusted)]);
    eventually("a word in the log", || home.log().contains("a proxy of the environment cannot be used"));
    play(&home, "socks5", "https://lf.example.org");
    home.status_until("the proxy to be refused", |status| {
        let why = status["destinations"][0]["last_error"].as_str().unwrap_or_default();
        why.contains("socks5://") && why.contains("not supported") && !why.contains("canary")
    });
    assert_eq!(proxy.bytes().len(), before);
    drop(daemon);
    let _daemon = home.daemon_with(&[("HTTPS_PROXY", &through), ("NODE_EXTRA_CA_CERTS", &trusted)]);
    proxy.change(Ok(server.address));
    home.flush();
    assert_eq!(server.spans().len(), 4);
}

#[test]
fn a_server_without_a_trusted_certificate_gets_nothing() {
    let home = Home::new();
    let (ours, strange) = (Authority::new("ours"), Authority::new("strange"));
    let trusted = pem(&home, "ca.pem", &[ours.pem()]);
    let _daemon = home.daemon_with(&[("NODE_EXTRA_CA_CERTS", &trusted)]);
    let cases = [
        ("self-signed", Identity::self_signed("127.0.0.1"), "UnknownIssuer"),
        ("strange", strange.certify("127.0.0.1"), "UnknownIssuer"),
        ("expired", ours.certify_expired("127.0.0.1"), "expired"),
        ("other-host", ours.certify("lf.example.org"), "not valid for name"),
    ];
    let servers = cases.map(|(name, identity, expect)| {
        let server = Server::secure(anywhere(), &identity, &TLS13);
        play(&home, name, &server.url);
        (name, server, expect)
    });
    let errors = errors(&home, servers.len(), "parked");
    for (name, server, expect) in &servers {
        let (_, why) = errors.iter().find(|(url, _)| *url == server.url).expect("a destination");
        assert!(why.contains("cannot be trusted") && why.contains(expect), "{name}: {why}");
        assert_eq!((server.requests().len(), server.spans().len()), (0, 0), "{name}");
    }
    let servers = servers.map(|(name, server, _)| {
        let address = server.address;
        drop(server);
        (name, Server::secure(address, &ours.certify("127.0.0.1"), &TLS13))
    });
    home.flush();
    for (name, server) in &servers {
        assert_eq!((server.requests().len(), server.spans().len()), (1, 2), "{name}");
    }
}

#[test]
fn a_server_without_tls_is_not_tried_unencrypted() {
    let home = Home::new();
    let _daemon = home.daemon();
    let listener = TcpListener::bind(anywhere()).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let heard = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        client.write_all(b"HTTP/1.1 400 This is plain HTTP\r\ncontent-length: 0\r\n\r\n").expect("written");
        let mut heard = Vec::new();
        // Until the client gives up; a reset counts.
        let _ = client.read_to_end(&mut heard);
        // The client does not try at once without TLS.
        listener.set_nonblocking(true).expect("set");
        (heard, listener)
    });
    play(&home, "work", &format!("https://{address}"));
    let why = errors(&home, 1, "parked").remove(0).1;
    assert!(why.contains("cannot be trusted") && why.contains("corrupt message"), "{why}");
    let (heard, listener) = heard.join().expect("heard");
    assert!(!contains(&heard, "api/public") && !contains(&heard, &authorization()) && heard.first() == Some(&0x16));
    assert!(listener.accept().is_err());
}

#[test]
fn additional_authorities_are_trusted_in_both_versions_of_tls() {
    for (variable, version) in [("NODE_EXTRA_CA_CERTS", &TLS12), ("SSL_CERT_FILE", &TLS13)] {
        let home = Home::new();
        let ours = Authority::new("ours");
        let alone = Identity::self_signed("localhost");
        let trusted = pem(&home, "ca.pem", &[Authority::new("other").pem(), ours.pem(), alone.pem()]);
        let signed = Server::secure(anywhere(), &ours.certify("127.0.0.1"), version);
        let own = Server::secure(anywhere(), &alone, version);
        play(&home, "signed", &signed.url);
        play(&home, "own", &own.url.replace("127.0.0.1", "localhost"));
        for project in ["signed", "own"] {
            // Spooled events carry no key.
            home.settings(project, &env(if project == "signed" { &signed.url } else { "" }));
        }
        home.settings("own", &env(&own.url.replace("127.0.0.1", "localhost")));
        let daemon = home.daemon_with(&[(variable, "/nowhere/ca.pem")]);
        for (_, why) in errors(&home, 2, "parked") {
            assert!(why.contains("UnknownIssuer") && why.contains("NODE_EXTRA_CA_CERTS"), "{why}");
        }
        assert!(home.log().contains("/nowhere/ca.pem"), "{}", home.log());
        drop(daemon);
        let _daemon = home.daemon_with(&[(variable, &trusted)]);
        home.flush();
        assert_eq!((signed.spans().len(), own.spans().len()), (2, 2), "{variable}");
    }
}

#[test]
fn a_name_that_does_not_resolve_is_tried_again() {
    let home = Home::new();
    let _daemon = home.daemon();
    play(&home, "work", "https://nowhere.invalid");
    let why = errors(&home, 1, "retrying").remove(0).1;
    assert!(why.contains("no such host is known"), "{why}");
    assert_eq!(home.status()["outbox"]["pending"], 2);
}

#[test]
fn an_unreliable_server_gets_everything_once() {
    let home = Home::new();
    let _daemon = home.daemon();
    let address = server::unused();
    let url = format!("http://{address}");
    let mut story = Story::new(&home, "work", "s");
    let mut arrived = Vec::new();
    let rounds = tries(3, 20);
    for round in 1..=rounds {
        let answer = |half: &str| format!("answer {round}{half}");
        story.turn("q", &answer("a"));
        home.hook(&story.stop(&answer("a")), &env(&url));
        home.status_until("the failure to be seen", |status| status["destinations"][0]["state"] == "retrying");
        let server = Server::at(address, |_| Answer::ok());
        home.flush();
        // Over the open connection.
        story.turn("q", &answer("b"));
        home.hook(&story.stop(&answer("b")), &env(&url));
        server.wait_for(4);
        home.flush();
        arrived.extend(server.spans());
    }
    let ids: BTreeSet<_> = arrived.iter().map(|span| (&span.trace_id, &span.span_id)).collect();
    assert_eq!((arrived.len(), ids.len()), (4 * rounds, 4 * rounds));
}

#[test]
fn an_address_that_is_not_langfuse_is_parked_and_probed() {
    let home = Home::new();
    let _daemon = home.daemon();
    let servers = [403, 404, 405, 410, 418].map(|status| {
        let server = Server::answering(move |_| Answer::status(status).body("nothing here"));
        play(&home, &format!("status-{status}"), &server.url);
        (status, server)
    });
    let errors = errors(&home, servers.len(), "parked");
    for (status, server) in &servers {
        let (_, why) = errors.iter().find(|(url, _)| *url == server.url).expect("a destination");
        let remedy = if *status == 403 { "key" } else { "base URL" };
        assert!(why.contains(&status.to_string()) && why.contains("nothing here") && why.contains(remedy), "{why}");
        assert_eq!(server.requests().len(), 1, "parked is parked");
        server.change(|_| Answer::ok());
    }
    home.flush();
    assert!(servers.iter().all(|(_, server)| server.requests().len() == 2 && server.spans().len() == 2));
    assert_eq!(home.status()["dead_letters"], 0);
}

#[test]
fn a_wait_that_the_server_asked_for_survives_a_restart() {
    let home = Home::new();
    let daemon = home.daemon();
    let ask = |wait: &'static str| {
        let mut first = Some(Answer::status(429).header("retry-after", wait));
        Server::answering(move |_| first.take().unwrap_or_else(Answer::ok))
    };
    let (long, short, unclear) = (ask("1000000000"), ask("3"), ask("tomorrow"));
    for (project, server) in [("long", &long), ("short", &short), ("unclear", &unclear)] {
        home.settings(project, &env(&server.url));
        play(&home, project, &server.url);
    }
    home.status_until("the waits to be stored", |status| {
        let failed = |server: &Server| {
            let all = status["destinations"].as_array().expect("a list");
            all.iter().any(|destination| destination["base_url"] == server.url && destination["last_error"].is_string())
        };
        failed(&long) && failed(&short) && failed(&unclear)
    });
    daemon.kill();
    let _daemon = home.daemon();
    // Neither a hook that brings the key again nor a waiting user shortens the wait.
    for (project, server) in [("long", &long), ("short", &short)] {
        let story = Story::new(&home, project, &format!("session-{project}"));
        home.hook(&story.event("Notification"), &env(&server.url));
    }
    short.wait_for(2);
    unclear.wait_for(2);
    let requests = short.requests();
    assert_eq!(requests.len(), 2);
    let waited = requests[1].at - requests[0].at;
    assert!(waited >= Duration::from_secs(3), "{waited:?}");
    assert!(requests[0].plain == requests[1].plain);
    let left = home.ctl(&["flush", "--timeout", "300ms"]);
    assert_eq!(left.status.code(), Some(1), "{left:?}");
    assert!(String::from_utf8_lossy(&left.stderr).contains(&long.url), "{left:?}");
    assert_eq!(long.requests().len(), 1);
}

#[test]
fn a_large_turn_passes_a_proxy_with_a_limit_of_one_megabyte() {
    const LIMIT: usize = 1 << 20;
    let home = Home::new();
    let _daemon = home.daemon();
    let server = Server::answering(|request| Answer::status(if request.raw.len() > LIMIT { 413 } else { 200 }));
    let mut story = Story::new(&home, "work", "large");
    let tools = tries(12, 110);
    let mut outputs: Vec<String> = (1..=tools).map(|n| noise(300_000, n as u64)).collect();
    outputs.push(noise(tries(3_000_000, 5_000_000), 1000));
    story.prompt("q");
    outputs.iter().for_each(|output| _ = story.tool(output));
    let failure = noise(2_000_000, 2000);
    story.failed_tool(&failure).answer("done");
    home.hook(&story.stop("done"), &env(&server.url));
    home.flush();
    let spans = server.spans();
    let expect = 2 * (tools + 2) + 2;
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!((spans.len(), ids.len()), (expect, expect));
    assert_eq!(home.status()["dead_letters"], 0);
    let is_cut = |span: &&Span| span.attrs.values().any(|value| value.contains("[TRUNCATED "));
    let cut: Vec<&Span> = spans.iter().filter(is_cut).collect();
    assert!(!cut.is_empty() && cut.len() < 10, "{:?}", cut.iter().map(|span| &span.name).collect::<Vec<_>>());
    for output in [&outputs[tools], &failure] {
        assert!(cut.iter().any(|span| span.observation("output").contains(&output[..100_000])), "what fits is kept");
    }
    for output in &outputs[..tools] {
        assert!(spans.iter().any(|span| span.observation("output").contains(output)));
    }
    let requests = server.requests();
    assert!(requests.len() < 2 * expect, "{} requests for {expect} spans", requests.len());
}
