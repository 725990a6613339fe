//! The shared store: each caller does its own work under a lock.
//!
//! A hook waits for its event to be committed. Passing the event to a thread of the store and back took longer than the
//! commit itself, so it is committed where the request is served.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Error, Result, Store};

#[derive(Clone)]
pub struct Handle(Arc<Mutex<Store>>);

impl Handle {
    /// Shares `store`.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// Runs `work` under the lock, and records whether the database accepted it. Keep steps short: a task that calls this holds
    /// up its runtime.
    ///
    /// # Errors
    /// Those of `work`, typed.
    pub fn call<R>(&self, work: impl FnOnce(&mut Store) -> Result<R>) -> std::result::Result<R, Error> {
        // A panic leaves no half-done change: dropping a transaction rolls it back.
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
