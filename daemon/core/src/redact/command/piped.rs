//! Secrets that one command passes to another: `echo X | docker login --password-stdin`, `chpasswd <<< bob:X`.

use std::ops::Range;

use super::{
    Part::{After, Whole},
    take, words,
};

/// Commands that write their arguments to stdout.
pub(in super::super) const PRODUCERS: &[&str] = &["echo", "printf"];

/// What identifies a command that reads a secret.
const READERS: &[&str] = &[
    "--password-stdin",
    "--pass-stdin",
    "--with-token",
    "--passphrase-fd 0",
    "-pass stdin",
    "-passin stdin",
    "--stdin",
    "sudo -S",
    "sudo -kS",
    "sudo -Sk",
    "sudo --stdin",
    "kinit",
    "cryptsetup",
    "smbpasswd",
    "secret create",
    "secret put",
    "secret set",
    "secrets create",
    "secrets versions add",
    "env add",
    "vault login",
    "auth login",
    "--data-file=-",
    "--data-file -",
    "pass insert",
    "op signin",
    "bw unlock",
    "restic",
    "ssh-add",
    "su -c",
    "su - ",
    "wpa_passphrase",
    "vncpasswd",
    "gocryptfs",
    "veracrypt",
    "keyctl padd",
];

/// How many bytes after a pipe are searched for the reader.
const READER_WINDOW: usize = 240;

fn rest_of_line(text: &str, at: usize) -> &str {
    let end = text.floor_char_boundary((at + READER_WINDOW).min(text.len()));
    let rest = &text[at..end];
    &rest[..rest.find('\n').unwrap_or(rest.len())]
}

/// Which part of a command's input is the secret, if any.
fn reads(command: &str) -> Option<super::Part> {
    if command.contains("chpasswd") {
        return Some(After(b':'));
    }
    READERS.iter().any(|reader| command.contains(reader)).then_some(Whole)
}

/// The secret that a command whose name ends at `from` writes into a pipe, and how far the command was read.
pub(super) fn written(text: &str, from: usize, found: &mut Vec<Range<usize>>) -> usize {
    let (words, end) = words(text, from);
    // Also `(echo X; echo X) | reader`.
    let rest = rest_of_line(text, end);
    let Some(pipe) = rest.find('|') else { return end };
    let Some(part) = reads(&rest[pipe..]) else { return end };
    if let Some(word) = words.last().filter(|word| word.plain) {
        let mut range = word.range.clone();
        let value = &text[range.clone()];
        range.end -= value.len() - value.strip_suffix("\\n").unwrap_or(value).len();
        take(text, range, part, true, found);
    }
    end
}

/// The secret of a here-string whose `<<<` ends at `at`.
pub(in super::super) fn here(text: &str, at: usize, found: &mut Vec<Range<usize>>) {
    let from = text.floor_char_boundary(at.saturating_sub(READER_WINDOW));
    let head = &text[from..at];
    let head = &head[head.rfind('\n').map_or(0, |i| i + 1)..];
    let Some(part) = reads(head) else { return };
    let (words, _) = words(text, at);
    if let Some(word) = words.first().filter(|word| word.plain) {
        take(text, word.range.clone(), part, true, found);
    }
}
