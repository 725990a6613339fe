//! The cost of a call in US dollars, by Anthropic's API list prices. Knows models under the names of Anthropic, Bedrock, Vertex
//! and gateways. An unknown model has no cost rather than a wrong one.
//!
//! Prices are as of [`AS_OF`]; `config.toml` can set others.

use std::sync::OnceLock;

use crate::observation::Usage;

/// When the table was last compared with Anthropic's price list.
pub const AS_OF: &str = "2026-08-20";

/// US dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Neither read from the cache nor written to it.
    pub input: f64,
    /// Including thinking.
    pub output: f64,
    /// `None` if the model has no cache.
    pub cache_read: Option<f64>,
    pub cache_write_5m: Option<f64>,
    pub cache_write_1h: Option<f64>,
}

/// A price from `config.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    /// In any of its names.
    pub model: String,
    /// `None` for the usual speed.
    pub speed: Option<String>,
    pub rates: Rates,
}

/// In US dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Including the cache.
    pub input: f64,
    pub output: f64,
}

impl Cost {
    pub fn total(&self) -> f64 {
        self.input + self.output
    }
}

/// Anthropic's cache prices relative to the input price: 0.1 for reads, 1.25 and 2 for writes.
const fn cached(input: f64, output: f64) -> Rates {
    Rates {
        input,
        output,
        cache_read: Some(input * 0.1),
        cache_write_5m: Some(input * 1.25),
        cache_write_1h: Some(input * 2.0),
    }
}

/// Cache prices of the models whose reads cost 0.05 of the input.
const fn cheaply_read(input: f64, output: f64) -> Rates {
    Rates { cache_read: Some(input * 0.05), ..cached(input, output) }
}

/// A model without a cache, or with unknown cache prices.
const fn plain(input: f64, output: f64) -> Rates {
    Rates { input, output, cache_read: None, cache_write_5m: None, cache_write_1h: None }
}

/// Family, version, speed, and rates.
const TABLE: &[(&str, &[u32], Option<&str>, Rates)] = &[
    ("", &[1, 1], None, plain(8.0, 24.0)),
    ("", &[1, 2], None, plain(8.0, 24.0)),
    ("", &[1, 3], None, plain(8.0, 24.0)),
    ("", &[2], None, plain(8.0, 24.0)),
    ("", &[2, 1], None, plain(8.0, 24.0)),
    ("instant", &[1], None, plain(1.63, 5.51)),
    ("instant", &[1, 2], None, plain(1.63, 5.51)),
    ("haiku", &[3], None, plain(0.25, 1.25)),
    ("haiku", &[3, 5], None, cached(0.8, 4.0)),
    ("haiku", &[4, 5], None, cached(1.0, 5.0)),
    // Those of version 5.5 as Claude Code 2.1.332 counts them, by the list price as it says.
    ("haiku", &[5, 5], None, cached(0.1, 0.5)),
    ("sonnet", &[3], None, cached(3.0, 15.0)),
    ("sonnet", &[3, 5], None, cached(3.0, 15.0)),
    ("sonnet", &[3, 7], None, cached(3.0, 15.0)),
    ("sonnet", &[4], None, cached(3.0, 15.0)),
    ("sonnet", &[4, 5], None, cached(3.0, 15.0)),
    ("sonnet", &[4, 6], None, cached(3.0, 15.0)),
    ("sonnet", &[5], None, cached(2.0, 10.0)),
    ("sonnet", &[5, 5], None, cheaply_read(2.0, 10.0)),
    ("opus", &[3], None, plain(15.0, 75.0)),
    ("opus", &[4], None, cached(15.0, 75.0)),
    ("opus", &[4, 1], None, cached(15.0, 75.0)),
    ("opus", &[4, 5], None, cached(5.0, 25.0)),
    ("opus", &[4, 6], None, cached(5.0, 25.0)),
    ("opus", &[4, 7], None, cached(5.0, 25.0)),
    ("opus", &[4, 8], None, cached(5.0, 25.0)),
    ("opus", &[4, 8], Some("fast"), cached(10.0, 50.0)),
    ("opus", &[5], None, cached(5.0, 25.0)),
    ("opus", &[5], Some("fast"), cached(10.0, 50.0)),
    ("opus", &[5, 5], None, cheaply_read(4.0, 20.0)),
    ("fable", &[5], None, cached(10.0, 50.0)),
    ("mythos", &[5], None, cached(10.0, 50.0)),
];

const FAMILIES: [&str; 6] = ["instant", "haiku", "sonnet", "opus", "fable", "mythos"];

/// Prices from `config.toml`, which override the table.
static OWN: OnceLock<Vec<Own>> = OnceLock::new();

/// Sets the prices that override the table, for the rest of the process: encoding a span twice must give the same bytes. Later
/// calls change nothing.
pub fn set(prices: Vec<Own>) {
    let _ = OWN.set(prices);
}

/// The cost of `usage` at `speed` (`None`: the usual one). `None` if any price it needs is unknown.
pub fn cost(model: &str, speed: Option<&str>, usage: Usage) -> Option<Cost> {
    cost_with(OWN.get().map_or(&[], Vec::as_slice), model, speed, usage)
}

/// The rates of `model` at `speed`, if it is known.
pub fn rates(model: &str, speed: Option<&str>) -> Option<Rates> {
    rates_with(OWN.get().map_or(&[], Vec::as_slice), model, speed)
}

fn cost_with(own: &[Own], model: &str, speed: Option<&str>, usage: Usage) -> Option<Cost> {
    rates_with(own, model, speed)?.cost(usage)
}

fn rates_with(own: &[Own], model: &str, speed: Option<&str>) -> Option<Rates> {
    let wanted = Name::of(model);
    let is_speed = |known: Option<&str>| known.unwrap_or(USUAL).eq_ignore_ascii_case(speed.unwrap_or(USUAL));
    let is_same = |one: &Own| {
        bare(&one.model).eq_ignore_ascii_case(bare(model)) || wanted.is_some() && Name::of(&one.model) == wanted
    };
    let found = own.iter().rev().find(|one| is_same(one) && is_speed(one.speed.as_deref())).map(|one| one.rates);
    let of_table = || {
        let name = wanted.as_ref()?;
        let is_it =
            |(family, version, _, _): &&(&str, &[u32], _, _)| *family == name.family && *version == name.version;
        TABLE.iter().find(|row| is_it(row) && is_speed(row.2)).map(|row| row.3)
    };
    found.or_else(of_table)
}

/// Claude Code's name for the usual speed.
const USUAL: &str = "standard";

impl Rates {
    /// `None` if a price that `usage` needs is unknown.
    pub fn cost(&self, usage: Usage) -> Option<Cost> {
        let dollars = |tokens: u64, rate: Option<f64>| match (tokens, rate) {
            (0, _) => Some(0.0),
            (tokens, rate) => Some(tokens as f64 * rate? / 1e6),
        };
        // An unknown lifetime counts as five minutes, the API's default.
        let short = usage.cache_write_5m.saturating_add(usage.cache_write);
        let input = dollars(usage.input, Some(self.input))?
            + dollars(usage.cache_read, self.cache_read)?
            + dollars(short, self.cache_write_5m)?
            + dollars(usage.cache_write_1h, self.cache_write_1h)?;
        Some(Cost { input, output: dollars(usage.output, Some(self.output))? })
    }
}

/// A model's name without the suffix for the long context window.
fn bare(model: &str) -> &str {
    let model = model.trim();
    model.strip_suffix("[1m]").unwrap_or(model)
}

/// A model of Anthropic's, by whatever name.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    family: String,
    version: Vec<u32>,
}

impl Name {
    /// Parses names such as `claude-sonnet-4-5-20250929[1m]`, `us.anthropic.claude-opus-4-6-v1:0`, `claude-haiku-4-5@20251001`,
    /// `anthropic/claude-3.7-sonnet:thinking` and `publishers/anthropic/models/claude-sonnet-4`. `None` for any other.
    fn of(model: &str) -> Option<Self> {
        let model = bare(model).to_ascii_lowercase();
        let at = model.rfind("claude-")?;
        // The prefix is a provider, a region or a path, which end in one of these.
        if !(model[..at].is_empty() || model[..at].ends_with(['.', '/', '-', '~'])) {
            return None;
        }
        let rest = &model[at + "claude-".len()..];
        // A Bedrock version or a gateway's variant.
        let rest = rest.split_once(':').map_or(rest, |(rest, _)| rest);
        let (mut family, mut version) = (String::new(), Vec::new());
        let mut words = rest.split(['-', '@', '.']).peekable();
        while let Some(word) = words.next() {
            let is_last = words.peek().is_none();
            match word.parse::<u32>() {
                Ok(_) if word.len() == 8 && is_last_but_version(&mut words) => {}
                Ok(number) if word.len() <= 2 && word.bytes().all(|b| b.is_ascii_digit()) => version.push(number),
                Err(_) if FAMILIES.contains(&word) && family.is_empty() => word.clone_into(&mut family),
                Err(_) if matches!(word, "v1" | "v2") && !version.is_empty() => {}
                Err(_) if is_last && matches!(word, "latest" | "default") && !version.is_empty() => {}
                _ => return None,
            }
        }
        if version.len() > 1 && version.last() == Some(&0) {
            version.pop();
        }
        (!version.is_empty()).then_some(Self { family, version })
    }
}

/// True if only a Bedrock version is left.
fn is_last_but_version<'w>(words: &mut std::iter::Peekable<impl Iterator<Item = &'w str>>) -> bool {
    words.peek().is_none_or(|word| matches!(*word, "v1" | "v2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million tokens in every bucket.
    const ALL: Usage = Usage {
        input: 1_000_000,
        output: 1_000_000,
        cache_read: 1_000_000,
        cache_write_5m: 1_000_000,
        cache_write_1h: 1_000_000,
        cache_write: 0,
    };
    const TEXT: Usage = Usage { cache_read: 0, cache_write_5m: 0, cache_write_1h: 0, ..ALL };

    fn rates(model: &str, speed: Option<&str>) -> Option<(f64, f64)> {
        cost_with(&[], model, speed, TEXT).map(|cost| (cost.input, cost.output))
    }

    #[test]
    fn a_model_has_the_same_price_under_all_its_names() {
        for (price, names) in [
            (
                (3.0, 15.0),
                &[
                    "claude-sonnet-4-5-20250929",
                    "claude-sonnet-4-5",
                    "claude-sonnet-4-5-20250929[1m]",
                    "claude-sonnet-4-5-latest",
                    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                    "global.anthropic.claude-sonnet-4-5-20250929-v1:0[1m]",
                    "anthropic.claude-3-5-sonnet-20241022-v2:0",
                    "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-20250514-v1:0",
                    "bedrock/us.anthropic.claude-3-7-sonnet-20250219-v1:0",
                    "claude-sonnet-4-5@20250929",
                    "claude-3-5-sonnet-v2@20241022",
                    "claude-sonnet-4-6@default",
                    "vertex_ai/claude-sonnet-4@20250514",
                    "publishers/anthropic/models/claude-sonnet-4-6",
                    "anthropic/claude-sonnet-4.5",
                    "openrouter/anthropic/claude-3.7-sonnet:thinking",
                    "anthropic--claude-4.5-sonnet",
                    "databricks-claude-sonnet-4-5",
                    "Claude-3.5-Sonnet-Latest",
                    "claude-sonnet-4-0",
                    " claude-3-sonnet-20240229 ",
                ][..],
            ),
            ((1.0, 5.0), &["claude-haiku-4-5-20251001", "anthropic/claude-haiku-4.5", "claude-haiku-4-5@20251001"]),
            ((0.8, 4.0), &["claude-3-5-haiku-20241022", "anthropic.claude-3-5-haiku-20241022-v1:0"]),
            ((15.0, 75.0), &["claude-opus-4-1-20250805", "claude-opus-4-20250514", "claude-3-opus-20240229"]),
            (
                (5.0, 25.0),
                &[
                    "claude-opus-4-5-20251101",
                    "claude-opus-4-6",
                    "us.anthropic.claude-opus-4-6-v1",
                    "claude-opus-5[1m]",
                ],
            ),
            ((2.0, 10.0), &["claude-sonnet-5", "claude-5-sonnet", "claude-sonnet-5-5"]),
            ((4.0, 20.0), &["claude-opus-5-5", "claude-opus-5-5[1m]"]),
            ((0.1, 0.5), &["claude-haiku-5-5"]),
            ((10.0, 50.0), &["claude-fable-5", "claude-mythos-5"]),
            ((8.0, 24.0), &["claude-2.1", "claude-2.0"]),
            ((1.63, 5.51), &["claude-instant-1.2", "claude-instant-1"]),
        ] {
            for name in names {
                assert_eq!(rates(name, None), Some(price), "{name}");
            }
        }
    }

    #[test]
    fn unknown_models_and_speeds_have_no_cost() {
        for model in [
            "",
            "claude",
            "claude-",
            "claude-sonnet",
            "claude-sonnet-4-9",
            "claude-sonnet-45",
            "claude-opus-9",
            "claude-sonnet-4-5-preview",
            "claude-sonnet-4-5-20250929-turbo",
            "claude-opus-sonnet-4",
            "notclaude-sonnet-4-5",
            "gpt-5",
            "<synthetic>",
            "sonnet",
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc",
        ] {
            assert_eq!(rates(model, None), None, "{model}");
        }
    }

    #[test]
    fn fast_mode_has_its_own_price_if_the_model_has_one() {
        for (model, speed, expect) in [
            ("claude-opus-4-8", None, Some((5.0, 25.0))),
            ("claude-opus-4-8", Some("standard"), Some((5.0, 25.0))),
            ("claude-opus-4-8", Some("fast"), Some((10.0, 50.0))),
            ("claude-opus-5", Some("fast"), Some((10.0, 50.0))),
            ("claude-opus-4-7", Some("fast"), None),
            ("claude-opus-5", Some("warp"), None),
        ] {
            assert_eq!(rates(model, speed), expect, "{model} {speed:?}");
        }
    }

    #[test]
    fn each_token_bucket_has_its_price() {
        let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
        let cost = |usage| cost_with(&[], "claude-sonnet-4-5", None, usage).unwrap();
        assert!(near(cost(ALL).input, 3.0 + 0.3 + 3.75 + 6.0) && near(cost(ALL).total(), 13.05 + 15.0));
        // From a recorded call.
        let usage = Usage {
            input: 101,
            output: 201,
            cache_read: 4001,
            cache_write_5m: 101,
            cache_write_1h: 200,
            cache_write: 0,
        };
        assert!(near(cost(usage).total(), 0.006_097_05), "{:?}", cost(usage));
        let unsaid = Usage { cache_write_5m: 0, cache_write: 101, ..usage };
        assert_eq!(cost(unsaid), cost(usage), "a time that is not said is five minutes");
        assert_eq!(cost_with(&[], "claude-3-opus-20240229", None, ALL), None, "it has no price for the cache");
        assert_eq!(cost_with(&[], "claude-sonnet-4-5", None, Usage::default()).map(|cost| cost.total()), Some(0.0));
        let most = Usage { input: u64::MAX, output: u64::MAX, cache_write_5m: u64::MAX, cache_write: u64::MAX, ..ALL };
        assert!(cost(most).total().is_finite());
    }

    #[test]
    fn the_users_own_prices_override_the_table() {
        let own = |model: &str, speed: Option<&str>, input| Own {
            model: model.into(),
            speed: speed.map(str::to_owned),
            rates: plain(input, 1.0),
        };
        let prices = [
            own("claude-sonnet-4-5", None, 1.5),
            own("my-gateway/Blue", None, 7.0),
            own("claude-opus-4-7", Some("fast"), 9.0),
            own("my-gateway/blue", None, 8.0),
        ];
        let input = |model: &str, speed| cost_with(&prices, model, speed, TEXT).map(|cost| cost.input);
        assert_eq!(input("us.anthropic.claude-sonnet-4-5-20250929-v1:0", None), Some(1.5));
        assert_eq!(input("my-gateway/blue[1m]", None), Some(8.0), "the last one counts");
        assert_eq!(input("claude-opus-4-7", Some("fast")), Some(9.0));
        assert_eq!(input("claude-opus-4-7", None), Some(5.0));
        assert_eq!(input("my-gateway/red", None), None);
    }

    #[test]
    fn the_table_names_each_model_once() {
        for (at, row) in TABLE.iter().enumerate() {
            assert!(!TABLE[..at].iter().any(|other| (other.0, other.1, other.2) == (row.0, row.1, row.2)), "{row:?}");
            assert!(row.0.is_empty() || FAMILIES.contains(&row.0));
        }
        assert!(AS_OF.parse::<jiff::civil::Date>().is_ok());
    }
}
