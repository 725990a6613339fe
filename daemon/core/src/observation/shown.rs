//! Replaces images and documents by text, for backends that cannot upload them.

use super::{Body, Content, MediaRef, Observation, Output, Part};

impl Observation {
    pub fn shows_media(&self) -> bool {
        let in_content = |content: &Content| match content {
            Content::Text(_) => false,
            Content::Parts(parts) => parts.iter().any(|part| matches!(part, Part::Media(_))),
        };
        match &self.body {
            Body::Turn(turn) => in_content(&turn.input),
            Body::Agent(agent) => in_content(&agent.input),
            Body::Generation(generation) => generation.input.iter().any(|message| in_content(&message.content)),
            Body::Tool(tool) => tool.output.as_ref().is_some_and(|output| !output.media.is_empty()),
            Body::Event(event) => event.said.as_ref().is_some_and(in_content),
        }
    }

    /// A copy with `text` in place of each image and document.
    pub fn with_text_for_media(&self, text: impl Fn(&MediaRef) -> String) -> Self {
        let of_content = |content: &mut Content| {
            let Content::Parts(parts) = content else { return };
            for part in parts {
                if let Part::Media(media) = part {
                    *part = Part::Text(text(media));
                }
            }
        };
        let mut copy = self.clone();
        match &mut copy.body {
            Body::Turn(turn) => of_content(&mut turn.input),
            Body::Agent(agent) => of_content(&mut agent.input),
            Body::Generation(generation) => {
                generation.input.iter_mut().for_each(|message| of_content(&mut message.content));
            }
            Body::Tool(tool) => {
                if let Some(output) = &mut tool.output {
                    *output = Output { text: output.with(&text), media: Vec::new() };
                }
            }
            Body::Event(event) => event.said.iter_mut().for_each(of_content),
        }
        copy
    }
}

impl Output {
    /// Its text with `place` of each image and document inserted.
    pub fn with(&self, place: impl Fn(&MediaRef) -> String) -> String {
        let mut text = self.text.clone();
        for (at, media) in self.media.iter().rev().filter(|(at, _)| self.text.is_char_boundary(*at)) {
            text.insert_str(*at, &place(media));
        }
        text
    }
}
