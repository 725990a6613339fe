//! `setup --otlp`: the variables that send traces to a receiver of OTLP.

use zeroize::Zeroizing;

use cc_core::{
    destination::{Backend, Connect, otlp},
    vars::Env,
};
use cc_langfuse::environment;
use proto::env::{OTLP_ENDPOINT, Of, VARIABLES};

/// The receiver.
pub(super) struct Otlp {
    /// Its address, and the other variables of OTLP that are set here, such as headers with a key.
    vars: Vec<(&'static str, Zeroizing<String>)>,
    /// For people.
    pub(super) place: String,
}

impl Otlp {
    /// The variables for this destination.
    pub(super) fn env(&self) -> Vec<(&str, &str)> {
        self.vars.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

/// The destination at `endpoint`, with the variables of the environment.
///
/// # Errors
/// What is wrong with them, for people.
pub(super) fn choice(endpoint: &str) -> Result<Otlp, String> {
    let others = VARIABLES.iter().filter(|row| row.of == Of::Otlp && row.name != OTLP_ENDPOINT);
    let others = others.filter_map(|row| Some((row.name, Zeroizing::new(environment::text(row.name)?))));
    let mut vars = vec![(OTLP_ENDPOINT, Zeroizing::new(endpoint.to_owned()))];
    vars.extend(others.filter(|(_, value)| !value.trim().is_empty()));
    let env = Env::new(vars.iter().map(|(name, value)| (*name, value.as_str())));
    let route = otlp::Otlp.route(&env).ok().flatten();
    let (to, secrets) = route.ok_or("--otlp is not an address such as http://127.0.0.1:4318/v1/traces")?;
    if let Connect::Park(why) = otlp::Otlp.connect(&to, &secrets, &[]) {
        return Err(why);
    }
    let place = format!("{} ({})", to.address, to.account);
    vars[0].1 = Zeroizing::new(to.address);
    Ok(Otlp { vars, place })
}
