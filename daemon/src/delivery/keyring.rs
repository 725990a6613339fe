//! The key of one destination, and whether it may be used: from the hook that brought it, from settings files or from
//! `config.toml`.

use std::path::PathBuf;

use tokio::sync::watch;

use crate::{
    configured::Configured,
    credentials::{from_key_file, from_settings, settings_texts},
    store::handle::Handle,
};
use cc_core::{
    destination::{Destination, Rival},
    secret::Secrets,
};

/// The state of a destination until the user fixes something.
pub(super) const PARKED: &str = "parked";

/// The state of a destination until the user trusts it.
pub(super) const HELD: &str = "held";

const GONE: &str = "it is no longer in config.toml: put it back, or give up what waits with cc-langfusectl destinations drop, or hand \
                    it to another with destinations move";

pub(super) struct KeyRing {
    pub(super) destination: Destination,
    pub(super) store: Handle,
    pub(super) home: PathBuf,
    pub(super) configured: Configured,
    pub(super) trust: watch::Receiver<()>,
    pub(super) key: watch::Receiver<Option<Secrets>>,
    /// The key in use, and the one that the server last refused.
    used: Option<Secrets>,
    refused: Option<Secrets>,
}

impl KeyRing {
    pub(super) fn new(
        destination: Destination,
        store: Handle,
        home: PathBuf,
        configured: Configured,
        trust: watch::Receiver<()>,
        key: watch::Receiver<Option<Secrets>>,
    ) -> Self {
        Self { destination, store, home, configured, trust, key, used: None, refused: None }
    }

    /// True if the key or the user's trust has changed since the last [`secrets`](Self::secrets).
    pub(super) fn has_changed(&mut self) -> bool {
        let changed = self.trust.has_changed().unwrap_or(false) || self.key.has_changed().unwrap_or(false);
        self.trust.mark_unchanged();
        changed
    }

    /// The server has refused the key in use: look for a new one next time.
    pub(super) fn was_refused(&mut self) {
        self.refused = self.used.take();
    }

    /// The key; without one, the destination's state and the reason.
    pub(super) async fn secrets(&mut self) -> Result<Secrets, (&'static str, String)> {
        // The key a hook brought, unless the server has refused that very key; then what the settings files say now.
        let held = self.key.borrow_and_update().clone();
        let to = &self.destination;
        let unread = |error| (PARKED, format!("whether it may be used cannot be read: {error}"));
        let judged = self.store.call(|store| Ok((store.held_by(to)?, store.trusts(to)?, store.is_configured(to)?)));
        let (held_by, trusts, was_configured) = judged.map_err(unread)?;
        if was_configured && !trusts && self.configured.name(to).is_none() {
            return Err((PARKED, GONE.to_owned()));
        }
        if let Some(why) = held_by {
            return Err((HELD, cc_core::consent::held(to, &why)));
        }
        if let Some(why) = cc_core::consent::held_unencrypted(to).filter(|_| !trusts) {
            return Err((HELD, why));
        }
        let mut usable = held.as_ref().filter(|held| self.refused.as_ref() != Some(*held)).cloned();
        let mut missing = None;
        if usable.as_ref().is_none_or(Secrets::has_no_key) {
            match self.configured.secrets(to, self.refused.as_ref()).await {
                Some(Ok(secrets)) => usable = Some(secrets),
                Some(Err(why)) => missing = Some(why),
                None => {}
            }
        }
        let rival = to.kind.backend().rival();
        // The settings of the latest sessions are searched. That takes milliseconds, too long for each of a
        // thousand destinations.
        let (dirs, config_dirs) = match usable.is_none() || rival.is_some() {
            true => self.store.call(|store| Ok((store.project_dirs(to)?, store.config_dirs(to)?))).map_err(unread)?,
            false => Default::default(),
        };
        if let Some(Rival { is_active, why }) = rival {
            let users = || config_dirs.iter().map(|dir| Some(dir.as_path())).chain([None]);
            let mut all = dirs.iter().flat_map(|dir| users().map(move |user| (dir, user)));
            if let Some((dir, _)) = all.find(|(dir, user)| is_active(&settings_texts(dir, *user, &self.home))) {
                return Err((PARKED, format!("{}: {why}", dir.display())));
            }
        }
        let secrets = usable.or_else(|| from_settings(to, &dirs, &config_dirs, &self.home, trusts)).or(held);
        let backend = to.kind.backend();
        let Some(secrets) = secrets.or_else(|| (!backend.needs_secret(to)).then(Secrets::default)) else {
            let word = backend.words().secret;
            let why = || format!("no {word}: open Claude Code in a project that has it");
            return Err((PARKED, missing.unwrap_or_else(why)));
        };
        self.used = Some(secrets.clone());
        Ok(from_key_file(to, secrets, &self.home))
    }
}
