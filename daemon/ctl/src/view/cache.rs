//! Why the cache was written again: each call of a session that wrote more than necessary, with the likely
//! cause and the cost.

use maud::{Markup, html};

use super::{
    Site,
    html::{clean, cost, number, page as frame, span, time},
    query::encode,
};
use cc_core::{ids::hex, reconcile::Tokens, usage};
use cc_langfuse::index::ListedCall;

/// How many tokens a call must have written again to be shown.
const SHOWN: u64 = 1024;

/// The lifetime of a cache entry, in nanoseconds.
const FIVE_MINUTES: u64 = 5 * 60 * 1_000_000_000;
const HOUR: u64 = 12 * FIVE_MINUTES;

/// A call that wrote tokens again that had been in the cache.
#[derive(Debug, PartialEq)]
struct Miss {
    /// Its index among the calls.
    at: usize,
    /// The tokens that were in the cache before and were written again.
    tokens: u64,
    why: String,
    /// The extra cost compared with reading them, in US dollars.
    dollars: Option<f64>,
}

/// The calls of each conversation (the session's own, and each kind of subagent) that wrote again what the previous
/// call had in the cache.
fn misses(calls: &[ListedCall]) -> Vec<Miss> {
    let mut found = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let before = calls[..at].iter().rev().find(|before| before.agent == call.agent);
        let Some(before) = before else { continue };
        // What the previous call read or wrote could have been read now.
        let held = before.tokens.cache_read + before.tokens.cache_write_5m + before.tokens.cache_write_1h;
        let written = call.tokens.cache_write_5m + call.tokens.cache_write_1h;
        let again = held.saturating_sub(call.tokens.cache_read).min(written);
        if again < SHOWN {
            continue;
        }
        let pause = call.at.zip(before.at).map(|(at, before)| at.saturating_sub(before));
        let limit = if before.tokens.cache_write_1h > before.tokens.cache_write_5m { HOUR } else { FIVE_MINUTES };
        let shrank = call.tokens.input + call.tokens.cache_read + written < held / 2;
        let why = if call.model != before.model {
            format!("another model: {} after {}", clean(&call.model), clean(&before.model))
        } else if let Some(pause) = pause.filter(|pause| *pause > limit) {
            format!("a pause of {}, longer than the cache holds ({})", span(pause), span(limit))
        } else if call.agent.is_some() {
            "another subagent of that kind".to_owned()
        } else if shrank {
            "the conversation was shortened: compacted, cleared or rewound".to_owned()
        } else if before.turn != call.turn {
            "something before the new prompt changed: tools, system prompt, memory or settings".to_owned()
        } else {
            "something changed within the turn: tools or images".to_owned()
        };
        found.push(Miss { at, tokens: again, why, dollars: price(call, again) });
    }
    found
}

/// The extra cost of writing `tokens` compared with reading them.
fn price(call: &ListedCall, tokens: u64) -> Option<f64> {
    let hour = call.tokens.cache_write_1h.min(tokens);
    let wrote = Tokens { cache_write_1h: hour, cache_write_5m: tokens - hour, ..Tokens::default() };
    let read = Tokens { cache_read: tokens, ..Tokens::default() };
    let cost = |tokens| usage::cost(&call.model, call.speed.as_deref(), tokens);
    Some(cost(wrote)? - cost(read)?)
}

pub(super) fn page(site: &Site, id: &str) -> anyhow::Result<Option<Markup>> {
    if site.session(id).is_none() {
        return Ok(None);
    }
    let calls = site.history().index.calls(id)?;
    let misses = misses(&calls);
    let sum = |of: fn(&Tokens) -> u64| calls.iter().map(|call| of(&call.tokens)).sum::<u64>();
    let (read, written) =
        (sum(|tokens| tokens.cache_read), sum(|tokens| tokens.cache_write_5m + tokens.cache_write_1h));
    let input = sum(|tokens| tokens.input) + read + written;
    let wasted: Option<f64> = misses.iter().map(|miss| miss.dollars).sum();
    let main = html! {
        nav .up aria-label="Up" { a href={ "../" (encode(id)) } { "‹ session" } }
        h1 { "Cache" }
        p { (number(read)) " of " (number(input)) " input tokens came from the cache"
            @if input > 0 { " (" (format!("{:.1}", read as f64 / input as f64 * 100.0)) " %)" } ", "
            (number(written)) " were written to it." }
        @if misses.is_empty() {
            p { "No call wrote again what was in the cache before." }
        } @else {
            p { (number(misses.len() as u64)) " calls wrote " (number(misses.iter().map(|miss| miss.tokens).sum())) " tokens again, for "
                (cost(wasted)) " more than reading them." }
            div .wide { table .rows {
                thead { tr { th scope="col" { "When" } th scope="col" { "Turn" } th scope="col" { "Why" }
                    th .n scope="col" { "tokens" } th .n scope="col" { "cost" } } }
                tbody { @for miss in &misses {
                    @let call = &calls[miss.at];
                    tr {
                        td { (time(call.at, &site.zone)) }
                        th scope="row" {
                            @if let (Some(trace), Some(turn)) = (call.trace, call.turn) {
                                a href={ "../../turn/" (encode(id)) "/" (hex(&trace)) } { "Turn " (turn) }
                            } @else { "–" }
                            @if let Some(agent) = &call.agent { div .dim { (clean(agent)) } }
                        }
                        td { (miss.why) }
                        td .n { (number(miss.tokens)) }
                        td .n { (cost(miss.dollars)) }
                    }
                } }
            } }
            p .dim { "The cause is a conclusion from times, models and sizes: a transcript does not state it." }
        }
    };
    Ok(Some(frame("Cache", "../../", "", site.version(), &main)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(minute: u64, model: &str, agent: Option<&str>, read: u64, write: u64) -> ListedCall {
        ListedCall {
            trace: None,
            turn: Some(1),
            at: Some(minute * 60_000_000_000),
            model: model.into(),
            speed: None,
            tokens: Tokens { cache_read: read, cache_write_5m: write, ..Tokens::default() },
            agent: agent.map(str::to_owned),
            tools: None,
        }
    }

    #[test]
    fn what_is_written_again_has_a_cause() {
        let sonnet = "claude-sonnet-4-5";
        let first = call(0, sonnet, None, 0, 10_000);
        for (second, expect) in [
            (call(1, sonnet, None, 10_000, 500), None),
            (call(1, sonnet, None, 9_500, 900), None),
            (call(6, sonnet, None, 0, 11_000), Some((10_000, "a pause of 6 min 0 s"))),
            (call(1, "claude-opus-4-6", None, 0, 11_000), Some((10_000, "another model"))),
            (call(1, sonnet, None, 0, 3_000), Some((3_000, "the conversation was shortened"))),
            (call(1, sonnet, None, 2_000, 9_000), Some((8_000, "something changed within the turn"))),
            (call(1, sonnet, Some("Explore"), 0, 9_000), None),
        ] {
            let found = misses(&[first.clone(), second.clone()]);
            let found = found.first().map(|miss| (miss.tokens, miss.why.as_str()));
            assert_eq!(found.map(|(tokens, _)| tokens), expect.map(|(tokens, _)| tokens), "{second:?}");
            assert!(expect.is_none_or(|(_, why)| found.is_some_and(|(_, found)| found.starts_with(why))), "{found:?}");
        }
        let miss = &misses(&[first, call(6, sonnet, None, 0, 10_000)])[0];
        // 10,000 written at $3.75 per million in place of read at $0.30.
        assert!((miss.dollars.unwrap() - 0.0345).abs() < 1e-9, "{miss:?}");
    }
}
