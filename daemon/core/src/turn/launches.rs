//! The calls of a turn that launched subagents.

use std::borrow::Cow;

use super::{Generation, Launch, Tool, Turn};

impl Turn {
    /// The calls that launched subagents, or may have.
    pub fn launches(&self) -> impl Iterator<Item = Launch> {
        let turn = self.place.as_ref().map_or_else(|| (self.key.clone(), self.number), |place| place.turn.clone());
        let prompt = self.prompt.prompt_id.as_deref().zip(self.skill.as_ref()).map(|(prompt_id, skill)| Launch {
            tool_id: Self::launch_id(prompt_id),
            id: Self::launch_id(prompt_id),
            message_id: None,
            agent_id: skill.agent_id.clone(),
            turn: turn.clone(),
            returned: skill.agent_id.is_none(),
            called: self.prompt.at,
            wakes: false,
        });
        prompt.into_iter().chain(self.launching().map(move |(generation, tool)| {
            let agent = tool.launched();
            Launch {
                tool_id: self.tool_source(tool).into_owned(),
                id: tool.id.clone(),
                message_id: Some(generation.id.clone()),
                agent_id: agent.map(|agent| agent.agent_id.clone()),
                turn: turn.clone(),
                returned: tool.is_launch_over(),
                called: tool.called,
                wakes: agent.is_some_and(|agent| agent.wakes),
            }
        }))
    }

    /// Those of them that have returned: the key of the turn they belong to, and the id that [`launches`](Self::launches) gives them.
    pub fn returned(&self) -> (&str, impl Iterator<Item = Cow<'_, str>>) {
        let prompt = self.prompt.prompt_id.as_deref().zip(self.skill.as_ref());
        let prompt = prompt.filter(|(_, skill)| skill.agent_id.is_none()).map(|(id, _)| Self::launch_id(id).into());
        let tools = self.launching().filter(|(_, tool)| tool.is_launch_over());
        (self.trace_key(), prompt.into_iter().chain(tools.map(|(_, tool)| self.tool_source(tool))))
    }

    /// The tool calls that launched subagents, or may have.
    fn launching(&self) -> impl Iterator<Item = (&Generation, &Tool)> {
        let tools = self.generations.iter().flat_map(|g| g.tools.iter().map(move |tool| (g, tool)));
        tools.filter(|(_, tool)| tool.order.is_some() || tool.launched().is_some())
    }

    /// The id used in place of a call's if a prompt itself launched a subagent.
    pub fn launch_id(prompt_id: &str) -> String {
        format!("prompt:{prompt_id}")
    }
}
