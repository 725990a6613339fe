//! Delivered means that a receiver accepted the spans: an answer from anything else counts for nothing,
//! whatever its status.

use tests::{Answer, Home, Server, Story};

const PAGE: &str = "<html><head><title>Sign in to Airport WiFi</title></head><body>Please log in</body></html>";

/// A session of one turn in `project`: two spans.
fn play(home: &Home, project: &str, server: &Server) {
    let mut story = Story::new(home, project, &format!("session-{project}"));
    story.turn("question", "answer");
    home.hook(&story.stop("answer"), &server.env());
}

fn says(status: u16, kind: &str, body: &str) -> Answer {
    Answer::status(status).header("content-type", kind).body(body)
}

#[test]
fn an_answer_that_is_not_from_a_receiver_does_not_count() {
    let home = Home::new();
    let _daemon = home.daemon();
    let cases = [
        (says(200, "text/html; charset=utf-8", PAGE), "the page \"Sign in to Airport WiFi\""),
        (says(203, "text/html", PAGE), "sign-in"),
        (says(200, "application/json", PAGE), "Airport"),
        (says(202, "application/octet-stream", "\n\n<!-- x --><!DOCTYPE html><div id=root></div>"), "base URL"),
        (says(200, "application/xhtml+xml", "<?xml version=\"1.0\"?><html/>"), "base URL"),
        (says(200, "text/plain", "Please log in to use this network"), "Please log in"),
        (says(200, "application/json", "{\"error\":\"not authenticated\"}"), "not authenticated"),
        (says(200, "application/json", "{\"message\":\"Unauthorized\",\"statusCode\":401}"), "keys"),
        (says(200, "application/json", "{\"errors\":[{\"message\":\"x\"}]}"), "reports an error"),
        (says(201, "application/json", "{\"success\":false}"), "reports an error"),
        (says(200, "application/json", "{\"code\":16,\"message\":\"x\"}"), "reports an error"),
        (says(200, "application/captive+json", "{\"captive\":true}"), "reports an error"),
    ];
    let servers: Vec<_> = (1..)
        .zip(cases)
        .map(|(number, (answer, said))| {
            let server = Server::answering(move |_| answer.clone().unheard());
            play(&home, &format!("p{number}"), &server);
            (server, said)
        })
        .collect();
    let status = home.status_until("all of them to be parked", |status| {
        let all = status["destinations"].as_array().expect("a list");
        all.len() == servers.len() && all.iter().all(|destination| destination["state"] == "parked")
    });
    for (server, said) in &servers {
        let all = status["destinations"].as_array().expect("a list");
        let row = all.iter().find(|row| row["base_url"] == server.url).expect("a destination");
        let why = row["last_error"].as_str().expect("a reason");
        assert!(why.contains(said) && why.contains("HTTP 20") && why.contains("base URL"), "{said}: {why}");
        assert_eq!((row["delivered"].as_u64(), server.requests().len()), (Some(0), 1), "{said}");
    }
    assert_eq!(status["outbox"]["pending"], 2 * servers.len());
    servers.iter().for_each(|(server, _)| server.change(|_| Answer::ok()));
    home.flush();
    assert!(servers.iter().all(|(server, _)| server.spans().len() == 2));
    assert_eq!(home.status()["dead_letters"], 0);
}

#[test]
fn every_positive_answer_counts_as_delivered() {
    let home = Home::new();
    let _daemon = home.daemon();
    let queued = format!(
        "{{\"name\":\"otel-ingestion-job\",\"data\":{{\"id\":\"{}\",\"payload\":{{\"authCheck\":{{\"validKey\":true}}}}}},
          \"opts\":{{\"attempts\":6,\"removeOnFail\":100000}},\"returnvalue\":null,\"stacktrace\":null,\"delay\":0}}",
        "f".repeat(1000)
    );
    let cases = [
        says(200, "application/json; charset=utf-8", &queued),
        says(200, "application/json", "{}"),
        says(200, "application/json", ""),
        says(200, "application/x-protobuf", ""),
        says(202, "application/x-protobuf", "\u{a}\u{0}"),
        says(200, "application/json", "{\"partialSuccess\":{}}"),
        says(200, "application/json", "{\"foo\":\"bar\"}"),
        says(200, "application/json", "{\"code\":0,\"message\":\"ok\",\"errors\":[]}"),
        says(200, "text/plain; charset=utf-8", "OK"),
        says(202, "text/plain", "accepted\n"),
        says(204, "text/html", ""),
    ];
    let servers: Vec<_> = (1..)
        .zip(cases)
        .map(|(number, answer)| {
            let server = Server::answering(move |_| answer.clone());
            play(&home, &format!("p{number}"), &server);
            server
        })
        .collect();
    home.flush();
    for server in &servers {
        assert_eq!((server.requests().len(), server.spans().len()), (1, 2));
    }
}

#[test]
fn no_number_in_an_answer_blocks_a_destination() {
    let home = Home::new();
    let _daemon = home.daemon();
    let numbers =
        ["9223372036854775807", "\"9223372036854775807\"", "18446744073709551615", "1e300", "-1", "\"x\"", "[]"];
    for (number, rejected) in numbers.iter().enumerate() {
        let body = format!("{{\"partialSuccess\":{{\"rejectedSpans\":{rejected},\"errorMessage\":\"x\"}}}}");
        let server = Server::answering(move |_| {
            let absurd = "99999999999999999999999999";
            says(200, "application/json", &body).header("retry-after", absurd)
        });
        let mut story = Story::new(&home, &format!("p{number}"), &format!("session-{number}"));
        for turn in 1..=3 {
            story.turn(&format!("question {turn}"), "answer");
            home.hook(&story.stop("answer"), &server.env());
            server.wait_for(2 * turn);
        }
        home.flush();
        let status = home.status();
        let all = status["destinations"].as_array().expect("a list");
        let row = all.iter().find(|row| row["base_url"] == server.url).expect("a destination");
        let expect = if number < 4 { 6 } else { 0 };
        assert_eq!((row["state"].as_str(), row["delivered"].as_u64()), (Some("ok"), Some(6)), "{row}");
        assert_eq!(row["rejected"].as_u64(), Some(expect), "{row}");
        assert_eq!(server.spans().len(), 6, "sent once");
    }
}
