//! What a line may start with that is not part of its text: numbers, the marks of a diff, paths, blanks.

/// The length of a line's number, diff mark, search path or container name.
pub(in super::super) fn line_lead(line: &str) -> usize {
    lead(line, true)
}

/// The length of a line's number and diff mark only.
pub(in super::super) fn mark_lead(line: &str) -> usize {
    lead(line, false)
}

fn lead(line: &str, sources: bool) -> usize {
    let mut at = 0;
    loop {
        let rest = &line[at..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let body = &rest[blank..];
        let digits = body.bytes().take(7).take_while(u8::is_ascii_digit).count();
        let after = &body[digits..];
        if digits > 0 && (after.starts_with('→') || after.starts_with(['\t', '|']) || after.starts_with(": ")) {
            at += blank + digits + after.chars().next().map_or(0, char::len_utf8);
            continue;
        }
        if blank == 0
            && (body.starts_with(['+', '>'])
                || body.starts_with('-')
                    && (!body.starts_with("- ") || body.starts_with("-  "))
                    && !body.starts_with("--"))
        {
            at += 1;
            continue;
        }
        if !sources {
            return at;
        }
        let path = body.bytes().take(100).take_while(|b| b.is_ascii_alphanumeric() || b"_./-".contains(b)).count();
        let sep = body.as_bytes().get(path).copied();
        if at == 0
            && path > 0
            && sep == Some(b':')
            && body[..path].contains(['.', '/'])
            && !body[path + 1..].starts_with([' ', '\t'])
        {
            let number = body[path + 1..].bytes().take_while(u8::is_ascii_digit).count();
            let number = if body.as_bytes().get(path + 1 + number) == Some(&b':') { number + 1 } else { 0 };
            at += blank + path + 1 + number;
            continue;
        }
        if at == 0 && path > 0 {
            let padded = body[path..].trim_start_matches(' ');
            if let Some(rest) = padded.strip_prefix("| ") {
                at = line.len() - rest.len();
                continue;
            }
        }
        return at;
    }
}

/// Whether the text before a name on its line is only such a start.
pub(super) fn is_line_start(head: &str) -> bool {
    let mut rest = &head[line_lead(head)..];
    let mut escapes = memchr::memrchr_iter(b'\\', rest.as_bytes());
    if let Some(at) = escapes.find(|at| rest.as_bytes().get(at + 1) == Some(&b'n')) {
        rest = &rest[at + 2..];
    }
    rest = rest.trim_start();
    while !rest.is_empty() {
        let before = rest.len();
        for lead in [
            "export ",
            "set ",
            "- ",
            "* ",
            "# ",
            "// ",
            "ENV ",
            "ARG ",
            "env ",
            "-e ",
            "--env ",
            "$env:",
            "$Env:",
            "declare -x ",
            "local ",
            "$ ",
            "\"",
            "'",
            "{",
            "`",
            "**",
            "//",
            "#",
            ";",
        ] {
            if rest.as_bytes().first() == lead.as_bytes().first() {
                rest = rest.strip_prefix(lead).unwrap_or(rest).trim_start();
            }
        }
        if rest.len() == before {
            break;
        }
    }
    // The path of a property.
    rest.is_empty()
        || rest.len() <= 80
            && rest.ends_with(['.', '/', ':'])
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:[]@".contains(&b))
}

/// The blanks a line starts with, after its number and the like; the dash of a list item counts as a blank.
pub(super) fn indent_of(line: &str) -> usize {
    let rest = &line[line_lead(line)..];
    rest.len() - rest.trim_start_matches([' ', '\t']).len()
}
