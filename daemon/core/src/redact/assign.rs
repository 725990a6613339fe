//! Finds the value of a name that suggests a secret, in all the ways people write such a pair: `NAME=x`, `name: x`,
//! `"name": "x"`, `name => x`, `define('NAME', 'x')`, `setName("x")`, `<name>x</name>`, `| name | x |`, `--name x`,
//! `ENV NAME x`, and with the value on the next line.

use std::ops::Range;

use super::{
    name::{Name, is_namesake, is_upper, name_kind},
    value::{Trust, is_code, is_human, is_secret},
};

use self::{
    lines::is_line_start,
    quotes::{Value, blanks},
};
pub(super) use self::{
    lines::{line_lead, mark_lead},
    quotes::quote_at,
};

mod blank;
mod far;
mod lines;
mod many;
mod quotes;

/// How many bytes of a value are examined to decide whether it is a secret; keeps `token=token=token=…` linear.
const VALUE_WINDOW: usize = 256;

/// How many bytes of a line before a name are examined.
const LINE_WINDOW: usize = 160;

/// A name and the text around it.
#[derive(Clone)]
pub(super) struct Named<'t> {
    pub(super) text: &'t str,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Name,
}

/// What connects a name with its value.
pub(super) enum Link {
    /// An operator; the value begins at `at`.
    Operator { at: usize, tight: bool, colon: bool },
    /// `, ` and `(`: only a quoted value counts.
    Argument(usize),
    /// `<name>`, `<x name="…">`, `<key>…</key><string>`.
    Element(usize),
    /// The next cell of a table.
    Cell(usize),
    /// A blank: `--name x`, `ENV NAME x`.
    Blank(usize),
    /// The value is a separate attribute or member.
    Sibling(usize),
    /// The value is a member of the block under the name: `"name": { "value": "x" }`.
    Block(usize),
    /// The value is alone on a line after an empty one.
    Below(usize),
}

impl<'t> Named<'t> {
    /// Whether a name that ends here can be followed by a value. Most mentions of a name are no assignment.
    pub(super) fn may_follow(bytes: &[u8], end: usize) -> bool {
        matches!(
            bytes.get(end),
            Some(
                b'(' | b'>'
                    | b'<'
                    | b':'
                    | b'='
                    | b' '
                    | b'\t'
                    | b'"'
                    | b'\''
                    | b'`'
                    | b'\\'
                    | b'&'
                    | b']'
                    | b'%'
                    | b'|'
                    | b'*'
                    | b'?'
                    | b'\n'
                    | b'\r'
                    | b'}'
                    | b','
                    | b'+'
                    | b'['
            )
        )
    }

    /// Whether the name may be the heading of a column.
    pub(super) fn heads_column(&self) -> bool {
        let bytes = self.bytes();
        let at = blanks(bytes, self.end);
        let after = bytes.get(at).is_some_and(|b| matches!(b, b'|' | b'\n' | b'\r' | b',' | b'"'))
            || bytes.get(self.end) == Some(&b'\t');
        let before = bytes[..self.start].iter().rev().find(|b| **b != b' ');
        after && before.is_none_or(|b| matches!(b, b'|' | b'\n' | b',' | b'\t' | b'"'))
    }

    /// Whether the name may be the heading of a column that is separated by blanks only.
    pub(super) fn heads_wide_column(&self) -> bool {
        let bytes = self.bytes();
        let at = blanks(bytes, self.end);
        let after = at - self.end >= 2 || matches!(bytes.get(at), Some(b'\n' | b'\r'));
        after && bytes[..self.start].ends_with(b"  ")
    }

    fn name(&self) -> &'t str {
        &self.text[self.start..self.end]
    }

    fn bytes(&self) -> &'t [u8] {
        self.text.as_bytes()
    }

    /// The ranges of the values, including what may follow to the end of each.
    pub(super) fn values(&self, link: Option<Link>, found: &mut Vec<Range<usize>>) {
        let before = &self.bytes()[..self.start];
        if before.ends_with(b"::") || before.ends_with(b":") && self.head().contains("arn:") {
            return;
        }
        let Some(link) = link else { return };
        let one = match link {
            Link::Operator { at, tight, colon } => return self.assigned(at, tight, colon, found),
            Link::Argument(at) => self.argument(at),
            Link::Element(at) => self.element(at),
            Link::Cell(at) => self.cell(at),
            Link::Blank(at) => self.blank(at),
            Link::Sibling(at) => self.sibling(at),
            Link::Block(at) => self.block(at),
            Link::Below(at) => self.alone(at),
        };
        found.extend(one);
    }

    /// What connects the name with a value, if anything does.
    pub(super) fn link(&self) -> Option<Link> {
        let bytes = self.bytes();
        let end = self.end;
        // Most mentions of a name are no assignment.
        match bytes.get(end)? {
            b'(' => return self.is_setter().then_some(Link::Argument(end + 1)),
            b'>' if self.start > 0 && (bytes[self.start - 1] == b'<' || bytes[self.start - 1] == b':') => {
                return Some(Link::Element(end + 1));
            }
            b'<' if bytes[end..].starts_with(b"</") => return Some(Link::Sibling(end)),
            b' ' if self.start > 0 && bytes[self.start - 1] == b'<' => {
                let rest = &bytes[end..bytes.len().min(end + 120)];
                let close = rest.iter().position(|b| matches!(b, b'>' | b'\n' | b'<'))?;
                return (rest[close] == b'>' && rest[close - 1] != b'/').then_some(Link::Element(end + close + 1));
            }
            b',' if bytes[end..].starts_with(b",ParameterValue=") => {
                return Some(Link::Operator { at: end + ",ParameterValue=".len(), tight: true, colon: false });
            }
            b',' => return self.is_constant().then_some(Link::Argument(end + 1)),
            // `char password[] = "x"`.
            b'[' => {
                let close = end + 1 + bytes[end + 1..].iter().take(4).take_while(|b| b.is_ascii_digit()).count();
                let gap = blanks(bytes, close + 1);
                let array = bytes.get(close) == Some(&b']') && bytes.get(gap) == Some(&b'=');
                return array.then_some(Link::Operator { at: gap + 1, tight: false, colon: false });
            }
            b':' | b'=' | b' ' | b'\t' | b'"' | b'\'' | b'`' | b'\\' | b'&' | b']' | b'%' | b'|' | b'*' | b'?'
            | b'+' | b'\n' | b'\r' | b'}' => {}
            _ => return None,
        }
        let quote = quote_at(bytes, end);
        let mut at = quote.map_or(end, |(_, at)| at);
        // **Password**: x
        at += bytes[at..].iter().take(2).take_while(|b| **b == b'*').count();
        if matches!(bytes.get(at), Some(b']' | b'}')) && quote.is_some() {
            at += 1;
        }
        let gap = blanks(bytes, at);
        let rest = &bytes[gap..];
        let tight = gap == at && quote.is_none();
        let operator = |len: usize, colon| Some(Link::Operator { at: gap + len, tight, colon });
        match rest.first()? {
            b'=' if rest.starts_with(b"==") || rest.starts_with(b"=~") => None,
            b'=' if rest.starts_with(b"=>") => operator(2, false),
            b'=' => operator(1, false),
            b':' if rest.starts_with(b"::") => None,
            b':' if rest.starts_with(b":=") || rest.starts_with(b":-") => operator(2, false),
            b':' if quote.is_some() && bytes.get(blanks(bytes, gap + 1)) == Some(&b'{') => {
                Some(Link::Block(blanks(bytes, gap + 1) + 1))
            }
            b':' => operator(1 + rest[1..].iter().take(2).take_while(|b| **b == b'*').count(), true),
            b'|' if rest.starts_with(b"||=") => operator(3, false),
            b'|' if rest.starts_with(b"||") => None,
            b'?' if rest.starts_with(b"?=") => operator(2, false),
            b'+' if rest.starts_with(b"+=") => operator(2, false),
            b'%' if rest.starts_with(b"%3D") || rest.starts_with(b"%3d") || rest.starts_with(b"%3A") => {
                operator(3, false)
            }
            b',' if quote.is_some_and(|(quote, _)| quote.byte != b'`') => {
                let is_argument = self.is_argument() || self.is_option();
                Some(if is_argument { Link::Argument(gap + 1) } else { Link::Sibling(at) })
            }
            // `'input[name="password"]', 'x'`, `('#password').fill('x')`.
            b'\'' | b'"' | b')' if quote.is_some() && gap == at => self.field(gap).map(Link::Argument),
            b'{' if quote.is_some() => Some(Link::Block(gap + 1)),
            // `AWS Secret Access Key [None]: x`.
            b'[' if rest.starts_with(b"[None]: ") => operator(7, true),
            b'>' if quote.is_some() => Some(Link::Element(gap + 1)),
            b'|' => Some(Link::Cell(gap + 1)),
            b'\n' | b'\r' | b'\\' => Some(Link::Sibling(at)),
            _ if gap > at && quote.is_some() && rest.starts_with(b"value") => Some(Link::Sibling(at)),
            b'A' | b'a' if rest[1..].starts_with(b"s ") => {
                let equals = rest.iter().take(40).position(|b| matches!(b, b'=' | b'\n'))?;
                (rest[equals] == b'=').then_some(Link::Operator { at: gap + equals + 1, tight: false, colon: false })
            }
            b'i' if rest.starts_with(b"is ") || rest.starts_with(b"is: ") => {
                let len = if rest[2] == b':' { 4 } else { 3 };
                let word = rest[len..].iter().take(40).take_while(|b| !b.is_ascii_whitespace());
                let far = || self.far(gap).filter(|link| matches!(link, Link::Argument(_)));
                // `is generated for root: x`.
                let more = len == 3 && word.clone().all(u8::is_ascii_lowercase);
                more.then(far).flatten().or(Some(Link::Argument(gap + len)))
            }
            _ if gap > at && quote.is_none() && self.takes_blank(gap) => Some(Link::Blank(gap)),
            _ if gap > at && quote.is_none() => self.far(gap),
            _ if gap > at && self.is_set_by_command() => Some(Link::Blank(gap)),
            _ => None,
        }
    }

    /// Whether the name is a function that takes the secret: `setPassword(`, `.password(`, `with_token(`.
    fn is_setter(&self) -> bool {
        let name = self.name().as_bytes().rsplit(|b| *b == b'.').next().unwrap_or_default();
        let begins = |name: &[u8], word: &str| {
            let head = name.get(..word.len());
            head.is_some_and(|head| head[0] | 0x20 == word.as_bytes()[0] && head.eq_ignore_ascii_case(word.as_bytes()))
        };
        let verb = ["set", "with", "use", "add", "put"].iter().find(|verb| begins(name, verb));
        let name = &name[verb.map_or(0, |verb| verb.len())..];
        let name = &name[name.iter().take_while(|b| matches!(b, b'_' | b'-')).count()..];
        [
            "password",
            "passwd",
            "pwd",
            "pass",
            "psk",
            "token",
            "secret",
            "api",
            "access",
            "auth",
            "private",
            "client",
            "bearer",
            "db",
            "user",
            "credential",
            "master",
            "app",
        ]
        .iter()
        .any(|word| begins(name, word))
    }

    /// Whether the quoted name is the first of two arguments or members: `define('NAME', `, `{"NAME", `.
    fn is_argument(&self) -> bool {
        let before = &self.bytes()[..self.start];
        let before = before.strip_suffix(b"#").unwrap_or(before);
        let Some((b'"' | b'\'', before)) = before.split_last().map(|(last, rest)| (*last, rest)) else { return false };
        let before = before.trim_ascii_end();
        let before = before.strip_suffix(b"\\").unwrap_or(before);
        // Calls that names are written for: in `setenv(`, `("section", "name", "value")`, it is the third argument.
        matches!(before.last(), Some(b'(' | b'{' | b'[')) || before.ends_with(b"\",") || before.ends_with(b"',")
    }

    /// Whether only a bracket stands before the quoted name.
    fn is_first(&self) -> bool {
        let before = self.bytes()[..self.start].trim_ascii_end();
        before.split_last().is_some_and(|(_, before)| matches!(before.trim_ascii_end().last(), Some(b'(' | b'{')))
    }

    /// The text of the line before the name.
    fn head(&self) -> &'t str {
        let from = self.text.floor_char_boundary(self.start.saturating_sub(LINE_WINDOW));
        let head = &self.text[from..self.start];
        let newline = memchr::memrchr(b'\n', head.as_bytes()).map_or(0, |i| i + 1);
        &head[newline..]
    }

    /// The ends of lines inside quoted text count as well.
    fn is_line_start(&self) -> bool {
        is_line_start(self.head())
    }

    fn window(&self, at: usize) -> usize {
        self.text.floor_char_boundary(at.saturating_add(VALUE_WINDOW).min(self.text.len()))
    }

    fn assigned(&self, from: usize, tight: bool, colon: bool, found: &mut Vec<Range<usize>>) {
        let bytes = self.bytes();
        let mut at = blanks(bytes, from);
        let spaced = at > from;
        if let Some(after) = colon.then(|| self.typed(at)).flatten() {
            at = blanks(bytes, after);
        }
        at = self.unwrapped(at);
        match bytes.get(at) {
            None => return,
            Some(b'\n' | b'\r' | b'|' | b'>') => {
                if colon || !matches!(bytes[at], b'|' | b'>') {
                    self.next_lines(at, found);
                }
                return;
            }
            Some(b'\\') if bytes[at..].starts_with(b"\\\n") => return self.next_lines(at + 1, found),
            Some(b'[') => return self.list(at + 1, found),
            Some(b'(') if colon || spaced => return,
            _ => {}
        }
        let limit = self.window(at);
        let Some(value) = Value::at(self.text, at, limit) else { return };
        let upper = is_upper(self.name()) && tight && !spaced && !colon;
        let option = self.start > 1 && bytes[self.start - 1] == b'-' && self.is_option();
        let line = upper || option || self.is_line_start();
        let trust = match (upper, option, line) {
            (true, ..) => Trust::Variable,
            (_, true, _) => Trust::Option,
            (.., true) => Trust::Setting,
            _ => Trust::Code,
        };
        if value.quote.is_some() {
            let member = colon && self.is_member(&value);
            let constant = is_upper(self.name()) && !value.text(self.text).contains('{');
            let trust = if trust == Trust::Code && (member || constant) { Trust::Setting } else { trust };
            let text = value.text(self.text);
            let human = self.kind == Name::Password && is_human(text);
            let mut end = value.range.end;
            if human || is_secret(self.kind, text, true, trust) {
                let whole = self.whole(value);
                end = whole.end;
                found.push(whole);
            }
            self.changed(end, found);
            return;
        }
        if trust != Trust::Code && (!colon || spaced) {
            // Up to the next blank, whatever the characters are.
            let run = self.run(at, limit);
            let raw = &self.text[run.clone()];
            let ends_line = self.ends_line(run.end);
            let is_url_part = !line || raw.contains('&') && self.head().contains('?');
            if (ends_line || trust == Trust::Variable)
                && !is_url_part
                && !is_namesake(self.name(), raw)
                && is_secret(self.kind, raw, false, trust)
            {
                found.push(run.start..self.run(at, self.text.len()).end);
                return;
            }
        }
        self.fallback(value.range.end, found);
        // If more code follows, it is an expression.
        let next = bytes.get(value.range.end);
        if next.is_some_and(|b| b"([{<".contains(b)) || is_namesake(self.name(), value.text(self.text)) {
            return;
        }
        let given = tight && !spaced && !colon && self.kind == Name::Password;
        let text = value.text(self.text);
        if given && is_human(text) && next.is_none_or(|b| !matches!(b, b'.' | b')'))
            || is_secret(self.kind, text, false, Trust::Code)
        {
            found.push(self.whole(value));
        }
    }

    /// A default for a value that is not set: `process.env.SECRET || 'x'`.
    fn fallback(&self, from: usize, found: &mut Vec<Range<usize>>) {
        let bytes = self.bytes();
        let at = blanks(bytes, from);
        let operators = [&b"||"[..], b"??", b"or ", b"?:", b":-"];
        let Some(operator) = operators.iter().find(|operator| bytes[at..].starts_with(operator)) else { return };
        let at = blanks(bytes, at + operator.len());
        let value = Value::at(self.text, at, self.window(at)).filter(|value| value.quote.is_some());
        if let Some(value) = value.filter(|value| is_secret(self.kind, value.text(self.text), true, Trust::Code)) {
            found.push(self.whole(value));
        }
    }

    /// Up to the next blank, without the characters that close the surrounding text.
    fn run(&self, at: usize, limit: usize) -> Range<usize> {
        let bytes = &self.bytes()[..limit];
        let len =
            bytes[at..].iter().take_while(|b| !b.is_ascii_whitespace() && !matches!(b, b'"' | b'\'' | b'`')).count();
        let mut end = at + len;
        // An escaped end of the line.
        if let Some(escape) = self.text[at..end].find("\\n").or_else(|| self.text[at..end].find("\\r")) {
            end = at + escape;
        }
        while end > at && matches!(bytes[end - 1], b'\\' | b',' | b';' | b')' | b'$' | b'>') {
            end -= 1;
        }
        at..end
    }

    /// Whether only the end of the line, or a comment, follows.
    fn ends_line(&self, at: usize) -> bool {
        let bytes = self.bytes();
        let at = blanks(bytes, at);
        match bytes.get(at) {
            None | Some(b'\n' | b'\r' | b'#') => true,
            Some(b'$') => matches!(bytes.get(at + 1), None | Some(b'\n')),
            Some(b'\\') => matches!(bytes.get(at + 1), Some(b'n' | b'r' | b'\n' | b'"')),
            _ => false,
        }
    }

    /// Whether the quoted value belongs to a member or a setting: at most a comma follows it on its line.
    fn is_member(&self, value: &Value) -> bool {
        let bytes = self.bytes();
        let end = value.range.end;
        let quoted_name = self.start > 0 && matches!(bytes[self.start - 1], b'"' | b'\'');
        let after = quote_at(bytes, end).map_or(end, |(_, after)| after);
        quoted_name && matches!(bytes.get(after), None | Some(b',' | b'}' | b'\n' | b'\r' | b' '))
    }

    /// The whole value, of which only a window was examined.
    fn whole(&self, value: Value) -> Range<usize> {
        let Range { start, end } = value.range;
        if end - start < VALUE_WINDOW - 16 {
            return start..end;
        }
        match value.quote {
            Some(quote) => start..quote.end(self.bytes(), start),
            None => Value::at(self.text, start, self.text.len()).map_or(start..end, |whole| whole.range),
        }
    }

    /// Where the value begins if a type stands before it: `: &str = "x"`, `: string = "x"`.
    fn typed(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes();
        let mut end = at
            + bytes[at..]
                .iter()
                .take(64)
                .take_while(|b| b.is_ascii_alphanumeric() || b"_&<>'?. []".contains(b))
                .count();
        let kind = self.text.get(at..end)?;
        // A value that ends in `=` does not count.
        let named = !kind.is_empty()
            && (kind.ends_with(' ') || kind.len() <= 16 && kind.bytes().all(|b| b.is_ascii_alphabetic()));
        end = blanks(bytes, end);
        let assigns = bytes.get(end) == Some(&b'=') && !matches!(bytes.get(end + 1), Some(b'=' | b'>'));
        (named && assigns).then_some(end + 1)
    }

    fn argument(&self, from: usize) -> Option<Range<usize>> {
        let at = blanks(self.bytes(), from);
        let value = Value::at(self.text, at, self.window(at))?;
        let bytes = self.bytes();
        let prose = bytes[from - 1] == b' ';
        let option = bytes[from - 1] == b',' && self.is_option();
        if bytes[from - 1] == b',' && !option {
            // A list of names contains more of them.
            let close = value.range.end + value.quote.map_or(0, |quote| quote.depth + 1);
            let next = blanks(bytes, close.min(bytes.len()));
            let text = value.text(self.text);
            let closes = matches!(bytes.get(next), Some(b')' | b'}' | b']' | b'.'))
                || self.is_first()
                    && bytes.get(next) == Some(&b',')
                    && text.bytes().any(|b| b.is_ascii_digit())
                    && !text.contains('_');
            if !closes || is_code(text) || is_namesake(self.name(), text) {
                return None;
            }
        }
        if value.quote.is_none() && !prose {
            return None;
        }
        let mut value = value;
        if prose && value.quote.is_none() {
            let raw = self.run(at, self.window(at));
            value.range = raw.start..raw.start + self.text[raw.clone()].trim_end_matches(['.', '!', '?', ':']).len();
            // In prose, a single word is not enough.
            if !value.text(self.text).bytes().any(|b| b.is_ascii_digit()) {
                return None;
            }
        }
        let constant = is_upper(self.name().rsplit('.').next().unwrap_or_default()) && !prose;
        let trust = match (option, constant) {
            (true, _) => Trust::Option,
            (_, true) => Trust::Setting,
            _ => Trust::Code,
        };
        let text = value.text(self.text);
        let human = !prose && self.kind == Name::Password && is_human(text);
        (human || is_secret(self.kind, text, value.quote.is_some(), trust)).then(|| self.whole(value))
    }

    fn element(&self, at: usize) -> Option<Range<usize>> {
        let limit = self.window(at);
        let bytes = &self.bytes()[..limit];
        let cdata = if bytes[at..].starts_with(b"<![CDATA[") { 9 } else { 0 };
        let mut start = at + cdata + bytes[at + cdata..].iter().take_while(|b| b.is_ascii_whitespace()).count();
        if bytes[start..].starts_with(b"<Value>") || bytes[start..].starts_with(b"<value>") {
            start += "<Value>".len();
        } else if start > at {
            let lead = line_lead(&self.text[start..limit]);
            let inner = blanks(bytes, start + lead);
            if lead > 0 && bytes[inner..].starts_with(b"<Value>") {
                start = inner + "<Value>".len();
            }
        }
        let len = bytes[start..].iter().position(|b| matches!(b, b'<' | b']' | b'\n'))?;
        let end = start + self.text[start..start + len].trim_end().len();
        let value = &self.text[start..end];
        let close = bytes[end..].trim_ascii_start();
        if !(close.starts_with(b"</") || close.starts_with(b"]]>")) {
            return None;
        }
        (!is_namesake(self.name(), value) && is_secret(self.kind, value, true, Trust::Option)).then_some(start..end)
    }

    fn cell(&self, from: usize) -> Option<Range<usize>> {
        let at = blanks(self.bytes(), from);
        // Code has `a | b` and `a || b`.
        let head = self.head();
        let head = head[mark_lead(head)..].trim_end_matches([' ', '*', '`', '\t']);
        if !(head.ends_with('|') || head.is_empty()) {
            return None;
        }
        let limit = self.window(at);
        let bytes = &self.bytes()[..limit];
        let start = at + bytes[at..].iter().take(3).take_while(|b| matches!(b, b'`' | b'*')).count();
        let len = bytes[start..].iter().take_while(|b| !b.is_ascii_whitespace() && !matches!(b, b'|' | b'`')).count();
        let value = &self.text[start..start + len];
        let rest = blanks(bytes, start + len + usize::from(bytes.get(start + len) == Some(&b'`')));
        let closes = matches!(bytes.get(rest), None | Some(b'|' | b'\n' | b'\r' | b'*'));
        (closes && name_kind(value).is_none() && is_secret(self.kind, value, false, Trust::Option))
            .then_some(start..start + len)
    }
}

fn is_call(value: &str) -> bool {
    value.contains('(') || value.contains("::") || value.contains("->")
}
