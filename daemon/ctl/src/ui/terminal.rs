//! Questions to a person, and the terminal's modes.

use std::io::{self, BufRead, IsTerminal};

use anyhow::bail;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr},
};
use zeroize::Zeroizing;

use cc_langfuse::output;

/// Within this time the next line of a paste is there.
const PASTE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// True if there is a person to ask.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && output::is_seen()
}

/// The width of the output in columns; `None` if it goes to no terminal.
pub(crate) fn width() -> Option<usize> {
    output::columns()
}

/// Asks until there is a line, or uses `default` for an empty one.
///
/// # Errors
/// At the end of the input.
pub(crate) fn ask(question: &str, default: Option<&str>) -> anyhow::Result<String> {
    loop {
        let hint = default.map(|default| format!(" [{default}]")).unwrap_or_default();
        output::question(&format!("{question}{hint}: "))?;
        let line = line()?;
        match (line.trim(), default) {
            ("", Some(default)) => return Ok(default.to_owned()),
            ("", None) => {}
            (text, _) => return Ok(text.to_owned()),
        }
    }
}

/// Asks for a line that is not shown.
///
/// # Errors
/// At the end of the input.
pub(crate) fn ask_hidden(question: &str) -> anyhow::Result<Zeroizing<String>> {
    loop {
        // Before the question, so that nothing typed at once is lost.
        let hidden = Without::modes(LocalModes::ECHO, OptionalActions::Flush)?;
        output::question(&format!("{question} (not shown): "))?;
        let line = line();
        drop(hidden);
        out!();
        let line = line?;
        if !line.trim().is_empty() {
            return Ok(Zeroizing::new(line.trim().to_owned()));
        }
    }
}

/// Like [`ask_hidden`]; an empty line means `default`, if there is one.
///
/// # Errors
/// At the end of the input.
pub(crate) fn ask_hidden_or(question: &str, default: Option<&Zeroizing<String>>) -> anyhow::Result<Zeroizing<String>> {
    let Some(default) = default else { return ask_hidden(question) };
    let hidden = Without::modes(LocalModes::ECHO, OptionalActions::Flush)?;
    output::question(&format!("{question} (not shown): "))?;
    let line = line();
    drop(hidden);
    out!();
    let line = line?;
    Ok(if line.trim().is_empty() { default.clone() } else { Zeroizing::new(line.trim().to_owned()) })
}

/// The terminal without some of its modes; restored on drop.
pub(crate) struct Without(Termios);

impl Without {
    /// Turns them off.
    ///
    /// # Errors
    /// If there is no terminal.
    pub(crate) fn modes(modes: LocalModes, when: OptionalActions) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut less = before.clone();
        less.local_modes.remove(modes);
        tcsetattr(io::stdin(), when, &less)?;
        Ok(Self(before))
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The lines that follow the last answer at once, because several were pasted.
///
/// # Errors
/// At the end of the input.
pub(crate) fn pasted() -> anyhow::Result<Zeroizing<String>> {
    let mut all = Zeroizing::new(String::new());
    loop {
        let stdin = io::stdin();
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        if poll(&mut ready, Some(&PASTE))? == 0 {
            return Ok(all);
        }
        all.push_str(&line()?);
    }
}

/// Forgets what was typed or pasted before a question: it was not meant as its answer.
pub(crate) fn forget_input() {
    // An input that is no terminal has nothing to forget.
    let _ = tcflush(io::stdin(), QueueSelector::IFlush);
}

/// Asks a question with the default yes.
///
/// # Errors
/// At the end of the input.
pub(crate) fn agrees(question: &str) -> anyhow::Result<bool> {
    forget_input();
    output::question(&format!("{question} [Y/n]: "))?;
    Ok(matches!(line()?.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

/// Asks a question with the default no, on stderr.
///
/// # Errors
/// At the end of the input.
pub(crate) fn confirms(question: &str) -> anyhow::Result<bool> {
    forget_input();
    output::question_aside(&format!("{question} [y/N] "))?;
    Ok(matches!(line()?.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// The first line of standard input.
///
/// # Errors
/// At its end.
pub(crate) fn line() -> anyhow::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    if io::stdin().lock().read_line(&mut line)? == 0 {
        bail!("the input has ended");
    }
    Ok(line)
}
