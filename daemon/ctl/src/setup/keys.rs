//! Asks for the server and the keys: again after a mistake, and nearly right input is corrected with consent.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::{open, ui::terminal};
use cc_core::{delivery::readback::Failure, destination::pages::Project, secret::Secret, settings::masked};

use super::{
    DEFAULT_BASE_URL, SECRET_KEY,
    choice::Keys,
    typed::{self, REGIONS, Typed},
};

/// The given values; missing ones are asked for.
#[derive(Default)]
pub(super) struct Given {
    pub server: Option<String>,
    pub public: Option<String>,
    pub secret: Option<Zeroizing<String>>,
}

/// The existing setup, which gives the defaults.
#[derive(Clone, Default)]
pub(super) struct Before {
    pub server: Option<String>,
    pub public: Option<String>,
    pub secret: Option<Zeroizing<String>>,
}

impl Before {
    /// From the present variables of a settings file.
    pub(super) fn of(vars: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| {
            let either = [format!("CC_LANGFUSE_{name}"), format!("LANGFUSE_{name}")];
            either.iter().filter_map(|name| vars.get(name)).find(|value| !value.trim().is_empty()).cloned()
        };
        let server = get("BASE_URL").or_else(|| get("HOST")).and_then(|url| Some(typed::server(&url)?.0));
        Self { server, public: get("PUBLIC_KEY"), secret: get("SECRET_KEY").map(Zeroizing::new) }
    }

    /// These, or `others` if there are none.
    pub(super) fn or(self, others: Self) -> Self {
        if self.public.is_some() { self } else { others }
    }
}

/// Asks for missing values.
///
/// # Errors
/// At the end of the input.
pub(super) fn ask(given: &Given, before: &Before) -> anyhow::Result<Keys> {
    let server = match &given.server {
        Some(server) => server.clone(),
        None => server(before)?,
    };
    let (mut public, mut secret) = (given.public.clone(), given.secret.clone());
    // The keys of another server are no default.
    let known = Some(before).filter(|before| before.server.as_ref() == Some(&server));
    while public.is_none() {
        let default = known.and_then(|known| known.public.as_deref());
        let line = terminal::ask("Public key (pk-lf-…), or paste both as Langfuse shows them", default)?;
        // Langfuse shows a line for each of its values.
        let line = Zeroizing::new(format!("{line}\n{}", *terminal::pasted()?));
        take(&line, &mut public, &mut secret, given.secret.is_none())?;
    }
    let account = public.unwrap_or_default();
    let kept = known.filter(|known| known.public.as_ref() == Some(&account)).and_then(|known| known.secret.clone());
    while secret.is_none() {
        let question = match &kept {
            Some(kept) => format!("Secret key, or Enter to keep {}", masked(kept)),
            None => "Secret key (sk-lf-…)".to_owned(),
        };
        let line = terminal::ask_hidden_or(&question, kept.as_ref())?;
        let mut other = Some(account.clone());
        take(&line, &mut other, &mut secret, true)?;
    }
    Ok(Keys::new(server, account, secret.unwrap_or_default()))
}

/// Takes the missing keys from a line of input.
fn take(
    line: &str,
    public: &mut Option<String>,
    secret: &mut Option<Zeroizing<String>>,
    wants_secret: bool,
) -> anyhow::Result<()> {
    let mut words = typed::typed(line);
    // The public key says whose the secret one is.
    words.sort_by_key(|word| !matches!(word, Typed::Public(_)));
    let is_alone = words.len() == 1;
    for word in words {
        match word {
            Typed::Public(key) if public.is_none() => {
                if is_taken(&key, "public")? {
                    *public = Some(key);
                }
            }
            Typed::Secret(key) if secret.is_none() && wants_secret => {
                let key = Zeroizing::new(key);
                if public.is_none() {
                    out!("              that is the secret key: it is kept for the next question");
                }
                if is_taken(&key, "secret")? {
                    *secret = Some(key);
                }
            }
            Typed::Public(_) if public.is_some() && secret.is_none() => {
                out!("              that is a public key; the secret key starts with sk-lf-");
            }
            Typed::Public(_) | Typed::Secret(_) => {}
            Typed::Server(_) if is_alone => out!("              that is an address, not a key"),
            Typed::Server(_) => {}
            Typed::Other(key) => {
                let (what, head) = if public.is_none() { ("public", "pk-lf-") } else { ("secret", "sk-lf-") };
                let is_key = key.len() >= 8 && key.bytes().all(|byte| byte.is_ascii_graphic());
                if !is_key {
                    out!("              that is not a key: the {what} key starts with {head}");
                } else if terminal::confirms(&format!(
                    "It does not start with {head}: use it as the {what} key anyway?"
                ))? {
                    if public.is_none() { *public = Some(key) } else { *secret = Some(Zeroizing::new(key)) }
                }
            }
        }
    }
    Ok(())
}

fn is_taken(key: &str, what: &str) -> anyhow::Result<bool> {
    match typed::cut_off(key) {
        Some(why) => terminal::confirms(&format!("The {what} key looks incomplete: {why}. Use it anyway?")),
        None => Ok(true),
    }
}

/// Asks for the server, by number or address.
fn server(before: &Before) -> anyhow::Result<String> {
    for (number, (address, name)) in REGIONS.iter().enumerate() {
        out!("{}  {name:<24} {address}", number + 1);
    }
    let default = before.server.as_deref().unwrap_or(DEFAULT_BASE_URL);
    loop {
        let line = terminal::ask("Langfuse server: a number, or the address of your own", Some(default))?;
        let text = line.trim();
        let region = text.parse::<usize>().ok().and_then(|number| REGIONS.get(number.checked_sub(1)?));
        if let Some((address, _)) = region {
            return Ok((*address).to_owned());
        }
        if let Some(Typed::Public(_) | Typed::Secret(_)) = typed::typed(text).first() {
            out!("              that is a key: first comes the server");
            continue;
        }
        let pasted = match typed::typed(text).into_iter().find(|word| matches!(word, Typed::Server(_))) {
            Some(Typed::Server(address)) => address,
            _ => text.to_owned(),
        };
        match typed::server(&pasted) {
            None => out!("              that is not an address such as {DEFAULT_BASE_URL}"),
            Some((address, true)) => return Ok(address),
            Some((address, false)) => {
                if terminal::agrees(&format!("Is {address} the server?"))? {
                    return Ok(address);
                }
            }
        }
    }
}

/// Asks the server whether it knows the keys, and for which project they are.
pub(super) fn check(keys: &Keys) -> anyhow::Result<Project> {
    let url = &keys.destination.address;
    let skip = "or skip this check with --no-check";
    open::project(&keys.destination, &[(SECRET_KEY, Secret::new(&keys.secret))].into_iter().collect()).map_err(
        |error| match error.downcast_ref() {
            Some(Failure::Unreachable(why)) => {
                anyhow::anyhow!("{url}: {why}; correct the address or the proxy, {skip}")
            }
            Some(Failure::Untrusted(why)) => anyhow::anyhow!(
                "the certificate of {url} is not trusted: {why}; name your authority's file in NODE_EXTRA_CA_CERTS, \
                {skip}"
            ),
            Some(Failure::Status { status: 401, .. }) => {
                anyhow::anyhow!("{url}: {error:#} ({})", masked(&keys.destination.account))
            }
            _ => anyhow::anyhow!("{url}: {error:#}"),
        },
    )
}
