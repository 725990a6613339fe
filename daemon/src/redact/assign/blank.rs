//! Names and values with only a blank between them: options of commands, `ENV NAME x`, netrc, SQL.

use std::ops::Range;

use super::{
    LINE_WINDOW, Named, Trust, is_call, is_namesake, is_secret,
    lines::line_lead,
    quotes::{Value, quote_at},
};
use crate::redact::name::Name;

impl Named<'_> {
    /// Whether the name is a command's option: `--db-password`, `-Password`, `/password`.
    pub(super) fn is_option(&self) -> bool {
        let head = self.head();
        let dashes = head.len() - head.trim_end_matches('-').len();
        let before = head[..head.len() - dashes].bytes().next_back();
        dashes > 0 && before.is_none_or(|b| matches!(b, b' ' | b'\t' | b'"' | b'\'' | b'`' | b'(' | b'[' | b'='))
    }

    /// Whether a blank can join the name and its value; in prose it joins all words.
    pub(super) fn takes_blank(&self, gap: usize) -> bool {
        let before = self.start.checked_sub(1).map(|at| self.bytes()[at]);
        let quoted = quote_at(self.bytes(), gap).is_some();
        quoted
            || before == Some(b'-') && self.is_option()
            || !before.is_some_and(|b| matches!(b, b'.' | b'/' | b'(' | b'=')) && self.is_set_by_command()
    }

    pub(super) fn blank(&self, at: usize) -> Option<Range<usize>> {
        let option = self.is_option();
        let limit = self.window(at);
        let quoted = quote_at(self.bytes(), at).is_some();
        let name = self.name();
        let quote = self.bytes().get(at).copied();
        let sql = quoted && self.kind == Name::Password && quote.is_some();
        let define = quoted && self.head().contains("#define ");
        let statement = sql || define;
        if !option && !statement && !self.is_set_by_command() {
            return None;
        }
        let mut value = Value::at(self.text, at, limit)?;
        if value.quote.is_none() {
            value.range = self.run(at, limit);
            if value.text(self.text).starts_with('-') && value.range.len() < 16 {
                return None;
            }
        }
        let trust = if statement && !option { Trust::Code } else { Trust::Option };
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
        is_secret(self.kind, value_text, value.quote.is_some(), trust).then(|| match value.quote {
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
            || head.contains("config set ")
            || head.contains("configure set ")
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
                    && (before.next() == Some("login") || before.next() == Some("machine") || user == "user")
            }
            None => name == "password" && self.follows_login(),
        }
    }

    /// A netrc file has a line for each word.
    pub(super) fn follows_login(&self) -> bool {
        let from = self.text.floor_char_boundary(self.start.saturating_sub(LINE_WINDOW));
        self.text[from..self.start]
            .lines()
            .rev()
            .skip(1)
            .take(2)
            .any(|line| line.contains("login ") || line.contains("machine "))
    }
}
