//! `trust`: allows spans to go where a repository sends them.

use std::process::ExitCode;

use anyhow::Context;

use crate::client::Client;
use cc_core::{
    destination::address::base_url,
    settings::quoted,
    status::{Trust, TrustAnswer},
};

pub(crate) fn trust(url: &str, public_key: Option<String>, revoke: bool) -> anyhow::Result<ExitCode> {
    base_url(url).with_context(|| format!("{url} is not an address such as https://langfuse.example.org"))?;
    let request = Trust { base_url: url.to_owned(), public_key, trusted: !revoke };
    let TrustAnswer { base_url, accounts, is_own } = Client::new()?.trust(&request)?;
    match &*accounts {
        [] if revoke => {
            out!("no account at {base_url} is trusted");
            Ok(ExitCode::from(1))
        }
        accounts if revoke => {
            out!("{base_url} ({}) no longer gets anything that others chose to send there", accounts.join(", "));
            Ok(ExitCode::SUCCESS)
        }
        [account] => {
            out!("{base_url} ({account}) now gets what projects send there, whatever file chose it");
            Ok(ExitCode::SUCCESS)
        }
        [] if is_own => {
            out!("{base_url} is already your own choice: nothing is held there");
            Ok(ExitCode::SUCCESS)
        }
        [] => {
            out!(
                "no account at {base_url} is held; to trust one in advance, name its public key: cc-langfusectl \
                    trust {} pk-lf-…",
                quoted(&base_url)
            );
            Ok(ExitCode::from(1))
        }
        several => {
            out!("several accounts at {base_url} are held; name the one you mean:");
            for account in several {
                out!("  cc-langfusectl trust {} {}", quoted(&base_url), quoted(account));
            }
            Ok(ExitCode::from(1))
        }
    }
}
