//! Asks a server the questions that its backend knows: the project of the credentials, whether a trace is there, deletion.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use serde_json::Value;

use super::{
    client::{AGENT, Hyper, Limits, client_of_allowed},
    exchange::{Exchanged, exchange},
    reply::Asked,
};
use crate::clock;
use cc_core::{
    delivery::readback::Failure,
    destination::{
        Destination,
        deletion::{Certainty, Deleted, Deletion},
        pages::{Pages, Project, Remark, Seen},
    },
    secret::Secrets,
    verdict::Answer,
};

/// The longest name or id of a project that is shown, in characters.
const NAME: usize = 200;

/// The longest other text that is shown, in characters.
const MAX_TEXT: usize = 600;

/// The pause between two questions: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(4);

/// When one API shows a trace, the other ones get this long to do the same.
const GRACE: Duration = Duration::from_secs(1);

/// A server that stores asynchronously counts as having stored everything once it has not shown a trace for this long.
const QUIET_PERIOD: Duration = Duration::from_secs(3);

/// How often the server is asked meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

pub struct Readback {
    client: Hyper,
    destination: Destination,
    secrets: Secrets,
    limits: Limits,
}

impl Readback {
    /// For `destination`, reached with `secrets`. The caller has checked that they may be sent there.
    ///
    /// # Errors
    /// If the secrets are never safe there, or TLS cannot be set up.
    pub fn new(destination: &Destination, secrets: &Secrets, limits: Limits) -> anyhow::Result<Self> {
        let client = client_of_allowed(destination, secrets, limits)?;
        Ok(Self { client, destination: destination.clone(), secrets: secrets.clone(), limits })
    }

    fn pages(&self) -> Result<&'static dyn Pages, Failure> {
        let backend = self.destination.kind.backend();
        backend.pages().ok_or_else(|| Failure::Odd {
            said: format!("{} only takes spans: nothing can be read back from it", backend.words().title),
            date: None,
        })
    }

    fn deletion(&self) -> Result<&'static dyn Deletion, Failure> {
        let backend = self.destination.kind.backend();
        let said = || format!("{} has no deletion that is known", backend.words().title);
        backend.deletion().ok_or_else(|| Failure::Odd { said: said(), date: None })
    }

    /// The project that the keys belong to, or that stores the traces.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn project(&self) -> Result<Project, Failure> {
        let pages = self.pages()?;
        let (answer, date) = self.ask(pages.whose(&self.destination, &self.secrets)).await?;
        let (id, name) =
            pages.project(&answer).map_err(|said| Failure::Odd { said: self.safe(&said, MAX_TEXT), date })?;
        Ok(Project { name: self.safe(&name, NAME), id: self.safe(&id, NAME), date })
    }

    /// An answer of the server for people: without secrets, cut to `most` characters.
    fn safe(&self, text: &str, most: usize) -> String {
        let text = self.secrets.conceal(&self.destination.account, text);
        text.chars().filter(|c| !c.is_control()).take(most).collect()
    }

    /// Noteworthy facts about the server, from the questions that its kind knows.
    pub async fn remarks(&self) -> Vec<Remark> {
        let Ok(pages) = self.pages() else { return Vec::new() };
        let mut bodies = Vec::new();
        for request in pages.about(&self.destination, &self.secrets) {
            // A version may be labelled as a web page, so the check for foreign pages is left out.
            let response = self.exchanged(request).await.ok().map(|exchanged| exchanged.response);
            bodies.push(response.filter(|response| response.status().is_success()).map(Response::into_body));
        }
        let safe = |remark: Remark| Remark { seen: self.safe(&remark.seen, MAX_TEXT), ..remark };
        pages.remarks(&bodies).into_iter().map(safe).collect()
    }

    /// Asks for a trace that was just sent, until every API shows it or `limit` is over.
    pub async fn trace(&self, trace_id: &str, limit: Duration) -> Vec<(&'static str, Seen)> {
        let started = clock::monotonic();
        let Ok(pages) = self.pages() else { return Vec::new() };
        let mut views: Vec<_> = pages.views().iter().map(|api| (*api, Seen::NotYet)).collect();
        let mut pause = FIRST_PAUSE;
        loop {
            for (view, (_, seen)) in views.iter_mut().enumerate().filter(|(_, (_, seen))| *seen == Seen::NotYet) {
                let request = pages.view(view, &self.destination, &self.secrets, trace_id);
                *seen = match self.ask(request).await {
                    Ok((answer, _)) if pages.shows(view, trace_id, &answer) => Seen::Shown(started.elapsed()),
                    Err(Failure::Status { status: 404, said, .. }) if pages.lacks(view, &said) => Seen::NoSuchApi,
                    Err(Failure::Status { status: 404, .. }) => Seen::NotYet,
                    other => later(other),
                };
            }
            let elapsed = started.elapsed();
            let is_late = views.iter().any(|(_, seen)| matches!(seen, Seen::Shown(lag) if elapsed > *lag + GRACE));
            if is_late || views.iter().all(|(_, seen)| *seen != Seen::NotYet) || elapsed >= limit {
                return views;
            }
            tokio::time::sleep(pause.min(limit - elapsed)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// True if this server deletes traces.
    ///
    /// # Errors
    /// [`Failure`], if it cannot be asked.
    pub async fn deletes(&self) -> Result<bool, Failure> {
        let Ok(deletion) = self.deletion() else { return Ok(false) };
        match deletion.identify(&self.destination, &self.secrets) {
            Some(request) => Ok(deletion.is_known(&self.exchanged(request).await?.response)),
            None => Ok(true),
        }
    }

    /// Deletes these traces, by their ids in hex, and waits for at most `limit` until that is certain, if it can be.
    /// Reports how many were deleted before a failure.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn delete(&self, traces: &[String], limit: Duration) -> Result<Deleted, (usize, Failure)> {
        let deletion = self.deletion().map_err(|failure| (0, failure))?;
        match deletion.certainty() {
            Certainty::Asked => {
                let mut asked = 0;
                for part in traces.chunks(deletion.most().max(1)) {
                    let request = deletion.delete(&self.destination, &self.secrets, "", part);
                    self.answered(request).await.map_err(|failure| (asked, failure))?;
                    asked += part.len();
                }
                Ok(Deleted { asked, ..Deleted::default() })
            }
            Certainty::Found => self.delete_found(deletion, traces).await,
            Certainty::Repeated => self.delete_repeatedly(deletion, traces, limit).await,
        }
    }

    /// Deletes what the server has of the session itself, beside its traces.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn delete_session(&self, session_id: &str) -> Result<(), Failure> {
        let Some(request) = self.deletion()?.beside(&self.destination, &self.secrets, session_id) else {
            return Ok(());
        };
        match self.answered(request).await {
            // It has none, or no such API.
            Ok(_) | Err(Failure::Status { status: 404 | 405 | 501, .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Finds each trace, deletes it where it is, and checks again.
    async fn delete_found(&self, deletion: &dyn Deletion, traces: &[String]) -> Result<Deleted, (usize, Failure)> {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut deleted = Deleted::default();
        for trace in traces {
            match self.place(deletion, trace).await.map_err(|failure| (0, failure))? {
                Some(place) => places.entry(place).or_default().push(trace.clone()),
                None => deleted.absent += 1,
            }
        }
        for (place, traces) in &places {
            for part in traces.chunks(deletion.most().max(1)) {
                let failed = |failure| (deleted.gone, failure);
                // First the files that can be found by the traces alone.
                for trace in part {
                    if let Some(request) = deletion.files(&self.destination, &self.secrets, place, trace) {
                        match self.answered(request).await {
                            // Such a server stores none of this program's files.
                            Ok(_) | Err(Failure::Status { status: 404 | 405 | 501 | 503, .. }) => {}
                            Err(failure) => return Err(failed(failure)),
                        }
                    }
                }
                let request = deletion.delete(&self.destination, &self.secrets, place, part);
                self.answered(request).await.map_err(failed)?;
                for trace in part {
                    if self.place(deletion, trace).await.map_err(failed)?.is_some() {
                        let said = format!("it says that it deleted trace {trace}, and still shows it");
                        return Err(failed(Failure::Odd { said, date: None }));
                    }
                }
                deleted.gone += part.len();
            }
        }
        Ok(deleted)
    }

    /// The place of a trace; `None` if the server does not know it.
    async fn place(&self, deletion: &dyn Deletion, trace: &str) -> Result<Option<String>, Failure> {
        let Some(request) = deletion.find(&self.destination, &self.secrets, trace) else { return Ok(None) };
        match self.ask(request).await {
            Ok((answer, date)) => {
                let odd = || Failure::Odd { said: "the answer does not say where the trace is".into(), date };
                deletion.place(&answer).map(Some).ok_or_else(odd)
            }
            Err(Failure::Status { status: 404, said, .. }) if deletion.is_absent(&said) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Deletes the traces again until the server has shown none of them for [`QUIET_PERIOD`].
    async fn delete_repeatedly(
        &self,
        deletion: &dyn Deletion,
        traces: &[String],
        limit: Duration,
    ) -> Result<Deleted, (usize, Failure)> {
        let started = clock::monotonic();
        let (mut gone, mut last) = (BTreeSet::new(), started);
        loop {
            for trace in traces {
                let request = deletion.delete(&self.destination, &self.secrets, "", std::slice::from_ref(trace));
                match self.answered(request).await {
                    Ok(_) => {
                        gone.insert(trace);
                        last = clock::monotonic();
                    }
                    Err(Failure::Status { status: 404, said, .. }) if deletion.is_absent(&said) => {}
                    Err(failure) => return Err((gone.len(), failure)),
                }
            }
            if last.elapsed() >= QUIET_PERIOD {
                return Ok(Deleted { gone: gone.len(), absent: traces.len() - gone.len(), asked: 0 });
            }
            if started.elapsed() >= limit {
                let said = "more of it came while it was deleted".to_owned();
                return Err((gone.len(), Failure::Odd { said, date: None }));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn exchanged(&self, mut request: Request<Bytes>) -> Result<Exchanged, Failure> {
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        request.headers_mut().insert(header::ACCEPT, json.clone());
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let key = (self.destination.account.clone(), self.secrets.clone());
        let exchanged = exchange(&self.client, request, &key, self.limits, Asked::Api).await;
        exchanged.map_err(|failed| match failed.answer() {
            Answer::Untrusted(why) => Failure::Untrusted(why),
            _ => Failure::Unreachable(failed.to_string()),
        })
    }

    /// A 2xx that comes from the server itself, and its clock.
    async fn answered(&self, request: Request<Bytes>) -> Result<(Response<Bytes>, Option<u64>), Failure> {
        let Exchanged { answer, response, .. } = self.exchanged(request).await?;
        let date = date(response.headers());
        let body = match &answer {
            Answer::Response { body, .. } if !body.is_empty() => format!(": {body}"),
            _ => String::new(),
        };
        let status = response.status().as_u16();
        if !response.status().is_success() {
            return Err(Failure::Status { status, said: format!("HTTP {status}{body}"), date });
        }
        if let Answer::Response { denial: Some(why), .. } = answer {
            return Err(Failure::Odd { said: format!("HTTP {status}, but {why}"), date });
        }
        Ok((response, date))
    }

    async fn ask(&self, request: Request<Bytes>) -> Result<(Value, Option<u64>), Failure> {
        let (response, date) = self.answered(request).await?;
        let value = serde_json::from_slice(response.body());
        value.map(|value| (value, date)).map_err(|_| Failure::Odd { said: "the answer is no JSON".into(), date })
    }
}

/// The meaning of an answer that does not show the trace.
fn later(answer: Result<(Value, Option<u64>), Failure>) -> Seen {
    match answer {
        Err(Failure::Status { status: 400..=407 | 409..=428, said, .. } | Failure::Odd { said, .. }) => {
            Seen::Failed(said)
        }
        Err(Failure::Untrusted(why)) => Seen::Failed(why),
        // An empty list, or a server that is busy.
        _ => Seen::NotYet,
    }
}

fn date(headers: &HeaderMap) -> Option<u64> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    Some(httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
