//! The server: its project for the keys, and whether sent traces can be read.

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use crate::{client, traced};
use cc_core::{
    delivery::readback::Failure,
    destination::{
        Destination,
        deletion::Certainty,
        wire::{self, WireSpan},
    },
    doctor::{
        Finding,
        server::{Probe, judge_held, judge_project, judge_remark},
    },
    ids::{Role, hex, span_id, trace_id},
    project::Options,
    secret::Secrets,
    status::{self, Status},
    verdict::Verdict,
};
use cc_langfuse::clock;
use cc_langfuse::delivery::{
    readback::Readback,
    transport::{Limits, Transport},
};

/// How long a server may be silent.
const LIMITS: Limits =
    Limits { connect: Duration::from_secs(5), stall: Duration::from_secs(15), answer: Duration::from_secs(15) };

/// The name of the test trace.
const NAME: &str = "cc-langfuse doctor";

/// The server of a destination of the project.
pub(super) struct Server<'a> {
    pub to: &'a Destination,
    pub secrets: &'a Secrets,
    pub options: Options,
    pub project: &'a Path,
    pub home: &'a Path,
}

impl Server<'_> {
    /// Asks it for the project; if it answers, sends a trace that must appear within `wait`.
    pub(super) fn examine(&self, status: Option<&Status>, wait: Option<Duration>) -> anyhow::Result<Vec<Finding>> {
        let config_dirs = Vec::from_iter(client::config_dir());
        let held = status.and_then(|status| {
            let known =
                |known: &&status::Destination| known.base_url == self.to.address && known.public_key == self.to.account;
            status.destinations.iter().find(known)
        });
        let by_others = || traced::by_others(self.to, &[self.project.to_path_buf()], &config_dirs, self.home);
        let why = match held {
            // The daemon's judgement counts.
            Some(known) => known.held_by.clone(),
            None => by_others().filter(|_| !traced::is_trusted(status, self.to)),
        };
        if let Some(why) = why {
            return Ok(vec![judge_held(self.to, &why)]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let readback = Readback::new(self.to, self.secrets, LIMITS)?;
            let (mut findings, is_healthy) = self.project(&readback).await;
            let remarks = readback.remarks().await;
            findings.extend(remarks.iter().map(|remark| judge_remark(self.to, remark)));
            if let Some(wait) = wait.filter(|_| is_healthy && !remarks.iter().any(|remark| remark.is_grave)) {
                findings.push(self.probe(&readback, wait).await.judge());
            }
            Ok(findings)
        })
    }

    /// Asks for the project, if this kind has any; returns whether a trace may be sent.
    async fn project(&self, readback: &Readback) -> (Vec<Finding>, bool) {
        let Some(pages) = self.to.kind.backend().pages() else { return (Vec::new(), true) };
        let answer = readback.project().await;
        match &answer {
            Err(Failure::Status { status: 404, said, .. }) if pages.is_yet_to_come(self.to, said) => {
                let seen = format!("{} answers; {} is created with the first trace", self.to.address, self.to.account);
                (vec![Finding::ok("server", seen)], true)
            }
            _ => (judge_project(self.to, &answer, now().as_secs()), answer.is_ok()),
        }
    }

    async fn probe(&self, readback: &Readback, wait: Duration) -> Probe {
        let span = self.span(now());
        let id = hex(&span.trace_id);
        let backend = self.to.kind.backend();
        let sent = match Transport::connect(self.to, self.secrets, LIMITS).await {
            Ok(transport) => self.to.kind.judge(&transport.send(vec![span]).await),
            Err(verdict) => verdict,
        };
        let seen = match sent {
            Verdict::Delivered if backend.pages().is_some() => Some(readback.trace(&id, wait).await),
            _ => None,
        };
        let may_be_deleted = backend.deletion().is_some_and(|deletion| deletion.certainty() != Certainty::Asked);
        let deleted = match sent {
            Verdict::Delivered if may_be_deleted => match readback.deletes().await {
                Ok(true) => {
                    Some(readback.delete(std::slice::from_ref(&id), wait).await.map_err(|(_, why)| why.to_string()))
                }
                Ok(false) => None,
                Err(why) => Some(Err(why.to_string())),
            },
            _ => None,
        };
        Probe { trace_id: id, sent, waited: wait, seen, deleted, variable: backend.words().address }
    }

    /// A trace of one span without cost or session.
    fn span(&self, now: Duration) -> WireSpan {
        let trace = trace_id(&format!("{NAME} {} {}", now.as_nanos(), std::process::id()));
        WireSpan {
            trace_id: trace,
            span_id: span_id(trace, Role::Turn, NAME),
            name: NAME.into(),
            start_ns: now.as_nanos() as u64,
            end_ns: now.as_nanos() as u64 + 1_000_000,
            status: wire::Status::Ok,
            attributes: self.to.kind.backend().trial(NAME, self.options.environment.as_deref()),
            ..WireSpan::default()
        }
    }
}

fn now() -> Duration {
    clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}
