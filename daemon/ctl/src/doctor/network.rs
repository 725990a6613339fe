//! The server: who it takes us for, and whether what it is sent can be read.

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use crate::{client, seen};
use cc_core::{
    destination::{Destination, wire::WireSpan},
    doctor::{
        Finding,
        server::{Probe, judge_held, judge_project},
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

/// What the trace is called.
const NAME: &str = "cc-langfuse doctor";

/// The server of a project.
pub(super) struct Server<'a> {
    pub to: &'a Destination,
    pub secrets: &'a Secrets,
    pub options: Options,
    pub project: &'a Path,
    pub home: &'a Path,
}

impl Server<'_> {
    /// Asks it for the project, and if it knows that, sends a trace that must show within `wait`.
    pub(super) fn examine(&self, status: Option<&Status>, wait: Option<Duration>) -> anyhow::Result<Vec<Finding>> {
        let config_dirs = Vec::from_iter(client::config_dir());
        let held = status.and_then(|status| {
            let known =
                |known: &&status::Destination| known.base_url == self.to.address && known.public_key == self.to.account;
            status.destinations.iter().find(known)
        });
        let by_others = || seen::by_others(self.to, &[self.project.to_path_buf()], &config_dirs, self.home);
        let why = match held {
            // What the daemon has judged counts.
            Some(known) => known.held_by.clone(),
            None => by_others().filter(|_| !seen::is_trusted(status, self.to)),
        };
        if let Some(why) = why {
            return Ok(vec![judge_held(self.to, &why)]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let readback = Readback::new(self.to, self.secrets, LIMITS)?;
            let answer = readback.project().await;
            let mut findings = judge_project(&self.to.address, &answer, now().as_secs());
            if let (Ok(_), Some(wait)) = (answer, wait) {
                findings.push(self.probe(&readback, wait).await?.judge());
            }
            Ok(findings)
        })
    }

    async fn probe(&self, readback: &Readback, wait: Duration) -> anyhow::Result<Probe> {
        let span = self.span(now());
        let id = hex(&span.trace_id);
        let sent = match Transport::connect(self.to, self.secrets, LIMITS).await {
            Ok(transport) => self.to.kind.judge(&transport.send(vec![span]).await),
            Err(verdict) => verdict,
        };
        let seen = match sent {
            Verdict::Delivered => Some(readback.trace(&id, wait).await),
            _ => None,
        };
        Ok(Probe { trace_id: id, sent, waited: wait, seen })
    }

    /// A trace of one span that costs nothing and belongs to no session.
    fn span(&self, now: Duration) -> WireSpan {
        let trace = trace_id(&format!("{NAME} {} {}", now.as_nanos(), std::process::id()));
        let pages = self.to.kind.backend().pages();
        let trial = pages.map(|pages| pages.trial(NAME, self.options.environment.as_deref()));
        WireSpan {
            trace_id: trace,
            span_id: span_id(trace, Role::Turn, NAME),
            name: NAME.into(),
            start_ns: now.as_nanos() as u64,
            end_ns: now.as_nanos() as u64 + 1_000_000,
            attributes: trial.unwrap_or_default(),
            ..WireSpan::default()
        }
    }
}

fn now() -> Duration {
    clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}
