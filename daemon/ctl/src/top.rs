//! `top`: a small live view.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    client::Client,
    latest::{self, Account, Tokens},
    sessions, status,
    ui::{
        amount::size,
        screen::{Screen, Wake},
        table::{self, Fit},
        terminal,
    },
};
use cc_core::status::{Session, Status};
use cc_langfuse::{clock, output::Look as Style};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl top --interval 2s

Tokens are those of the transcripts. The cost of a session is what Claude Code wrote when it ended; of one that continues, the
list price of its tokens. A dash: not known.")]
pub(crate) struct Top {
    /// How often to look: 500ms, 2s
    #[arg(long, default_value = "1s", value_parser = crate::ui::amount::duration)]
    interval: Duration,
    /// The same as `status`, which replaced it
    #[arg(long, hide = true)]
    once: bool,
}

impl Top {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if self.once || !terminal::is_there() {
            return status::status(false);
        }
        live(Look::now()?, self.interval.max(Duration::from_millis(100)))
    }
}

/// The daemon's state at one moment.
struct Look {
    status: Status,
    at: Instant,
}

impl Look {
    fn now() -> anyhow::Result<Self> {
        let mut status = Client::new()?.status()?;
        status.sessions = sessions::newest(status.sessions);
        Ok(Self { status, at: clock::monotonic() })
    }

    fn sessions(&self) -> &[Session] {
        &self.status.sessions
    }

    /// The rate at which a count grew since an earlier state of the same daemon.
    fn rate(&self, before: Option<&Self>, count: impl Fn(&Status) -> Option<u64>) -> Option<f64> {
        let before = before.filter(|before| before.status.daemon.pid == self.status.daemon.pid)?;
        let grown = count(&self.status)?.checked_sub(count(&before.status)?)?;
        Some(grown as f64 / (self.at - before.at).as_secs_f64().max(1e-3))
    }
}

/// The lines of the view, none longer than `width`, with at most `most` sessions.
fn view(
    look: &Look,
    before: Option<&Look>,
    used: &HashMap<PathBuf, Account>,
    width: usize,
    most: usize,
) -> Vec<String> {
    let status = &look.status;
    let per_second = |rate: Option<f64>| rate.map_or_else(String::new, |rate| format!(", {rate:.1}/s"));
    let heard = look.rate(before, |status| Some(status.inbox.heard));
    let mut lines = vec![
        format!("cc-langfused {}   pid {}   up {} s", status.daemon.version, status.daemon.pid, status.daemon.uptime_s),
        format!("events        {} heard{}, {} waiting", status.inbox.heard, per_second(heard), status.inbox.pending),
        format!(
            "observations  {} waiting, {} on their way, {} undeliverable",
            status.outbox.pending, status.outbox.in_flight, status.dead_letters
        ),
    ];
    if let Some(trouble) = &status.store_error {
        lines.push(format!("database      cannot be written: {}", trouble.error));
    }
    lines.push(String::new());
    let mut rows = vec![["DESTINATION", "STATE", "DELIVERED", "RATE", "WAITING", "BYTES"].map(str::to_owned).to_vec()];
    rows.extend(status.destinations.iter().map(|to| {
        let delivered = |status: &Status| {
            let same = |other: &&cc_core::status::Destination| {
                (&other.base_url, &other.public_key) == (&to.base_url, &to.public_key)
            };
            status.destinations.iter().find(same).map(|to| to.delivered)
        };
        let rate = look.rate(before, delivered).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}/s"));
        let waiting = to.waiting.to_string();
        vec![to.name.clone(), to.state.clone(), to.delivered.to_string(), rate, waiting, size(to.waiting_bytes)]
    }));
    let fits = [Fit::End, Fit::Whole, Fit::Whole, Fit::Whole, Fit::Whole, Fit::Whole];
    let mut rows = table::lines(&table::fitted(rows, &fits, width)).into_iter();
    lines.extend(rows.next());
    for (row, to) in rows.zip(&status.destinations) {
        lines.push(row);
        // The address comes first, so that a long account does not hide it.
        lines.push(format!("  {} ({})", to.base_url, to.public_key));
    }
    lines.push(String::new());
    lines.extend(latest::table(look.sessions(), used, width, most));
    lines.into_iter().map(|line| table::clip(&line, width.min(10_000))).collect()
}

/// Highlights the first line and the headings of the tables.
fn styled(lines: Vec<String>) -> Vec<(Style, String)> {
    let style = |(index, line): (usize, String)| {
        let head = index == 0 || line.starts_with("DESTINATION") || line.starts_with("SESSION");
        (if head { Style::Bold } else { Style::Plain }, line)
    };
    lines.into_iter().enumerate().map(style).collect()
}

/// Draws until `q` is pressed or a signal comes, and always restores the terminal.
fn live(first: Look, interval: Duration) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut wake = runtime.block_on(async { Wake::new() })?;
    let tokens = Arc::new(Mutex::new(Tokens::default()));
    let (to_reader, wanted) = std::sync::mpsc::sync_channel::<Vec<Session>>(1);
    let reader = tokens.clone();
    std::thread::Builder::new().name("tokens".into()).spawn(move || read_tokens(&wanted, &reader))?;
    let screen = Screen::open()?;
    let (mut look, mut before) = (first, None::<Look>);
    let mut said = None::<String>;
    loop {
        let (width, height) = screen.size();
        let most = height.saturating_sub(8 + 2 * look.status.destinations.len()).max(1);
        let _ = to_reader.try_send(look.sessions().iter().take(most).cloned().collect());
        let mut lines = {
            let tokens = tokens.lock().unwrap_or_else(PoisonError::into_inner);
            view(&look, before.as_ref(), &tokens.0, width, most)
        };
        if let Some(why) = &said {
            lines.insert(1, table::clip(why, width));
        }
        screen.draw(&styled(lines))?;
        if !wake.wait(&runtime, interval) {
            return Ok(ExitCode::SUCCESS);
        }
        match Look::now() {
            Ok(next) => {
                before = Some(std::mem::replace(&mut look, next));
                said = None;
            }
            // The last state stays visible; the daemon may be restarting.
            Err(error) => said = Some(format!("{error:#}")),
        }
    }
}

/// Reads transcripts in parallel to the drawing, one at a time, so that each is shown as soon as it is read.
fn read_tokens(wanted: &std::sync::mpsc::Receiver<Vec<Session>>, tokens: &Mutex<Tokens>) {
    while let Ok(sessions) = wanted.recv() {
        for session in sessions {
            let known = || tokens.lock().unwrap_or_else(PoisonError::into_inner);
            let mut own = Tokens(known().0.get_key_value(&session.transcript).map(cloned).into_iter().collect());
            own.read(&session);
            known().0.extend(own.0);
        }
    }
}

fn cloned((path, account): (&PathBuf, &Account)) -> (PathBuf, Account) {
    (path.clone(), account.clone())
}
