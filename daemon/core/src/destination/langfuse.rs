//! Langfuse, by OpenTelemetry: attributes below `langfuse.`.

pub mod encode;

/// Where spans go when a project names no server.
pub const DEFAULT_BASE_URL: &str = "https://cloud.langfuse.com";
