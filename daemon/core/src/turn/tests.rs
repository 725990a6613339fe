use super::*;
use crate::transcript::record::{Assistant, Block, Launched, Service, ToolResult, Usage};
use memory::MAX_OPEN_REQUESTS;

mod agents;
mod answers;
mod ends;
mod placement;
mod repeats;
mod runs;
mod stand_ins;
mod terminals;
mod turns;

const SESSION: &str = "session-1";

fn prompt(uuid: &str, at: Nanos) -> Prompt {
    Prompt { uuid: Some(uuid.into()), at: Some(at), text: format!("text of {uuid}"), ..Prompt::default() }
}

fn plain(uuid: &str, at: Nanos) -> Record {
    Record::Prompt(prompt(uuid, at))
}

fn typed(uuid: &str, kind: PromptKind, at: Nanos) -> Record {
    Record::Prompt(Prompt { kind, ..prompt(uuid, at) })
}

/// A line of the answer `id`; its uuid is derived from id and time.
fn line(id: &str, at: Nanos, blocks: Vec<Block>) -> Assistant {
    Assistant {
        uuid: Some(format!("{id}-{at}")),
        at: Some(at),
        message_id: Some(id.into()),
        model: "model-a".into(),
        request_id: None,
        request_ref: None,
        stop_reason: None,
        parent: None,
        block_index: None,
        usage: None,
        advice: Vec::new(),
        blocks,
        slug: None,
        service: Service::default(),
        forked_from: None,
    }
}

fn said(id: &str, at: Nanos, text: &str) -> Record {
    Record::Assistant(Box::new(line(id, at, vec![Block::Text(text.into())])))
}

fn counted(id: &str, at: Nanos, model: &str, output: u64) -> Record {
    let usage = Some(Usage { input: at, output, ..Usage::default() });
    Record::Assistant(Box::new(Assistant { usage, model: model.into(), ..line(id, at, Vec::new()) }))
}

fn call(tool: &str) -> Block {
    Block::ToolUse { id: tool.into(), name: "Bash".into(), input: format!("{{\"of\":\"{tool}\"}}") }
}

fn called(id: &str, at: Nanos, tools: &[&str]) -> Record {
    Record::Assistant(Box::new(line(id, at, tools.iter().map(|tool| call(tool)).collect())))
}

fn result(tool: &str, at: Nanos, output: &str) -> Record {
    let result =
        ToolResult { tool_use_id: tool.into(), output: output.into(), is_error: false, ..ToolResult::default() };
    Record::ToolResults { at: Some(at), results: vec![result] }
}

fn failed(at: Nanos) -> Record {
    Record::ApiError { at: Some(at), text: "API Error: 529".into(), status: Some(529) }
}

/// Pushes the records at offsets 100 bytes apart. Returns the turns they closed.
fn push(assembler: &mut Assembler, records: Vec<Record>) -> Vec<Turn> {
    records.into_iter().enumerate().filter_map(|(n, record)| assembler.push(record, 100 * n as u64)).collect()
}

fn read(records: Vec<Record>) -> (Vec<Turn>, Assembler) {
    let mut assembler = Assembler::new(SESSION, 0);
    let closed = push(&mut assembler, records);
    (closed, assembler)
}

/// All answered turns, the open one last.
fn turns(records: Vec<Record>) -> Vec<Turn> {
    let (mut turns, assembler) = read(records);
    turns.extend(assembler.open.filter(Turn::is_answered));
    turns
}

fn only(records: Vec<Record>) -> Turn {
    let mut turns = turns(records);
    assert_eq!(turns.len(), 1, "{turns:?}");
    turns.remove(0)
}

fn keys(turns: &[Turn]) -> Vec<(u32, &str)> {
    turns.iter().map(|turn| (turn.number, turn.key.as_str())).collect()
}

fn ids(turn: &Turn) -> Vec<&str> {
    turn.generations.iter().map(|generation| generation.id.as_str()).collect()
}
