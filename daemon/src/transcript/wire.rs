//! A line as Claude Code writes it: the fields somebody reads, and nothing built for the rest.

use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Text that may hold what is not Unicode: JavaScript cuts strings in the middle of a surrogate pair.
#[derive(Debug, Default)]
pub(crate) struct Text<'a>(pub(super) Cow<'a, str>);

impl Text<'_> {
    pub(crate) fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsText;
        impl<'de> Visitor<'de> for AsText {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Text<'de>, E> {
                Ok(Text(lossy(bytes)))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(lossy(bytes).into_owned())))
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_bytes(AsText)
    }
}

/// As [`String::from_utf8_lossy`], which is slow on text that needs no repair: nearly all.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// A count that is sometimes `null`, a float or a string; what cannot be a count is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count(pub(super) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsCount;
        impl<'de> Visitor<'de> for AsCount {
            type Value = Count;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a count")
            }
            fn visit_u64<E>(self, n: u64) -> Result<Count, E> {
                Ok(Count(n))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Count, E> {
                Ok(Count(u64::try_from(n).unwrap_or(0)))
            }
            fn visit_f64<E>(self, n: f64) -> Result<Count, E> {
                Ok(Count(n as u64))
            }
            fn visit_str<E>(self, text: &str) -> Result<Count, E> {
                Ok(Count(text.parse().unwrap_or(0)))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
                Ok(Count(0))
            }
            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }
        }
        deserializer.deserialize_any(AsCount)
    }
}

#[derive(Deserialize)]
pub(super) struct Wire<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) subtype: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) uuid: Option<Text<'a>>,
    #[serde(rename = "parentUuid", borrow, default)]
    pub(super) parent_uuid: Option<Text<'a>>,
    #[serde(rename = "turnPosition", borrow, default)]
    pub(super) turn_position: Option<&'a RawValue>,
    /// Who began the turn, where that was not somebody typing.
    #[serde(rename = "turnOrigin", borrow, default)]
    pub(super) turn_origin: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) origin: Option<&'a RawValue>,
    #[serde(rename = "agentId", borrow, default)]
    pub(super) agent_id: Option<Text<'a>>,
    #[serde(rename = "promptId", borrow, default)]
    pub(super) prompt_id: Option<Text<'a>>,
    /// Its shape depends on the tool, and it may be long.
    #[serde(rename = "toolUseResult", borrow, default)]
    pub(super) tool_use_result: Option<&'a RawValue>,
    #[serde(rename = "forkedFrom", borrow, default)]
    pub(super) forked_from: Option<WireForkedFrom<'a>>,
    #[serde(rename = "permissionMode", borrow, default)]
    pub(super) permission_mode: Option<Text<'a>>,
    #[serde(rename = "toolDenialKind", borrow, default)]
    pub(super) tool_denial_kind: Option<Text<'a>>,
    #[serde(rename = "planContent", default)]
    pub(super) plan_content: Option<de::IgnoredAny>,
    #[serde(rename = "requestedModel", borrow, default)]
    pub(super) requested_model: Option<Text<'a>>,
    #[serde(rename = "streamCutCause", borrow, default)]
    pub(super) stream_cut_cause: Option<Text<'a>>,
    #[serde(rename = "isAbortedMidStream", default)]
    pub(super) is_aborted: Option<bool>,
    #[serde(rename = "originalModel", borrow, default)]
    pub(super) original_model: Option<Text<'a>>,
    #[serde(rename = "fallbackModel", borrow, default)]
    pub(super) fallback_model: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) trigger: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) summary: Option<Text<'a>>,
    #[serde(rename = "customTitle", borrow, default)]
    pub(super) custom_title: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) title: Option<Text<'a>>,
    #[serde(rename = "requestSessionId", borrow, default)]
    pub(super) request_session_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) version: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) cwd: Option<Text<'a>>,
    #[serde(rename = "gitBranch", borrow, default)]
    pub(super) git_branch: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) slug: Option<Text<'a>>,
    #[serde(rename = "isSidechain", default)]
    pub(super) is_sidechain: Option<bool>,
    #[serde(rename = "isMeta", default)]
    pub(super) is_meta: Option<bool>,
    #[serde(rename = "isCompactSummary", default)]
    pub(super) is_compact_summary: Option<bool>,
    #[serde(rename = "isVisibleInTranscriptOnly", default)]
    pub(super) is_visible_only: Option<bool>,
    #[serde(rename = "isApiErrorMessage", default)]
    pub(super) is_api_error: Option<bool>,
    #[serde(rename = "apiErrorStatus", default)]
    pub(super) api_error_status: Option<Count>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(rename = "retryAttempt", default)]
    pub(super) retry_attempt: Option<Count>,
    #[serde(rename = "requestId", borrow, default)]
    pub(super) request_id: Option<Text<'a>>,
    #[serde(rename = "requestRef", borrow, default)]
    pub(super) request_ref: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) message: Option<WireMessage<'a>>,
    #[serde(borrow, default)]
    pub(super) content: Option<Content<'a>>,
    #[serde(borrow, default)]
    pub(super) attachment: Option<WireAttachment<'a>>,
    #[serde(rename = "compactMetadata", borrow, default)]
    pub(super) compact: Option<WireCompact<'a>>,
}

/// `toolUseResult` of a call that launched a subagent, or a workflow.
#[derive(Deserialize)]
pub(super) struct WireLaunched<'a> {
    #[serde(rename = "agentId", borrow, default)]
    pub(super) agent_id: Option<Text<'a>>,
    #[serde(rename = "runId", borrow, default)]
    pub(super) run_id: Option<Text<'a>>,
    /// The subagent that a message has set to work again.
    #[serde(rename = "resumedAgentId", borrow, default)]
    pub(super) resumed_agent_id: Option<Text<'a>>,
    #[serde(rename = "isAsync", default)]
    pub(super) is_async: Option<bool>,
}

/// `turnPosition` of a prompt.
#[derive(Deserialize)]
pub(super) struct WireTurnPosition {
    #[serde(rename = "turnIndex", default)]
    pub(super) turn_index: Option<Count>,
}

/// `origin` of a prompt.
#[derive(Deserialize)]
pub(super) struct WireOrigin<'a> {
    #[serde(borrow, default)]
    pub(super) kind: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WireForkedFrom<'a> {
    #[serde(rename = "sessionId", borrow, default)]
    pub(super) session_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WireMessage<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) role: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) model: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) content: Option<Content<'a>>,
    #[serde(borrow, default)]
    pub(super) stop_reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) usage: Option<WireUsage<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WireUsage<'a> {
    #[serde(borrow, default)]
    pub(super) service_tier: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) speed: Option<Text<'a>>,
    #[serde(default)]
    pub(super) server_tool_use: Option<WireServerTools>,
    #[serde(default)]
    pub(super) input_tokens: Count,
    #[serde(default)]
    pub(super) output_tokens: Count,
    #[serde(default)]
    pub(super) cache_read_input_tokens: Count,
    #[serde(default)]
    pub(super) cache_creation_input_tokens: Count,
    #[serde(default)]
    pub(super) cache_creation: Option<WireCacheCreation>,
}

#[derive(Deserialize)]
pub(super) struct WireServerTools {
    #[serde(default)]
    pub(super) web_search_requests: Count,
    #[serde(default)]
    pub(super) web_fetch_requests: Count,
}

#[derive(Deserialize)]
pub(super) struct WireCacheCreation {
    #[serde(default)]
    pub(super) ephemeral_5m_input_tokens: Count,
    #[serde(default)]
    pub(super) ephemeral_1h_input_tokens: Count,
}

/// `error` of a retry; that of an answer is a word.
#[derive(Deserialize)]
pub(super) struct WireError {
    #[serde(default)]
    pub(super) status: Option<Count>,
}

#[derive(Deserialize)]
pub(super) struct WireAttachment<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) prompt: Option<Content<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WireCompact<'a> {
    #[serde(borrow, default)]
    pub(super) trigger: Option<Text<'a>>,
    #[serde(rename = "preTokens", default)]
    pub(super) pre_tokens: Option<Count>,
    #[serde(rename = "postTokens", default)]
    pub(super) post_tokens: Option<Count>,
}

/// `message.content`: a string or a list of blocks.
pub(super) enum Content<'a> {
    Text(Text<'a>),
    Blocks(Vec<WireBlock<'a>>),
}

#[derive(Deserialize)]
pub(super) struct WireBlock<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) tool_use_id: Option<Text<'a>>,
    #[serde(default)]
    pub(super) is_error: Option<bool>,
    #[serde(borrow, default)]
    pub(super) content: Option<Output<'a>>,
    /// The bytes of an image or document, or where they are.
    #[serde(borrow, default)]
    pub(super) source: Option<&'a RawValue>,
}

/// `source` of an image or document.
#[derive(Deserialize)]
pub(super) struct WireSource<'a> {
    #[serde(borrow, default)]
    pub(super) media_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) data: Option<Text<'a>>,
}

/// Content of a `tool_result`: a string or a list of blocks, the latter kept as written.
pub(super) enum Output<'a> {
    Text(Text<'a>),
    Parts(Vec<&'a RawValue>),
}

/// Implements `Deserialize` for "a string or a list"; anything else is an unexpected shape.
macro_rules! string_or_list {
    ($name:ident, $item:ty, $list:ident) => {
        impl<'de: 'a, 'a> Deserialize<'de> for $name<'a> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Either;
                impl<'de> Visitor<'de> for Either {
                    type Value = $name<'de>;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a string or a list")
                    }
                    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                        Ok($name::Text(Text(lossy(bytes))))
                    }
                    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                        Ok($name::Text(Text(Cow::Owned(lossy(bytes).into_owned()))))
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                        let mut items = Vec::new();
                        while let Some(item) = seq.next_element::<$item>()? {
                            items.push(item);
                        }
                        Ok($name::$list(items))
                    }
                }
                // serde_json answers a request for bytes with whatever of string and list is there.
                deserializer.deserialize_bytes(Either)
            }
        }
    };
}

string_or_list!(Content, WireBlock<'de>, Blocks);
string_or_list!(Output, &'de RawValue, Parts);
