//! The name of a command that the user typed.

/// The name of a command. For a shell line (`!…`) it is the first word that is not an assignment, without its directory; `None`
/// if only a shell knows. Arguments are conversation text and are never included.
pub(super) fn name(text: &str) -> Option<String> {
    let Some(line) = text.strip_prefix('!') else { return text.split_whitespace().next().map(str::to_owned) };
    let mut words = shell_words(line);
    let is_assignment = |word: &String| {
        let name = word.split('=').next().unwrap_or_default().trim_end_matches('+');
        word.contains('=') && !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let word = words.find(|word| !is_assignment(word))?;
    let name = word.rsplit('/').next().unwrap_or_default();
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+-[".contains(&b));
    plain.then(|| format!("!{name}"))
}

/// The leading words of a line, unquoted, up to one that needs a shell to understand.
fn shell_words(line: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = line.chars().peekable();
    std::iter::from_fn(move || {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let mut word = String::new();
        let mut quote = None;
        rest.peek()?;
        while let Some(c) = rest.next_if(|c| quote.is_some() || !c.is_whitespace()) {
            match (quote, c) {
                (Some(open), _) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (Some('\''), _) => word.push(c),
                (_, '\\') => word.push(rest.next()?),
                (_, '`') | (None, '(' | ')' | ';' | '&' | '|' | '<' | '>' | '{' | '}') => return None,
                (_, '$') if rest.peek() == Some(&'(') => return None,
                _ => word.push(c),
            }
        }
        // An open quote would continue on a line that is not there.
        quote.is_none().then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_command_name_of_a_shell_line_is_shown() {
        for (line, want) in [
            ("ls", Some("!ls")),
            ("ls -la secret", Some("!ls")),
            ("PGPASSWORD=hunter2 psql -h db", Some("!psql")),
            ("A=1 B+=2 /usr/bin/make all", Some("!make")),
            ("PGPASSWORD='hun ter2' psql", Some("!psql")),
            ("PGPASSWORD=\"hun ter2\" psql", Some("!psql")),
            ("PGPASSWORD=hun\\ ter2 psql", Some("!psql")),
            ("  TOKEN=x\tcurl a", Some("!curl")),
            ("/home/u/.hunter2/../bin/git status", Some("!git")),
            ("TOKEN=hunter2", None),
            ("TOKEN=$(cat hunter2 ) curl", None),
            ("TOKEN=`cat hunter2 ` curl", None),
            ("'TOKEN=hunter2' 'a b'", None),
            ("TOKEN='hunter2", None),
            ("$hunter2 x", None),
            ("(hunter2)", None),
            ("", None),
        ] {
            assert_eq!(name(&format!("!{line}")).as_deref(), want, "{line}");
        }
        assert_eq!(name("/plan hunter2").as_deref(), Some("/plan"));
    }
}
