//! Which subagents of a session are read.

use std::{collections::HashMap, io::Write};

use super::*;
use crate::agents::Agents;

#[test]
fn only_subagents_whose_files_changed_are_read_until_all_are_looked_at_again() {
    let (_base, dir) = home();
    let transcript = dir.join("s.jsonl");
    let beside = dir.join("s/subagents");
    std::fs::create_dir_all(&beside).unwrap();
    let at = |name: &str| beside.join(name);
    let begins = |id: &str| write(&at(&format!("agent-{id}.jsonl")), &[line("user", id, &"look".into())]);
    ["a", "b", "c"].iter().for_each(|id| begins(id));
    let mut agents = Agents::default();
    agents.load(HashMap::new(), Vec::new());
    let now = clock::monotonic();
    let look = |agents: &mut Agents, now: Instant, is_all: bool| {
        let (ids, swept) = agents.to_read(now, is_all, &transcript, &[]);
        agents.were_read(swept);
        ids.concat()
    };
    assert_eq!(look(&mut agents, now, false), "abc", "the first time");
    assert_eq!(look(&mut agents, now, false), "", "nothing happened");
    for (file, expect) in [
        ("agent-b.jsonl", "b"),
        ("agent-c.meta.json", "c"),
        ("agent-nowhere.jsonl", ""),
        ("notes.json", ""),
        ("../s.jsonl", ""),
        ("workflows/run/agent-a.jsonl", ""),
    ] {
        agents.change(&at(file));
        assert_eq!(look(&mut agents, now, false), expect, "{file}");
        assert_eq!(look(&mut agents, now, false), "", "{file} once");
    }
    // A new one, and one that is read no more until it grows.
    begins("d");
    assert_eq!(look(&mut agents, now, false), "", "no event came for it");
    agents.change(&at("agent-d.jsonl"));
    assert_eq!(look(&mut agents, now, false), "d");
    agents.leave("a");
    agents.change(&at("agent-a.jsonl"));
    assert_eq!(look(&mut agents, now, false), "");
    std::fs::File::options().append(true).open(at("agent-a.jsonl")).unwrap().write_all(b"{}\n").unwrap();
    agents.change(&at("agent-a.jsonl"));
    assert_eq!(look(&mut agents, now, false), "a");
    // Events can be lost, or come late.
    begins("e");
    assert_eq!(look(&mut agents, now + placement::POLL, false), "abcde", "after a while");
    assert_eq!(look(&mut agents, now + placement::POLL, true), "abcde", "a hook event came");
    agents.sweep();
    assert_eq!(look(&mut agents, now + placement::POLL, false), "abcde", "file events were lost");
    agents.change(&at("agent-b.jsonl"));
    let (read, _) = agents.to_read(now + placement::POLL, false, &transcript, &[]);
    assert_eq!(read, ["b"]);
    assert_eq!(look(&mut agents, now + placement::POLL, false), "abcde", "the look before was not finished");
}
