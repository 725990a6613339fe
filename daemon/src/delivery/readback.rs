//! Asks a server what a backend's pages know of it: who it takes us for, whether what it was sent shows, that it deletes traces.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use serde_json::Value;

use super::{
    client::{AGENT, Hyper, Limits, client},
    exchange::exchange,
    reply::Asked,
};
use crate::clock;
use cc_core::{
    delivery::readback::Failure,
    destination::{
        Destination,
        pages::{Pages, Project, Seen},
    },
    secret::Secrets,
    verdict::Answer,
};

/// Longest name or id of a project.
const NAME: usize = 200;

/// How often it is asked at the beginning, and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(4);

/// When one API shows a trace, the other ones get this long to do the same.
const GRACE: Duration = Duration::from_secs(1);

/// The way back.
pub struct Readback {
    client: Hyper,
    destination: Destination,
    pages: &'static dyn Pages,
    secrets: Secrets,
    limits: Limits,
}

impl Readback {
    /// For `destination`, reached with `secret`.
    ///
    /// # Errors
    /// If there is nothing to read there, the secret must not be sent there, or TLS cannot be set up.
    pub fn new(destination: &Destination, secrets: &Secrets, limits: Limits) -> anyhow::Result<Self> {
        let backend = destination.kind.backend();
        let pages = backend.pages().ok_or_else(|| {
            anyhow::anyhow!("{} only takes spans: nothing can be read back from it", backend.words().title)
        })?;
        let client = client(destination, limits)?;
        Ok(Self { client, destination: destination.clone(), pages, secrets: secrets.clone(), limits })
    }

    /// The project the keys belong to.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn project(&self) -> Result<Project, Failure> {
        let (answer, date) = self.ask(self.pages.whose(&self.destination, &self.secrets)).await?;
        let Some((id, name)) = self.pages.project(&answer) else {
            return Err(Failure::Odd { said: "the answer names no project".into(), date });
        };
        let safe = |text: &str| {
            let text = self.secrets.conceal(&self.destination.account, text);
            text.chars().filter(|c| !c.is_control()).take(NAME).collect::<String>()
        };
        Ok(Project { name: safe(&name), id: safe(&id), date })
    }

    /// Looks for a trace that was sent just now, until each API shows it or `patience` is over.
    pub async fn trace(&self, trace_id: &str, patience: Duration) -> Vec<(&'static str, Seen)> {
        let started = clock::monotonic();
        let mut views: Vec<_> = self.pages.views().iter().map(|api| (*api, Seen::NotYet)).collect();
        let mut pause = FIRST_PAUSE;
        loop {
            for (view, (_, seen)) in views.iter_mut().enumerate().filter(|(_, (_, seen))| *seen == Seen::NotYet) {
                let request = self.pages.view(view, &self.destination, &self.secrets, trace_id);
                *seen = match self.ask(request).await {
                    Ok((answer, _)) if self.pages.shows(view, trace_id, &answer) => Seen::Shown(started.elapsed()),
                    Err(Failure::Status { status: 404, said, .. }) if self.pages.lacks(view, &said) => Seen::NoSuchApi,
                    Err(Failure::Status { status: 404, .. }) => Seen::NotYet,
                    other => later(other),
                };
            }
            let elapsed = started.elapsed();
            let is_late = views.iter().any(|(_, seen)| matches!(seen, Seen::Shown(lag) if elapsed > *lag + GRACE));
            if is_late || views.iter().all(|(_, seen)| *seen != Seen::NotYet) || elapsed >= patience {
                return views;
            }
            tokio::time::sleep(pause.min(patience - elapsed)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Has these traces, by their ids in hex, deleted; says after how many of them that failed.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn delete(&self, traces: &[String]) -> Result<(), (usize, Failure)> {
        let together = self.pages.most_deleted();
        for (done, part) in traces.chunks(together).enumerate() {
            let request = self.pages.delete(&self.destination, &self.secrets, part);
            self.ask(request).await.map_err(|failure| (done * together, failure))?;
        }
        Ok(())
    }

    async fn ask(&self, mut request: Request<Bytes>) -> Result<(Value, Option<u64>), Failure> {
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        request.headers_mut().insert(header::ACCEPT, json.clone());
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let key = (self.destination.account.clone(), self.secrets.clone());
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
