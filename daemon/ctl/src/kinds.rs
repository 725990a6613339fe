//! Destinations as people name them: by kind, name or address.

use cc_core::{
    config::Config,
    destination::{Destination, Kind},
    status::Status,
};

/// Selects destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// All of this kind.
    Kind(Kind),
    /// The one with this name in `config.toml` or for the daemon, or with this address.
    Name(String),
}

/// Parses the value of `--to`.
///
/// # Errors
/// If it is empty; lists the kinds.
pub(crate) fn to(text: &str) -> Result<To, String> {
    let text = text.trim();
    let known = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    match Kind::named(&text.to_ascii_lowercase()) {
        Some(kind) => Ok(To::Kind(kind)),
        None if text.is_empty() => Err(format!("give a kind ({}) or a name", known())),
        None => Ok(To::Name(text.to_owned())),
    }
}

/// The names of destinations.
#[derive(Clone, Default)]
pub(crate) struct Names(Vec<(String, Destination)>);

impl Names {
    /// The names from `config.toml`, and those that the daemon gives.
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
    /// True if `destination` is selected.
    pub(crate) fn means(&self, destination: &Destination, names: &Names) -> bool {
        match self {
            Self::Kind(kind) => destination.kind == *kind,
            Self::Name(name) => {
                let is_called = |(known, to): &(String, Destination)| known == name && to == destination;
                destination.address == name.trim_end_matches('/') || names.0.iter().any(is_called)
            }
        }
    }

    /// The kind, if it selects by kind.
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

    /// Checks that a destination has this name.
    ///
    /// # Errors
    /// With the known names.
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
