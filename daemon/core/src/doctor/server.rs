//! Checks of the server: whether it can be reached, is the right one, and keeps what is sent.

use std::{path::PathBuf, time::Duration};

use proto::env::{Role, VARIABLES, Variable, rows};

use super::{Finding, count};
use crate::{
    config::destination::Named,
    delivery::readback::Failure,
    destination::{
        Destination as To,
        deletion::Deleted,
        pages::{Project, Remark, Seen},
    },
    secret::Tls,
    settings::{block::Vars, quoted},
    status::{Destination, Status},
    verdict::{Verdict, words},
};

/// A clock difference of more than this many seconds misplaces traces.
const SKEW: u64 = 60;

/// How many days before Claude Code removes them unread transcripts are reported.
const NOTICE_DAYS: u64 = 5;

/// A server that is not contacted, and why.
pub fn judge_held(to: &To, why: &str) -> Finding {
    Finding::problem(
        "server",
        format!("{} was not tried, and nothing is sent there: {why}", to.address),
        format!(
            "if spans are to go there: cc-langfusectl trust {} {}; else put keys and address of your own into \
                .claude/settings.local.json",
            quoted(&to.address),
            quoted(&to.account)
        ),
    )
}

/// The user's own TLS settings for it; `None` if there are none.
pub fn judge_tls(to: &To, tls: &Tls) -> Option<Finding> {
    tls.is_unproven.then(|| {
        let named = |row: Option<&Variable>| row.map_or("", |row| row.name);
        let of = to.kind.backend().of();
        Finding::warning(
            "server",
            format!(
                "{} need not prove who it is, as {} says: who is on the way there can read all that is sent",
                to.address,
                named(rows(of, Role::Tls).last())
            ),
            format!(
                "remove that, and name the file with your authority's certificate in {}",
                named(rows(of, Role::Tls).next())
            ),
        )
    })
}

/// TLS settings in a file that others can write: they are not used.
pub fn judge_foreign_tls(received: &Vars, own: &Vars) -> Vec<Finding> {
    let rows = VARIABLES.iter().filter(|row| row.role == Role::Tls && received.get(row.name) != own.get(row.name));
    let finding = |row: &Variable| {
        Finding::warning(
            "server",
            format!("{} stands in a file that others can write, and is not followed", row.name),
            "set it in .claude/settings.local.json or ~/.claude/settings.json if it is right".to_owned(),
        )
    };
    rows.map(finding).collect()
}

/// Whether the server answers with a project, and whether its clock is right. `now` is this machine's time at the
/// answer, in seconds since the epoch.
pub fn judge_project(to: &To, answer: &Result<Project, Failure>, now: u64) -> Vec<Finding> {
    let base_url = &to.address;
    let (date, finding) = match answer {
        Ok(project) => {
            (project.date, Finding::ok("server", format!("{base_url} knows the keys: project {}", project.name)))
        }
        Err(failure) => (failure.date(), judge_failure(to, failure)),
    };
    let mut findings = vec![finding];
    if let Some(date) = date {
        let off = now.abs_diff(date);
        let which = if now > date { "ahead of" } else { "behind" };
        findings.push(if off > SKEW {
            Finding::warning(
                "clock",
                format!("this machine is {off} s {which} the server, and so are the times of its traces"),
                "set the clock: timedatectl set-ntp true",
            )
        } else {
            Finding::ok("clock", format!("within {} s of the server's", off.max(1)))
        });
    }
    findings
}

/// A noteworthy fact about the server.
pub fn judge_remark(to: &To, remark: &Remark) -> Finding {
    let seen = format!("{}: {}", to.address, remark.seen);
    match (&remark.remedy, remark.is_grave) {
        (None, _) => Finding::ok("server", seen),
        (Some(remedy), false) => Finding::warning("server", seen, remedy.clone()),
        (Some(remedy), true) => Finding::problem("server", seen, remedy.clone()),
    }
}

fn judge_failure(to: &To, failure: &Failure) -> Finding {
    let (base_url, known) = (&to.address, to.kind.backend().words());
    let (title, variable) = (known.title, known.address);
    let (seen, remedy) = match failure {
        Failure::Status { status: 401 | 403, said, .. } => {
            (format!("{base_url} does not take the keys: {}", words(said)), known.credentials.to_owned())
        }
        Failure::Status { status: 511, .. } => (
            format!(
                "the network asks for a sign-in before it leads to \
            {base_url}"
            ),
            SIGN_IN.to_owned(),
        ),
        Failure::Status { status: 300..=399, .. } => (
            format!("{base_url} answers with a redirect"),
            format!(
                "set {variable} to the address it leads to; if that is a sign-in page of the network, sign in \
                there first"
            ),
        ),
        Failure::Status { status: 429, said, .. } => (
            format!("{base_url} takes no more requests for now: {}", words(said)),
            "nothing is lost: the daemon waits as long as the server asks; if it stays so, raise the limit of the \
                server or its plan"
                .to_owned(),
        ),
        Failure::Status { status: 502..=504, said, .. } => (
            format!("{base_url} is not ready: {}", words(said)),
            "nothing is lost: it is tried again; if it stays so, see whether the server runs behind its proxy, and \
                has started"
                .to_owned(),
        ),
        Failure::Status { status: 500..=599, said, .. } => (
            format!("{base_url} is in trouble: {}", words(said)),
            "nothing is lost: it is tried again; look at the log of the server".to_owned(),
        ),
        Failure::Status { status: 400, said, .. } if speaks_tls(said) => {
            (format!("{base_url} speaks TLS: {}", words(said)), format!("write https:// in {variable}"))
        }
        Failure::Odd { said, .. } if said.contains("page") => (
            format!("{base_url} does not answer as {title} does: {}", words(said)),
            format!(
                "sign in to the network if that is its page (a captive portal, a company's proxy); else correct \
                {variable}"
            ),
        ),
        Failure::Status { said, .. } | Failure::Odd { said, .. } => {
            (format!("{base_url} does not answer as {title} does: {}", words(said)), format!("correct {variable}"))
        }
        Failure::Unreachable(why) | Failure::Untrusted(why) if speaks_no_tls(why) => (
            format!("{base_url} does not speak TLS at that port: {why}"),
            format!(
                "set {variable} to the port where it does; http:// is only for localhost, 127.0.0.0/8 and [::1], because the key \
                 would be read on the way"
            ),
        ),
        Failure::Unreachable(why) => (
            format!("{base_url}: {why}"),
            format!("check {variable}, the network, HTTPS_PROXY and NO_PROXY; what is traced waits meanwhile"),
        ),
        Failure::Untrusted(why) => (
            format!("{base_url} cannot prove who it is: {why}"),
            match rows(to.kind.backend().of(), Role::Tls).next() {
                Some(row) => format!("name the file with your authority's certificate in {}", row.name),
                None => "name the file with your authority's certificate in NODE_EXTRA_CA_CERTS, for the daemon too"
                    .to_owned(),
            },
        ),
    };
    Finding::problem("server", seen, remedy)
}

/// True for the answer of nginx, Go, Node or Apache to a request without TLS at a TLS port.
fn speaks_tls(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    said.contains("https port") || said.contains("https server") || said.contains("ssl-enabled server port")
}

/// True for a TLS client's error if its first message was answered in plain text.
fn speaks_no_tls(why: &str) -> bool {
    why.contains("InvalidContentType") || why.contains("corrupt message")
}

/// The remedy for a captive portal.
const SIGN_IN: &str = "open any page in a browser and sign in to the network; what is traced waits meanwhile";

/// The result of a test trace.
pub struct Probe {
    pub trace_id: String,
    /// The meaning of the server's answer to it.
    pub sent: Verdict,
    /// How long the server was asked for it.
    pub waited: Duration,
    /// What each of the server's APIs shows, by its name; `None` if the trace was not accepted or the
    /// server has no API.
    pub seen: Option<Vec<(&'static str, Seen)>>,
    /// The result of deleting it; `None` if that was not tried.
    pub deleted: Option<Result<Deleted, String>>,
    /// The variable with the server's address.
    pub variable: &'static str,
}

impl Probe {
    /// Whether sent spans arrive.
    pub fn judge(&self) -> Finding {
        let (check, id) = ("probe", &self.trace_id);
        match &self.sent {
            Verdict::Delivered | Verdict::Elsewhere(_) => {}
            Verdict::Later(_, why) | Verdict::Silent(why) => {
                return Finding::problem(check, format!("a trace could not be sent: {why}"), "try again later");
            }
            Verdict::Park(why) | Verdict::Refused(why) | Verdict::TooLarge(why) => {
                return Finding::problem(
                    check,
                    format!("the server does not take a trace: {why}"),
                    format!(
                        "see the finding on the server; if that is well, {} leads to something between",
                        self.variable
                    ),
                );
            }
        }
        let said = |seen: &Seen| match seen {
            Seen::Shown(lag) => format!("after {}", seconds(*lag)),
            Seen::NotYet => "not there".to_owned(),
            Seen::NoSuchApi => "no such API".to_owned(),
            Seen::Failed(why) => why.clone(),
        };
        let Some(views) = &self.seen else {
            return self.finish(format!("trace {id} was sent and taken; this receiver is not read back"));
        };
        let all = views.iter().map(|(api, seen)| format!("{api}: {}", said(seen))).collect::<Vec<_>>().join("; ");
        if views.iter().any(|(_, seen)| matches!(seen, Seen::Shown(_))) {
            return self.finish(format!("trace {id} was sent and read back ({all})"));
        }
        Finding::problem(
            check,
            format!("the server took trace {id} and does not show it within {} ({all})", seconds(self.waited)),
            "give it longer: cc-langfusectl doctor --wait 5m; if it never shows, what the server takes is not processed: \
             look at its worker and queue",
        )
    }

    /// The trace has arrived: whether it was deleted again, if that is possible.
    fn finish(&self, seen: String) -> Finding {
        match &self.deleted {
            None => Finding::ok("probe", seen),
            Some(Ok(Deleted { gone: 1.., .. })) => Finding::ok("probe", format!("{seen} and deleted again")),
            Some(Ok(_)) => Finding::warning(
                "probe",
                format!("{seen}; the server did not know it when it was to be deleted again"),
                "look for it later, and delete it there",
            ),
            Some(Err(why)) => Finding::warning(
                "probe",
                format!("{seen}, and could not be deleted again: {why}"),
                "delete it there; cc-langfusectl forget would fail too",
            ),
        }
    }
}

/// "0.3 s", "30 s".
fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

/// The state of delivery, as the daemon reports it. `ours` are this project's destinations.
pub fn judge_delivery(status: &Status, ours: &[To]) -> Vec<Finding> {
    // An invalid table of config.toml is reported separately.
    let known = status.destinations.iter().filter(|to| !to.is_nowhere());
    let mut findings: Vec<Finding> = known.map(|to| judge_destination(to, ours)).collect();
    if status.dead_letters > 0 {
        findings.push(Finding::warning(
            "dead-letters",
            format!("{} were refused for good", count(status.dead_letters as usize, "span")),
            "cc-langfusectl dead-letters says why; then --retry all or --drop all",
        ));
    }
    if let Some(why) = status.media.last_error.as_ref().filter(|_| status.media.pending > 0) {
        findings.push(Finding::warning(
            "media",
            format!("{} waiting: {why}", count(status.media.pending as usize, "image or document")),
            "they are tried again automatically; spans do not wait for them",
        ));
    }
    findings
}

fn judge_destination(to: &Destination, ours: &[To]) -> Finding {
    let check = "delivery";
    let key = match super::settings::is_secret(&to.public_key) {
        true => "there is a secret key in place of the public one",
        false => to.public_key.as_str(),
    };
    let place = match to.called() {
        Some(name) => format!("{name} ({}, {key})", to.base_url),
        None => format!("{} ({key})", to.base_url),
    };
    let is_ours = ours.iter().any(|ours| ours.address == to.base_url && ours.account == to.public_key);
    let waiting = match to.waiting {
        0 => String::new(),
        n => format!(", {} waiting", count(n as usize, "observation")),
    };
    let error = to.last_error.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let seen = format!("{place} is {}{waiting}{error}", to.state);
    // Without waiting spans, another project's destination is no problem.
    let finding = if is_ours || to.waiting > 0 { Finding::problem } else { Finding::warning };
    match to.state.as_str() {
        "parked" => finding(
            check,
            seen,
            format!(
                "fix that; the daemon tries again by itself, and at once with cc-langfusectl flush. If the key is gone for good: \
                    cc-langfusectl destinations move {name} NEW, or drop {name}",
                name = to.name
            ),
        ),
        "held" => finding(check, seen, format!("to allow it: cc-langfusectl trust {}", to.base_url)),
        _ if to.full => Finding::problem(
            check,
            format!("{seen}, the queue is full: reading continues when some of it is delivered"),
            "fix the connection to the server, or raise outbox_mib in ~/.config/cc-langfuse/config.toml",
        ),
        "retrying" => Finding::warning(check, seen, "nothing is lost; the daemon tries again by itself".to_owned()),
        _ => {
            let last = to.last_success.as_deref().unwrap_or("never");
            Finding::ok(check, format!("{place}: {} observations delivered{waiting}, last {last}", to.delivered))
        }
    }
}

/// A `[[destination]]` table of config.toml: whether it is valid, its `secret` can be read, and the daemon knows it,
/// if it answers.
pub fn judge_configured(named: &Named, secret: Result<(), String>, status: Option<&Status>) -> Finding {
    let check = "destinations";
    let place =
        named.location.as_ref().map(|place| format!("{}:{}", place.file.display(), place.line)).unwrap_or_default();
    let is_known = |to: &&Destination| to.name == named.name && !to.is_nowhere();
    match (&named.entry, secret) {
        (Err(why), _) => {
            Finding::problem(check, format!("nothing is sent to {}: {why}", named.name), format!("fix {place}"))
        }
        (Ok(_), Err(why)) => Finding::problem(
            check,
            format!("nothing is sent to {}: {why}", named.name),
            format!("fix that, or {place}; then cc-langfusectl flush"),
        ),
        (Ok(_), Ok(())) if status.is_some_and(|status| !status.destinations.iter().any(|to| is_known(&to))) => {
            Finding::problem(
                check,
                format!(
                    "{} is in {place}, but the daemon does not know it: it has another HOME, is an earlier version, \
                        or cannot use the file",
                    named.name
                ),
                "cc-langfusectl restart",
            )
        }
        (Ok(entry), Ok(())) => {
            let kind = entry.destination.kind.backend().words().title;
            Finding::ok(check, format!("{}: {kind} at {}, by {place}", named.name, entry.destination.address))
        }
    }
}

/// A transcript of a traced project that Claude Code is about to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Old {
    pub session_id: String,
    pub path: PathBuf,
    /// Days since it was last written.
    pub days: u64,
}

/// True if a transcript last written `days` ago will soon be removed.
pub fn is_old(days: u64, cleanup_days: u64) -> bool {
    days >= cleanup_days.saturating_sub(NOTICE_DAYS)
}

/// Transcripts that are about to be removed, and may not have been read. The daemon lists only its latest sessions: if
/// there are more (`listed_all` is false), it may know others too.
pub fn judge_old(old: &[Old], status: Option<&Status>, listed_all: bool, cleanup_days: u64) -> Finding {
    let check = "transcripts";
    let removed = format!("Claude Code removes them after {cleanup_days} days");
    let backfill = |paths: &[&Old]| match paths {
        [one] => format!("cc-langfusectl backfill {}", one.path.display()),
        _ => format!(
            "cc-langfusectl backfill --since {}d, or raise cleanupPeriodDays in ~/.claude/settings.json",
            cleanup_days + 1
        ),
    };
    let Some(status) = status else {
        return match old.len() {
            0 => Finding::ok(check, format!("none is about to be deleted ({removed})")),
            n => Finding::problem(
                check,
                format!("{} about to be deleted ({removed}), and no daemon is reading", count(n, "transcript")),
                "cc-langfusectl start; the daemon continues where it stopped",
            ),
        };
    };
    let unknown: Vec<&Old> = old
        .iter()
        .filter(|old| !status.sessions.iter().any(|session| session.session_id == old.session_id && !session.open_turn))
        .collect();
    if unknown.is_empty() {
        return Finding::ok(check, format!("none that is about to be deleted is unread ({removed})"));
    }
    let seen = format!("{} of traced projects about to be deleted ({removed})", count(unknown.len(), "transcript"));
    let stopped = status.store_error.is_some() || status.destinations.iter().any(|to| to.full);
    if stopped {
        Finding::problem(
            check,
            format!("{seen}, while reading has stopped"),
            "fix what stops it first, see the findings above".to_owned(),
        )
    } else if listed_all {
        Finding::warning(check, format!("{seen}, and never traced"), backfill(&unknown))
    } else {
        Finding::ok(check, format!("{seen}; cc-langfusectl backfill --dry-run says whether all are traced"))
    }
}

#[cfg(test)]
mod tests;
