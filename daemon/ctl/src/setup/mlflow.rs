//! `setup --mlflow`: the variables that send traces to MLflow, and what prevents it.

use std::path::{Path, PathBuf};

use super::files;
use cc_core::{
    destination::{Backend, Connect, mlflow},
    settings::rival::Rival,
    vars::Env,
};
use cc_langfuse::environment;
use proto::env::MLFLOW_ENABLE;

const URI: &str = "MLFLOW_TRACKING_URI";
const EXPERIMENT: &str = "MLFLOW_EXPERIMENT_NAME";

/// The placeholder for a project's directory if there are many.
const EACH: &str = "/each project";

/// Where traces go at MLflow.
pub(super) struct Mlflow {
    uri: Option<String>,
    experiment: Option<String>,
    /// For people.
    pub(super) place: String,
    /// The directory that contains only traces, if known.
    pub(super) store: Option<PathBuf>,
}

impl Mlflow {
    /// The variables for this destination.
    pub(super) fn env(&self) -> Vec<(&str, &str)> {
        let mut env = vec![(MLFLOW_ENABLE, "true")];
        env.extend(self.uri.as_deref().map(|uri| (URI, uri)));
        env.extend(self.experiment.as_deref().map(|name| (EXPERIMENT, name)));
        env
    }
}

/// The destination from these flags or the environment, for one `project` or all.
///
/// # Errors
/// What is wrong with them, for people.
pub(super) fn choice(uri: Option<&str>, experiment: Option<&str>, project: Option<&Path>) -> Result<Mlflow, String> {
    let given = |flag: Option<&str>, name| {
        flag.map(str::to_owned).or_else(|| environment::text(name)).filter(|value| !value.trim().is_empty())
    };
    let (uri, experiment) = (given(uri, URI), given(experiment, EXPERIMENT));
    let mut vars = vec![(MLFLOW_ENABLE, "true".to_owned())];
    // For all projects, each has its own directory.
    let dir = project.map_or_else(|| EACH.into(), |dir| dir.display().to_string());
    vars.push(("CLAUDE_PROJECT_DIR", dir));
    vars.extend(uri.clone().map(|uri| (URI, uri)));
    vars.extend(experiment.clone().map(|name| (EXPERIMENT, name)));
    let env = Env::new(vars.iter().map(|(name, value)| (*name, value.as_str())));
    let backend = &mlflow::Mlflow;
    let wrong = || {
        format!(
            "--tracking-uri is neither a server, such as http://127.0.0.1:5000, nor a directory: {}",
            uri.clone().unwrap_or_default()
        )
    };
    let (to, secrets) = backend.route(&env).ok().flatten().ok_or_else(wrong)?;
    if !secrets.is_empty() {
        return Err("leave user and password out of --tracking-uri: they are taken from MLFLOW_TRACKING_USERNAME and \
                    MLFLOW_TRACKING_PASSWORD, or ~/.mlflow/credentials"
            .into());
    }
    let store = match backend.connect(&to, &secrets, &[]) {
        Connect::Park(why) => return Err(why),
        Connect::Files(folder) => Some(folder.private()).filter(|dir| !dir.starts_with(EACH)),
        Connect::Ready(_) | Connect::Ask(_) => None,
    };
    let name = experiment.as_ref().map_or_else(|| "experiment 0".to_owned(), |name| format!("experiment {name}"));
    let place = format!("{}, {name}", to.address.replace("/each project/", "each project\u{2019}s "));
    Ok(Mlflow { uri, experiment, place, store })
}

/// True if MLflow's plugin is on in these settings files, weakest first. Hooks of MLflow 3.12 in them are reported,
/// because they can only be removed there.
pub(super) fn is_plugin_on(others: &[PathBuf]) -> bool {
    let mut is_on = false;
    for file in others {
        let Ok(Some(text)) = files::read(file) else { continue };
        let rival = Rival::of(&text);
        is_on = rival.plugin.unwrap_or(is_on);
        for event in rival.hooks {
            out!("MLflow        its own hook for {event} in {} sends every turn too: remove it there", file.display());
        }
    }
    is_on
}
