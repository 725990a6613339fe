//! Everything that the programs print. Callers pass text from anywhere: hidden characters are made visible here, before
//! colours and cursor movements are added. Nothing else writes to standard output or standard error.

mod wrap;

use std::{
    ffi::OsString,
    fmt,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    process::ExitCode,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::environment;
use cc_core::visible;

/// The longest line that is printed for people, in characters; the rest is cut.
const MAX_LINE_CHARS: usize = 8192;

/// The style of a part of a line, where colours are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Plain,
    /// A heading or a name.
    Bold,
    /// Less important text.
    Dim,
    /// An error, or a removal.
    Red,
    /// A success, or an addition.
    Green,
    Yellow,
}

impl Look {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
        }
    }

    fn write(self, out: &mut impl Write, text: &str) -> io::Result<()> {
        match self.code() {
            "" => write!(out, "{text}"),
            code => write!(out, "\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Prints a line, on a terminal broken between words. It is not an error if the reader has closed the pipe (`show … | head`).
pub fn line(text: fmt::Arguments<'_>) {
    let _ = parts(&[(Look::Plain, &text.to_string())]);
}

/// Prints a line in one style, and never breaks it: a row of a table, a line of a file or of the log.
///
/// # Errors
/// If the reader has closed the pipe.
pub fn painted(look: Look, text: fmt::Arguments<'_>) -> io::Result<()> {
    write_parts(&mut io::stdout().lock(), &[(look, &text.to_string())], is_coloured(), None)
}

/// Prints a line of several parts, on a terminal broken between words.
///
/// # Errors
/// If the reader has closed the pipe.
pub fn parts(parts: &[(Look, &str)]) -> io::Result<()> {
    write_parts(&mut io::stdout().lock(), parts, is_coloured(), columns())
}

/// Prints a line for a program that shows colours although it is no terminal.
///
/// # Errors
/// If the reader has closed the pipe.
pub fn status_line(parts: &[(Look, &str)]) -> io::Result<()> {
    write_parts(&mut io::stdout().lock(), parts, are_colours_wanted(), None)
}

fn write_parts(out: &mut impl Write, parts: &[(Look, &str)], coloured: bool, columns: Option<usize>) -> io::Result<()> {
    let mut room = MAX_LINE_CHARS;
    let mut shown = Vec::with_capacity(parts.len());
    for (look, text) in parts {
        let text = visible::clipped(text, room);
        room -= text.chars().count();
        shown.push((if coloured { *look } else { Look::Plain }, text));
    }
    let Some(columns) = columns else {
        shown.iter().try_for_each(|(look, text)| look.write(out, text))?;
        return writeln!(out);
    };
    let whole: String = shown.iter().map(|(_, text)| &**text).collect();
    let (lines, indent) = wrap::lines(&whole, columns);
    for (number, line) in lines.iter().enumerate() {
        out.write_all(if number > 0 { indent.as_bytes() } else { b"" })?;
        let mut start = 0;
        for (look, text) in &shown {
            let (from, to) = (line.start.max(start), line.end.min(start + text.len()));
            if from < to {
                look.write(out, &text[from - start..to - start])?;
            }
            start += text.len();
        }
        writeln!(out)?;
    }
    Ok(())
}

/// `text` in lines of at most `columns`, as [`line()`] breaks it.
pub fn wrapped(text: &str, columns: usize) -> String {
    let (lines, indent) = wrap::lines(text, columns);
    lines.into_iter().map(|line| &text[line]).collect::<Vec<_>>().join(&format!("\n{indent}"))
}

/// Prints a line to standard error, on a terminal broken between words.
pub fn error(text: fmt::Arguments<'_>) {
    let _ = write_parts(&mut io::stderr(), &[(Look::Plain, &text.to_string())], false, columns_of(io::stderr()));
}

/// Prints `value` as JSON, over several lines if `pretty`. Nothing is cut.
///
/// # Errors
/// If JSON cannot express it.
pub fn json(value: &impl Serialize, pretty: bool) -> serde_json::Result<()> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }?;
    let _ = writeln!(io::stdout(), "{}", visible::json(&text));
    Ok(())
}

/// Prints a text of several lines unchanged for other programs to read; tabs are the only control characters kept.
pub fn document(text: &str) {
    let mut out = io::stdout().lock();
    for line in text.lines() {
        let shown: Vec<_> = line.split('\t').map(visible::line).collect();
        if writeln!(out, "{}", shown.join("\t")).is_err() {
            return;
        }
    }
}

/// Standard input and output for a protocol of JSON, whose text has passed through [`visible::json`].
pub fn for_a_protocol() -> (tokio::io::Stdin, tokio::io::Stdout) {
    (tokio::io::stdin(), tokio::io::stdout())
}

/// Prints a question whose answer is then read from standard input.
///
/// # Errors
/// If there is no person to ask.
pub fn question(text: &str) -> io::Result<()> {
    ask(&mut io::stdout(), text, columns())
}

/// Asks on standard error.
///
/// # Errors
/// If there is no terminal.
pub fn question_aside(text: &str) -> io::Result<()> {
    ask(&mut io::stderr(), text, columns_of(io::stderr()))
}

fn ask(out: &mut impl Write, text: &str, columns: Option<usize>) -> io::Result<()> {
    let text = visible::clipped(text, MAX_LINE_CHARS);
    // The space before the answer.
    let words = text.trim_end();
    let shown = columns.map_or_else(|| words.to_owned(), |columns| wrapped(words, columns));
    write!(out, "{shown}{}", &text[words.len()..]).and_then(|()| out.flush())
}

/// Replaces the progress line on standard error; `None` removes it.
pub fn progress(text: Option<&str>) {
    let mut err = io::stderr();
    let text = text.map(|text| visible::clipped(text, MAX_LINE_CHARS)).unwrap_or_default();
    // One that takes two lines could not be replaced.
    let text = columns_of(io::stderr()).map_or_else(|| text.clone(), |columns| fitting(&text, columns));
    let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
}

/// Parses `args`, whose first is the program's name. Prints help, or what is wrong.
///
/// # Errors
/// The exit code if help or an error was printed.
pub fn arguments<A: clap::Parser>(args: &[OsString]) -> Result<A, ExitCode> {
    arguments_of(&A::command(), args)
}

/// The same with an existing `command`.
///
/// # Errors
/// The exit code if help or an error was printed.
pub fn arguments_of<A: clap::FromArgMatches>(command: &clap::Command, args: &[OsString]) -> Result<A, ExitCode> {
    let parse = |args: &mut dyn Iterator<Item = OsString>| {
        let mut found = command.clone().try_get_matches_from(args)?;
        A::from_arg_matches_mut(&mut found).map_err(|error| error.format(&mut command.clone()))
    };
    parse(&mut args.iter().cloned()).map_err(|error| {
        // The message quotes arguments, which may have several lines.
        let mut plain = args.iter().map(|arg| visible::line(&arg.to_string_lossy()).into_owned().into());
        usage(&parse(&mut plain).err().unwrap_or(error))
    })
}

fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render();
    if error.use_stderr() {
        text.to_string().lines().for_each(|line| self::error(format_args!("{line}")));
    } else if is_coloured() {
        // All of it is this program's own text.
        let _ = write!(io::stdout(), "{}", text.ansi());
    } else {
        let _ = write!(io::stdout(), "{text}");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Makes a panic in `program` print its place and message.
pub fn say_faults(program: &'static str) {
    std::panic::set_hook(Box::new(move |panic| error(format_args!("{program}: a fault in this program: {panic}"))));
}

/// True if standard output is a terminal.
pub fn is_seen() -> bool {
    io::stdout().is_terminal()
}

/// True if standard error is a terminal.
pub fn is_seen_aside() -> bool {
    io::stderr().is_terminal()
}

/// The width of the terminal that shows the output; `None` without one, or if it does not report it.
pub fn columns() -> Option<usize> {
    columns_of(io::stdout())
}

fn columns_of(stream: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// True if colours are shown and wanted.
fn is_coloured() -> bool {
    is_seen() && are_colours_wanted()
}

fn are_colours_wanted() -> bool {
    environment::raw("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// False if standard output is a pipe that the reader has closed.
pub fn is_read() -> bool {
    let out = io::stdout();
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    let asked = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    asked.is_err() || !polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// The terminal's alternate screen; the normal one comes back on drop.
pub struct Screen(());

impl Screen {
    /// Switches to it and hides the cursor.
    ///
    /// # Errors
    /// If nothing can be written.
    pub fn open() -> io::Result<Self> {
        let screen = Self(());
        raw("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
    }

    /// Shows as many of `lines` as fit.
    ///
    /// # Errors
    /// If nothing can be written.
    pub fn draw(&self, lines: &[(Look, String)]) -> io::Result<()> {
        let (width, height) = self.size();
        let coloured = is_coloured();
        let mut text = b"\x1b[H".to_vec();
        let shown = lines.len().min(height);
        for (index, (look, line)) in lines[..shown].iter().enumerate() {
            let look = if coloured { *look } else { Look::Plain };
            look.write(&mut text, &fitting(line, width))?;
            text.extend_from_slice(if index + 1 < shown { b"\x1b[K\r\n" } else { b"\x1b[K" });
        }
        text.extend_from_slice(b"\x1b[J");
        raw(&String::from_utf8_lossy(&text))
    }
}

/// `line` cut to this many columns; an ideograph takes two.
fn fitting(line: &str, columns: usize) -> String {
    let mut shown = visible::clipped(line, columns);
    while shown.width() > columns {
        shown.pop();
    }
    shown
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = raw("\x1b[?25h\x1b[?1049l");
    }
}

fn raw(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_no_more_columns_than_there_are() {
        for (line, columns, expect) in [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abcde…"),
            ("日本語", 6, "日本語"),
            ("日本語だ", 6, "日本語"),
            ("a日本", 4, "a日"),
            ("日", 1, ""),
        ] {
            assert_eq!(fitting(line, columns), expect, "{line} in {columns}");
        }
    }
}
