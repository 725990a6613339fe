//! The thread that owns the database. Everybody else holds a [`Handle`].

use std::{sync::mpsc, thread::JoinHandle};

use tokio::sync::oneshot;

use super::{DestinationId, Result, Store};
use crate::hook::Hint;

/// How many waiting events are committed together.
const GROUP: usize = 256;

enum Job {
    Accept(Box<Hint>, oneshot::Sender<Result<DestinationId>>),
    Refuse(&'static str, oneshot::Sender<Result<()>>),
    Run(Box<dyn FnOnce(&mut Store) + Send>),
}

/// A way to the database. Calls are answered in the order they are made.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Job>);

/// Gives the store to a thread of its own; the thread ends when the last handle is gone.
///
/// # Errors
/// If no thread can be started.
pub fn spawn(store: Store) -> std::io::Result<(Handle, JoinHandle<()>)> {
    let (sender, jobs) = mpsc::channel();
    let thread = std::thread::Builder::new().name("store".into()).spawn(move || run(store, &jobs))?;
    Ok((Handle(sender), thread))
}

fn run(mut store: Store, jobs: &mpsc::Receiver<Job>) {
    let mut next = None;
    while let Some(job) = next.take().or_else(|| jobs.recv().ok()) {
        match job {
            Job::Run(work) => work(&mut store),
            first => next = accept_group(&mut store, first, jobs),
        }
    }
}

/// Commits an event, and all that are waiting behind it, in one transaction. Returns the job it met that was none.
fn accept_group(store: &mut Store, first: Job, jobs: &mpsc::Receiver<Job>) -> Option<Job> {
    let (mut hints, mut hint_replies, mut refused, mut refused_replies) = (vec![], vec![], vec![], vec![]);
    let mut job = Some(first);
    let left = loop {
        match job {
            Some(Job::Accept(hint, reply)) => {
                hints.push(*hint);
                hint_replies.push(reply);
            }
            Some(Job::Refuse(reason, reply)) => {
                refused.push(reason);
                refused_replies.push(reply);
            }
            other => break other,
        }
        job = if hints.len() + refused.len() < GROUP { jobs.try_recv().ok() } else { None };
    };
    match store.accept(&hints, &refused) {
        Ok(ids) => {
            hint_replies.into_iter().zip(ids).for_each(|(reply, id)| drop(reply.send(Ok(id))));
            refused_replies.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
        }
        Err(error) => {
            // Whoever waits is told that nothing was stored, and spools.
            tracing::warn!(%error, "events could not be stored");
            drop((hint_replies, refused_replies));
        }
    }
    left
}

/// The store's thread is gone, or could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("the database does not answer")]
pub struct Gone;

impl Handle {
    /// Stores a hint; `Ok` means committed.
    ///
    /// # Errors
    /// If it was not stored.
    pub async fn accept(&self, hint: Hint) -> std::result::Result<DestinationId, Gone> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Job::Accept(Box::new(hint), reply)).map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// Counts an event that is no hint.
    ///
    /// # Errors
    /// If it was not counted.
    pub async fn refuse(&self, reason: &'static str) -> std::result::Result<(), Gone> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Job::Refuse(reason, reply)).map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// Has `work` done and waits for its result; for threads.
    ///
    /// # Errors
    /// [`Gone`] if the store is.
    pub fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> R + Send + 'static,
    ) -> std::result::Result<R, Gone> {
        let (reply, answer) = mpsc::sync_channel(1);
        let job = Job::Run(Box::new(move |store| drop(reply.send(work(store)))));
        self.0.send(job).map_err(|_| Gone)?;
        answer.recv().map_err(|_| Gone)
    }

    /// As [`call`](Self::call); for tasks.
    ///
    /// # Errors
    /// [`Gone`] if the store is.
    pub async fn ask<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> R + Send + 'static,
    ) -> std::result::Result<R, Gone> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Run(Box::new(move |store| drop(reply.send(work(store)))));
        self.0.send(job).map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}
