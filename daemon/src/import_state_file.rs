//! Reads the file in which the Node tool kept its state.

use std::path::Path;

use crate::files::{self, Refused, Rules};
use cc_core::import_state::{Imported, parse};

/// Largest file that is read, in bytes.
const MAX_SIZE: u64 = 16 << 20;

/// The sessions in the state at `path`; `None` if there is no such file.
///
/// # Errors
/// Why it cannot be used.
pub fn load(path: &Path) -> Result<Option<Vec<Imported>>, String> {
    match files::read(path, &Rules::users(MAX_SIZE)) {
        Ok(bytes) => parse(&bytes).map(Some),
        Err(Refused::Missing) => Ok(None),
        Err(Refused::NotAFile | Refused::OtherOwner | Refused::TooLarge) => {
            Err("it is no regular file of yours, or larger than 16 MiB".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}
