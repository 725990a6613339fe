//! The web pages and REST API of MLflow's tracking server: experiments, traces, deletion, server version.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use serde_json::{Value as Json, json};

use super::{EXPERIMENT_ID, EXPERIMENT_NAME, Form, Which, headers};
use crate::{
    destination::{
        Destination,
        deletion::{Certainty, Deletion},
        pages::{Pages, Project, Remark, encoded, request},
    },
    secret::Secrets,
};

/// Older servers count a span again when it is sent again.
const REPLACES: (u32, u32) = (3, 15);

pub(super) struct Site;

impl Pages for Site {
    fn whose(&self, to: &Destination, secrets: &Secrets) -> Request<Bytes> {
        let path = match Form::of(to).experiment {
            Which::Id(id) => format!("api/2.0/mlflow/experiments/get?experiment_id={}", encoded(&id)),
            Which::Name(name) => format!("api/2.0/mlflow/experiments/get-by-name?experiment_name={}", encoded(&name)),
        };
        get(to, secrets, &path)
    }

    fn project(&self, answer: &Json) -> Result<(String, String), String> {
        let experiment = &answer["experiment"];
        let id = experiment["experiment_id"].as_str().ok_or("the answer names no experiment")?;
        let name = experiment["name"].as_str().unwrap_or(id);
        if experiment["lifecycle_stage"] == "deleted" {
            return Err(format!(
                "the experiment {name} ({id}) was deleted, and nobody sees what is sent to it: restore it in MLflow, or name another \
                 one in {EXPERIMENT_ID} or {EXPERIMENT_NAME}"
            ));
        }
        Ok((id.to_owned(), name.to_owned()))
    }

    fn is_yet_to_come(&self, to: &Destination, said: &str) -> bool {
        matches!(Form::of(to).experiment, Which::Name(_)) && said.contains("RESOURCE_DOES_NOT_EXIST")
    }

    fn about(&self, to: &Destination, secrets: &Secrets) -> Vec<Request<Bytes>> {
        ["version", "api/3.0/mlflow/server-info"].map(|path| get(to, secrets, path)).into()
    }

    fn remarks(&self, bodies: &[Option<Bytes>]) -> Vec<Remark> {
        let text = |at: usize| std::str::from_utf8(bodies.get(at)?.as_ref()?).ok();
        let mut remarks = Vec::new();
        let version = text(0).map(str::trim).and_then(|text| Some((text, number(text)?)));
        if let Some((text, number)) = version {
            let is_old = number < REPLACES;
            remarks.push(Remark {
                seen: match is_old {
                    true => format!(
                        "MLflow {text} adds tokens and cost up again when a span is sent again, as after a lost answer"
                    ),
                    false => format!("MLflow {text}"),
                },
                remedy: is_old.then(|| "update the server to MLflow 3.15 or later".to_owned()),
                is_grave: false,
            });
        }
        let info: Option<Json> = text(1).and_then(|text| serde_json::from_str(text).ok());
        if info.is_some_and(|info| info["store_type"] == "FileStore") {
            remarks.push(Remark {
                seen: "the server keeps traces in files, and takes none over the network (HTTP 501)".to_owned(),
                remedy: Some("start it with --backend-store-uri sqlite:///mlflow.db".to_owned()),
                is_grave: true,
            });
        }
        remarks
    }

    /// The list shows the last seven days by default.
    fn trace(&self, to: &Destination, project: &Project, trace_id: &str) -> String {
        page(to, project, &format!("traces?startTimeLabel=ALL&selectedEvaluationId=tr-{trace_id}"), '&')
    }

    fn session(&self, to: &Destination, project: &Project, session_id: &str) -> String {
        page(to, project, &format!("chat-sessions/{}", encoded(session_id)), '?')
    }

    fn views(&self) -> &'static [&'static str] {
        &["API"]
    }

    fn view(&self, _: usize, to: &Destination, secrets: &Secrets, trace_id: &str) -> Request<Bytes> {
        get(to, secrets, &format!("api/3.0/mlflow/traces/get?trace_id=tr-{trace_id}"))
    }

    fn shows(&self, _: usize, trace_id: &str, answer: &Json) -> bool {
        answer["trace"]["trace_info"]["trace_id"] == format!("tr-{trace_id}")
    }

    fn lacks(&self, _: usize, said: &str) -> bool {
        !said.contains("RESOURCE_DOES_NOT_EXIST")
    }
}

impl Deletion for Site {
    /// A trace stays in the experiment it first arrived in, whatever is configured later.
    fn find(&self, to: &Destination, secrets: &Secrets, trace: &str) -> Option<Request<Bytes>> {
        Some(self.view(0, to, secrets, trace))
    }

    fn place(&self, answer: &Json) -> Option<String> {
        let location = &answer["trace"]["trace_info"]["trace_location"];
        location["mlflow_experiment"]["experiment_id"].as_str().map(str::to_owned)
    }

    fn is_absent(&self, said: &str) -> bool {
        !self.lacks(0, said)
    }

    fn delete(&self, to: &Destination, secrets: &Secrets, place: &str, traces: &[String]) -> Request<Bytes> {
        let ids: Vec<String> = traces.iter().map(|id| format!("tr-{id}")).collect();
        let body = json!({ "experiment_id": place, "request_ids": ids }).to_string();
        let address = format!("{}/api/2.0/mlflow/traces/delete-traces", to.address);
        let mut headers = headers(to, secrets).unwrap_or_default();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request(Method::POST, &address, headers, body.into())
    }

    fn most(&self) -> usize {
        100
    }

    fn files(&self, to: &Destination, secrets: &Secrets, place: &str, trace: &str) -> Option<Request<Bytes>> {
        let path = format!("api/2.0/mlflow-artifacts/artifacts/{}/traces/tr-{trace}", encoded(place));
        Some(request(Method::DELETE, &format!("{}/{path}", to.address), headers_of(to, secrets), Bytes::new()))
    }

    fn certainty(&self) -> Certainty {
        Certainty::Found
    }
}

/// Major and minor version.
fn number(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn page(to: &Destination, project: &Project, rest: &str, joint: char) -> String {
    let workspace = Form::of(to).workspace.map(|name| format!("{joint}workspace={}", encoded(&name)));
    format!("{}/#/experiments/{}/{rest}{}", to.address, encoded(&project.id), workspace.unwrap_or_default())
}

/// Credentials that do not fit in a header were refused earlier.
fn headers_of(to: &Destination, secrets: &Secrets) -> HeaderMap {
    headers(to, secrets).unwrap_or_default()
}

fn get(to: &Destination, secrets: &Secrets, path: &str) -> Request<Bytes> {
    request(Method::GET, &format!("{}/{path}", to.address), headers_of(to, secrets), Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{destination::Kind, secret::Secret};

    fn to(account: &str) -> Destination {
        Destination { kind: Kind::Mlflow, address: "http://ml.example/x".into(), account: account.into() }
    }

    fn project() -> Project {
        Project { id: "7".into(), name: "n".into(), date: None }
    }

    #[test]
    fn an_experiment_is_looked_up_by_id_or_name_with_workspace_and_credentials() {
        let secrets: Secrets = [(super::super::TOKEN, Secret::new("t-1"))].into_iter().collect();
        for (account, path) in [
            ("7", "/x/api/2.0/mlflow/experiments/get?experiment_id=7"),
            ("name=a b&c", "/x/api/2.0/mlflow/experiments/get-by-name?experiment_name=a%20b%26c"),
            ("../y", "/x/api/2.0/mlflow/experiments/get?experiment_id=..%2Fy"),
        ] {
            let request = Site.whose(&to(account), &secrets);
            assert_eq!(request.uri().path_and_query().map(|path| path.as_str()), Some(path));
            assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer t-1");
        }
        assert_eq!(Site.whose(&to("7,workspace=w"), &secrets).headers()["x-mlflow-workspace"], "w");
    }

    #[test]
    fn a_deleted_experiment_and_an_invalid_answer_are_reported() {
        let read = |answer| Site.project(&answer);
        let named = json!({"experiment": {"experiment_id": "7", "name": "mine", "lifecycle_stage": "active"}});
        assert_eq!(read(named), Ok(("7".into(), "mine".into())));
        let why = read(json!({"experiment": {"experiment_id": "7", "name": "mine", "lifecycle_stage": "deleted"}}));
        assert!(why.unwrap_err().contains("mine (7) was deleted"));
        for odd in [json!({}), json!({"experiment": {"experiment_id": 7}}), json!([1]), json!("x")] {
            assert!(read(odd.clone()).is_err(), "{odd}");
        }
        for (account, said, is_yet) in [
            ("name=n", "HTTP 404: {\"error_code\": \"RESOURCE_DOES_NOT_EXIST\"}", true),
            ("name=n", "HTTP 404: <html>", false),
            ("7", "HTTP 404: {\"error_code\": \"RESOURCE_DOES_NOT_EXIST\"}", false),
        ] {
            assert_eq!(Site.is_yet_to_come(&to(account), said), is_yet, "{account} {said}");
        }
    }

    #[test]
    fn old_servers_and_file_store_servers_are_reported_with_a_remedy() {
        let remarks = |version: Option<&'static str>, info: Option<&'static str>| {
            let all = Site.remarks(&[version.map(Bytes::from), info.map(Bytes::from)]);
            all.into_iter().map(|remark| (remark.remedy.is_some(), remark.is_grave)).collect::<Vec<_>>()
        };
        let sql = Some(r#"{"store_type":"SqlStore"}"#);
        for (version, expect) in [
            (Some("3.17.2"), &[(false, false)][..]),
            (Some("3.15.0\n"), &[(false, false)]),
            (Some("3.14.1"), &[(true, false)]),
            (Some("2.22.0"), &[(true, false)]),
            (Some("4.0.0.dev0"), &[(false, false)]),
            (Some("<html>"), &[]),
            (None, &[]),
        ] {
            assert_eq!(remarks(version, sql), expect, "{version:?}");
        }
        assert_eq!(remarks(None, Some(r#"{"store_type":"FileStore"}"#)), [(true, true)]);
        assert_eq!(remarks(None, Some("[")), []);
        assert!(Site.remarks(&[]).is_empty());
    }

    #[test]
    fn foreign_ids_are_encoded_as_one_path_segment() {
        let base = "http://ml.example/x/#/experiments/7";
        assert_eq!(
            Site.trace(&to("7"), &project(), "0a"),
            format!("{base}/traces?startTimeLabel=ALL&selectedEvaluationId=tr-0a")
        );
        assert_eq!(Site.session(&to("7"), &project(), "a/b?c"), format!("{base}/chat-sessions/a%2Fb%3Fc"));
        assert_eq!(
            Site.session(&to("7,workspace=w w"), &project(), "s"),
            format!("{base}/chat-sessions/s?workspace=w%20w")
        );
        let request = Deletion::files(&Site, &to("7"), &Secrets::default(), "../0", "0a").unwrap();
        assert_eq!(request.uri().path(), "/x/api/2.0/mlflow-artifacts/artifacts/..%2F0/traces/tr-0a");
    }

    #[test]
    fn traces_are_deleted_in_their_own_experiment() {
        let trace = json!({"trace": {"trace_info": {"trace_id": "tr-0a", "trace_location": {
            "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "3"}}}}});
        assert_eq!(Site.place(&trace), Some("3".into()));
        assert!(Site.shows(0, "0a", &trace) && !Site.shows(0, "0b", &trace));
        assert_eq!(Site.place(&json!({"trace": 1})), None);
        let request = Site.delete(&to("7"), &Secrets::default(), "3", &["0a".into(), "0b".into()]);
        let body: Json = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(body, json!({"experiment_id": "3", "request_ids": ["tr-0a", "tr-0b"]}));
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/x/api/2.0/mlflow/traces/delete-traces"));
    }
}
