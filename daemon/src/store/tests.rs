use tempfile::TempDir;

use super::*;
use cc_core::{
    destination::{
        Destination, Kind,
        wire::{Field, Value},
    },
    hook::{Event, Hint},
    ids::{Call, Print, SpanId, TraceId},
    media::Media,
    project::Options,
    transcript::{
        cursor::{Identity, Position},
        record::SessionFacts,
    },
    turn::{BACK, Launch, Past},
};

mod consent;
mod destinations;
mod file;
mod followers;
mod images;
mod known;
mod outbox;
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
    /// Moves a session with one destination forward.
    fn advance_one(&mut self, step: &Advance) -> Result<(DestinationId, usize)> {
        self.advance(step).map(|stored| stored[0])
    }

    /// Takes events with one destination each.
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
        event: Event::Stopped { answer: Some(Print::of("done")) },
        project_dirs: vec!["/home/dev/app".into()],
        config_dir: None,
        targets: vec![server("one").into()],
        settings_on: false,
        options: Options::default(),
        debug: false,
    }
}

fn span(trace: u8, id: u8, parent: u8) -> OutSpan {
    OutSpan {
        trace_id: [trace; 16],
        span_id: [id; 8],
        parent_id: [parent; 8],
        name: format!("{trace}/{id}"),
        start_ns: 1,
        end_ns: 2,
        error: None,
        attributes: vec![("k".into(), Value::Text("v".into()))],
        call: None,
        media: Vec::new(),
    }
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

fn step(spans: Vec<OutSpan>) -> Advance {
    Advance {
        behind: vec![],
        off: vec![],
        marks: Vec::new(),
        turns: Vec::new(),
        session: session("s-1"),
        spans,
        launches: Vec::new(),
        agents: Vec::new(),
        consumed: Vec::new(),
        skipped: BTreeMap::new(),
        unknown: BTreeMap::new(),
        redacted: BTreeMap::new(),
        now_ms: 10,
    }
}

/// Trace and span of everything that waits for `destination`, oldest first.
fn waiting(store: &mut Store, destination: DestinationId) -> Vec<(u8, u8)> {
    let rows = store.claim(destination, 1000, usize::MAX).unwrap();
    rows.iter().map(|row| (row.span.trace_id[0], row.span.span_id[0])).collect()
}

fn count(store: &Store, table: &str) -> u64 {
    store.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap() as u64
}
