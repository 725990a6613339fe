//! `[budget]`: what a day may cost before it is shown in another colour. Nothing else depends on it, so what is wrong with it is no
//! error of the file: `config` and `doctor` say it, and there is no budget.

use toml::{Spanned, de::DeValue};

use super::price::number;

pub(super) const BUDGET: &str = "budget";

const DAY: &str = "day";

/// US dollars.
const MAX: f64 = 1e9;

/// US dollars for each day, or what is wrong.
pub type Budget = Result<f64, String>;

pub(super) fn read(value: &Spanned<DeValue<'_>>) -> Budget {
    let wanted = "it must be a table, as in `[budget]` and `day = 20.0`";
    let table = value.get_ref().as_table().ok_or_else(|| format!("`{BUDGET}`: {wanted}"))?;
    if let Some((key, _)) = table.iter().find(|(key, _)| key.get_ref() != DAY) {
        return Err(format!("`{BUDGET}`: unknown key `{}`, known is `{DAY}`", key.get_ref()));
    }
    let (_, day) = table.iter().next().ok_or_else(|| format!("`{BUDGET}` has no `{DAY}`"))?;
    let day = number(day.get_ref()).filter(|day| *day > 0.0 && *day <= MAX);
    day.ok_or_else(|| format!("`{BUDGET}`: `{DAY}` must be US dollars, more than 0, such as 20.0"))
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn a_budget_is_a_number_of_dollars_and_a_bad_one_spoils_nothing() {
        let budget = |text: &str| Config::parse(&format!("outbox_mib = 7\n{text}")).unwrap();
        for (text, day) in [
            ("", None),
            ("[budget]\nday = 20.0", Some(20.0)),
            ("[budget]\nday = 5", Some(5.0)),
            ("budget = { day = 0.5 }", Some(0.5)),
        ] {
            assert_eq!(budget(text).budget, day.map(Ok), "{text}");
        }
        for (text, why) in [
            ("[budget]\nday = 0", "more than 0"),
            ("[budget]\nday = -3.0", "more than 0"),
            ("[budget]\nday = nan", "more than 0"),
            ("[budget]\nday = inf", "more than 0"),
            ("[budget]\nday = '20'", "US dollars"),
            ("[budget]\nweek = 20.0", "unknown key `week`"),
            ("[budget]\n", "has no `day`"),
            ("budget = 20.0", "must be a table"),
            ("[[budget]]\nday = 20.0", "must be a table"),
        ] {
            let config = budget(text);
            let said = config.budget.unwrap().unwrap_err();
            assert!(said.contains(why) && config.outbox_bytes == 7 << 20, "{text}: {said}");
        }
    }
}
