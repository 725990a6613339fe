//! `dead-letters`: spans that no server accepts.

use std::{process::ExitCode, time::Duration};

use crate::{
    client::Client,
    ui::amount::{self, size},
};
use cc_core::status::{Fate, Settle};
use cc_langfuse::output;

/// Selects one dead letter or all.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    All,
    One(i64),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            _ => text.parse().map(Self::One).map_err(|_| "the number of a dead letter, or all".to_owned()),
        }
    }
}

pub(crate) fn list(json: bool) -> anyhow::Result<ExitCode> {
    let letters = Client::new()?.dead_letters()?;
    if json {
        output::json(&letters, true)?;
        return Ok(ExitCode::SUCCESS);
    }
    if letters.is_empty() {
        out!("none");
    }
    for letter in letters {
        let since = letter.since.as_deref().unwrap_or("-");
        out!("{:<6}{} {:>10}  since {since}  {}", letter.id, letter.span_id, size(letter.bytes), letter.base_url);
        out!("      {}", letter.reason);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn settle(which: Which, fate: Fate) -> anyhow::Result<ExitCode> {
    let id = match which {
        Which::All => None,
        Which::One(id) => Some(id),
    };
    let count = Client::new()?.with_timeout(Duration::from_secs(60)).settle(&Settle { id, fate })?;
    let spans = amount::count(count, "observation");
    match fate {
        Fate::Retry => out!("{spans} will be sent again"),
        Fate::Drop => out!("{spans} dropped"),
    }
    Ok(if count == 0 && id.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
