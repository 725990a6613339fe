//! Asks git for the user's name: a thread runs git, and events that need the answer wait for it.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    sync::mpsc::{self, Sender},
};

use super::Input;
use crate::git;
use cc_core::hook::Hint;

/// How many answers are remembered.
const MAX_REMEMBERED: usize = 1000;

/// Git's answers, by directories of the project.
pub(super) struct Users {
    known: HashMap<Vec<PathBuf>, Option<String>>,
    /// Events that wait for an answer.
    waiting: HashMap<Vec<PathBuf>, Vec<Hint>>,
    engine: Sender<Input>,
    /// The thread that asks git, once it was started.
    asker: Option<Sender<Vec<PathBuf>>>,
}

impl Users {
    pub(super) fn new(engine: Sender<Input>) -> Self {
        Self { known: HashMap::new(), waiting: HashMap::new(), engine, asker: None }
    }

    /// The event with the user's name; `None` if the event waits for the answer.
    pub(super) fn name(&mut self, mut hint: Hint) -> Option<Hint> {
        if hint.options.user_id.as_deref() != Some(git::EMAIL) {
            return Some(hint);
        }
        if let Some(known) = self.known.get(&hint.project_dirs) {
            hint.options.user_id.clone_from(known);
            return Some(hint);
        }
        match self.waiting.entry(hint.project_dirs.clone()) {
            Entry::Occupied(waiting) => waiting.into_mut().push(hint),
            Entry::Vacant(new) => {
                let dirs = new.key().clone();
                if !ask(&mut self.asker, &self.engine, dirs) {
                    hint.options.user_id = None;
                    return Some(hint);
                }
                new.insert(vec![hint]);
            }
        }
        None
    }

    /// Takes an answer. Returns the events that waited for it.
    pub(super) fn answered(&mut self, dirs: Vec<PathBuf>, email: Option<String>) -> Vec<Hint> {
        if self.known.len() >= MAX_REMEMBERED {
            self.known.clear();
        }
        let mut hints = self.waiting.remove(&dirs).unwrap_or_default();
        hints.iter_mut().for_each(|hint| hint.options.user_id.clone_from(&email));
        self.known.insert(dirs, email);
        hints
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }
}

/// False if the thread cannot be started.
fn ask(asker: &mut Option<Sender<Vec<PathBuf>>>, engine: &Sender<Input>, dirs: Vec<PathBuf>) -> bool {
    if asker.is_none() {
        let (sender, asked) = mpsc::channel::<Vec<PathBuf>>();
        let engine = engine.clone();
        let thread = std::thread::Builder::new().name("git".into()).spawn(move || {
            for dirs in asked {
                let email = git::email(&dirs);
                if engine.send(Input::Email(dirs, email)).is_err() {
                    return;
                }
            }
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "git cannot be asked who the user is");
            return false;
        }
        *asker = Some(sender);
    }
    asker.as_ref().is_some_and(|asker| asker.send(dirs).is_ok())
}

#[cfg(test)]
mod tests {
    use cc_core::project::Options;

    use super::*;
    use crate::engine::any_hint;

    #[test]
    fn events_wait_for_git_in_their_order_and_others_do_not() {
        let (engine, inputs) = mpsc::channel();
        let mut users = Users::new(engine);
        let nowhere = vec![PathBuf::from("/nowhere/at/all")];
        let hint = |id: &str, user: Option<&str>| Hint {
            project_dirs: nowhere.clone(),
            options: Options { user_id: user.map(str::to_owned), ..Options::default() },
            ..any_hint(id)
        };
        for user in [None, Some("ada")] {
            let named = users.name(hint("other", user)).unwrap();
            assert_eq!(named.options.user_id.as_deref(), user);
        }
        assert!(users.name(hint("1", Some(git::EMAIL))).is_none());
        assert!(users.name(hint("2", Some(git::EMAIL))).is_none());
        assert_eq!(users.len(), 2);
        let Input::Email(dirs, None) = inputs.recv().unwrap() else { panic!("git knows nobody there") };
        assert_eq!(dirs, nowhere);
        let back = users.answered(dirs, Some("ada@example.org".into()));
        let named: Vec<_> = back.iter().map(|hint| (&*hint.id, hint.options.user_id.as_deref())).collect();
        assert_eq!(named, [("1", Some("ada@example.org")), ("2", Some("ada@example.org"))]);
        let known = users.name(hint("3", Some(git::EMAIL))).unwrap();
        assert_eq!((users.len(), known.options.user_id.as_deref()), (0, Some("ada@example.org")));
        assert!(inputs.try_recv().is_err(), "asked once");
    }
}
