//! Output that several commands share: tables, and how long ago something was.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use unicode_width::UnicodeWidthStr;

use super::terminal;
use cc_core::visible;
use cc_langfuse::output::{self, Look};

/// Lines of aligned columns; the first row has the headings. The last column has any length.
pub(crate) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    // Widths are measured in the form that is shown.
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

/// The same with every column but the first aligned to the right, for numbers.
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

/// The width of `text` in columns of the terminal.
pub(crate) fn width(text: &str) -> usize {
    visible::line(text).width()
}

/// How a column shrinks if a line would be wider than the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Not at all.
    Whole,
    /// An id: a prefix of it suffices.
    Id,
    /// It is cut at its end.
    End,
    /// It is cut at its beginning, like a path.
    Start,
    /// It is left out first.
    Spare,
}

/// How many characters of an id are unique among a few thousand.
const ID: usize = 8;

/// The minimum width of a column that is cut.
const LEAST: usize = 8;

/// `rows` in at most `width` columns of the terminal, as far as `fits` allows.
pub(crate) fn fitted(mut rows: Vec<Vec<String>>, fits: &[Fit], width: usize) -> Vec<Vec<String>> {
    let mut fits = fits.to_vec();
    let widths = |rows: &[Vec<String>]| -> Vec<usize> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| visible::line(cell).width());
        (0..columns).map(|column| rows.iter().map(|row| cell(row, column)).max().unwrap_or(0)).collect()
    };
    let excess =
        |widths: &[usize]| (widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)).saturating_sub(width);
    while excess(&widths(&rows)) > 0
        && let Some(spare) = fits.iter().rposition(|fit| *fit == Fit::Spare)
    {
        fits.remove(spare);
        rows.iter_mut().filter(|row| row.len() > spare).for_each(|row| drop(row.remove(spare)));
    }
    if excess(&widths(&rows)) > 0 {
        for (column, _) in fits.iter().enumerate().filter(|(_, fit)| **fit == Fit::Id) {
            rows.iter_mut().filter_map(|row| row.get_mut(column)).for_each(|id| *id = id.chars().take(ID).collect());
        }
    }
    loop {
        let widths = widths(&rows);
        let excess = excess(&widths);
        let elastic =
            |column: &usize| matches!(fits.get(*column), Some(Fit::End | Fit::Start)) && widths[*column] > LEAST;
        let Some(widest) = (0..widths.len()).filter(elastic).max_by_key(|column| widths[*column]) else { return rows };
        if excess == 0 {
            return rows;
        }
        // No further than to the next one, so that columns shrink evenly.
        let next =
            (0..widths.len()).filter(elastic).filter(|column| *column != widest).map(|column| widths[column]).max();
        let least = next.filter(|next| *next < widths[widest]).unwrap_or(widths[widest] - 1);
        let room = widths[widest].saturating_sub(excess).max(least).max(LEAST);
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(widest)) {
            *cell = if fits[widest] == Fit::Start { clip_start(cell, room) } else { clip_columns(cell, room) };
        }
    }
}

/// `text` cut at its end to `width` columns.
fn clip_columns(text: &str, width: usize) -> String {
    let shown = visible::line(text);
    if shown.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in shown.chars() {
        if kept.width() + c.to_string().width() + 1 > width {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

/// `text` cut at its beginning to `width` columns.
fn clip_start(text: &str, width: usize) -> String {
    let shown = visible::line(text);
    if shown.width() <= width {
        return text.to_owned();
    }
    let mut kept: Vec<char> = Vec::new();
    for c in shown.chars().rev() {
        if kept.iter().collect::<String>().width() + c.to_string().width() + 1 > width {
            break;
        }
        kept.push(c);
    }
    std::iter::once('…').chain(kept.into_iter().rev()).collect()
}

/// Prints such a table, in the width of the terminal if there is one.
pub(crate) fn print(rows: Vec<Vec<String>>, fits: &[Fit]) {
    let rows = match terminal::width() {
        Some(width) => fitted(rows, fits, width),
        None => rows,
    };
    for (index, line) in lines(&rows).iter().enumerate() {
        let _ = output::painted(if index == 0 { Look::Bold } else { Look::Plain }, format_args!("{line}"));
    }
}

/// `text` on one line of at most `width` characters.
pub(crate) fn clip(text: &str, width: usize) -> String {
    visible::glance(text, width)
}

/// A path with `~` for the home.
pub(crate) fn path(path: &Path, home: &Path) -> String {
    let short = path.strip_prefix(home).map(|below| PathBuf::from("~").join(below));
    clip(&short.as_deref().unwrap_or(path).to_string_lossy(), 400)
}

/// "12 s ago", for a time in the daemon's form.
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
    fn a_table_fits_the_terminal() {
        let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
        let rows = vec![
            row(["SESSION", "TURNS", "PROJECT", "TITLE", "TRANSCRIPT"]),
            row([
                "01628e54-f2e1-4452-8e4e-eede11a0a73e",
                "3, open",
                "~/code/a/very/deep/project",
                "Fix the parser, 日本語",
                "~/x.jsonl",
            ]),
        ];
        let fits = [Fit::Id, Fit::Whole, Fit::Start, Fit::End, Fit::Spare];
        for width in [200, 80, 60, 50, 40] {
            let lines = lines(&fitted(rows.clone(), &fits, width));
            assert!(lines.iter().all(|line| line.width() <= width), "{width}: {lines:#?}");
            assert!(lines[1].starts_with("01628e54") && lines[1].contains("3, open"), "{width}: {lines:#?}");
            assert_eq!(lines[1].contains("x.jsonl"), width == 200, "{width}: {lines:#?}");
        }
        let narrow = lines(&fitted(rows.clone(), &fits, 50));
        assert!(narrow[1].contains("…") && narrow[1].contains("project  "), "{narrow:#?}");
        assert_eq!(fitted(rows.clone(), &fits, 10)[1][2], "…project", "no less than that");
        assert_eq!(fitted(rows.clone(), &fits, 1000), rows);
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
