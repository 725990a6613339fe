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

use crate::transcript::record::{Nanos, Usage};

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
    /// US dollars by model, as far as the line says them.
    #[serde(skip)]
    pub costs: BTreeMap<String, f64>,
    /// When counting began, nanoseconds since the epoch: calls before are not in the totals.
    #[serde(skip)]
    pub since: Option<Nanos>,
}

impl Stated {
    /// `None` if `line` is not a `cost-state` line.
    pub fn parse(line: &[u8]) -> Option<Self> {
        memchr::memmem::find(&line[..line.len().min(256)], b"\"cost-state\"")?;
        let line: CostState =
            serde_json::from_slice(line).ok().filter(|line: &CostState| line.r#type == "cost-state")?;
        let since = line.start_time.and_then(|ms| ms.checked_mul(1_000_000));
        let mut stated = Self { cost_usd: line.total_cost_usd, since, ..Self::default() };
        for (name, usage) in line.model_usage {
            if let Some(cost) = usage.cost {
                *stated.costs.entry(model(&name).to_owned()).or_default() += cost;
            }
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
    /// Milliseconds since the epoch.
    #[serde(default, deserialize_with = "lenient")]
    start_time: Option<u64>,
}

/// A number, or nothing where there is anything else: one odd field costs that field.
fn lenient<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::Value::deserialize(from).ok().and_then(|value| T::deserialize(value).ok()))
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
    #[serde(rename = "costUSD", deserialize_with = "lenient")]
    cost: Option<f64>,
}

/// Some places add a suffix for the long context window.
pub(crate) fn model(name: &str) -> &str {
    name.strip_suffix("[1m]").unwrap_or(name)
}

/// One model's tokens from each source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub model: String,
    pub traced: Tokens,
    /// Of calls without a line that Claude Code's telemetry names.
    pub telemetry: Tokens,
    /// According to Claude Code.
    pub stated: Tokens,
    /// In no line of the transcript, and in no telemetry.
    pub unseen: Tokens,
    /// Traced but unknown to Claude Code.
    pub excess: Tokens,
}

/// Compares what is `traced` and what `telemetry` adds to it with what Claude Code says, model by model.
pub fn rows(traced: &BTreeMap<String, Tokens>, telemetry: &BTreeMap<String, Tokens>, stated: &Stated) -> Vec<Row> {
    let names: BTreeSet<&String> = traced.keys().chain(telemetry.keys()).chain(stated.models.keys()).collect();
    let of = |models: &BTreeMap<String, Tokens>, name: &String| models.get(name).copied().unwrap_or_default();
    let row = |name: &String| {
        let (traced, telemetry, stated) = (of(traced, name), of(telemetry, name), of(&stated.models, name));
        let mut known = traced;
        known += telemetry;
        let (unseen, excess) = (stated.beyond(&known), known.beyond(&stated));
        Row { model: name.clone(), traced, telemetry, stated, unseen, excess }
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
    fn only_cost_state_lines_are_totals() {
        for line in [
            &br#"{"type":"user","message":{"content":"\"cost-state\""}}"#[..],
            br#"{"type":"user","about":"cost-state"}"#,
            b"cost-state",
            b"",
        ] {
            assert_eq!(Stated::parse(line), None);
        }
        assert_eq!(stated("{}"), Stated { cost_usd: 0.5, ..Stated::default() });
    }

    #[test]
    fn cache_writes_of_unknown_lifetime_count_as_five_minutes() {
        let known = r#"{"m[1m]":{"inputTokens":1,"outputTokens":2,"cacheReadInputTokens":3,"cacheCreationInputTokens":9,
            "cacheCreationEphemeral5mInputTokens":4,"cacheCreationEphemeral1hInputTokens":5}}"#;
        assert_eq!(stated(known).models["m"].counts(), [1, 2, 3, 4, 5]);
        let unknown =
            r#"{"m":{"inputTokens":1,"outputTokens":2,"cacheReadInputTokens":3,"cacheCreationInputTokens":9}}"#;
        assert_eq!(stated(unknown).models["m"].counts(), [1, 2, 3, 9, 0]);
    }

    #[test]
    fn unseen_and_excess_tokens_are_compared_by_bucket() {
        let stated = stated(r#"{"a":{"inputTokens":5,"outputTokens":5},"b":{"outputTokens":1}}"#);
        let mut traced = BTreeMap::new();
        traced.insert("a".into(), Tokens { input: 4, output: 6, ..Tokens::default() });
        traced.insert("c".into(), Tokens { input: 1, ..Tokens::default() });
        let rows = rows(&traced, &BTreeMap::new(), &stated);
        let found: Vec<_> =
            rows.iter().map(|row| (row.model.as_str(), row.unseen.counts(), row.excess.counts())).collect();
        assert_eq!(
            found,
            [("a", [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]), ("b", [0, 1, 0, 0, 0], [0; 5]), ("c", [0; 5], [1, 0, 0, 0, 0]),]
        );
    }
}
