//! Asks a server what has to be known before anything can be sent to it.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};

use super::{
    client::{AGENT, Hyper, Limits},
    exchange::exchange,
    reply::Asked,
};
use cc_core::{
    destination::{Connect, Destination, Endpoint, MOST_ASKS},
    secret::Secrets,
    verdict::{Answer, Verdict},
};

/// Where a destination takes spans.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) endpoint: Endpoint,
    /// The server was asked for it, so that its answer can be out of date.
    pub(super) was_asked: bool,
}

/// What the backend of `to` says about the way there, with what the server answers to its requests.
///
/// # Errors
/// The verdict on why there is no way: never [`Verdict::Delivered`].
pub(super) async fn connect(
    client: &Hyper,
    to: &Destination,
    secrets: &Secrets,
    limits: Limits,
) -> Result<Known, Verdict> {
    let backend = to.kind.backend();
    let mut answers: Vec<Response<Bytes>> = Vec::new();
    loop {
        let request = match backend.connect(to, secrets, &answers) {
            Connect::Ready(endpoint) => return Ok(Known { endpoint, was_asked: !answers.is_empty() }),
            Connect::Park(why) => return Err(Verdict::Park(why)),
            Connect::Files(_) => return Err(Verdict::Park("it is a directory, and no server".into())),
            Connect::Ask(_) if answers.len() == MOST_ASKS => {
                return Err(Verdict::Later(None, format!("{MOST_ASKS} requests did not show where spans go")));
            }
            Connect::Ask(request) => request,
        };
        answers.push(ask(client, request, to, secrets, limits).await?);
    }
}

/// One request; its answer is the backend's to read, unless it means that there is none for now.
async fn ask(
    client: &Hyper,
    mut request: Request<Bytes>,
    to: &Destination,
    secrets: &Secrets,
    limits: Limits,
) -> Result<Response<Bytes>, Verdict> {
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
    let key = (to.account.clone(), secrets.clone());
    let (answer, response) = match exchange(client, request, &key, limits, Asked::Api).await {
        Ok(done) => (done.answer, Some(done.response)),
        Err(failed) => (failed.answer(), None),
    };
    let verdict = to.kind.judge(&answer);
    let status = if let Answer::Response { status, .. } = answer { status } else { 0 };
    match (verdict, response) {
        (Verdict::Delivered, Some(response)) => Ok(response),
        (Verdict::Silent(why), _) => Err(Verdict::Later(None, why)),
        (verdict @ Verdict::Later(..), _) => Err(verdict),
        (_, Some(response)) if (400..500).contains(&status) && !matches!(status, 401 | 403) => Ok(response),
        (verdict, _) => Err(verdict),
    }
}
