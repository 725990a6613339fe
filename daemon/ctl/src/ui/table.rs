//! What several commands print alike: tables, and how long ago something was.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use unicode_width::UnicodeWidthStr;

use cc_core::visible;
use cc_langfuse::output::{self, Look};

/// Lines of aligned columns; the first row is their heads. The last column is as long as it is.
pub(crate) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    // As wide as they are when they are seen.
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| visible::line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<Cow<'_, str>>| {
        let room = |cell: &str, width: usize| " ".repeat(width.saturating_sub(cell.width()));
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell}{}", room(cell, *width)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// The same with every column but the first against the right edge, as numbers stand.
pub(crate) fn right_aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|column| widest(column).unwrap_or(0)).collect();
    let cell = |(column, cell): (usize, &String)| match column {
        0 => cell.clone(),
        _ => format!("{}{cell}", " ".repeat(widths[column].saturating_sub(width(cell)))),
    };
    lines(&rows.iter().map(|row| row.iter().enumerate().map(cell).collect()).collect::<Vec<_>>())
}

/// How many columns of the terminal `text` takes.
pub(crate) fn width(text: &str) -> usize {
    visible::line(text).width()
}

/// Prints such a table.
pub(crate) fn print(rows: &[Vec<String>]) {
    for (index, line) in lines(rows).iter().enumerate() {
        let _ = output::painted(if index == 0 { Look::Bold } else { Look::Plain }, format_args!("{line}"));
    }
}

/// `text` in one line of at most `width` characters.
pub(crate) fn clip(text: &str, width: usize) -> String {
    visible::glance(text, width)
}

/// A path as people write it.
pub(crate) fn path(path: &Path, home: &Path) -> String {
    let short = path.strip_prefix(home).map(|below| PathBuf::from("~").join(below));
    clip(&short.as_deref().unwrap_or(path).to_string_lossy(), 400)
}

/// "12 s ago", for a time as the daemon tells it.
pub(crate) fn ago(at: Option<&str>, now: jiff::Timestamp) -> String {
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
    fn a_cell_is_as_wide_as_what_is_seen_of_it() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let found = lines(&[row(["A", "B"]), row(["\u{ad}", "x"]), row(["12345678", "y"])]);
        assert_eq!(found, ["A         B", "\\u{ad}    x", "12345678  y"]);
        let wide = lines(&[row(["日本", "x"]), row(["e\u{301}", "y"]), row(["🦀a", "z"])]);
        assert_eq!(wide, ["日本  x", "e\u{301}     y", "🦀a   z"]);
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
