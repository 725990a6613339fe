//! The daemon's life: build, start, serve, stop. Runs in the foreground until SIGTERM or SIGINT.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::Ordering, mpsc},
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    api::{self, Context},
    archive::{self, Archive, Pass},
    clock,
    configured::{self, Configured},
    consent_files::Consent,
    delivery::supervisor::{self, InFlight, Order},
    engine::{Engine, Input},
    environment,
    files::Identity,
    first_start,
    intake::{Drained, Intake},
    log, output,
    scan::Scan,
    serve, service,
    socket::{self, Denied},
    store::{Store, handle::Handle},
    telemetry::{self, Telemetry},
    watch::Watch,
};
use cc_core::status::Left;
use proto::paths::Paths;

mod opening;

/// How long the daemon waits at its end for the answer to the last batch.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// How often the daemon scans for sessions without a hook event.
const SCAN: Duration = Duration::from_secs(15 * 60);

/// How many of these the engine gets at once. Everything found in one pass over them is stored together, and a pass is short in
/// any case, so a small number would mean many transactions.
const HANDED_OVER_AT_ONCE: usize = 64;

/// How long after the end of a session its transcript is archived, and how soon one that is still being read is tried again.
const ARCHIVE_DELAY: Duration = Duration::from_secs(2);

/// How often that is tried before the next search.
const ARCHIVE_TRIES: usize = 5;

/// How far back sessions are looked at when one has ended.
const ARCHIVED_BACK: Duration = Duration::from_secs(15 * 60);

/// How soon sessions that are still being written are checked again.
const GROWING_POLL: Duration = Duration::from_millis(250);

/// Concurrent name lookups; each takes a thread, and the service may have few.
const MAX_LOOKUPS: usize = 4;

/// Receives Claude Code hook events, reads transcripts and delivers traces. Needs no arguments: everything comes from
/// HOME and from the events.
#[derive(Parser)]
#[command(name = "cc-langfused", version = crate::VERSION)]
struct Args {
    /// For `cc-langfusectl run`: ends with its standard input, a pipe, when everything is delivered, or after this many milliseconds
    #[arg(long, hide = true, value_name = "MS")]
    until_stdin_ends: Option<u64>,
    /// Leaves the terminal, for `cc-langfusectl start` and the hook
    #[arg(long, hide = true)]
    detached: bool,
    /// Then leaves nothing, unless something is not delivered
    #[arg(long, hide = true, requires = "until_stdin_ends")]
    ephemeral: bool,
}

/// Runs the daemon until SIGTERM or SIGINT.
pub fn main() -> ExitCode {
    private_memory();
    let args: Args = match output::arguments(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            // The reason must also be where the service manager looks for it.
            output::error(format_args!("cc-langfused: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Secrets are in memory, so this forbids core files and inspection by the user's other programs. If the system refuses even
/// this, the user has set the limits.
fn private_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

fn run(args: &Args) -> anyhow::Result<()> {
    let program = std::env::current_exe().ok().and_then(|path| Identity::of(&path));
    if args.detached {
        // The leader of a process group has no terminal that could end it.
        let _ = rustix::process::setsid();
    }
    let home = environment::home().context("HOME is not set")?;
    let paths = environment::paths(&home);
    anyhow::ensure!(!args.ephemeral || paths != Paths::new(&home, None), "the resident daemon's state is kept");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let lock = match socket::claim(&paths) {
        Err(Denied::AlreadyRunning) => {
            service::notify("STATUS=another daemon of this user is running");
            if args.until_stdin_ends.is_none() {
                output::error(format_args!(
                    "cc-langfused: already running: cc-langfusectl status shows it, cc-langfusectl restart replaces it"
                ));
            }
            return Ok(());
        }
        Err(denied @ Denied::Io(..)) => {
            let elsewhere =
                "where it cannot be written, CC_LANGFUSE_STATE_DIR names another directory by its absolute path";
            anyhow::bail!("{denied} ({elsewhere})")
        }
        other => other?,
    };
    let passed = service::passed().map_err(|error| Denied::Passed(paths.socket.clone(), error))?;
    let debug = environment::text("CC_LANGFUSE_DEBUG").is_some_and(|value| proto::env::enabled(&value));
    std::panic::set_hook(Box::new(|panic| {
        // Without the message, which may quote a conversation.
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(at, "a fault in this program");
    }));
    let evidence = first_start::Evidence::find(&paths.begun, &paths.log);
    let level = log::start(&paths.log, debug).with_context(|| format!("the log {}", paths.log.display()))?;
    let stamps = configured::stamps(&paths.config);
    let config = crate::config_file::load(&paths.config)?;
    let (store, made) = opening::open_database(&paths)?;
    let store = Handle::new(store);
    match first_start::recover(&store, made, evidence, clock::now_ms()) {
        Ok(true) => tracing::warn!("a database from before is lost: transcripts written to since then are read again"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "since when sessions are traced cannot be stored"),
    }
    store.call(|store| {
        store.trace_from_now(config.from_now);
        Ok(())
    })?;
    import_state(&store, &home);
    let (engine_sender, inputs) = mpsc::channel();
    let (orders, orders_receiver) = tokio::sync::mpsc::unbounded_channel();

    cc_core::price::set(config.prices.clone());
    let outbox_bytes = config.outbox_bytes;
    let configured = Configured::of_file(&home, &paths.config, &config, stamps);
    for (named, why) in configured.refused() {
        tracing::error!(destination = named.name, "nothing is sent there: {why}");
    }
    store.call(|store| store.configure(&configured.destinations()))?;
    let consent = Consent::new(&home, configured.clone());
    let roots = config.roots(&home);
    let receiver = config.telemetry.clone();
    let settings = archive::Settings {
        state: paths.state.clone(),
        limit: config.archive_bytes,
        rules: config.rules.clone(),
        roots: roots.clone(),
    };
    let archive = Archive::new(settings, store.clone(), consent.clone());
    let telemetry = if receiver.is_some() { Telemetry::on() } else { Telemetry::default() };
    let engine = Engine::new(store.clone(), orders.clone(), engine_sender.clone(), config, &home);
    let engine = engine.with_consent(consent.clone()).with_telemetry(telemetry.clone());
    let (of, refused) = (home.clone(), engine.refused());
    let unread = refused.clone();
    let settings = Default::default();
    let scan = Scan { store: store.clone(), roots, home: of, consent: consent.clone(), refused, settings };
    let (runs, engine_ended) = tokio::sync::oneshot::channel::<()>();
    let engine_thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
        let _runs = runs;
        engine.run(&inputs);
    })?;
    for row in store.call(|store| store.destinations())? {
        if row.waiting + row.media + row.scores > 0 {
            orders.send(Order::Wake(row.id, row.destination))?;
        }
    }

    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(MAX_LOOKUPS).enable_all().build()?;
    let intake = Intake::new(store.clone(), engine_sender.clone(), orders, consent, level);
    let in_flight = InFlight::default();
    let stop_sending = intake.orders.clone();
    let context = Context {
        intake,
        in_flight: in_flight.clone(),
        configured: configured.clone(),
        spool: paths.spool.clone(),
        refused: unread,
        outbox_bytes,
        started: clock::monotonic(),
        program,
        room: Context::room(),
        telemetry: telemetry.clone(),
        archive: archive.clone(),
    };
    let is_done_with = runtime.block_on(async {
        let listener = socket::listen(&paths, &lock, passed)?;
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut exporters =
            std::pin::pin!(supervisor::supervise(store.clone(), home, configured, in_flight.clone(), orders_receiver));
        // Spooled events are older than everything that is found otherwise.
        let Drained { taken, .. } = context.intake.drain(&paths.spool);
        tracing::debug!(taken, "events taken from the spool at the start");
        let spool = watch_spool(context.intake.clone(), paths.spool.clone());
        let scan = look_for_sessions(scan, engine_sender.clone(), paths.begun.clone());
        let mut owner = args.until_stdin_ends.map(|_| stdin()).transpose().context("standard input")?;
        tokio::spawn(keep_copies(archive, context.intake.ended.clone()));
        let known = context.clone();
        let abandoned = async {
            match &mut owner {
                Some(owner) => while owner.read(&mut [0]).await.is_ok_and(|read| read > 0) {},
                None => std::future::pending().await,
            }
            api::flushed(&known, Duration::from_millis(args.until_stdin_ends.unwrap_or_default())).await
        };
        if let Some(receiver) = receiver {
            let engine = engine_sender.clone();
            let news = move |session| drop(engine.send(Input::Telemetry(session)));
            tokio::spawn(telemetry::receive(receiver, telemetry, news));
        }
        let mut is_done_with = false;
        // A task of its own: waking this one costs two system calls each time.
        let mut server = tokio::spawn(serve::serve(listener, api::router(context.clone()), context.intake));
        tracing::info!(version = crate::VERSION, pid = std::process::id(), "started");
        service::notify("READY=1");
        tokio::select! {
            served = &mut server => match served? {},
            () = &mut exporters => {}
            () = spool => {}
            () = scan => {}
            // Without the engine, events would be accepted and never processed. The service manager starts a new daemon.
            _ = engine_ended => {}
            left = abandoned => is_done_with = args.ephemeral && left == Some(Left::default()),
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        service::notify("STOPPING=1");
        server.abort();
        let _ = server.await;
        // If the answer to a batch is not received, the next daemon sends it again.
        let _ = stop_sending.send(Order::Stop);
        let answered = async {
            while in_flight.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = &mut exporters => {}
            _ = tokio::time::timeout(LAST_ANSWER, answered) => {}
        }
        anyhow::Ok(is_done_with)
    })?;
    // A running transaction is completed; everything else is in the database or in the transcripts.
    let _ = engine_sender.send(Input::Stop);
    let engine_ended = engine_thread.join();
    // A scan may still hold the database, so it would not be closed.
    let _ = store.call(|store| {
        store.empty_log();
        Ok(())
    });
    // A name lookup may still take long.
    runtime.shutdown_background();
    tracing::info!("stopped");
    if engine_ended.is_err() {
        anyhow::bail!("a fault in this program; the log says where");
    }
    if is_done_with {
        std::fs::remove_dir_all(&paths.state).with_context(|| paths.state.display().to_string())?;
    }
    Ok(())
}

/// Standard input, which must be a pipe.
fn stdin() -> std::io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?)
}

/// Imports, once, which lines the Node tool has sent.
fn import_state(store: &Handle, home: &Path) {
    let path = home.join(cc_core::import_state::STATE);
    if !store.call(|store| store.seeks_import()).unwrap_or(false) {
        return;
    }
    let sessions = match crate::import_state_file::load(&path) {
        Ok(sessions) => sessions.unwrap_or_default(),
        Err(error) => {
            let path = path.display();
            return tracing::error!(%path, error, "the state of the Node tool is not taken over; fix it, or remove it");
        }
    };
    let taken = store.call(|store| {
        let taken = store.import(&sessions)?;
        store.import_was_sought(clock::now_ms())?;
        Ok(taken)
    });
    match taken {
        Ok(0) => {}
        Ok(taken) => tracing::info!(sessions = taken, "go on where the Node tool has stopped sending them"),
        Err(error) => tracing::error!(%error, "the state of the Node tool cannot be taken over"),
    }
}

/// Scans for sessions without a hook event, at the start and regularly. Passes them to the engine a few at a time, when
/// it asks for more, silent ones first.
async fn look_for_sessions(scan: Scan, engine: mpsc::Sender<Input>, marker: PathBuf) {
    loop {
        let (search, marker) = (scan.clone(), marker.clone());
        let found = tokio::task::spawn_blocking(move || {
            match search.store.call(Store::give_back) {
                Ok(Some(bytes)) => tracing::info!(bytes, "given back to the disk: the database had more than it needs"),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the database cannot be made smaller"),
            }
            let found = search.run(clock::now_ms());
            if let Err(error) = first_start::remember(&search.store, &marker) {
                tracing::debug!(%error, "since when sessions are traced cannot be written beside the database");
            }
            found
        });
        let found = found.await;
        let mut found = found.unwrap_or_default();
        if !found.is_empty() {
            tracing::debug!(sessions = found.len(), "found without a hook");
        }
        while !found.is_empty() {
            let scan = scan.clone();
            let taken = tokio::task::spawn_blocking(move || {
                let hints = scan.take(&mut found, HANDED_OVER_AT_ONCE, clock::now_ms());
                (found, hints)
            });
            let Ok((rest, hints)) = taken.await else { break };
            found = rest;
            // Some may still be written to, or none was traced.
            let wait = if hints.is_empty() { GROWING_POLL } else { Duration::ZERO };
            let (more, asked) = tokio::sync::oneshot::channel();
            if engine.send(Input::Found { hints, left: found.len(), more }).is_err() {
                return;
            }
            tokio::time::sleep(wait).await;
            let _ = asked.await;
        }
        tokio::time::sleep(SCAN).await;
    }
}

/// Archives transcripts: at the start, regularly, and when a session has ended.
async fn keep_copies(archive: Archive, ended: Arc<Notify>) {
    let run = |pass| {
        let archive = archive.clone();
        async move { tokio::task::spawn_blocking(move || archive.run(pass)).await.unwrap_or_default() }
    };
    let mut pass = Pass::All;
    loop {
        let mut later = run(pass).await;
        if !archive.is_on() {
            return;
        }
        for _ in 0..ARCHIVE_TRIES {
            if later == 0 {
                break;
            }
            tokio::time::sleep(ARCHIVE_DELAY).await;
            later = run(pass).await;
        }
        pass = match tokio::time::timeout(SCAN, ended.notified()).await {
            Err(_) => Pass::All,
            Ok(()) => {
                tokio::time::sleep(ARCHIVE_DELAY).await;
                Pass::Since(clock::now_ms() - ARCHIVED_BACK.as_millis() as i64)
            }
        };
    }
}

/// Takes the events that hooks left while no daemon answered: at the start, when a file appears, and regularly.
async fn watch_spool(intake: Intake, spool: PathBuf) {
    let appeared = Arc::new(Notify::new());
    let notify = appeared.clone();
    let mut watch = Watch::reporting(move |_| notify.notify_one());
    watch.add(&spool);
    loop {
        let Drained { taken, again } = intake.drain(&spool);
        if taken > 0 {
            tracing::info!(taken, "events taken from the spool");
        }
        let next = Duration::from_secs(if again { 1 } else { 30 });
        let _ = tokio::time::timeout(next, appeared.notified()).await;
    }
}
