//! Images and documents on a server: attachments of a trace, uploaded through the artifact proxy if the experiment keeps its
//! artifacts behind it. A span refers to them by URI.

use bytes::Bytes;
use http::{HeaderName, Request, header};
use sha2::{Digest, Sha256};

use super::{Said, server::EXPERIMENT};
use crate::{
    destination::upload::{Answered, MediaApi, Next, Outcome, Place, Reason, Upload, outcome},
    ids::{TraceId, hex},
    media::Hash,
    observation::MediaRef,
    verdict::Answer,
};

/// The scheme of locations that the artifact proxy serves. Writing to other locations would need their credentials.
const PROXY: &str = "mlflow-artifacts:";

pub(super) struct Attachments;

impl MediaApi for Attachments {
    fn question(&self, at: &Place<'_>) -> Option<Request<Bytes>> {
        let path = format!("mlflow/experiments/get?experiment_id={}", experiment(at));
        request(at, "GET", &path, Bytes::new()).ok()
    }

    fn takes(&self, answer: &Answered) -> bool {
        !matches!(location(answer), Err(Outcome::Never(..)))
    }

    fn next(&self, at: &Place<'_>, upload: &Upload, answers: &[Answered]) -> Next {
        match answers {
            [] => self.question(at).map_or_else(|| Next::End(never("the experiment fits in no address")), Next::Ask),
            [said] => match location(said) {
                Ok(location) => put(at, upload, &location),
                Err(outcome) => Next::End(outcome),
            },
            [.., stored] => Next::End(match &stored.answer {
                Answer::Response { status: 503, body, .. } if body.contains("no-serve-artifacts") => {
                    Outcome::Never(Reason::Unsupported, body.clone())
                }
                answer => outcome(answer),
            }),
        }
    }
}

fn never(why: &str) -> Outcome {
    Outcome::Never(Reason::Unsupported, why.to_owned())
}

fn experiment<'a>(at: &Place<'a>) -> &'a str {
    at.endpoint.headers.get(EXPERIMENT).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

/// A request to its API, with the same credentials as for spans.
fn request<B>(at: &Place<'_>, method: &str, path: &str, body: B) -> Result<Request<B>, String> {
    // A location may contain spaces, which must be encoded.
    let address = url::Url::parse(&format!("{}/api/2.0/{path}", at.to.address)).map_err(|error| error.to_string())?;
    let mut request = Request::builder().method(method).uri(address.as_str());
    for name in [header::AUTHORIZATION, HeaderName::from_static("x-mlflow-workspace")] {
        if let Some(value) = at.endpoint.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    request.body(body).map_err(|error| error.to_string())
}

/// The path of the experiment's artifacts below the proxy.
///
/// # Errors
/// What follows if there is none, or no answer.
fn location(said: &Answered) -> Result<String, Outcome> {
    match outcome(&said.answer) {
        Outcome::Done => {}
        outcome => return Err(outcome),
    }
    let body = said.response.as_ref().map(|response| &response.body()[..]).unwrap_or_default();
    let said: Said = serde_json::from_slice(body).unwrap_or_default();
    let location = said.experiment.map(|experiment| experiment.artifact_location).unwrap_or_default();
    let elsewhere =
        || never(&format!("its experiment keeps artifacts at {location}, where only MLflow's clients can put them"));
    let path = location.strip_prefix(PROXY).ok_or_else(elsewhere)?;
    // A location with a host belongs to another server.
    let path = match path.strip_prefix("//") {
        Some(path) if !path.starts_with('/') => return Err(elsewhere()),
        Some(path) => path,
        None => path,
    };
    let path = path.trim_matches('/');
    let is_plain = !path.contains(['?', '#', '%', '\\']) && path.split('/').all(|part| !matches!(part, "." | ".."));
    is_plain.then(|| path.to_owned()).ok_or_else(elsewhere)
}

fn put(at: &Place<'_>, upload: &Upload, location: &str) -> Next {
    let (trace, id) = (trace(&upload.trace_id), attachment(&upload.hash));
    let path = format!("mlflow-artifacts/artifacts/{location}/traces/{trace}/artifacts/attachments/{id}");
    match request(at, "PUT", &path, ()) {
        Ok(mut request) => {
            if let Ok(kind) = upload.kind.parse() {
                request.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
            Next::Send(request)
        }
        Err(why) => Next::End(Outcome::Never(Reason::Refused, why)),
    }
}

/// The id of a trace in MLflow's form.
fn trace(id: &TraceId) -> String {
    format!("tr-{}", hex(id))
}

/// An attachment's id must be a UUID: version 8, derived from the hash of the bytes.
fn attachment(hash: &Hash) -> String {
    let digest = Sha256::digest(hash);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    let text = hex(&id);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

/// The reference that stands in a span of `trace_id` in place of an image or document.
pub(super) fn reference(trace_id: &TraceId, media: &MediaRef) -> String {
    let kind: String = url::form_urlencoded::byte_serialize(media.kind.as_bytes()).collect();
    let (id, trace) = (attachment(&media.hash), trace(trace_id));
    format!("mlflow-attachment://{id}?content_type={kind}&trace_id={trace}&size={}", media.length)
}

#[cfg(test)]
mod tests;
