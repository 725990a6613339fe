//! Errors of the database, as far as callers need to distinguish them.

use std::{io, path::PathBuf};

use rusqlite::ErrorCode;

const MB: u64 = 1_000_000;

/// The text includes all causes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no room on its disk, or a quota is used up.
    #[error("{}", explained(.0))]
    Full(rusqlite::Error),
    /// It is read-only.
    #[error("{}", explained(.0))]
    ReadOnly(rusqlite::Error),
    /// Input or output errors of its disk.
    #[error("{}", explained(.0))]
    Failing(rusqlite::Error),
    /// The file is not a database, or is damaged.
    #[error("{}", explained(.0))]
    Damaged(rusqlite::Error),
    /// A later version has changed its tables.
    #[error("it was written by a newer version: install that again, or move the file away to start from scratch")]
    Newer,
    /// Its tables cannot be brought to this version.
    #[error("its tables cannot be changed: {}", explained(.0))]
    Migration(rusqlite_migration::Error),
    /// There is no room for migrating it and keeping a copy.
    #[error("to change it for this version, {} must be free in {}, and {} is", mb(needed.div_ceil(MB)), dir.display(), mb(free / MB))]
    NoRoom {
        /// Bytes needed.
        needed: u64,
        /// Bytes available to this user.
        free: u64,
        /// The directory of the database.
        dir: PathBuf,
    },
    /// A file beside it cannot be moved or created.
    #[error(transparent)]
    File(#[from] io::Error),
    #[error("{}", explained(.0))]
    Sql(rusqlite::Error),
}

impl Error {
    /// True if the disk is the problem: full, read-only or failing. The database itself is fine, and waiting helps.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Full(_) | Self::ReadOnly(_) | Self::Failing(_) | Self::NoRoom { .. })
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(error),
            Some(ErrorCode::ReadOnly) => Self::ReadOnly(error),
            Some(ErrorCode::SystemIoFailure) => Self::Failing(error),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error),
            _ => Self::Sql(error),
        }
    }
}

impl From<rusqlite_migration::Error> for Error {
    fn from(error: rusqlite_migration::Error) -> Self {
        match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => err.into(),
            other => Self::Migration(other),
        }
    }
}

fn mb(count: u64) -> String {
    format!("{count} MB")
}

/// An error with all its causes.
fn explained(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.contains(&why) {
            text = format!("{text}: {why}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn what_can_be_waited_for_and_what_is_salvaged_are_told_apart() {
        let of = |code| Error::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("why".into())));
        for (code, name, is_passing) in [
            (ffi::SQLITE_FULL, "Full", true),
            (ffi::SQLITE_READONLY, "ReadOnly", true),
            (ffi::SQLITE_READONLY_DIRECTORY, "ReadOnly", true),
            (ffi::SQLITE_IOERR_WRITE, "Failing", true),
            (ffi::SQLITE_CORRUPT, "Damaged", false),
            (ffi::SQLITE_NOTADB, "Damaged", false),
            (ffi::SQLITE_CONSTRAINT, "Sql", false),
            (ffi::SQLITE_BUSY, "Sql", false),
        ] {
            let error = of(code);
            assert!(format!("{error:?}").starts_with(name), "{error:?}");
            assert_eq!((error.is_passing(), error.to_string().contains("why")), (is_passing, true), "{error}");
            let err = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let migrating = Error::from(rusqlite_migration::Error::RusqliteError { query: String::new(), err });
            assert!(format!("{migrating:?}").starts_with(name), "{migrating:?}");
        }
    }
}
