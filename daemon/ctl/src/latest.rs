//! The latest sessions with the tokens of their transcripts, as a table for `status` and `top`.

use std::{collections::HashMap, path::PathBuf, time::Instant};

use crate::{
    client, session, sessions,
    ui::table::{self, Fit},
};
use cc_core::status::Session;
use cc_langfuse::{
    clock,
    rebuild::{self, Used},
};

/// How many sessions `status` shows.
const SESSIONS: usize = 10;

/// Of this many bytes of transcripts `status` shows the tokens; reading more would make it slow.
const MAX_READ_BYTES: u64 = 64 << 20;

/// A growing transcript is read again after this many times the duration of the last read.
const REST_FACTOR: u32 = 20;

/// The usage of sessions, by transcript.
#[derive(Default)]
pub(crate) struct Tokens(pub(crate) HashMap<PathBuf, Account>);

/// What was read of a transcript.
#[derive(Clone)]
pub(crate) struct Account {
    used: Option<Used>,
    /// Its title, else its first prompt, masked.
    title: Option<String>,
    length: u64,
    again: Instant,
}

impl Tokens {
    /// Reads a transcript, unless it has not changed or was read just now.
    pub(crate) fn read(&mut self, session: &Session) {
        let Ok(length) = std::fs::metadata(&session.transcript).map(|meta| meta.len()) else { return };
        let known = self.0.get(&session.transcript);
        if known.is_some_and(|known| known.length == length || clock::monotonic() < known.again) {
            return;
        }
        let started = clock::monotonic();
        let used = rebuild::used(&session.transcript, &session.session_id).ok();
        let title = session::title(session, &client::config().map(|config| config.rules).unwrap_or_default());
        let again = clock::monotonic() + started.elapsed() * REST_FACTOR;
        self.0.insert(session.transcript.clone(), Account { used, title, length, again });
    }
}

/// The latest sessions with their tokens, for `status`.
pub(crate) fn lines(sessions: Vec<Session>, width: usize) -> Vec<String> {
    let sessions = sessions::newest(sessions);
    let (mut tokens, mut bytes) = (Tokens::default(), 0);
    for session in sessions.iter().take(SESSIONS) {
        let length = std::fs::metadata(&session.transcript).map_or(0, |meta| meta.len());
        // A long one keeps only its own tokens from being shown.
        if bytes + length <= MAX_READ_BYTES {
            bytes += length;
            tokens.read(session);
        }
    }
    table(&sessions, &tokens.0, width, SESSIONS)
}

/// A table of at most `most` sessions; a dash where the tokens are not known.
pub(crate) fn table(sessions: &[Session], used: &HashMap<PathBuf, Account>, width: usize, most: usize) -> Vec<String> {
    let now = jiff::Timestamp::now();
    let mut rows =
        vec![["SESSION", "TURNS", "LAST HEARD", "IN", "OUT", "CACHED", "COST", "TITLE"].map(str::to_owned).to_vec()];
    rows.extend(sessions.iter().take(most).map(|session| {
        let read = used.get(&session.transcript);
        let used = read.and_then(|read| read.used.as_ref());
        let title = session.title.as_ref().or_else(|| read?.title.as_ref());
        let count = |of: fn(&Used) -> u64| used.map_or_else(|| "-".to_owned(), |used| of(used).to_string());
        vec![
            table::clip(&session.session_id, 36),
            sessions::turns(session),
            table::ago(session.last_heard.as_deref(), now),
            count(|used| used.tokens.input + used.tokens.cache_write_5m + used.tokens.cache_write_1h),
            count(|used| used.tokens.output),
            count(|used| used.tokens.cache_read),
            used.map_or_else(|| "-".to_owned(), cost),
            title.map_or_else(|| "-".to_owned(), |title| table::clip(title, 40)),
        ]
    }));
    let mut fits = [Fit::Whole; 8];
    (fits[0], fits[7]) = (Fit::Id, Fit::End);
    table::lines(&table::fitted(rows, &fits, width))
}

fn cost(used: &Used) -> String {
    match used.cost_usd {
        Some(cost) => format!("${cost:.4}"),
        None => "-".to_owned(),
    }
}
