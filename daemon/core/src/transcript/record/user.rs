//! Lines of type `user`: prompts, tool results, and texts that Claude Code adds in the user's name.

use super::{
    Aside, By, Nanos, Prompt, PromptKind, Record, SessionFacts, Skip, blocks,
    initiator::{FORK, directive, initiator, launched},
    parse::{Each, link},
    typed::{command, message, planning_session, tag},
};
use crate::transcript::wire::{Content, Text, Wire, WireBlock, Word};

/// A prompt that is said to have waited longer than this was not typed then: a week, in milliseconds.
const MAX_QUEUED_MS: u64 = 7 * 24 * 3600 * 1000;

/// Reads a user line.
pub(super) fn user(wire: Box<Wire<'_>>, at: Option<Nanos>, content: Option<Content<'_>>, each: &mut Each<'_>) {
    let flag = |flag: Option<crate::transcript::wire::Flag>| flag.is_some_and(|flag| flag.0);
    // Only lines of subagents name one.
    let is_side = wire.is_sidechain.map_or(wire.agent_id.is_some(), |flag| flag.0);
    // A skill's text for its own subagent was not typed, but it is that subagent's prompt.
    let begins_agent = is_side && wire.parent_uuid.is_none();
    let is_result = wire.tool_use_result.is_some() || wire.result_of.is_some();
    let skip = |each: &mut Each<'_>| {
        link(&wire, each);
        each(Err(Skip::Bookkeeping));
    };
    // A schedule, another session, a program, or an agent that wakes a subagent again: not a person either.
    let initiator = initiator(&wire, is_side);
    let position = wire.turn_position.as_ref().and_then(|position| u32::try_from(position.turn_index?.0).ok());
    let begins_turn = initiator.is_some() || position.is_some();
    if flag(wire.is_meta) && !begins_agent && !begins_turn {
        let text = content.map(|content| content.text()).unwrap_or_default();
        if let Some(said) = text.trim_start().strip_prefix("Stop hook feedback:") {
            link(&wire, each);
            return each(Ok(Record::HookFeedback { at, text: said.trim().to_owned() }));
        }
        if flag(wire.own_note) && !text.trim().is_empty() {
            link(&wire, each);
            return each(Ok(Record::Aside(Aside { at, by: By::Harness, text, ahead: false })));
        }
        return stand_in(&wire, at, text, each);
    }
    if flag(wire.is_compact_summary) || flag(wire.is_visible_only) {
        return stand_in(&wire, at, content.map(|content| content.text()).unwrap_or_default(), each);
    }
    let mut content = match content {
        Some(content) => content,
        // A tool result or prompt that cannot be read.
        None if is_result => return skip(each),
        None => Content::Blocks(Vec::new()),
    };
    if let Content::Blocks(blocks) = &mut content {
        let mut results: Vec<_> = blocks.iter_mut().filter_map(WireBlock::take_result).collect();
        if let [result] = &mut results[..] {
            result.agent = wire.tool_use_result.and_then(|raw| launched(raw.0));
            result.denied = wire.tool_denial_kind.as_ref().map(|kind| kind.0.to_string());
        }
        // A forked subagent begins with the result of the call that launched it, and its task.
        let is_fork = || is_side && content.text().trim_start().starts_with(FORK);
        if !results.is_empty() && !is_fork() {
            link(&wire, each);
            return each(Ok(Record::ToolResults { at, results }));
        }
        if is_result && results.is_empty() {
            return skip(each);
        }
    }
    let said = blocks::Said::of(&content);
    let (mut text, mut context, mut media) = (said.typed, said.context, said.media);
    // A message from others, without the wrapping for the model.
    let body = wire.origin.as_ref().and_then(|origin| origin.body.as_ref()).map(|body| body.0.as_ref());
    let from_machine = wire.origin.as_ref().and_then(|origin| origin.kind.as_ref()).is_some_and(is_message);
    let body = from_machine.then(|| body.or_else(|| message(&text))).flatten();
    if let Some(body) = body.filter(|body| !body.trim().is_empty()) {
        let body = body.to_owned();
        context = std::mem::replace(&mut text, body);
    }
    let head = text.trim_start();
    let starts = |tags: &[&str]| tags.iter().any(|tag| head.starts_with(tag));
    let by_user = !matches!(wire.row_source.as_ref().map(|by| by.0.as_ref()), Some("harness" | "hook"));
    let (kind, text) = if starts(&["[Request interrupted by user"]) {
        link(&wire, each);
        return each(Ok(Record::Interrupted { at }));
    } else if starts(&["<local-command-caveat>", "<bash-stdout>", "<bash-stderr>"]) {
        // The model may still answer after the output of `!shell`: 2.1.329 has it answer.
        return skip(each);
    } else if starts(&["<local-command-std"]) {
        link(&wire, each);
        return each(Ok(Record::LocalOutput));
    } else if flag(wire.transcript_only) {
        link(&wire, each);
        return each(Ok(Record::Aside(Aside { at, by: By::Silent, text, ahead: true })));
    } else if (head.is_empty() && media.is_empty() && !said.has_media) && !context.is_empty() || !by_user {
        link(&wire, each);
        let text = if head.is_empty() { context } else { text };
        return each(Ok(Record::Aside(Aside { at, by: By::Harness, text, ahead: false })));
    } else if head.is_empty() && media.is_empty() && !said.has_media {
        (PromptKind::Blank, String::new())
    } else if starts(&["<command-message>"]) {
        (PromptKind::Command, command(head))
    } else if starts(&["<command-name>"]) {
        (PromptKind::Local, command(head))
    } else if starts(&["<bash-input>"]) {
        (PromptKind::Local, format!("!{}", tag(head, "bash-input").unwrap_or_default()))
    } else if starts(&["<task-notification>"]) {
        (PromptKind::TaskNotification, text)
    } else if starts(&[FORK]) {
        context = text.clone();
        (PromptKind::Fork, directive(head).to_owned())
    } else {
        (PromptKind::Plain, text)
    };
    if kind != PromptKind::Plain {
        media.iter_mut().for_each(|media| media.at = text.len());
    }
    let session = facts(&wire);
    // A time after the line's own is wrong, and one of days before it too.
    let waited = at.zip(wire.sent_at_ms).and_then(|(at, sent)| (at / 1_000_000).checked_sub(sent.0));
    each(Ok(Record::Prompt(Prompt {
        at,
        queued_ms: waited.filter(|waited| *waited <= MAX_QUEUED_MS),
        media,
        context,
        permission_mode: wire.permission_mode.map(Text::into_owned),
        planned_in: wire.plan_content.and_then(|_| planning_session(&text)),
        text,
        kind,
        uuid: wire.uuid.map(Text::into_owned).filter(|uuid| !uuid.is_empty()),
        initiator,
        position,
        parent: wire.parent_uuid.map(Word::into_owned),
        prompt_id: wire.prompt_id.map(Text::into_owned),
        session,
    })));
}

/// A text that is not a prompt but may have to substitute for one.
fn stand_in(wire: &Wire<'_>, at: Option<Nanos>, text: String, each: &mut Each<'_>) {
    if text.trim().is_empty() {
        link(wire, each);
        return each(Err(Skip::Bookkeeping));
    }
    let owned = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.0.to_string());
    each(Ok(Record::Prompt(Prompt {
        at,
        // Text in tags was not written by anyone.
        text: if text.trim_start().starts_with('<') { String::new() } else { text },
        kind: PromptKind::StandIn,
        uuid: owned(&wire.uuid).filter(|uuid| !uuid.is_empty()),
        parent: wire.parent_uuid.as_ref().map(|parent| parent.0.to_string()),
        prompt_id: owned(&wire.prompt_id),
        session: facts(wire),
        ..Prompt::default()
    })));
}

fn facts(wire: &Wire<'_>) -> SessionFacts {
    let owned = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.0.to_string());
    let word = |word: &Option<Word<'_>>| word.as_ref().map(|word| word.0.to_string()).filter(|word| !word.is_empty());
    SessionFacts {
        version: owned(&wire.version),
        cwd: owned(&wire.cwd),
        git_branch: owned(&wire.git_branch),
        slug: owned(&wire.slug),
        forked_from: wire.forked_from.as_ref().and_then(|from| owned(&from.session_id)),
        title: None,
        team: word(&wire.team_name),
        teammate: word(&wire.agent_name),
        lead: None,
    }
}

/// True for a message of another agent or session.
fn is_message(kind: &Word<'_>) -> bool {
    matches!(kind.0.as_ref(), "peer" | "coordinator" | "teammate")
}
