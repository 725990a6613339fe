//! The store, shared: whoever calls does the work, one at a time.
//!
//! A hook waits for its event to be committed. Handing the event to a thread of the store's own and back took longer than the
//! commit itself, so the commit happens where the request is served.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Error, Result, Store};

/// A way to the database.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<Store>>);

impl Handle {
    /// Shares `store`.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// Does `work` when nobody else is at it, and notes whether the database took it. Steps are kept short: a task that
    /// calls this holds up its runtime.
    ///
    /// # Errors
    /// Those of `work`, typed.
    pub fn call<R>(&self, work: impl FnOnce(&mut Store) -> Result<R>) -> std::result::Result<R, Error> {
        // A panic in between left no half-done change: transactions are rolled back when they go.
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = store.db.total_changes();
        let outcome = work(&mut store).map_err(Error::from);
        store.note(before, outcome.as_ref().err());
        if matches!(outcome, Err(Error::Full(_))) {
            store.empty_log();
        }
        outcome
    }
}
