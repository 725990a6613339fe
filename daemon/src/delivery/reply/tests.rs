use std::io::Write;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use proptest::prelude::*;

use super::*;

const HTML: &str = "<html><head><title>Sign in to\n Airport WiFi</title></head><body>Please log in</body></html>";

fn api(kind: &str, body: impl AsRef<[u8]>) -> Reply {
    let kind = Some(kind).filter(|kind| !kind.is_empty());
    read(Asked::Api, &Said { status: 200, kind, body: body.as_ref(), ..Said::default() })
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn utf16(text: &str, big: bool, mark: bool) -> Vec<u8> {
    let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
    units.flat_map(|unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

#[test]
fn every_positive_answer_of_a_receiver_is_accepted() {
    let queued = r#"{"name":"otel-ingestion-job","data":{"timestamp":"2026-11-28T10:00:00.000Z","id":"0f","payload":
        {"data":{"fileKey":"otel/p/2026/11/28/10/00/0f.json","publicKey":"pk"},"authCheck":{"validKey":true,"scope":
        {"projectId":"p","accessLevel":"project","plan":"oss","rateLimitOverrides":[],"isIngestionSuspended":false}}},
        "name":"otel-ingestion-job"},"opts":{"attempts":6,"removeOnComplete":true,"removeOnFail":100000,"backoff":
        {"delay":5000,"type":"exponential"}},"id":"17","progress":0,"returnvalue":null,"stacktrace":null,"delay":0,
        "priority":0,"attemptsStarted":0,"attemptsMade":0,"stalledCounter":0,"timestamp":1764324000000,
        "queueQualifiedName":"bull:otel-ingestion-queue"}"#;
    for (kind, body) in [
        ("application/json; charset=utf-8", queued),
        ("application/json", &queued[..700]),
        ("application/json", ""),
        ("", ""),
        ("application/x-protobuf", ""),
        ("application/octet-stream", ""),
        ("text/plain", ""),
        ("application/x-protobuf", "\n\0"),
        ("application/json", "{}"),
        ("", "{}"),
        ("text/plain; charset=utf-8", "{}\n"),
        ("application/json", "{\"partialSuccess\":{}}"),
        ("application/json", "{\"partialSuccess\":{\"rejectedSpans\":\"0\",\"errorMessage\":\"attributes were cut\"}}"),
        ("application/json", "null"),
        ("application/json", "[]"),
        ("application/json", "true"),
        ("application/json", "\"ok\""),
        ("application/json", "{\"successes\":[],\"errors\":[]}"),
        ("application/json", "{\"error\":null,\"data\":{\"accepted\":3}}"),
        ("application/json", "{\"errors\":false,\"took\":4}"),
        ("application/json", "{\"code\":0,\"message\":\"\"}"),
        ("application/json", "{\"code\":200,\"msg\":\"success\"}"),
        ("application/json", "{\"code\":20000,\"msg\":\"ok\"}"),
        ("application/json", "{\"errcode\":0,\"errmsg\":\"ok\"}"),
        ("application/json", "{\"status\":\"ok\"}"),
        ("application/json", "{\"status\":\"waiting\",\"queue\":\"spans\"}"),
        ("application/json", "{\"status\":202,\"message\":\"traces received\"}"),
        ("application/json", "{\"success\":true,\"message\":\"no error\"}"),
        ("application/json", "{\"foo\":\"bar\"}"),
        ("application/json", "{\"echo\":\"<html>\"}"),
        ("application/json", ")]}',\n{}"),
        ("application/json", "3 spans"),
        ("application/json", "{}{}"),
        ("application/x-protobuf", "\u{1}\u{2}\u{3}"),
        ("application/x-ndjson", "{}\n{}\n"),
        ("text/plain", "OK"),
        ("text/plain", "ok\n"),
        ("", "Accepted"),
        ("text/plain", "12 spans accepted"),
        ("text/plain", "Success, no errors"),
        ("", "aaaaaaaaaaaaaaaaaaaaaaaa"),
    ] {
        assert_eq!(api(kind, body), Reply::Taken(None), "{kind}: {body}");
    }
    assert_eq!(api("", vec![0; 1000]), Reply::Taken(None));
    assert_eq!(api("", [0xff, 0xfe, 0x81, 0x82]), Reply::Taken(None));
    let bomb = gzip(&"\0".repeat(8 << 20));
    let said =
        Said { status: 200, kind: Some("application/json"), encoding: Some("gzip"), body: &bomb, ..Said::default() };
    assert_eq!(read(Asked::Api, &said), Reply::Taken(None));
    let said = Said { status: 204, kind: Some("text/html"), ..Said::default() };
    assert_eq!(read(Asked::Api, &said), Reply::Taken(None));
    let said = Said { status: 200, kind: Some("application/grpc"), grpc_status: Some("0"), ..Said::default() };
    assert_eq!(read(Asked::Api, &said), Reply::Taken(None));
}

#[test]
fn a_web_page_is_never_accepted_whatever_its_type_or_encoding() {
    let titled = Reply::Foreign("the page \"Sign in to Airport WiFi\"".into());
    let kinds = [
        "",
        "text/html",
        "TEXT/HTML; charset=utf-8",
        "application/xhtml+xml",
        "application/json",
        "text/plain",
        "application/octet-stream",
        "application/x-protobuf",
        "text/xml",
        "application/problem+json",
    ];
    for kind in kinds {
        for before in [
            "",
            " \r\n\t",
            "\u{feff}",
            "\n",
            "\u{feff}\n\n",
            "<!-- \"{}\" -->\n",
            "<!DOCTYPE html>",
            "<?xml version=\"1.0\"?>\n",
            "\n<",
        ] {
            let body = format!("{before}{HTML}");
            for body in [
                body.clone().into_bytes(),
                gzip(&body),
                utf16(&body, true, true),
                utf16(&body, false, true),
                utf16(&body, true, false),
                utf16(&body, false, false),
            ] {
                let reply = api(kind, &body);
                assert!(matches!(reply, Reply::Foreign(_)), "{kind}: {:?}: {reply:?}", String::from_utf8_lossy(&body));
            }
        }
        let reply = api(kind, HTML);
        assert!(reply == titled || kind.ends_with("xml"), "{reply:?}");
    }
    // The part that arrived.
    assert!(matches!(api("", &HTML[..30]), Reply::Foreign(_)));
    for (kind, body) in [
        ("text/html", ""),
        ("text/html", "{}"),
        ("", "<div id=root>"),
        ("", "  <svg/>"),
        ("application/json", "Loading…<script>location='/login'</script>"),
        ("application/json", "\"<html>\""),
        ("application/javascript", "location='/login'"),
        ("image/gif", "GIF89a"),
        ("text/plain", "Please log in to use this network."),
        ("text/plain", "Hello, world"),
        ("", "Welcome to nginx!"),
        ("application/octet-stream", "Your session has expired"),
        ("text/plain", "Unauthorized"),
        ("text/plain", "404 page not found"),
        ("application/json", "KeyRing denied"),
        ("application/json", "upstream connect error or disconnect/reset before headers"),
    ] {
        assert!(matches!(api(kind, body), Reply::Foreign(_)), "{kind}: {body}: {:?}", api(kind, body));
    }
    // An encoding that was not asked for and is not known.
    for (kind, expect) in [("", true), ("text/html", true), ("application/json", false)] {
        let said =
            Said { status: 200, kind: Some(kind), encoding: Some("br"), body: &[0x8b, 1, 0x80, 3], ..Said::default() };
        assert_eq!(matches!(read(Asked::Api, &said), Reply::Foreign(_)), expect, "{kind}");
    }
    let zlib = {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(HTML.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let said = Said { status: 203, encoding: Some("deflate"), body: &zlib, ..Said::default() };
    assert_eq!(read(Asked::Api, &said), titled);
}

#[test]
fn json_that_reports_an_error_is_not_accepted() {
    for body in [
        r#"{"error":"not authenticated"}"#,
        r#"{"error":"not auth"#,
        r#"{"error":{"code":401}}"#,
        r#"{"error":true}"#,
        r#"{"Error":"x"}"#,
        r#"{"errors":[{"message":"x"}],"data":null}"#,
        r#"{"message":"Unauthorized","statusCode":401}"#,
        r#"{"message":"Unauthorized"}"#,
        r#"{"message":"Invalid API key"}"#,
        r#"{"detail":"Not authenticated"}"#,
        r#"{"title":"Forbidden","status":403}"#,
        r#"{"success":false}"#,
        r#"{"success":"false"}"#,
        r#"{"ok":false,"description":"x"}"#,
        r#"{"code":16,"message":"x"}"#,
        r#"{"code":"401","message":"x"}"#,
        r#"{"code":"invalid_token"}"#,
        r#"{"code":40101,"msg":"x"}"#,
        r#"{"code":1e999}"#,
        r#"{"status":"error","data":{}}"#,
        r#"{"status":"fail"}"#,
        r#"{"status":500}"#,
        r#"{"status_code":"503"}"#,
        r#"{"type":"error"}"#,
        r#"{"result":"denied"}"#,
        r#"{"errorCode":1234}"#,
        r#"{"errorMessage":"x","errorType":"Runtime.ExitError"}"#,
        r#"{"error_description":"x"}"#,
        r#"{"errcode":40001,"errmsg":"x"}"#,
        r#"{"fault":{"faultstring":"Invalid ApiKey","detail":{}}}"#,
        r#"{"captive":true,"user-portal-url":"https://portal.example"}"#,
        r#"{"authenticated":false}"#,
        r#"{"login_url":"https://sso.example/login"}"#,
        r#"{"response":{"error":"x"}}"#,
        r#"{"status":{"code":7,"message":"x"}}"#,
        r#"[{"error":"x"}]"#,
        r#"["x",{"success":false}]"#,
        r#""Unauthorized""#,
        "false",
        "401",
        "\u{feff}{\"error\":\"x\"}",
        ")]}',\n{\"error\":\"x\"}",
        "{\"error\":\"x\"}\n{}",
        r#"{"partialSuccess":{},"error":"x"}"#,
    ] {
        for kind in ["application/json", "", "text/plain", "application/problem+json"] {
            assert_eq!(api(kind, body), Reply::Error, "{kind}: {body}");
        }
        assert_eq!(api("application/json", gzip(body)), Reply::Error, "{body}");
    }
    // A message google.rpc.Status.
    assert_eq!(api("application/x-protobuf", b"\x08\x10\x12\x03bad"), Reply::Error);
    let said = Said { status: 200, kind: Some("application/grpc"), grpc_status: Some("16"), ..Said::default() };
    assert_eq!(read(Asked::Api, &said), Reply::Error);
}

#[test]
fn the_count_of_rejected_spans_is_read_in_every_number_form() {
    const MOST: u64 = u64::MAX;
    for (count, expect) in [
        ("3", Some(3)),
        ("\"3\"", Some(3)),
        ("0", None),
        ("-1", None),
        ("\"-7\"", None),
        ("2.9", Some(2)),
        ("9223372036854775807", Some(i64::MAX as u64)),
        ("18446744073709551615", Some(MOST)),
        ("18446744073709551616", Some(MOST)),
        ("\"99999999999999999999999\"", Some(MOST)),
        ("1e300", Some(MOST)),
        ("null", None),
        ("[1]", None),
        ("\"NaN\"", None),
    ] {
        for (outer, inner) in [("partialSuccess", "rejectedSpans"), ("partial_success", "rejected_spans")] {
            let body = format!("{{\"{outer}\":{{\"{inner}\":{count},\"errorMessage\":\"error: too old\"}}}}");
            match api("application/json", &body) {
                Reply::Taken(partial) => assert_eq!(partial.map(|(count, _)| count), expect, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
    for (rejected_spans, expect) in [(3, Some(3)), (i64::MAX, Some(i64::MAX as u64)), (i64::MIN, None), (0, None)] {
        // Begins like markup after an empty line: a message of 60 bytes.
        for length in [0, 1, 56, 58, 200] {
            let partial = ExportTracePartialSuccess { rejected_spans, error_message: "<".repeat(length) };
            let answer = ExportTraceServiceResponse { partial_success: Some(partial) };
            let expect = expect.map(|count| (count, "<".repeat(length)));
            assert_eq!(api("", answer.encode_to_vec()), Reply::Taken(expect), "{rejected_spans}");
        }
    }
}

#[test]
fn a_file_store_may_answer_with_nothing_or_with_xml() {
    let put = |kind, body: &str| {
        read(Asked::Storage, &Said { status: 200, kind: Some(kind), body: body.as_bytes(), ..Said::default() })
    };
    for (kind, body) in [
        ("text/html; charset=UTF-8", ""),
        ("application/xml", ""),
        ("", ""),
        ("application/xml", "<?xml version=\"1.0\"?><PostResponse/>"),
        ("application/json", "{}"),
    ] {
        assert_eq!(put(kind, body), Reply::Taken(None), "{kind}: {body}");
    }
    assert!(matches!(put("text/html", HTML), Reply::Foreign(_)));
    assert_eq!(put("application/xml", "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>"), Reply::Error);
}

proptest! {
    #[test]
    fn no_answer_is_too_odd(kind in "[a-z/+;]{0,20}", encoding in proptest::option::of("gzip|deflate|br"), body in proptest::collection::vec(any::<u8>(), 0..300)) {
        for asked in [Asked::Api, Asked::Storage] {
            read(asked, &Said { status: 200, kind: Some(&kind), encoding: encoding.as_deref(), body: &body, ..Said::default() });
        }
    }

    #[test]
    fn whatever_stands_around_it_an_error_is_found(before in "[a-z]{1,8}", number in any::<f64>(), text in "\\PC{0,30}") {
        let body = serde_json::json!({ before: { "n": number, "text": text }, "error": "x" }).to_string();
        prop_assert_eq!(api("application/json", body), Reply::Error);
    }
}
