//! All text of an observation in one place: to mask secrets in it, to measure it and to cut it.

use super::{
    Agent, Answer, Body, Caller, Closing, Content, Detail, Event, Generation, MediaRef, Message, Observation, Output,
    Part, Tool, ToolCall, TraceFacts, Turn, Version, Waited,
};
use crate::redact::{Counts, Redactor};

impl Observation {
    /// Masks secrets in all text.
    pub fn redact(&mut self, redactor: &Redactor, counts: &mut Counts) {
        self.each_text(&mut |text| mask(text, redactor, counts));
    }

    /// Calls `each` with every text, including ids and names. Offsets of media are not adjusted to changes.
    pub fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        // Every field is named, so that no new one is forgotten.
        let Self {
            version: Version,
            trace_id: _,
            span_id: _,
            parent: _,
            owner: _,
            agent,
            name,
            start: _,
            end: _,
            level: _,
            status,
            failure: _,
            estimated: _,
            links: _,
            body,
            call: _,
            media: _,
        } = self;
        each(name);
        agent.iter_mut().for_each(&mut *each);
        status.iter_mut().for_each(&mut *each);
        match body {
            Body::Turn(turn) => turn.each_text(each),
            Body::Agent(agent) => agent.each_text(each),
            Body::Generation(generation) => generation.each_text(each),
            Body::Tool(tool) => tool.each_text(each),
            Body::Event(Event { said, details }) => {
                said.iter_mut().for_each(|content| content.each_text(each));
                for (_, detail) in details {
                    match detail {
                        Detail::Number(_) => {}
                        Detail::Name(name) => each(name),
                    }
                }
            }
        }
    }
}

impl Turn {
    fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        let Self {
            input,
            output,
            trigger,
            command,
            context,
            stands_in: _,
            permission_mode,
            queued_ms: _,
            instead_of: _,
            planned_in,
        } = self;
        input.each_text(each);
        each(output);
        [trigger, command, context, permission_mode, planned_in].into_iter().flatten().for_each(each);
    }
}

impl Agent {
    fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        let Self { input, output, context, agent_id, agent_type, workflow_run, description } = self;
        input.each_text(each);
        each(output);
        [context, agent_id, agent_type, workflow_run, description].into_iter().flatten().for_each(each);
    }
}

impl Generation {
    fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        let Self {
            input,
            output,
            closes,
            model,
            usage: _,
            first_block: _,
            tool_count: _,
            message_id,
            request_id,
            stop_reason,
            speed,
            service_tier,
            requested_model,
            other_blocks,
            web_searches: _,
            web_fetches: _,
            role,
            measured: _,
        } = self;
        for Message { tool, content } in input {
            if let Some(Caller { id, name }) = tool {
                each(id);
                each(name);
            }
            content.each_text(each);
        }
        if let Some(Answer { text, calls, thinking }) = output {
            each(text);
            for ToolCall { id, name, arguments } in calls {
                [id, name, arguments].into_iter().for_each(&mut *each);
            }
            thinking.iter_mut().for_each(&mut *each);
        }
        if let Some(Closing::Text(text)) = closes {
            each(text);
        }
        each(model);
        let names = [message_id, request_id, stop_reason, speed, service_tier, requested_model, role];
        names.into_iter().flatten().chain(other_blocks).for_each(each);
    }
}

impl Tool {
    fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        let Self { id, on_server: _, input, output, rewritten, took_ms: _, denied, waited } = self;
        each(id);
        each(input);
        if let Some(Output { text, media: _ }) = output {
            each(text);
        }
        [rewritten, denied].into_iter().flatten().for_each(&mut *each);
        if let Some(Waited { ran_ms: _, permission_ms: _, decision, decided_by }) = waited {
            [decision, decided_by].into_iter().flatten().for_each(each);
        }
    }
}

impl Content {
    fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        match self {
            Self::Text(text) => each(text),
            Self::Parts(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => each(text),
                        Part::Media(MediaRef { kind: _, hash: _, length: _ }) => {}
                    }
                }
            }
        }
    }
}

impl TraceFacts {
    /// Masks secrets in all text, including the keys of the user's metadata.
    pub fn redact(&mut self, redactor: &Redactor, counts: &mut Counts) {
        self.each_text(&mut |text| mask(text, redactor, counts));
    }

    /// Calls `each` with every text.
    pub fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        let Self {
            version: Version,
            session_id,
            turn: _,
            semantics: _,
            user_id,
            tags,
            environment,
            release,
            metadata,
            claude_version,
            slug,
            cwd,
            git_branch,
            forked_from,
            title,
            team,
            teammate,
            lead,
        } = self;
        each(session_id);
        tags.iter_mut().for_each(&mut *each);
        for (mut name, mut value) in std::mem::take(metadata) {
            each(&mut name);
            each(&mut value);
            metadata.insert(name, value);
        }
        let named = [user_id, environment, release, claude_version, slug, cwd, git_branch, forked_from];
        named.into_iter().chain([title, team, teammate, lead]).flatten().for_each(each);
    }
}

/// Masks secrets in `text`, which may be JSON.
pub(crate) fn mask(text: &mut String, redactor: &Redactor, counts: &mut Counts) {
    if let Some(masked) = masked(text, redactor, counts) {
        *text = masked;
    }
}

/// `text`, which may be JSON, with secrets masked; `None` if it has none.
pub(crate) fn masked(text: &str, redactor: &Redactor, counts: &mut Counts) -> Option<String> {
    match text.as_bytes().first() {
        Some(b'{' | b'[' | b'"') => redactor.scrub_json(text, counts),
        _ => redactor.scrub(text, counts),
    }
}
