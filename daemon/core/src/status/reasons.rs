//! The names under which `skipped_lines` and `left_in_spool` count, in words for people.

use std::borrow::Cow;

/// What is counted under `reason`, in the plural. A name without words of its own is shown with spaces.
pub fn skipped(reason: &str) -> Cow<'_, str> {
    Cow::Borrowed(match reason {
        "agent_of_no_turn" => "subagents that belong to no known turn",
        "copied_call" => "model calls that a fork or a rewind had copied (sent once)",
        "dropped_media" => "images and documents dropped with a destination",
        "dropped_scores" => "scores dropped with a destination",
        "dropped_spans" => "observations dropped with a destination",
        "event_evicted" => "hook events removed because the spool directory was full",
        "event_unreadable" => "hook events that a damaged database lost",
        "hook_base_url" => "hook events whose LANGFUSE_BASE_URL is no address",
        "hook_fields_missing" => "hook events without a session or a transcript",
        "hook_frame" => "hook events that arrived damaged",
        "hook_keys_missing" => "hook events without Langfuse keys",
        "hook_no_destination" => "hook events of projects that have no destination",
        "hook_not_enabled" => "hook events of projects where tracing is off",
        "hook_not_json" => "hook events that are not JSON",
        "hook_otlp_endpoint" => "hook events whose OTLP endpoint is no address",
        "hook_tracking_uri" => "hook events whose MLFLOW_TRACKING_URI leads nowhere",
        "hook_transcript_path" => "hook events whose transcript is no absolute path to a .jsonl file",
        "hook_version" => "hook events of another version of cc-langfuse-hook",
        "media_lost" => "images and documents that a damaged database lost",
        "media_no_room" => "images and documents beyond what may wait",
        "media_refused" => "images and documents that the server refused",
        "media_unsupported" => "images and documents for servers that take none",
        "not_json" => "lines that are not JSON",
        "orphan" => "conversation lines that belong to no turn",
        "other_user" => "connections of other users",
        "project_off" => "hook events of projects where tracing was switched off",
        "reader_panicked" => "hook events whose transcript met a fault in this program",
        "score_damaged" => "scores that a damaged database lost",
        "score_unsupported" => "scores for servers that take none",
        "too_long" => "lines that are too long",
        "totals_not_compared" => "sessions whose totals could not be compared",
        "transcript_hollow" => "hook events whose transcript is mostly empty space",
        "transcript_missing" => "hook events whose transcript does not exist",
        "transcript_not_a_file" => "hook events whose transcript is no regular file",
        "transcript_other_owner" => "hook events whose transcript belongs to another user",
        "transcript_outside_roots" => "hook events whose transcript lies outside the transcript directories",
        "transcript_unreadable" => "hook events whose transcript cannot be read",
        "turn_suppressed" => "turns of paused projects and of forgotten traces",
        "turn_while_off" => "turns from while tracing was off",
        "unexpected_shape" => "lines of an unexpected form",
        "unknown_kind" => "lines of an unknown kind",
        "warmup_agent" => "subagents that no turn asked for (warm-up)",
        other => {
            return match other.strip_prefix("field.") {
                Some(field) => Cow::Owned(format!("fields with an invalid value: {field}")),
                None => Cow::Owned(other.replace('_', " ")),
            };
        }
    })
}

/// The files that are left in the spool directory for `reason`, in the plural.
pub fn left(reason: &str) -> Cow<'_, str> {
    Cow::Borrowed(match reason {
        "hard_link" => "files with a second name elsewhere",
        "not_a_file" => "entries that are no regular files",
        "other_owner" => "files of other users",
        "other_version" => "hook events of another version of cc-langfuse-hook",
        "unknown" => "files that no hook wrote",
        "unreadable" => "files that cannot be read",
        other => return Cow::Owned(other.replace('_', " ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_in_words() {
        assert_eq!(skipped("turn_suppressed"), "turns of paused projects and of forgotten traces");
        assert_eq!(skipped("field.usage.input_tokens"), "fields with an invalid value: usage.input_tokens");
        assert_eq!(skipped("of_a_later_version"), "of a later version");
        assert_eq!(
            (left("hard_link"), left("new_kind")),
            ("files with a second name elsewhere".into(), "new kind".into())
        );
    }
}
