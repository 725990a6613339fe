//! `cc-langfusectl`: the tool for people, with and without the daemon.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make their own files"))]

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use cc_core::status::Fate;
use cc_langfuse::output;

/// Prints one line, as [`output`] does.
macro_rules! out {
    () => { out!("") };
    ($($text:tt)*) => { cc_langfuse::output::line(format_args!($($text)*)) };
}

/// Prints one line to standard error.
macro_rules! err {
    ($($text:tt)*) => { cc_langfuse::output::error(format_args!($($text)*)) };
}

mod backfill;
mod client;
mod completions;
mod config;
mod dead_letters;
mod delivered;
mod destinations;
mod detached;
mod doctor;
mod forget;
mod help;
mod hidden;
mod history;
mod import_state;
mod kinds;
mod latest;
mod logs;
mod mcp;
mod open;
mod pause;
mod programs;
mod reconcile;
mod replay;
mod resident;
mod run;
mod score;
mod session;
mod sessions;
mod setup;
mod show;
mod sink;
mod status;
mod statusline;
mod top;
mod traced;
mod trust;
mod r#try;
mod ui;
mod uninstall;
mod usage;
mod view;

/// Inspect and control the tracing of Claude Code sessions.
///
/// Exit codes: 0 fine, 1 a problem or something left undone, 2 wrong usage, 3 the daemon is not running.
#[derive(Parser)]
#[command(name = "cc-langfusectl", version = cc_langfuse::VERSION)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See it work: a sample session through the real hook and a private daemon, with no account needed
    ///
    /// With LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_BASE_URL set, the sample goes to that server.
    Try(r#try::Try),
    /// Set up tracing: check the keys, register the hook, start the daemon
    Setup(setup::Setup),
    /// Undo what `setup` did
    Uninstall(uninstall::Uninstall),
    Doctor(doctor::Doctor),
    /// Run Claude Code traced, without touching any settings
    ///
    /// Its exit code is that of the program: 127 if there is none, 126 if it cannot be executed, 128 and the signal's number if a
    /// signal ended it.
    Run(run::Run),
    #[command(hide = true)]
    RunClaude(run::tree::RunClaude),
    /// Show what the daemon is doing, what waits, and what went wrong
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Watch events, queue, destinations and sessions with their tokens
    ///
    /// Without a terminal it is `status`.
    Top(top::Top),
    /// List the sessions the daemon knows, newest first
    Sessions(sessions::Sessions),
    /// Print the address of a session's last turn; on a terminal, open it too
    Open(open::Open),
    /// Print the turns of a session, without daemon or network
    Show {
        /// A session: its id or the beginning of it, a part of its title, or the path of its transcript; without it, the latest of
        /// this directory
        session: Option<String>,
        /// The observations as they would be sent, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at every session on this machine in the browser, with no account and no daemon
    View(view::View),
    /// Add up tokens and cost by day, project, model, tool and more, without daemon or network
    Usage(usage::Usage),
    Statusline(statusline::Statusline),
    Mcp(mcp::Mcp),
    /// Compare the tokens of a session as traced with Claude Code's own totals
    ///
    /// Exit code 1 if more is traced than Claude Code counted. Less is normal: some calls leave no line in the transcript.
    Reconcile {
        /// A session, as for `show`
        session: Option<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Start the daemon: through the service manager if it is set up there, otherwise in the background
    Start,
    /// Stop the daemon; nothing is lost, hooks keep their events
    Stop,
    /// Restart the daemon, for example after an upgrade
    Restart,
    /// Print the daemon's log
    Logs(logs::Logs),
    /// Wait until everything known is processed and delivered
    Flush {
        /// How long to wait at most: 500ms, 30s, 5m
        #[arg(long, default_value = "30s", value_parser = crate::ui::amount::duration)]
        timeout: Duration,
    },
    /// Send history: every turn of every session that was not sent before, with its original times
    Backfill(backfill::Backfill),
    #[command(hide = true)]
    /// Send a transcript's turns; what was sent before is not sent again
    Replay {
        /// A session, as for `show`
        session: Option<String>,
        /// Only show what would be sent
        #[arg(long)]
        dry_run: bool,
        /// Send only to destinations of this kind (langfuse, mlflow, otlp), or to the one of this name
        #[arg(long, value_name = "KIND or NAME", value_parser = kinds::to)]
        to: Option<kinds::To>,
    },
    /// Take over from the Node tool that traced before, so that nothing is sent twice
    #[command(hide = true)]
    ImportState(import_state::ImportState),
    /// Send nothing from a project, or from all, until `resume`
    ///
    /// Turns that happen during the pause are not sent later either. What waits already still goes out.
    Pause(pause::Projects),
    /// End a `pause`
    Resume(pause::Projects),
    /// Delete a session's traces on the server, and what waits here to be sent
    Forget(forget::Forget),
    /// Give a score to a turn or a session, where it was sent
    Score(score::Score),
    /// List observations that the server refused for good, send them again, or drop them
    DeadLetters {
        /// Send this one again, by its number, or `all`
        #[arg(long, value_name = "ID", conflicts_with = "drop")]
        retry: Option<dead_letters::Which>,
        /// Drop this one for good, or `all`
        #[arg(long, value_name = "ID")]
        drop: Option<dead_letters::Which>,
        /// A JSON list
        #[arg(long)]
        json: bool,
    },
    Destinations(destinations::Destinations),
    /// Allow a server that a project's files chose
    ///
    /// Claude Code hands the settings of a project to its hooks. Where a file that others can write (a repository, an archive, the
    /// `settings.json` that a project shares) names the server, the account, a key or turns tracing on, spans wait until you trust
    /// that account at that server.
    Trust {
        /// The server, as `status` shows it
        base_url: String,
        /// The account's public key; not needed where only one is held there
        public_key: Option<String>,
        /// Withdraw trust
        #[arg(long)]
        revoke: bool,
    },
    /// Show every setting and where it comes from
    Config(config::Config),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the manual page, or write those of all commands
    Man(completions::Man),
}

fn main() -> ExitCode {
    output::say_faults("cc-langfusectl");
    // Claude Code waits for it, and every other command has to be known to read arguments.
    if std::env::args_os().skip(1).eq(["statusline"]) {
        return statusline::Statusline::default().run();
    }
    let args: Args = match output::arguments_of(&help::command(), &run::as_called(std::env::args_os().collect())) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let outcome = match args.command {
        Command::Try(command) => command.run(),
        Command::Setup(setup) => setup.run(),
        Command::Uninstall(uninstall) => uninstall.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Run(run) => run.run(),
        Command::RunClaude(claude) => claude.run(),
        Command::Status { json } => status::status(json),
        Command::Top(command) => command.run(),
        Command::Sessions(command) => command.run(),
        Command::Open(command) => command.run(),
        Command::Show { session, json } => show::show(session.as_deref(), json),
        Command::View(command) => command.run(),
        Command::Usage(command) => command.run(),
        Command::Mcp(command) => command.run(),
        Command::Statusline(command) => Ok(command.run()),
        Command::Reconcile { session, json } => reconcile::reconcile(session.as_deref(), json),
        Command::Start => resident::start(),
        Command::Stop => resident::stop(),
        Command::Restart => resident::restart(),
        Command::Logs(command) => command.run(),
        Command::Flush { timeout } => status::flush(timeout),
        Command::Backfill(backfill) => backfill.run(),
        Command::Replay { session, dry_run, to } => replay::replay(session.as_deref(), dry_run, to),
        Command::ImportState(import) => import.run(),
        Command::Pause(projects) => projects.set(true),
        Command::Resume(projects) => projects.set(false),
        Command::Forget(forget) => forget.run(),
        Command::Score(score) => score.run(),
        Command::DeadLetters { retry: Some(which), .. } => dead_letters::settle(which, Fate::Retry),
        Command::DeadLetters { drop: Some(which), .. } => dead_letters::settle(which, Fate::Drop),
        Command::DeadLetters { json, .. } => dead_letters::list(json),
        Command::Destinations(command) => command.run(),
        Command::Trust { base_url, public_key, revoke } => trust::trust(&base_url, public_key, revoke),
        Command::Config(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let code = if error.is::<client::NotRunning>() { 3 } else { 1 };
            session::report(&error);
            ExitCode::from(code)
        }
    }
}
