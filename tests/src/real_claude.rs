//! The real Claude Code, run against a scripted API without any network but loopback.
//!
//! A test runs in a second process of itself, in namespaces of its own: see [`scene`].

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::json;

use crate::{
    Home, Server, bins, home,
    messages_api::{MessagesApi, Reply},
    say,
};

/// The version that is installed for the tests.
pub const VERSION: &str = "2.1.332";

/// Set in the process inside the namespace.
const INSIDE: &str = "CC_LANGFUSE_INSIDE";

/// The real program; `None`, with a notice, if it is not available.
///
/// It is taken from `CC_LANGFUSE_CLAUDE`, or if `CI` is set, from the npm registry.
pub fn claude(test: &str) -> Option<PathBuf> {
    static CLAUDE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = CLAUDE.get_or_init(|| {
        if let Some(given) = std::env::var_os("CC_LANGFUSE_CLAUDE") {
            return Ok(given.into());
        }
        let built = bins().hook.parent().and_then(Path::parent).expect("the target directory");
        let dir = built.join("tmp").join(format!("claude-code-{VERSION}"));
        let program = |dir: &Path| dir.join("node_modules/.bin/claude");
        if program(&dir).exists() {
            return Ok(program(&dir));
        }
        if std::env::var_os("CI").is_none_or(|ci| ci.is_empty()) {
            return Err("Claude Code is not here; set CC_LANGFUSE_CLAUDE, or CI to install it".into());
        }
        install(&dir)?;
        Ok(program(&dir))
    });
    found.as_ref().inspect_err(|why| say(&format!("SKIPPED {test}: {why}"))).ok().cloned()
}

/// Installs it by npm within a time limit, completely or not at all.
fn install(dir: &Path) -> Result<(), String> {
    let partial = dir.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    let mut npm = Command::new("timeout");
    npm.args([
        "--kill-after=5",
        "240",
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--fetch-retries=1",
        "--loglevel=error",
    ]);
    npm.arg("--prefix").arg(&partial).arg(format!("@anthropic-ai/claude-code@{VERSION}"));
    let installed = npm.stdin(Stdio::null()).output().map_err(|error| format!("npm cannot be run: {error}"))?;
    let runs = Command::new(partial.join("node_modules/.bin/claude")).arg("--version").stdin(Stdio::null()).output();
    if !runs.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(VERSION)) {
        let said = String::from_utf8_lossy(&installed.stderr);
        let why = said.lines().next().unwrap_or("it says nothing");
        return Err(format!("npm does not install Claude Code {VERSION} ({}): {why}", installed.status));
    }
    fs::rename(&partial, dir).map_err(|error| format!("{}: {error}", dir.display()))
}

/// Gives the process a network with only loopback and, where the kernel allows that, an `/etc` of its own; says so by [`ETC`].
const NAMESPACE: &str = "ip link set lo up && d=$(mktemp -d) && if mount -t tmpfs none $d && mkdir $d/u $d/w && \
    mount -t overlay overlay -o lowerdir=/etc,upperdir=$d/u,workdir=$d/w,userxattr /etc; then export CC_LANGFUSE_ETC=own; fi; \
    exec \"$@\"";

/// Set if `/etc` is the process's own, so that managed settings can be written there.
const ETC: &str = "CC_LANGFUSE_ETC";

/// Writes Claude Code's managed settings; false, with a notice, if `/etc` is the machine's.
///
/// # Panics
/// If they cannot be written.
pub fn manage(test: &str, text: &str) -> bool {
    if std::env::var_os(ETC).is_none() {
        say(&format!("SKIPPED {test}: managed settings, for want of a private /etc"));
        return false;
    }
    fs::create_dir_all("/etc/claude-code").expect("a directory");
    fs::write("/etc/claude-code/managed-settings.json", text).expect("written");
    true
}

/// True in the process that does the work: in namespaces of its own. The outer process starts it, and fails if it does.
fn isolated(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let Some(claude) = claude(test) else { return false };
    bins();
    let mut probe = Command::new("unshare");
    probe.args(["-rnm", "ip", "link", "set", "lo", "up"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        say(&format!("SKIPPED {test}: no network namespaces here"));
        return false;
    }
    let mut inner = Command::new("unshare");
    inner.args(["-rnm", "sh", "-c", NAMESPACE, "sh"]).arg(std::env::current_exe().expect("a path"));
    inner.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").env("CC_LANGFUSE_CLAUDE", claude);
    let output = inner.stdin(Stdio::null()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    said.lines().filter(|line| line.starts_with("balance: ")).for_each(say);
    false
}

/// A tool call, then an answer.
pub fn api() -> MessagesApi {
    let tool = json!({
        "type": "tool_use", "id": "toolu_scripted", "name": "Bash",
        "input": {"command": "echo from the tool", "description": "Say it"},
    });
    let usage = |input: u64, output: u64| json!({"input_tokens": input, "output_tokens": output, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 0});
    MessagesApi::new(vec![
        Reply { content: vec![tool], usage: usage(123, 45) },
        Reply { content: vec![json!({"type": "text", "text": "It is done."})], usage: usage(234, 56) },
    ])
}

/// The real Claude Code, its home, and its servers.
pub struct Scene {
    pub claude: PathBuf,
    pub home: Home,
    pub server: Server,
    pub api: MessagesApi,
}

/// The scene inside the namespace; `None` in the outer process, or if `test` is skipped.
pub fn scene(test: &str) -> Option<Scene> {
    if !isolated(test) {
        return None;
    }
    Some(Scene { claude: claude(test)?, home: Home::new(), server: Server::new(), api: api() })
}

/// The environment of Claude Code: its documented switches against everything that would leave the machine.
pub fn env(api: &MessagesApi, server: &Server) -> Vec<(String, String)> {
    let own = [
        ("ANTHROPIC_BASE_URL", api.url.as_str()),
        ("ANTHROPIC_API_KEY", "sk-ant-none"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("DISABLE_ERROR_REPORTING", "1"),
        ("DISABLE_TELEMETRY", "1"),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    own.into_iter().chain(server.env().into_iter().filter(|(name, _)| name != "TRACE_TO_LANGFUSE")).collect()
}

/// Runs `command`, which is Claude Code or ends with it, for one prompt; it must succeed. Returns its output.
///
/// # Panics
/// If it fails.
pub fn prompt(mut command: Command, home: &Home, env: &[(String, String)]) -> String {
    command.args(["-p", "Do it.", "--allowedTools", "Bash"]);
    command.envs(env.iter().map(|(name, value)| (name, value))).current_dir(home.project("work"));
    let (output, _) = home::run(command, b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
