//! The `statusLine` of a settings file of Claude Code. There is only one, so one that is there belongs to the user. Comes in: text.
//! Goes out: text.

use serde_json::{Value, json};

use super::{
    edit::{self, Error, Node, Step},
    quoted, split_mark, words,
};

const KEY: Step<'_> = Step::Key("statusLine");

/// The program, and the argument with which it prints the line.
const PROGRAM: &str = "cc-langfusectl";
const ARGUMENT: &str = "statusline";

/// The shell command that prints the status line, and succeeds silently if the program at `path` is gone.
pub fn command(path: &str) -> String {
    let path = quoted(path);
    format!("[ -x {path} ] && exec {path} {ARGUMENT}; :")
}

/// Whose status line a settings file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// It has none.
    Nobodys,
    Ours,
    Theirs,
}

impl Whose {
    /// Reads a text; nobody's if it is not JSON.
    pub fn of(text: &str) -> Self {
        let text = split_mark(text).1;
        let Ok(root) = edit::parse(text) else { return Self::Nobodys };
        match root.get(KEY) {
            None => Self::Nobodys,
            Some(node) if is_ours(text, node) => Self::Ours,
            Some(_) => Self::Theirs,
        }
    }
}

fn is_ours(text: &str, node: &Node) -> bool {
    let value: Value = serde_json::from_str(&text[node.span.clone()]).unwrap_or_default();
    let words = words(value["command"].as_str().unwrap_or_default());
    words.windows(2).any(|pair| pair[0].rsplit('/').next() == Some(PROGRAM) && pair[1] == ARGUMENT)
}

/// Sets `command` where no status line is set, or where this program set it. The flag says whether it was set.
pub(super) fn add(text: &str, command: &str) -> Result<(String, bool), Error> {
    if Whose::of(text) == Whose::Theirs {
        return Ok((text.to_owned(), false));
    }
    Ok((edit::put(text, &[KEY], &json!({"type": "command", "command": command}))?, true))
}

/// Removes the one that this program set.
pub(super) fn remove(text: String) -> Result<String, Error> {
    if Whose::of(&text) == Whose::Ours { edit::cut(&text, &[KEY]) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_of_ours_is_replaced_or_removed() {
        let ours = command("/opt/it's here/cc-langfusectl");
        for (text, whose) in [
            ("{}", Whose::Nobodys),
            ("{\n  \"model\": \"opus\"\n}\n", Whose::Nobodys),
            ("", Whose::Nobodys),
            ("{\"statusLine\": {\"type\": \"command\", \"command\": \"~/line.sh\"}}", Whose::Theirs),
            ("{\"statusLine\": {\"type\": \"command\", \"command\": \"cc-langfusectl status\"}}", Whose::Theirs),
            ("{\"statusLine\": null}", Whose::Theirs),
            (
                "{\"statusLine\": {\"type\": \"command\", \"command\": \"X=1 /a/cc-langfusectl statusline\"}}",
                Whose::Ours,
            ),
        ] {
            assert_eq!(Whose::of(text), whose, "{text}");
            if text.is_empty() {
                continue;
            }
            let (with, is_set) = add(text, &ours).unwrap();
            assert_eq!(is_set, whose != Whose::Theirs, "{text}");
            assert_eq!(Whose::of(&with) == Whose::Ours, is_set, "{with}");
            let without = remove(with).unwrap();
            match whose {
                Whose::Ours => assert_eq!(without, "{}"),
                _ => assert_eq!(without, text),
            }
        }
    }
}
