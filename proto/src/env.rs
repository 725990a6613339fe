//! The one table of environment variables: what travels with a hook event, and what each is for.
//!
//! Claude Code gives hooks its whole environment, API keys of other services included, so the list is closed: a name that
//! is not here never leaves the hook process.

/// What a variable is for. It decides what a hook forwards, what a spool file may hold, who may set it and
/// what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Turns a kind of backend on for a project, or tracing in general.
    Enable,
    /// Where the backend is.
    Address,
    /// Which account or project at the backend.
    Account,
    /// Kept in memory only.
    Secret,
    /// How a server proves its identity, and which certificate the client shows. Kept in memory only, like the secrets,
    /// because it decides who receives them.
    Tls,
    /// How traces are made.
    Option,
    /// Where Claude Code stores its files.
    Place,
    /// Read when a program starts; never forwarded.
    Local,
}

/// Which backends use the variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// All of them.
    Project,
    Langfuse,
    Mlflow,
    /// Any OTLP receiver.
    Otlp,
    /// The toy backend of the tests.
    #[cfg(feature = "toy")]
    Toy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: &'static str,
    /// The documented name of the setting; several variables may spell the same setting. Rows of one setting follow
    /// each other, the strongest first: the first with a value decides.
    pub setting: &'static str,
    pub of: Of,
    pub role: Role,
}

/// Turns tracing to Langfuse on for a project when it is `"true"` in any letter case.
pub const ENABLE: &str = "TRACE_TO_LANGFUSE";

/// Turns tracing to MLflow on for a project when it is `true`, `1` or `yes` in any letter case, as MLflow's own integration has it.
pub const MLFLOW_ENABLE: &str = "MLFLOW_CLAUDE_TRACING_ENABLED";

/// The certificates that MLflow's servers are checked against: a file, or a directory of files.
pub const MLFLOW_SERVER_CERT: &str = "MLFLOW_TRACKING_SERVER_CERT_PATH";

/// A file with the client certificate for MLflow's servers, and its key.
pub const MLFLOW_CLIENT_CERT: &str = "MLFLOW_TRACKING_CLIENT_CERT_PATH";

/// Skips the check of MLflow's server certificates.
pub const MLFLOW_INSECURE_TLS: &str = "MLFLOW_TRACKING_INSECURE_TLS";

/// The whole address of an OTLP receiver. Setting it turns tracing to that receiver on.
pub const OTLP_ENDPOINT: &str = "CC_LANGFUSE_OTLP_ENDPOINT";

/// Turns tracing on for a project when it is `"true"` in any letter case, without choosing a kind of backend: traces go
/// where the user's `config.toml` says.
pub const TRACE: &str = "CC_LANGFUSE_TRACE";

/// Moves the state directory; must be absolute.
pub const STATE_DIR: &str = "CC_LANGFUSE_STATE_DIR";

const fn row(name: &'static str, setting: &'static str, of: Of, role: Role) -> Variable {
    Variable { name, setting, of, role }
}

const fn plain(name: &'static str, role: Role) -> Variable {
    row(name, name, Of::Project, role)
}

/// Every variable these programs know. `BASEURL` and `HOST` are what other Langfuse SDKs call the base URL.
pub const VARIABLES: &[Variable] = &[
    plain(TRACE, Role::Enable),
    row(ENABLE, ENABLE, Of::Langfuse, Role::Enable),
    row("CC_LANGFUSE_PUBLIC_KEY", "LANGFUSE_PUBLIC_KEY", Of::Langfuse, Role::Account),
    row("LANGFUSE_PUBLIC_KEY", "LANGFUSE_PUBLIC_KEY", Of::Langfuse, Role::Account),
    row("CC_LANGFUSE_SECRET_KEY", "LANGFUSE_SECRET_KEY", Of::Langfuse, Role::Secret),
    row("LANGFUSE_SECRET_KEY", "LANGFUSE_SECRET_KEY", Of::Langfuse, Role::Secret),
    row("CC_LANGFUSE_BASE_URL", "LANGFUSE_BASE_URL", Of::Langfuse, Role::Address),
    row("LANGFUSE_BASE_URL", "LANGFUSE_BASE_URL", Of::Langfuse, Role::Address),
    row("CC_LANGFUSE_BASEURL", "LANGFUSE_BASE_URL", Of::Langfuse, Role::Address),
    row("LANGFUSE_BASEURL", "LANGFUSE_BASE_URL", Of::Langfuse, Role::Address),
    row("CC_LANGFUSE_HOST", "LANGFUSE_BASE_URL", Of::Langfuse, Role::Address),
    row("LANGFUSE_HOST", "LANGFUSE_BASE_URL", Of::Langfuse, Role::Address),
    row("CC_LANGFUSE_TRACING_ENVIRONMENT", "LANGFUSE_TRACING_ENVIRONMENT", Of::Project, Role::Option),
    row("LANGFUSE_TRACING_ENVIRONMENT", "LANGFUSE_TRACING_ENVIRONMENT", Of::Project, Role::Option),
    row("CC_LANGFUSE_RELEASE", "LANGFUSE_RELEASE", Of::Project, Role::Option),
    row("LANGFUSE_RELEASE", "LANGFUSE_RELEASE", Of::Project, Role::Option),
    row("CC_LANGFUSE_USER_ID", "LANGFUSE_USER_ID", Of::Project, Role::Option),
    row("LANGFUSE_USER_ID", "LANGFUSE_USER_ID", Of::Project, Role::Option),
    row("CC_LANGFUSE_SAMPLE_RATE", "LANGFUSE_SAMPLE_RATE", Of::Project, Role::Option),
    row("LANGFUSE_SAMPLE_RATE", "LANGFUSE_SAMPLE_RATE", Of::Project, Role::Option),
    row(MLFLOW_ENABLE, MLFLOW_ENABLE, Of::Mlflow, Role::Enable),
    row("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI", Of::Mlflow, Role::Address),
    row("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_ID", Of::Mlflow, Role::Account),
    row("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME", Of::Mlflow, Role::Account),
    row("MLFLOW_WORKSPACE", "MLFLOW_WORKSPACE", Of::Mlflow, Role::Account),
    row("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_USERNAME", Of::Mlflow, Role::Secret),
    row("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_PASSWORD", Of::Mlflow, Role::Secret),
    row("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_TOKEN", Of::Mlflow, Role::Secret),
    row("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AUTH", Of::Mlflow, Role::Option),
    row("MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_AWS_SIGV4", Of::Mlflow, Role::Option),
    row(MLFLOW_SERVER_CERT, MLFLOW_SERVER_CERT, Of::Mlflow, Role::Tls),
    row(MLFLOW_CLIENT_CERT, MLFLOW_CLIENT_CERT, Of::Mlflow, Role::Tls),
    row(MLFLOW_INSECURE_TLS, MLFLOW_INSECURE_TLS, Of::Mlflow, Role::Tls),
    row(OTLP_ENDPOINT, OTLP_ENDPOINT, Of::Otlp, Role::Address),
    row("CC_LANGFUSE_OTLP_NAME", "CC_LANGFUSE_OTLP_NAME", Of::Otlp, Role::Account),
    row("CC_LANGFUSE_OTLP_HEADERS", "CC_LANGFUSE_OTLP_HEADERS", Of::Otlp, Role::Secret),
    row("CC_LANGFUSE_OTLP_PRESET", "CC_LANGFUSE_OTLP_PRESET", Of::Otlp, Role::Option),
    row("CC_LANGFUSE_OTLP_DIALECT", "CC_LANGFUSE_OTLP_DIALECT", Of::Otlp, Role::Option),
    row("CC_LANGFUSE_OTLP_MAX_VALUE_BYTES", "CC_LANGFUSE_OTLP_MAX_VALUE_BYTES", Of::Otlp, Role::Option),
    plain("CC_LANGFUSE_TAGS", Role::Option),
    plain("CC_LANGFUSE_METADATA", Role::Option),
    plain("CC_LANGFUSE_SEMANTICS", Role::Option),
    plain("CC_LANGFUSE_CAPTURE", Role::Option),
    plain("CC_LANGFUSE_REDACT", Role::Option),
    plain("CC_LANGFUSE_SCORES", Role::Option),
    plain("CC_LANGFUSE_DEBUG", Role::Option),
    plain(STATE_DIR, Role::Local),
    plain("CLAUDE_CONFIG_DIR", Role::Place),
    plain("CLAUDE_PROJECT_DIR", Role::Place),
    #[cfg(feature = "toy")]
    row("CC_LANGFUSE_TOY", "CC_LANGFUSE_TOY", Of::Toy, Role::Enable),
    #[cfg(feature = "toy")]
    row("CC_LANGFUSE_TOY_ADDRESS", "CC_LANGFUSE_TOY_ADDRESS", Of::Toy, Role::Address),
    #[cfg(feature = "toy")]
    row("CC_LANGFUSE_TOY_NAME", "CC_LANGFUSE_TOY_NAME", Of::Toy, Role::Account),
    #[cfg(feature = "toy")]
    row("CC_LANGFUSE_TOY_TOKEN", "CC_LANGFUSE_TOY_TOKEN", Of::Toy, Role::Secret),
];

/// The rows with `role` for `of`, the strongest of a setting first.
pub fn rows(of: Of, role: Role) -> impl Iterator<Item = &'static Variable> {
    VARIABLES.iter().filter(move |row| row.of == of && row.role == role)
}

/// True if `value` switches tracing on.
pub fn enabled(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

/// True for the variables that turn a kind of backend on. A kind without a switch is turned on by its address.
pub fn is_switch(row: &Variable) -> bool {
    row.role == Role::Enable || row.name == OTLP_ENDPOINT
}

/// True if `row` is a switch and `value` turns it on.
pub fn switches_on(row: &Variable, value: &str) -> bool {
    let is = |word: &str| value.trim().eq_ignore_ascii_case(word);
    match row.name {
        MLFLOW_ENABLE => is("true") || is("1") || is("yes"),
        OTLP_ENDPOINT => !value.trim().is_empty(),
        _ => row.role == Role::Enable && enabled(value),
    }
}

/// True if any kind of backend is switched on; `get` returns a variable's value.
pub fn is_on<V: AsRef<str>>(mut get: impl FnMut(&'static str) -> Option<V>) -> bool {
    let mut switches = VARIABLES.iter().filter(|row| is_switch(row));
    switches.any(|row| get(row.name).is_some_and(|value| switches_on(row, value.as_ref())))
}

/// Every variable a hook may forward, in a fixed order.
pub fn forwarded() -> impl Iterator<Item = &'static str> {
    VARIABLES.iter().filter(|row| row.role != Role::Local).map(|row| row.name)
}

/// True for the variables whose value may be kept in memory only.
pub fn is_secret(name: &str) -> bool {
    VARIABLES.iter().any(|row| row.role == Role::Secret && row.name == name)
}

/// True for the variables whose value is never written to disk: secrets, and what decides who receives them.
pub fn is_kept_in_memory(name: &str) -> bool {
    VARIABLES.iter().any(|row| matches!(row.role, Role::Secret | Role::Tls) && row.name == name)
}

/// True for the variables whose value is an address.
pub fn is_address(name: &str) -> bool {
    VARIABLES.iter().any(|row| row.role == Role::Address && row.name == name)
}

/// `url` without a `user:password@` part: credentials in URLs are not supported and must not be stored. A text that is
/// no URL is kept only if it has no `@`.
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
    fn without_userinfo_removes_only_the_credentials() {
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
    fn only_rows_with_the_secret_role_are_secret() {
        let secret: Vec<_> = forwarded().filter(|name| is_secret(name) && !name.contains("TOY")).collect();
        let mlflow = ["MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"];
        let langfuse = ["CC_LANGFUSE_SECRET_KEY", "LANGFUSE_SECRET_KEY"];
        assert_eq!(secret, [&langfuse[..], &mlflow, &["CC_LANGFUSE_OTLP_HEADERS"]].concat());
        assert!(!is_secret("LANGFUSE_PUBLIC_KEY") && !is_secret("AWS_SECRET_ACCESS_KEY"));
    }

    #[test]
    fn each_name_occurs_once_and_the_spellings_of_a_setting_are_adjacent() {
        let names: std::collections::BTreeSet<_> = VARIABLES.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), VARIABLES.len());
        let mut settings: Vec<_> = VARIABLES.iter().map(|row| row.setting).collect();
        settings.dedup();
        let distinct: std::collections::BTreeSet<_> = settings.iter().collect();
        assert_eq!(distinct.len(), settings.len());
    }

    #[test]
    fn one_switch_is_enough() {
        for (value, expect) in [("true", true), ("TRUE", true), ("1", false), ("", false), ("false", false)] {
            assert_eq!(is_on(|name| (name == ENABLE).then_some(value)), expect, "{value}");
        }
        for (value, expect) in [("http://127.0.0.1:4318", true), ("x", true), ("", false), (" ", false)] {
            assert_eq!(is_on(|name| (name == OTLP_ENDPOINT).then_some(value)), expect, "{value:?}");
        }
        for (value, expect) in [("true", true), ("YES", true), (" 1", true), ("0", false), ("no", false), ("on", false)]
        {
            assert_eq!(is_on(|name| (name == MLFLOW_ENABLE).then_some(value)), expect, "{value}");
        }
        for (value, expect) in [("true", true), ("True", true), ("1", false), ("", false)] {
            assert_eq!(is_on(|name| (name == TRACE).then_some(value)), expect, "{value}");
        }
        assert!(!is_on(|name| (name == "LANGFUSE_BASE_URL").then_some("true")));
        assert!(!is_on(|_| None::<&str>));
    }
}
