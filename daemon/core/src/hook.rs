//! A hook's payload and environment → a [`Hint`]: which session to read, why, and where its spans go.

use std::path::PathBuf;

use proto::frame::Frame;
use serde::{
    Deserialize, Serialize, Serializer,
    de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor},
};

use serde_json::value::RawValue;

use crate::{
    destination::Destination,
    ids::Fingerprint,
    project::Options,
    route::{Env, Refused, Target},
    settings::block::Vars,
    transcript::{record::Nanos, wire::Text},
};

mod source;

pub use source::Source;

/// A hook event as it is stored until it is settled. Contains no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Hint {
    /// Unique; has no other meaning.
    pub id: String,
    /// Stored only if it is not a hook.
    #[serde(default, skip_serializing_if = "Source::is_hook")]
    pub source: Source,
    /// When the hook ran.
    pub fired_ns: Nanos,
    pub session_id: String,
    /// The session's transcript at this moment: it can move.
    pub transcript: PathBuf,
    pub event: Event,
    /// The session's working directory, and the project's if Claude Code names it: where settings are looked up.
    pub project_dirs: Vec<PathBuf>,
    /// Claude Code's configuration directory, if its environment names one.
    #[serde(default)]
    pub config_dir: Option<PathBuf>,
    /// At least one.
    pub targets: Vec<Target>,
    /// Destinations that the session had before these: what was queued for them is not queued again for the present ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Destination>,
    /// The settings files turned tracing on when the event arrived, not the environment alone.
    #[serde(default)]
    pub settings_on: bool,
    pub options: Options,
    /// The project asked for a detailed log.
    pub debug: bool,
    /// The session has ended but Claude Code continues with another: it writes the totals of the first one after the hook.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub totals_follow: bool,
}

impl Hint {
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.targets.iter().map(|target| &target.destination)
    }

    /// The same event in a session whose event before was `previous`. A session that changes its destination has
    /// [`former`](Self::former) ones. History that the user asks for is sent whatever went elsewhere, and what it was sent to
    /// counts for nothing.
    #[must_use]
    pub fn after(mut self, previous: &Self) -> Self {
        let is_left = |to: &&Destination| !self.destinations().any(|now| now == *to);
        let mut left: Vec<Destination> = previous.destinations().filter(is_left).cloned().collect();
        if left.is_empty() || previous.source.is_asked_for() {
            left = previous.former.iter().filter(is_left).cloned().collect();
        }
        self.former = if self.source.is_asked_for() { Vec::new() } else { left };
        self
    }
}

impl Serialize for Hint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Hint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut stored = serde_json::Value::deserialize(deserializer)?;
        // Earlier versions stored a single destination, with its chooser beside it.
        if let Some(one) = stored.get_mut("destination").map(serde_json::Value::take) {
            let chooser = stored.get_mut("chooser").map(serde_json::Value::take);
            stored["targets"] = serde_json::json!([{ "destination": one, "chooser": chooser }]);
        }
        let mut hint = Self::deserialize(stored).map_err(D::Error::custom)?;
        if hint.targets.is_empty() {
            return Err(D::Error::custom("an event without a destination"));
        }
        // Earlier versions stored no source.
        if hint.source.is_hook() {
            hint.source = Source::of_id(&hint.id);
        }
        Ok(hint)
    }
}

/// What a hook event means for the open turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The model has stopped. Its last line may not be on disk yet; `answer` (trimmed by Claude Code) says which one to wait
    /// for.
    Stopped {
        /// Of `last_assistant_message`, whose text is not kept. Older versions do not send it.
        answer: Option<Fingerprint>,
    },
    /// A subagent has stopped while the turn continues.
    AgentStopped {
        /// Claude Code's id of the subagent.
        agent: String,
    },
    /// A tool has returned.
    ToolEnded {
        /// `tool_use.id`.
        tool: String,
        /// Run time in milliseconds, which the transcript does not have.
        took_ms: u64,
    },
    /// The session has ended and its transcript is complete.
    Ended,
    /// Any other event: only a reason to read the transcript.
    Other,
}

/// Reads a frame. Returns the event and the variables it came with, including secrets. `join` adds the destinations that no
/// variable names.
///
/// # Errors
/// Why the event cannot be used.
pub fn read(frame: Frame, join: impl FnOnce(&mut Hint)) -> Result<(Hint, Vars), Refused> {
    let mut vars: Vars = frame.env.into_iter().collect();
    if !Env::of(&vars).enabled() {
        return Err(Refused::NotEnabled);
    }
    let payload = Payload::read(&frame.payload, frame.cut).ok_or(Refused::NotJson)?;
    // A file store may be relative to the project. If Claude Code does not name the project, it is the working directory.
    if let Some(cwd) = payload.cwd.as_ref().filter(|cwd| cwd.starts_with('/')) {
        vars.entry("CLAUDE_PROJECT_DIR".to_owned()).or_insert_with(|| cwd.clone());
    }
    let env = Env::of(&vars);
    let (Some(session_id), Some(transcript)) = (payload.session_id, payload.transcript_path) else {
        return Err(Refused::FieldsMissing);
    };
    let transcript = PathBuf::from(transcript);
    if session_id.is_empty() {
        return Err(Refused::FieldsMissing);
    }
    if !transcript.is_absolute() || transcript.extension().is_none_or(|ext| ext != "jsonl") {
        return Err(Refused::TranscriptPath);
    }
    let (routes, refused) = env.routes();
    let event = match payload.event.as_deref() {
        Some("SubagentStop" | "StopFailure" | "Stop") if let Some(agent) = payload.agent_id.clone() => {
            Event::AgentStopped { agent }
        }
        _ if payload.agent_id.is_some() => Event::Other,
        Some("Stop" | "StopFailure") => Event::Stopped {
            answer: payload.answer.filter(|text| !text.trim().is_empty()).map(|text| Fingerprint::of(&text)),
        },
        Some("SessionEnd" | "Replay") => Event::Ended,
        Some("PostToolUse" | "PostToolUseFailure")
            if let Some((tool, took_ms)) = payload.tool_use_id.clone().zip(payload.took_ms) =>
        {
            Event::ToolEnded { tool, took_ms }
        }
        _ => Event::Other,
    };
    let mut project_dirs: Vec<PathBuf> =
        [payload.cwd.as_deref(), env.get("CLAUDE_PROJECT_DIR")].into_iter().flatten().map(PathBuf::from).collect();
    project_dirs.retain(|dir| dir.is_absolute());
    project_dirs.dedup();
    let mut hint = Hint {
        source: Source::of_id(&frame.id),
        id: frame.id,
        fired_ns: frame.fired_ns,
        session_id,
        transcript,
        event,
        project_dirs,
        config_dir: env.get("CLAUDE_CONFIG_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute()),
        targets: routes.into_iter().map(|(destination, _)| destination.into()).collect(),
        former: Vec::new(),
        settings_on: false,
        options: env.options(),
        debug: env.get("CC_LANGFUSE_DEBUG").is_some_and(proto::env::enabled),
        totals_follow: payload.reason.is_some_and(|reason| matches!(&*reason, "clear" | "resume")),
    };
    join(&mut hint);
    if hint.targets.is_empty() {
        return Err(refused.first().copied().unwrap_or(Refused::NoDestination));
    }
    Ok((hint, vars))
}

/// The fields of a payload that are used.
#[derive(Debug, Default, PartialEq)]
struct Payload {
    session_id: Option<String>,
    transcript_path: Option<String>,
    cwd: Option<String>,
    event: Option<String>,
    agent_id: Option<String>,
    answer: Option<String>,
    /// Why a session ended.
    reason: Option<String>,
    tool_use_id: Option<String>,
    took_ms: Option<u64>,
}

impl Payload {
    /// `None` if `bytes` is not a JSON object. If the payload was `cut`, the fields before the cut count.
    fn read(bytes: &[u8], cut: bool) -> Option<Self> {
        let mut payload = Self::default();
        let text = String::from_utf8_lossy(bytes);
        let mut json = serde_json::Deserializer::from_str(&text);
        let read = Collect(&mut payload).deserialize(&mut json).and_then(|()| json.end());
        (read.is_ok() || cut && payload != Self::default()).then_some(payload)
    }
}

/// Fills a [`Payload`] field by field, so that an error keeps the fields before it.
struct Collect<'p>(&'p mut Payload);

impl<'de> DeserializeSeed<'de> for Collect<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let field = match key.as_str() {
                "session_id" => &mut self.0.session_id,
                "transcript_path" => &mut self.0.transcript_path,
                "cwd" => &mut self.0.cwd,
                "hook_event_name" => &mut self.0.event,
                "agent_id" => &mut self.0.agent_id,
                "last_assistant_message" => &mut self.0.answer,
                "reason" => &mut self.0.reason,
                "tool_use_id" => &mut self.0.tool_use_id,
                "duration_ms" => {
                    let raw = map.next_value::<&RawValue>()?.get();
                    self.0.took_ms = serde_json::from_str::<f64>(raw).ok().filter(|ms| *ms >= 0.0).map(|ms| ms as u64);
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let raw = map.next_value::<&RawValue>()?.get();
            *field = serde_json::from_str::<Text>(raw).ok().map(Text::into_owned);
            let is_needed = key == "session_id" || key == "transcript_path";
            if is_needed && field.is_none() && raw != "null" {
                return Err(de::Error::custom(format_args!("{key} is no string")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
