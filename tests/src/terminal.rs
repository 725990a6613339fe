//! A terminal for a program to run on, and text that would take it over.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Instant,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{TIMEOUT, eventually};

/// Text with everything that a terminal obeys or hides; `name` says which field it was in, and `forged` begins a line.
pub fn hostile(name: &str) -> String {
    format!(
        "\x1b]0;{name}\x07\x1b[2J\u{9b}31m\u{90}q\u{9c}{name}\x08\x7f\r\u{85}\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}\
         \u{200b}\u{200d}\u{2060}\u{feff}\u{ad}\u{2028}\u{2029}\u{e0001}\u{e0041}\u{e007f}\u{fff9}\u{3164}\u{fe01}\n\
         forged {name}"
    )
}

/// True for a character that a terminal obeys or hides, except line breaks.
pub fn is_hidden(c: char) -> bool {
    c.is_control() && c != '\n'
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{3164}' | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// What `shown` contains of [`hostile`] text: hidden characters, and lines it begins.
pub fn harm(shown: &[u8]) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(shown) else { return vec!["not UTF-8".to_owned()] };
    let hidden = text.lines().filter(|line| line.contains(is_hidden)).map(|line| format!("{line:?}"));
    let forged = text.lines().filter(|line| line.starts_with("forged")).map(str::to_owned);
    hidden.chain(forged).collect()
}

/// Runs `command` on a terminal, and presses `keys` when it has shown something; returns the screen without colours,
/// cursor movement and line ends.
///
/// # Panics
/// If there is no terminal.
pub fn on_terminal(mut command: Command, keys: &str) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal");
    let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("text");
    let end = || Stdio::from(OpenOptions::new().read(true).write(true).open(&name).expect("its other end"));
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
    // The program's ends are closed here, so that reading can end.
    drop(command);
    let mut master = File::from(master);
    let mut reader = master.try_clone().expect("a second handle");
    let (shown, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        // A terminal reports its end as an error.
        while let Ok(n @ 1..) = reader.read(&mut part)
            && shown.send(part[..n].to_vec()).is_ok()
        {}
    });
    let mut all = if keys.is_empty() { Vec::new() } else { seen.recv().unwrap_or_default() };
    master.write_all(keys.as_bytes()).expect("keys");
    let mut status = None;
    eventually("the program to end", || {
        status = child.try_wait().expect("it is ours");
        status.is_some()
    });
    while let Ok(part) = seen.recv() {
        all.extend(part);
    }
    // A text that is shown briefly restarts the line.
    let mut text = String::from_utf8(all).expect("UTF-8").replace("\r\n", "\n").replace("\r\x1b[K", "\n");
    for code in ["1m", "2m", "31m", "32m", "33m", "0m", "K", "H", "J", "?1049h", "?1049l", "?25h", "?25l"] {
        text = text.replace(&format!("\x1b[{code}"), "");
    }
    text
}

/// A program on a terminal of a given size, and a person who types.
pub struct Dialogue {
    master: File,
    seen: mpsc::Receiver<Vec<u8>>,
    child: Child,
    all: String,
    /// How much of the output was already waited for.
    heard: usize,
}

impl Dialogue {
    /// Starts `command` on a terminal of this many columns and rows.
    ///
    /// # Panics
    /// If there is no terminal.
    pub fn start(mut command: Command, (columns, rows): (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal");
        tcsetwinsize(&master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("text");
        let end = || Stdio::from(OpenOptions::new().read(true).write(true).open(&name).expect("its other end"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        drop(command);
        let master = File::from(master);
        let mut reader = master.try_clone().expect("a second handle");
        let (shown, seen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut part)
                && shown.send(part[..n].to_vec()).is_ok()
            {}
        });
        Self { master, seen, child, all: String::new(), heard: 0 }
    }

    /// Waits until `text` is on the screen, after what was waited for before. It may be broken between words.
    ///
    /// # Panics
    /// If it does not appear.
    pub fn expect(&mut self, text: &str) -> &mut Self {
        let words: Vec<String> = text.split(' ').map(regex::escape).collect();
        let sought = regex::Regex::new(&words.join(r"\s+")).expect("a pattern");
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(found) = sought.find(&self.all[self.heard..]) {
                self.heard += found.end();
                return self;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.seen.recv_timeout(left) {
                Ok(part) => self.all.push_str(&String::from_utf8_lossy(&part)),
                Err(_) => panic!("waited for {text:?}: {}", self.all),
            }
        }
    }

    /// Types `line` and Enter.
    ///
    /// # Panics
    /// If the terminal is closed.
    pub fn say(&mut self, line: &str) -> &mut Self {
        self.master.write_all(format!("{line}\n").as_bytes()).expect("typed");
        self
    }

    /// Waits for the end; returns the exit code and the whole output, without colours.
    ///
    /// # Panics
    /// If it does not end.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut status = None;
        eventually("the program to end", || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        while let Ok(part) = self.seen.recv() {
            self.all.push_str(&String::from_utf8_lossy(&part));
        }
        let mut text = std::mem::take(&mut self.all).replace("\r\n", "\n");
        for code in ["1m", "2m", "31m", "32m", "33m", "0m"] {
            text = text.replace(&format!("\x1b[{code}"), "");
        }
        (status.and_then(|status| status.code()), text)
    }
}
