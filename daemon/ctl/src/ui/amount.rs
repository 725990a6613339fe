//! Numbers in forms that people write and read.

use std::time::Duration;

/// "1 turn", "2 turns".
pub(crate) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// A number and a unit; without a unit it is in seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u32 = digits.parse().map_err(|_| "a number and a unit, such as 30s".to_owned())?;
    let unit = match &text[digits.len()..] {
        "ms" => Duration::from_millis(1),
        "s" | "" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "d" => Duration::from_secs(24 * 3600),
        "w" => Duration::from_secs(7 * 24 * 3600),
        unit => return Err(format!("unknown unit {unit}: use ms, s, m, h, d or w")),
    };
    Ok(unit * number)
}

/// "812 B", "3.4 MiB".
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// "950", "12.3k", "4.5M": a count in few characters.
pub(crate) fn short(number: u64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    // A value that would be rounded to 1000 of a unit is shown in the next one.
    match units.into_iter().find(|(unit, _)| number as f64 >= unit * 0.999_95) {
        Some((unit, name)) => format!("{:.1}{name}", number as f64 / unit),
        None => number.to_string(),
    }
}

/// "$12.34"; below one dollar with four decimals.
pub(crate) fn dollars(amount: f64) -> String {
    if amount != 0.0 && amount.abs() < 1.0 { format!("${amount:.4}") } else { format!("${amount:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        for (number, expect) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (12_345, "12.3k"),
            (999_949, "999.9k"),
            (999_951, "1.0M"),
            (4_567_890_123, "4.6G"),
        ] {
            assert_eq!(short(number), expect);
        }
        for (amount, expect) in
            [(0.0, "$0.00"), (0.00012, "$0.0001"), (0.5, "$0.5000"), (12.345, "$12.35"), (1234.5, "$1234.50")]
        {
            assert_eq!(dollars(amount), expect);
        }
    }

    #[test]
    fn times_are_understood() {
        let seconds = |text| duration(text).map(|time| time.as_secs());
        assert_eq!((seconds("30d"), seconds("12h"), seconds("4w")), (Ok(2_592_000), Ok(43_200), Ok(2_419_200)));
        assert_eq!((seconds("90m"), seconds("7"), seconds("1500ms")), (Ok(5400), Ok(7), Ok(1)));
        for text in ["", "d", "3y", "-1d", "4294967296s", "99999999999999999999w"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(seconds("4294967295w").is_ok());
    }
}
