//! Asks for the server and the keys: again after a mistake, and nearly right input is corrected with consent.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::{
    open,
    ui::{progress::Busy, terminal},
};
use cc_core::{
    delivery::readback::Failure,
    destination::{Destination, pages::Project},
    secret::Secret,
    settings::masked,
};

use super::{
    DEFAULT_BASE_URL, SECRET_KEY, Setup,
    choice::Keys,
    typed::{self, REGIONS, Typed},
    variable,
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
    /// The keys were typed just now: they are meant for whichever server is chosen.
    pub is_of_any_server: bool,
}

impl Before {
    /// From the present variables of a settings file.
    pub(super) fn of(vars: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| {
            let either = [format!("CC_LANGFUSE_{name}"), format!("LANGFUSE_{name}")];
            either.iter().filter_map(|name| vars.get(name)).find(|value| !value.trim().is_empty()).cloned()
        };
        let server = get("BASE_URL").or_else(|| get("HOST")).and_then(|url| Some(typed::server(&url)?.0));
        let secret = get("SECRET_KEY").map(Zeroizing::new);
        Self { server, public: get("PUBLIC_KEY"), secret, is_of_any_server: false }
    }

    /// These, or `others` if there are none.
    pub(super) fn or(self, others: Self) -> Self {
        if self.public.is_some() { self } else { others }
    }
}

impl Setup {
    /// What an earlier setup knows for the server that is meant now.
    pub(super) fn known(&self, before: &Before) -> Before {
        let url = self.base_url.clone().or_else(|| variable("BASE_URL")).or_else(|| variable("HOST"));
        let server = url.map(|url| typed::server(&url).map(|(address, _)| address));
        if server.is_none_or(|server| server == before.server) { before.clone() } else { Before::default() }
    }

    /// The keys, or what is wrong with them. `stored` is a secret that need not be asked for. On a terminal the questions are asked again until the server knows the keys.
    ///
    /// # Errors
    /// If there is nobody to ask, or the server does not know what was given.
    pub(super) fn keys(
        &self,
        before: &Before,
        stored: Option<Zeroizing<String>>,
    ) -> anyhow::Result<Result<Keys, String>> {
        let is_asked = terminal::is_there() && !self.yes;
        let url = self.base_url.clone().or_else(|| variable("BASE_URL")).or_else(|| variable("HOST"));
        let server = match url.map(|url| typed::server(&url)) {
            Some(Some((address, _))) if !is_private(&address) => anyhow::bail!(unencrypted(&address)),
            Some(Some((address, _))) => Some(address),
            // Not shown: it may be a key in the wrong place.
            Some(None) => return Ok(Err(format!("the server is not an address such as {DEFAULT_BASE_URL}"))),
            None if is_asked => None,
            None => Some(before.server.clone().unwrap_or_else(|| DEFAULT_BASE_URL.to_owned())),
        };
        let public = self.public_key.clone().or_else(|| variable("PUBLIC_KEY"));
        let public = public.map(|key| typed::unquoted(&key).to_owned());
        let secret = match &self.secret_key {
            Some(dash) if dash == "-" => Some(terminal::line()?),
            Some(key) => Some(Zeroizing::new(key.clone())),
            None => stored.or_else(|| variable("SECRET_KEY").map(Zeroizing::new)),
        };
        let secret = secret.map(|key| Zeroizing::new(typed::unquoted(&key).to_owned()));
        let is_key = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        match (&public, &secret) {
            (Some(public), _) if !is_key(public) => {
                return Ok(Err("the public key is not one: it looks like pk-lf-…".into()));
            }
            (_, Some(secret)) if !is_key(secret) => {
                return Ok(Err("the secret key is not one: it looks like sk-lf-…".into()));
            }
            (Some(public), Some(secret)) if public.starts_with("sk-") || secret.starts_with("pk-") => {
                return Ok(Err("the keys are swapped".into()));
            }
            _ => {}
        }
        let mut given = Given { server, public, secret };
        if !is_asked {
            let known = self.known(before);
            let is_same = given.public.is_none() || given.public == known.public;
            given.public = given.public.or(known.public);
            given.secret = given.secret.or(known.secret.filter(|_| is_same));
        }
        let mut before = before.clone();
        loop {
            let mut keys = ask(&given, &before)?;
            if self.no_check {
                return Ok(Ok(keys));
            }
            let checked = {
                let _busy = Busy::with(format!("asking {} whether it knows the keys", keys.destination.address));
                check(&keys)
            };
            match checked {
                Ok(project) => {
                    keys.project = Some(project);
                    return Ok(Ok(keys));
                }
                Err(why) if is_asked => {
                    out!("              {why:#}");
                    if !terminal::agrees("Try again?")? {
                        return Err(why);
                    }
                    // The typed values become the defaults, and given values are asked for too.
                    let Destination { address, account, .. } = keys.destination;
                    before = Before {
                        server: Some(address),
                        public: Some(account),
                        secret: Some(keys.secret),
                        is_of_any_server: true,
                    };
                    given = Given::default();
                }
                Err(why) => return Err(why),
            }
        }
    }
}

/// False if a key would travel unencrypted to this address.
fn is_private(address: &str) -> bool {
    Keys::new(address.to_owned(), String::new(), Zeroizing::default()).destination.is_private()
}

fn unencrypted(address: &str) -> String {
    format!("{address} is not encrypted: use https (http is for localhost, 127.0.0.0/8 and [::1])")
}

/// Asks for missing values.
///
/// # Errors
/// At the end of the input.
fn ask(given: &Given, before: &Before) -> anyhow::Result<Keys> {
    let server = match &given.server {
        Some(server) => server.clone(),
        None => server(before)?,
    };
    let (mut public, mut secret) = (given.public.clone(), given.secret.clone());
    // The keys of another server are no default.
    let known = Some(before).filter(|before| before.is_of_any_server || before.server.as_ref() == Some(&server));
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
            Some((address, _)) if !is_private(&address) => out!("              {}", unencrypted(&address)),
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
fn check(keys: &Keys) -> anyhow::Result<Project> {
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
