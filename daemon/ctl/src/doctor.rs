//! `doctor`: looks at everything between Claude Code's hook and the server.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use crate::{
    client, open, traced,
    ui::{amount, progress::Busy},
};
use cc_core::{
    destination::{Connect, Destination},
    doctor::{Finding, Report, State, group, local, server, settings},
    route::Env,
    secret::Secret,
};
use cc_langfuse::{
    configured::secret,
    credentials, environment,
    output::{self, Look},
};
use proto::paths::Paths;

mod claude;
mod files;
mod machine;
mod network;
mod transcripts;

/// Find out what is wrong, from Claude Code's hook to the server and back, and how to fix it
///
/// Looks at settings, hook, daemon, files, disk and clock, asks each server for the project the keys belong to, sends it one small trace,
/// reads it back and deletes it where the server can do that. Exit code 1 if there is a problem; warnings alone are 0.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl doctor                     look at the project in this directory
  cc-langfusectl doctor --project ~/app    at another one
  cc-langfusectl doctor --no-probe          send nothing
  cc-langfusectl doctor --wait 5m           give a slow server time to show the trace
  cc-langfusectl doctor --json | jq -r '.findings[] | select(.state != \"ok\") | .remedy'")]
pub(crate) struct Doctor {
    /// One JSON object: `findings`, each with `check`, `state`, `seen` and `remedy`, and the `worst` state
    #[arg(long)]
    json: bool,
    /// The project's directory instead of the current one
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Show what is well too
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
        let report = self.examine(&here, &home, &paths)?;
        if self.json {
            output::json(&report, true)?;
        } else if !self.verbose && output::is_seen() && is_blank(&report) {
            out!(
                "cc-langfuse is not set up for {}: cc-langfusectl setup does that (doctor -v shows what is missing)",
                here.display()
            );
        } else {
            print(&report, self.verbose || !output::is_seen());
        }
        Ok(if report.worst == State::Problem { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn examine(&self, project: &Path, home: &Path, paths: &Paths) -> anyhow::Result<Report> {
        let claude = claude::installed(home);
        let mut findings = vec![claude.judge()];
        let (settings, of_files) = settings::read(&claude::files(project, home), environment::forwarded());
        findings.extend(of_files);
        findings.extend(settings.judge_hooks(claude.version()));
        findings.extend(claude::programs(&settings, project, home).iter().map(local::Program::judge));
        findings.extend(settings.judge_project(project));
        findings.extend(claude::unread(project, home));

        let (daemon, unit) = (machine::daemon(paths), machine::unit());
        let config = client::config();
        findings.extend(local::judge_daemon(&daemon, &unit, machine::spooled(paths), cc_langfuse::VERSION));
        if let Some(status) = daemon.status() {
            findings.extend(local::judge_events(status, transcripts::last_written(status).as_deref()));
        }
        findings.extend(machine::files(paths, daemon.status().is_some()));
        findings.extend(machine::disk(&paths.state));
        findings.push(match &config {
            Ok(_) => Finding::ok("configuration", format!("{} or the defaults", paths.config.display())),
            Err(error) => Finding::problem(
                "configuration",
                format!("{error:#}"),
                "fix it, then restart the daemon; until then it goes on with what was there before",
            ),
        });

        let said = settings.env_in(project);
        let vars = credentials::own_tls(said.clone(), &[project.to_path_buf()], client::config_dir().as_deref(), home);
        findings.extend(server::judge_foreign_tls(&said, &vars));
        let env = Env::of(&vars);
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
                findings.extend(files::examine(&folder));
                continue;
            }
            findings.extend(server::judge_tls(to, secrets.tls()));
            let backend = to.kind.backend();
            let secrets = credentials::from_key_file(to, secrets.clone(), home);
            let is_complete = !backend.needs_secret(to) || !secrets.is_empty();
            let is_parked = matches!(backend.connect(to, &secrets, &[]), Connect::Park(_));
            // What keeps anything from going there is said above.
            let may_go = to.is_private() || backend.takes_plain_http() && traced::is_trusted(daemon.status(), to);
            if is_complete && !is_parked && may_go && !settings::is_secret(&to.account) {
                let server = network::Server { to, secrets: &secrets, options: env.options(), project, home };
                findings.extend(server.examine(daemon.status(), (!self.no_probe).then_some(self.wait))?);
            }
        }
        let ours: Vec<Destination> = match routes.is_empty() {
            true => env.destination().ok().map(|(to, _)| to).into_iter().collect(),
            false => routes.iter().map(|(to, _)| to.clone()).collect(),
        };
        if let Some(status) = daemon.status() {
            findings.extend(server::judge_delivery(status, &ours));
        }
        let roots = config.unwrap_or_default().roots(home);
        findings.extend(transcripts::refused(&roots, daemon.status()));
        findings.push(transcripts::judge(roots, home, settings.cleanup_days(), daemon.status()));
        findings.iter_mut().for_each(|finding| conceal(finding, &env));
        Ok(Report::new(findings))
    }
}

/// Whatever was seen, a key is not shown.
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

/// What `setup` ends with: all that is not well, without a test trace.
///
/// # Errors
/// If it cannot be looked at.
pub(crate) fn short(project: &Path, home: &Path, paths: &Paths) -> anyhow::Result<()> {
    let doctor = Doctor { json: false, project: None, verbose: false, no_probe: true, wait: Duration::ZERO };
    let report = {
        let _busy = Busy::with("looking whether all is well".to_owned());
        doctor.examine(project, home, paths)?
    };
    // Nothing was heard yet, which everybody knows.
    let findings = report.findings.into_iter().filter(|finding| finding.check != "events").collect();
    print(&Report::new(findings), false);
    Ok(())
}

/// Nothing of ours is registered, on, running or stored here.
fn is_blank(report: &Report) -> bool {
    let is =
        |check: &str, state: State| report.findings.iter().any(|found| found.check == check && found.state == state);
    is("hook-events", State::Problem)
        && is("daemon", State::Problem)
        && !is("keys", State::Ok)
        && !is("hook-program", State::Ok)
}

fn print(report: &Report, is_whole: bool) {
    let width = report.findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut groups: Vec<&str> = Vec::new();
    for name in report.findings.iter().map(|finding| group(finding.check)) {
        if !groups.contains(&name) {
            groups.push(name);
        }
    }
    for name in groups {
        let all: Vec<&Finding> = report.findings.iter().filter(|finding| group(finding.check) == name).collect();
        let shown: Vec<&&Finding> = all.iter().filter(|finding| is_whole || finding.state != State::Ok).collect();
        if shown.is_empty() {
            let checks: std::collections::BTreeSet<&str> = all.iter().map(|finding| finding.check).collect();
            let _ = output::parts(&[
                (Look::Green, "✓"),
                (Look::Plain, " "),
                (Look::Bold, name),
                (Look::Dim, &format!(": {}", checks.into_iter().collect::<Vec<_>>().join(", "))),
            ]);
            continue;
        }
        let _ = output::painted(Look::Bold, format_args!("{name}"));
        for finding in shown {
            let mark = match finding.state {
                State::Ok => (Look::Green, "✓"),
                State::Warning => (Look::Yellow, "!"),
                State::Problem => (Look::Red, "✗"),
            };
            let seen = format!(" {:<width$}  {}", finding.check, finding.seen);
            let _ = output::parts(&[(Look::Plain, "  "), mark, (Look::Plain, &seen)]);
            if let Some(remedy) = &finding.remedy {
                out!("    {:<width$}  → {remedy}", "");
            }
        }
    }
    let (problems, warnings) = (report.count(State::Problem), report.count(State::Warning));
    out!();
    match (problems, warnings) {
        (0, 0) => out!("All is well."),
        (0, _) => out!("{}, no problem.", amount::count(warnings, "warning")),
        _ => out!("{}, {}.", amount::count(problems, "problem"), amount::count(warnings, "warning")),
    }
}
