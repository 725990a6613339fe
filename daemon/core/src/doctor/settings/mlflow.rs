//! Checks of MLflow: whether the tracking URI is usable, and whether MLflow's own integration sends the same traces.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::{
    destination::{Backend, Connect, mlflow::Mlflow},
    route::Env,
    settings::quoted,
    settings::rival::Rival,
};

const URI: &str = "MLFLOW_TRACKING_URI";

/// The findings on the server or directory that `env` names. `local` is the file to correct settings in; `rivals` is
/// what each settings file, weakest first, sets for MLflow's own integration.
pub(super) fn judge(env: &Env<'_>, local: &Path, rivals: &[(PathBuf, Rival)]) -> Vec<Finding> {
    let check = "mlflow";
    let put = |what: &str| format!("put {what} into `env` of {}", local.display());
    let mut findings = Vec::new();
    findings.push(match Mlflow.route(env) {
        Ok(Some((to, secrets))) => match Mlflow.connect(&to, &secrets, &[]) {
            Connect::Park(why) => Finding::problem(
                check,
                why,
                put(&format!("\"{URI}\": \"http://127.0.0.1:5000\", or where your server is")),
            ),
            Connect::Files(folder) => {
                Finding::ok(check, format!("files in {}, experiment {}", folder.root, to.account))
            }
            Connect::Ready(_) | Connect::Ask(_) if !to.is_private() => Finding::warning(
                check,
                format!(
                    "conversations would go to {} unencrypted: nothing is sent there until you trust it",
                    to.address
                ),
                format!(
                    "set {URI} to one with https://, or if the network is safe: cc-langfusectl trust {} {}",
                    quoted(&to.address),
                    quoted(&to.account)
                ),
            ),
            Connect::Ready(_) | Connect::Ask(_) => {
                Finding::ok(check, format!("{}, experiment {}", to.address, to.account))
            }
        },
        Ok(None) | Err(_) => Finding::problem(
            check,
            format!("{URI} is neither a server nor a directory"),
            put(&format!("\"{URI}\": \"http://127.0.0.1:5000\", or where your server is")),
        ),
    });
    if Rival::is_active(rivals.iter().map(|(_, rival)| rival)) {
        let files = rivals.iter().filter(|(_, rival)| rival.plugin == Some(true) || !rival.hooks.is_empty());
        let files: Vec<String> = files.map(|(file, _)| file.display().to_string()).collect();
        findings.push(Finding::problem(
            "mlflow-own",
            format!(
                "MLflow's own integration is active through {}: nothing is sent, because every turn would be there \
                    twice",
                files.join(", ")
            ),
            "cc-langfusectl setup --mlflow, which turns it off for a project",
        ));
    }
    findings
}
