//! What the answers of MLflow's tracking server mean.

use proto::env::MLFLOW_SERVER_CERT;

use crate::verdict::{Answer, Verdict};

/// The header that names an experiment.
pub(super) const EXPERIMENT: &str = "x-mlflow-experiment-id";

/// Exceptions from the common table.
pub(super) fn verdict(answer: &Answer) -> Option<Verdict> {
    if let Answer::Untrusted(why) = answer {
        return Some(Verdict::Park(format!(
            "the TLS connection cannot be trusted: {why} ({MLFLOW_SERVER_CERT} names the authority; it is ignored in a file that \
             others can write)"
        )));
    }
    let Answer::Response { status, body, .. } = answer else { return None };
    let park = |remedy: &str| Some(Verdict::Park(format!("HTTP {status}: {body} ({remedy})")));
    match status {
        // The server refused the whole request because of one trace.
        400 if body.contains("already exists in another experiment") => Some(Verdict::Elsewhere(body.clone())),
        401 => park("check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"),
        403 if body.contains("Invalid Host header") => {
            park("start the server with --allowed-hosts that name its address, or use one of this machine or network")
        }
        403 => park("this user may not write to the experiment: its owner can allow it"),
        404 => park(
            "check MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME, and MLFLOW_WORKSPACE, \
             one of which the server does not know",
        ),
        500 if body.contains("FEATURE_DISABLED") => park("this server has no workspaces: remove MLFLOW_WORKSPACE"),
        501 => park(
            "this server keeps traces in files and takes none over the network: start it with \
             --backend-store-uri sqlite:///mlflow.db",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, body: &str) -> Answer {
        Answer::Response { status, retry_after: None, date: None, rejected: None, denial: None, body: body.into() }
    }

    #[test]
    fn permanent_refusals_park_with_a_remedy() {
        for (status, body, remedy) in [
            (401, "You are not authenticated.", "MLFLOW_TRACKING_USERNAME"),
            (403, "Permission denied", "may not write"),
            (403, "Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts"),
            (404, r#"{"error_code":"RESOURCE_DOES_NOT_EXIST"}"#, "MLFLOW_EXPERIMENT_ID"),
            (500, r#"{"error_code":"FEATURE_DISABLED"}"#, "remove MLFLOW_WORKSPACE"),
            (501, "not implemented", "sqlite:///mlflow.db"),
        ] {
            match verdict(&response(status, body)) {
                Some(Verdict::Park(why)) => assert!(why.contains(remedy) && why.contains(body), "{why}"),
                other => panic!("{status} {body}: {other:?}"),
            }
        }
    }

    #[test]
    fn other_answers_have_their_common_meaning() {
        for (status, body) in
            [(200, ""), (400, "bad"), (413, ""), (422, ""), (429, ""), (500, "oops"), (502, ""), (503, "")]
        {
            assert_eq!(verdict(&response(status, body)), None, "{status} {body}");
        }
        assert_eq!(verdict(&Answer::Silent("reset".into())), None);
        let elsewhere = "Trace 'tr-1' already exists in another experiment";
        assert_eq!(verdict(&response(400, elsewhere)), Some(Verdict::Elsewhere(elsewhere.into())));
    }
}
