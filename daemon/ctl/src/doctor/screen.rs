//! Findings for people: each is shown when it is there, grouped by the part of the way it belongs to.

use std::collections::BTreeSet;

use crate::ui::amount;
use cc_core::doctor::{Finding, Report, State, group};
use cc_langfuse::output::{self, Look};

/// How wide the names of checks are.
const WIDTH: usize = 16;

/// The last of the checks that show whether anything is set up here.
const LAST_OF_SETUP: &str = "unit";

/// When findings are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Never,
    AtOnce,
    /// After it is known whether anything is set up.
    Later,
}

/// What was found so far, and how it is shown.
pub(super) struct Screen {
    findings: Vec<Finding>,
    when: When,
    is_whole: bool,
    /// How many of the findings are shown.
    shown: usize,
    group: Option<Group>,
}

/// The group that is being shown.
struct Group {
    name: &'static str,
    /// Its checks that passed.
    passed: BTreeSet<&'static str>,
    /// Its name is shown, because a check did not pass.
    is_headed: bool,
}

impl Screen {
    fn new(when: When, is_whole: bool) -> Self {
        Self { findings: Vec::new(), when, is_whole, shown: 0, group: None }
    }

    /// Shows nothing.
    pub(super) fn silent() -> Self {
        Self::new(When::Never, true)
    }

    /// Shows all findings.
    pub(super) fn whole() -> Self {
        Self::new(When::AtOnce, true)
    }

    /// Shows the checks that did not pass, and one line where nothing is set up.
    pub(super) fn short() -> Self {
        Self::new(When::Later, false)
    }

    /// Shows the checks that did not pass.
    pub(super) fn failures() -> Self {
        Self::new(When::AtOnce, false)
    }

    /// Takes a finding, and shows it if it is time for that.
    pub(super) fn add(&mut self, finding: Finding) {
        let is_last = finding.check == LAST_OF_SETUP;
        self.findings.push(finding);
        if is_last && self.when == When::Later && !self.is_blank() {
            self.when = When::AtOnce;
        }
        if self.when == When::AtOnce {
            self.catch_up();
        }
    }

    /// Shows what is left, and how many problems there are; where nothing is set up, only `blank`.
    pub(super) fn end(mut self, blank: &str) -> Report {
        if self.when == When::Later && self.is_blank() {
            out!("{blank}");
            return self.report();
        }
        self.catch_up();
        self.close();
        let report = self.report();
        let (problems, warnings) = (report.count(State::Problem), report.count(State::Warning));
        out!();
        match (problems, warnings) {
            (0, 0) => out!("All is well."),
            (0, _) => out!("{}, no problem.", amount::count(warnings, "warning")),
            _ => out!("{}, {}.", amount::count(problems, "problem"), amount::count(warnings, "warning")),
        }
        report
    }

    /// All findings.
    pub(super) fn report(self) -> Report {
        Report::new(self.findings)
    }

    /// Nothing of this program is registered, on, running or stored here.
    fn is_blank(&self) -> bool {
        let is =
            |check: &str, state: State| self.findings.iter().any(|found| found.check == check && found.state == state);
        is("hook-events", State::Problem)
            && is("daemon", State::Problem)
            && !is("keys", State::Ok)
            && !is("hook-program", State::Ok)
    }

    fn catch_up(&mut self) {
        while self.shown < self.findings.len() {
            let name = group(self.findings[self.shown].check);
            if self.group.as_ref().is_some_and(|group| group.name != name) {
                self.close();
            }
            let group = self.group.get_or_insert(Group { name, passed: BTreeSet::new(), is_headed: false });
            let finding = &self.findings[self.shown];
            if self.is_whole || finding.state != State::Ok {
                if !std::mem::replace(&mut group.is_headed, true) {
                    let _ = output::painted(Look::Bold, format_args!("{name}"));
                }
                show(finding);
            } else {
                group.passed.insert(finding.check);
            }
            self.shown += 1;
        }
    }

    /// A group whose checks all passed takes one line.
    fn close(&mut self) {
        let Some(group) = self.group.take().filter(|group| !group.is_headed) else { return };
        let _ = output::parts(&[
            (Look::Green, "✓"),
            (Look::Plain, " "),
            (Look::Bold, group.name),
            (Look::Dim, &format!(": {}", Vec::from_iter(group.passed).join(", "))),
        ]);
    }
}

fn show(finding: &Finding) {
    let mark = match finding.state {
        State::Ok => (Look::Green, "✓"),
        State::Warning => (Look::Yellow, "!"),
        State::Problem => (Look::Red, "✗"),
    };
    let seen = format!(" {:<WIDTH$}  {}", finding.check, finding.seen);
    let _ = output::parts(&[(Look::Plain, "  "), mark, (Look::Plain, &seen)]);
    if let Some(remedy) = &finding.remedy {
        out!("    {:<WIDTH$}  → {remedy}", "");
    }
}
