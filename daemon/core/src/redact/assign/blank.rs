//! Names and values separated by a blank only: command options, `ENV NAME x`, netrc, SQL.

use std::ops::Range;

use super::{
    LINE_WINDOW, Named, Trust, is_call, is_namesake, is_secret,
    lines::line_lead,
    quotes::{Value, quote_at},
};
use crate::redact::{name::Name, value::is_human};

impl Named<'_> {
    /// Whether the name is a command's option: `--db-password`, `-Password`, `/password`.
    pub(super) fn is_option(&self) -> bool {
        let head = self.head();
        let dashes = head.len() - head.trim_end_matches('-').len();
        let before = head[..head.len() - dashes].bytes().next_back();
        dashes > 0 && before.is_none_or(|b| matches!(b, b' ' | b'\t' | b'"' | b'\'' | b'`' | b'(' | b'[' | b'='))
    }

    /// Whether a blank can connect the name with its value; in prose a blank connects all words.
    pub(super) fn takes_blank(&self, gap: usize) -> bool {
        let before = self.start.checked_sub(1).map(|at| self.bytes()[at]);
        let quoted = quote_at(self.bytes(), gap).is_some();
        quoted
            || self.is_aligned(gap)
            || self.is_said(gap)
            || before == Some(b'-') && self.is_option()
            || before == Some(b'/') && self.is_stored(self.head())
            || !before.is_some_and(|b| matches!(b, b'.' | b'/' | b'(' | b'=')) && self.is_set_by_command()
    }

    /// Two columns: the name and its value are alone on their line, with more blanks between them than in prose.
    fn is_aligned(&self, gap: usize) -> bool {
        let wide = gap - self.end >= 2 || self.bytes()[self.end] == b'\t';
        wide && self.is_line_start() && self.ends_line(self.run(gap, self.window(gap)).end)
    }

    /// `password x` in a sentence or a block of settings: only a value that could not continue a sentence.
    fn is_said(&self, gap: usize) -> bool {
        if !matches!(self.name(), "password" | "passwd" | "passphrase" | "Password") || gap - self.end != 1 {
            return false;
        }
        let run = self.run(gap, self.window(gap));
        let value = &self.text[run.clone()];
        let has = |test: fn(&u8) -> bool| value.bytes().any(|b| test(&b));
        let strong = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic) && has(|b| b"!@#$%^&*?+~".contains(b));
        (strong || is_human(value)) && self.ends_line(run.end)
    }

    pub(super) fn blank(&self, at: usize) -> Option<Range<usize>> {
        let at = self
            .bytes()
            .get(at + 1)
            .filter(|next| **next == b' ' && self.bytes()[at].is_ascii_digit())
            .map_or(at, |_| at + 2);
        let option = self.is_option();
        let aligned = self.is_aligned(at) || self.is_said(at);
        let limit = self.window(at);
        let quoted = quote_at(self.bytes(), at).is_some();
        let name = self.name();
        let quote = self.bytes().get(at).copied();
        let other = self.kind == Name::Other && quote != Some(b'`') && !name.ends_with('.');
        let sql = quoted && (self.kind == Name::Password || other);
        let define = quoted && self.head().contains("#define ");
        let statement = sql || define;
        if !option && !statement && !aligned && !self.is_set_by_command() {
            return None;
        }
        let mut value = Value::at(self.text, at, limit)?;
        if value.quote.is_none() {
            value.range = self.run(at, limit);
            if value.text(self.text).starts_with('-') && value.range.len() < 16 {
                return None;
            }
        }
        let trust = match (statement && !option, aligned) {
            (true, _) => Trust::Code,
            (_, true) => Trust::Setting,
            _ => Trust::Option,
        };
        let value_text = value.text(self.text);
        if sql && !define && !value_text.bytes().any(|b| b.is_ascii_digit()) {
            return None;
        }
        if define && (!value_text.bytes().any(|b| b.is_ascii_lowercase()) || is_namesake(value_text, name)) {
            return None;
        }
        if value.quote.is_none() && (is_namesake(self.name(), value_text) || is_call(value_text)) {
            return None;
        }
        let human = (sql || option) && self.kind == Name::Password && is_human(value_text);
        (human || is_secret(self.kind, value_text, value.quote.is_some(), trust)).then(|| match value.quote {
            None => value.range.start..self.run(at, self.text.len()).end,
            Some(_) => self.whole(value),
        })
    }

    /// `ENV NAME x`, `setenv NAME x`, `set -gx NAME x`, `machine h login u password x`, `requirepass x`.
    pub(super) fn is_set_by_command(&self) -> bool {
        let head = self.head();
        let head = &head[line_lead(head)..];
        let name = self.name();
        if matches!(name, "requirepass" | "masterauth" | "set-initial-password")
            || head.contains(" set ") && (head.contains("config set ") || head.contains("configure set "))
            || self.is_stored(head)
        {
            return true;
        }
        let mut before =
            head.split([' ', '\t', '"', '\'', '(', '$', '`', '→', ':', '+', '>']).rev().filter(|word| !word.is_empty());
        match before.next() {
            Some("ENV" | "setenv" | "SETENV" | "setx" | "SetEnv" | "fastcgi_param" | "env") => true,
            Some(flag) if flag.starts_with('-') && flag.len() <= 4 => matches!(before.next(), Some("set")),
            Some(user) => {
                (name == "password" || name == "passwd")
                    && (before.next() == Some("login")
                        || before.next() == Some("machine")
                        || user == "user"
                        || ["username ", "user ", "d-i ", "snmp-server "]
                            .iter()
                            .any(|device| head.trim_start().starts_with(device)))
                    || name == "insecure-password"
            }
            None => name == "password" && self.follows_login(),
        }
    }

    /// A command that takes a name and its value: `cf set-env app DB_PASSWORD x`, `consul kv put app/password x`.
    pub(super) fn is_stored(&self, head: &str) -> bool {
        const VERBS: &[&str] =
            &["set", "put", "write", "config", "set-env", "env:set", "config:set", "secrets:set", "add", "update"];
        let name = self.name();
        let joined = name.contains(['_', '-', '.']) || name.bytes().any(|b| b.is_ascii_uppercase());
        let head = head.trim_end_matches(['"', '\'', '\\']);
        let path = head.ends_with(['/', ':', '$']);
        let words = head.as_bytes().rsplit(|b| *b == b' ').filter(|word| word.first().is_some_and(|b| *b != b'-'));
        (joined || path)
            && words.take(4).any(|word| VERBS.iter().any(|verb| verb.as_bytes() == word))
            && head.contains(' ')
    }

    /// In a netrc file each word can be on a line of its own.
    pub(super) fn follows_login(&self) -> bool {
        let from = self.text.floor_char_boundary(self.start.saturating_sub(LINE_WINDOW));
        self.text[from..self.start]
            .lines()
            .rev()
            .skip(1)
            .take(2)
            .any(|line| ["login ", "machine ", "user ", "account "].iter().any(|word| line.contains(word)))
    }
}
