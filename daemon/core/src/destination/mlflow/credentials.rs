//! The credentials file of MLflow's own client.

use super::{PASSWORD, USERNAME};
use crate::secret::{Secret, Secrets};

/// Relative to the user's home.
pub(super) const FILE: &str = ".mlflow/credentials";

/// Fills in a missing name or password from the section `[mlflow]` of `text`.
pub(super) fn fill(mut secrets: Secrets, text: &str) -> Secrets {
    let mut is_ours = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_ours = section.trim() == "mlflow";
        } else if let Some((key, value)) =
            line.split_once(['=', ':']).filter(|_| is_ours && !line.starts_with(['#', ';']))
        {
            let name = match key.trim().to_ascii_lowercase().as_str() {
                "mlflow_tracking_username" => USERNAME,
                "mlflow_tracking_password" => PASSWORD,
                _ => continue,
            };
            if secrets.get(name).is_none() && !value.trim().is_empty() {
                secrets.insert(name, Secret::new(value.trim()));
            }
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[other]\nmlflow_tracking_username = eve\n[mlflow]\n; x\nMLFLOW_TRACKING_USERNAME = ada\n\
        mlflow_tracking_password: p=w \nmlflow_tracking_token = t\n[more]\nmlflow_tracking_password = no\n";

    fn secrets(pairs: &[(&'static str, &str)]) -> Secrets {
        pairs.iter().map(|(name, value)| (*name, Secret::new(value))).collect()
    }

    #[test]
    fn only_missing_credentials_come_from_the_file() {
        let token = ("MLFLOW_TRACKING_TOKEN", "t-1");
        for (given, expect) in [
            (&[][..], &[(USERNAME, "ada"), (PASSWORD, "p=w")][..]),
            (&[token], &[token, (USERNAME, "ada"), (PASSWORD, "p=w")]),
            (&[(USERNAME, "bob")], &[(USERNAME, "bob"), (PASSWORD, "p=w")]),
            (&[(USERNAME, "bob"), (PASSWORD, "x")], &[(USERNAME, "bob"), (PASSWORD, "x")]),
        ] {
            assert!(fill(secrets(given), TEXT) == secrets(expect), "{given:?}");
        }
        for text in
            ["", "[mlflow]", "mlflow_tracking_username = ada", "[mlflow]\nmlflow_tracking_username =\n", "[mlflow\nx=y"]
        {
            assert!(fill(Secrets::default(), text).is_empty(), "{text}");
        }
    }
}
