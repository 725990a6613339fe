//! Names that occur in many rows, stored once and masked.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use cc_core::redact::{Counts, Redactor};

/// A cache of names.
pub(super) struct Names<'r> {
    redactor: &'r Redactor,
    known: HashMap<String, i64>,
}

impl<'r> Names<'r> {
    pub(super) fn new(redactor: &'r Redactor) -> Self {
        Self { redactor, known: HashMap::new() }
    }

    /// The row of `name`, created if it is missing.
    pub(super) fn id(&mut self, db: &Connection, name: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.known.get(name) {
            return Ok(*id);
        }
        let masked = self.redactor.scrub(name, &mut Counts::new());
        let text = masked.as_deref().unwrap_or(name);
        let found = db.prepare_cached("SELECT id FROM name WHERE text = ?")?.query_row([text], |row| row.get(0));
        let id = match found.optional()? {
            Some(id) => id,
            None => db
                .prepare_cached("INSERT INTO name (text) VALUES (?) RETURNING id")?
                .query_row([text], |row| row.get(0))?,
        };
        self.known.insert(name.to_owned(), id);
        Ok(id)
    }

    /// The same for an optional name.
    pub(super) fn some(&mut self, db: &Connection, name: Option<&str>) -> rusqlite::Result<Option<i64>> {
        name.map(|name| self.id(db, name)).transpose()
    }
}
