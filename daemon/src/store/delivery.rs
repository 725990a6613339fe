//! What became of the spans of some traces, at each destination.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Result, Store, json, observations::HAS_ARRIVED, schema::MIGRATIONS};
use cc_core::{
    destination::Destination,
    ids::{TraceId, hex},
    status::delivery::Delivery,
};

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
    /// How the spans of each group of traces fare, at each destination that has some of them.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn arrived(&self, groups: &[Vec<TraceId>]) -> Result<Vec<Vec<Arrived>>> {
        arrived(&self.db, groups)
    }
}

/// The same from the database at `path`, while no daemon runs. `None` if there is none of this version, or a daemon holds it.
pub fn arrived_at(path: &Path, groups: &[Vec<TraceId>]) -> Option<Vec<Vec<Arrived>>> {
    std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let db =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX).ok()?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).ok()?;
    (usize::try_from(version) == Ok(MIGRATIONS.len())).then(|| arrived(&db, groups).ok()).flatten()
}

fn arrived(db: &Connection, groups: &[Vec<TraceId>]) -> Result<Vec<Vec<Arrived>>> {
    let asked: Vec<Vec<String>> = groups.iter().map(|traces| traces.iter().map(|trace| hex(trace)).collect()).collect();
    // One statement for all: a list of sessions asks for hundreds of traces.
    let mut statement = db.prepare_cached(&format!(
        "SELECT asked.key, destination.id, kind, base_url, public_key,
            iif(held_by IS NOT NULL AND (base_url, public_key) NOT IN (SELECT base_url, public_key FROM trust), 'held', state),
            sum(NOT waits AND has_arrived), sum(waits), sum(NOT waits AND NOT has_arrived)
         FROM json_each(?) AS asked, json_each(asked.value) AS trace CROSS JOIN destination CROSS JOIN (
            SELECT exported.destination AS destination, trace_id, coalesce({HAS_ARRIVED}, 0) AS has_arrived,
                EXISTS (SELECT 1 FROM outbox WHERE outbox.destination = exported.destination
                    AND outbox.seq = exported.observation) AS waits
            FROM exported) AS span ON span.destination = destination.id AND span.trace_id = unhex(trace.value)
         GROUP BY asked.key, destination.id ORDER BY asked.key, destination.id"
    ))?;
    let mut found = vec![Vec::new(); groups.len()];
    let mut rows = statement.query([json(&asked)])?;
    while let Some(row) = rows.next()? {
        let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        let one = Arrived {
            id: row.get(1)?,
            destination: Destination {
                kind: super::destinations::kind(&row.get::<_, String>(2)?)?,
                address: row.get(3)?,
                account: row.get(4)?,
            },
            state: row.get(5)?,
            delivered: count(6)?,
            waiting: count(7)?,
            refused: count(8)?,
        };
        if let Some(group) = found.get_mut(row.get::<_, u32>(0)? as usize) {
            group.push(one);
        }
    }
    Ok(found)
}
