use std::fs;

use jiff::tz::TimeZone;
use serde_json::json;

use super::*;
use cc_core::{redact::Redactor, usage::By};

mod grown;
mod hidden;

fn line(kind: &str, uuid: &str, more: serde_json::Value) -> String {
    let mut line = json!({"type": kind, "uuid": uuid, "timestamp": "2026-11-20T10:00:00.000Z", "cwd": "/home/dev/app"});
    line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    format!("{line}\n")
}

fn turn(uuid: &str, more: serde_json::Value) -> String {
    let mut prompt = json!({"message": {"role": "user", "content": "q"}});
    let usage = json!({"input_tokens": 10, "output_tokens": 20, "cache_read_input_tokens": 30});
    let message = json!({"id": format!("m-{uuid}"), "model": "claude-sonnet-4-5", "usage": usage, "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "a"}]});
    let mut answer = json!({"message": message, "requestId": format!("r-{uuid}"), "parentUuid": uuid});
    for object in [&mut prompt, &mut answer] {
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    line("user", uuid, prompt) + &line("assistant", &format!("{uuid}-a"), answer)
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, session: &str, text: &str) -> Source {
        let path = self.0.path().join(format!("{session}.jsonl"));
        fs::write(&path, text).unwrap();
        Source::new(path, session.to_owned())
    }

    fn index(&self) -> Index {
        Index::open(&self.0.path().join("index.db")).unwrap()
    }
}

/// Key, turns, calls and input tokens of each row, then of the total.
fn usage(index: &Index, by: By) -> Vec<(String, u64, u64, u64)> {
    let report = index.usage(&Filter::default(), by, &TimeZone::UTC).unwrap();
    let rows = report.rows.into_iter().chain([report.total]);
    rows.map(|row| (row.key, row.turns, row.calls, row.tokens.input)).collect()
}

fn update(index: &mut Index, sources: &[Source]) -> Updated {
    index.update(sources, Redactor::built_in(), &mut |_| {}).unwrap()
}

#[test]
fn only_what_changed_is_read_again() {
    let (dir, mut index) = (Dir::new(), Index::in_memory().unwrap());
    let mut sources = vec![dir.write("a", &turn("u1", json!({}))), dir.write("b", &turn("u2", json!({})))];
    assert_eq!(update(&mut index, &sources).read, 2);
    assert_eq!(update(&mut index, &sources).read, 0);
    dir.write("b", &(turn("u2", json!({})) + &turn("u3", json!({}))));
    assert_eq!(update(&mut index, &sources).read, 1);
    assert_eq!(
        usage(&index, By::Session),
        [("b".into(), 2, 2, 20), ("a".into(), 1, 1, 10), ("total".into(), 3, 3, 30)]
    );
    let gone = sources.remove(1);
    assert_eq!(update(&mut index, &sources).gone, 1);
    assert_eq!(usage(&index, By::Session), [("a".into(), 1, 1, 10), ("total".into(), 1, 1, 10)]);
    fs::remove_file(&gone.path).unwrap();
    let updated = update(&mut index, &[gone]);
    assert_eq!((updated.read, updated.gone, updated.unreadable.len()), (0, 1, 1));
}

#[test]
fn what_another_process_read_is_noticed() {
    let dir = Dir::new();
    let mut text = turn("u1", json!({}));
    let sources = [dir.write("a", &text)];
    let (mut one, mut other) = (dir.index(), dir.index());
    assert_eq!(update(&mut one, &sources).read, 1);
    for n in 2..4 {
        text += &turn(&format!("u{n}"), json!({}));
        dir.write("a", &text);
        assert_eq!(update(&mut other, &sources).read, 1);
        let updated = update(&mut one, &sources);
        assert_eq!((updated.read, updated.by_others), (0, true));
        assert!(!update(&mut one, &sources).by_others, "once");
        assert_eq!(one.sessions().unwrap()[0].sum.calls, n);
    }
}

#[test]
fn a_call_that_stands_in_several_sessions_counts_once_whatever_is_read_first() {
    let dir = Dir::new();
    let copied = json!({"forkedFrom": {"sessionId": "z", "messageUuid": "u1"}});
    let original = dir.write("z", &turn("u1", json!({})));
    let fork = dir.write("a", &(turn("u1", copied) + &turn("u2", json!({}))));
    // Without a mark of its origin.
    let silent = dir.write("b", &(turn("u1", json!({})) + &turn("u3", json!({}))));
    let all = [original.clone(), fork.clone(), silent.clone()];
    let expect = |index: &Index| {
        let mut rows = usage(index, By::Session);
        rows.sort();
        rows
    };
    let mut orders = vec![vec![0, 1, 2], vec![2, 1, 0], vec![1, 0, 2]];
    for order in &mut orders {
        let mut index = Index::in_memory().unwrap();
        let mut known: Vec<Source> = Vec::new();
        for at in order.drain(..) {
            known.push(all[at].clone());
            update(&mut index, &known);
        }
        let found = expect(&index);
        assert_eq!(found, [("a".into(), 1, 1, 10), ("b".into(), 2, 2, 20), ("total".into(), 3, 3, 30)]);
        // The rest still has every call.
        update(&mut index, &[original.clone(), fork.clone()]);
        assert_eq!(expect(&index), [("a".into(), 1, 1, 10), ("total".into(), 2, 2, 20), ("z".into(), 1, 1, 10)]);
        update(&mut index, std::slice::from_ref(&fork));
        assert_eq!(expect(&index), [("a".into(), 2, 2, 20), ("total".into(), 2, 2, 20)]);
    }
}

#[test]
fn an_index_of_another_form_or_a_damaged_one_is_built_anew() {
    let dir = Dir::new();
    let source = dir.write("a", &turn("u1", json!({})));
    let path = dir.0.path().join("index.db");
    let break_it: [fn(&Path); 3] = [
        |path| Connection::open(path).unwrap().pragma_update(None, "user_version", 99).unwrap(),
        |path| fs::write(path, vec![b'x'; 9000]).unwrap(),
        |path| fs::write(path, b"").unwrap(),
    ];
    for break_it in break_it {
        update(&mut dir.index(), std::slice::from_ref(&source));
        break_it(&path);
        let mut index = dir.index();
        assert_eq!(update(&mut index, std::slice::from_ref(&source)).read, 1);
        assert_eq!(usage(&index, By::Model), [("claude-sonnet-4-5".into(), 1, 1, 10), ("total".into(), 1, 1, 10)]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(dir.0.path().join("elsewhere"), &path).unwrap();
    assert!(matches!(Index::open(&path), Err(Error::NotOurs(_))), "through no link");
}

#[test]
fn names_are_stored_without_their_secrets_and_nothing_of_the_conversation() {
    let dir = Dir::new();
    let secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    let source = dir.write("a", &turn("u1", json!({"gitBranch": format!("fix-{secret}"), "cwd": "/home/dev/app"})));
    update(&mut dir.index(), &[source]);
    let all: Vec<u8> = ["index.db", "index.db-wal"]
        .iter()
        .flat_map(|name| fs::read(dir.0.path().join(name)).unwrap_or_default())
        .collect();
    assert!(memchr::memmem::find(&all, b"claude-sonnet-4-5").is_some());
    assert!(memchr::memmem::find(&all, secret.as_bytes()).is_none());
}

#[test]
fn a_subagent_that_nobody_launched_counts_for_its_session() {
    let dir = Dir::new();
    let source = dir.write("s-1", &turn("u1", json!({})));
    let others = dir.write("s-2", &turn("u2", json!({})));
    let of =
        |session: &str, uuid: &str| turn(uuid, json!({"isSidechain": true, "agentId": uuid, "sessionId": session}));
    dir.write("agent-w1", &of("s-1", "w1"));
    let subagents = dir.0.path().join("s-2/subagents");
    fs::create_dir_all(&subagents).unwrap();
    fs::write(subagents.join("agent-w2.jsonl"), of("s-2", "w2")).unwrap();
    let mut index = Index::in_memory().unwrap();
    update(&mut index, &[source, others]);
    let mut rows = usage(&index, By::Session);
    rows.sort();
    assert_eq!(rows, [("s-1".into(), 1, 2, 20), ("s-2".into(), 1, 2, 20), ("total".into(), 2, 4, 40)]);
}
