//! `trust`: spans may go where a repository sends them.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use cc_langfuse::{api::Trust, hook::base_url};
use hyper::Method;

use crate::client;

pub fn trust(url: &str, revoke: bool) -> anyhow::Result<ExitCode> {
    let url = base_url(url).with_context(|| format!("{url} is not an address such as https://langfuse.example.org"))?;
    let wish = serde_json::to_vec(&Trust { base_url: url.clone(), trusted: !revoke })?;
    client::request(&client::paths()?, Method::POST, "/v1/trust", wish, Duration::from_secs(5))?;
    if revoke {
        out!("{url} gets nothing any more from projects whose repository chose it");
    } else {
        out!("{url} gets what projects send there, even if their repository chose it");
    }
    Ok(ExitCode::SUCCESS)
}
