//! A session as a single file to save or pass on: masked, and without external resources.

use std::fmt::Write;

use maud::{DOCTYPE, PreEscaped, html};
use serde_json::json;

use super::{
    Site,
    pages::{Page, kept},
    session_page::{head, reading},
    sessions::title,
    turn_page::read,
};
use cc_core::{ids::hex, project::Options};
use cc_langfuse::rebuild;

/// The file `name` of the session `id`; `None` if there is no such session or file.
///
/// # Errors
/// If the index or the transcript cannot be read.
pub(super) fn page(site: &Site, id: &str, name: &str) -> anyhow::Result<Option<Page>> {
    let Some(one) = site.session(id) else { return Ok(None) };
    let history = site.history();
    let turns = history.index.turns(id)?;
    let rules = history.config.rules.clone();
    drop(history);
    let short: String = id.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    let called = |ext: &str| format!("claude-{short}.{ext}");
    Ok(Some(match name {
        "session.html" => {
            let trees = match turns.first() {
                Some(first) => read(&one, first, turns.len(), &rules)?,
                None => Vec::new(),
            };
            let text = html! {
                (DOCTYPE)
                html lang="en" {
                    head {
                        meta charset="utf-8";
                        meta name="viewport" content="width=device-width, initial-scale=1";
                        meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                        title { (title(&one, &rules)) }
                        style { (PreEscaped(include_str!("style.css"))) }
                    }
                    body { main {
                        h1 { (title(&one, &rules)) }
                        (head(site, &one))
                        @for turn in &turns { (reading(id, turn, &trees, &one, &rules)) }
                    } }
                }
            };
            kept("text/html; charset=utf-8", called("html"), text.into_string())
        }
        "session.json" => {
            let mut found = Vec::new();
            rebuild::turns(&one.path, id, &Options::default(), &rules, |turn| {
                found.extend(turn.into_iter().map(|out| json!({"trace": *out.facts, "observation": out.observation})));
            })?;
            kept("application/json", called("json"), serde_json::to_string_pretty(&found)?)
        }
        "session.csv" => {
            let mut text =
                "turn,trace,start_ns,end_ns,calls,tools,failed_tools,agents,input,output,cache_read,cache_write_5m,cache_write_1h,cost_usd\n"
                    .to_owned();
            for turn in &turns {
                let time = |at: Option<u64>| at.map(|at| at.to_string()).unwrap_or_default();
                let [input, output, read, five, hour] = turn.sum.tokens.counts();
                writeln!(
                    text,
                    "{},{},{},{},{},{},{},{},{input},{output},{read},{five},{hour},{}",
                    turn.number,
                    hex(&turn.trace),
                    time(turn.start),
                    time(turn.end),
                    turn.sum.calls,
                    turn.tools,
                    turn.failed_tools,
                    turn.agents,
                    turn.sum.cost_usd.map(|cost| cost.to_string()).unwrap_or_default()
                )?;
            }
            kept("text/csv; charset=utf-8", called("csv"), text)
        }
        _ => return Ok(None),
    }))
}
