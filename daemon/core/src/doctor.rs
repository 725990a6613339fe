//! Checks of everything between Claude Code's hook and the server. Comes in: what was observed, collected elsewhere. Goes out:
//! findings with remedies.

use serde::Serialize;

pub mod local;
pub mod server;
pub mod settings;

/// The state of a checked part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Ok,
    /// Sessions are traced, but the user should look at something.
    Warning,
    /// Something is not traced, or will not be.
    Problem,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name, which never changes.
    pub check: &'static str,
    pub state: State,
    /// What was found.
    pub seen: String,
    /// A command or an edit that fixes it.
    pub remedy: Option<String>,
}

impl Finding {
    /// Everything is right.
    pub fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, state: State::Ok, seen: seen.into(), remedy: None }
    }

    /// The user should look at something.
    pub fn warning(check: &'static str, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Warning, seen: seen.into(), remedy: Some(remedy.into()) }
    }

    /// Something does not work.
    pub fn problem(check: &'static str, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Problem, seen: seen.into(), remedy: Some(remedy.into()) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order of an event's path to the server.
    pub findings: Vec<Finding>,
    /// The worst state among them.
    pub worst: State,
}

impl Report {
    pub fn new(findings: Vec<Finding>) -> Self {
        let worst = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok);
        Self { findings, worst }
    }

    pub fn count(&self, state: State) -> usize {
        self.findings.iter().filter(|finding| finding.state == state).count()
    }
}

/// The section of the report that a check belongs to.
pub fn group(check: &str) -> &'static str {
    match check {
        "claude" | "managed-settings" | "user-settings" | "project-settings" | "local-settings" => "Claude Code",
        "hooks" | "plugin" | "hook-events" | "hook-program" | "hooks-file" | "other-tracer" => "Hook",
        "tracing" | "pause" | "keys" | "base-url" | "otlp" | "semantics" | "tracked-keys" => "This project",
        "server" | "clock" | "store" | "probe" => "Server",
        "destinations" | "delivery" | "dead-letters" | "media" | "projects" | "transcripts" | "unread" => "Delivery",
        _ => "Daemon",
    }
}

/// "812 B", "3.4 MiB".
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, "B");
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// "1 event", "2 events".
fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides_the_state_of_the_report() {
        let (ok, warning, problem) =
            (Finding::ok("a", ""), Finding::warning("b", "", ""), Finding::problem("c", "", ""));
        for (findings, expect) in [
            (vec![], State::Ok),
            (vec![ok.clone()], State::Ok),
            (vec![warning.clone(), ok.clone()], State::Warning),
            (vec![warning.clone(), problem, ok], State::Problem),
        ] {
            assert_eq!(Report::new(findings).worst, expect);
        }
        let json = serde_json::to_value(Report::new(vec![warning])).unwrap();
        let finding = serde_json::json!({"check": "b", "state": "warning", "seen": "", "remedy": ""});
        assert_eq!(json, serde_json::json!({"findings": [finding], "worst": "warning"}));
    }
}
