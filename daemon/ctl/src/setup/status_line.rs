//! `setup --statusline`: cost, cache and delivery in Claude Code's status line.

use std::path::{Path, PathBuf};

use super::files::{self, Part, Record};
use crate::{
    history::{self, History},
    programs,
};
use cc_core::settings::status_line::{Whose, command};

/// Whether the settings get a status line.
pub(super) struct StatusLine {
    command: String,
    /// It was asked for, or is there already.
    is_wanted: bool,
    /// No settings file has another one.
    is_free: bool,
}

impl StatusLine {
    /// Looks at `file`, which is changed, and at the `others` that apply beside it. The inner error says why what was asked for
    /// (`is_asked`) cannot be done.
    ///
    /// # Errors
    /// If this program is not found, or `file` cannot be read.
    pub(super) fn new(
        is_asked: bool,
        file: &Path,
        others: &[PathBuf],
        record: &Record,
    ) -> anyhow::Result<Result<Self, String>> {
        let whose = |file: &Path| match files::read(file) {
            Ok(Some(text)) => Whose::of(&text),
            _ => Whose::Nobodys,
        };
        let own = whose(file);
        let theirs =
            [file].into_iter().chain(others.iter().map(PathBuf::as_path)).find(|file| whose(file) == Whose::Theirs);
        if let (Some(theirs), true) = (theirs, is_asked) {
            return Ok(Err(format!(
                "{} has a statusLine already: remove it first, or call `cc-langfusectl statusline` in it",
                theirs.display()
            )));
        }
        let was_written = record.of(file).is_some_and(|written| match &written.part {
            Part::Settings(ours) => ours.status_line,
            _ => false,
        });
        Ok(Ok(Self {
            command: command(&programs::ours("cc-langfusectl")?),
            is_wanted: is_asked || was_written && own == Whose::Ours,
            is_free: theirs.is_none()
                && own == Whose::Nobodys
                && others.iter().all(|file| whose(file) == Whose::Nobodys),
        }))
    }

    /// The command, if it is to be written.
    pub(super) fn wanted(&self) -> Option<&str> {
        self.is_wanted.then_some(&*self.command)
    }

    /// The command, if it may be offered.
    pub(super) fn offered(&self) -> Option<&str> {
        (!self.is_wanted && self.is_free).then_some(&*self.command)
    }
}

/// Reads the transcripts into the index if there is none, so that the line knows of this day from its start.
pub(super) fn prepare(file: &Path, state: &Path) {
    let has_line = files::read(file).ok().flatten().is_some_and(|text| Whose::of(&text) == Whose::Ours);
    if has_line && !state.join(history::INDEX).exists() {
        let _ = History::open(&[]).and_then(|mut history| history.update());
    }
}
