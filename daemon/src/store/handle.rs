//! The store, shared: whoever calls does the work, one at a time.
//!
//! A hook waits for its event to be committed. Handing the event to a thread of the store's own and back took longer than the
//! commit itself, so the commit happens where the request is served.

use std::sync::{Arc, Mutex, PoisonError};

use super::Store;

/// A way to the database.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<Store>>);

impl Handle {
    /// Shares `store`.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// Does `work` when nobody else is at it. Steps are kept short: a task that calls this holds up its runtime.
    pub fn call<R>(&self, work: impl FnOnce(&mut Store) -> R) -> R {
        // A panic in between left no half-done change: transactions are rolled back when they go.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
