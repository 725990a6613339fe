//! Model calls → what they used, summed by day, project, model and other keys.
//!
//! Comes in: turns, and rows from an index of them. Goes out: sums in which each call counts once, under one key, so
//! that the rows of a report add up to its total. Knows neither files nor the time of day.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
};

use jiff::{Timestamp, civil::Weekday, tz::TimeZone};
use serde::Serialize;

use crate::{
    ids::{TraceId, trace_id},
    observation::Usage,
    price,
    reconcile::Tokens,
    trace::{self, agent_name},
    transcript::record::Nanos,
    turn::{Generation, Turn},
};

/// A model call of a turn or subagent, or the advice of another model within it.
#[derive(Clone, Debug, PartialEq)]
pub struct Used<'t> {
    /// Its turn; `None` if the turn of a subagent is unknown.
    pub trace: Option<TraceId>,
    /// When the call was first written, in nanoseconds since the epoch.
    pub at: Option<Nanos>,
    pub model: &'t str,
    /// `fast`, which has a price of its own; `None` for the usual speed.
    pub speed: Option<&'t str>,
    pub tokens: Tokens,
    /// False for advice: its tokens count, but it is not a call of its own.
    pub is_call: bool,
    /// The name of the subagent that made it; `None` in the turn itself.
    pub agent: Option<&'t str>,
    /// The skill during which it was made.
    pub skill: Option<&'t str>,
    /// The MCP server whose tools it calls or is about.
    pub mcp_server: Option<&'t str>,
    /// The plugin that the skill, the subagent or the MCP server is from.
    pub plugin: Option<&'t str>,
    /// The tools it calls, each once, joined by ` + `; empty for none.
    pub tools: String,
    /// Recognises copies of it: see `trace::marks`.
    pub marks: [Option<u64>; 3],
    /// It is a copy; the session it was copied from counts it.
    pub is_copy: bool,
}

/// The calls of a turn, including those of subagents among its own lines. `trace` is the turn's trace, or `None`.
pub fn calls(turn: &Turn) -> Vec<Used<'_>> {
    let mut found = Vec::new();
    gather(turn, Some(trace_id(turn.trace_key())), &mut found);
    found
}

fn gather<'t>(turn: &'t Turn, trace: Option<TraceId>, found: &mut Vec<Used<'t>>) {
    let agent = turn.place.as_ref().map(agent_name);
    for generation in &turn.generations {
        let (marks, at) = (trace::marks(generation), generation.first.or(turn.prompt.at));
        let (skill, mcp_server) = (generation.service.skill.as_deref(), mcp_server(generation));
        let call = Used {
            trace,
            at,
            model: &generation.model,
            speed: generation.service.speed.as_deref(),
            tokens: generation.usage.map(Tokens::from).unwrap_or_default(),
            is_call: true,
            agent,
            skill,
            mcp_server,
            plugin: generation.service.plugin.as_deref().or_else(|| plugin(skill, agent, mcp_server)),
            tools: tools(generation),
            marks,
            is_copy: generation.is_copy,
        };
        let advice = generation.advice.iter().map(|advice| Used {
            model: &advice.model,
            speed: None,
            tokens: advice.usage.into(),
            is_call: false,
            ..call.clone()
        });
        let advice: Vec<_> = advice.collect();
        found.push(call);
        found.extend(advice);
    }
    turn.agents.iter().for_each(|agent| gather(agent, trace, found));
}

fn mcp_server(generation: &Generation) -> Option<&str> {
    let of_tool = |name: &'_ str| {
        name.strip_prefix("mcp__").and_then(|rest| rest.split_once("__")).map(|(server, _)| server.len())
    };
    let called = generation.tools.iter().find_map(|tool| of_tool(&tool.name).map(|length| &tool.name[5..5 + length]));
    generation.service.mcp_server.as_deref().or(called)
}

/// The plugin that these names are from: it stands before the colon of a skill or subagent, and in the name of a server, as in
/// `plugin_x_y` or `plugin:x:y`. A skill runs within a subagent, so it comes first.
fn plugin<'n>(skill: Option<&'n str>, agent: Option<&'n str>, mcp_server: Option<&'n str>) -> Option<&'n str> {
    let before_colon = |name: &'n str| name.split_once(':').map(|(plugin, _)| plugin);
    let of_server = |name: &'n str| {
        let rest = name.strip_prefix("plugin_").or_else(|| name.strip_prefix("plugin:"))?;
        rest.split_once(['_', ':']).map(|(plugin, _)| plugin)
    };
    let named = [skill.and_then(before_colon), agent.and_then(before_colon), mcp_server.and_then(of_server)];
    named.into_iter().flatten().find(|plugin| !plugin.is_empty())
}

fn tools(generation: &Generation) -> String {
    let mut names: Vec<&str> = generation.tools.iter().map(|tool| tool.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" + ")
}

/// The key that calls are summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Day,
    /// Named by its Monday.
    Week,
    Month,
    Project,
    Model,
    Session,
    /// All tools of a call in one key, because a call counts once.
    Tool,
    Skill,
    Agent,
    Mcp,
    Plugin,
    Branch,
}

impl By {
    /// Each key with its name.
    pub const ALL: [(&'static str, Self); 12] = [
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
        ("project", Self::Project),
        ("model", Self::Model),
        ("session", Self::Session),
        ("tool", Self::Tool),
        ("skill", Self::Skill),
        ("agent", Self::Agent),
        ("mcp", Self::Mcp),
        ("plugin", Self::Plugin),
        ("branch", Self::Branch),
    ];

    /// True if its rows are points in time, shown in that order.
    pub fn is_time(self) -> bool {
        matches!(self, Self::Day | Self::Week | Self::Month)
    }

    /// The row for calls without this key.
    pub fn none(self) -> &'static str {
        match self {
            Self::Day | Self::Week | Self::Month => "(no time)",
            Self::Project => "(no project)",
            Self::Model => "unknown",
            Self::Session => "(no session)",
            Self::Tool => "(no tool)",
            Self::Skill => "(no skill)",
            Self::Agent => "main",
            Self::Mcp => "(no MCP server)",
            Self::Plugin => "(no plugin)",
            Self::Branch => "(no branch)",
        }
    }
}

/// The day, week or month of a point in time.
pub fn period(by: By, at: Nanos, zone: &TimeZone) -> Option<String> {
    let date = Timestamp::from_nanosecond(at.into()).ok()?.to_zoned(zone.clone()).date();
    match by {
        By::Month => Some(date.strftime("%Y-%m").to_string()),
        By::Week if date.weekday() != Weekday::Monday => {
            date.nth_weekday(-1, Weekday::Monday).ok().map(|day| day.to_string())
        }
        _ => Some(date.to_string()),
    }
}

/// A call as the sums need it.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'r> {
    pub trace: Option<TraceId>,
    pub model: &'r str,
    /// US dollars; `None` if there is no known price.
    pub cost: Option<f64>,
    pub tokens: Tokens,
    pub is_call: bool,
}

/// The prices of models, each looked up once.
#[derive(Debug, Default)]
pub struct Prices<K>(HashMap<K, Option<price::Rates>>);

impl<K: Eq + Hash> Prices<K> {
    /// Like [`cost`]; `key` stands for model and speed.
    pub fn cost<'m>(
        &mut self,
        key: K,
        model: impl FnOnce() -> (&'m str, Option<&'m str>),
        tokens: Tokens,
    ) -> Option<f64> {
        if tokens.is_none() {
            return Some(0.0);
        }
        let rates = self.0.entry(key).or_insert_with(|| {
            let (model, speed) = model();
            price::rates(model, speed)
        });
        rates.as_ref()?.cost(usage(tokens)).map(|cost| cost.total())
    }
}

/// The sums for one key.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    pub key: String,
    /// Turns with at least one such call.
    pub turns: u64,
    pub calls: u64,
    #[serde(flatten)]
    pub tokens: Tokens,
    /// US dollars by the list prices; `None` if no call has a known price.
    pub cost_usd: Option<f64>,
}

/// The sums, and the calls without a price.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub rows: Vec<Row>,
    pub total: Row,
    /// What calls without a line in a transcript used that Claude Code's telemetry names: in no other row.
    pub telemetry: Row,
    /// What other calls without a line used, by Claude Code's own totals: in no other row.
    pub untraced: Row,
    /// Calls whose model has no known price, by model: their cost is in no row.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unpriced: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Sum {
    row: Row,
    turns: HashSet<TraceId>,
    /// The turn of the latest call: the calls of a turn mostly come one after another.
    latest: Option<TraceId>,
}

impl Sum {
    fn add(&mut self, call: &Counted<'_>, cost: Option<f64>) {
        if call.trace != self.latest {
            self.turns.extend(call.trace);
            self.latest = call.trace;
        }
        self.row.calls += u64::from(call.is_call);
        self.row.tokens += call.tokens;
        if let Some(cost) = cost {
            *self.row.cost_usd.get_or_insert(0.0) += cost;
        }
    }

    fn row(self, key: String) -> Row {
        Row { key, turns: self.turns.len() as u64, ..self.row }
    }
}

/// Adds up calls.
#[derive(Debug, Default)]
pub struct Summing {
    sums: HashMap<String, Sum>,
    total: Sum,
    unpriced: BTreeMap<String, u64>,
}

impl Summing {
    pub fn add(&mut self, key: Cow<'_, str>, call: &Counted<'_>) {
        let cost = call.cost;
        if cost.is_none() {
            *self.unpriced.entry(call.model.to_owned()).or_default() += 1;
        }
        self.total.add(call, cost);
        match self.sums.get_mut(&*key) {
            Some(sum) => sum.add(call, cost),
            None => self.sums.entry(key.into_owned()).or_default().add(call, cost),
        }
    }

    /// The rows: points in time in order, others by cost, then by tokens.
    pub fn report(self, by: By) -> Report {
        let mut rows: Vec<Row> = self.sums.into_iter().map(|(key, sum)| sum.row(key)).collect();
        rows.sort_by(|one, other| {
            let weight = |row: &Row| (row.cost_usd.unwrap_or(0.0), row.tokens.total());
            let ((cost, tokens), (others, more)) = (weight(one), weight(other));
            let heavier = others.total_cmp(&cost).then(more.cmp(&tokens));
            if by.is_time() { one.key.cmp(&other.key) } else { heavier.then_with(|| one.key.cmp(&other.key)) }
        });
        let empty = |key: &str| Row { key: key.to_owned(), ..Row::default() };
        let (telemetry, untraced) = (empty("telemetry"), empty("untraced"));
        Report { rows, total: self.total.row("total".to_owned()), telemetry, untraced, unpriced: self.unpriced }
    }
}

/// The cost of these tokens in US dollars. Zero tokens cost nothing, whatever the model.
pub fn cost(model: &str, speed: Option<&str>, tokens: Tokens) -> Option<f64> {
    if tokens.is_none() {
        return Some(0.0);
    }
    price::cost(model, speed, usage(tokens)).map(|cost| cost.total())
}

fn usage(tokens: Tokens) -> Usage {
    let Tokens { input, output, cache_read, cache_write_5m, cache_write_1h } = tokens;
    Usage { input, output, cache_read, cache_write_5m, cache_write_1h, cache_write: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Nanos {
        Nanos::try_from(time.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap()
    }

    #[test]
    fn a_time_is_assigned_to_its_local_day_week_and_month() {
        let east = TimeZone::fixed(jiff::tz::offset(9));
        for (zone, time, expect) in [
            (TimeZone::UTC, "2026-11-29T23:59:59Z", ["2026-11-29", "2026-11-23", "2026-11"]),
            (TimeZone::UTC, "2026-11-30T00:00:00Z", ["2026-11-30", "2026-11-30", "2026-11"]),
            (east, "2026-11-30T15:00:00Z", ["2026-12-01", "2026-11-30", "2026-12"]),
            (TimeZone::UTC, "2027-01-01T00:00:00Z", ["2027-01-01", "2026-12-28", "2027-01"]),
        ] {
            let found = [By::Day, By::Week, By::Month].map(|by| period(by, at(time), &zone).unwrap());
            assert_eq!(found, expect, "{time}");
        }
        assert!(period(By::Day, u64::MAX, &TimeZone::UTC).is_some(), "whatever a transcript says");
    }

    fn call(trace: u8, model: &'static str, input: u64) -> Counted<'static> {
        let tokens = Tokens { input, ..Tokens::default() };
        Counted { trace: Some([trace; 16]), model, cost: cost(model, None, tokens), tokens, is_call: true }
    }

    #[test]
    fn rows_add_up_to_the_total() {
        let mut sums = Summing::default();
        for (key, counted) in [
            ("a", call(1, "claude-sonnet-4-5", 1_000_000)),
            ("a", call(1, "claude-sonnet-4-5", 1)),
            ("b", call(1, "nobody-knows", 7)),
            ("c", Counted { is_call: false, ..call(2, "claude-opus-4-6", 2_000_000) }),
            ("d", call(3, "nobody-knows", 0)),
        ] {
            sums.add(key.into(), &counted);
        }
        let Report { rows, total, unpriced, .. } = sums.report(By::Model);
        let keys: Vec<_> = rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["c", "a", "b", "d"], "by cost, then by tokens");
        let costs: Vec<_> = rows.iter().map(|row| row.cost_usd).collect();
        assert_eq!(costs, [Some(10.0), Some(3.000_003), None, Some(0.0)]);
        let mut sum = Tokens::default();
        rows.iter().for_each(|row| sum += row.tokens);
        assert_eq!((sum, rows.iter().map(|row| row.calls).sum::<u64>()), (total.tokens, total.calls));
        assert_eq!((total.turns, total.calls, total.cost_usd), (3, 4, Some(13.000_003)));
        assert_eq!(unpriced, BTreeMap::from([("nobody-knows".to_owned(), 1)]));
    }

    #[test]
    fn the_plugin_of_a_call_is_part_of_a_name() {
        for (skill, agent, server, expect) in [
            (None, None, None, None),
            (Some("greet"), Some("general-purpose"), Some("github"), None),
            (Some("tools:greet"), None, None, Some("tools")),
            (None, Some("review:critic"), None, Some("review")),
            (Some("tools:greet"), Some("review:critic"), Some("plugin_db_server"), Some("tools")),
            (Some("greet"), Some("review:critic"), None, Some("review")),
            (None, None, Some("plugin_db_my_server"), Some("db")),
            (None, None, Some("plugin:db:server"), Some("db")),
            (None, None, Some("plugin_"), None),
            (Some(":greet"), None, Some("plugins_db_server"), None),
        ] {
            assert_eq!(plugin(skill, agent, server), expect, "{skill:?} {agent:?} {server:?}");
        }
    }

    #[test]
    fn rows_of_time_keys_are_in_order() {
        let mut sums = Summing::default();
        sums.add("2026-11-02".into(), &call(1, "claude-opus-4-6", 9));
        sums.add("2026-11-01".into(), &call(1, "claude-opus-4-6", 1));
        let keys: Vec<_> = sums.report(By::Day).rows.into_iter().map(|row| row.key).collect();
        assert_eq!(keys, ["2026-11-01", "2026-11-02"]);
    }
}
