//! Lines of type `assistant`.

use super::{Advice, Assistant, Block, Nanos, Record, Service, Skip, Usage, blocks};
use crate::transcript::wire::{
    Content, Count, Flag, Text, Wire, WireCacheCreation, WireIteration, WireMessage, WireUsage, Word,
};

/// Reads an answer line; `text` is the line itself.
///
/// # Errors
/// Why it is not an answer.
pub(super) fn answer(
    mut wire: Box<Wire<'_>>,
    at: Option<Nanos>,
    message: Option<Box<WireMessage<'_>>>,
    text: &[u8],
) -> Result<Record, Skip> {
    let flag = |flag: Option<Flag>| flag.is_some_and(|flag| flag.0);
    if flag(wire.is_meta) {
        return Err(Skip::Bookkeeping);
    }
    let mut message = message.unwrap_or_default();
    let content = message.content.take().or_else(|| wire.content.take());
    let (model, usage) = (message.model, message.usage);
    if model.as_ref().is_some_and(|model| model.0 == "<synthetic>") {
        // Claude Code's own text: an error the user saw, or filler from when a session was resumed.
        return match flag(wire.is_api_error) {
            true => Ok(Record::ApiError {
                at,
                text: content.map_or_else(String::new, |content| content.text()),
                status: wire.api_error_status.map(|n| n.0),
            }),
            false => Err(Skip::Bookkeeping),
        };
    }
    let mut blocks = match content {
        None => Vec::new(),
        Some(Content::Text(text)) => vec![Block::Text(text.into_owned())],
        Some(Content::Blocks(blocks)) => blocks.into_iter().filter_map(|block| block.into_block()).collect(),
    };
    blocks::keep_unknown(&mut blocks, text);
    let filled = |text: Option<Text<'_>>| text.map(Text::into_owned).filter(|text| !text.is_empty());
    let word = |word: Option<Word<'_>>| word.map(|word| word.0.into_owned()).filter(|text| !text.is_empty());
    let unusual = |text: Option<&Word<'_>>| {
        text.map(|text| text.0.to_string()).filter(|text| !matches!(text.as_str(), "" | "standard"))
    };
    let tools = usage.as_ref().and_then(|usage| usage.server_tool_use.as_ref());
    let service = Service {
        tier: unusual(usage.as_ref().and_then(|usage| usage.service_tier.as_ref())),
        speed: unusual(usage.as_ref().and_then(|usage| usage.speed.as_ref())),
        web: tools.map_or((0, 0), |tools| (number(tools.web_search_requests), number(tools.web_fetch_requests))),
        requested_model: filled(wire.requested_model).filter(|asked| model.as_ref().is_some_and(|m| m.0 != *asked)),
        skill: filled(wire.attribution_skill),
        plugin: filled(wire.attribution_plugin),
        mcp_server: filled(wire.attribution_mcp_server),
        cut: filled(wire.stream_cut_cause).or_else(|| flag(wire.is_aborted).then(|| "aborted".to_owned())),
    };
    let iterations = usage.as_ref().and_then(|usage| usage.iterations.as_ref());
    Ok(Record::Assistant(Box::new(Assistant {
        at,
        blocks,
        service,
        uuid: filled(wire.uuid),
        parent: word(wire.parent_uuid),
        message_id: filled(message.id),
        model: word(model).filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "unknown".to_owned()),
        request_id: filled(wire.request_id),
        request_ref: filled(wire.request_ref),
        block_index: wire.block_index.map(|n| n.0),
        stop_reason: word(message.stop_reason),
        slug: filled(wire.slug),
        forked_from: filled(wire.forked_from.and_then(|from| from.session_id).or(wire.request_session_id)),
        advice: iterations.map_or_else(Vec::new, |list| list.items.iter().filter_map(advice).collect()),
        usage: usage.as_deref().map(tokens),
    })))
}

fn number(count: Option<Count>) -> u64 {
    count.map_or(0, |count| count.0)
}

fn tokens(usage: &WireUsage<'_>) -> Usage {
    let (short, long) = lifetimes(usage.cache_creation.as_ref());
    Usage {
        input: number(usage.input_tokens),
        output: number(usage.output_tokens),
        cache_read: number(usage.cache_read_input_tokens),
        cache_creation: number(usage.cache_creation_input_tokens),
        cache_creation_5m: short,
        cache_creation_1h: long,
    }
}

fn lifetimes(written: Option<&WireCacheCreation<'_>>) -> (u64, u64) {
    written.map_or((0, 0), |c| (number(c.ephemeral_5m_input_tokens), number(c.ephemeral_1h_input_tokens)))
}

/// Usage of another model that was asked within the answer. The answer's usage excludes it, unlike every other kind of
/// iteration (2.1.332).
fn advice(iteration: &WireIteration<'_>) -> Option<Advice> {
    let is_it = iteration.kind.as_ref().is_some_and(|kind| kind.0 == "advisor_message");
    let (short, long) = lifetimes(iteration.cache_creation.as_ref());
    is_it.then(|| Advice {
        model: iteration.model.as_ref().map_or_else(|| "unknown".to_owned(), |model| model.0.to_string()),
        usage: Usage {
            input: number(iteration.input_tokens),
            output: number(iteration.output_tokens),
            cache_read: number(iteration.cache_read_input_tokens),
            cache_creation: number(iteration.cache_creation_input_tokens),
            cache_creation_5m: short,
            cache_creation_1h: long,
        },
    })
}
