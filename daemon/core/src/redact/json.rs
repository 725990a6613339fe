//! Where in a JSON text a string is, and what it means there.

/// Which name a string is the value of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Owner {
    /// The member with this key, directly or as a list item; or the member that a sibling `name` names.
    Name(String),
    /// An entry in the data of a Kubernetes Secret.
    Kubernetes,
}

/// The reader's position in the JSON, as far as it determines what a string means.
#[derive(Default)]
pub(super) struct Place {
    /// The text is a Kubernetes Secret.
    kubernetes: bool,
    /// The last string, if it is a key.
    key: Option<String>,
    /// The key of the list that contains the last string.
    list: Option<String>,
    /// The value of the last member `name` in this object.
    named: Option<String>,
    /// Inside the data of a Secret.
    in_data: bool,
    /// The name whose value is being read.
    owner: Option<String>,
}

impl Place {
    /// The position before the whole text, which may be a Kubernetes Secret.
    pub(super) fn new(kubernetes: bool) -> Self {
        Self { kubernetes, ..Self::default() }
    }

    /// Reads the bytes between two strings. Returns whose value the next string is, if it is a value.
    pub(super) fn enter(&mut self, between: &[u8]) -> Option<Owner> {
        let mut signs = [0; 3];
        let mut count = 0;
        for b in between.iter().filter(|b| !b.is_ascii_whitespace()) {
            if matches!(b, b'{' | b'}') {
                self.named = None;
                self.in_data = false;
            }
            if count < signs.len() {
                signs[count] = *b;
            }
            count += 1;
        }
        let signs = &signs[..count.min(3)];
        let key = self.key.take();
        if signs == b":{" && self.kubernetes {
            self.in_data = matches!(key.as_deref(), Some("data" | "stringData"));
        }
        // A value directly follows its colon; after anything else in between, the key means nothing.
        self.owner = match signs {
            b":" => {
                self.list = None;
                key
            }
            b":[" => {
                self.list = key;
                self.list.clone()
            }
            b"," => self.list.clone(),
            _ => {
                self.list = None;
                None
            }
        };
        match self.owner.as_deref() {
            Some(_) if self.in_data && signs == b":" => Some(Owner::Kubernetes),
            Some("value" | "Value" | "VALUE" | "content" | "ParameterValue") if self.named.is_some() => {
                self.named.clone().map(Owner::Name)
            }
            _ => self.owner.clone().map(Owner::Name),
        }
    }

    /// Records a string that was read: a key, or the value of a member.
    pub(super) fn leave(&mut self, text: &str, is_key: bool) {
        const MAX_KEY_BYTES: usize = 100;
        let short = (text.len() <= MAX_KEY_BYTES).then_some(text);
        if is_key {
            self.list = None;
            self.key = short.map(str::to_owned);
        } else if matches!(
            self.owner.as_deref(),
            Some("name" | "Name" | "key" | "Key" | "NAME" | "variable" | "ParameterKey")
        ) {
            self.named = short.map(str::to_owned);
        }
    }
}

pub(super) fn is_kubernetes_secret(json: &str) -> bool {
    memchr::memmem::find_iter(json.as_bytes(), "\"Secret\"").any(|at| {
        let before = json[..at].trim_end();
        before.strip_suffix(':').is_some_and(|before| before.trim_end().ends_with("\"kind\""))
    })
}

/// The closing quote of a string that began before `at`.
pub(super) fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(next) = memchr::memchr2(b'"', b'\\', &json[at..]) {
        at += next;
        if json[at] == b'"' {
            return at;
        }
        at += 2;
    }
    json.len()
}

/// Decodes the inside of a valid JSON string. Unlike serde_json it accepts half of a surrogate pair, which JavaScript
/// writes when it cuts a string.
pub(super) fn decode(raw: &str, out: &mut String) {
    out.clear();
    let mut rest = raw;
    while let Some(escape) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..escape]);
        let kind = rest.as_bytes().get(escape + 1).copied().unwrap_or(b'\\');
        rest = rest.get(escape + 2..).unwrap_or("");
        out.push(match kind {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let unit = |text: &str| text.get(..4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
                let first = unit(rest).unwrap_or(0xfffd);
                rest = rest.get(4..).unwrap_or("");
                let second = rest.strip_prefix("\\u").and_then(unit);
                match char::decode_utf16([first].into_iter().chain(second)).next() {
                    Some(Ok(c)) => {
                        if c.len_utf16() == 2 {
                            rest = &rest[6..];
                        }
                        c
                    }
                    _ => char::REPLACEMENT_CHARACTER,
                }
            }
            plain => char::from(plain),
        });
    }
    out.push_str(rest);
}
