//! Why no answer came, in the words of a person: libraries report how their layers are stacked.

use std::{error::Error, io};

use hyper_util::client::legacy;

/// What libraries say of their layers.
const LAYERS: &[&str] =
    &["client error (", "tcp connect error", "tunnel error: failed to create", "dns error", "connection error"];

/// A proxy answered `CONNECT` with something other than 200.
const NO_TUNNEL: &str = "tunnel error: unsuccessful";

/// `error`, which came up while `server` was asked, in one line.
pub(super) fn plain(error: &(dyn Error + 'static), server: &str) -> String {
    let Some(client) = error.downcast_ref::<legacy::Error>() else { return causes(error).join(": ") };
    let why = reason(error).unwrap_or_else(|| causes(error).join(": "));
    let what = if client.is_connect() { "could not connect to" } else { "lost the connection to" };
    format!("{what} {server}: {why}")
}

/// The reason in this program's words, if it is a known one; after the proxy at fault, if there is one.
fn reason(error: &(dyn Error + 'static)) -> Option<String> {
    let all = chain(error);
    let proxy = all.iter().map(ToString::to_string).find(|cause| cause.starts_with("the proxy "));
    let is_name = all.iter().any(|cause| cause.to_string() == "dns error");
    let is_cut =
        all.iter().any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message));
    let kind = all.iter().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let why = match kind {
        _ if is_name => "no such host is known (check the address and the network)",
        Some(io::ErrorKind::ConnectionRefused) => "connection refused (does the server run at that port?)",
        Some(io::ErrorKind::TimedOut) => "no answer in time (check the network)",
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            "no route to it (check the network)"
        }
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe) => {
            "the other side closed it"
        }
        _ if is_cut => "the other side closed it before it answered",
        _ => return None,
    };
    Some(proxy.map_or_else(|| why.to_owned(), |proxy| format!("{proxy}: {why}")))
}

/// What the causes say, without the layers and the numbers of the system's errors.
fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = cause.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let text = if text == NO_TUNNEL { "it did not connect to the server" } else { text };
        let text = text.trim_start_matches("tunnel error: ");
        if !LAYERS.iter().any(|layer| text.starts_with(layer)) && said.last().is_none_or(|last| last != text) {
            said.push(text.to_owned());
        }
    }
    if said.is_empty() { vec![error.to_string()] } else { said }
}

/// An error and its causes.
fn chain<'e>(error: &'e (dyn Error + 'static)) -> Vec<&'e (dyn Error + 'static)> {
    let mut all = vec![error];
    let mut next = error.source();
    while let Some(cause) = next {
        all.push(cause);
        next = cause.source();
    }
    all
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::super::{
        client::{Limits, open},
        exchange::exchange,
        reply::Asked,
    };
    use cc_core::secret::Secrets;

    async fn why(url: &str) -> String {
        let client = open(Secrets::default().tls(), Limits::default()).unwrap();
        let request = Request::get(url).body(bytes::Bytes::new()).unwrap();
        let failed = exchange(&client, request, &Default::default(), Limits::default(), Asked::Api).await;
        failed.err().expect("no answer").to_string()
    }

    #[tokio::test]
    async fn each_failure_names_the_server_and_what_happened() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(
            why(&format!("http://{closed}/")).await,
            format!("could not connect to {closed}: connection refused (does the server run at that port?)")
        );
        assert_eq!(
            why("http://no-such-host.invalid/").await,
            "could not connect to no-such-host.invalid: no such host is known (check the address and the network)"
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let read = stream.read(&mut [0; 4096]).await.unwrap();
            assert!(read > 0);
            stream.shutdown().await.unwrap();
        });
        let lost = format!("lost the connection to {at}: the other side closed it before it answered");
        assert_eq!(why(&format!("http://{at}/")).await, lost);
        server.await.unwrap();
    }
}
