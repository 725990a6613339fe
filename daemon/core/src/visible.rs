//! Makes text from others safe to show: no character moves the cursor, changes the direction of writing
//! or is invisible.
//!
//! All text that is printed, logged or measured passes through here: see `output`, `log`, [`crate::metrics`]
//! and `service`.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// Ranges of characters that a terminal obeys or does not show, sorted: Unicode's categories Cc, Cf, Zl and Zp, and default
/// ignorable characters.
const HIDDEN: &[(char, char)] = &[
    ('\0', '\x1f'),
    ('\x7f', '\u{9f}'),
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Selects the emoji form of a character: harmless, and common.
const PICTURE: char = '\u{fe0f}';

/// True for a character that is not shown as itself.
pub fn is_hidden(c: char) -> bool {
    if (' '..='~').contains(&c) || c == PICTURE {
        return false;
    }
    let after = HIDDEN.partition_point(|(first, _)| *first <= c);
    after.checked_sub(1).and_then(|at| HIDDEN.get(at)).is_some_and(|(_, last)| c <= *last)
}

/// `text` on one line: a tab becomes a space, a line break `\n`, and every other hidden character its code, `\u{1b}`.
pub fn line(text: &str) -> Cow<'_, str> {
    replaced(text, |line, c| match c {
        '\t' => line.write_char(' '),
        '\n' => line.write_str("\\n"),
        '\r' => line.write_str("\\r"),
        _ => write!(line, "\\u{{{:x}}}", u32::from(c)),
    })
}

/// The same, clipped to `most` characters; the last is `…` if there were more. Reads no more of `text` than it shows.
pub fn clipped(text: &str, most: usize) -> String {
    clip(&line(start(text, most)), most, text)
}

/// Like [`clipped`], for tables: control characters become spaces.
pub fn glance(text: &str, most: usize) -> String {
    let short = start(text, most).replace(char::is_control, " ");
    clip(&line(&short), most, text)
}

/// `json` with hidden characters as JSON escapes, which leaves its data unchanged. Line breaks between members stay.
pub fn json(json: &str) -> Cow<'_, str> {
    replaced(json, |escaped, c| match c {
        '\n' => escaped.write_char(c),
        _ => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(escaped, "\\u{unit:04x}")),
    })
}

/// A prefix of `text` that has more than `most` characters if `text` has.
fn start(text: &str, most: usize) -> &str {
    text.char_indices().nth(most.saturating_add(1)).map_or(text, |(end, _)| &text[..end])
}

fn clip(shown: &str, most: usize, whole: &str) -> String {
    let is_cut = start(whole, most).len() < whole.len();
    match shown.char_indices().nth(most) {
        None if !is_cut => shown.to_owned(),
        _ => shown.chars().take(most.saturating_sub(1)).chain(std::iter::once('…')).collect(),
    }
}

fn replaced(text: &str, mut with: impl FnMut(&mut String, char) -> fmt::Result) -> Cow<'_, str> {
    let Some(mut at) = next_hidden(text, 0) else { return Cow::Borrowed(text) };
    let mut shown = String::with_capacity(text.len() + 64);
    let mut copied = 0;
    while let Some(c) = text[at..].chars().next() {
        shown.push_str(&text[copied..at]);
        // Writing to a string cannot fail.
        let _ = with(&mut shown, c);
        copied = at + c.len_utf8();
        at = next_hidden(text, copied).unwrap_or(text.len());
    }
    shown.push_str(&text[copied..]);
    Cow::Owned(shown)
}

/// The position of the first hidden character at or after `from`. Most text is printable ASCII, which is skipped in blocks.
fn next_hidden(text: &str, from: usize) -> Option<usize> {
    const BLOCK: usize = 32;
    let is_plain = |b: &u8| (b' '..=b'~').contains(b);
    let mut at = from;
    while let Some(rest) = text.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
        if rest.first_chunk::<BLOCK>().is_some_and(|block| block.iter().fold(true, |plain, b| plain & is_plain(b))) {
            at += BLOCK;
            continue;
        }
        at += rest.iter().position(|b| !is_plain(b))?;
        let c = text[at..].chars().next()?;
        if is_hidden(c) {
            return Some(at);
        }
        at += c.len_utf8();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_unicodes_control_format_and_ignorable_characters_are_hidden() {
        let hidden = regex::Regex::new(r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]").unwrap();
        for c in ('\0'..=char::MAX).filter(|c| *c != PICTURE) {
            assert_eq!(is_hidden(c), hidden.is_match(c.encode_utf8(&mut [0; 4])), "U+{:04X}", u32::from(c));
        }
    }

    #[test]
    fn hidden_characters_become_their_code_and_others_are_kept() {
        for (text, expect) in [
            ("", ""),
            ("größe \\n 日本 ❤️", "größe \\n 日本 ❤️"),
            ("a\x1b]0;x\x07b", "a\\u{1b}]0;x\\u{7}b"),
            ("\u{9b}2J\x7f", "\\u{9b}2J\\u{7f}"),
            ("pay\u{202e}drow\u{2066}", "pay\\u{202e}drow\\u{2066}"),
            ("a\tb\r\nc", "a b\\r\\nc"),
            ("\u{e0041}\u{2028}", "\\u{e0041}\\u{2028}"),
        ] {
            assert_eq!(line(text), expect);
        }
    }

    #[test]
    fn hidden_characters_are_found_at_every_position() {
        for at in 0..100 {
            for (c, shown) in [('\x1b', "\\u{1b}"), ('\u{202e}', "\\u{202e}"), ('ß', "ß")] {
                let (before, after) = ("a".repeat(at), "é".repeat(100 - at));
                let text = format!("{before}{c}{after}{c}");
                assert_eq!(line(&text), format!("{before}{shown}{after}{shown}"), "{at}");
            }
        }
    }

    #[test]
    fn escaped_json_has_the_same_data() {
        let value = serde_json::json!({"k\u{202e}\x1b": ["\u{9b}\x7f\u{e0041}", "a\n\"\\", "日本"]});
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = json(&text);
            assert!(!shown.replace('\n', "").contains(is_hidden), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[test]
    fn a_text_is_cut_with_a_mark() {
        for (text, at_a_glance, whole) in [
            ("abcd", "abcd", "abcd"),
            ("abcde", "abc…", "abc…"),
            ("a\nb", "a b", "a\\nb"),
            ("a\r\n\tb", "a  …", "a\\r…"),
            ("\x1b", " ", "\\u{…"),
            ("\u{202e}", "\\u{…", "\\u{…"),
            ("", "", ""),
        ] {
            assert_eq!((&*glance(text, 4), &*clipped(text, 4)), (at_a_glance, whole), "{text:?}");
        }
        let long = "\u{202e}".repeat(1 << 20);
        assert_eq!(clipped(&long, 100).chars().count(), 100);
        assert_eq!(clipped("x", usize::MAX), "x");
    }
}
