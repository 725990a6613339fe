//! The tokens traced of a session, compared with what Claude Code says it used.
//!
//! From Claude Code 2.1.302 on a transcript has `cost-state` lines: totals of the whole session by model, written when Claude
//! Code exits. They continue when a session is resumed. A fork starts with the totals of the session it was forked from, whose
//! turns it copies; after `/clear` they start at zero. They include calls that leave no line.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
};

use serde::{Deserialize, Serialize};

use crate::{
    trace,
    transcript::record::{Nanos, Usage},
    turn::{Happening, Turn, hash::Hashes},
};

/// Token counts by price bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Neither read from the cache nor written to it.
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write_5m: u64,
    pub cache_write_1h: u64,
}

impl Tokens {
    pub fn total(self) -> u64 {
        [self.output, self.cache_read, self.cache_write_5m, self.cache_write_1h]
            .into_iter()
            .fold(self.input, u64::saturating_add)
    }

    /// In the order of the fields.
    pub fn counts(&self) -> [u64; 5] {
        [self.input, self.output, self.cache_read, self.cache_write_5m, self.cache_write_1h]
    }

    fn of(counts: [u64; 5]) -> Self {
        let [input, output, cache_read, cache_write_5m, cache_write_1h] = counts;
        Self { input, output, cache_read, cache_write_5m, cache_write_1h }
    }

    /// The excess over `other`, bucket by bucket.
    pub fn beyond(&self, other: &Self) -> Self {
        let (own, other) = (self.counts(), other.counts());
        Self::of(std::array::from_fn(|bucket| own[bucket].saturating_sub(other[bucket])))
    }

    pub fn is_none(&self) -> bool {
        self.counts() == [0; 5]
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, more: Self) {
        let (own, more) = (self.counts(), more.counts());
        *self = Self::of(std::array::from_fn(|bucket| own[bucket].saturating_add(more[bucket])));
    }
}

impl From<Usage> for Tokens {
    fn from(usage: Usage) -> Self {
        Self {
            input: usage.input,
            output: usage.output,
            cache_read: usage.cache_read,
            // Writes of unknown lifetime count as five minutes.
            cache_write_5m: usage.cache_creation_5m.saturating_add(usage.cache_creation_rest()),
            cache_write_1h: usage.cache_creation_1h,
        }
    }
}

/// The totals in a `cost-state` line.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stated {
    pub cost_usd: f64,
    /// By model.
    pub models: BTreeMap<String, Tokens>,
}

impl Stated {
    /// `None` if `line` is not a `cost-state` line.
    pub fn parse(line: &[u8]) -> Option<Self> {
        memchr::memmem::find(&line[..line.len().min(256)], b"\"cost-state\"")?;
        let line: CostState =
            serde_json::from_slice(line).ok().filter(|line: &CostState| line.r#type == "cost-state")?;
        let mut stated = Self { cost_usd: line.total_cost_usd, models: BTreeMap::new() };
        for (name, usage) in line.model_usage {
            let (five, hour) = (usage.written_5m, usage.written_1h);
            let rest = usage.written.saturating_sub(five.saturating_add(hour));
            let tokens = [usage.input, usage.output, usage.read, five.saturating_add(rest), hour];
            *stated.models.entry(model(&name).to_owned()).or_default() += Tokens::of(tokens);
        }
        Some(stated)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CostState {
    r#type: String,
    #[serde(rename = "totalCostUSD", default)]
    total_cost_usd: f64,
    #[serde(default)]
    model_usage: BTreeMap<String, ModelUsage>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct ModelUsage {
    #[serde(rename = "inputTokens")]
    input: u64,
    #[serde(rename = "outputTokens")]
    output: u64,
    #[serde(rename = "cacheReadInputTokens")]
    read: u64,
    #[serde(rename = "cacheCreationInputTokens")]
    written: u64,
    #[serde(rename = "cacheCreationEphemeral5mInputTokens")]
    written_5m: u64,
    #[serde(rename = "cacheCreationEphemeral1hInputTokens")]
    written_1h: u64,
}

/// Some places add a suffix for the long context window.
fn model(name: &str) -> &str {
    name.strip_suffix("[1m]").unwrap_or(name)
}

/// What is traced of a session, and what can make Claude Code's totals differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traced {
    /// By model.
    pub models: BTreeMap<String, Tokens>,
    pub calls: u64,
    /// Calls since Claude Code last wrote totals; not in `models`.
    pub later: u64,
    /// Compactions, whose summaries leave no line.
    pub compactions: u64,
    /// Answers that were cut short; their lines lack the final count.
    pub cut: u64,
    /// Web searches and fetches, which are calls of their own.
    pub web: u64,
    /// It was forked from another session, whose subagents are not in its directory.
    pub is_fork: bool,
    #[serde(skip)]
    known: Hashes,
}

impl Traced {
    /// Counts the calls of a turn or subagent that began before `until`. A call counts once.
    pub fn add(&mut self, turn: &Turn, until: Option<Nanos>) {
        self.is_fork |= turn.session.forked_from.is_some();
        let calls: Vec<_> = turn.generations.iter().map(trace::marks).collect();
        let known: Vec<bool> =
            calls.iter().map(|marks| marks.iter().flatten().any(|mark| self.known.contains(mark))).collect();
        // Within a turn, calls are different even if they look the same.
        self.known.extend(calls.iter().flatten().flatten());
        turn.agents.iter().for_each(|agent| self.add(agent, until));
        if !known.is_empty() && known.iter().all(|known| *known) {
            return;
        }
        self.compactions +=
            turn.notes.iter().filter(|note| matches!(note.what, Happening::Compacted { .. })).count() as u64;
        for (generation, _) in turn.generations.iter().zip(known).filter(|(_, known)| !known) {
            if until.is_some_and(|until| generation.first.is_some_and(|first| first >= until)) {
                self.later += 1;
                continue;
            }
            self.calls += 1;
            self.cut += u64::from(generation.service.cut.is_some() || generation.stop_reason.is_none());
            self.web += generation.service.web.0 + generation.service.web.1;
            if let Some(usage) = generation.usage {
                *self.models.entry(model(&generation.model).to_owned()).or_default() += usage.into();
            }
            for advice in &generation.advice {
                *self.models.entry(model(&advice.model).to_owned()).or_default() += advice.usage.into();
            }
        }
    }

    /// Reasons, in words, why tokens may be missing in the transcript.
    pub fn causes(&self) -> Vec<String> {
        let some = |count: u64, one: &str, more: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{count} {more}")),
        };
        let counted = [
            some(self.compactions, "compaction", "compactions"),
            some(self.cut, "answer cut short", "answers cut short"),
            some(self.web, "web search or fetch", "web searches and fetches"),
        ];
        let fork = self.is_fork.then(|| "subagents of the session it was forked from".to_owned());
        counted.into_iter().flatten().chain(fork).collect()
    }
}

/// One model's tokens from both sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub model: String,
    pub traced: Tokens,
    /// According to Claude Code.
    pub stated: Tokens,
    /// In no line of the transcript.
    pub unseen: Tokens,
    /// Traced but unknown to Claude Code.
    pub excess: Tokens,
}

/// Compares both, model by model.
pub fn rows(traced: &Traced, stated: &Stated) -> Vec<Row> {
    let names: BTreeSet<&String> = traced.models.keys().chain(stated.models.keys()).collect();
    let of = |models: &BTreeMap<String, Tokens>, name: &String| models.get(name).copied().unwrap_or_default();
    let row = |name: &String| {
        let (traced, stated) = (of(&traced.models, name), of(&stated.models, name));
        let (unseen, excess) = (stated.beyond(&traced), traced.beyond(&stated));
        Row { model: name.clone(), traced, stated, unseen, excess }
    };
    names.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(models: &str) -> Stated {
        let line = format!(r#"{{"type":"cost-state","sessionId":"s","totalCostUSD":0.5,"modelUsage":{models}}}"#);
        Stated::parse(line.as_bytes()).expect("totals")
    }

    #[test]
    fn only_lines_of_totals_are_totals() {
        for line in [
            &br#"{"type":"user","message":{"content":"\"cost-state\""}}"#[..],
            br#"{"type":"user","about":"cost-state"}"#,
            b"cost-state",
            b"",
        ] {
            assert_eq!(Stated::parse(line), None);
        }
        assert_eq!(stated("{}"), Stated { cost_usd: 0.5, models: BTreeMap::new() });
    }

    #[test]
    fn what_was_written_to_the_cache_for_an_unknown_time_was_so_for_five_minutes() {
        let known = r#"{"m[1m]":{"inputTokens":1,"outputTokens":2,"cacheReadInputTokens":3,"cacheCreationInputTokens":9,
            "cacheCreationEphemeral5mInputTokens":4,"cacheCreationEphemeral1hInputTokens":5}}"#;
        assert_eq!(stated(known).models["m"].counts(), [1, 2, 3, 4, 5]);
        let unknown =
            r#"{"m":{"inputTokens":1,"outputTokens":2,"cacheReadInputTokens":3,"cacheCreationInputTokens":9}}"#;
        assert_eq!(stated(unknown).models["m"].counts(), [1, 2, 3, 9, 0]);
    }

    #[test]
    fn more_and_less_are_told_apart_bucket_by_bucket() {
        let stated = stated(r#"{"a":{"inputTokens":5,"outputTokens":5},"b":{"outputTokens":1}}"#);
        let mut traced = Traced::default();
        traced.models.insert("a".into(), Tokens { input: 4, output: 6, ..Tokens::default() });
        traced.models.insert("c".into(), Tokens { input: 1, ..Tokens::default() });
        let rows = rows(&traced, &stated);
        let found: Vec<_> =
            rows.iter().map(|row| (row.model.as_str(), row.unseen.counts(), row.excess.counts())).collect();
        assert_eq!(
            found,
            [("a", [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]), ("b", [0, 1, 0, 0, 0], [0; 5]), ("c", [0; 5], [1, 0, 0, 0, 0]),]
        );
    }
}
