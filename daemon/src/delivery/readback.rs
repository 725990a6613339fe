//! Reading back from a server what it was sent, and asking it who it takes us for.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use serde_json::Value;

use super::{
    client::{AGENT, Hyper, Limits, client},
    exchange::exchange,
    reply::Asked,
};
use crate::clock;
use cc_core::{
    delivery::readback::{Failure, Project, Seen},
    destination::{Destination, langfuse},
    secret::Secrets,
    verdict::Answer,
};

/// Longest name or id of a project.
const NAME: usize = 200;

/// How often it is asked at the beginning, and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(4);

/// When one API shows a trace, the other one gets this long to do the same.
const GRACE: Duration = Duration::from_secs(1);

/// The way back.
pub struct Readback {
    client: Hyper,
    destination: Destination,
    secrets: Secrets,
    limits: Limits,
}

impl Readback {
    /// For `destination`, reached with `secret`.
    ///
    /// # Errors
    /// If the secret must not be sent there, or TLS cannot be set up.
    pub fn new(destination: &Destination, secrets: &Secrets, limits: Limits) -> anyhow::Result<Self> {
        let client = client(destination, limits)?;
        Ok(Self { client, destination: destination.clone(), secrets: secrets.clone(), limits })
    }

    /// The project the keys belong to.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn project(&self) -> Result<Project, Failure> {
        let (body, date) = self.get("/api/public/projects").await?;
        let text = |key: &str| {
            let text = self.secrets.conceal(&self.destination.account, body["data"][0][key].as_str()?);
            Some(text.chars().filter(|c| !c.is_control()).take(NAME).collect::<String>())
        };
        let id = text("id").ok_or_else(|| Failure::Odd { said: "the answer names no project".into(), date })?;
        Ok(Project { name: text("name").unwrap_or_else(|| id.clone()), id, date })
    }

    /// Looks for a trace that was sent just now, until both APIs show it or `patience` is over: that of v4, which older servers do
    /// not have, and the one of before, which newer servers may not have.
    pub async fn trace(&self, trace_id: &str, patience: Duration) -> (Seen, Seen) {
        let started = clock::monotonic();
        let (mut observations, mut trace) = (Seen::NotYet, Seen::NotYet);
        let mut pause = FIRST_PAUSE;
        loop {
            if observations == Seen::NotYet {
                let path = format!("/api/public/v2/observations?traceId={trace_id}&fields=core");
                observations = match self.get(&path).await {
                    Ok((body, _)) if body["data"].as_array().is_some_and(|rows| !rows.is_empty()) => {
                        Seen::Shown(started.elapsed())
                    }
                    Err(Failure::Status { status: 404, .. }) => Seen::NoSuchApi,
                    other => later(other),
                };
            }
            if trace == Seen::NotYet {
                trace = match self.get(&format!("/api/public/traces/{trace_id}")).await {
                    Ok((body, _)) if body["id"] == trace_id => Seen::Shown(started.elapsed()),
                    Err(Failure::Status { status: 404, said, .. }) if has_no_old_api(&said) => Seen::NoSuchApi,
                    Err(Failure::Status { status: 404, .. }) => Seen::NotYet,
                    other => later(other),
                };
            }
            let elapsed = started.elapsed();
            let is_late =
                [&observations, &trace].iter().any(|seen| matches!(seen, Seen::Shown(lag) if elapsed > *lag + GRACE));
            if is_late || ![&observations, &trace].contains(&&Seen::NotYet) || elapsed >= patience {
                return (observations, trace);
            }
            tokio::time::sleep(pause.min(patience - elapsed)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Has these traces, by their ids in hex, deleted. The server does that in its own time.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn delete(&self, traces: &[String]) -> Result<(), Failure> {
        let body = serde_json::json!({ "traceIds": traces }).to_string();
        self.ask(Method::DELETE, "/api/public/traces", body.into()).await.map(drop)
    }

    async fn get(&self, path: &str) -> Result<(Value, Option<u64>), Failure> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<(Value, Option<u64>), Failure> {
        let public_key = &self.destination.account;
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.destination.address))
            .header(header::AUTHORIZATION, langfuse::auth(&self.destination, &self.secrets))
            .header(header::USER_AGENT, AGENT)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| Failure::Unreachable(error.to_string()))?;
        let key = (public_key.clone(), self.secrets.clone());
        let exchanged = exchange(&self.client, request, &key, self.limits, Asked::Api).await;
        let done = exchanged.map_err(|failed| match failed.answer() {
            Answer::Untrusted(why) => Failure::Untrusted(why),
            _ => Failure::Unreachable(failed.to_string()),
        })?;
        let (answer, response) = (done.answer, done.response);
        let date = date(response.headers());
        let body = match &answer {
            Answer::Response { body, .. } if !body.is_empty() => format!(": {body}"),
            _ => String::new(),
        };
        let status = response.status().as_u16();
        if status != 200 {
            return Err(Failure::Status { status, said: format!("HTTP {status}{body}"), date });
        }
        if let Answer::Response { denial: Some(why), .. } = answer {
            return Err(Failure::Odd { said: format!("HTTP {status}, but {why}"), date });
        }
        let value = serde_json::from_slice(response.body());
        value.map(|value| (value, date)).map_err(|_| Failure::Odd { said: "the answer is no JSON".into(), date })
    }
}

/// True of the 404 by which a server says that it has left the APIs of before v4; any other one means that there is no such
/// trace so far.
fn has_no_old_api(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    said.contains("events_only") || said.contains("endpoint is not available")
}

/// What an answer other than the one that was hoped for means.
fn later(answer: Result<(Value, Option<u64>), Failure>) -> Seen {
    match answer {
        Err(Failure::Status { status: 400..=407 | 409..=428, said, .. } | Failure::Odd { said, .. }) => {
            Seen::Failed(said)
        }
        Err(Failure::Untrusted(why)) => Seen::Failed(why),
        // An empty list, or a server that has no time just now.
        _ => Seen::NotYet,
    }
}

fn date(headers: &HeaderMap) -> Option<u64> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    Some(httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
