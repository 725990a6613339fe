//! Kinds of lines, and fields of known ones, that this version does not know.

use rusqlite::{Connection, params};

use super::{Result, Store};

/// How many are counted separately; all further ones are counted together.
const MAX_KINDS: i64 = 200;

/// Lines of a kind that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind {
    /// Their `type`; of a field, where it stands in lines of known types: `user.newField`.
    pub kind: String,
    /// The version of Claude Code that wrote them, as far as it is known.
    pub version: String,
    /// How many there were.
    pub lines: u64,
}

impl Store {
    /// Every kind and version that was met.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn unknown_kinds(&self) -> Result<Vec<UnknownKind>> {
        self.db
            .prepare_cached("SELECT kind, version, lines FROM unknown_kind")?
            .query_map([], |row| {
                Ok(UnknownKind { kind: row.get(0)?, version: row.get(1)?, lines: row.get::<_, i64>(2)? as u64 })
            })?
            .collect()
    }
}

pub(super) fn note_unknown(db: &Connection, kind: &str, version: &str, lines: u64) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO unknown_kind SELECT ?1, ?2, ?3
         WHERE (SELECT count(*) FROM unknown_kind) < ?4 OR EXISTS (SELECT 1 FROM unknown_kind WHERE kind = ?1 AND version = ?2)
         ON CONFLICT (kind, version) DO UPDATE SET lines = lines + ?3",
    )?
    .execute(params![kind, version, lines as i64, MAX_KINDS])
    .map(drop)
}
