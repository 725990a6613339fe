//! `sessions`: lists the sessions that the daemon knows.

use std::process::ExitCode;

use crate::{
    client::{self, Client},
    session,
    ui::table::{self, Fit},
};
use cc_core::status::Session;
use cc_langfuse::output;

/// Maximum length of a title that is shown, in characters.
const TITLE: usize = 40;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl sessions -n 5
  cc-langfusectl show \\
    \"$(cc-langfusectl sessions --json -n 1 | jq -r '.[0].session_id')\"")]
pub(crate) struct Sessions {
    /// Limit how many are shown
    #[arg(short = 'n', long = "number", value_name = "N")]
    most: Option<usize>,
    /// A JSON list
    #[arg(long)]
    json: bool,
    /// The ids alone, for completion; without a daemon those of the transcripts
    #[arg(long, hide = true)]
    ids: bool,
}

impl Sessions {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if self.ids {
            session::ids()?.iter().for_each(|id| out!("{id}"));
            return Ok(ExitCode::SUCCESS);
        }
        let mut sessions = newest(Client::new()?.status()?.sessions);
        sessions.truncate(self.most.unwrap_or(usize::MAX));
        if self.json {
            output::json(&sessions, true)?;
            return Ok(ExitCode::SUCCESS);
        }
        if sessions.is_empty() {
            out!("none yet: a session appears with its first hook event");
            return Ok(ExitCode::SUCCESS);
        }
        let (home, now) = (client::home()?, jiff::Timestamp::now());
        let rules = client::config().map(|config| config.rules).unwrap_or_default();
        let mut rows =
            vec![["SESSION", "TURNS", "LAST HEARD", "PROJECT", "TITLE", "TRANSCRIPT"].map(str::to_owned).to_vec()];
        rows.extend(sessions.iter().map(|session| {
            vec![
                table::clip(&session.session_id, 36),
                turns(session),
                table::ago(session.last_heard.as_deref(), now),
                session.project().map_or_else(|| "-".to_owned(), |dir| table::path(dir, &home)),
                session::title(session, &rules).map_or_else(|| "-".to_owned(), |title| table::clip(&title, TITLE)),
                table::path(&session.transcript, &home),
            ]
        }));
        table::print(rows, &[Fit::Id, Fit::Whole, Fit::Whole, Fit::Start, Fit::End, Fit::Spare]);
        Ok(ExitCode::SUCCESS)
    }
}

/// Sorted by their latest event, the newest first.
pub(crate) fn newest(mut sessions: Vec<Session>) -> Vec<Session> {
    let heard = |session: &Session| session.last_heard.as_ref()?.parse::<jiff::Timestamp>().ok();
    sessions.sort_by_key(|session| std::cmp::Reverse(heard(session)));
    sessions
}

/// "3", or "3, open" if the last turn may continue.
pub(crate) fn turns(session: &Session) -> String {
    if session.open_turn { format!("{}, open", session.turns) } else { session.turns.to_string() }
}
