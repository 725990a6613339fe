//! `setup --otlp`: the variables that send traces to a receiver of OTLP.

use zeroize::Zeroizing;

use cc_core::{
    destination::{
        Backend, Connect,
        otlp::{self, HEADERS},
    },
    vars::Env,
};
use cc_langfuse::environment;
use proto::env::OTLP_ENDPOINT;

/// The receiver and its headers, such as a key.
pub(super) struct Otlp {
    endpoint: String,
    headers: Option<Zeroizing<String>>,
    /// Its kind, for people.
    pub(super) dialect: String,
}

impl Otlp {
    /// The variables for this destination.
    pub(super) fn env(&self) -> Vec<(&str, &str)> {
        let headers = self.headers.as_deref().map(|headers| (HEADERS, headers.as_str()));
        [(OTLP_ENDPOINT, self.endpoint.as_str())].into_iter().chain(headers).collect()
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

/// The destination at `endpoint`, with the headers of the environment.
///
/// # Errors
/// What is wrong with them, for people.
pub(super) fn choice(endpoint: &str) -> Result<Otlp, String> {
    let headers = environment::text(HEADERS).filter(|headers| !headers.trim().is_empty()).map(Zeroizing::new);
    let vars = [(OTLP_ENDPOINT, Some(endpoint)), (HEADERS, headers.as_ref().map(|headers| headers.as_str()))];
    let env = Env::new(vars.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let route = otlp::Otlp.route(&env).ok().flatten();
    let (to, secrets) = route.ok_or("--otlp is not an address such as http://127.0.0.1:4318/v1/traces")?;
    if let Connect::Park(why) = otlp::Otlp.connect(&to, &secrets, &[]) {
        return Err(why);
    }
    Ok(Otlp { endpoint: to.address, headers, dialect: to.account })
}
