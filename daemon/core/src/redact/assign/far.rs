//! Values that do not directly follow their names: members of a block, siblings, list items, fields of a page.

use std::ops::Range;

use super::{
    Link, Named, Trust, is_secret,
    lines::line_lead,
    quotes::{Value, blanks, quote_at},
};
use crate::redact::{
    name::{Name, is_upper},
    rules::ABOUT,
    value::is_human,
};

impl Named<'_> {
    /// Whether the name is a member of a block with a secret's name: `"Jwt": { "Key": `, `'crypt' => [ 'key' => `.
    pub(in super::super) fn is_in_secret(&self) -> bool {
        let from = self.text.floor_char_boundary(self.start.saturating_sub(48));
        let head = self.text[from..self.start].trim_end_matches(['"', '\'', ' ', '\n', '\r', '\t', '\\', '+', '-']);
        let Some(head) = head.strip_suffix(['{', '[', ':']) else { return false };
        let line = head.rsplit('\n').next().unwrap_or_default().to_ascii_lowercase();
        ["jwt", "crypt", "secret", "signing"].iter().any(|word| line.contains(word))
    }

    /// `Context.SECURITY_CREDENTIALS, "x")`.
    pub(super) fn is_constant(&self) -> bool {
        let bytes = self.bytes();
        let at = blanks(bytes, self.end + 1);
        is_upper(self.name().rsplit('.').next().unwrap_or_default()) && quote_at(bytes, at).is_some()
    }

    /// The text typed into the field of that name: `.fill('x')`, `, 'x'`; `at` is after the name's quote.
    pub(super) fn field(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes();
        let rest = &bytes[at..bytes.len().min(at + 48)];
        if rest[0] != b')' {
            let (_, after) = quote_at(bytes, at)?;
            let selector = bytes[..at].ends_with(b"]");
            let next = bytes.get(after)?;
            return match next {
                b',' if selector => Some(after + 1),
                b')' if selector => self.field(after),
                _ => None,
            };
        }
        let open = rest.iter().position(|b| matches!(b, b'(' | b'\n'))?;
        let call = self.text.get(at + 1..at + open)?;
        let verbs =
            ["fill", "type", "send_keys", "sendKeys", "setValue", "typeText", "set", "pressSequentially", "sendText"];
        verbs.iter().any(|verb| call.strip_prefix('.') == Some(verb)).then_some(at + open + 1)
    }

    /// `func("x")`, `[]byte("x")`, `N'x'`: where the literal begins.
    pub(super) fn unwrapped(&self, at: usize) -> usize {
        let bytes = self.bytes();
        if bytes.get(at) == Some(&b'N') && bytes.get(at + 1) == Some(&b'\'') {
            return at + 1;
        }
        let path =
            bytes[at..].iter().take(48).take_while(|b| b.is_ascii_alphanumeric() || b"_:.[]&".contains(b)).count();
        let open = at + path;
        let wraps = path > 0 && bytes.get(open) == Some(&b'(') && quote_at(bytes, open + 1).is_some();
        let function = &bytes[at..open];
        let known =
            ["byte", "from", "new", "Some", "String", "bytes", "encode", "Literal", "SecretStr", "secureString"];
        if wraps && known.iter().any(|known| function.ends_with(known.as_bytes())) { open + 1 } else { at }
    }

    /// `"old" -> "new"`, as plans show a change.
    pub(super) fn changed(&self, at: usize, found: &mut Vec<Range<usize>>) {
        let bytes = self.bytes();
        let Some((_, after)) = quote_at(bytes, at) else { return };
        let next = blanks(bytes, after);
        if !bytes[next..].starts_with(b"-> ") {
            return;
        }
        let at = blanks(bytes, next + 3);
        let value = Value::at(self.text, at, self.window(at)).filter(|value| value.quote.is_some());
        if let Some(value) = value.filter(|value| is_secret(self.kind, value.text(self.text), true, Trust::Setting)) {
            found.push(self.whole(value));
        }
    }

    /// A value after more words: `password for bob: x`, `adminPassword string = 'x'`.
    pub(super) fn far(&self, gap: usize) -> Option<Link> {
        let bytes = self.bytes();
        let end = bytes.len().min(gap + 72);
        let rest = &bytes[gap..end];
        if !rest[0].is_ascii_alphabetic() && rest[0] != b'[' {
            return None;
        }
        let stop = rest
            .iter()
            .position(|b| matches!(b, b':' | b'=' | b'\n' | b'.' | b';' | b',' | b'(' | b'{' | b'"' | b'`'))?;
        if !matches!(rest[stop], b'=' | b':') {
            return None;
        }
        let words = self.text.get(gap..gap + stop)?;
        let last = words.trim_end().rsplit(' ').next()?;
        let about = || ABOUT.iter().any(|word| last.eq_ignore_ascii_case(word));
        let at = gap + stop + 1;
        match rest[stop] {
            b'=' if words.ends_with(' ') && !words.trim_end().contains(' ') && bytes.get(at) == Some(&b' ') => {
                Some(Link::Operator { at, tight: false, colon: false })
            }
            b':' if matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r')) && self.kind != Name::Key && !about() => {
                Some(Link::Argument(at + 1)).filter(|_| bytes[at] == b' ').or_else(|| self.below(at))
            }
            _ => None,
        }
    }

    /// A value after one or two empty lines.
    fn below(&self, at: usize) -> Option<Link> {
        let bytes = self.bytes();
        let mut line = at;
        for _ in 0..3 {
            line += bytes[line..].iter().take(2).take_while(|b| matches!(b, b'\n' | b'\r')).count();
            let start = blanks(bytes, line + line_lead(&self.text[line..self.window(line)]));
            if !matches!(bytes.get(start)?, b'\n' | b'\r') {
                return Some(Link::Below(start));
            }
            line = start;
        }
        None
    }

    /// A value alone on its line.
    pub(super) fn alone(&self, at: usize) -> Option<Range<usize>> {
        let run = self.run(at, self.window(at));
        let value = &self.text[run.clone()];
        (self.ends_line(run.end) && is_secret(self.kind, value, true, Trust::Code)).then_some(run)
    }

    /// `{ "value": "x" }`, `{ default = "x" }`.
    pub(super) fn block(&self, from: usize) -> Option<Range<usize>> {
        let limit = self.window(from);
        let mut at = from;
        for line in self.text[from..limit].split_inclusive(['\n', ',']) {
            let lead = line_lead(line);
            let body = line[lead..].trim_start();
            let start = at + (line.len() - body.len());
            at += line.len();
            if body.starts_with('}') {
                return None;
            }
            let body = body.trim_start_matches(['"', '\'', '\\']);
            let Some(word) = ["value", "Value", "default", "defaultValue"].iter().find(|word| body.starts_with(**word))
            else {
                continue;
            };
            let bytes = &self.bytes()[..limit];
            let mut after = start + (line[lead..].trim_start().len() - body.len()) + word.len();
            after = quote_at(bytes, after).map_or(after, |(_, after)| after);
            after = blanks(bytes, after);
            if !matches!(bytes.get(after), Some(b'=' | b':')) {
                continue;
            }
            after = blanks(bytes, after + 1);
            let value = Value::at(self.text, after, limit).filter(|value| value.quote.is_some())?;
            let text = value.text(self.text);
            let human = self.kind == Name::Password && is_human(text);
            return (human || is_secret(self.kind, text, true, Trust::Setting)).then(|| self.whole(value));
        }
        None
    }

    /// Whether the name is an option written as a list item: `- --password`.
    fn is_item(&self) -> bool {
        self.is_option() && self.head().replace(['"', '\''], "").ends_with("- --") || self.is_reply()
    }

    /// `1) "requirepass"`.
    fn is_reply(&self) -> bool {
        let head = self.head().trim_end_matches(['"', '\\']);
        head.ends_with(") ") && head[..head.len() - 2].ends_with(|c: char| c.is_ascii_digit())
    }

    /// The list item on the next line.
    fn next_item(&self, from: usize) -> Option<Range<usize>> {
        let bytes = self.bytes();
        let line = from + bytes[from..].iter().take(16).position(|b| *b == b'\n')? + 1;
        let limit = self.window(line);
        let raw = &self.text[line..limit];
        let lead = line_lead(raw);
        let body = raw[lead..].trim_start();
        let mark = if self.is_reply() { body.find(") ")? + 2 } else { 2 };
        if !self.is_reply() && !body.starts_with("- ") {
            return None;
        }
        let at = line + (raw.len() - body.len()) + mark;
        let mut value = Value::at(self.text, at, limit)?;
        if value.quote.is_none() {
            value.range = self.run(at, limit);
        }
        let text = value.text(self.text);
        (!text.starts_with('-') && is_secret(self.kind, text, value.quote.is_some(), Trust::Option))
            .then(|| self.whole(value))
    }

    /// The value of `name="NAME" value="x"`, `<name>NAME</name><value>x`, `- name: NAME` and on the next line `value: x`.
    pub(super) fn sibling(&self, from: usize) -> Option<Range<usize>> {
        let limit = self.window(from);
        let head = self.head();
        // A name may be a path: `"Name": "/prod/db/password"`.
        let before = head
            .rfind(['"', '\''])
            .map_or(head, |at| if head[at + 1..].contains([' ', ',']) { head } else { &head[..at] });
        let is_name = head.trim_end_matches(['"', '\'', '\\', ' ']).ends_with(['=', ':', '>'])
            || before.trim_end_matches(['"', '\'', '\\', ' ']).ends_with(['=', ':']);
        let bytes = &self.bytes()[..limit];
        if self.is_item() {
            return self.next_item(from);
        }
        if !is_name {
            return None;
        }
        let rest = &self.text[from..limit];
        let skip = rest.len()
            - rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '\\')).len();
        let skip = skip + line_lead(&rest[skip..]);
        let skip = skip + (rest[skip..].len() - rest[skip..].trim_start_matches([' ', '\t']).len());
        let rest = &rest[skip..];
        let at = from + skip;
        if let Some(rest) = rest.strip_prefix("</") {
            // The next element, whatever its name.
            let close = rest.find('>')?;
            let open = close + 1 + rest[close + 1..].find('<')?;
            let gap = rest[close + 1..open].trim().is_empty()
                || line_lead(rest[close + 1..open].trim_start_matches(['\n', '\r'])) > 0;
            let end = open + rest[open..].find('>')? + 1;
            let tag = &rest[open + 1..end - 1];
            let known = ["value", "string", "data", "val", "text", "td", "dd", "Value", "code"].contains(&tag);
            let named = ["key", "name", "Key", "Name", "td", "th", "dt", "code", "label", "strong", "b"]
                .iter()
                .any(|tag| rest[..close] == **tag);
            return if gap && known && named { self.element(at + 2 + end) } else { None };
        }
        let rest = rest.trim_start_matches(['"', '\'', '-']);
        let rest = skip_members(rest);
        let rest = rest.trim_start_matches("Parameter");
        let word = ["value", "Value", "VALUE", "content", "contents"].iter().find(|word| rest.starts_with(**word))?;
        let mut at = limit - rest.len() + word.len();
        at = quote_at(bytes, at).map_or(at, |(_, after)| after);
        at = blanks(bytes, at);
        if !matches!(bytes.get(at), Some(b'=' | b':')) {
            return None;
        }
        at = blanks(bytes, at + 1);
        let mut value = Value::at(self.text, at, limit)?;
        if value.quote.is_none() {
            value.range = self.run(at, limit);
        }
        let text = value.text(self.text);
        let human = self.kind == Name::Password && is_human(text);
        (human || is_secret(self.kind, text, value.quote.is_some(), Trust::Setting)).then(|| self.whole(value))
    }
}

/// What follows after up to two members: `"Type": "SecureString",`.
fn skip_members(rest: &str) -> &str {
    let mut rest = rest;
    for _ in 0..2 {
        let body = rest.trim_start_matches([' ', '\t', '"', '\'', '\n', '\r']);
        if ["value", "Value", "VALUE", "content", "Parameter"].iter().any(|word| body.starts_with(word)) {
            return body;
        }
        let key = body.bytes().take_while(|b| b.is_ascii_alphabetic()).count();
        let Some(end) = body.find(",").filter(|end| *end < 60 && key > 0 && !body[..*end].contains('\n')) else {
            return rest;
        };
        let next = body[end + 1..].trim_start_matches([' ', '\t', '\n', '\r']);
        rest = next[line_lead(next)..].trim_start_matches([' ', '\t', '"', '\'', '\\']);
    }
    rest
}
