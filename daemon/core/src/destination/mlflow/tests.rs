use super::*;

const ON: (&str, &str) = ("MLFLOW_CLAUDE_TRACING_ENABLED", "true");
const URI: &str = "MLFLOW_TRACKING_URI";
const SERVER: (&str, &str) = (URI, "http://127.0.0.1:5000");
const PROJECT: (&str, &str) = ("CLAUDE_PROJECT_DIR", "/home/dev/app");

fn route(vars: &[(&str, &str)]) -> Result<Option<(Destination, Secrets)>, Refused> {
    Mlflow.route(&Env::new(vars.iter().copied()))
}

fn found(vars: &[(&str, &str)]) -> (Destination, Secrets) {
    route(vars).unwrap().unwrap()
}

fn headers(vars: &[(&str, &str)]) -> HeaderMap {
    let (to, secrets) = found(vars);
    match Mlflow.connect(&to, &secrets, &[]) {
        Connect::Ready(Endpoint { headers, .. }) => headers,
        other => panic!("{other:?}"),
    }
}

fn parked(connect: Connect) -> String {
    match connect {
        Connect::Park(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_uri_and_an_experiment_make_a_destination() {
    let (id, name) = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME");
    for (vars, address, account) in [
        (&[ON, SERVER][..], "http://127.0.0.1:5000", "0"),
        (&[ON, (URI, "https://me:pw@ml.example.org/x/")], "https://ml.example.org/x", "0"),
        (&[ON, SERVER, (id, "7"), (name, "mine")], "http://127.0.0.1:5000", "7"),
        (&[ON, SERVER, (name, "a, name=b")], "http://127.0.0.1:5000", "name=a, name=b"),
        (&[ON, SERVER, (id, "7"), (WORKSPACE, "team")], "http://127.0.0.1:5000", "7,workspace=team"),
        (&[ON, SERVER, (WORKSPACE, "team"), (name, "x")], "http://127.0.0.1:5000", "workspace=team,name=x"),
        (&[ON, SERVER, ("MLFLOW_TRACKING_INSECURE_TLS", "false")], "http://127.0.0.1:5000", "0"),
        (&[ON, SERVER, ("MLFLOW_TRACKING_AUTH", "x")], "http://127.0.0.1:5000", "0,unknown=MLFLOW_TRACKING_AUTH"),
        (&[ON, PROJECT], "file:///home/dev/app/.claude/mlflow/runs", "0"),
        (&[ON, PROJECT, (URI, "file://./.claude/mlflow/runs")], "file:///home/dev/app/.claude/mlflow/runs", "0"),
        (&[ON, (URI, "sqlite:///mlflow.db")], "sqlite:///mlflow.db", "0"),
        (&[SERVER], "http://127.0.0.1:5000", "0"),
    ] {
        let (to, _) = found(vars);
        assert_eq!((to.kind, to.address.as_str(), to.account.as_str()), (Kind::Mlflow, address, account), "{vars:?}");
        assert_eq!(Form::of(&to).account(), account, "what is written is read");
        let stored = serde_json::to_string(&to).unwrap();
        assert_eq!(serde_json::from_str::<Destination>(&stored).unwrap(), to);
    }
    assert_eq!(route(&[]).unwrap().map(|(to, _)| to), None);
    assert_eq!(route(&[PROJECT, ("MLFLOW_EXPERIMENT_ID", "7")]).unwrap().map(|(to, _)| to), None);
    for vars in [&[ON][..], &[ON, (URI, "file://name")], &[ON, (URI, "http://")], &[ON, (URI, "runs")]] {
        assert_eq!(route(vars).err(), Some(Refused::TrackingUri), "{vars:?}");
    }
}

#[test]
fn credentials_are_found_like_in_mlflows_own_client() {
    let (name, password, token) = ((USERNAME, "ada"), (PASSWORD, "p w"), (TOKEN, "t-1"));
    let of = |vars: &[(&str, &str)]| {
        let all: Vec<_> = [ON, SERVER].into_iter().chain(vars.iter().copied()).collect();
        headers(&all).get("authorization").map(|value| value.to_str().unwrap().to_owned())
    };
    let (basic, bearer) = (Some("Basic YWRhOnAgdw==".to_owned()), Some("Bearer t-1".to_owned()));
    for (vars, expect) in [
        (&[][..], None),
        (&[name], None),
        (&[password], None),
        (&[token], bearer.clone()),
        (&[name, token], bearer),
        (&[name, password, token], basic.clone()),
        // Credentials in the address win.
        (&[(URI, "http://ada:p%20w@127.0.0.1:5000"), (USERNAME, "eve"), (PASSWORD, "x"), token], basic),
    ] {
        assert_eq!(of(vars), expect, "{vars:?}");
    }
    let to = found(&[ON, (URI, "http://ada:p%20w@127.0.0.1:5000")]).0;
    assert!(!format!("{to:?}").contains("ada"));
}

#[test]
fn headers_name_the_experiment_and_the_workspace() {
    let of = |vars: &[(&str, &str)]| -> Vec<(String, String)> {
        let headers = headers(vars);
        let mut pairs: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        pairs.sort();
        pairs
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(of(&[ON, SERVER]), [pair("x-mlflow-experiment-id", "0")]);
    let vars = [ON, SERVER, ("MLFLOW_EXPERIMENT_ID", "71"), (WORKSPACE, "team")];
    assert_eq!(of(&vars), [pair("x-mlflow-experiment-id", "71"), pair("x-mlflow-workspace", "team")]);
}

#[test]
fn other_uris_are_file_stores_or_get_a_remedy() {
    let connect = |vars: &[(&str, &str)]| {
        let (to, secrets) = found(vars);
        Mlflow.connect(&to, &secrets, &[])
    };
    match connect(&[ON, PROJECT, ("MLFLOW_EXPERIMENT_NAME", "mine")]) {
        Connect::Files(Folder { root, experiment }) => {
            assert_eq!((root.as_str(), experiment), ("/home/dev/app/.claude/mlflow/runs", Which::Name("mine".into())));
        }
        other => panic!("{other:?}"),
    }
    assert!(
        parked(connect(&[ON, (URI, "sqlite:///a.db")])).contains("mlflow server --backend-store-uri sqlite:///a.db")
    );
    assert!(parked(connect(&[ON, (URI, "databricks")])).contains("MLFLOW_TRACKING_URI"));
    for (name, remedy) in UNKNOWN {
        let why = parked(connect(&[ON, SERVER, (name, "true")]));
        assert!(why.contains(name) && why.contains(remedy), "{why}");
    }
}

#[test]
fn a_missing_experiment_is_looked_up_by_name_and_created() {
    let (to, secrets) = found(&[ON, SERVER, ("MLFLOW_EXPERIMENT_NAME", "a b/ü"), (TOKEN, "t-1")]);
    let answer = |status: u16, body: &str| {
        Response::builder().status(status).body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
    };
    let connect = |answers: &[(u16, &str)]| {
        let answers: Vec<_> = answers.iter().map(|(status, body)| answer(*status, body)).collect();
        Mlflow.connect(&to, &secrets, &answers)
    };
    let asked = |connect: Connect| match connect {
        Connect::Ask(request) => {
            assert_eq!(request.headers()["authorization"], "Bearer t-1");
            (request.method().to_string(), request.uri().to_string(), request.body().clone())
        }
        other => panic!("{other:?}"),
    };
    let get = "http://127.0.0.1:5000/api/2.0/mlflow/experiments/get-by-name?experiment_name=a+b%2F%C3%BC";
    assert_eq!(asked(connect(&[])), ("GET".into(), get.into(), Bytes::new()));
    let none = (404, r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"x"}"#);
    let (method, uri, body) = asked(connect(&[none]));
    assert_eq!((method.as_str(), uri.as_str()), ("POST", "http://127.0.0.1:5000/api/2.0/mlflow/experiments/create"));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), serde_json::json!({"name": "a b/ü"}));
    let taken = (400, r#"{"error_code":"RESOURCE_ALREADY_EXISTS","message":"x"}"#);
    assert_eq!(asked(connect(&[none, taken])).1, get);
    let there = (200, r#"{"experiment":{"experiment_id":"63","lifecycle_stage":"active","name":"x"}}"#);
    for answers in [&[there][..], &[none, (200, r#"{"experiment_id":"63"}"#)], &[none, taken, there]] {
        match connect(answers) {
            Connect::Ready(Endpoint { url, headers }) => {
                assert_eq!(url, "http://127.0.0.1:5000/v1/traces");
                assert_eq!(headers["x-mlflow-experiment-id"], "63");
            }
            other => panic!("{other:?}"),
        }
    }
    let deleted = (200, r#"{"experiment":{"experiment_id":"63","lifecycle_stage":"deleted"}}"#);
    for (answers, expect) in [
        (&[deleted][..], "was deleted"),
        (&[none, taken, deleted], "was deleted"),
        (&[(404, "<html>not here</html>")], "there is no MLflow"),
        (&[(200, "<html>")], "does not answer as MLflow does"),
        (&[none, taken, none], "can be neither found nor made"),
        (&[none, (403, r#"{"error_code":"PERMISSION_DENIED"}"#)], "PERMISSION_DENIED"),
    ] {
        let why = parked(connect(answers));
        assert!(why.contains(expect), "{why}");
    }
}

#[test]
fn images_are_attached_to_messages_but_not_to_tool_results() {
    use crate::observation::{Body, Caller, Content, Generation, MediaRef, Message, Part};
    let content = || {
        let media = MediaRef { kind: "image/png".into(), hash: [7; 32], length: 68 };
        Content::Parts(vec![Part::Text("look".into()), Part::Media(media)])
    };
    let caller = Caller { id: "toolu_1".into(), name: "Read".into() };
    let input = [None, Some(caller)].map(|tool| Message { tool, content: content() }).to_vec();
    let shows = Observation {
        body: Body::Generation(Box::new(Generation { input, ..Generation::default() })),
        ..Observation::default()
    };
    let of = |vars: &[(&str, &str)]| -> serde_json::Value {
        let span = Mlflow.encode(&found(vars).0, &shows, &TraceFacts::default());
        serde_json::from_str(span.text("mlflow.spanInputs").unwrap()).unwrap()
    };
    let sent = of(&[ON, SERVER]);
    let url = &sent["messages"][0]["content"][1]["source"]["url"];
    assert!(url.as_str().unwrap().starts_with("mlflow-attachment://"), "{sent}");
    let size = "look\n[image/png, 68 bytes]";
    assert_eq!(sent["messages"][1]["content"][0]["content"], size);
    // A file store has no workspaces.
    let written = of(&[ON, PROJECT]);
    assert_eq!(
        (&written["messages"][0]["content"], &written["messages"][1]["content"][0]["content"]),
        (&size.into(), &size.into())
    );
}
