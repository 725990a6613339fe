//! Brings a database of an earlier version to this one. A copy of it as it was is kept; nothing starts without room for both.

use std::path::Path;

use rusqlite::Connection;
use rusqlite_migration::Migrations;

use super::{Error, Result, SPARE_BYTES, free, schema::MIGRATIONS};

/// What is done to a database that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is looked through for damage.
    Checking,
    /// A copy of it is made, because it is of this version.
    Copying(usize),
    /// Its tables are changed.
    Changing,
}

/// The file that keeps what the database at `path` was in `version`.
pub fn copy_of(path: &Path, version: usize) -> std::path::PathBuf {
    path.with_extension(format!("v{version}.bak"))
}

/// Brings the database at `path`, which is of `version`, to this one.
///
/// # Errors
/// [`Error::NoRoom`] before anything is changed; after any other it is of the version that it was.
pub(super) fn upgrade(
    db: &mut Connection,
    path: &Path,
    version: usize,
    say: &dyn Fn(Stage),
) -> std::result::Result<(), Error> {
    if version > 0 && version < MIGRATIONS.len() {
        let copy = copy_of(path, version);
        let earlier = std::fs::metadata(&copy).map_or(0, |meta| meta.len());
        if let Some(free) = free(path) {
            has_room(size(db)?, free.saturating_add(earlier), path)?;
        }
        say(Stage::Copying(version));
        let _ = std::fs::remove_file(&copy);
        db.execute("VACUUM INTO ?", [copy.to_string_lossy()])?;
        say(Stage::Changing);
    }
    Ok(Migrations::from_slice(MIGRATIONS).to_latest(db)?)
}

/// Bytes of the database.
fn size(db: &Connection) -> Result<u64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    db.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|bytes| bytes as u64)
}

/// Says no where less than `needed` for a database of `size` bytes is `free`.
fn has_room(size: u64, free: u64, path: &Path) -> std::result::Result<(), Error> {
    let needed = needed(size);
    if free >= needed {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(path).to_owned();
    Err(Error::NoRoom { needed, free, dir })
}

/// How many bytes the change of a database of `size` bytes takes at most: the copy, the log with every page of it, and what it
/// grows by before the old tables are gone.
fn needed(size: u64) -> u64 {
    size.saturating_mul(3).saturating_add(SPARE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_changed_where_there_is_room_for_a_copy_and_the_change() {
        let mib = 1 << 20;
        for (size, free, expect) in [
            (10 * mib, 31 * mib, None),
            (10 * mib, 31 * mib - 1, Some(31 * mib)),
            (10 * mib, 0, Some(31 * mib)),
            (0, mib, None),
            (0, mib - 1, Some(mib)),
            (u64::MAX, u64::MAX - 1, Some(u64::MAX)),
        ] {
            let found = has_room(size, free, Path::new("/data/state.db"));
            let lacks = found.err().map(|error| match error {
                Error::NoRoom { needed, free: left, dir } => {
                    assert_eq!((left, &*dir), (free, Path::new("/data")));
                    needed
                }
                other => panic!("{other}"),
            });
            assert_eq!(lacks, expect, "{size} bytes, {free} free");
        }
    }

    #[test]
    fn it_says_how_much_is_needed_and_where() {
        let error = has_room(5_000_000, 1_999_999, Path::new("/data/state.db")).unwrap_err();
        assert!(error.is_passing());
        let said = error.to_string();
        assert!(said.contains("17 MB must be free in /data") && said.contains("1 MB is"), "{said}");
    }
}
