//! What the database costs per session: restored sessions enter the outbox and are acknowledged.
//!
//! `cargo bench -p daemon --bench store`; to count instructions of one pass:
//! `valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*restore*' target/release/deps/store-* --test`

#![allow(missing_docs, reason = "divan makes public items")]

use std::{collections::BTreeMap, sync::Arc};

use cc_core::{
    destination::{Destination, Kind},
    hook::{Event, Hint, Source},
    ids::Call,
    observation::{Observation, TraceFacts},
    pipeline::Outgoing,
    project::Options,
    transcript::{
        cursor::{Identity, Position},
        record::SessionFacts,
    },
    turn::Past,
};
use cc_langfuse::store::{Advance, SessionRow, Store};
use divan::{Bencher, counter::ItemsCount};

const SESSIONS: u64 = 2000;
/// How many of them are stored at once, as the engine does with unhurried sessions.
const SESSIONS_PER_STEP: usize = 16;

fn main() {
    divan::main();
}

/// A fixed sequence of bytes that look random.
fn id<const N: usize>(of: u64, role: u8) -> [u8; N] {
    let hash = cc_core::ids::fingerprint(&[&of.to_be_bytes()[..], &[role]].concat());
    std::array::from_fn(|at| hash[at % 16])
}

fn hint(session_id: &str, targets: usize) -> Hint {
    let to = |number| Destination {
        kind: Kind::ALL[0],
        address: format!("https://host-{number}.example.org"),
        account: "pk-lf-00000000-0000-4000-8000-000000000000".into(),
    };
    Hint {
        id: format!("scan-{session_id}"),
        source: Source::Scan,
        fired_ns: 1,
        session_id: session_id.into(),
        transcript: format!("/home/dev/.claude/projects/-home-dev-app/{session_id}.jsonl").into(),
        event: Event::Ended,
        project_dirs: vec!["/home/dev/app".into()],
        config_dir: Some("/home/dev/.claude".into()),
        targets: (0..targets).map(|number| to(number).into()).collect(),
        former: Vec::new(),
        settings_on: false,
        options: Options::default(),
        debug: false,
        totals_follow: false,
    }
}

fn step(number: u64, targets: usize) -> Advance {
    let session_id = format!("{:x?}", id::<16>(number, 0)).replace([',', ' ', '[', ']'], "");
    let facts = Arc::new(TraceFacts { session_id: session_id.clone(), ..TraceFacts::default() });
    let out = |role, parent: Option<u8>, call| {
        let observation = Observation {
            trace_id: id(number, 1),
            span_id: id(number, role),
            parent: parent.map(|role| id(number, role)),
            name: "Claude Code turn".into(),
            start: 1_790_000_000_000_000_000,
            end: 1_790_000_001_000_000_000,
            status: Some("some words of an answer ".repeat(30)),
            call,
            ..Observation::default()
        };
        Outgoing { facts: facts.clone(), bytes: 1000, observation }
    };
    let call = Call::of(&session_id, Some(number), Some(&session_id), Some(&session_id));
    let turn =
        Past { key: session_id.clone(), number: 1, position: None, follows: None, session: SessionFacts::default() };
    let hint = hint(&session_id, targets);
    Advance {
        session: SessionRow {
            transcript: hint.transcript.clone(),
            session_id,
            cursor: Position { identity: Identity { dev: 1, ino: number }, offset: 700, marker: Some(number) },
            closed: 1,
            turns: 1,
            open_turn: false,
            unsettled: 0,
            forked_from: None,
            title: None,
            hint,
        },
        spans: vec![out(2, None, None), out(3, Some(2), Some(call))],
        off: Vec::new(),
        marks: Vec::new(),
        hidden: Vec::new(),
        turns: vec![turn],
        scores: Vec::new(),
        launches: Vec::new(),
        agents: Vec::new(),
        consumed: Vec::new(),
        kept: None,
        skipped: BTreeMap::new(),
        unknown: BTreeMap::new(),
        redacted: BTreeMap::new(),
        behind: Vec::new(),
        now_ms: 1,
    }
}

#[inline(never)]
fn restore(store: &mut Store, steps: &[Advance]) {
    for together in steps.chunks(SESSIONS_PER_STEP) {
        for step in together {
            store.claim_turn(&step.spans[0].observation.trace_id, &step.session.session_id).expect("claimed");
        }
        let stored = store.advance_all(together).expect("stored");
        // A batch is sent as soon as it is full.
        for (destination, _) in stored.first().into_iter().flatten() {
            let rows = store.claim(*destination, 256, 1 << 20).expect("claimed");
            if rows.len() == 256 {
                store.delivered(*destination, &rows, 0, 2).expect("acknowledged");
            }
        }
    }
}

#[divan::bench(args = [1, 2], sample_count = 3, sample_size = 1)]
fn restored_sessions(bencher: Bencher<'_, '_>, targets: usize) {
    let steps: Vec<_> = (0..SESSIONS).map(|number| step(number, targets)).collect();
    bencher
        .counter(ItemsCount::new(SESSIONS))
        .with_inputs(|| {
            let dir = tempfile::tempdir().expect("a directory");
            let store = Store::open(&dir.path().join("state.db")).expect("a database").store;
            (dir, store)
        })
        .bench_local_refs(|(_, store)| restore(store, &steps));
}
