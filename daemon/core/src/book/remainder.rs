//! Claude Code's totals less what is traced: what the calls used that leave no line in a transcript.
//!
//! It is recorded as the event `untraced calls` below the session's last turn, in metadata: never as usage, which a server would add to
//! that of calls. Each event holds what earlier ones of its session do not.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Book, Call, Run, Traced};
use crate::{
    ids::{Role, span_id, trace_id},
    observation::{Detail, Level},
    pipeline::{Outgoing, Pipeline},
    reconcile::{Row, Tokens, rows},
    redact::Counts,
    trace::{Body, Span},
    transcript::record::Nanos,
    turn::Past,
    usage,
};

/// The name of the event.
const NAME: &str = "untraced calls";

/// What one model used in calls without a line.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UntracedModel {
    #[serde(flatten)]
    pub tokens: Tokens,
    /// US dollars; `None` if that cannot be known.
    pub cost_usd: Option<f64>,
}

/// What calls without a line used, by model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Untraced {
    pub models: BTreeMap<String, UntracedModel>,
}

impl Untraced {
    pub fn tokens(&self) -> Tokens {
        let mut sum = Tokens::default();
        self.models.values().for_each(|model| sum += model.tokens);
        sum
    }

    /// US dollars; `None` if that of no model is known.
    pub fn cost_usd(&self) -> Option<f64> {
        self.models.values().filter_map(|model| model.cost_usd).reduce(|sum, cost| sum + cost)
    }

    /// As a row of a report.
    pub fn row(&self) -> usage::Row {
        usage::Row {
            key: "untraced".to_owned(),
            tokens: self.tokens(),
            cost_usd: self.cost_usd(),
            ..usage::Row::default()
        }
    }

    pub fn is_none(&self) -> bool {
        self.models.values().all(|model| model.tokens.is_none())
    }

    /// What the totals of `run` say beyond the calls of `book`.
    fn of(book: &Book, run: &Run) -> Self {
        let included = book.included(run);
        let mut traced = Traced::default();
        included.iter().for_each(|call| traced.count(call));
        let of_model = |row: Row| {
            let its = included.iter().filter(|call| call.model == row.model);
            let cost = cost(its, run.stated.costs.get(&row.model).copied(), &row);
            (row.model, UntracedModel { tokens: row.unseen, cost_usd: cost })
        };
        let rows = rows(&traced.models, &traced.telemetry, &run.stated).into_iter().filter(|row| !row.unseen.is_none());
        Self { models: rows.map(of_model).collect() }
    }

    /// The excess over `other`, model by model.
    fn beyond(&self, other: &Self) -> Self {
        let excess = |(name, own): (&String, &UntracedModel)| {
            let before = other.models.get(name).cloned().unwrap_or_default();
            let tokens = own.tokens.beyond(&before.tokens);
            let cost_usd = own.cost_usd.map(|cost| (cost - before.cost_usd.unwrap_or_default()).max(0.0));
            (!tokens.is_none()).then(|| (name.clone(), UntracedModel { tokens, cost_usd }))
        };
        Self { models: self.models.iter().filter_map(excess).collect() }
    }

    pub fn add(&mut self, more: &Self) {
        for (name, more) in &more.models {
            let own = self.models.entry(name.clone()).or_default();
            own.tokens += more.tokens;
            own.cost_usd = more.cost_usd.map_or(own.cost_usd, |cost| Some(own.cost_usd.unwrap_or_default() + cost));
        }
    }
}

/// What is left of the cost that Claude Code states for a model; where that cannot be, the list price of the tokens.
fn cost<'c>(traced: impl Iterator<Item = &'c &'c Call>, stated: Option<f64>, row: &Row) -> Option<f64> {
    let known: Option<f64> = traced.map(|call| call.cost).sum();
    let left = stated.zip(known).map(|(stated, known)| stated - known).filter(|left| *left > 0.0);
    let cost = left.or_else(|| usage::cost(&row.model, None, row.unseen))?;
    // Sums of prices have noise far below a millionth of a dollar.
    Some((cost * 1e9).round() / 1e9)
}

/// What one session used without a line, since the remainder before, and where that is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Remainder {
    pub untraced: Untraced,
    /// The last turn of the session before the totals.
    pub turn: Past,
    pub at: Option<Nanos>,
    /// All tokens that Claude Code had counted: they distinguish the events of a session.
    total: u64,
}

/// The remainders of a session, oldest first, each without those before it. `parent` is the session it was forked from, if its
/// transcript is there: a fork's totals begin with those of its parent, whose remainder is the parent's. Without it, a fork has none,
/// because the two cannot be distinguished.
pub fn untraced(book: &Book, parent: Option<&Book>) -> Vec<Remainder> {
    let (mut found, mut known) = (Vec::new(), Untraced::default());
    for run in &book.runs {
        let Some(inherited) = inherited(book, run, parent) else { continue };
        let own = Untraced::of(book, run).beyond(&inherited).beyond(&known);
        let is_before = |start: Option<Nanos>| start.zip(run.until).is_none_or(|(start, until)| start < until);
        let last = book.turns.iter().rev().find(|turn| is_before(turn.start));
        if own.is_none() {
            continue;
        }
        let Some(last) = last else { continue };
        known.add(&own);
        let total = run.stated.models.values().fold(0, |sum: u64, tokens| sum.saturating_add(tokens.total()));
        found.push(Remainder { untraced: own, turn: last.turn.clone(), at: last.end, total });
    }
    found
}

/// What of the remainder of `run` is that of the session it was forked from; `None` if that is not known.
fn inherited(book: &Book, run: &Run, parent: Option<&Book>) -> Option<Untraced> {
    let copies = book.included(run).iter().any(|call| call.is_copy);
    if book.forked_from.is_none() || !copies {
        return Some(Untraced::default());
    }
    let parent = parent?;
    let own = book.calls.iter().filter(|call| !call.is_copy).filter_map(|call| call.at).min();
    let is_it = |known: &&Run| {
        let is_before = known.from.zip(own).is_none_or(|(from, own)| from <= own);
        let is_within = known
            .stated
            .models
            .iter()
            .all(|(name, tokens)| run.stated.models.get(name).is_some_and(|total| tokens.beyond(total).is_none()));
        is_before && is_within && known.stated.since == run.stated.since
    };
    parent.runs.iter().rev().find(is_it).map(|run| Untraced::of(parent, run))
}

/// The events for `remainders`.
pub fn events(pipeline: &Pipeline<'_>, book: &Book, remainders: &[Remainder], counts: &mut Counts) -> Vec<Outgoing> {
    let causes = book.traced().causes().join(", ");
    let kept = remainders.iter().filter(|found| pipeline.keeps(trace_id(&found.turn.key)));
    kept.flat_map(|found| pipeline.event(&found.turn, span(found, &causes), counts)).collect()
}

fn span(remainder: &Remainder, causes: &str) -> Span<'static> {
    let (key, trace) = (&remainder.turn.key, trace_id(&remainder.turn.key));
    let tokens = remainder.untraced.tokens();
    let mut details = vec![
        ("tokens", Detail::Number(tokens.total())),
        ("input_tokens", Detail::Number(tokens.input)),
        ("output_tokens", Detail::Number(tokens.output)),
        ("cache_read_tokens", Detail::Number(tokens.cache_read)),
        ("cache_write_5m_tokens", Detail::Number(tokens.cache_write_5m)),
        ("cache_write_1h_tokens", Detail::Number(tokens.cache_write_1h)),
    ];
    if let Some(cost) = remainder.untraced.cost_usd() {
        details.push(("cost_usd", Detail::Name(cost.to_string())));
    }
    let by_model = serde_json::to_string(&remainder.untraced.models).unwrap_or_default();
    details.push(("by_model", Detail::Name(by_model)));
    if !causes.is_empty() {
        details.push(("causes", Detail::Name(causes.to_owned())));
    }
    Span {
        trace_id: trace,
        span_id: span_id(trace, Role::Event, &format!("{key}/untraced/{}", remainder.total)),
        parent: Some(span_id(trace, Role::Turn, key)),
        owner: None,
        agent: None,
        name: NAME.to_owned(),
        start: remainder.at.unwrap_or(1),
        end: remainder.at.unwrap_or(1),
        level: Level::Default,
        status: None,
        estimated: remainder.at.is_none(),
        call: None,
        body: Body::Event { said: None, details },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{book::LastTurn, reconcile::Stated};

    fn call(at: u64, output: u64, is_copy: bool) -> Call {
        let tokens = Tokens { input: 10, output, ..Tokens::default() };
        Call {
            at: Some(at),
            model: "m".to_owned(),
            tokens,
            cost: Some(0.5),
            is_call: true,
            is_cut: false,
            web: 0,
            is_copy,
            is_hidden: false,
        }
    }

    fn run(since: u64, input: u64, output: u64, until: Option<u64>) -> Run {
        let tokens = Tokens { input, output, ..Tokens::default() };
        let models = BTreeMap::from([("m".to_owned(), tokens)]);
        let costs = BTreeMap::from([("m".to_owned(), 2.0)]);
        let stated = Stated { cost_usd: 2.0, models, costs, since: Some(since) };
        Run { stated, from: Some(since), until }
    }

    fn turn(key: &str, at: u64) -> LastTurn {
        let turn = Past { key: key.into(), number: 1, position: None, follows: None, session: Default::default() };
        LastTurn { turn, start: Some(at), end: Some(at + 5) }
    }

    fn book(calls: Vec<Call>, runs: Vec<Run>, turns: Vec<LastTurn>) -> Book {
        Book { calls, runs, turns, ..Book::new("s") }
    }

    fn found(book: &Book, parent: Option<&Book>) -> Vec<(String, u64, u64)> {
        let key = |found: &Remainder| {
            let tokens = found.untraced.tokens();
            (found.turn.key.clone(), tokens.input, tokens.output)
        };
        untraced(book, parent).iter().map(key).collect()
    }

    #[test]
    fn each_remainder_holds_what_those_before_it_do_not() {
        let calls = vec![call(10, 1, false), call(50, 1, false)];
        let turns = vec![turn("a", 10), turn("b", 50)];
        for (name, totals, expect) in [
            ("both agree", vec![run(1, 20, 2, None)], vec![]),
            ("one call has no line", vec![run(1, 25, 5, None)], vec![("b", 5, 3)]),
            ("it was made in the first run", vec![run(1, 15, 4, Some(50)), run(1, 25, 5, None)], vec![("a", 5, 3)]),
            ("both runs have one", vec![run(1, 15, 4, Some(50)), run(1, 30, 6, None)], vec![("a", 5, 3), ("b", 5, 1)]),
            ("the second run wrote less", vec![run(1, 15, 4, Some(50)), run(1, 20, 2, None)], vec![("a", 5, 3)]),
            ("counting began after the first call", vec![run(20, 10, 1, None)], vec![]),
            ("an earlier run wrote no totals", vec![run(1, 10, 1, None)], vec![]),
        ] {
            let expect: Vec<_> =
                expect.into_iter().map(|(key, input, output)| (key.to_owned(), input, output)).collect();
            assert_eq!(found(&book(calls.clone(), totals, turns.clone()), None), expect, "{name}");
        }
    }

    #[test]
    fn a_fork_leaves_to_its_parent_what_is_the_parents() {
        let parent = book(vec![call(10, 1, false)], vec![run(1, 15, 4, None)], vec![turn("a", 10)]);
        let fork = |since, input, output| Book {
            forked_from: Some("parent".into()),
            ..book(
                vec![call(10, 1, true), call(50, 1, false)],
                vec![run(since, input, output, None)],
                vec![turn("f", 50)],
            )
        };
        for (name, fork, expect) in [
            ("its totals begin with the parent's", fork(1, 25, 5), vec![]),
            ("it has one of its own", fork(1, 27, 9), vec![("f", 2, 4)]),
            ("its totals began with itself", fork(40, 10, 1), vec![]),
            ("they did, and it has one of its own", fork(40, 12, 5), vec![("f", 2, 4)]),
            ("the totals have no room for the copies", fork(1, 10, 1), vec![]),
        ] {
            let expect: Vec<_> =
                expect.into_iter().map(|(key, input, output)| (key.to_owned(), input, output)).collect();
            assert_eq!(found(&fork, Some(&parent)), expect, "{name}");
            let traced = fork.traced();
            assert_eq!(
                rows(&traced.models, &traced.telemetry, &fork.runs[0].stated)[0].excess,
                Tokens::default(),
                "{name}"
            );
        }
        assert_eq!(found(&fork(1, 27, 9), None), [], "without its parent the two cannot be distinguished");
        assert_eq!(found(&fork(40, 12, 5), None).len(), 1, "they can if its totals began with itself");
    }

    #[test]
    fn the_cost_is_what_the_calls_leave_of_the_stated_one() {
        let costs = |calls: Vec<Call>| {
            let found = untraced(&book(calls, vec![run(1, 25, 5, None)], vec![turn("a", 10)]), None);
            found[0].untraced.cost_usd()
        };
        assert_eq!(costs(vec![call(10, 1, false)]), Some(1.5));
        let unpriced = Call { cost: None, ..call(10, 1, false) };
        assert_eq!(costs(vec![unpriced]), None, "neither the calls nor the model have a price");
    }
}
