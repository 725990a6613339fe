//! Destinations as people name them: by their kind, by their name, by their address.

use cc_core::{
    config::Config,
    destination::{Destination, Kind},
    status::Status,
};

/// Which destinations are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// All of this kind.
    Kind(Kind),
    /// The one that `config.toml` or the daemon calls so, or whose address it is.
    Name(String),
}

/// Reads what stands behind `--to`.
///
/// # Errors
/// Which kinds there are, if it says nothing.
pub(crate) fn to(text: &str) -> Result<To, String> {
    let text = text.trim();
    let known = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    match Kind::named(&text.to_ascii_lowercase()) {
        Some(kind) => Ok(To::Kind(kind)),
        None if text.is_empty() => Err(format!("say a kind ({}) or a name", known())),
        None => Ok(To::Name(text.to_owned())),
    }
}

/// What destinations are called.
#[derive(Clone, Default)]
pub(crate) struct Names(Vec<(String, Destination)>);

impl Names {
    /// Those of `config.toml`, and those that the daemon gives.
    pub(crate) fn new(config: &Config, status: Option<&Status>) -> Self {
        let of_config = config
            .destinations
            .iter()
            .filter_map(|named| Some((named.name.clone(), named.entry.as_ref().ok()?.destination.clone())));
        let rows = status.into_iter().flat_map(|status| &status.destinations);
        let known = rows.filter(|row| !row.is_nowhere()).filter_map(|row| {
            let kind = Kind::named(&row.kind)?;
            let to = Destination { kind, address: row.base_url.clone(), account: row.public_key.clone() };
            Some((row.name.clone(), to))
        });
        Self(of_config.chain(known).collect())
    }
}

impl To {
    /// True if `destination` is meant.
    pub(crate) fn means(&self, destination: &Destination, names: &Names) -> bool {
        match self {
            Self::Kind(kind) => destination.kind == *kind,
            Self::Name(name) => {
                let is_called = |(known, to): &(String, Destination)| known == name && to == destination;
                destination.address == name.trim_end_matches('/') || names.0.iter().any(is_called)
            }
        }
    }

    /// The kind, if that is what is said.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self {
            Self::Kind(kind) => Some(*kind),
            Self::Name(_) => None,
        }
    }

    /// For people.
    pub(crate) fn title(&self) -> &str {
        match self {
            Self::Kind(kind) => kind.backend().words().title,
            Self::Name(name) => name,
        }
    }

    /// Is there one of that name?
    ///
    /// # Errors
    /// Which there are.
    pub(crate) fn check(&self, names: &Names) -> anyhow::Result<()> {
        let is_known =
            |name: &str| names.0.iter().any(|(known, to)| known == name || to.address == name.trim_end_matches('/'));
        let Self::Name(name) = self else { return Ok(()) };
        if is_known(name) || name.contains("://") {
            return Ok(());
        }
        let mut all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        for (known, _) in &names.0 {
            if !all.contains(&known.as_str()) {
                all.push(known);
            }
        }
        anyhow::bail!("no destination is called {name}: there are {}", all.join(", "))
    }
}
