//! Reads the file in which the Node tool kept its state.

use std::{io, path::Path};

use crate::credentials::read_regular;
use cc_core::import_state::{Imported, parse};

/// Largest file that is read, in bytes.
const MAX_SIZE: u64 = 16 << 20;

/// The sessions in the state at `path`; `None` if there is no such file.
///
/// # Errors
/// Why it cannot be used.
pub fn load(path: &Path) -> Result<Option<Vec<Imported>>, String> {
    match read_regular(path, MAX_SIZE) {
        Ok(bytes) => parse(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Err("it is no regular file of yours, or larger than 16 MiB".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}
