//! Langfuse's web pages and public API: projects, traces in both generations of the API, deletion.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use serde_json::{Value as Json, json};

use super::auth;
use crate::{
    destination::{
        Destination,
        deletion::{Certainty, Deletion},
        pages::{Pages, Project, encoded, request},
    },
    ids::hex,
    score::outcome_id,
    secret::Secrets,
};

/// Index of the v4 API, which older servers lack.
const OBSERVATIONS: usize = 0;

pub(super) struct Site;

impl Pages for Site {
    fn whose(&self, to: &Destination, secrets: &Secrets) -> Request<Bytes> {
        ask(Method::GET, to, secrets, "projects", Bytes::new())
    }

    fn project(&self, answer: &Json) -> Result<(String, String), String> {
        let project = &answer["data"][0];
        let id = project["id"].as_str().ok_or("the answer names no project")?;
        Ok((id.to_owned(), project["name"].as_str().unwrap_or(id).to_owned()))
    }

    fn trace(&self, to: &Destination, project: &Project, trace_id: &str) -> String {
        page(to, project, "traces", trace_id)
    }

    fn session(&self, to: &Destination, project: &Project, session_id: &str) -> String {
        page(to, project, "sessions", session_id)
    }

    /// Newer servers may lack the older API.
    fn views(&self) -> &'static [&'static str] {
        &["v4 API", "older API"]
    }

    fn view(&self, view: usize, to: &Destination, secrets: &Secrets, trace_id: &str) -> Request<Bytes> {
        let path = match view {
            OBSERVATIONS => format!("v2/observations?traceId={trace_id}&fields=core"),
            _ => format!("traces/{trace_id}"),
        };
        ask(Method::GET, to, secrets, &path, Bytes::new())
    }

    fn shows(&self, view: usize, trace_id: &str, answer: &Json) -> bool {
        match view {
            OBSERVATIONS => answer["data"].as_array().is_some_and(|rows| !rows.is_empty()),
            _ => answer["id"] == trace_id,
        }
    }

    fn lacks(&self, view: usize, said: &str) -> bool {
        let said = said.to_ascii_lowercase();
        view == OBSERVATIONS || said.contains("events_only") || said.contains("endpoint is not available")
    }
}

impl Deletion for Site {
    fn delete(&self, to: &Destination, secrets: &Secrets, _: &str, traces: &[String]) -> Request<Bytes> {
        ask(Method::DELETE, to, secrets, "traces", json!({ "traceIds": traces }).to_string().into())
    }

    /// How it ended: a score of a session is of no trace.
    fn beside(&self, to: &Destination, secrets: &Secrets, session_id: &str) -> Option<Request<Bytes>> {
        let path = format!("scores/{}", hex(&outcome_id(session_id)));
        Some(ask(Method::DELETE, to, secrets, &path, Bytes::new()))
    }

    fn most(&self) -> usize {
        100
    }

    fn certainty(&self) -> Certainty {
        Certainty::Asked
    }
}

fn page(to: &Destination, project: &Project, kind: &str, id: &str) -> String {
    format!("{}/project/{}/{kind}/{}", to.address, encoded(&project.id), encoded(id))
}

fn ask(method: Method, to: &Destination, secrets: &Secrets, path: &str, body: Bytes) -> Request<Bytes> {
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, auth(to, secrets))]);
    request(method, &format!("{}/api/public/{path}", to.address), headers, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Kind;

    #[test]
    fn a_missing_api_and_a_late_trace_are_told_apart() {
        let said = "HTTP 404: {\"message\":\"Trace not found\"}";
        for (view, said, lacks) in [
            (0, said, true),
            (1, said, false),
            (1, "HTTP 404: EVENTS_ONLY mode", true),
            (1, "HTTP 404: This Endpoint is not available", true),
        ] {
            assert_eq!(Site.lacks(view, said), lacks, "{view} {said}");
        }
        for (view, answer, shows) in [
            (0, json!({ "data": [{ "id": "o" }] }), true),
            (0, json!({ "data": [] }), false),
            (0, json!({ "data": "x" }), false),
            (1, json!({ "id": "t" }), true),
            (1, json!({ "id": "u" }), false),
            (1, json!([]), false),
        ] {
            assert_eq!(Site.shows(view, "t", &answer), shows, "{view} {answer}");
        }
    }

    #[test]
    fn foreign_ids_are_encoded_as_one_path_segment() {
        let to = Destination { kind: Kind::Langfuse, address: "https://lf.example.org/x".into(), account: "pk".into() };
        let project = Project { id: "p/../q".into(), name: "p".into(), date: None };
        assert_eq!(
            Site.session(&to, &project, "a b?c#d"),
            "https://lf.example.org/x/project/p%2F..%2Fq/sessions/a%20b%3Fc%23d"
        );
        assert_eq!(Site.trace(&to, &project, "0a"), "https://lf.example.org/x/project/p%2F..%2Fq/traces/0a");
    }

    #[test]
    fn a_project_without_a_name_is_shown_by_its_id() {
        let named = |answer| Site.project(&answer);
        assert_eq!(named(json!({ "data": [{ "id": "i", "name": "n" }] })), Ok(("i".into(), "n".into())));
        assert_eq!(named(json!({ "data": [{ "id": "i" }] })), Ok(("i".into(), "i".into())));
        for odd in [json!({}), json!({ "data": [] }), json!({ "data": [{ "id": 1 }] }), json!([1])] {
            assert!(named(odd.clone()).is_err(), "{odd}");
        }
    }
}
