//! `destinations`: where spans go, and moving or dropping those that wait for a destination that can no
//! longer be reached.

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::{
    client::Client,
    ui::{
        amount::count,
        table::{self, Fit},
        terminal,
    },
};
use cc_core::{
    status::{Destination, Place, Redirect},
    verdict::words,
};
use cc_langfuse::output::{self, Look};

/// How long a move may take: a full queue is rewritten.
const MOVE_TIMEOUT: Duration = Duration::from_secs(300);

/// How similar a name must be to be suggested.
const MIN_SIMILARITY: f64 = 0.6;

/// List where traces go, and what waits for each
///
/// A destination is known from the first hook event on that leads there. Where the key of one was revoked or rotated, `move` hands
/// what waits for it to another, and `drop` gives it up.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  cc-langfusectl destinations
  cc-langfusectl destinations move langfuse-1 langfuse-2
  cc-langfusectl destinations drop langfuse-1"
)]
pub(crate) struct Destinations {
    /// A JSON list: `name`, `kind`, `address`, `account`, `state`, `waiting`, `delivered`, `last_error`
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    change: Option<Change>,
}

#[derive(clap::Subcommand)]
enum Change {
    /// Send what waits for one destination to another
    ///
    /// What the other was sent before is not sent to it again.
    Move {
        /// The one: its name, address or account
        old: String,
        /// The other
        new: String,
    },
    /// Drop what waits for a destination, for good
    ///
    /// It asks first. `status` shows what was dropped as `dropped_spans` and `dropped_media`.
    Drop {
        /// Its name, address or account
        name: String,
        /// Assume yes
        #[arg(long)]
        yes: bool,
    },
}

/// A destination in the form of `--json`.
#[derive(Serialize)]
struct Row<'d> {
    name: &'d str,
    kind: &'d str,
    address: &'d str,
    account: &'d str,
    state: &'d str,
    waiting: u64,
    delivered: u64,
    last_error: Option<&'d str>,
}

impl Destinations {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let daemon = Client::new()?;
        let known = daemon.status()?.destinations;
        match self.change {
            None => list(&known, self.json),
            Some(Change::Move { old, new }) => {
                let (from, to) = (named(&known, &old)?, named(&known, &new)?);
                move_to(&daemon, from, to)
            }
            Some(Change::Drop { name, yes }) => drop_waiting(&daemon, named(&known, &name)?, yes),
        }
    }
}

fn list(known: &[Destination], json: bool) -> anyhow::Result<ExitCode> {
    let rows = known.iter().map(|to| Row {
        name: &to.name,
        kind: &to.kind,
        address: &to.base_url,
        account: &to.public_key,
        state: &to.state,
        waiting: to.waiting,
        delivered: to.delivered,
        last_error: to.last_error.as_deref(),
    });
    if json {
        output::json(&rows.collect::<Vec<_>>(), true)?;
        return Ok(ExitCode::SUCCESS);
    }
    if known.is_empty() {
        out!("none yet: a destination appears with the first hook event that goes there");
        return Ok(ExitCode::SUCCESS);
    }
    let heads = ["NAME", "STATE", "WAITING", "DELIVERED", "ACCOUNT", "ADDRESS", "LAST ERROR"].map(str::to_owned);
    let row = |row: Row<'_>| {
        vec![
            row.name.to_owned(),
            row.state.to_owned(),
            row.waiting.to_string(),
            row.delivered.to_string(),
            table::clip(row.account, 40),
            table::clip(row.address, 200),
            row.last_error.map_or_else(|| "-".to_owned(), |why| table::clip(&words(why), 200)),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(heads.to_vec()).chain(rows.map(row)).collect();
    for (look, line) in lines(rows, terminal::width()) {
        let _ = output::painted(look, format_args!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The table. Where an address would be cut, which then is of no use, it has a line of its own.
fn lines(rows: Vec<Vec<String>>, width: Option<usize>) -> Vec<(Look, String)> {
    const ADDRESS: usize = 5;
    const ERROR: usize = 20;
    let without: Vec<Vec<String>> = rows.iter().map(|row| row[..=ADDRESS].to_vec()).collect();
    let needed = table::lines(&without).iter().map(|line| table::width(line)).max().unwrap_or_default() + ERROR;
    let look = |index: usize| if index == 0 { Look::Bold } else { Look::Plain };
    match width.filter(|width| *width < needed) {
        None => {
            let fits = [Fit::Whole, Fit::Whole, Fit::Whole, Fit::Whole, Fit::Whole, Fit::Whole, Fit::End];
            let rows = width.map_or_else(|| rows.clone(), |width| table::fitted(rows.clone(), &fits, width));
            table::lines(&rows).into_iter().enumerate().map(|(index, line)| (look(index), line)).collect()
        }
        Some(_) => {
            let figures: Vec<Vec<String>> = rows.iter().map(|row| row[..4].to_vec()).collect();
            let mut found = Vec::new();
            for (index, (line, row)) in table::lines(&figures).into_iter().zip(&rows).enumerate() {
                found.push((look(index), line));
                if index > 0 {
                    found.push((Look::Plain, format!("  {}", row[ADDRESS])));
                    found.push((Look::Plain, format!("  {}", row[ADDRESS - 1])));
                }
                if index > 0 && row[ADDRESS + 1] != "-" {
                    found.push((Look::Plain, format!("  {}", row[ADDRESS + 1])));
                }
            }
            found
        }
    }
}

/// The destination `name`: by its name, or by an address or account that no other has.
fn named<'d>(known: &'d [Destination], name: &str) -> anyhow::Result<&'d Destination> {
    if let Some(found) = known.iter().find(|to| to.name == name) {
        return Ok(found);
    }
    let at = name.trim_end_matches('/');
    let meant: Vec<_> = known.iter().filter(|to| to.public_key == name || to.base_url == at).collect();
    let names = |those: &[&Destination]| those.iter().map(|to| &*to.name).collect::<Vec<_>>().join(", ");
    match meant[..] {
        [one] => Ok(one),
        [] => {
            let like = |to: &&Destination| strsim::normalized_damerau_levenshtein(name, &to.name) >= MIN_SIMILARITY;
            match known.iter().filter(like).collect::<Vec<_>>() {
                _ if known.is_empty() => bail!("no destination is known yet"),
                near if near.is_empty() => {
                    bail!("no destination {name}; there are {}", names(&known.iter().collect::<Vec<_>>()))
                }
                near => bail!("no destination {name}; did you mean {}?", names(&near)),
            }
        }
        _ => bail!("several destinations are called {name}: name one of {}", names(&meant)),
    }
}

fn place(to: &Destination) -> Place {
    Place { kind: to.kind.clone(), base_url: to.base_url.clone(), public_key: to.public_key.clone() }
}

fn move_to(daemon: &Client, from: &Destination, to: &Destination) -> anyhow::Result<ExitCode> {
    let request = Redirect { from: place(from), to: Some(place(to)) };
    let moved = daemon
        .clone()
        .with_timeout(MOVE_TIMEOUT)
        .redirect(&request)
        .context("not everything was moved: run it again")?;
    out!("{} that waited for {} will go to {}", spans(moved.spans), from.name, to.name);
    if moved.media > 0 {
        out!("{} images and documents as well", moved.media);
    }
    if moved.known > 0 {
        out!("{} were sent there before and are not sent again", spans(moved.known));
    }
    if moved.left > 0 {
        out!("{} stay: an earlier version stored them in a form that only {} accepts", spans(moved.left), from.kind);
    }
    behind(moved.behind);
    Ok(if moved.left > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn drop_waiting(daemon: &Client, to: &Destination, yes: bool) -> anyhow::Result<ExitCode> {
    let what = format!("{} waiting for {} ({}, {})", spans(to.waiting), to.name, to.base_url, to.public_key);
    if !yes {
        if !std::io::stdin().is_terminal() {
            err!("cc-langfusectl: this would drop {what}; say --yes");
            return Ok(ExitCode::from(2));
        }
        if !terminal::confirms(&format!("Drop {what} for good?"))? {
            out!("nothing was dropped");
            return Ok(ExitCode::FAILURE);
        }
    }
    let dropped = daemon.clone().with_timeout(MOVE_TIMEOUT).redirect(&Redirect { from: place(to), to: None })?;
    out!("{} dropped, {} images and documents", spans(dropped.spans), dropped.media);
    behind(dropped.behind);
    Ok(ExitCode::SUCCESS)
}

fn behind(sessions: u64) {
    if sessions > 0 {
        let sessions = count(usize::try_from(sessions).unwrap_or(usize::MAX), "session");
        out!("{sessions} had more to read for it: cc-langfusectl backfill sends that to where their projects go now");
    }
}

fn spans(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "observation")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(rows: &[(&str, &str, &str)]) -> Vec<Destination> {
        let row = |(name, address, account): &(&str, &str, &str)| {
            serde_json::from_value(serde_json::json!({
                "name": name, "kind": "langfuse", "base_url": address, "public_key": account, "state": "ok", "waiting": 0,
                "waiting_bytes": 0, "full": false, "oldest_waiting": null, "delivered": 0, "rejected": 0, "last_success": null,
                "last_error": null, "last_error_at": null,
            }))
        };
        rows.iter().map(row).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn an_address_is_whole_in_any_width() {
        let address = "https://langfuse.internal.example.org/observability";
        let row = |cells: [&str; 7]| cells.map(str::to_owned).to_vec();
        let rows = vec![
            row(["NAME", "STATE", "WAITING", "DELIVERED", "ACCOUNT", "ADDRESS", "LAST ERROR"]),
            row(["langfuse-1", "ok", "0", "12", "pk-lf-01234567", address, "-"]),
            row([
                "langfuse-2",
                "parked",
                "3",
                "0",
                "pk-lf-89abcdef",
                address,
                "HTTP 401: no such key, or another server",
            ]),
        ];
        for width in [None, Some(200), Some(120), Some(80), Some(60)] {
            let found = lines(rows.clone(), width);
            let whole = found.iter().filter(|(_, line)| line.contains(address)).count();
            assert_eq!(whole, 2, "{width:?}: {found:?}");
            assert!(found.iter().all(|(_, line)| width.is_none_or(|width| table::width(line) <= width)), "{found:?}");
        }
    }

    #[test]
    fn a_destination_is_named_by_what_no_other_has() {
        let known = known(&[
            ("langfuse-1", "https://one.example", "pk-a"),
            ("langfuse-2", "https://one.example", "pk-b"),
            ("otlp-3", "https://two.example/v1/traces", "genai"),
        ]);
        for (name, expect) in [
            ("langfuse-1", Ok("langfuse-1")),
            ("pk-b", Ok("langfuse-2")),
            ("https://two.example/v1/traces/", Ok("otlp-3")),
            ("https://one.example", Err("name one of langfuse-1, langfuse-2")),
            ("otlp-4", Err("did you mean otlp-3?")),
            ("zzz", Err("there are langfuse-1, langfuse-2, otlp-3")),
            ("", Err("no destination")),
        ] {
            match (named(&known, name), expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found.name, expect, "{name}"),
                (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{name}: {error}"),
                (found, expect) => panic!("{name}: {:?}, not {expect:?}", found.map(|found| &found.name)),
            }
        }
        assert!(named(&[], "x").unwrap_err().to_string().contains("known yet"));
    }
}
