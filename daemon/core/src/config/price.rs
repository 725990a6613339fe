//! The user's own prices: `[[price]]` tables.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Problem, entries};
use crate::price::{Own, Rates};

pub(super) const PRICE: &str = "price";

const MODEL: &str = "model";
const SPEED: &str = "speed";
const INPUT: &str = "input";
const OUTPUT: &str = "output";
const CACHE_READ: &str = "cache_read";
const WRITE_5M: &str = "cache_write_5m";
const WRITE_1H: &str = "cache_write_1h";
const KEYS: [&str; 7] = [MODEL, SPEED, INPUT, OUTPUT, CACHE_READ, WRITE_5M, WRITE_1H];

/// US dollars per million tokens.
const MAX_PRICE: f64 = 1e6;

/// Parses one table.
pub(super) fn price(table: &Spanned<DeValue<'_>>) -> Result<Own, Problem> {
    let bad = |why: String| (table.span(), format!("`{PRICE}`: {why}"));
    let members: &DeTable<'_> = table.get_ref().as_table().ok_or_else(|| bad("each price must be a table".into()))?;
    let (mut model, mut speed) = (None, None);
    let mut rates = [None; 5];
    for (key, value) in entries(members, &KEYS)? {
        let rate = match key {
            MODEL | SPEED => {
                let text = value.get_ref().as_str().filter(|text| !text.trim().is_empty());
                let text = text.ok_or_else(|| (value.span(), format!("`{PRICE}`: `{key}` must be a string")))?;
                *(if key == MODEL { &mut model } else { &mut speed }) = Some(text.trim().to_owned());
                continue;
            }
            INPUT => 0,
            OUTPUT => 1,
            CACHE_READ => 2,
            WRITE_5M => 3,
            _ => 4,
        };
        let wanted =
            || (value.span(), format!("`{PRICE}`: `{key}` must be US dollars per million tokens, such as 3.0"));
        rates[rate] = Some(number(value.get_ref()).filter(|rate| (0.0..=MAX_PRICE).contains(rate)).ok_or_else(wanted)?);
    }
    let model = model.ok_or_else(|| bad(format!("a price has no `{MODEL}`")))?;
    let [Some(input), Some(output), cache_read, cache_write_5m, cache_write_1h] = rates else {
        return Err(bad(format!("the price of {model:?} needs both `{INPUT}` and `{OUTPUT}`")));
    };
    Ok(Own { model, speed, rates: Rates { input, output, cache_read, cache_write_5m, cache_write_1h } })
}

/// A number, with or without a point.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    let whole = value.as_integer().map(|int| int.as_str());
    whole.or_else(|| value.as_float().map(|float| float.as_str()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn prices_are_parsed_and_invalid_ones_name_their_line() {
        let text = "[[price]]\nmodel = \" mine \"\ninput = 3\noutput = 15.5\n[[price]]\nmodel = \"b\"\nspeed = \"fast\"\ninput = 0\noutput \
            = 1\ncache_write_1h = 2.5\n";
        let prices = Config::parse(text).unwrap().prices;
        assert_eq!((prices[0].model.as_str(), prices[0].rates.input, prices[0].rates.output), ("mine", 3.0, 15.5));
        assert_eq!((prices[1].speed.as_deref(), prices[1].rates.cache_write_1h), (Some("fast"), Some(2.5)));
        for (text, line, problem) in [
            ("price = 3", 1, "`price` must be a list of tables, each under `[[price]]`"),
            ("[[price]]\ninput = 1\noutput = 2", 1, "has no `model`"),
            ("[[price]]\nmodel = \"a\"\ninput = 1", 1, "needs both `input` and `output`"),
            ("\n[[price]]\nmodel = \"a\"\ninput = \"1\"\noutput = 2", 4, "must be US dollars"),
            ("[[price]]\nmodel = \"a\"\ninput = -1\noutput = 2", 3, "must be US dollars"),
            ("[[price]]\nmodel = \"a\"\ninput = nan\noutput = 2", 3, "must be US dollars"),
            ("[[price]]\nmodel = \" \"\ninput = 1\noutput = 2", 2, "`model` must be a string"),
            ("[[price]]\nmodel = \"a\"\ninptu = 1", 3, "did you mean `input`?"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.line == line && error.problem.contains(problem), "{text}: {error}");
        }
    }
}
