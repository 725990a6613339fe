//! Checks of an OTLP receiver: whether its address and the variables beside it are valid.

use std::path::Path;

use super::Finding;
use crate::{
    destination::{
        Backend,
        otlp::{DIALECT, Dialect, HEADERS, MAX_VALUE_BYTES, Otlp, PRESET, headers_of, presets},
    },
    route::Env,
    settings::quoted,
};

/// The findings on the receiver that `env` names. `local` is the file to correct settings in.
pub(super) fn judge(env: &Env<'_>, local: &Path) -> Vec<Finding> {
    let check = "otlp";
    let endpoint = proto::env::OTLP_ENDPOINT;
    let put = |what: &str| format!("put {what} into `env` of {}", local.display());
    let Ok(Some((to, secrets))) = Otlp.route(env) else {
        return vec![Finding::problem(
            check,
            format!("{endpoint} is not an http or https address without a query"),
            put(&format!(
                "\"{endpoint}\": \"http://127.0.0.1:4318/v1/traces\", or where your receiver is; keys belong in \
                    {HEADERS}"
            )),
        )];
    };
    let mut findings = Vec::new();
    findings.push(match headers_of(&to, &secrets) {
        Err(why) => Finding::problem(
            check,
            why,
            put(&format!(
                "\"{HEADERS}\": \"name=value,name=value\" with %2C for a comma in a value, or set {PRESET} \
                and give the key alone"
            )),
        ),
        Ok(_) if secrets.is_empty() && Otlp.needs_secret(&to) => Finding::problem(
            check,
            format!("{} ({}) needs a key, and there is none", to.address, to.account),
            put(&format!("set {HEADERS} to your key")),
        ),
        Ok(_) if !to.is_private() => Finding::warning(
            check,
            format!("conversations would go to {} unencrypted: nothing is sent there until you trust it", to.address),
            format!(
                "set {endpoint} to one with https://, or if the network is safe: cc-langfusectl trust {} {}",
                quoted(&to.address),
                quoted(&to.account)
            ),
        ),
        Ok(headers) => {
            let names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
            let with = if names.is_empty() { "no headers".to_owned() } else { names.join(", ") };
            Finding::ok(check, format!("{} ({}), with {with}", to.address, to.account))
        }
    });
    let known = presets::PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ");
    let number = |text: &str| text.trim().parse::<usize>().is_ok_and(|bytes| bytes > 0);
    for (name, is_known, wanted) in [
        (PRESET, env.get(PRESET).is_none_or(|name| presets::named(name).is_some()), known.as_str()),
        (DIALECT, env.get(DIALECT).is_none_or(|name| Dialect::named(name).is_some()), "genai, openinference, both"),
        (MAX_VALUE_BYTES, env.get(MAX_VALUE_BYTES).is_none_or(number), "a number of bytes above 0"),
    ] {
        if !is_known {
            let value = env.get(name).unwrap_or_default();
            let seen = format!("{name} is \"{value}\", which is not a known value: it is ignored");
            findings.push(Finding::warning(check, seen, format!("set it to one of: {wanted}")));
        }
    }
    findings
}
