//! Asks a server what must be known before anything can be sent to it.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};

use super::{
    client::{AGENT, Hyper, Limits, client_of_allowed},
    exchange::exchange,
    reply::Asked,
};
use cc_core::{
    destination::{Connect, Destination, Endpoint, Folder, MOST_ASKS},
    secret::Secrets,
    verdict::{Answer, Verdict},
};

/// The endpoint of a destination.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) endpoint: Endpoint,
    /// The server was asked for the endpoint, so its answer can become out of date.
    pub(super) was_asked: bool,
}

/// The connection to a destination.
pub(super) enum Route {
    /// A server and its endpoint for spans.
    Server(Box<(Hyper, Endpoint)>),
    /// A directory in place of a server.
    Files(Folder),
}

/// Connects to `to`. Asks the server for the endpoint unless it is `known`, and stores it there.
///
/// # Errors
/// The verdict on why there is no connection, never [`Verdict::Delivered`].
pub(super) async fn open(
    to: &Destination,
    secrets: &Secrets,
    limits: Limits,
    known: &mut Option<Known>,
) -> Result<Route, Verdict> {
    let backend = to.kind.backend();
    let mut answers: Vec<Response<Bytes>> = Vec::new();
    let mut next = backend.connect(to, secrets, &answers);
    if let Connect::Files(folder) = next {
        return Ok(Route::Files(folder));
    }
    let client = client_of_allowed(to, secrets, limits).map_err(|error| Verdict::Park(format!("{error:#}")))?;
    if let Some(known) = known {
        return Ok(Route::Server(Box::new((client, known.endpoint.clone()))));
    }
    loop {
        let request = match next {
            Connect::Ready(endpoint) => {
                *known = Some(Known { endpoint: endpoint.clone(), was_asked: !answers.is_empty() });
                return Ok(Route::Server(Box::new((client, endpoint))));
            }
            Connect::Files(folder) => return Ok(Route::Files(folder)),
            Connect::Park(why) => return Err(Verdict::Park(why)),
            Connect::Ask(_) if answers.len() == MOST_ASKS => {
                return Err(Verdict::Later(None, format!("{MOST_ASKS} requests did not show where spans go")));
            }
            Connect::Ask(request) => request,
        };
        answers.push(ask(&client, request, to, secrets, limits).await?);
        next = backend.connect(to, secrets, &answers);
    }
}

/// Makes one request. The backend reads the answer, unless it asks to wait.
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
