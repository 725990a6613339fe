//! `setup`: from keys to traces. Every change is shown first, recorded, and reverted by `uninstall`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use zeroize::Zeroizing;

use crate::{
    client, doctor, programs,
    ui::{progress::Busy, terminal},
};
use apart::{KeysIn, Place};
use cc_core::{
    claude::events,
    destination::{
        Destination, Kind,
        langfuse::{DEFAULT_BASE_URL, SECRET_KEY},
        pages::Project,
    },
    settings::{Desired, apply, block, edit, registered, words},
};
use cc_langfuse::{
    credentials::{is_tracked, layers},
    environment,
    git::fate as git,
};
use choice::{Choice, Keys};
use commits::{exclude, refuse, refuse_store, refuse_tracked, secret_files};
use files::{Change, Part, Record};
use keys::Before;
use native_otel::NativeOtel;
use proto::paths::Paths;
use semantics::{MEASURED, SEMANTICS, semantics};
use service::Manager;
use status_line::StatusLine;

mod apart;
mod choice;
mod commits;
mod daemon;
pub(crate) mod files;
mod keys;
mod mlflow;
mod native_otel;
mod otlp;
pub(crate) mod plan;
mod semantics;
pub(crate) mod service;
mod status_line;
mod typed;

/// What to set up. What is not given is asked for on a terminal.
#[derive(clap::Args)]
#[command(after_help = "\
Everybody on this machine can see a secret key in a command line. Let setup ask for it, or give it in
LANGFUSE_SECRET_KEY, or on the standard input with `--secret-key -`.

Examples:
  cc-langfusectl setup
  cc-langfusectl setup --project --dry-run
  LANGFUSE_SECRET_KEY=sk-lf-… cc-langfusectl setup --user --yes \\
    --public-key pk-lf-… --base-url https://cloud.langfuse.com
  pass langfuse | cc-langfusectl setup --project --yes \\
    --public-key pk-lf-… --secret-key -
  cc-langfusectl setup --mlflow --project --experiment claude \\
    --tracking-uri http://127.0.0.1:5000
  cc-langfusectl setup --otlp http://127.0.0.1:6006/v1/traces --user")]
pub(crate) struct Setup {
    /// Trace all projects: hook and keys go into your own settings of Claude Code
    #[arg(long, conflicts_with = "project")]
    user: bool,
    /// Trace this project: hook and keys go into its .claude/settings.local.json, which is not committed
    #[arg(long)]
    project: bool,
    /// The Langfuse project's public key [env: LANGFUSE_PUBLIC_KEY]
    #[arg(long, value_name = "PK")]
    public_key: Option<String>,
    /// Its secret key; `-` reads it from the standard input [env: LANGFUSE_SECRET_KEY]
    #[arg(long, value_name = "SK", allow_hyphen_values = true)]
    secret_key: Option<String>,
    #[allow(rustdoc::bare_urls, reason = "it is shown as it is")]
    /// The server [env: LANGFUSE_BASE_URL] [default: https://cloud.langfuse.com]
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Where the keys go: into Claude Code's settings, or beside config.toml of cc-langfuse, for settings that git tracks
    #[arg(long, value_enum, value_name = "WHERE", conflicts_with = "mlflow")]
    keys_in: Option<KeysIn>,
    /// A command that writes the secret key, such as "pass show langfuse": the daemon runs it, and the key is stored nowhere
    #[arg(long, value_name = "CMD", conflicts_with_all = ["secret_key", "mlflow"])]
    secret_command: Option<String>,
    /// Assume yes to every question
    #[arg(long, short)]
    yes: bool,
    /// Do not ask the server whether it knows the keys
    #[arg(long)]
    no_check: bool,
    /// Do not install and start the daemon as a service
    #[arg(long)]
    no_service: bool,
    /// Show every line that would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave out what was said before tracing was set up, also in sessions that are open now; `backfill` can send it later
    #[arg(long)]
    from_now: bool,
    /// Have Claude Code send its own telemetry to the daemon too: for times to the first token, permission waits, retries, and calls
    /// that no transcript has. It goes with --user
    #[arg(long, conflicts_with = "project")]
    native_otel: bool,
    /// Show cost, cache and delivery in Claude Code's status line, where none is set
    #[arg(long)]
    statusline: bool,
    /// Trace to this receiver of OTLP in place of Langfuse: Phoenix, a Collector, …; headers and
    /// the other CC_LANGFUSE_OTLP_ variables are taken from the environment
    #[arg(long, value_name = "URL", conflicts_with_all = ["public_key", "secret_key", "base_url", "mlflow", "keys_in", "secret_command"])]
    otlp: Option<String>,
    /// Trace to MLflow in place of Langfuse, and turn MLflow's own integration off
    #[arg(long, conflicts_with_all = ["public_key", "secret_key", "base_url", "no_check"])]
    mlflow: bool,
    /// The MLflow server, or a directory [env: MLFLOW_TRACKING_URI] [default: .claude/mlflow/runs of each project]
    #[arg(long, value_name = "URI", requires = "mlflow")]
    tracking_uri: Option<String>,
    /// The experiment there, made if it is missing [env: MLFLOW_EXPERIMENT_NAME] [default: experiment 0]
    #[arg(long, value_name = "NAME", requires = "mlflow")]
    experiment: Option<String>,
}

/// Which settings are changed.
enum Scope {
    /// The user's.
    User,
    /// The settings of the project in this directory.
    Project(PathBuf),
}

impl Setup {
    /// Runs the whole setup.
    ///
    /// # Errors
    /// If something prevents it. Then nothing was changed, or the message says what.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let no_terminal =
            |missing: Vec<_>| usage(&format!("there is no terminal to ask on: add {}", missing.join(", ")));
        if !(terminal::is_there() || self.user || self.project) {
            return Ok(no_terminal(self.missing(&Before::default())));
        }
        let (home, paths) = (client::home()?, client::paths()?);
        let scope = self.scope(&home)?;
        let place = match self.place(&scope, &home, &paths)? {
            Ok(place) => place,
            Err(why) => return Ok(usage(&why)),
        };
        let there = files::read(&files::real(&scope.file(&home))?)?;
        let there = there.and_then(|text| block::env_block(text.as_bytes()).ok()).unwrap_or_default();
        let before = Before::of(&there).or(place.before(&paths));
        let missing = self.missing(&before);
        if !terminal::is_there() && !missing.is_empty() {
            return Ok(no_terminal(missing));
        }
        if self.native_otel && scope.dir().is_some() {
            return Ok(usage(
                "Claude Code takes the address for its telemetry only from your own settings: use --user",
            ));
        }
        let (hook, daemon) = (programs::ours("cc-langfuse-hook")?, programs::ours("cc-langfused")?);
        let choice = if self.mlflow {
            mlflow::choice(self.tracking_uri.as_deref(), self.experiment.as_deref(), scope.dir()).map(Choice::Mlflow)
        } else if let Some(endpoint) = &self.otlp {
            otlp::choice(endpoint).map(Choice::Otlp)
        } else {
            self.keys(&before, place.secret(&home)?)?.map(Choice::Langfuse)
        };
        let choice = match choice {
            Ok(choice) => choice,
            Err(why) => return Ok(usage(&why)),
        };
        if let Choice::Langfuse(keys) = &choice
            && let Some(Project { name, id, .. }) = &keys.project
        {
            out!("project       {name} ({id}) at {}", keys.destination.address);
        }
        if let Choice::Mlflow(mlflow) = &choice {
            out!("MLflow        {}", mlflow.place);
        }
        if let Choice::Otlp(otlp) = &choice {
            out!("OTLP          {}", otlp.place);
        }
        let version = {
            let _busy = Busy::with("asking Claude Code for its version".to_owned());
            programs::claude(&home).and_then(|claude| programs::version(claude).ok()?.ok())
        };
        let events = events(version);
        let known = version.map_or("not found; only events that every version knows".to_owned(), |v| v.to_string());
        match terminal::is_there() {
            true => out!("Claude Code   {known}: {} events", events.len()),
            false => out!("Claude Code   {known}: {}", events.join(", ")),
        }
        let plugin = doctor::live_plugin(scope.dir(), &home)?;
        let events = if plugin.is_some() { Vec::new() } else { events };
        if let Some(name) = plugin {
            out!("plugin        {name} registers the hook, so it is not registered again");
        }
        out!("hook          {hook}");
        if programs::is_fleeting(Path::new(&hook)) {
            out!(
                "              this is not a permanent location: install the programs, as in ~/.local/bin, and run \
                    setup from there"
            );
        }

        let _alone = files::alone(&home)?;
        let mut record = Record::load(&paths)?;
        let mut changes = Vec::new();
        let file = files::real(&scope.file(&home))?;
        // What is to hold the secret.
        let secret_file = match (&choice, &place) {
            (Choice::Mlflow(_) | Choice::Otlp(_), _) | (_, Place::Settings) => Some(file.clone()),
            (_, Place::File) => Some(files::real(&apart::secret_file(&paths))?),
            (_, Place::Command(_)) => None,
        };
        if secret_file.as_ref() == Some(&file) {
            refuse_tracked(&scope.file(&home), scope.instead())?;
        }
        secret_file.iter().try_for_each(|file| refuse_tracked(file, scope.instead()))?;
        let elsewhere = scope.elsewhere(&home, &file);
        let own = files::read(&file)?.and_then(|text| block::env_block(text.as_bytes()).ok()).unwrap_or_default();
        let semantics = semantics(&own, &elsewhere);
        match semantics {
            Some(MEASURED) if self.is_keyless() => {
                out!(
                    "semantics     {MEASURED} (in {SEMANTICS}): each call has its own times, and the tool results it was given"
                );
            }
            Some(MEASURED) => out!(
                "semantics     {MEASURED} (in {SEMANTICS}): Langfuse counts cached tokens too, and shows what tools \
                    gave back"
            ),
            _ => out!("semantics     already set by {SEMANTICS}"),
        }
        let mut env = if place.is_settings() { choice.env() } else { vec![(proto::env::TRACE, "true")] };
        env.extend(semantics.map(|value| (SEMANTICS, value)));
        let otel = native_otel::choose(&own, self.native_otel)?;
        env.extend(otel.iter().flat_map(NativeOtel::env));
        let replaces_mlflow = self.mlflow.then(|| mlflow::is_plugin_on(&scope.others(&home, &file)));
        let line = match StatusLine::new(self.statusline, &file, &scope.others(&home, &file), &record)? {
            Ok(line) => line,
            Err(why) => return Ok(usage(&why)),
        };
        let status_line = line.wanted();
        let desired =
            Desired { hook: &hook, events: &events, env: &env, elsewhere: &elsewhere, replaces_mlflow, status_line };
        let of_settings = settings(&file, desired, &record)?;
        // First, before there is anything to commit.
        let store = match &choice {
            Choice::Mlflow(mlflow) => mlflow.store.as_deref().map(git::followed),
            Choice::Langfuse(_) | Choice::Otlp(_) => None,
        };
        changes.extend(exclude(secret_file.as_deref(), store.as_deref(), &record, scope.instead())?);
        if let (Choice::Langfuse(keys), Place::File, Some(path)) = (&choice, &place, &secret_file) {
            changes.extend(whole(path, apart::secret_text(keys), 0o600, &record)?);
        }
        changes.extend(of_settings);
        let manager = if self.no_service { None } else { Manager::find() };
        let table = match &choice {
            Choice::Langfuse(keys) => Some(place.table(keys, scope.dir(), &paths)),
            Choice::Mlflow(_) | Choice::Otlp(_) => None,
        };
        let by_hook = manager.is_none() && !self.no_service;
        let telemetry = otel.as_ref().and_then(|otel| otel.line.as_deref());
        changes.extend(daemon::of_config(by_hook, self.from_now, telemetry, table, &paths, &record)?);
        if let Some(manager) = manager {
            for (path, text) in manager.files(&home, &paths, &daemon)? {
                if !(record.plain && path.ends_with(service::DROP_IN)) {
                    changes.extend(whole(&path, text, 0o644, &record)?);
                }
            }
        }
        out!();
        match (self.dry_run, terminal::is_there()) {
            (true, _) => plan::show_whole(&changes),
            (false, true) => plan::show(&changes, &home),
            (false, false) => plan::show_details(&changes, &home),
        }
        if changes.is_empty() {
            out!("nothing to change");
        }
        if self.dry_run {
            out!("dry run: nothing was changed");
            return Ok(ExitCode::SUCCESS);
        }
        if !changes.is_empty() {
            let with_line = || match line.offered() {
                Some(command) => settings(&file, Desired { status_line: Some(command), ..desired }, &record),
                None => Ok(None),
            };
            if !self.yes && !plan::agrees(&mut changes, &home, plan::show_details, with_line()?)? {
                out!("nothing was changed");
                return Ok(ExitCode::from(1));
            }
            let before = record.clone();
            let half = "not everything was done: run this again, or undo it with cc-langfusectl uninstall";
            for change in &changes {
                record.make(change, &paths).context(half)?;
                // The new line may have no effect: git is asked again, before the secret is written.
                if let Part::Lines(_) = change.part
                    && change.path != paths.config
                    && let Err(why) = secret_files(secret_file.as_deref())?
                        .iter()
                        .try_for_each(|file| refuse(file, scope.instead()))
                        .and_then(|()| refuse_store(store.as_deref()))
                {
                    record.unmake(change, before, &paths).context(half)?;
                    return Err(why);
                }
            }
            out!("done          cc-langfusectl uninstall undoes it");
            status_line::prepare(&file, &paths.state);
        }
        // The daemon reads both when it starts.
        let unit_changed = changes.iter().any(|change| change.part == Part::Whole || change.path == paths.config);
        let code = daemon::serve(manager, &home, &paths, &mut record, unit_changed, self.no_service)?;
        match &scope {
            Scope::User => out!("next          use Claude Code in any project"),
            Scope::Project(dir) => out!("next          use Claude Code in {}", dir.display()),
        }
        let is_from_now = client::config().is_ok_and(|config| config.from_now);
        match is_from_now {
            true => out!(
                "              sessions that are open now are traced from their next prompt on; what was said before \
                    is left out"
            ),
            false => out!(
                "              sessions that are open now are traced from their next prompt on, and their earlier turns come with it \
                 (--from-now leaves those out)"
            ),
        }
        if !self.no_check && terminal::is_there() {
            let dir = scope.dir().map_or_else(std::env::current_dir, |dir| Ok(dir.to_owned()))?;
            doctor::short(&dir, &home, &paths)?;
        }
        Ok(code)
    }

    /// True for a destination other than Langfuse, which has no keys to ask for.
    fn is_keyless(&self) -> bool {
        self.mlflow || self.otlp.is_some()
    }

    /// Required answers that were not given and are not known from `before`.
    fn missing(&self, before: &Before) -> Vec<&'static str> {
        let given = |flag: &Option<String>, name| flag.is_some() || variable(name).is_some();
        let known = self.known(before);
        let public = self.public_key.clone().or_else(|| variable("PUBLIC_KEY"));
        let has_secret = self.secret_command.is_some() || given(&self.secret_key, "SECRET_KEY");
        let is_same = public.is_none() || public == known.public;
        [
            ("--user or --project", self.user || self.project),
            ("--public-key", self.is_keyless() || public.is_some() || known.public.is_some()),
            ("--secret-key", self.is_keyless() || has_secret || is_same && known.secret.is_some()),
            ("--yes or --dry-run", self.yes || self.dry_run),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| (!is_given).then_some(name))
        .collect()
    }

    fn scope(&self, home: &Path) -> anyhow::Result<Scope> {
        if self.user {
            return Ok(Scope::User);
        }
        if !self.project {
            out!("1  all projects: hook and keys go into your own settings of Claude Code");
            out!("2  this project: they go into its .claude/settings.local.json");
            // Who set up this project comes to change that.
            let own = files::read(&project_dir(home)?.join(".claude/settings.local.json")).ok().flatten();
            let is_own = own.is_some_and(|text| registered(&text).is_ok_and(|ours| !ours.events.is_empty()));
            loop {
                match terminal::ask("What is to be traced?", Some(if is_own { "2" } else { "1" }))?.as_str() {
                    "1" => return Ok(Scope::User),
                    "2" => break,
                    _ => {}
                }
            }
        }
        Ok(Scope::Project(project_dir(home)?))
    }

    /// Where the keys are to be, or what is wrong with the flags.
    ///
    /// # Errors
    /// If there is nobody to ask.
    fn place(&self, scope: &Scope, home: &Path, paths: &Paths) -> anyhow::Result<Result<Place, String>> {
        if let Some(command) = &self.secret_command {
            return Ok(match words(command) {
                words if words.is_empty() => Err("--secret-command is empty".to_owned()),
                words => Ok(Place::Command(words)),
            });
        }
        let file = scope.file(home);
        let known = Place::of_record(&Record::load(paths)?, paths);
        Ok(Ok(match self.keys_in {
            Some(KeysIn::Settings) => Place::Settings,
            Some(KeysIn::Config) => Place::File,
            None if self.is_keyless() => Place::Settings,
            None if let Some(known) = known => known,
            None if terminal::is_there()
                && !self.yes
                && matches!(scope, Scope::User)
                && (is_tracked(&file) || is_tracked(&files::real(&file)?)) =>
            {
                Place::ask(&file, paths)?
            }
            None => Place::Settings,
        }))
    }
}

impl Keys {
    fn new(address: String, account: String, secret: Zeroizing<String>) -> Self {
        Self { destination: Destination { kind: Kind::Langfuse, address, account }, secret, project: None }
    }
}

impl Scope {
    fn file(&self, home: &Path) -> PathBuf {
        match self {
            Self::User => client::user_dir(home).join("settings.json"),
            Self::Project(dir) => dir.join(".claude/settings.local.json"),
        }
    }

    /// The advice if its file must not hold a secret.
    fn instead(&self) -> &'static str {
        match self {
            Self::User => "use --keys-in config or --secret-command, which leave the key out of it, or --project",
            Self::Project(_) => "use --user: hook and keys then go into your own settings, outside this repository",
        }
    }

    /// The project's directory, unless it is for all projects.
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::User => None,
            Self::Project(dir) => Some(dir),
        }
    }

    /// The settings files that apply here besides `file`, weakest first.
    fn others(&self, home: &Path, file: &Path) -> Vec<PathBuf> {
        let mut files = layers::files(self.dir(), &client::user_dir(home));
        files.retain(|other| files::real(other).is_ok_and(|other| other != file));
        files
    }

    /// The variables of hooks here from the environment and from other files than `file`.
    fn elsewhere(&self, home: &Path, file: &Path) -> BTreeMap<String, String> {
        environment::forwarded()
            .into_iter()
            .chain(self.others(home, file).into_iter().flat_map(|other| layers::read(&other).unwrap_or_default()))
            .collect()
    }
}

/// The project around the current directory: the directory with Claude Code's settings, or git's working tree.
/// Never the home.
pub(crate) fn project_dir(home: &Path) -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir()?;
    let home = std::fs::canonicalize(home).unwrap_or_else(|_| home.to_owned());
    if here.join(".claude").is_dir() {
        return Ok(here);
    }
    let tree = git::tree(&here.join("x")).map(Path::to_owned).filter(|tree| !home.starts_with(tree));
    Ok(tree.unwrap_or(here))
}

/// Reports wrong flags on stderr.
pub(crate) fn usage(why: &str) -> ExitCode {
    err!("error: {why}");
    ExitCode::from(2)
}

fn variable(name: &str) -> Option<String> {
    let get = |name: String| environment::text(&name).filter(|value| !value.trim().is_empty());
    get(format!("CC_LANGFUSE_{name}")).or_else(|| get(format!("LANGFUSE_{name}")))
}

/// The change to a settings file.
fn settings(file: &Path, desired: Desired<'_>, record: &Record) -> anyhow::Result<Option<Change>> {
    let current = files::read(file)?;
    let in_file = |error: edit::Error| anyhow::anyhow!("{}: {error}", file.display());
    if let Some(text) = &current {
        let settings: serde_json::Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap_or_default();
        if settings["disableAllHooks"] == true {
            out!("              disableAllHooks is on in {}: nothing is traced until it is removed", file.display());
        }
        // Events that an older version of Claude Code does not support are removed.
        let stale = match record.of(file).map(|written| &written.part) {
            Some(Part::Settings(ours)) => ours.events.iter().any(|event| !desired.events.contains(&event.as_str())),
            _ => false,
        };
        if !stale && apply(text, desired).map_err(in_file)?.0 == *text {
            return Ok(None);
        }
    }
    let original = record.original(file, current.as_deref())?;
    let (new, ours) = apply(original.as_deref().unwrap_or_default(), desired).map_err(in_file)?;
    Ok(Some(Change { path: file.into(), current, new: Some(new), mode: 0o600, original, part: Part::Settings(ours) }))
}

/// A file that is ours as a whole.
fn whole(path: &Path, new: String, mode: u32, record: &Record) -> anyhow::Result<Option<Change>> {
    let path = files::real(path)?;
    let current = files::read(&path)?;
    if current.as_ref() == Some(&new) {
        return Ok(None);
    }
    let original = record.original(&path, current.as_deref())?;
    let mode = files::mode(&path).map_or(mode, |there| there & mode);
    Ok(Some(Change { path, current, new: Some(new), mode, original, part: Part::Whole }))
}
