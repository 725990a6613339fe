//! Langfuse's media API: ask for an upload address, put the bytes there, report the result. For bytes it already has, asking
//! alone links them to one more observation.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request, Uri, header};
use serde_json::{Value, json};

use super::{auth, encode::media_id};
use crate::{
    destination::upload::{Answered, MediaApi, Next, Outcome, Place, Reason, Upload, is_private, outcome},
    ids::hex,
    verdict::{Answer, Verdict, judge},
};

/// How often an upload to a signed address may be refused before it is given up: addresses expire.
const REFUSALS: u32 = 5;

pub(super) struct Media;

impl MediaApi for Media {
    fn next(&self, at: &Place<'_>, upload: &Upload, answers: &[Answered]) -> Next {
        match answers {
            [] => question(at, upload),
            [answer] => put(at, upload, answer),
            [_, stored] => report(at, upload, stored),
            [_, stored, reported, ..] => Next::End(end(upload, stored, reported)),
        }
    }
}

fn question(at: &Place<'_>, upload: &Upload) -> Next {
    let question = json!({
        "contentType": upload.kind, "contentLength": upload.length, "sha256Hash": STANDARD.encode(upload.hash),
        "traceId": hex(&upload.trace_id), "observationId": hex(&upload.span_id), "field": upload.field,
    });
    ask(at, Method::POST, "", &question)
}

/// Uploads the bytes to the address the server gave.
fn put(at: &Place<'_>, upload: &Upload, answer: &Answered) -> Next {
    let never = |reason, why: &str| Next::End(Outcome::Never(reason, why.into()));
    match outcome(&answer.answer) {
        Outcome::Done => {}
        outcome => return Next::End(outcome),
    }
    let body = answer.response.as_ref().map(|response| &response.body()[..]).unwrap_or_default();
    let to = match serde_json::from_slice(body) {
        Ok(Value::Object(answer)) => answer.get("uploadUrl").cloned().unwrap_or_default(),
        // A server that answers yes to every path: an OTLP collector, a relay.
        _ => return never(Reason::Unsupported, "its answer does not come from Langfuse's media API"),
    };
    let Some(to) = to.as_str() else { return Next::End(Outcome::Done) };
    let Some(to) = to.parse::<Uri>().ok().filter(|to| is_private(to, at.to)) else {
        return never(Reason::Refused, "the address to upload to is not one with https");
    };
    let host = to.host().unwrap_or_default();
    let of_google = host == "storage.googleapis.com" || host.ends_with(".storage.googleapis.com");
    let mut request = Request::put(to).header(header::CONTENT_TYPE, &upload.kind);
    if !of_google {
        let hash = STANDARD.encode(upload.hash);
        request = request.header("x-amz-checksum-sha256", hash).header("x-ms-blob-type", "BlockBlob");
    }
    request.body(()).map_or_else(|error| never(Reason::Refused, &error.to_string()), Next::Store)
}

/// Until it gets this report, the server does not show the upload.
fn report(at: &Place<'_>, upload: &Upload, stored: &Answered) -> Next {
    let Answer::Response { status, denial, .. } = &stored.answer else { return Next::End(outcome(&stored.answer)) };
    if denial.is_some() {
        let why = format!("the storage: HTTP {status}, but that is not what a storage says");
        return Next::End(Outcome::Later(None, why));
    }
    let report = json!({
        "uploadedAt": jiff::Timestamp::from_millisecond(stored.at_ms).map(|at| at.to_string()).unwrap_or_default(),
        "uploadHttpStatus": status,
        "uploadHttpError": (!(200..300).contains(status)).then(|| format!("HTTP {status}")),
        "uploadTimeMs": stored.took.as_millis() as u64,
    });
    ask(at, Method::PATCH, &format!("/{}", media_id(&upload.hash)), &report)
}

fn end(upload: &Upload, stored: &Answered, reported: &Answered) -> Outcome {
    let status = if let Answer::Response { status, .. } = stored.answer { status } else { 0 };
    match judge(&stored.answer) {
        Verdict::Delivered => outcome(&reported.answer),
        Verdict::Later(wait, _) => Outcome::Later(wait, format!("the storage: HTTP {status}")),
        _ if upload.tries + 1 < REFUSALS => Outcome::Later(None, format!("the storage: HTTP {status}")),
        _ => Outcome::Never(Reason::Refused, format!("the storage: HTTP {status}")),
    }
}

fn ask(at: &Place<'_>, method: Method, path: &str, body: &Value) -> Next {
    let request = Request::builder()
        .method(method)
        .uri(format!("{}/api/public/media{path}", at.to.address))
        .header(header::AUTHORIZATION, auth(at.to, at.secrets))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into());
    request.map_or_else(|error| Next::End(Outcome::Park(error.to_string())), Next::Ask)
}

#[cfg(test)]
mod tests;
