use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use cc_core::{
    delivery::item::Stored,
    destination::{Destination, Kind},
    hook::{Event, Hint},
    ids::{Call, Fingerprint, SpanId, TraceId},
    media::Media,
    observation::{Field, Link, Observation, TraceFacts},
    pipeline::Outgoing,
    project::Options,
    transcript::{
        cursor::{Identity, Position},
        record::SessionFacts,
    },
    turn::{BACK, Launch, Past},
};

mod arrived;
mod consent;
mod destinations;
mod file;
mod followers;
mod hidden;
mod history;
mod images;
mod migrate;
mod observations;
mod outbox;
mod redirect;
mod room;
mod scores;
mod sessions;

fn opened(dir: &TempDir) -> Store {
    let Opened { store, damaged, again, .. } = Store::open(&dir.path().join("state.db")).unwrap();
    assert_eq!((damaged, again), (None, false));
    store
}

fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(&dir);
    (dir, store)
}

fn server(name: &str) -> Destination {
    Destination { kind: Kind::Langfuse, address: format!("https://{name}.example.org"), account: "pk-1".into() }
}

impl Store {
    /// Stores a step with one destination.
    fn advance_one(&mut self, step: &Advance) -> Result<(DestinationId, usize)> {
        self.advance(step).map(|stored| stored[0])
    }

    /// Stores events with one destination each.
    fn accept_one(&mut self, hints: &[Hint], refused: &[&'static str]) -> Result<Vec<DestinationId>> {
        self.accept(hints, refused).map(|ids| ids.into_iter().flatten().collect())
    }
}

/// An event that goes to `destination`.
fn hint_to(destination: Destination, chooser: Option<cc_core::consent::Chooser>, id: &str, fired_ns: u64) -> Hint {
    Hint { targets: vec![cc_core::route::Target { destination, chooser }], ..hint(id, fired_ns) }
}

fn hint(id: &str, fired_ns: u64) -> Hint {
    Hint {
        id: id.into(),
        source: cc_core::hook::Source::Hook,
        fired_ns,
        session_id: "s-1".into(),
        transcript: "/home/dev/s-1.jsonl".into(),
        event: Event::Stopped { answer: Some(Fingerprint::of("done")) },
        project_dirs: vec!["/home/dev/app".into()],
        config_dir: None,
        targets: vec![server("one").into()],
        former: Vec::new(),
        settings_on: false,
        options: Options::default(),
        debug: false,
        totals_follow: false,
    }
}

fn span(trace: u8, id: u8, parent: u8) -> Observation {
    Observation {
        trace_id: [trace; 16],
        span_id: [id; 8],
        parent: Some([parent; 8]).filter(|_| parent > 0),
        name: format!("{trace}/{id}"),
        start: 1,
        end: 2,
        status: Some("v".into()),
        ..Observation::default()
    }
}

/// The body of a span as earlier versions stored it, in the attributes of its destination.
fn as_spans_were_stored(trace: u8, id: u8, parent: u8) -> String {
    let [trace, id, parent] = [[trace; 16].as_slice(), &[id; 8], &[parent; 8]].map(hex);
    format!(
        r#"{{"trace_id":"{trace}","span_id":"{id}","parent_id":"{parent}","name":"n","start_ns":1,"end_ns":2,"attributes":[["k","v"]]}}"#
    )
}

/// In the stored form.
fn waits(observation: Observation) -> Item {
    Item::Observation(Box::new(Stored { facts: Arc::new(TraceFacts::default()), observation }))
}

/// As it is queued, with its size.
fn outgoing(observation: Observation) -> Outgoing {
    let media = observation.media.iter().map(|(_, media)| media.bytes.len()).sum::<usize>();
    Outgoing { facts: Arc::default(), bytes: observation.name.len() + media, observation }
}

fn session(id: &str) -> SessionRow {
    SessionRow {
        session_id: id.into(),
        transcript: "/home/dev/s-1.jsonl".into(),
        cursor: Position { identity: Identity { dev: u64::MAX, ino: 7 }, offset: 100, marker: Some(u64::MAX) },
        closed: 1,
        turns: 2,
        open_turn: true,
        unsettled: 1,
        forked_from: Some("s-0".into()),
        title: Some("a name".into()),
        hint: hint("e-1", 1),
    }
}

pub(crate) fn step(spans: Vec<Observation>) -> Advance {
    Advance {
        behind: vec![],
        off: vec![],
        marks: Vec::new(),
        hidden: Vec::new(),
        turns: Vec::new(),
        scores: Vec::new(),
        session: session("s-1"),
        spans: spans.into_iter().map(outgoing).collect(),
        launches: Vec::new(),
        agents: Vec::new(),
        consumed: Vec::new(),
        kept: None,
        skipped: BTreeMap::new(),
        unknown: BTreeMap::new(),
        redacted: BTreeMap::new(),
        now_ms: 10,
    }
}

/// Trace and span of everything that waits for `destination`, oldest first.
fn waiting(store: &mut Store, destination: DestinationId) -> Vec<(u8, u8)> {
    let rows = store.claim(destination, 1000, usize::MAX).unwrap();
    rows.iter().map(|row| (row.item.trace_id()[0], row.item.span_id()[0])).collect()
}

/// Replaces body and checksum of the observation that waits as span `id` for one destination.
fn put(store: &Store, destination: DestinationId, id: u8, body: &str, sum: Option<i64>) {
    let seq: i64 = store
        .db
        .query_row("UPDATE observation SET body = ? WHERE span_id = ? RETURNING id", params![body, [id; 8]], |row| {
            row.get(0)
        })
        .unwrap();
    let sql = "UPDATE outbox SET checksum = ? WHERE destination = ? AND seq = ?";
    assert_eq!(store.db.execute(sql, params![sum, destination, seq]).unwrap(), 1);
}

fn count(store: &Store, table: &str) -> u64 {
    store.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap() as u64
}
