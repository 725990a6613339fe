//! Edits of a JSON text that belongs to the user: every byte that is not edited stays as it is.
//!
//! Additions adopt the text's indentation, line ends and layout. They go to the end, so that removing them later removes
//! exactly their own bytes.

use std::ops::Range;

use serde_json::Value;

/// The position of a value in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Range<usize>,
    pub children: Children,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Children {
    /// In textual order.
    Members(Vec<Member>),
    Elements(Vec<Node>),
    /// Neither an object nor an array.
    None,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub key: String,
    /// Where its name begins.
    pub start: usize,
    pub value: Node,
}

/// One step of a path into a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The member with this name; the last if there are several, because that one counts.
    Key(&'a str),
    /// The element with this index.
    At(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line}, column {column}: {what}")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong there, and what to do.
        what: String,
    },
    /// Something is not an object or array although it must be.
    #[error("`{path}` is not {wanted}")]
    Kind {
        /// Names joined by dots; empty for the whole text.
        path: String,
        /// "an object" or "an array".
        wanted: &'static str,
    },
    /// There is nothing at this path.
    #[error("`{0}` is not there")]
    Missing(String),
}

impl Node {
    pub fn get(&self, step: Step<'_>) -> Option<&Node> {
        match (&self.children, step) {
            (Children::Members(members), Step::Key(key)) => {
                members.iter().rev().find(|member| member.key == key).map(|member| &member.value)
            }
            (Children::Elements(elements), Step::At(at)) => elements.get(at),
            _ => None,
        }
    }

    /// The value at the end of `path`.
    pub fn find(&self, path: &[Step<'_>]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| node.get(*step))
    }

    /// Empty if this is not an array.
    pub fn elements(&self) -> &[Node] {
        match &self.children {
            Children::Elements(elements) => elements,
            _ => &[],
        }
    }

    /// Empty if this is not an object.
    pub fn members(&self) -> &[Member] {
        match &self.children {
            Children::Members(members) => members,
            _ => &[],
        }
    }

    /// True for an empty object or array.
    pub fn is_empty(&self) -> bool {
        !matches!(self.children, Children::None) && self.spans().is_empty()
    }

    /// The span of each member, including its name, or of each element.
    fn spans(&self) -> Vec<Range<usize>> {
        match &self.children {
            Children::Members(members) => members.iter().map(|member| member.start..member.value.span.end).collect(),
            Children::Elements(elements) => elements.iter().map(|element| element.span.clone()).collect(),
            Children::None => Vec::new(),
        }
    }
}

/// Parses the positions of all values.
///
/// # Errors
/// [`Error::NotJson`].
pub fn parse(text: &str) -> Result<Node, Error> {
    // Reports errors with their position, and bounds the nesting depth.
    serde_json::from_str::<Value>(text).map_err(|error| not_json(text, &error))?;
    let mut scan = Scan { text, at: 0 };
    Ok(scan.value())
}

fn not_json(text: &str, error: &serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    let here = text.split('\n').nth(line.saturating_sub(1)).unwrap_or_default();
    let what = if here.trim_start().starts_with(['/', '#']) || here.contains("//") || here.contains("/*") {
        "comments are not JSON, and Claude Code does not read such a file either: remove them".to_owned()
    } else if error.to_string().starts_with("trailing comma") {
        "a comma with nothing after it is not JSON: remove it".to_owned()
    } else {
        let said = error.to_string();
        said.split(" at line ").next().unwrap_or_default().to_owned()
    };
    Error::NotJson { line, column, what }
}

/// Sets the value at the end of `path`, creating missing objects on the way. Only members can be added.
///
/// # Errors
/// If `text` is not JSON, or a step leads into a value of another type.
pub fn put(text: &str, path: &[Step<'_>], value: &Value) -> Result<String, Error> {
    let root = parse(text)?;
    let mut node = &root;
    for (depth, step) in path.iter().enumerate() {
        if let Some(next) = node.get(*step) {
            node = next;
            continue;
        }
        let Step::Key(key) = step else { return Err(Error::Missing(name(path))) };
        if !matches!(node.children, Children::Members(_)) {
            return Err(Error::Kind { path: name(&path[..depth]), wanted: "an object" });
        }
        let nested = path[depth + 1..].iter().rev().fold(value.clone(), |value, step| match step {
            Step::Key(key) => serde_json::json!({ *key: value }),
            Step::At(_) => serde_json::json!([value]),
        });
        return Ok(add(text, &root, node, Some(key), &nested));
    }
    let style = Style::of(text, &root);
    // Stays on several lines if the old value was.
    let indent = style.multi.then(|| line_indent(text, node.span.start));
    Ok(replace(text, &node.span, &style.render(value, indent)))
}

/// Appends an element to the array at `path`, which is created if it is missing.
///
/// # Errors
/// If `text` is not JSON, or the value at `path` is not an array.
pub fn push(text: &str, path: &[Step<'_>], value: &Value) -> Result<String, Error> {
    let root = parse(text)?;
    match root.find(path) {
        None => put(text, path, &Value::Array(vec![value.clone()])),
        Some(node) if matches!(node.children, Children::Elements(_)) => Ok(add(text, &root, node, None, value)),
        Some(_) => Err(Error::Kind { path: name(path), wanted: "an array" }),
    }
}

/// Removes the value at the end of `path`, with its comma.
///
/// # Errors
/// If `text` is not JSON, or there is nothing at `path`.
pub fn cut(text: &str, path: &[Step<'_>]) -> Result<String, Error> {
    let root = parse(text)?;
    let missing = || Error::Missing(name(path));
    let (last, way) = path.split_last().ok_or_else(missing)?;
    let parent = root.find(way).ok_or_else(missing)?;
    let found = parent.get(*last).ok_or_else(missing)?;
    let spans = parent.spans();
    let at = spans.iter().position(|span| span.end == found.span.end).ok_or_else(missing)?;
    let range = match (at, spans.len()) {
        (0, 1) => parent.span.start + 1..parent.span.end - 1,
        (0, _) => spans[0].start..spans[1].start,
        _ => spans[at - 1].end..spans[at].end,
    };
    Ok(replace(text, &range, ""))
}

pub fn replace(text: &str, span: &Range<usize>, new: &str) -> String {
    [&text[..span.start], new, &text[span.end..]].concat()
}

fn add(text: &str, root: &Node, to: &Node, key: Option<&str>, value: &Value) -> String {
    let style = Style::of(text, root);
    let entry = |indent| style.entry(key, value, indent);
    let Some(last) = to.spans().pop() else {
        let inside = to.span.start + 1..to.span.end - 1;
        let indent = line_indent(text, to.span.start);
        let new = if style.multi {
            let deeper = format!("{indent}{}", style.unit);
            format!("{nl}{deeper}{}{nl}{indent}", entry(Some(&deeper)), nl = style.newline)
        } else {
            entry(None)
        };
        return replace(text, &inside, &new);
    };
    let before = text[..last.start].trim_end_matches([' ', '\t', '\r', '\n']).len();
    let space = &text[before..last.start];
    let new = match space.rsplit_once('\n') {
        Some((_, indent)) => format!(",{}{indent}{}", style.newline, entry(Some(indent))),
        None => format!(",{}{}", if style.spaced { " " } else { "" }, entry(None)),
    };
    replace(text, &(last.end..last.end), &new)
}

/// The layout of a text.
struct Style<'t> {
    newline: &'static str,
    unit: &'t str,
    multi: bool,
    spaced: bool,
}

impl<'t> Style<'t> {
    fn of(text: &'t str, root: &Node) -> Self {
        let first = root.spans().into_iter().next();
        let unit = first.as_ref().and_then(|first| {
            let lead = &text[root.span.start + 1..first.start];
            lead.rsplit_once('\n').map(|(_, indent)| indent)
        });
        let colon = root.members().first().map(|first| &text[first.start..first.value.span.start]);
        Self {
            newline: if text.contains("\r\n") { "\r\n" } else { "\n" },
            unit: unit.unwrap_or("  "),
            multi: first.is_none() || text[root.span.clone()].contains('\n'),
            spaced: colon.is_none_or(|colon| !colon.ends_with(':')),
        }
    }

    fn entry(&self, key: Option<&str>, value: &Value, indent: Option<&str>) -> String {
        let value = self.render(value, indent);
        let Some(key) = key else { return value };
        format!("{}:{}{value}", Value::from(key), if self.spaced { " " } else { "" })
    }

    /// On several lines that begin with `indent`, or on one.
    fn render(&self, value: &Value, indent: Option<&str>) -> String {
        let deeper = indent.map(|indent| format!("{indent}{}", self.unit));
        let (open, entries, close) = match value {
            Value::Object(members) => {
                let entry = |(key, value): (&String, &Value)| self.entry(Some(key), value, deeper.as_deref());
                ('{', members.iter().map(entry).collect::<Vec<_>>(), '}')
            }
            Value::Array(elements) => {
                ('[', elements.iter().map(|value| self.render(value, deeper.as_deref())).collect(), ']')
            }
            scalar => return scalar.to_string(),
        };
        match (indent, &deeper) {
            (Some(indent), Some(deeper)) if !entries.is_empty() => {
                let nl = self.newline;
                format!("{open}{nl}{deeper}{}{nl}{indent}{close}", entries.join(&format!(",{nl}{deeper}")))
            }
            _ => format!("{open}{}{close}", entries.join(if self.spaced { ", " } else { "," })),
        }
    }
}

/// The white space at the start of the line of `at`.
fn line_indent(text: &str, at: usize) -> &str {
    let line = &text[text[..at].rfind('\n').map_or(0, |newline| newline + 1)..at];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

fn name(path: &[Step<'_>]) -> String {
    let names = path.iter().map(|step| match step {
        Step::Key(key) => (*key).to_owned(),
        Step::At(at) => at.to_string(),
    });
    names.collect::<Vec<_>>().join(".")
}

/// Walks over a text that is known to be JSON.
struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl Scan<'_> {
    fn peek(&mut self) -> u8 {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    /// Skips `byte` if it comes next.
    fn pass(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == byte;
        self.at += usize::from(is_next);
        is_next
    }

    fn string(&mut self) -> String {
        self.peek();
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        serde_json::from_str(&self.text[start..self.at]).unwrap_or_default()
    }

    fn value(&mut self) -> Node {
        let first = self.peek();
        let start = self.at;
        let children = match first {
            b'{' => {
                self.at += 1;
                let mut members = Vec::new();
                while !self.pass(b'}') && self.at < self.text.len() {
                    self.pass(b',');
                    self.peek();
                    let (start, key) = (self.at, self.string());
                    self.pass(b':');
                    members.push(Member { key, start, value: self.value() });
                }
                Children::Members(members)
            }
            b'[' => {
                self.at += 1;
                let mut elements = Vec::new();
                while !self.pass(b']') && self.at < self.text.len() {
                    self.pass(b',');
                    elements.push(self.value());
                }
                Children::Elements(elements)
            }
            b'"' => {
                self.string();
                Children::None
            }
            _ => {
                let rest = &self.text[self.at..];
                self.at += rest.find([',', '}', ']', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
                Children::None
            }
        };
        Node { span: start..self.at, children }
    }
}

#[cfg(test)]
mod tests;
