//! `doctor`: checks everything from Claude Code's hook to the server.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use crate::{client, open, traced, ui::progress::Busy};
use cc_core::{
    config::Config,
    destination::{Connect, Destination},
    doctor::{Finding, State, local, server, settings},
    route::Env,
    secret::Secret,
};
use cc_langfuse::{configured::secret, credentials, environment, output};
use proto::paths::Paths;
use screen::Screen;

mod claude;
mod files;
mod machine;
mod network;
mod plugin;
mod screen;
mod transcripts;

/// Find out what is wrong, from Claude Code's hook to the server and back, and how to fix it
///
/// Looks at settings, hook, daemon, files, disk and clock, asks each server for the project the keys belong to, sends it one small trace,
/// reads it back and deletes it where the server can do that. Exits with 1 if there is a problem; warnings
/// alone do not count.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl doctor                   check the project in this directory
  cc-langfusectl doctor --project ~/app   check another one
  cc-langfusectl doctor --no-probe        send nothing
  cc-langfusectl doctor --wait 5m         give a slow server more time
  cc-langfusectl doctor --json | \\
    jq -r '.findings[] | select(.state != \"ok\") | .remedy'")]
pub(crate) struct Doctor {
    /// One JSON object: `findings`, each with `check`, `state`, `seen` and `remedy`, and the `worst` state
    #[arg(long)]
    json: bool,
    /// The project's directory instead of the current one
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Show the checks that passed too
    #[arg(long, short)]
    verbose: bool,
    /// Send no test trace
    #[arg(long)]
    no_probe: bool,
    /// How long the trace may take until it can be read: 500ms, 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::ui::amount::duration)]
    wait: Duration,
}

impl Doctor {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let here = std::path::absolute(self.project.as_deref().unwrap_or(Path::new(".")))?;
        let here = here.canonicalize().unwrap_or(here);
        let (home, paths) = (client::home()?, client::paths()?);
        let mut screen = match (self.json, self.verbose || !output::is_seen()) {
            (true, _) => Screen::silent(),
            (false, true) => Screen::whole(),
            (false, false) => Screen::short(),
        };
        self.examine(&here, &home, &paths, &mut |finding| screen.add(finding))?;
        let report = if self.json {
            let report = screen.report();
            output::json(&report, true)?;
            report
        } else {
            screen.end(&format!(
                "cc-langfuse is not set up for {}: cc-langfusectl setup does that (doctor -v shows what is missing)",
                here.display()
            ))
        };
        Ok(if report.worst == State::Problem { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Gives each finding to `found` as soon as it is there.
    fn examine(
        &self,
        project: &Path,
        home: &Path,
        paths: &Paths,
        found: &mut dyn FnMut(Finding),
    ) -> anyhow::Result<()> {
        let (settings, of_files) = settings::read(&claude::files(project, home), environment::forwarded());
        let said = settings.env_in(project);
        let vars = credentials::own_tls(said.clone(), &[project.to_path_buf()], client::config_dir().as_deref(), home);
        let env = Env::of(&vars);
        let mut add = |findings: Vec<Finding>| {
            for mut finding in findings {
                conceal(&mut finding, &env);
                found(finding);
            }
        };
        let claude = {
            let _busy = Busy::with("asking Claude Code for its version".to_owned());
            claude::installed(home)
        };
        add(vec![claude.judge()]);
        add(of_files);
        add(settings.judge_hooks(claude.version(), plugin::why_dead(&settings, home).as_ref()));
        add(claude::programs(&settings, project, home).iter().map(local::Program::judge).collect());
        add(claude::unread(project, home));
        let daemon = machine::daemon(paths);
        let paused = daemon.status().map(|status| status.paused.as_slice()).unwrap_or_default();
        add(settings::Settings::judge_pause(project, paused).into_iter().collect());
        add(settings.judge_project(project));

        let config = client::config();
        add(local::judge_daemon(&daemon, &machine::unit(), machine::spooled(paths), cc_langfuse::VERSION));
        if let Some(status) = daemon.status() {
            add(local::judge_events(status, transcripts::last_written(status).as_deref()));
        }
        add(machine::files(paths, daemon.status().is_some()));
        add(machine::disk(&paths.state).into_iter().collect());
        add(vec![match &config {
            Ok(_) => Finding::ok("configuration", format!("{} or the defaults", paths.config.display())),
            Err(error) => Finding::problem(
                "configuration",
                format!("{error:#}"),
                "fix it, then cc-langfusectl restart; until then the daemon uses the former configuration",
            ),
        }]);
        if let Some(Err(why)) = config.as_ref().ok().and_then(|config| config.budget.as_ref()) {
            add(vec![Finding::warning(
                "budget",
                why,
                format!("fix it in {}: until then there is no budget", paths.config.display()),
            )]);
        }

        add(server::judge_foreign_tls(&said, &vars));
        let of_destinations = of_destinations(&env, &config, &daemon, project, home, paths);
        let routes = if env.enabled() { env.routes().0 } else { Vec::new() };
        let mut all = routes.clone();
        for entry in config.iter().flat_map(|config| &config.destinations).filter_map(|named| named.entry.as_ref().ok())
        {
            if let Ok(secrets) = secret::find(entry, home)
                && all.iter().all(|(to, _)| *to != entry.destination)
            {
                all.push((entry.destination.clone(), secrets));
            }
        }
        for (to, secrets) in &all {
            if let Some(folder) = open::folder(to) {
                add(files::examine(&folder));
                continue;
            }
            add(server::judge_tls(to, secrets.tls()).into_iter().collect());
            let backend = to.kind.backend();
            let secrets = credentials::from_key_file(to, secrets.clone(), home);
            let is_complete = !backend.needs_secret(to) || !secrets.is_empty();
            let is_parked = matches!(backend.connect(to, &secrets, &[]), Connect::Park(_));
            // Reasons why nothing can go there were reported above.
            let may_go = to.is_private() || backend.takes_plain_http() && traced::is_trusted(daemon.status(), to);
            if is_complete && !is_parked && may_go && !settings::is_secret(&to.account) {
                let server = network::Server { to, secrets: &secrets, options: env.options(), project, home };
                let of_server = {
                    let _busy = Busy::with(format!("asking {}", to.address));
                    server.examine(daemon.status(), (!self.no_probe).then_some(self.wait))?
                };
                add(of_server);
            }
        }
        add(of_destinations);
        let ours: Vec<Destination> = match routes.is_empty() {
            true => env.destination().ok().map(|(to, _)| to).into_iter().collect(),
            false => routes.iter().map(|(to, _)| to.clone()).collect(),
        };
        if let Some(status) = daemon.status() {
            add(server::judge_delivery(status, &ours));
        }
        let roots = config.unwrap_or_default().roots(home);
        add(transcripts::refused(&roots, daemon.status()));
        add(vec![transcripts::judge(roots, home, settings.cleanup_days(), daemon.status())]);
        Ok(())
    }
}

/// Checks the `[[destination]]` tables of config.toml, and whether one is for `project`.
fn of_destinations(
    env: &Env<'_>,
    config: &anyhow::Result<Config>,
    daemon: &local::Daemon,
    project: &Path,
    home: &Path,
    paths: &Paths,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut nowhere = env.enabled() && env.routes().0.is_empty();
    for named in config.iter().flat_map(|config| &config.destinations) {
        let secret = named.entry.as_ref().map_or(Ok(()), |entry| secret::find(entry, home).map(drop));
        nowhere &= !named.entry.as_ref().is_ok_and(|entry| entry.takes(Some(project), &[home.to_owned()]));
        findings.push(server::judge_configured(named, secret, daemon.status()));
    }
    if nowhere && env.routes().1.is_empty() {
        findings.push(Finding::problem(
            "destinations",
            format!("no destination in {} is for {}", paths.config.display(), project.display()),
            "add a [[destination]] there, or this project to its `projects`",
        ));
    }
    findings
}

/// Removes keys from whatever a finding shows.
fn conceal(finding: &mut Finding, env: &Env<'_>) {
    let routes = env.routes().0.into_iter().chain(env.destination().ok());
    let accounts: BTreeSet<String> = routes.map(|(to, _)| to.account).chain([String::new()]).collect();
    for account in &accounts {
        let swapped = settings::is_secret(account).then(|| (proto::env::ENABLE, Secret::new(account)));
        for secrets in [env.secrets(), swapped.into_iter().collect()] {
            finding.seen = secrets.conceal(account, &finding.seen);
            finding.remedy = finding.remedy.take().map(|remedy| secrets.conceal(account, &remedy));
        }
    }
}

/// Our plugin by its full name, if Claude Code loads it in `project`, or else in the current directory.
///
/// # Errors
/// If there is no current directory.
pub(crate) fn live_plugin(project: Option<&Path>, home: &Path) -> anyhow::Result<Option<String>> {
    let here = project.map_or_else(std::env::current_dir, |dir| Ok(dir.to_owned()))?;
    let settings = settings::read(&claude::files(&here, home), []).0;
    let is_dead = plugin::why_dead(&settings, home).is_some();
    Ok(settings.plugin().filter(|_| !is_dead).map(|(name, _)| name.to_owned()))
}

/// What `setup` ends with: the checks that did not pass, without a test trace.
///
/// # Errors
/// If the checks cannot be run.
pub(crate) fn short(project: &Path, home: &Path, paths: &Paths) -> anyhow::Result<()> {
    let doctor = Doctor { json: false, project: None, verbose: false, no_probe: true, wait: Duration::ZERO };
    let mut screen = Screen::failures();
    // That no event came yet is expected.
    doctor.examine(project, home, paths, &mut |finding| {
        if finding.check != "events" {
            screen.add(finding);
        }
    })?;
    screen.end("");
    Ok(())
}
