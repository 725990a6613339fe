//! What several commands print alike: tables, and how long ago something was.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

/// Lines of aligned columns; the first row is their heads. The last column is as long as it is.
pub fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Prints such a table.
pub fn print(rows: &[Vec<String>]) {
    for (index, line) in lines(rows).iter().enumerate() {
        out!("{}", if index == 0 { bold(line) } else { line.clone() });
    }
}

/// True where colours are seen and wanted.
pub fn is_coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `text` in bold, where that is seen.
pub fn bold(text: &str) -> String {
    paint("1", text)
}

/// `text` as a code of terminals says, where that is seen.
pub fn paint(code: &str, text: &str) -> String {
    if is_coloured() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// `text` in one line of at most `width` characters, none of which moves the cursor.
pub fn clip(text: &str, width: usize) -> String {
    let plain: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(width + 1).collect();
    match plain.get(width) {
        Some(_) => plain[..width.saturating_sub(1)].iter().chain(['…'].iter()).collect(),
        None => plain.into_iter().collect(),
    }
}

/// A path as people write it.
pub fn path(path: &Path, home: &Path) -> String {
    let short = path.strip_prefix(home).map(|below| PathBuf::from("~").join(below));
    clip(&short.as_deref().unwrap_or(path).to_string_lossy(), 400)
}

/// "12 s ago", for a time as the daemon tells it.
pub fn ago(at: Option<&str>, now: jiff::Timestamp) -> String {
    let Some(at) = at.and_then(|at| at.parse::<jiff::Timestamp>().ok()) else { return "-".to_owned() };
    match now.as_second().saturating_sub(at.as_second()) {
        ..0 => "now".to_owned(),
        seconds @ 0..60 => format!("{seconds} s ago"),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..86400 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let found = lines(&[row(["A", "BB", "C"]), row(["größe", "", "x"]), row(["1", "2", ""])]);
        assert_eq!(found, ["A      BB  C", "größe      x", "1      2"]);
    }

    #[test]
    fn a_text_is_cut_with_a_mark_and_moves_no_cursor() {
        for (text, expect) in [("abcd", "abcd"), ("abcde", "abc…"), ("a\x1b[\n", "a [ "), ("", "")] {
            assert_eq!(clip(text, 4), expect);
        }
    }

    #[test]
    fn a_time_is_told_in_its_largest_unit() {
        let now: jiff::Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        for (at, expect) in [
            ("2026-11-20T11:59:59Z", "1 s ago"),
            ("2026-11-20T11:58:30Z", "1 min ago"),
            ("2026-11-20T01:00:00Z", "11 h ago"),
            ("2026-11-01T12:00:00Z", "19 d ago"),
            ("2026-11-20T13:00:00Z", "now"),
            ("nonsense", "-"),
        ] {
            assert_eq!(ago(Some(at), now), expect);
        }
        assert_eq!(ago(None, now), "-");
    }
}
