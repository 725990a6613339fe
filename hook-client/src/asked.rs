//! What a person gets who runs the hook on a terminal. Claude Code gives it no arguments and a pipe, and gets nothing.

use std::io::{self, IsTerminal, Write};

const HELP: &str = "\
Usage: cc-langfuse-hook < EVENT

Claude Code runs this program for its hook events: `cc-langfusectl setup` registers it. It hands the event on its standard input to
cc-langfused, prints nothing and exits 0, whatever happens. `cc-langfusectl doctor` says whether that works.";

/// Answers `--version` and `--help`, on a terminal only.
pub(crate) fn answer() -> Option<()> {
    let mut out = io::stdout();
    let text = match &*argument()? {
        "--version" | "-V" => concat!("cc-langfuse-hook ", env!("CARGO_PKG_VERSION")),
        "--help" | "-h" => HELP,
        _ => return None,
    };
    if out.is_terminal() { writeln!(out, "{text}").ok() } else { Some(()) }
}

/// The first argument. A statically linked program that skips the standard library's start-up finds it in `/proc` only.
fn argument() -> Option<String> {
    let of_library = std::env::args_os().nth(1).and_then(|argument| argument.into_string().ok());
    of_library.or_else(|| {
        let line = std::fs::read("/proc/self/cmdline").ok()?;
        String::from_utf8(line.split(|byte| *byte == 0).nth(1)?.to_vec()).ok()
    })
}
