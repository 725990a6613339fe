//! Destinations: their state, who chose them, and which the user trusts.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::{DestinationId, Result, Store};
use cc_core::{
    consent::Chooser,
    destination::{Destination, Kind},
};

/// How many rows are cached.
const MAX_CACHED: usize = 1024;

/// What `status` shows of a destination.
#[derive(Clone, Debug)]
pub struct DestinationRow {
    pub id: DestinationId,
    pub destination: Destination,
    /// `ok`, `retrying` or `parked`.
    pub state: String,
    /// Not tried before this time, Unix milliseconds.
    pub next_at_ms: i64,
    /// Unix milliseconds.
    pub last_success_ms: Option<i64>,
    /// The last error and its time.
    pub last_error: Option<(String, i64)>,
    pub waiting: u64,
    pub waiting_bytes: u64,
    /// Unix milliseconds.
    pub oldest_ms: Option<i64>,
    pub delivered: u64,
    /// Delivered spans that the server said it did not keep.
    pub rejected: u64,
    /// Images and documents that wait for their upload.
    pub media: u64,
    /// Scores that wait.
    pub scores: u64,
    /// What shows that others chose it; `None` if the user trusts it.
    pub held_by: Option<String>,
}

impl Store {
    /// The row id of a destination, which stays the same while the database is open.
    pub(super) fn row_of(&mut self, destination: &Destination) -> Result<Option<DestinationId>> {
        if let Some(id) = self.rows.get(destination) {
            return Ok(Some(*id));
        }
        let id = find(&self.db, destination)?;
        if let Some(id) = id {
            if self.rows.len() >= MAX_CACHED {
                self.rows.clear();
            }
            self.rows.insert(destination.clone(), id);
        }
        Ok(id)
    }

    /// Bytes that wait for a destination.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn waiting_bytes(&mut self, destination: &Destination) -> Result<u64> {
        let id = self.row_of(destination)?;
        Ok(id.and_then(|id| self.waiting.get(&id).copied()).unwrap_or(0))
    }

    /// True if a destination accepts what waits for it: spans arrived there after `since_ms` (Unix milliseconds), and
    /// nothing has failed since.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn is_delivering(&mut self, destination: &Destination, since_ms: i64) -> Result<bool> {
        let Some(id) = self.row_of(destination)? else { return Ok(false) };
        let sql = "SELECT state = 'ok' AND coalesce(last_success_ms, 0) > ? FROM destination WHERE id = ?";
        self.db.prepare_cached(sql)?.query_row([since_ms, id], |row| row.get(0))
    }

    /// Every destination.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn destinations(&self) -> Result<Vec<DestinationRow>> {
        self.destinations_where(None)
    }

    /// One destination, if there is such a row.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn destination(&self, id: DestinationId) -> Result<Option<DestinationRow>> {
        Ok(self.destinations_where(Some(id))?.pop())
    }

    fn destinations_where(&self, id: Option<DestinationId>) -> Result<Vec<DestinationRow>> {
        let condition = if id.is_some() { "id = ?1" } else { "?1 IS NULL" };
        self.db
            .prepare_cached(&format!(
                "SELECT id, kind, base_url, public_key, state, next_at_ms, last_success_ms, last_error, last_error_ms,
                    (SELECT count(*) FROM outbox WHERE outbox.destination = destination.id),
                    (SELECT queued_ms FROM outbox CROSS JOIN observation ON observation.id = seq
                        WHERE outbox.destination = destination.id ORDER BY seq LIMIT 1),
                    delivered, rejected,
                    (SELECT count(*) FROM media_link WHERE media_link.destination = destination.id),
                    iif((base_url, public_key) IN (SELECT base_url, public_key FROM trust), NULL, held_by),
                    (SELECT count(*) FROM score WHERE score.destination = destination.id AND body IS NOT NULL)
                 FROM destination WHERE {condition} ORDER BY id",
            ))?
            .query_map([id], |row| {
                let error: Option<String> = row.get(7)?;
                let id = row.get(0)?;
                Ok(DestinationRow {
                    id,
                    destination: Destination {
                        kind: kind(&row.get::<_, String>(1)?)?,
                        address: row.get(2)?,
                        account: row.get(3)?,
                    },
                    state: row.get(4)?,
                    next_at_ms: row.get(5)?,
                    last_success_ms: row.get(6)?,
                    last_error: error.zip(row.get(8)?),
                    waiting: row.get::<_, i64>(9)? as u64,
                    waiting_bytes: self.waiting.get(&id).copied().unwrap_or(0),
                    oldest_ms: row.get(10)?,
                    delivered: row.get::<_, i64>(11)? as u64,
                    rejected: row.get::<_, i64>(12)? as u64,
                    media: row.get::<_, i64>(13)? as u64,
                    held_by: row.get(14)?,
                    scores: row.get::<_, i64>(15)? as u64,
                })
            })?
            .collect()
    }

    /// The destinations that wait for the user's trust.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn held(&self) -> Result<HashSet<Destination>> {
        let all = self.destinations()?.into_iter();
        Ok(all.filter(|row| row.held_by.is_some()).map(|row| row.destination).collect())
    }

    /// Records an error of a destination, and when it is tried again.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn postpone(
        &mut self,
        destination: DestinationId,
        state: &str,
        next_at_ms: i64,
        error: &str,
        now_ms: i64,
    ) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE destination SET state = ?, next_at_ms = ?, last_error = ?, last_error_ms = ? WHERE id = ?",
            )?
            .execute(params![state, next_at_ms, error, now_ms, destination])
            .map(drop)
    }

    /// True if the user trusts it although others chose it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn trusts(&self, to: &Destination) -> Result<bool> {
        let mut trust = self.db.prepare_cached("SELECT 1 FROM trust WHERE base_url = ? AND public_key = ?")?;
        trust.exists([&to.address, &to.account])
    }

    /// Every destination that is trusted although others chose it, by address and account.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn trusted(&self) -> Result<Vec<(String, String)>> {
        let mut trusted = self.db.prepare_cached("SELECT base_url, public_key FROM trust ORDER BY 1, 2")?;
        trusted.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// Trusts a destination, or withdraws that trust.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn trust(&mut self, base_url: &str, public_key: &str, trusted: bool, now_ms: i64) -> Result<()> {
        let sql = if trusted {
            "INSERT OR IGNORE INTO trust (base_url, public_key, at_ms) VALUES (?1, ?2, ?3)"
        } else {
            "DELETE FROM trust WHERE base_url = ?1 AND public_key = ?2 AND ?3"
        };
        self.db.execute(sql, params![base_url, public_key, now_ms]).map(drop)
    }

    /// Why nothing may be sent to a destination before the user trusts it: others chose it. `None` if it may.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn held_by(&self, to: &Destination) -> Result<Option<String>> {
        let sql = "SELECT held_by FROM destination WHERE kind = ? AND base_url = ? AND public_key = ?";
        let mut held_by = self.db.prepare_cached(sql)?;
        let held: Option<Option<String>> =
            held_by.query_row([to.kind.name(), &to.address, &to.account], |row| row.get(0)).optional()?;
        let is_trusted = self.trusts(to)?;
        Ok(held.flatten().filter(|_| !is_trusted))
    }

    /// True if the user chose a destination.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn is_own(&self, id: DestinationId) -> Result<bool> {
        self.db.prepare_cached("SELECT 1 FROM destination WHERE id = ? AND own")?.exists([id])
    }

    /// Makes the destinations in `config.toml` the user's own.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn configure(&mut self, all: &[Destination]) -> Result<()> {
        let tx = self.db.transaction()?;
        for to in all {
            let id = ensure(&tx, to)?;
            note_chooser(&tx, id, Some(&Chooser::Config))?;
        }
        tx.commit()
    }

    /// True if `config.toml` names a destination, or did, and no variable of the user's does.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn is_configured(&mut self, to: &Destination) -> Result<bool> {
        let id = self.row_of(to)?;
        self.db.prepare_cached("SELECT 1 FROM destination WHERE id = ? AND own = ?")?.exists(params![id, BY_FILE])
    }

    /// The accounts at `base_url` that are held, and those that are trusted.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn accounts(&self, base_url: &str) -> Result<Accounts> {
        let list = |sql: &str| {
            let mut keys = self.db.prepare(sql)?;
            keys.query_map([base_url], |row| row.get(0))?.collect::<Result<Vec<String>>>()
        };
        Ok(Accounts {
            held: list(
                "SELECT public_key FROM destination WHERE base_url = ?1 AND held_by IS NOT NULL
                 AND public_key NOT IN (SELECT public_key FROM trust WHERE base_url = ?1) ORDER BY 1",
            )?,
            trusted: list("SELECT public_key FROM trust WHERE base_url = ? ORDER BY 1")?,
            own: list("SELECT public_key FROM destination WHERE base_url = ? AND own ORDER BY 1")?,
        })
    }
}

/// Accounts at one address, by public key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Nothing is sent to these before the user trusts them.
    pub held: Vec<String>,
    /// The user trusts these.
    pub trusted: Vec<String>,
    /// The user chose these.
    pub own: Vec<String>,
}

impl Accounts {
    /// No account is known at that address.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.trusted.is_empty() && self.own.is_empty()
    }
}

/// The value of the column `own` if the user chose a destination by a variable.
const BY_VARIABLE: i64 = 1;
const BY_FILE: i64 = 2;

/// Records who chose a destination. The first judgement is kept: a destination that others chose waits for
/// [`Store::trust`], or for `config.toml` to name it, whatever is found later; one that the user chose is the user's
/// own in every project.
pub(super) fn note_chooser(db: &Connection, id: DestinationId, chooser: Option<&Chooser>) -> Result<()> {
    match chooser {
        None => Ok(()),
        Some(Chooser::User) => db
            .prepare_cached(
                "UPDATE destination SET own = ?1 WHERE id = ?3 AND (own = ?2 OR NOT own AND held_by IS NULL)",
            )?
            .execute(params![BY_VARIABLE, BY_FILE, id])
            .map(drop),
        Some(Chooser::Config) => db
            .prepare_cached(
                "UPDATE destination SET own = ?, held_by = NULL, state = iif(state = 'held', 'ok', state)
                 WHERE id = ? AND NOT own",
            )?
            .execute(params![BY_FILE, id])
            .map(drop),
        Some(Chooser::Repository(evidence)) => db
            .prepare_cached("UPDATE destination SET held_by = ? WHERE id = ? AND NOT own AND held_by IS NULL")?
            .execute(params![evidence.to_string(), id])
            .map(drop),
    }
}

pub(super) fn find(db: &Connection, destination: &Destination) -> Result<Option<DestinationId>> {
    let Destination { kind, address, account } = destination;
    db.prepare_cached("SELECT id FROM destination WHERE kind = ? AND base_url = ? AND public_key = ?")?
        .query_row([kind.name(), address, account], |row| row.get(0))
        .optional()
}

pub(super) fn ensure(db: &Connection, destination: &Destination) -> Result<DestinationId> {
    if let Some(id) = find(db, destination)? {
        return Ok(id);
    }
    let Destination { kind, address, account } = destination;
    db.prepare_cached("INSERT INTO destination (kind, base_url, public_key) VALUES (?, ?, ?)")?.execute([
        kind.name(),
        address,
        account,
    ])?;
    Ok(db.last_insert_rowid())
}

/// The kind that is stored under this name.
pub(super) fn kind(name: &str) -> Result<Kind> {
    Kind::named(name).ok_or_else(|| rusqlite::Error::InvalidColumnName(format!("`{name}` is no kind of destination")))
}
