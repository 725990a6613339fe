//! Parts that the pages share: the frame, numbers, times, and text from transcripts.

use std::fmt::Write;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::query::Query;
use crate::ui::amount::dollars;
use cc_core::{reconcile::Tokens, transcript::record::Nanos, visible};

/// The token buckets, each with its description.
pub(super) const BUCKETS: [(&str, &str); 5] = [
    ("input", "Input that neither came from the cache nor went to it"),
    ("output", "What the model wrote, thinking included"),
    ("cache read", "Input that came from the cache"),
    ("write 5m", "Written to the cache for five minutes"),
    ("write 1h", "Written to the cache for an hour"),
];

/// The pages in the menu, with their addresses after the secret.
const MENU: [(&str, &str); 4] = [("Sessions", ""), ("Usage", "usage"), ("Forks", "forks"), ("Search", "search")];

/// A complete page. `up` is the relative path to the first page, such as `../`.
pub(super) fn page(title: &str, up: &str, here: &str, version: u64, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (clean(title)) " · cc-langfuse" }
                link rel="stylesheet" href={ (up) "style.css" };
                link rel="icon" href="data:,";
                script type="module" src={ (up) "page.js" } data-version=(version) data-up=(up) {}
            }
            body {
                a .skip href="#main" { "Skip to the content" }
                header {
                    nav aria-label="Pages" {
                        @for (name, path) in MENU {
                            a href={ @if path.is_empty() && up.is_empty() { "./" } @else { (up) (path) } }
                                aria-current=[(here == name).then_some("page")] { (name) }
                        }
                    }
                    form .find action={ (up) "search" } role="search" {
                        label for="find" { "Search" }
                        input #find type="search" name="q" autocomplete="off" placeholder="Search";
                    }
                    button #keys type="button" aria-haspopup="dialog" title="Keys (?)" { "?" }
                }
                main #main tabindex="-1" { (main) }
                dialog #help aria-labelledby="help-title" {
                    h2 #help-title { "Keys" }
                    dl {
                        dt { kbd { "/" } } dd { "search" }
                        dt { kbd { "j" } " " kbd { "k" } } dd { "next, previous row" }
                        dt { kbd { "Enter" } } dd { "open the row" }
                        dt { kbd { "u" } } dd { "up" }
                        dt { kbd { "?" } } dd { "this help" }
                    }
                    form method="dialog" { button { "Close" } }
                }
            }
        }
    }
}

/// The page for an unknown address.
pub(super) fn missing() -> Markup {
    bare("Not found", "There is no such page here. A session whose transcript was removed is not there any more.")
}

/// The page for an error.
pub(super) fn failed(why: &str) -> Markup {
    bare("That did not work", why)
}

fn bare(title: &str, text: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { (title) } }
            body { main { h1 { (title) } p { (clean(text)) } } }
        }
    }
}

/// `text` with hidden characters made visible; line breaks and tabs are kept.
pub(super) fn clean(text: &str) -> String {
    if !text.contains(|c: char| visible::is_hidden(c)) {
        return text.to_owned();
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => clean.push(c),
            '\r' => {}
            c if visible::is_hidden(c) => drop(write!(clean, "\\u{{{:x}}}", u32::from(c))),
            c => clean.push(c),
        }
    }
    clean
}

/// A count with thousands separators: "1,234,567".
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A cost, or that it is unknown.
pub(super) fn cost(cost: Option<f64>) -> Markup {
    match cost {
        Some(cost) => html! { (dollars(cost)) },
        None => html! { span title="No price is known for this model" { "–" } },
    }
}

/// Cells of a table row: the five buckets and the cost.
pub(super) fn figures(tokens: Tokens, money: Option<f64>) -> Markup {
    html! {
        @for count in tokens.counts() { td .n { (number(count)) } }
        td .n { (cost(money)) }
    }
}

/// The headings of these cells.
pub(super) fn figure_heads() -> Markup {
    html! {
        @for (name, what) in BUCKETS { th .n scope="col" title=(what) { (name) } }
        th .n scope="col" { "cost" }
    }
}

/// A point in time, in the machine's time zone.
pub(super) fn time(at: Option<Nanos>, zone: &jiff::tz::TimeZone) -> Markup {
    let Some(at) = at.and_then(|at| jiff::Timestamp::from_nanosecond(at.into()).ok()) else { return html! { "–" } };
    let local = at.to_zoned(zone.clone());
    html! { time datetime=(at) { (local.strftime("%Y-%m-%d %H:%M:%S")) } }
}

/// A duration.
pub(super) fn span(nanos: u64) -> String {
    let ms = nanos / 1_000_000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// Links to the pages of a long list at the address `path`.
pub(super) fn pager(query: &Query, page: usize, pages: usize) -> Markup {
    if pages < 2 {
        return PreEscaped(String::new());
    }
    let link = |to: usize, text: &str| html! { a href=(query.with("page", &to.to_string())) { (text) } };
    html! {
        nav .pager aria-label="Parts of the list" {
            @if page > 1 { (link(page - 1, "‹ newer")) }
            span { "page " (page) " of " (pages) }
            @if page < pages { (link(page + 1, "older ›")) }
        }
    }
}

/// The page of `all` that the query asks for, with `size` items per page: its number from 1, the number of pages,
/// and the items.
pub(super) fn part<'a, T>(all: &'a [T], query: &Query, size: usize) -> (usize, usize, &'a [T]) {
    let pages = all.len().div_ceil(size).max(1);
    let page = usize::try_from(query.number("page")).unwrap_or(1).clamp(1, pages);
    let start = (page - 1) * size;
    (page, pages, &all[start.min(all.len())..(start + size).min(all.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_groups() {
        for (value, expect) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), expect);
        }
    }

    #[test]
    fn text_from_a_transcript_is_neither_markup_nor_hidden() {
        let odd = "<script>\u{1b}[31m\u{202e}x\r\n\ty&\"'</script>";
        let shown = html! { p title=(clean(odd)) { (clean(odd)) } }.into_string();
        assert!(!shown.contains("<script") && !shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{shown}");
        assert!(shown.contains("\\u{1b}[31m\\u{202e}x\n\ty&amp;&quot;"), "{shown}");
    }

    #[test]
    fn a_list_has_parts() {
        let all: Vec<u32> = (0..25).collect();
        let of = |page: &str| part(&all, &Query::parse(&format!("page={page}")), 10).2.to_vec();
        assert_eq!(
            (of("1").len(), of("3"), of("99"), of("x").len()),
            (10, vec![20, 21, 22, 23, 24], vec![20, 21, 22, 23, 24], 10)
        );
        assert_eq!(part::<u32>(&[], &Query::default(), 10), (1, 1, &[][..]));
    }
}
