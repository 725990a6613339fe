//! Checks of Claude Code's settings: whether they can be read, register the hook, and turn tracing on for this project.

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
    destination::{Backend, address::unquoted, langfuse::Langfuse},
    project::Semantics,
    route::{Env, Refused},
    settings::{HOOK, program, quoted, rival::Rival, split_mark, words},
};

mod misplaced;
mod mlflow;
mod otlp;

pub use misplaced::judge_hooks_file;

/// The plugin that registers the hook, from any marketplace.
pub const PLUGIN: &str = "cc-langfuse";

/// Days after which Claude Code removes transcripts by default.
const CLEANUP_DAYS: u64 = 30;

/// The settings files, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The user's, for all projects.
    User,
    /// The project's, meant to be shared.
    Project,
    /// The user's for this project.
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

/// The content of a file.
pub enum Content {
    /// The file does not exist.
    Missing,
    /// It cannot be read, for this reason.
    Unreadable(String),
    Text(Zeroizing<String>),
}

/// A settings file.
pub struct File {
    pub place: Place,
    pub path: PathBuf,
    pub content: Content,
    /// Git tracks it.
    pub tracked: bool,
}

/// A registered hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub event: String,
    pub command: String,
    /// The file that registers it.
    pub file: PathBuf,
}

/// All settings combined, and the environment they extend.
#[derive(Default)]
pub struct Settings {
    /// Value and source by name.
    env: BTreeMap<String, (Zeroizing<String>, Option<PathBuf>)>,
    hooks: Vec<Hook>,
    /// Registered events, each with its file.
    events: BTreeSet<(PathBuf, String)>,
    /// What each file, weakest first, sets for MLflow's own integration.
    rivals: Vec<(PathBuf, Rival)>,
    /// This program's plugin by its full name: whether the strongest file that names it turns it on, and that file.
    plugins: BTreeMap<String, (bool, PathBuf)>,
    disabled: Option<(bool, PathBuf)>,
    managed_only: Option<PathBuf>,
    cleanup_days: Option<u64>,
    /// Files that contain a secret key and are tracked by git.
    tracked: Vec<PathBuf>,
}

/// Reads `files`, weakest first. `environment` has the other variables that hooks inherit.
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
                format!("make it a file that you own and can read: chmod u+r {shown}"),
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
    /// Adds the content of a file.
    ///
    /// # Errors
    /// What is wrong with its form.
    fn add(&mut self, file: &File, value: &Value) -> Result<(), String> {
        let top = value.as_object().ok_or("it is not a JSON object")?;
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
            for (name, on) in plugins.iter().filter(|(name, _)| name.split('@').next() == Some(PLUGIN)) {
                self.plugins.insert(name.clone(), (*on == Value::Bool(true), file.path.clone()));
            }
        }
        self.cleanup_days = top.get("cleanupPeriodDays").and_then(Value::as_u64).or(self.cleanup_days);
        Ok(())
    }

    /// The environment of a hook.
    pub fn env(&self) -> Env<'_> {
        Env::new(self.env.iter().map(|(name, (value, _))| (name.as_str(), value.as_str())))
    }

    /// The environment of a hook in `project`, including the variable that names the project.
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

    /// Every registration of this program's hook.
    pub fn own_hooks(&self) -> Vec<&Hook> {
        self.hooks.iter().filter(|hook| program(&hook.command).is_some()).collect()
    }

    /// This program's plugin by its full name, such as `cc-langfuse@cc-langfuse`, and the file that turns it on.
    pub fn plugin(&self) -> Option<(&str, &Path)> {
        let on = self.plugins.iter().find(|(_, (on, _))| *on);
        on.map(|(name, (_, file))| (name.as_str(), file.as_path()))
    }

    /// Whether the hook is registered, and for which events. `dead` has the reason why Claude Code cannot load the plugin, and
    /// a remedy.
    pub fn judge_hooks(&self, version: Option<Version>, dead: Option<&(String, String)>) -> Vec<Finding> {
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
        findings.push(self.judge_events(version, dead));
        if let (Some((name, file)), Some((why, remedy))) = (self.plugin(), dead) {
            let seen = format!("{name}, which {} turns on, fails to load: {why}", file.display());
            // Without it nothing is registered, which is the other finding.
            findings.push(Finding::warning("plugin", seen, remedy.clone()));
        }
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

    fn judge_events(&self, version: Option<Version>, dead: Option<&(String, String)>) -> Finding {
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
            return match (self.plugin(), dead) {
                (Some((_, file)), None) => {
                    Finding::ok("hook-events", format!("registered by the plugin that {} enables", file.display()))
                }
                (Some((name, _)), Some(_)) => Finding::problem(
                    "hook-events",
                    format!("only the plugin {name} registers {HOOK}, and it fails to load: Claude Code runs no hook"),
                    format!(
                        "repair the plugin, see below; or claude plugin uninstall {name}, then cc-langfusectl setup"
                    ),
                ),
                (None, _) => Finding::problem(
                    "hook-events",
                    format!("no settings file registers {HOOK}: Claude Code runs no hook"),
                    "cc-langfusectl setup: it asks whether to trace all projects or this one",
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
        if let (Some((name, _)), None, Some(hook)) = (self.plugin(), dead, own.first()) {
            return Finding::warning(
                "hook-events",
                format!("registered twice: by the plugin {name} and in {}; both run", hook.file.display()),
                format!("claude plugin disable {name}"),
            );
        }
        let ways: BTreeSet<(&str, &Path)> =
            own.iter().map(|hook| (hook.command.as_str(), hook.file.as_path())).collect();
        let commands: BTreeSet<&str> = ways.iter().map(|(command, _)| *command).collect();
        if commands.len() > 1 {
            let files: BTreeSet<String> = ways.iter().map(|(_, file)| file.display().to_string()).collect();
            return Finding::warning(
                "hook-events",
                format!("{HOOK} is registered as {} different commands: each one runs", commands.len()),
                format!("leave one of them in {}", Vec::from_iter(files).join(", ")),
            );
        }
        let events: Vec<&str> = events.into_iter().collect();
        Finding::ok("hook-events", format!("on {}", events.join(", ")))
    }

    /// Whether this project is paused, given the directories of all paused ones.
    pub fn judge_pause(dir: &Path, paused: &[PathBuf]) -> Option<Finding> {
        let around = paused.iter().find(|paused| dir.starts_with(paused))?;
        let (what, command) = match around.parent() {
            None => ("every project is paused".to_owned(), "cc-langfusectl resume --all".to_owned()),
            Some(_) => {
                let shown = around.display();
                (format!("{shown} is paused"), format!("cc-langfusectl resume {}", quoted(&shown.to_string())))
            }
        };
        Some(Finding::warning("pause", format!("{what}: what is said until you resume is never sent"), command))
    }

    /// Whether tracing is on for this project, with which options, and which file says so.
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
                    format!(
                        "off for {}: {enable} is set {} to something other than \"true\"",
                        dir.display(),
                        from(enable)
                    )
                }
                _ => format!("off for {}: {enable} is set nowhere", dir.display()),
            };
            // Without a registered hook the variable alone has no effect.
            let remedy = match !self.own_hooks().is_empty() || self.plugin().is_some() {
                true => format!(
                    "cc-langfusectl setup --project in there, or put \"{enable}\": \"true\" into `env` of {}",
                    local.display()
                ),
                false => "cc-langfusectl setup --project in there, or cc-langfusectl setup --user for all projects"
                    .to_owned(),
            };
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
            // The user may want the specification to the letter.
            Semantics::Spec => Finding::ok(
                "semantics",
                "spec; with CC_LANGFUSE_SEMANTICS=measured Langfuse counts cached tokens too, and shows what tools \
                    gave back",
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

    /// Whether there are keys for Langfuse, and which server they are for.
    fn judge_langfuse(&self, env: &Env<'_>, local: &Path) -> Vec<Finding> {
        let mut findings = Vec::new();
        let put = |name: &str| format!("put {name} into `env` of {}", local.display());
        let destination = Langfuse.route(env).and_then(|route| route.ok_or(Refused::KeysMissing));
        // Keys are checked even if the address is wrong.
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
                "swap LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY; if they were sent, create new ones",
            ),
            _ if let Some(name) = self.odd_key() => Finding::problem(
                "keys",
                format!(
                    "{name} contains a character that no key has, such as a space or a quote: it was not copied \
                    correctly"
                ),
                format!("copy the key again, without quotes around it, into {}", local.display()),
            ),
            _ if let Some(name) = self.quoted_key() => Finding::warning(
                "keys",
                format!(
                    "{name} is in quotes; they are ignored here, but other programs may take them as part of the \
                    key"
                ),
                format!("remove the quotes inside the value of {name}, {}", self.source("SECRET_KEY")),
            ),
            // Anything else may be a secret and is not shown.
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
                format!("the secret key would go to {} unencrypted, so nothing is sent there", to.address),
                "set LANGFUSE_BASE_URL to one with https:// (http:// is for localhost, 127.0.0.0/8 and [::1])",
            )),
            Err(Refused::BaseUrl) => findings.push(Finding::problem(
                "base-url",
                format!("LANGFUSE_BASE_URL is not an http or https address, {}", self.source("BASE_URL")),
                "set it to the server's address, such as https://cloud.langfuse.com",
            )),
            Err(_) => {}
        }
        findings
    }

    /// The variables with keys of Langfuse, and their values.
    fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_key = |name: &str| name.ends_with("LANGFUSE_PUBLIC_KEY") || name.ends_with("LANGFUSE_SECRET_KEY");
        let all = self.env.iter().map(|(name, (value, _))| (name.as_str(), value.trim()));
        all.filter(move |(name, value)| is_key(name) && !value.is_empty())
    }

    /// The variable of a key with a character that no key has.
    fn odd_key(&self) -> Option<&str> {
        let is_odd =
            |value: &str| !unquoted(value).bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'`".contains(&byte));
        self.keys().find(|(_, value)| is_odd(value)).map(|(name, _)| name)
    }

    /// The variable of a key in quotes.
    fn quoted_key(&self) -> Option<&str> {
        self.keys().find(|(_, value)| unquoted(value) != *value).map(|(name, _)| name)
    }

    /// The source of the setting `LANGFUSE_X`.
    fn source(&self, name: &str) -> String {
        let names = match name {
            "BASE_URL" => &["CC_LANGFUSE_BASE_URL", "LANGFUSE_BASE_URL", "CC_LANGFUSE_HOST", "LANGFUSE_HOST"][..],
            "SECRET_KEY" => &["CC_LANGFUSE_SECRET_KEY", "LANGFUSE_SECRET_KEY"],
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

/// True if a public key looks like a secret one.
pub fn is_secret(public_key: &str) -> bool {
    public_key.starts_with("sk-")
}

/// The program in a command that runs the Node tracer, which is also called `cc-langfuse`.
fn other_program(command: &str) -> Option<String> {
    words(command).into_iter().find(|word| {
        let name = word.rsplit('/').next().unwrap_or_default();
        name.split(['@', '#', '.']).next() == Some("cc-langfuse") || word.contains("/cc-langfuse/dist/")
    })
}

#[cfg(test)]
mod tests;
