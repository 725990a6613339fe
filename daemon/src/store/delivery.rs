//! What became of the spans of some traces, at each destination.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::{Result, Store, observations::HAS_ARRIVED, schema::MIGRATIONS};
use cc_core::{destination::Destination, ids::TraceId, status::delivery::Delivery};

/// How many spans of some traces have which state at a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The number of its row.
    pub id: i64,
    pub destination: Destination,
    /// `ok`, `retrying`, `parked` or `held`.
    pub state: String,
    pub delivered: u64,
    pub waiting: u64,
    /// They are no longer sent.
    pub refused: u64,
}

impl Arrived {
    /// What it is called without a name in `config.toml`.
    pub fn called(&self) -> String {
        format!("{}-{}", self.destination.kind.name(), self.id)
    }

    pub fn shown(self) -> Delivery {
        Delivery {
            name: self.called(),
            kind: self.destination.kind.name().to_owned(),
            base_url: self.destination.address,
            public_key: self.destination.account,
            state: self.state,
            delivered: self.delivered,
            waiting: self.waiting,
            refused: self.refused,
        }
    }
}

impl Store {
    /// How the spans of `traces` fare, at each destination that has one.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn arrived(&self, traces: &[TraceId]) -> Result<Vec<Arrived>> {
        arrived(&self.db, traces)
    }
}

/// The same from the database at `path`, while no daemon runs. `None` if there is none of this version, or a daemon holds it.
pub fn arrived_at(path: &Path, traces: &[TraceId]) -> Option<Vec<Arrived>> {
    std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let db =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX).ok()?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).ok()?;
    (usize::try_from(version) == Ok(MIGRATIONS.len())).then(|| arrived(&db, traces).ok()).flatten()
}

fn arrived(db: &Connection, traces: &[TraceId]) -> Result<Vec<Arrived>> {
    let mut rows = db.prepare_cached(
        "SELECT id, kind, base_url, public_key,
            iif(held_by IS NOT NULL AND (base_url, public_key) NOT IN (SELECT base_url, public_key FROM trust), 'held', state)
         FROM destination ORDER BY id",
    )?;
    let mut found = rows
        .query_map([], |row| {
            Ok(Arrived {
                id: row.get(0)?,
                destination: Destination {
                    kind: super::destinations::kind(&row.get::<_, String>(1)?)?,
                    address: row.get(2)?,
                    account: row.get(3)?,
                },
                state: row.get(4)?,
                delivered: 0,
                waiting: 0,
                refused: 0,
            })
        })?
        .collect::<Result<Vec<_>>>()?;
    let mut states = db.prepare_cached(&format!(
        "SELECT coalesce({HAS_ARRIVED}, 0),
            EXISTS (SELECT 1 FROM outbox WHERE outbox.destination = exported.destination AND outbox.seq = exported.observation)
         FROM exported WHERE exported.destination = ? AND exported.trace_id = ?"
    ))?;
    for one in &mut found {
        for trace in traces {
            let mut rows = states.query(params![one.id, trace])?;
            while let Some(row) = rows.next()? {
                match (row.get(1)?, row.get(0)?) {
                    (true, _) => one.waiting += 1,
                    (false, true) => one.delivered += 1,
                    (false, false) => one.refused += 1,
                }
            }
        }
    }
    found.retain(|one| one.delivered + one.waiting + one.refused > 0);
    Ok(found)
}
