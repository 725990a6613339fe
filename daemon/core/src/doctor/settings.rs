//! Claude Code's settings: are they read, is the hook in them, and do they turn tracing on here?

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use proto::env::{Of, Role, VARIABLES, is_switch, switches_on};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Finding;
use crate::{
    claude::{Knows, Version},
    destination::{Backend, langfuse::Langfuse},
    project::Semantics,
    route::{Env, Refused},
    settings::{HOOK, program, rival::Rival, split_mark, words},
};

mod misplaced;
mod mlflow;
mod otlp;

pub use misplaced::judge_hooks_file;

/// Days after which Claude Code removes transcripts, unless its settings say otherwise.
const CLEANUP_DAYS: u64 = 30;

/// Which settings, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The user's own.
    User,
    /// The project's, meant to be shared.
    Project,
    /// The user's own for the project.
    Local,
    /// The administrator's.
    Managed,
}

impl Place {
    fn check(self) -> &'static str {
        match self {
            Self::User => "user-settings",
            Self::Project => "project-settings",
            Self::Local => "local-settings",
            Self::Managed => "managed-settings",
        }
    }
}

/// What a file was found to hold.
pub enum Content {
    /// There is none.
    Missing,
    /// It cannot be read, and why.
    Unreadable(String),
    Text(Zeroizing<String>),
}

/// A settings file.
pub struct File {
    /// Whose it is.
    pub place: Place,
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub content: Content,
    /// Git tracks it.
    pub tracked: bool,
}

/// A hook as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The event.
    pub event: String,
    /// The command.
    pub command: String,
    /// The file.
    pub file: PathBuf,
}

/// All settings together, and the environment they are added to.
#[derive(Default)]
pub struct Settings {
    /// Name → value, and where it comes from.
    env: BTreeMap<String, (Zeroizing<String>, Option<PathBuf>)>,
    hooks: Vec<Hook>,
    /// Event names and the file they stand in.
    events: BTreeSet<(PathBuf, String)>,
    /// What each file, weakest first, says of MLflow's own integration.
    rivals: Vec<(PathBuf, Rival)>,
    /// A plugin of ours is enabled there.
    plugin: Option<PathBuf>,
    disabled: Option<(bool, PathBuf)>,
    managed_only: Option<PathBuf>,
    cleanup_days: Option<u64>,
    /// Files that git tracks and that hold a secret key.
    tracked: Vec<PathBuf>,
}

/// Reads `files`, weakest first. `environment` is what hooks inherit besides.
pub fn read(files: &[File], environment: impl IntoIterator<Item = (String, String)>) -> (Settings, Vec<Finding>) {
    let mut all = Settings::default();
    for (name, value) in environment {
        all.env.insert(name, (value.into(), None));
    }
    let mut findings = Vec::new();
    for file in files {
        let (check, shown) = (file.place.check(), file.path.display());
        match &file.content {
            Content::Missing if file.place == Place::Managed => {}
            Content::Missing => findings.push(Finding::ok(check, format!("{shown}: none"))),
            Content::Unreadable(why) => findings.push(Finding::problem(
                check,
                format!("{shown} cannot be read: {why}"),
                format!("make it a file of yours that you can read: chmod u+r {shown}"),
            )),
            Content::Text(text) => match serde_json::from_str(split_mark(text).1) {
                Err(error) => findings.push(Finding::problem(
                    check,
                    format!("{shown} is not valid JSON, so Claude Code ignores all of it: {error}"),
                    format!("correct line {} of {shown}", error.line()),
                )),
                Ok(value) => match all.add(file, &value) {
                    Ok(()) => findings.push(
                        misplaced::judge(check, &file.path, &value)
                            .unwrap_or_else(|| Finding::ok(check, shown.to_string())),
                    ),
                    Err(what) => findings.push(Finding::problem(
                        check,
                        format!("{shown}: {what}, so Claude Code may ignore all of it"),
                        format!("correct that in {shown}"),
                    )),
                },
            },
        }
    }
    (all, findings)
}

impl Settings {
    /// Takes over what a file says; what is wrong with its form.
    fn add(&mut self, file: &File, value: &Value) -> Result<(), String> {
        let top = value.as_object().ok_or("it is not an object")?;
        self.rivals.push((file.path.clone(), Rival::read(value)));
        if let Some(env) = top.get("env") {
            for (name, value) in env.as_object().ok_or("`env` is not an object")? {
                let value: Zeroizing<String> = match value {
                    Value::String(text) => text.clone().into(),
                    Value::Bool(_) | Value::Number(_) => value.to_string().into(),
                    _ => return Err(format!("`env.{name}` is not a string")),
                };
                if file.tracked && proto::env::is_secret(name) && !value.trim().is_empty() {
                    self.tracked.push(file.path.clone());
                }
                self.env.insert(name.clone(), (value, Some(file.path.clone())));
            }
        }
        if let Some(hooks) = top.get("hooks") {
            for (event, entries) in hooks.as_object().ok_or("`hooks` is not an object")? {
                self.events.insert((file.path.clone(), event.clone()));
                let entries = entries.as_array().ok_or_else(|| format!("`hooks.{event}` is not a list"))?;
                for entry in entries {
                    let hooks = entry["hooks"].as_array();
                    for hook in hooks.ok_or_else(|| format!("an entry of `hooks.{event}` has no list `hooks`"))? {
                        if let Some(command) = hook["command"].as_str() {
                            let (event, command) = (event.clone(), command.to_owned());
                            self.hooks.push(Hook { event, command, file: file.path.clone() });
                        } else if hook["type"] == "command" {
                            return Err(format!("a hook of `hooks.{event}` has no `command`"));
                        }
                    }
                }
            }
        }
        if let Some(disabled) = top.get("disableAllHooks").and_then(Value::as_bool) {
            self.disabled = Some((disabled, file.path.clone()));
        }
        if file.place == Place::Managed && top.get("allowManagedHooksOnly") == Some(&Value::Bool(true)) {
            self.managed_only = Some(file.path.clone());
        }
        if let Some(plugins) = top.get("enabledPlugins").and_then(Value::as_object) {
            let is_ours = |name: &String, on: &Value| name.starts_with("cc-langfuse") && *on == Value::Bool(true);
            if plugins.iter().any(|(name, on)| is_ours(name, on)) {
                self.plugin = Some(file.path.clone());
            }
        }
        self.cleanup_days = top.get("cleanupPeriodDays").and_then(Value::as_u64).or(self.cleanup_days);
        Ok(())
    }

    /// What hooks see.
    pub fn env(&self) -> Env<'_> {
        Env::new(self.env.iter().map(|(name, (value, _))| (name.as_str(), value.as_str())))
    }

    /// The same for hooks in `project`: with the variable that says so.
    pub fn env_in(&self, project: &Path) -> BTreeMap<String, String> {
        let mut vars: BTreeMap<String, String> =
            self.env.iter().map(|(name, (value, _))| (name.clone(), value.to_string())).collect();
        let dir = project.to_string_lossy().into_owned();
        vars.entry("CLAUDE_PROJECT_DIR".to_owned()).or_insert(dir);
        vars
    }

    /// Days after which Claude Code removes transcripts.
    pub fn cleanup_days(&self) -> u64 {
        self.cleanup_days.unwrap_or(CLEANUP_DAYS)
    }

    /// Our hook, as often as it is registered.
    pub fn own_hooks(&self) -> Vec<&Hook> {
        self.hooks.iter().filter(|hook| program(&hook.command).is_some()).collect()
    }

    /// Is the hook called, and on what?
    pub fn judge_hooks(&self, version: Option<Version>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some((true, file)) = &self.disabled {
            let file = file.display();
            findings.push(Finding::problem(
                "hooks",
                format!("{file} turns all hooks off"),
                format!("remove `disableAllHooks` from {file}"),
            ));
        } else if let Some(file) = &self.managed_only {
            let file = file.display();
            findings.push(Finding::problem(
                "hooks",
                format!("{file} allows no hooks but its own"),
                format!("ask your administrator to add {HOOK} there"),
            ));
        } else {
            findings.push(Finding::ok("hooks", "not turned off"));
        }
        findings.push(self.judge_events(version));
        let other = self.hooks.iter().find_map(|hook| Some((hook, other_program(&hook.command)?)));
        if let Some((hook, program)) = other {
            let file = hook.file.display();
            findings.push(Finding::warning(
                "other-tracer",
                format!("{file} runs {program} too: everything is traced twice"),
                format!("remove that command from `hooks.{}` in {file}", hook.event),
            ));
        }
        findings
    }

    fn judge_events(&self, version: Option<Version>) -> Finding {
        let own = self.own_hooks();
        let events: BTreeSet<&str> = own.iter().map(|hook| hook.event.as_str()).collect();
        let unknown = |wanted: Knows| {
            self.events.iter().find(|(_, event)| version.is_some_and(|version| version.knows(event) == wanted))
        };
        let shown = version.map(|version| version.to_string()).unwrap_or_default();
        if let Some((file, event)) = unknown(Knows::No) {
            return Finding::problem(
                "hook-events",
                format!("Claude Code {shown} does not know the event `{event}`, which turns off all hooks"),
                format!("remove `{event}` from `hooks` in {}, or update Claude Code to 2.1.120", file.display()),
            );
        }
        if own.is_empty() {
            return match &self.plugin {
                Some(file) => {
                    Finding::ok("hook-events", format!("registered by the plugin that {} enables", file.display()))
                }
                None => Finding::problem(
                    "hook-events",
                    format!("no settings file registers {HOOK}: Claude Code calls nobody"),
                    "cc-langfusectl setup",
                ),
            };
        }
        if !events.contains("Stop") {
            return Finding::problem(
                "hook-events",
                format!("{HOOK} is registered, but not for Stop"),
                "cc-langfusectl setup",
            );
        }
        if let Some((file, event)) = unknown(Knows::Maybe) {
            return Finding::warning(
                "hook-events",
                format!("Claude Code {shown} may not know the event `{event}`, which would turn off all hooks"),
                format!("remove `{event}` from `hooks` in {}, or update Claude Code to 2.1.120", file.display()),
            );
        }
        let ways: BTreeSet<(&str, &Path)> =
            own.iter().map(|hook| (hook.command.as_str(), hook.file.as_path())).collect();
        let commands: BTreeSet<&str> = ways.iter().map(|(command, _)| *command).collect();
        if commands.len() > 1 {
            let files: BTreeSet<String> = ways.iter().map(|(_, file)| file.display().to_string()).collect();
            return Finding::warning(
                "hook-events",
                format!("{HOOK} is registered as {} different commands: each is called", commands.len()),
                format!("leave one of them in {}", Vec::from_iter(files).join(", ")),
            );
        }
        let events: Vec<&str> = events.into_iter().collect();
        Finding::ok("hook-events", format!("on {}", events.join(", ")))
    }

    /// Is tracing on here, with what, and from where?
    pub fn judge_project(&self, dir: &Path) -> Vec<Finding> {
        let env = self.env();
        let local = dir.join(".claude/settings.local.json");
        let from = |name: &str| match self.env.get(name) {
            Some((_, Some(file))) => format!("by {}", file.display()),
            _ => "by the environment".to_owned(),
        };
        let enable = proto::env::ENABLE;
        if !env.enabled() {
            let seen = match self.env.get(enable) {
                Some((value, _)) if !value.trim().is_empty() => {
                    format!("off for {}: {enable} is set {}, but not to \"true\"", dir.display(), from(enable))
                }
                _ => format!("off for {}: {enable} is set nowhere", dir.display()),
            };
            let remedy = format!(
                "cc-langfusectl setup --project in there, or put \"{enable}\": \"true\" into `env` of {}",
                local.display()
            );
            return vec![Finding::problem("tracing", seen, remedy)];
        }
        let mut switches = VARIABLES.iter().filter(|row| is_switch(row));
        let switch = switches.find(|row| env.get(row.name).is_some_and(|value| switches_on(row, value)));
        let source = from(switch.map_or(enable, |row| row.name));
        let mut findings = vec![Finding::ok("tracing", format!("on for {}, {source}", dir.display()))];
        if env.enables(Of::Langfuse) {
            findings.extend(self.judge_langfuse(&env, &local));
        }
        if env.enables(Of::Mlflow) {
            let here = dir.to_string_lossy();
            let vars = self.env.iter().map(|(name, (value, _))| (name.as_str(), value.as_str()));
            let env = Env::new([("CLAUDE_PROJECT_DIR", &*here)].into_iter().chain(vars));
            findings.extend(mlflow::judge(&env, &local, &self.rivals));
        }
        if env.enables(Of::Otlp) {
            findings.extend(otlp::judge(&env, &local));
        }
        findings.push(match env.options().semantics {
            Semantics::Measured => Finding::ok("semantics", "measured"),
            // Somebody may want the letter of the specification.
            Semantics::Spec => Finding::ok(
                "semantics",
                "spec; with CC_LANGFUSE_SEMANTICS=measured Langfuse counts cached tokens too, and shows what tools gave back",
            ),
        });
        if let Some(file) = self.tracked.first() {
            let file = file.display();
            findings.push(Finding::warning(
                "tracked-keys",
                format!("{file} holds a secret key, and git tracks it"),
                format!("move the keys to {}, which git should ignore: git rm --cached {file}", local.display()),
            ));
        }
        findings
    }

    /// Are there keys for Langfuse, and where is it?
    fn judge_langfuse(&self, env: &Env<'_>, local: &Path) -> Vec<Finding> {
        let mut findings = Vec::new();
        let put = |name: &str| format!("put {name} into `env` of {}", local.display());
        let destination = Langfuse.route(env).and_then(|route| route.ok_or(Refused::KeysMissing));
        // Keys are judged whatever the address is.
        let has_secret = env.decided(Of::Langfuse, Role::Secret).is_some();
        let destination = destination.map(|(to, _)| to);
        findings.push(match (&destination, has_secret) {
            (Err(Refused::KeysMissing), _) => {
                Finding::problem("keys", "there is no public key", put("LANGFUSE_PUBLIC_KEY"))
            }
            (_, false) => Finding::problem("keys", "there is no secret key", put("LANGFUSE_SECRET_KEY")),
            (Ok(to), _) if is_secret(&to.account) => Finding::problem(
                "keys",
                "the public key looks like a secret key",
                "exchange LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY; if they were sent, make new ones",
            ),
            // Whatever looks otherwise may be something that was not meant to be seen.
            (Ok(to), _) if to.account.starts_with("pk-") => {
                Finding::ok("keys", format!("{}, {}", to.account, self.source("PUBLIC_KEY")))
            }
            _ => Finding::ok("keys", self.source("PUBLIC_KEY")),
        });
        match &destination {
            Ok(to) if to.is_private() => {
                findings.push(Finding::ok("base-url", format!("{}, {}", to.address, self.source("BASE_URL"))));
            }
            Ok(to) => findings.push(Finding::problem(
                "base-url",
                format!("{} would get the secret key unencrypted, so nothing is sent there", to.address),
                "set LANGFUSE_BASE_URL to one with https:// (http:// is for localhost, 127.0.0.0/8 and [::1])",
            )),
            Err(Refused::BaseUrl) => findings.push(Finding::problem(
                "base-url",
                format!("LANGFUSE_BASE_URL is no http or https address, {}", self.source("BASE_URL")),
                "set it to the server's address, as in https://cloud.langfuse.com",
            )),
            Err(_) => {}
        }
        findings
    }

    /// Where the setting `LANGFUSE_X` comes from.
    fn source(&self, name: &str) -> String {
        let names = match name {
            "BASE_URL" => &["CC_LANGFUSE_BASE_URL", "LANGFUSE_BASE_URL", "CC_LANGFUSE_HOST", "LANGFUSE_HOST"][..],
            _ => &["CC_LANGFUSE_PUBLIC_KEY", "LANGFUSE_PUBLIC_KEY"],
        };
        let set = names.iter().find_map(|name| self.env.get(*name).filter(|(value, _)| !value.trim().is_empty()));
        match set {
            Some((_, Some(file))) => format!("from {}", file.display()),
            Some((_, None)) => "from the environment".to_owned(),
            None => "the default".to_owned(),
        }
    }
}

/// True if what stands where a public key belongs looks like a secret one.
pub fn is_secret(public_key: &str) -> bool {
    public_key.starts_with("sk-")
}

/// The word of a command that names the tracer for Node, which is called `cc-langfuse`.
fn other_program(command: &str) -> Option<String> {
    words(command).into_iter().find(|word| {
        let name = word.rsplit('/').next().unwrap_or_default();
        name.split(['@', '#', '.']).next() == Some("cc-langfuse") || word.contains("/cc-langfuse/dist/")
    })
}

#[cfg(test)]
mod tests;
