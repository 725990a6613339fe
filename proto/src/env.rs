//! The environment variables that travel with a hook event.
//!
//! Claude Code gives hooks its whole environment, API keys of other services included, so the list is closed: a name that
//! is not here never leaves the hook process.

/// Turns tracing on for a project when it is `"true"` in any letter case.
pub const ENABLE: &str = "TRACE_TO_LANGFUSE";

/// Moves the state directory; must be absolute.
pub const STATE_DIR: &str = "CC_LANGFUSE_STATE_DIR";

/// What can say where the server is: the first with a value decides.
pub const ADDRESS: [&str; 6] = [
    "CC_LANGFUSE_BASE_URL",
    "LANGFUSE_BASE_URL",
    "CC_LANGFUSE_BASEURL",
    "LANGFUSE_BASEURL",
    "CC_LANGFUSE_HOST",
    "LANGFUSE_HOST",
];

/// Settings that exist as `LANGFUSE_X` and, with precedence, as `CC_LANGFUSE_X`.
/// `BASEURL` and `HOST` are what other Langfuse SDKs call the base URL.
pub const PAIRED: [&str; 9] = [
    "PUBLIC_KEY",
    "SECRET_KEY",
    "BASE_URL",
    "BASEURL",
    "HOST",
    "TRACING_ENVIRONMENT",
    "RELEASE",
    "USER_ID",
    "SAMPLE_RATE",
];

/// Settings that exist only under these names, and the two variables of Claude Code that say where a project lives.
pub const PLAIN: [&str; 8] = [
    "CC_LANGFUSE_TAGS",
    "CC_LANGFUSE_METADATA",
    "CC_LANGFUSE_SEMANTICS",
    "CC_LANGFUSE_CAPTURE",
    "CC_LANGFUSE_REDACT",
    "CC_LANGFUSE_DEBUG",
    "CLAUDE_CONFIG_DIR",
    "CLAUDE_PROJECT_DIR",
];

/// True if `value` switches tracing on.
pub fn enabled(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

/// Every variable a hook may forward, in a fixed order.
pub fn forwarded() -> impl Iterator<Item = String> {
    let paired = PAIRED.iter().flat_map(|name| [format!("CC_LANGFUSE_{name}"), format!("LANGFUSE_{name}")]);
    std::iter::once(ENABLE.to_owned()).chain(paired).chain(PLAIN.iter().map(|name| (*name).to_owned()))
}

/// True for the variables whose value may live in memory only.
pub fn is_secret(name: &str) -> bool {
    name.ends_with("LANGFUSE_SECRET_KEY")
}

/// `url` without a `user:password@` part: credentials in URLs are not supported and must not be stored. What is no URL is
/// stored too, as far as there is no `@`.
pub fn without_userinfo(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.rsplit('@').next().unwrap_or_default().to_owned();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userinfo_is_cut_and_nothing_else() {
        for (url, expect) in [
            ("https://cloud.langfuse.com", "https://cloud.langfuse.com"),
            ("https://me:pw@host:1/x", "https://host:1/x"),
            ("http://a@b@c/", "http://c/"),
            ("https://host/path@x", "https://host/path@x"),
            ("nonsense", "nonsense"),
            ("me:pw@host", "host"),
            ("https:/me:p@w@host", "host"),
        ] {
            assert_eq!(without_userinfo(url), expect);
        }
    }

    #[test]
    fn only_the_secret_keys_are_secret() {
        let secret: Vec<_> = forwarded().filter(|name| is_secret(name)).collect();
        assert_eq!(secret, ["CC_LANGFUSE_SECRET_KEY", "LANGFUSE_SECRET_KEY"]);
    }
}
