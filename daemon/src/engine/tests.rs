use std::time::{Duration, Instant};

use super::{read::PANICKED, tell::FAULT, *};
use crate::{
    hook::{Kind, Options},
    store::Store,
};

#[test]
fn a_fault_of_ours_costs_the_session_it_is_in_its_event_and_no_other_session_anything() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join(".claude/projects/p");
    std::fs::create_dir_all(&dir).unwrap();
    let line = |kind: &str, id: &str, text: &str| {
        format!(r#"{{"type":"{kind}","uuid":"{id}","message":{{"id":"m-{id}","content":"{text}"}}}}"#)
    };
    for (id, text) in [("bad", FAULT), ("good", "hello")] {
        let lines = [line("user", &format!("{id}-1"), "go"), line("assistant", &format!("{id}-2"), text)];
        std::fs::write(dir.join(format!("{id}.jsonl")), lines.join("\n") + "\n").unwrap();
    }
    let hint = |id: &str| Hint {
        id: format!("e-{id}"),
        fired_ns: 1,
        session_id: id.into(),
        transcript: dir.join(format!("{id}.jsonl")),
        event: Event::Ended,
        project_dirs: Vec::new(),
        config_dir: None,
        destination: Destination { kind: Kind::Langfuse, base_url: "https://a".into(), public_key: "pk".into() },
        options: Options::default(),
        debug: false,
    };
    let store = Handle::new(Store::open(&base.path().join("state.db")).unwrap().store);
    store.call(|store| store.accept(&[hint("bad"), hint("good")], &[])).unwrap();
    let (sender, inputs) = mpsc::channel();
    let (orders, _orders) = tokio::sync::mpsc::unbounded_channel();
    let engine = Engine::new(store.clone(), orders, Watch::new(sender.clone()), Config::default(), base.path());
    let running = std::thread::spawn(move || engine.run(&inputs));
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let counts = store.call(|store| store.counts()).unwrap();
        if counts.inbox == 0 {
            assert_eq!((counts.outbox, counts.skipped), (2, [(PANICKED.to_owned(), 1)].into()));
            break;
        }
        assert!(Instant::now() < deadline, "{counts:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    sender.send(Input::Stop).unwrap();
    running.join().unwrap();
}
