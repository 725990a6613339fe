use super::*;
use crate::observation::{Failure, Level};

fn route(vars: &[(&str, &str)]) -> Result<Option<(Destination, Secrets)>, Refused> {
    Otlp.route(&Env::new(vars.iter().copied()))
}

fn found(vars: &[(&str, &str)]) -> (Destination, Secrets) {
    route(vars).unwrap().unwrap()
}

const ENDPOINT: (&str, &str) = ("CC_LANGFUSE_OTLP_ENDPOINT", "http://127.0.0.1:6006/v1/traces");

#[test]
fn the_path_of_an_endpoint_is_kept() {
    for (text, expect) in [
        ("http://127.0.0.1:4318", Some("http://127.0.0.1:4318/v1/traces")),
        ("http://127.0.0.1:4318/", Some("http://127.0.0.1:4318/v1/traces")),
        ("HTTPS://A.Example.:443/X/v1/traces/", Some("https://a.example/X/v1/traces/")),
        (" 'https://me:pw@a.example/x' ", Some("https://a.example/x")),
        ("https://a.example/api/public/otel/v1/traces", Some("https://a.example/api/public/otel/v1/traces")),
        ("https://a.example/%7Bx%7D", Some("https://a.example/%7Bx%7D")),
        ("https://a.example/x?key=1", None),
        ("https://a.example/x#y", None),
        ("a.example:4318", None),
        ("grpc://a.example:4317", None),
        ("", None),
    ] {
        assert_eq!(endpoint(text).as_deref(), expect, "{text:?}");
        if let Some(expect) = expect {
            assert_eq!(endpoint(expect).as_deref(), Some(expect));
        }
    }
    assert_eq!(route(&[]).unwrap().map(|(to, _)| to), None);
    assert_eq!(route(&[("CC_LANGFUSE_OTLP_ENDPOINT", "nonsense")]).err(), Some(Refused::OtlpEndpoint));
}

#[test]
fn an_account_has_the_encoding_options_and_no_secret() {
    for (vars, account) in [
        (&[][..], "both"),
        (&[(DIALECT, "GenAI")], "genai"),
        (&[(DIALECT, "nonsense"), (MAX_VALUE_BYTES, "0"), (PRESET, "nobody")], "both"),
        (&[(MAX_VALUE_BYTES, " 65536 ")], "both,max=65536"),
        (&[(PRESET, "newrelic")], "both,max=4095,preset=newrelic"),
        (&[(PRESET, "newrelic"), (MAX_VALUE_BYTES, "300")], "both,max=300,preset=newrelic"),
        (&[(PRESET, "Phoenix"), ("CC_LANGFUSE_OTLP_NAME", "a,max=1 b")], "both,preset=phoenix,name=a,max=1 b"),
        (&[(HEADERS, "x=hidden")], "both"),
    ] {
        let vars: Vec<_> = [ENDPOINT].into_iter().chain(vars.iter().copied()).collect();
        let (to, _) = found(&vars);
        assert_eq!((to.kind, to.account.as_str()), (Kind::Otlp, account), "{vars:?}");
        assert_eq!(Form::of(&to).account(), account, "what is written is read");
        let stored = serde_json::to_string(&to).unwrap();
        assert_eq!(serde_json::from_str::<Destination>(&stored).unwrap(), to);
    }
    for account in ["", "nonsense", "both,max=x,preset=nobody,what=ever"] {
        let to = Destination { kind: Kind::Otlp, address: ENDPOINT.1.into(), account: account.into() };
        assert_eq!(Form::of(&to), Form::default());
    }
}

#[test]
fn headers_combine_the_list_the_preset_and_the_name() {
    let (to, secrets) =
        found(&[ENDPOINT, (PRESET, "phoenix"), ("CC_LANGFUSE_OTLP_NAME", "mine"), (HEADERS, "k-12345,x-b=c")]);
    let Connect::Ready(endpoint) = Otlp.connect(&to, &secrets, &[]) else { panic!("all is known") };
    assert_eq!(endpoint.url, ENDPOINT.1);
    for (name, value) in [("authorization", "Bearer k-12345"), ("x-b", "c"), ("x-project-name", "mine")] {
        assert_eq!(endpoint.headers.get(name).map(|value| value.to_str().unwrap()), Some(value), "{name}");
    }
    assert!(endpoint.headers["authorization"].is_sensitive());
    // An event from the spool has no secret, but its name is still known.
    let headers = headers_of(&to, &Secrets::default()).unwrap();
    assert_eq!((headers.len(), &headers["x-project-name"]), (1, &http::HeaderValue::from_static("mine")));
    assert!(!Otlp.needs_secret(&to));
    assert!(Otlp.needs_secret(&found(&[ENDPOINT, (PRESET, "honeycomb")]).0));
    assert!(!Otlp.needs_secret(&found(&[ENDPOINT]).0));
}

#[test]
fn failed_spans_are_errors_with_an_exception_and_all_others_are_ok() {
    use crate::destination::wire::Status;
    for (level, failure, expect, kind) in [
        (Level::Default, None, Status::Ok, None),
        (Level::Warning, None, Status::Ok, None),
        (Level::Error, Some(Failure::Tool), Status::Error("why".into()), Some("tool_error")),
        (Level::Error, Some(Failure::Api(Some(529))), Status::Error("why".into()), Some("api_error")),
        (Level::Error, None, Status::Error("why".into()), None),
    ] {
        let observation = Observation { level, failure, status: Some("why".into()), end: 7, ..Observation::default() };
        let span = encode(Dialect::Both, &observation, &TraceFacts::default());
        assert_eq!((&span.status, span.text("error.type")), (&expect, kind));
        let events: Vec<_> = span.events.iter().map(|event| (event.name, event.at_ns)).collect();
        assert_eq!(events, if kind.is_some() { vec![("exception", 7)] } else { vec![] });
        assert_eq!(span.text("claude_code.warning"), (level == Level::Warning).then_some("why"));
    }
}
