//! [`Status`] → the text format of Prometheus.

use std::fmt::Write;

use crate::{status::Status, visible};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All figures of `status`. `now_ms` is Unix milliseconds.
pub fn render(status: &Status, now_ms: i64) -> String {
    let mut text = Text::default();
    text.one("build_info", "gauge", "The running daemon.", &[("version", &status.daemon.version)], 1);
    text.one("uptime_seconds", "gauge", "Seconds since it started.", &[], status.daemon.uptime_s);
    text.one("inbox_events", "gauge", "Hook events not handled yet.", &[], status.inbox.pending);
    text.one("events_total", "counter", "Hook events received since it started.", &[], status.inbox.heard);
    text.one("outbox_spans", "gauge", "Spans not yet delivered.", &[], status.outbox.pending);
    text.one("in_flight_spans", "gauge", "Spans that were sent and have no answer yet.", &[], status.outbox.in_flight);
    text.one("dead_letter_spans", "gauge", "Spans that were refused for good.", &[], status.dead_letters);
    text.one("media_pending", "gauge", "Images and documents not yet uploaded.", &[], status.media.pending);
    text.one("scores_pending", "gauge", "Scores not yet sent.", &[], status.scores.pending);
    text.one(
        "store_failing",
        "gauge",
        "1 while the database cannot be written.",
        &[],
        status.store_error.is_some().into(),
    );
    let age = |time: &Option<String>| {
        let at: jiff::Timestamp = time.as_ref()?.parse().ok()?;
        u64::try_from(now_ms.saturating_sub(at.as_millisecond()) / 1000).ok()
    };
    type Figure<'a> = (&'a str, &'a str, &'a str, fn(&crate::status::Destination) -> u64);
    let figures: [Figure<'_>; 6] = [
        ("destination_up", "gauge", "1 if the last request succeeded.", |to| (to.state == "ok").into()),
        ("destination_full", "gauge", "1 if the queue is full.", |to| to.full.into()),
        ("destination_waiting_spans", "gauge", "Spans waiting.", |to| to.waiting),
        ("destination_waiting_bytes", "gauge", "Their bytes.", |to| to.waiting_bytes),
        ("destination_delivered_spans_total", "counter", "Spans delivered.", |to| to.delivered),
        ("destination_rejected_spans_total", "counter", "Delivered spans the server did not keep.", |to| to.rejected),
    ];
    text.head("destination_info", "gauge", "The name of a destination.");
    for to in &status.destinations {
        text.line("destination_info", &info(to), 1);
    }
    // A `[[destination]]` table without a destination has no figures, and several such tables may look the same.
    let mut destinations: Vec<&crate::status::Destination> = Vec::new();
    for to in &status.destinations {
        if destinations.iter().all(|known| labels(known) != labels(to)) {
            destinations.push(to);
        }
    }
    for (name, kind, help, value) in figures {
        text.head(name, kind, help);
        for to in &destinations {
            text.line(name, &labels(to), value(to));
        }
    }
    text.head("destination_oldest_waiting_seconds", "gauge", "Age of the oldest span waiting.");
    for to in &destinations {
        if let Some(age) = age(&to.oldest_waiting) {
            text.line("destination_oldest_waiting_seconds", &labels(to), age);
        }
    }
    for (name, help, label, counts) in [
        ("skipped_total", "Lines and events that were skipped.", "reason", &status.skipped_lines),
        ("redacted_total", "Secrets masked.", "rule", &status.redacted),
    ] {
        text.head(name, "counter", help);
        counts.iter().for_each(|(what, count)| text.line(name, &[(label, what)], *count));
    }
    text.0
}

/// The labels that identify a destination.
fn labels(to: &crate::status::Destination) -> [(&str, &str); 2] {
    [("base_url", &to.base_url), ("public_key", &to.public_key)]
}

fn info(to: &crate::status::Destination) -> [(&str, &str); 4] {
    let [address, account] = labels(to);
    [("name", &to.name), ("kind", &to.kind), address, account]
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn one(&mut self, name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.head(name, kind, help);
        self.line(name, labels, value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP cc_langfuse_{name} {help}\n# TYPE cc_langfuse_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| {
                let value = visible::line(value).replace('\\', r"\\").replace('"', r#"\""#);
                format!("{name}=\"{value}\"")
            })
            .collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "cc_langfuse_{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_line_and_labels_are_escaped() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "daemon": {"version": "1.2.3", "pid": 7, "uptime_s": 60},
            "inbox": {"pending": 1, "heard": 12}, "outbox": {"pending": 2, "in_flight": 3}, "dead_letters": 4, "sessions": [],
            "destinations": [{
                "name": "team", "kind": "langfuse", "base_url": "https://a/\"\\", "public_key": "p\u{202e}\nk", "state": "held", "waiting": 2,
                "waiting_bytes": 99, "full": true, "oldest_waiting": "2026-11-20T08:00:00Z", "delivered": 5, "rejected": 6,
                "last_success": null, "last_error": null, "last_error_at": null
            }],
            "skipped_lines": {"not_json": 8}, "redacted": {"github": 9}
        }))
        .unwrap();
        let text = render(&status, 1_795_161_600_000 + 42_000);
        let to = r#"{base_url="https://a/\"\\",public_key="p\\u{202e}\\nk"}"#;
        for line in [
            r#"cc_langfuse_build_info{version="1.2.3"} 1"#,
            "cc_langfuse_inbox_events 1",
            "cc_langfuse_events_total 12",
            "cc_langfuse_store_failing 0",
            &format!("cc_langfuse_destination_up{to} 0"),
            &format!("cc_langfuse_destination_full{to} 1"),
            &format!("cc_langfuse_destination_oldest_waiting_seconds{to} 42"),
            r#"cc_langfuse_skipped_total{reason="not_json"} 8"#,
            r#"cc_langfuse_redacted_total{rule="github"} 9"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{line} has no type");
        }
    }
}
