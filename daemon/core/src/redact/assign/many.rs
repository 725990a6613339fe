//! Values on separate lines, in blocks and in lists.

use std::ops::Range;

use super::{
    Named, Trust, is_secret,
    lines::{indent_of, line_lead},
    quotes::{Value, quote_at},
};

impl Named<'_> {
    /// A block of YAML, a list, or a value on the next line.
    pub(super) fn next_lines(&self, from: usize, found: &mut Vec<Range<usize>>) {
        let bytes = self.bytes();
        let block = matches!(bytes.get(from), Some(b'|' | b'>'));
        let Some(mut at) = memchr::memchr(b'\n', &bytes[from..bytes.len().min(from + 24)]).map(|i| from + i + 1) else {
            return;
        };
        if block && !bytes[from + 1..at - 1].iter().all(|b| b"+-0123456789 \r$".contains(b)) {
            return;
        }
        let indent = indent_of(self.head());
        let mut missed = 0;
        for number in 0..32 {
            let end = memchr::memchr(b'\n', &bytes[at..self.window(at)]).map_or(self.window(at), |i| at + i);
            let raw = &self.text[at..end];
            let lead = line_lead(raw);
            let line = raw[lead..].trim_end_matches(['\r', '$', ' ']);
            let body = line.trim_start();
            let start = at + lead + (line.len() - body.len());
            let item = body.strip_prefix("- ");
            // A list, a block, or one line that is indented further.
            let deeper = indent_of(raw) > indent || indent == 0 && number == 0 && !block && item.is_none();
            if body.is_empty() || !(deeper || item.is_some()) || number > 0 && item.is_none() && !block {
                break;
            }
            let start = start + item.map_or(0, |item| body.len() - item.trim_start().len());
            let body = item.map_or(body, str::trim_start);
            let (value, quoted) = match quote_at(body.as_bytes(), 0) {
                Some((quote, open)) => (open..quote.end(body.as_bytes(), open), true),
                None => (0..body.find(" #").unwrap_or(body.len()), false),
            };
            let text = &body[value.clone()];
            let is_pair = !quoted && (text.ends_with(':') || text.contains(": "));
            if !is_pair
                && is_secret(
                    self.kind,
                    text,
                    true,
                    if quoted || block || item.is_some() { Trust::Setting } else { Trust::Code },
                )
            {
                found.push(start + value.start..start + value.end);
            } else {
                missed += 1;
                if !block && item.is_none() || missed > 3 {
                    break;
                }
            }
            at = end + 1;
            if at >= bytes.len() {
                break;
            }
        }
    }

    /// The strings of `["x", "y"]`.
    pub(super) fn list(&self, from: usize, found: &mut Vec<Range<usize>>) {
        let bytes = self.bytes();
        let mut at = from;
        let mut missed = 0;
        while missed < 4 {
            at += bytes[at..].iter().take(80).take_while(|b| b.is_ascii_whitespace() || **b == b',').count();
            let limit = self.window(at);
            let Some(value) = Value::at(self.text, at, limit) else { return };
            let quoted = value.quote.is_some();
            let next = value.range.end + value.quote.map_or(0, |quote| quote.depth + 1);
            // `passwords: [x, y]`.
            let bare = !quoted && matches!(bytes.get(next), Some(b',' | b']')) && self.is_line_start();
            let trust = if bare { Trust::Setting } else { Trust::Code };
            if (quoted || bare) && is_secret(self.kind, value.text(self.text), quoted, trust) {
                found.push(self.whole(value));
            } else {
                missed += 1;
            }
            if !(quoted || bare) || next >= limit {
                return;
            }
            at = next;
        }
    }
}
