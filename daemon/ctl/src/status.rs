//! `status` and `flush`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Duration,
};

use crate::{
    client::Client,
    latest,
    ui::{
        amount::{count, size},
        table, terminal,
    },
};
use cc_core::{
    status::{Archive, Left, Status, Telemetry, Trouble, UnknownKind, reasons},
    verdict::words,
};
use cc_langfuse::output;

/// Maximum length of a value from outside, in characters; `--json` has all of it.
const MAX_VALUE_CHARS: usize = 200;

pub(crate) fn status(json: bool) -> anyhow::Result<ExitCode> {
    let status = Client::new()?.status()?;
    let code = if status.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        output::json(&status, true)?;
        return Ok(code);
    }
    let (problems, is_outdated) = (status.problems(), status.daemon.is_outdated(cc_langfuse::VERSION));
    let Status {
        daemon,
        inbox,
        outbox,
        dead_letters,
        media,
        scores,
        imported,
        sessions,
        destinations,
        skipped_lines,
        unknown_kinds,
        redacted,
        paused,
        left_in_spool,
        store_error,
        config_error,
        telemetry,
        archive,
        unread: _,
        trusted: _,
        off: _,
        trusts: _,
    } = status;
    out!("daemon        {} · pid {} · up {}", daemon.version, daemon.pid, uptime(daemon.uptime_s));
    if is_outdated && !daemon.replaced {
        let build = if daemon.build.is_empty() { &daemon.version } else { &daemon.build };
        out!("              it is {build}, this is {}: cc-langfusectl restart", cc_langfuse::VERSION);
    }
    out!("hook events   {} waiting", inbox.pending);
    out!("observations  {} waiting, {} on their way, {dead_letters} undeliverable", outbox.pending, outbox.in_flight);
    if media.pending > 0 {
        let error = media.last_error.map_or_else(String::new, |why| format!(": {}", short(&why)));
        out!("media         {} waiting{error}", media.pending);
    }
    if scores.pending > 0 {
        let error = scores.last_error.map_or_else(String::new, |why| format!(": {}", short(&why)));
        out!("scores        {} waiting{error}", scores.pending);
    }
    if let Some(Telemetry { error: None, taken, foreign, refused, unreadable, nameless, not_passed_on }) = telemetry {
        let parts = [
            (foreign, "of other programs"),
            (refused, "without the token"),
            (unreadable, "unreadable"),
            (nameless, "without a session"),
            (not_passed_on, "not passed on"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
        out!("telemetry     {taken} records of Claude Code{}", parts.collect::<String>());
    }
    if let Some(archive) = archive {
        archived(&archive);
    }
    if let Some(why) = config_error {
        out!("configuration the file cannot be used: {why}");
    }
    if let Some(Trouble { error, since }) = store_error {
        out!("database      cannot be written since {}: {error}", since.as_deref().unwrap_or("a while ago"));
        out!("              nothing is lost; work continues when it can be written again (is the disk full?)");
    }
    if imported > 0 {
        out!("imported      {imported} sessions from another tool: they continue where it stopped");
    }
    if dead_letters > 0 {
        out!("              see cc-langfusectl dead-letters");
    }
    for (index, dir) in paused.iter().enumerate() {
        let what = if dir.parent().is_none() { "every project".to_owned() } else { dir.display().to_string() };
        out!("{:<14}{what} (see cc-langfusectl resume)", if index == 0 { "paused" } else { "" });
    }
    for to in destinations {
        let called = to.called().map_or_else(String::new, |name| format!("{name}: "));
        match to.is_nowhere() {
            true => out!("destination   {called}{}", short(&to.base_url)),
            false => out!("destination   {called}{} ({})", short(&to.base_url), short(&to.public_key)),
        }
        let last = to.last_success.as_deref().map(|at| format!(", the last {}", ago(at))).unwrap_or_default();
        out!("              {}, {} observations delivered{last}", to.explained(), to.delivered);
        if to.rejected > 0 {
            out!("              the server says it did not keep {} of them", to.rejected);
        }
        if let Some(oldest) = &to.oldest_waiting {
            out!(
                "              {} observations waiting ({}), the oldest from {}",
                to.waiting,
                size(to.waiting_bytes),
                ago(oldest)
            );
        }
        if to.full {
            out!("              the queue is full: reading continues when some of it is delivered");
        }
        match (to.current_error(), &to.last_error_at) {
            (Some(why), Some(at)) => out!("              last error {}: {}", ago(at), short(&words(why))),
            (Some(why), None) => out!("              {}", short(why)),
            (None, _) => {}
        }
    }
    // The type of a line is one word; a field is prefixed with its line's type.
    let (fields, kinds): (Vec<_>, Vec<_>) = unknown_kinds.iter().partition(|of| of.kind.contains('.'));
    for (what, met) in [("line kind", kinds), ("field", fields)] {
        if let Some(unknown) = unknown(what, &met) {
            out!("unknown       {unknown}");
            out!("              {}", advice(&met));
        }
    }
    let known = |counts: BTreeMap<String, u64>, words: fn(&str) -> Cow<'_, str>| -> Vec<String> {
        counts.iter().map(|(name, count)| format!("{count} {}", words(name))).collect()
    };
    for (label, counts) in [
        ("skipped", known(skipped_lines, reasons::skipped)),
        ("masked", redacted.iter().map(|(rule, count)| format!("{count} {rule}")).collect()),
        ("left in spool", known(left_in_spool, reasons::left)),
    ] {
        for (index, what) in counts.iter().enumerate() {
            out!("{:<14}{}", if index == 0 { label } else { "" }, short(what));
        }
    }
    if !sessions.is_empty() {
        out!();
        for line in latest::lines(sessions, terminal::width().unwrap_or(usize::MAX)) {
            let _ = output::painted(output::Look::Plain, format_args!("{line}"));
        }
    }
    if !problems.is_empty() {
        out!();
    }
    for (index, problem) in problems.iter().enumerate() {
        out!("{:<14}{}", if index == 0 { "problem" } else { "" }, short(problem));
    }
    Ok(code)
}

/// What is in the archive of transcripts, and what is not.
fn archived(archive: &Archive) {
    let Archive { sessions, bytes, limit_bytes, removed, left_out } = archive;
    let limit =
        limit_bytes.map_or_else(|| "off: nothing is added".to_owned(), |limit| format!("limit {}", size(limit)));
    out!("archive       {}, {} ({limit})", count(*sessions as usize, "session"), size(*bytes));
    if *removed > 0 {
        out!("              {} removed at the limit, the oldest first", count(*removed as usize, "session"));
    }
    for (why, sessions) in left_out {
        let why = match why.as_str() {
            "off" => "tracing is off there",
            "paused" => "the project is paused",
            "held" => "every destination waits for cc-langfusectl trust",
            "capture_metadata" => "no text may be captured there",
            "left_out_of_traces" => "some of it was paused, forgotten, or said while tracing was off",
            "no_room" => "older than what was removed at the limit",
            "unreadable" => "its transcript cannot be read, or the copy not be written",
            other => other,
        };
        out!("              {} left out: {why}", count(*sessions as usize, "session"));
    }
}

pub(crate) fn flush(timeout: Duration) -> anyhow::Result<ExitCode> {
    let left = Client::new()?.flush(timeout)?;
    Ok(if left == Left::default() { ExitCode::SUCCESS } else { late(timeout, &left) })
}

/// Reports what is left after `timeout`.
pub(crate) fn late(timeout: Duration, left: &Left) -> ExitCode {
    let media = if left.media > 0 { format!(", {} images and documents", left.media) } else { String::new() };
    err!("still waiting after {timeout:?}: {} hook events, {} observations{media}", left.events, left.spans);
    left.why.iter().for_each(|why| err!("  {}", short(&words(why))));
    ExitCode::FAILURE
}

/// How long ago the time `at`, in the daemon's form, is.
fn ago(at: &str) -> String {
    table::ago(Some(at), jiff::Timestamp::now())
}

/// A value among others in a line.
fn short(text: &str) -> String {
    table::clip(text, MAX_VALUE_CHARS)
}

/// Whether it matters that these kinds of lines, or fields of known lines, are unknown, and what to do.
fn advice(met: &[&UnknownKind]) -> &'static str {
    if met.iter().any(|of| of.kind.contains(".usage.")) {
        "one of them may count tokens: compare with cc-langfusectl reconcile; a newer cc-langfuse may read it"
    } else if met.iter().any(|of| of.kind.contains('.')) {
        "turns, tokens and times are read from other fields: there is nothing to do"
    } else {
        "such lines are passed over: if a turn lacks something, a newer cc-langfuse may read them"
    }
}

/// "2 line kinds since Claude Code 2.1.400: a, b".
fn unknown(what: &str, met: &[&UnknownKind]) -> Option<String> {
    let kinds: BTreeSet<&str> = met.iter().map(|of| if of.kind.is_empty() { "(none)" } else { &of.kind }).collect();
    let number = |version: &str| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>();
    let since = met.iter().map(|of| &of.version).filter(|version| !version.is_empty()).min_by_key(|v| number(v));
    let since = since.map_or_else(String::new, |version| format!(" since Claude Code {version}"));
    let names = kinds.iter().map(|name| short(name)).collect::<Vec<_>>().join(", ");
    (!met.is_empty()).then(|| format!("{}{since}: {names}", count(kinds.len(), what)))
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}
