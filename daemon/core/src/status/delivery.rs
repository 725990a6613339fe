//! `POST /v1/delivery` and `/v1/deliveries`: what became of some traces, or of several groups of them, at each destination.

use serde::{Deserialize, Serialize};

/// How many traces one request may ask for at most.
pub const TRACES: usize = 4000;

/// The request.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct AskDelivery {
    /// In hexadecimal.
    pub traces: Vec<String>,
}

/// A destination, and how many spans of those traces have which state there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Delivery {
    /// Its name in `config.toml`, or its kind and a number.
    pub name: String,
    /// Such as `langfuse`.
    pub kind: String,
    pub base_url: String,
    /// The account.
    pub public_key: String,
    /// `ok`, `retrying`, `parked` or `held`, as in `status`.
    pub state: String,
    pub delivered: u64,
    pub waiting: u64,
    /// No longer sent: the server took them for bad ones, or a person dropped them.
    pub refused: u64,
}

impl Delivery {
    /// True if it has none of these spans.
    pub fn is_empty(&self) -> bool {
        self.delivered + self.waiting + self.refused == 0
    }

    /// Its state in a few words.
    pub fn words(&self) -> String {
        let mut words = Vec::new();
        if self.waiting > 0 {
            let stuck = ["parked", "held"].contains(&self.state.as_str());
            words.push(if stuck {
                format!("{} {}", self.waiting, self.state)
            } else {
                format!("{} waiting", self.waiting)
            });
        }
        if self.refused > 0 {
            words.push(format!("{} refused", self.refused));
        }
        if words.is_empty() { "delivered".to_owned() } else { words.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_what_is_not_delivered() {
        let of = |state: &str, waiting, refused| {
            Delivery { state: state.to_owned(), delivered: 3, waiting, refused, ..Delivery::default() }.words()
        };
        for (found, expect) in [
            (of("ok", 0, 0), "delivered"),
            (of("parked", 0, 0), "delivered"),
            (of("ok", 2, 0), "2 waiting"),
            (of("held", 2, 0), "2 held"),
            (of("parked", 2, 1), "2 parked, 1 refused"),
            (of("ok", 0, 1), "1 refused"),
        ] {
            assert_eq!(found, expect);
        }
    }
}
