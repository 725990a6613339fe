//! A line as Claude Code writes it, with only the fields that are read.
//!
//! Each field stands alone. A value of an invalid type costs that field, whose name goes to `odd`; only text that is not JSON
//! fails as a whole.

use std::{borrow::Cow, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

mod value;

use value::Any;
pub(crate) use value::Text;
pub(super) use value::*;

struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsKey;
        impl<'de> Visitor<'de> for AsKey {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(AsKey)
    }
}

/// Stores a field's value. The last of two equal keys counts, as in JavaScript.
fn put<'a, T: Kind<'a>>(found: Found<T>, place: &mut Option<T>, name: &'static str, odd: &mut Vec<&'static str>) {
    match found {
        Found::Value(mut value) => {
            value.move_odd(odd);
            *place = Some(value);
        }
        Found::Nothing => {}
        Found::Odd => odd.push(name),
    }
}

/// An object of which some fields are read.
trait Fields<'a>: Default {
    fn fill<A: MapAccess<'a>>(&mut self, object: A) -> Result<(), A::Error>;
}

/// A large object is boxed, so that it is not moved while the line is read.
impl<'a, T: Fields<'a> + Kind<'a>> Kind<'a> for Box<T> {
    fn object<A: MapAccess<'a>>(object: A) -> Result<Found<Self>, A::Error> {
        let mut it = Self::default();
        it.fill(object)?;
        Ok(Found::Value(it))
    }

    fn move_odd(&mut self, odd: &mut Vec<&'static str>) {
        T::move_odd(self, odd);
    }
}

/// Declares objects of which some fields are read: `field: its kind = "its key"`. `at` is their path, for the names of invalid
/// fields.
macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident at $at:literal { $($(#[$of:meta])* $field:ident: $kind:ty = $key:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Default)]
        pub(super) struct $name<'a> {
            $($(#[$of])* pub(super) $field: Option<$kind>,)*
            /// Names of invalid fields, including those of nested objects.
            pub(super) odd: Vec<&'static str>,
            pub(super) of: PhantomData<&'a ()>,
        }

        impl<'a> Fields<'a> for $name<'a> {
            fn fill<A: MapAccess<'a>>(&mut self, mut object: A) -> Result<(), A::Error> {
                while let Some(Key(key)) = object.next_key::<Key<'a>>()? {
                    match key.as_ref() {
                        $($key => {
                            let found = <$kind as Kind<'a>>::next(&mut object)?;
                            put(found, &mut self.$field, concat!("field.", $at, $key), &mut self.odd);
                        })*
                        _ => drop(object.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(())
            }
        }

        impl<'a> Kind<'a> for $name<'a> {
            fn object<A: MapAccess<'a>>(object: A) -> Result<Found<Self>, A::Error> {
                let mut it = Self::default();
                it.fill(object)?;
                Ok(Found::Value(it))
            }

            fn move_odd(&mut self, odd: &mut Vec<&'static str>) {
                odd.append(&mut self.odd);
            }
        }
    )*};
}

objects! {
    Wire at "" {
        kind: Word<'a> = "type",
        subtype: Word<'a> = "subtype",
        uuid: Text<'a> = "uuid",
        parent_uuid: Word<'a> = "parentUuid",
        turn_position: WireTurnPosition<'a> = "turnPosition",
        turn_origin: Word<'a> = "turnOrigin",
        origin: Box<WireOrigin<'a>> = "origin",
        team_name: Word<'a> = "teamName",
        agent_name: Word<'a> = "agentName",
        /// Who wrote the line's text: `harness` and `hook` are not the user.
        row_source: Word<'a> = "rowSource",
        own_note: Flag = "ownNote",
        /// When the prompt was typed, Unix milliseconds (2.1.332): before the line's own time if Claude Code was busy.
        sent_at_ms: Count = "sentAtMs",
        transcript_only: Flag = "queueTranscriptOnly",
        agent_id: Text<'a> = "agentId",
        prompt_id: Text<'a> = "promptId",
        /// Its shape depends on the tool, and it may be long.
        tool_use_result: Raw<'a> = "toolUseResult",
        result_of: Text<'a> = "sourceToolAssistantUUID",
        forked_from: WireForkedFrom<'a> = "forkedFrom",
        permission_mode: Text<'a> = "permissionMode",
        tool_denial_kind: Text<'a> = "toolDenialKind",
        plan_content: Raw<'a> = "planContent",
        requested_model: Text<'a> = "requestedModel",
        stream_cut_cause: Text<'a> = "streamCutCause",
        attribution_skill: Text<'a> = "attributionSkill",
        attribution_plugin: Text<'a> = "attributionPlugin",
        attribution_mcp_server: Text<'a> = "attributionMcpServer",
        is_aborted: Flag = "isAbortedMidStream",
        original_model: Text<'a> = "originalModel",
        fallback_model: Text<'a> = "fallbackModel",
        trigger: Text<'a> = "trigger",
        summary: Text<'a> = "summary",
        custom_title: Text<'a> = "customTitle",
        title: Text<'a> = "title",
        request_session_id: Text<'a> = "requestSessionId",
        timestamp: Stamp<'a> = "timestamp",
        version: Text<'a> = "version",
        cwd: Text<'a> = "cwd",
        git_branch: Text<'a> = "gitBranch",
        slug: Text<'a> = "slug",
        is_sidechain: Flag = "isSidechain",
        is_meta: Flag = "isMeta",
        is_compact_summary: Flag = "isCompactSummary",
        is_visible_only: Flag = "isVisibleInTranscriptOnly",
        is_api_error: Flag = "isApiErrorMessage",
        api_error_status: Count = "apiErrorStatus",
        error: Raw<'a> = "error",
        retry_attempt: Count = "retryAttempt",
        request_id: Text<'a> = "requestId",
        request_ref: Text<'a> = "requestRef",
        block_index: Count = "apiBlockIndex",
        message: Box<WireMessage<'a>> = "message",
        content: Content<'a> = "content",
        attachment: Box<WireAttachment<'a>> = "attachment",
        compact: Box<WireCompact<'a>> = "compactMetadata",
    }

    /// `toolUseResult` of a call that launched a subagent, or a workflow.
    WireLaunched at "toolUseResult." {
        agent_id: Text<'a> = "agentId",
        run_id: Text<'a> = "runId",
        /// The subagent that a message woke again.
        resumed_agent_id: Text<'a> = "resumedAgentId",
        is_async: Flag = "isAsync",
    }

    /// `turnPosition` of a prompt.
    WireTurnPosition at "turnPosition." {
        turn_index: Count = "turnIndex",
    }

    /// `origin` of a prompt.
    WireOrigin at "origin." {
        kind: Word<'a> = "kind",
        /// The message without its wrapping for the model.
        body: Text<'a> = "body",
    }

    WireForkedFrom at "forkedFrom." {
        session_id: Text<'a> = "sessionId",
    }

    WireMessage at "message." {
        id: Text<'a> = "id",
        role: Word<'a> = "role",
        model: Word<'a> = "model",
        timestamp: Stamp<'a> = "timestamp",
        content: Content<'a> = "content",
        stop_reason: Word<'a> = "stop_reason",
        usage: Box<WireUsage<'a>> = "usage",
    }

    WireUsage at "usage." {
        service_tier: Word<'a> = "service_tier",
        speed: Word<'a> = "speed",
        server_tool_use: WireServerTools<'a> = "server_tool_use",
        input_tokens: Count = "input_tokens",
        output_tokens: Count = "output_tokens",
        cache_read_input_tokens: Count = "cache_read_input_tokens",
        cache_creation_input_tokens: Count = "cache_creation_input_tokens",
        cache_creation: WireCacheCreation<'a> = "cache_creation",
        iterations: List<WireIteration<'a>> = "iterations",
    }

    /// One of the requests an answer took: `message`, `advisor_message`, `compaction`, …
    WireIteration at "usage.iterations." {
        kind: Word<'a> = "type",
        model: Word<'a> = "model",
        input_tokens: Count = "input_tokens",
        output_tokens: Count = "output_tokens",
        cache_read_input_tokens: Count = "cache_read_input_tokens",
        cache_creation_input_tokens: Count = "cache_creation_input_tokens",
        cache_creation: WireCacheCreation<'a> = "cache_creation",
    }

    WireServerTools at "usage.server_tool_use." {
        web_search_requests: Count = "web_search_requests",
        web_fetch_requests: Count = "web_fetch_requests",
    }

    WireCacheCreation at "usage.cache_creation." {
        ephemeral_5m_input_tokens: Count = "ephemeral_5m_input_tokens",
        ephemeral_1h_input_tokens: Count = "ephemeral_1h_input_tokens",
    }

    /// `error` of a retry, an object; an answer's `error` is a word.
    WireError at "error." {
        status: Count = "status",
    }

    WireAttachment at "attachment." {
        kind: Word<'a> = "type",
        prompt: Content<'a> = "prompt",
        /// The text a hook adds: one or several.
        content: Content<'a> = "content",
        hook_name: Text<'a> = "hookName",
        hook_event: Text<'a> = "hookEvent",
        tool_use_id: Text<'a> = "toolUseID",
        stdout: Text<'a> = "stdout",
    }

    /// The JSON that a hook prints.
    WireHook at "stdout." {
        specific: WireHookSpecific<'a> = "hookSpecificOutput",
    }

    WireHookSpecific at "stdout." {
        updated_input: Raw<'a> = "updatedInput",
    }

    WireCompact at "compactMetadata." {
        trigger: Text<'a> = "trigger",
        pre_tokens: Count = "preTokens",
        post_tokens: Count = "postTokens",
    }

    /// A content block.
    WireBlock at "block." {
        kind: Word<'a> = "type",
        text: Text<'a> = "text",
        thinking: Text<'a> = "thinking",
        id: Text<'a> = "id",
        name: Text<'a> = "name",
        input: Raw<'a> = "input",
        tool_use_id: Text<'a> = "tool_use_id",
        is_error: Flag = "is_error",
        /// A tool's output: a string or a list of blocks; for a tool that ran in the API an object.
        content: Output<'a> = "content",
        /// The bytes of an image or document, or where they are.
        source: WireSource<'a> = "source",
        /// Of a document.
        title: Text<'a> = "title",
    }

    /// `source` of an image or document.
    WireSource at "block.source." {
        kind: Word<'a> = "type",
        media_type: Word<'a> = "media_type",
        data: Text<'a> = "data",
        url: Text<'a> = "url",
        file_id: Text<'a> = "file_id",
        content: Raw<'a> = "content",
    }
}

/// A time as text, or in Unix milliseconds.
pub(super) enum Stamp<'a> {
    Text(Cow<'a, str>),
    Milliseconds(u64),
}

impl<'a> Kind<'a> for Stamp<'a> {
    fn text(text: Cow<'a, str>) -> Found<Self> {
        Found::Value(Self::Text(text))
    }

    fn number(n: Number) -> Found<Self> {
        match Count::number(n) {
            Found::Value(Count(n)) => Found::Value(Self::Milliseconds(n)),
            _ => Found::Odd,
        }
    }
}

/// A list; invalid elements are skipped.
#[derive(Default)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    odd: Vec<&'static str>,
}

impl<'a, T: Kind<'a>> Kind<'a> for List<T> {
    fn list<A: SeqAccess<'a>>(mut list: A) -> Result<Found<Self>, A::Error> {
        let mut it = Self { items: Vec::new(), odd: Vec::new() };
        while let Some(found) = list.next_element_seed(Any::<T>(PhantomData))? {
            if let Found::Value(mut item) = found {
                item.move_odd(&mut it.odd);
                it.items.push(item);
            }
        }
        Ok(Found::Value(it))
    }

    fn move_odd(&mut self, odd: &mut Vec<&'static str>) {
        odd.append(&mut self.odd);
    }
}

/// `message.content`: a string or a list of blocks. Also accepted: a list of strings, or a single block.
pub(super) enum Content<'a> {
    Text(Text<'a>),
    Blocks(Vec<WireBlock<'a>>),
}

impl<'a> Kind<'a> for Content<'a> {
    fn text(text: Cow<'a, str>) -> Found<Self> {
        Found::Value(Self::Text(Text(text)))
    }

    fn number(n: Number) -> Found<Self> {
        match Text::number(n) {
            Found::Value(text) => Found::Value(Self::Text(text)),
            _ => Found::Odd,
        }
    }

    fn list<A: SeqAccess<'a>>(mut list: A) -> Result<Found<Self>, A::Error> {
        // A line usually has one block, and blocks are large: reserve no more.
        let mut blocks = Vec::with_capacity(1);
        while let Some(found) = list.next_element_seed(Any::<Part<'a>>(PhantomData))? {
            match found {
                Found::Value(Part(block)) => blocks.push(block),
                Found::Nothing => {}
                Found::Odd => blocks.push(WireBlock { odd: vec!["field.block"], ..WireBlock::default() }),
            }
        }
        Ok(Found::Value(Self::Blocks(blocks)))
    }

    fn object<A: MapAccess<'a>>(object: A) -> Result<Found<Self>, A::Error> {
        Ok(match WireBlock::object(object)? {
            Found::Value(block) => Found::Value(Self::Blocks(vec![block])),
            _ => Found::Odd,
        })
    }

    fn move_odd(&mut self, odd: &mut Vec<&'static str>) {
        if let Self::Blocks(blocks) = self {
            blocks.iter_mut().for_each(|block| block.move_odd(odd));
        }
    }
}

/// A block in a list, or a string in its place.
struct Part<'a>(WireBlock<'a>);

impl<'a> Kind<'a> for Part<'a> {
    fn text(text: Cow<'a, str>) -> Found<Self> {
        Found::Value(Self(WireBlock { text: Some(Text(text)), ..WireBlock::default() }))
    }

    fn object<A: MapAccess<'a>>(object: A) -> Result<Found<Self>, A::Error> {
        Ok(match WireBlock::object(object)? {
            Found::Value(block) => Found::Value(Self(block)),
            _ => Found::Odd,
        })
    }
}

/// A tool's output: a string, a list of blocks, or anything else; all but the string as written.
pub(super) enum Output<'a> {
    Text(Text<'a>),
    Parts(Vec<&'a str>),
    Other(String),
}

impl<'a> Kind<'a> for Output<'a> {
    fn next<A: MapAccess<'a>>(object: &mut A) -> Result<Found<Self>, A::Error> {
        // An empty output is an output too.
        Ok(match object.next_value_seed(Any(PhantomData))? {
            Found::Nothing => Found::Value(Self::Other("null".into())),
            found => found,
        })
    }

    fn text(text: Cow<'a, str>) -> Found<Self> {
        Found::Value(Self::Text(Text(text)))
    }

    fn flag(flag: bool) -> Found<Self> {
        Found::Value(Self::Other(flag.to_string()))
    }

    fn number(n: Number) -> Found<Self> {
        match Text::number(n) {
            Found::Value(text) => Found::Value(Self::Text(text)),
            _ => Found::Odd,
        }
    }

    fn list<A: SeqAccess<'a>>(mut list: A) -> Result<Found<Self>, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = list.next_element::<&'a RawValue>()? {
            parts.push(part.get());
        }
        Ok(Found::Value(Self::Parts(parts)))
    }

    fn object<A: MapAccess<'a>>(mut object: A) -> Result<Found<Self>, A::Error> {
        let mut written = String::from("{");
        while let Some((Key(key), value)) = object.next_entry::<Key<'a>, &'a RawValue>()? {
            if written.len() > 1 {
                written.push(',');
            }
            written.push_str(&serde_json::Value::from(key).to_string());
            written.push(':');
            written.push_str(value.get());
        }
        written.push('}');
        Ok(Found::Value(Self::Other(written)))
    }
}
