//! Breaks a line between words where it is longer than the terminal is wide. What a user copies stays whole: a command, a path,
//! an address, anything between backticks.

use std::{borrow::Cow, ops::Range};

use unicode_width::UnicodeWidthStr;

/// In fewer columns than this, broken lines are harder to read than cut words.
const MIN_COLUMNS: usize = 20;

/// The longest label of a text, in bytes; two spaces after more than this are something else.
const MAX_LABEL: usize = 24;

/// Programs that messages name as commands. The words after one of them belong to the command as long as they look like arguments.
const PROGRAMS: &[&str] = &[
    "cc-langfusectl",
    "chmod",
    "chown",
    "git",
    "journalctl",
    "kill",
    "launchctl",
    "loginctl",
    "mlflow",
    "sudo",
    "systemctl",
];

/// What a mark before a text consists of: the text is indented by it.
const MARKS: &[&str] = &["✓ ", "✗ ", "! ", "→ ", "• ", "- "];

/// The characters that draw a tree.
const TREE: &[char] = &['│', '├', '└', '─'];

/// The parts of `text` that are a line each, and what each line but the first begins with. Spaces at a break belong to no part.
pub(super) fn lines(text: &str, columns: usize) -> (Vec<Range<usize>>, Cow<'static, str>) {
    if columns < MIN_COLUMNS || text.width() <= columns {
        return (std::iter::once(0..text.len()).collect(), Cow::Borrowed(""));
    }
    let indent = indent(text, columns);
    let mut lines = Vec::new();
    let (mut start, mut end, mut room) = (0, 0, columns);
    for unit in units(text) {
        if end > start && text[start..unit.end].width() > room {
            lines.push(start..end);
            (start, room) = (unit.start, columns - indent.width());
        }
        end = unit.end;
    }
    lines.push(start..end);
    (lines, indent)
}

/// What must not be broken, in order.
fn units(text: &str) -> Vec<Range<usize>> {
    let mut units: Vec<Range<usize>> = Vec::new();
    let (label, _) = label(text);
    let ticks = text.matches('`').count();
    let (mut seen, mut in_command, mut last) = (0, false, "");
    let mut words = words(text).peekable();
    while let Some(word) = words.next() {
        let range = offset(text, word);
        let is_quoted = seen % 2 == 1 && ticks.is_multiple_of(2);
        let bare = word.trim_start_matches(['(', '`', '"', '\'', '[']);
        let is_program = PROGRAMS.contains(&bare);
        in_command &= is_program || is_argument(word) || last.starts_with('-') || PROGRAMS.contains(&last);
        let has_text_after = words.peek().is_some_and(|next| next.starts_with(char::is_alphabetic));
        let is_joined = is_quoted
            || in_command
            || range.start <= label
            || [word, last].contains(&"=")
            || MARKS.iter().any(|mark| mark.trim_end() == last)
            || if is_number(word) { !has_text_after } else { is_number(last) && word.starts_with(char::is_alphabetic) };
        match units.last_mut() {
            // The indentation belongs to the first word.
            None => units.push(0..range.end),
            Some(unit) if is_joined => unit.end = range.end,
            Some(_) => units.push(range),
        }
        in_command = (in_command || is_program) && !word.ends_with([':', ';', ',', '.', ')', '`']);
        seen += word.matches('`').count();
        last = bare;
    }
    units
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

fn offset(text: &str, word: &str) -> Range<usize> {
    let start = word.as_ptr().addr() - text.as_ptr().addr();
    start..start + word.len()
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b','))
}

/// True if `word` looks like an argument of a command rather than a word of the sentence it stands in.
fn is_argument(word: &str) -> bool {
    let is_name = word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    word.starts_with(['-', '\'', '"', '/', '~', '$', '<'])
        || word.contains(['/', '='])
        || word.contains("cc-langfuse")
        || word.contains(|c: char| c.is_ascii_digit())
        || is_name
}

/// What the lines after the first begin with: spaces up to where the text of the first one begins, or the branches of a tree.
fn indent(text: &str, columns: usize) -> Cow<'static, str> {
    let tree: String = text.chars().take_while(|c| *c == ' ' || TREE.contains(c)).collect();
    if tree.contains(TREE) {
        let branches = tree.chars().map(|c| if matches!(c, '│' | '├') { '│' } else { ' ' });
        return Cow::Owned(branches.chain("  ".chars()).collect());
    }
    let (label, leading) = label(text);
    let mark = MARKS.iter().find(|mark| text[leading..].starts_with(**mark)).map_or(0, |mark| mark.width());
    let wide = text[..label].width().max(leading + mark);
    Cow::Owned(" ".repeat(if wide > columns / 2 { leading.min(columns / 4) + mark } else { wide }))
}

/// Where the text begins that stands in a column after a label, and where the label does; the same if there is none.
fn label(text: &str) -> (usize, usize) {
    let spaces = |at: usize| text[at..].len() - text[at..].trim_start_matches(' ').len();
    let leading = spaces(0);
    match text[leading..].find("  ") {
        Some(at) if at <= MAX_LABEL => (leading + at + spaces(leading + at), leading),
        _ => (leading, leading),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(text: &str, columns: usize) -> Vec<String> {
        let (lines, indent) = lines(text, columns);
        let first = lines.iter().take(1).map(|line| text[line.clone()].to_owned());
        first.chain(lines.iter().skip(1).map(|line| format!("{indent}{}", &text[line.clone()]))).collect()
    }

    #[test]
    fn words_stay_whole_and_the_text_keeps_its_column() {
        let text =
            "daemon        started, pid 42; there is no service manager here, so hooks start it when it does not run";
        assert_eq!(wrapped(text, 200), [text]);
        assert_eq!(
            wrapped(text, 80),
            [
                "daemon        started, pid 42; there is no service manager here, so hooks start",
                "              it when it does not run",
            ]
        );
        assert_eq!(
            wrapped(text, 60),
            [
                "daemon        started, pid 42; there is no service manager",
                "              here, so hooks start it when it does not run",
            ]
        );
    }

    #[test]
    fn commands_and_addresses_are_not_broken() {
        let text = "the daemon is not running, and never was: cc-langfusectl setup --user --public-key pk-lf-1, or \
             cc-langfusectl start if you set it up by hand";
        assert_eq!(
            wrapped(text, 60),
            [
                "the daemon is not running, and never was:",
                "cc-langfusectl setup --user --public-key pk-lf-1, or",
                "cc-langfusectl start if you set it up by hand",
            ]
        );
        assert_eq!(wrapped("hook          /a/path/that/has/no/space", 20), ["hook          /a/path/that/has/no/space"]);
        assert_eq!(
            wrapped("make  a file: start = \"hook\" and 12 events", 24),
            ["make  a file:", "      start = \"hook\" and", "      12 events"]
        );
        let address = format!("see https://langfuse.example/{} there", "x".repeat(80));
        assert_eq!(wrapped(&address, 60), ["see", address[4..].strip_suffix(" there").expect("it"), "there"]);
        let quoted = "run `a command of words that take quite some room` to fix it";
        assert_eq!(wrapped(quoted, 48), ["run", "`a command of words that take quite some room`", "to fix it"]);
        let remedy = "                      → systemctl --user enable --now cc-langfused; if that fails: journalctl --user -u cc-langfused";
        assert_eq!(
            wrapped(remedy, 80),
            [
                "                      → systemctl --user enable --now cc-langfused; if that",
                "                        fails: journalctl --user -u cc-langfused",
            ]
        );
    }

    #[test]
    fn branches_of_a_tree_go_on() {
        let text = "│   ├── a name of three words, and more of it";
        assert_eq!(wrapped(text, 30), ["│   ├── a name of three words,", "│   │     and more of it"]);
        assert_eq!(wrapped("└── one two three four five", 20), ["└── one two three", "      four five"]);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_unless_one_word_is() {
        for text in [
            "  ! pause             HOME/work is paused: what is said until you resume is never sent",
            "✓ Daemon: configuration, daemon, database-file, disk, events, socket, spool-directory, state-directory, unit",
            "日本語 の 文 は 広い です が 行 は 端末 より 広く なり ません 日本語 の 文 は 広い です が 行 は 端末 より 広く",
            "a `b c d e f g h i j k l m n o p q r s t u v w x y z without an end, so that it is no command",
        ] {
            for columns in [40, 60, 80, 200] {
                let lines = wrapped(text, columns);
                let is_one_word = |line: &str| !line.trim().contains(' ');
                assert!(lines.iter().all(|line| line.width() <= columns || is_one_word(line)), "{columns}: {lines:#?}");
                let same = |text: &str| words(text).collect::<Vec<_>>().join(" ");
                assert_eq!(same(&lines.join(" ")), same(text), "{columns}");
            }
        }
        assert_eq!(wrapped("too narrow to break anything", 10), ["too narrow to break anything"]);
    }
}
