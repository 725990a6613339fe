//! The released files: versions, the package's files, the plugin. That two releases have equal bytes takes two builds
//! of everything: `.ci/release --check`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::SystemTime,
};

use serde_json::Value;
use tempfile::TempDir;
use tests::{bins, say};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const MANIFEST: &str = include_str!("../../daemon/Cargo.toml");
const RELEASE: &str = include_str!("../../.ci/release");
const SERVICE: &str = include_str!("../../systemd/cc-langfused.service");

/// The path of the package's assets.
const TREE: &str = "../target/dist/tree/";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text").trim().to_owned()
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// git with only these settings.
fn git(dir: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(dir).stdin(Stdio::null()).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(name);
    }
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "dev").env(format!("GIT_{who}_EMAIL"), "dev@example.org");
        git.env(format!("GIT_{who}_DATE"), "2026-02-03T04:05:06Z");
    }
    git
}

/// A repository with a workspace like this one, and the build script that examines it.
struct Scene {
    dir: TempDir,
    script: PathBuf,
}

impl Scene {
    /// `None`, with a notice, if git is missing.
    fn new(test: &str) -> Option<Self> {
        if !Command::new("git").arg("--version").output().is_ok_and(|output| output.status.success()) {
            say(&format!("SKIPPED {test}: git is not here"));
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let script = dir.path().join("script");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "-o"]).arg(&script).arg(root().join("daemon/build.rs"));
        text(&rustc.output().expect("rustc runs"));
        let scene = Self { dir, script };
        scene.sources("checkout");
        let checkout = scene.path("checkout");
        scene.git(&checkout, &["init", "-q", "-b", "main"]);
        scene.commit(&checkout);
        Some(scene)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().expect("a directory").join(name)
    }

    fn sources(&self, name: &str) {
        let dir = self.path(name);
        for path in ["daemon/src/lib.rs", "daemon/Cargo.toml", "proto/src/lib.rs", "systemd/unit", "README.md"] {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, "").expect("written");
        }
    }

    fn git(&self, dir: &Path, args: &[&str]) -> String {
        text(&git(dir).args(args).output().expect("git runs"))
    }

    fn commit(&self, dir: &Path) {
        self.git(dir, &["add", "-A"]);
        self.git(dir, &["commit", "-q", "--allow-empty", "-m", "a commit"]);
    }

    /// The output of the script in the workspace at `dir`.
    fn run(&self, dir: &Path, path: Option<&str>) -> Vec<String> {
        let mut script = Command::new(&self.script);
        script.current_dir(dir.join("daemon")).env("CARGO_PKG_VERSION", "1.2.3");
        // No repository around the temporary directory counts.
        script.env("GIT_CEILING_DIRECTORIES", self.dir.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        if let Some(path) = path {
            script.env("PATH", path);
        }
        text(&script.output().expect("it runs")).lines().map(str::to_owned).collect()
    }

    fn version(&self, dir: &Path) -> String {
        let said = self.run(dir, None);
        let version = said.iter().find_map(|line| line.strip_prefix("cargo::rustc-env=CC_LANGFUSE_VERSION="));
        version.expect("a version").to_owned()
    }

    /// The files that cargo watches, apart from sources, with their times.
    fn watched(&self, dir: &Path) -> BTreeMap<PathBuf, SystemTime> {
        let said = self.run(dir, None);
        let paths = said.iter().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed="));
        let paths =
            paths.map(|path| dir.join("daemon").join(path)).filter(|path| path.to_string_lossy().contains(".git/"));
        let files = paths.flat_map(|path| {
            assert!(path.exists(), "cargo builds each time for {}", path.display());
            if path.is_dir() {
                let listed = fs::read_dir(&path).expect("listed").map(|entry| entry.expect("an entry").path());
                listed.chain([path.clone()]).collect()
            } else {
                vec![path]
            }
        });
        files
            .map(|path| (fs::metadata(&path).and_then(|it| it.modified()).map(|at| (path, at))).expect("a time"))
            .collect()
    }

    fn is(&self, dir: &Path) -> String {
        format!("1.2.3 ({} 2026-02-03)", self.git(dir, &["rev-parse", "--short=12", "HEAD"]))
    }
}

#[test]
fn the_programs_report_version_commit_and_date() {
    let top =
        git(&root()).args(["rev-parse", "--show-toplevel"]).output().ok().filter(|output| output.status.success());
    let own = top.is_some_and(|output| Path::new(&text(&output)).canonicalize().is_ok_and(|top| top == root()));
    let commit =
        own.then(|| text(&git(&root()).args(["log", "-1", "--abbrev=12", "--format=%h %cs"]).output().expect("git")));
    for program in [&bins().ctl, &bins().daemon] {
        let name = program.file_name().expect("a name").to_string_lossy();
        let said = text(&Command::new(program).arg("--version").output().expect("it runs"));
        let expected = match &commit {
            Some(commit) => format!("{name} {VERSION} ({commit})"),
            None => format!("{name} {VERSION}"),
        };
        assert_eq!(said.replace("-dirty", ""), expected);
    }
}

#[test]
fn a_version_has_the_commit_in_every_kind_of_checkout() {
    let Some(scene) = Scene::new("a_version_has_the_commit_in_every_kind_of_checkout") else { return };
    let checkout = scene.path("checkout");
    assert_eq!(scene.version(&checkout), scene.is(&checkout));

    scene.git(&checkout, &["pack-refs", "--all"]);
    assert_eq!(scene.version(&checkout), scene.is(&checkout), "packed refs");

    let worktree = scene.path("worktree");
    scene.git(&checkout, &["worktree", "add", "-q", "--detach", worktree.to_str().expect("text")]);
    scene.commit(&worktree);
    assert_eq!(scene.version(&worktree), scene.is(&worktree));
    assert_ne!(scene.is(&worktree), scene.is(&checkout));

    let shallow = scene.path("shallow");
    let from = format!("file://{}", checkout.display());
    scene.git(&checkout, &["clone", "-q", "--depth=1", &from, shallow.to_str().expect("text")]);
    assert_eq!(scene.version(&shallow), scene.is(&shallow));

    fs::write(checkout.join("README.md"), "not built").expect("written");
    assert_eq!(scene.version(&checkout), scene.is(&checkout));
    fs::write(checkout.join("proto/src/lib.rs"), "// other than committed").expect("written");
    assert_eq!(scene.version(&checkout), scene.is(&checkout).replace(" 2026", "-dirty 2026"));
}

#[test]
fn a_version_has_no_commit_if_none_is_known() {
    let Some(scene) = Scene::new("a_version_has_no_commit_if_none_is_known") else { return };
    let checkout = scene.path("checkout");
    let alone = "cargo::rustc-env=CC_LANGFUSE_VERSION=1.2.3".to_owned();
    assert!(scene.run(&checkout, Some("/nonexistent")).contains(&alone), "without git");

    let archive = scene.path("archive");
    fs::create_dir(&archive).expect("made");
    scene.git(&checkout, &["archive", "-o", "../archive.tar", "HEAD"]);
    text(&Command::new("tar").args(["-xf", "../archive.tar"]).current_dir(&archive).output().expect("tar runs"));
    assert_eq!(scene.version(&archive), "1.2.3");

    // Unpacked inside another repository.
    scene.sources("checkout/vendor/cc-langfuse");
    assert_eq!(scene.version(&checkout.join("vendor/cc-langfuse")), "1.2.3");

    scene.sources("unborn");
    scene.git(&scene.path("unborn"), &["init", "-q"]);
    assert_eq!(scene.version(&scene.path("unborn")), "1.2.3", "no commit yet");
}

#[test]
fn only_a_new_commit_causes_a_rebuild() {
    let Some(scene) = Scene::new("only_a_new_commit_causes_a_rebuild") else { return };
    let checkout = scene.path("checkout");
    let worktree = scene.path("worktree");
    scene.git(&checkout, &["branch", "other"]);
    scene.git(&checkout, &["worktree", "add", "-q", worktree.to_str().expect("text"), "other"]);
    for (dir, reflog) in [(&checkout, true), (&worktree, true), (&checkout, false)] {
        if !reflog {
            scene.git(dir, &["config", "core.logAllRefUpdates", "false"]);
            fs::remove_file(dir.join(".git/logs/HEAD")).expect("removed");
            scene.git(dir, &["pack-refs", "--all"]);
        }
        let before = scene.watched(dir);
        assert!(!before.is_empty());
        fs::write(dir.join("README.md"), format!("{before:?}")).expect("written");
        for args in [&["status"][..], &["add", "-A"], &["diff", "--cached"], &["fetch", "."], &["stash", "list"]] {
            scene.git(dir, args);
        }
        assert_eq!(scene.watched(dir), before, "reflog: {reflog}");
        scene.commit(dir);
        assert_ne!(scene.watched(dir), before, "reflog: {reflog}");
    }
}

/// Source below the tree, and destination, of every file of the package.
fn assets() -> Vec<(String, String)> {
    let list = MANIFEST.split_once("\nassets = [").expect("assets").1;
    let lines = list.lines().filter(|line| line.trim_start().starts_with("[\""));
    let assets = lines.map(|line| {
        let parts: Vec<&str> = line.split('"').collect();
        (
            parts[1].strip_prefix(TREE).unwrap_or_else(|| panic!("{line} is not in {TREE}")).to_owned(),
            parts[3].to_owned(),
        )
    });
    assets.collect()
}

#[test]
fn every_file_of_the_package_exists() {
    let assets = assets();
    assert!(!assets.is_empty());
    for (source, _) in &assets {
        let generated = ["bin/", "completions/", "man/"].iter().any(|dir| source.starts_with(dir));
        let fixed = source.split('*').next().expect("a part");
        if !generated {
            assert!(root().join(fixed).exists(), "{source} does not exist");
        } else if fixed.starts_with("completions/") {
            assert!(RELEASE.contains(&format!("\"$tree/{source}\"")), "{source} is not made");
        }
    }
    let sources: Vec<&str> = assets.iter().map(|(source, _)| source.as_str()).collect();
    let packed = |path: &str| {
        sources.iter().any(|source| match source.split_once('*') {
            Some((fixed, _)) => path.starts_with(fixed),
            None => path == *source,
        })
    };
    let systemd = fs::read_dir(root().join("systemd")).expect("listed");
    for entry in systemd.map(|entry| entry.expect("an entry")) {
        let name = format!("systemd/{}", entry.file_name().to_string_lossy());
        assert!(packed(&name) || packed(&format!("{name}/")), "{name} is not in the package");
    }
    for name in [
        "bin/cc-langfused",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "man/cc-langfusectl.1",
        "plugin/cc-langfuse/hooks/hook.sh",
        "plugin/cc-langfuse/mcp.sh",
        "plugin/cc-langfuse/.mcp.json",
    ] {
        assert!(packed(name), "{name} is not in the package");
    }
}

#[test]
fn the_packaged_unit_runs_the_packaged_daemon() {
    let (from, to) = RELEASE
        .split_once("sed -i 's|")
        .and_then(|(_, rest)| rest.split_once("|'"))
        .and_then(|(command, _)| command.split_once('|'))
        .expect("a replacement");
    let commands: Vec<_> = SERVICE.lines().filter(|line| line.starts_with("ExecStart=")).collect();
    assert_eq!(commands.len(), 1);
    let bin = assets().into_iter().find(|(source, _)| source == "bin/*").expect("programs").1;
    assert_eq!(commands[0].replace(from, to), format!("ExecStart=/{bin}cc-langfused"));
    assert_eq!(bins().daemon.file_name().expect("a name"), "cc-langfused");
    assert!(!SERVICE.replace(from, to).contains("%h/"), "something else is looked for in homes");
}

#[test]
fn the_release_script_is_a_valid_shell_script() {
    for script in [".ci/packages", ".ci/release", ".ci/run"] {
        let path = root().join(script);
        assert_ne!(fs::metadata(&path).expect("there").permissions().mode() & 0o111, 0, "{script} cannot be run");
        text(&Command::new("bash").arg("-n").arg(&path).output().expect("bash runs"));
    }
    let version = root().join("Cargo.toml");
    let line = RELEASE.lines().find_map(|line| line.strip_prefix("version=")).expect("a version");
    let read =
        Command::new("bash").args(["-c", &format!("echo {line}")]).current_dir(root()).output().expect("bash runs");
    assert_eq!(text(&read), VERSION, "{}", version.display());
}

#[test]
fn the_plugin_refers_only_to_its_own_files() {
    let plugin = root().join("plugin");
    let marketplace = json(&plugin.join(".claude-plugin/marketplace.json"));
    let listed = marketplace["plugins"].as_array().expect("a list");
    assert_eq!(listed.len(), 1);
    let dir = plugin.join(listed[0]["source"].as_str().expect("a path"));
    let manifest = json(&dir.join(".claude-plugin/plugin.json"));
    assert_eq!(manifest["name"], listed[0]["name"]);
    assert_eq!(manifest["version"], VERSION);
    let hooks = json(&dir.join("hooks/hooks.json"));
    let events = hooks["hooks"].as_object().expect("an object");
    assert!(events.contains_key("Stop"));
    for (event, entries) in events {
        let command = entries[0]["hooks"][0]["command"].as_str().unwrap_or_else(|| panic!("{event} runs nothing"));
        let script = command
            .split_once("${CLAUDE_PLUGIN_ROOT}/")
            .and_then(|(_, rest)| rest.split_once('"'))
            .expect("a script")
            .0;
        text(&Command::new("sh").arg("-n").arg(dir.join(script)).output().expect("sh runs"));
    }
}

#[test]
fn the_plugin_starts_the_mcp_server_or_says_that_it_is_not_installed() {
    let plugin = root().join("plugin/cc-langfuse");
    let server = json(&plugin.join(".mcp.json"))["mcpServers"]["cc-langfuse"].clone();
    assert_eq!(server["command"], "sh");
    let args = server["args"].as_array().expect("arguments");
    let script = args[0].as_str().and_then(|path| path.strip_prefix("${CLAUDE_PLUGIN_ROOT}/")).expect("a script");
    let home = tempfile::tempdir().expect("a directory");
    let call = |path: &str| {
        let mut sh = Command::new("/bin/sh");
        sh.arg(plugin.join(script)).env_clear().env("HOME", home.path()).env("PATH", path).stdin(Stdio::null());
        sh.output().expect("sh runs")
    };
    let missing = call("/nonexistent");
    assert_eq!((missing.status.code(), &*missing.stdout), (Some(1), &b""[..]));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cc-langfusectl is not installed"), "{missing:?}");
    for dir in ["path", ".cargo/bin", ".local/bin"] {
        let dir = home.path().join(dir);
        fs::create_dir_all(&dir).expect("made");
        let program = dir.join("cc-langfusectl");
        fs::write(&program, "#!/bin/sh\necho \"$0 $*\"\n").expect("written");
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("executable");
        let path = dir.to_str().expect("text");
        let path = if path.ends_with("path") { path } else { "/nonexistent" };
        assert_eq!(text(&call(path)).trim(), format!("{} mcp", program.display()));
    }
}

#[test]
fn the_plugin_runs_the_hook_or_explains_once_how_to_install_it() {
    let home = tempfile::tempdir().expect("a directory");
    let script = root().join("plugin/cc-langfuse/hooks/hook.sh");
    let call = |event: &str, path: &str| {
        let mut sh = Command::new("/bin/sh");
        sh.arg(&script).arg(event).env_clear().env("HOME", home.path()).env("PATH", path).stdin(Stdio::null());
        let output = sh.output().expect("sh runs");
        assert!(output.stderr.is_empty(), "{output:?}");
        text(&output)
    };
    assert_eq!(call("", "/nonexistent"), "");
    let said: Value =
        serde_json::from_str(&call("SessionStart", "/nonexistent")).expect("JSON, as Claude Code wants it");
    assert!(said["systemMessage"].as_str().expect("a message").contains("cc-langfuse-hook is not installed"));
    for dir in ["path", ".cargo/bin", ".local/bin"] {
        let dir = home.path().join(dir);
        fs::create_dir_all(&dir).expect("made");
        let hook = dir.join("cc-langfuse-hook");
        fs::write(&hook, "#!/bin/sh\necho \"$0\"\n").expect("written");
        fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).expect("executable");
        let path = dir.to_str().expect("text");
        let path = if path.ends_with("path") { path } else { "/nonexistent" };
        assert_eq!(call("SessionStart", path), hook.to_str().expect("text"));
    }
}

#[test]
fn every_test_named_in_a_table_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    for dir in [
        "tests/tests",
        "daemon/core/src",
        "daemon/ctl/src",
        "daemon/src",
        "daemon/tests",
        "hook-client/src",
        "proto/src",
    ] {
        rust_files(&root.join(dir), &mut sources);
    }
    let sources: Vec<(String, String)> = sources
        .into_iter()
        .map(|path| (path.to_string_lossy().into_owned(), fs::read_to_string(&path).expect("text")))
        .collect();
    let mut named = 0;
    for table in ["tests/FAULTS.md", "tests/CONFORMANCE.md"] {
        let text = fs::read_to_string(root.join(table)).expect("a table");
        let names = text.split('`').filter(|name| name.contains("::") && !name.contains(' '));
        for (module, name) in names.filter_map(|name| name.rsplit_once("::")) {
            // The first part is a file or a directory; `…` stands for the rest of a name, and `*` for all.
            let module = module.strip_prefix("tests/").unwrap_or(module);
            let module = module.split("::").next().unwrap_or(module);
            let (begins, ends) = name.split_once('…').unwrap_or((name, "("));
            let is_there = |(path, text): &&(String, String)| {
                let is_of = path.contains(&format!("/{module}.rs")) || path.contains(&format!("/{module}/"));
                let mut functions = text.split("fn ").skip(1).filter_map(|rest| rest.split_inclusive('(').next());
                is_of
                    && (name == "*" || name == "tests" || functions.any(|f| f.starts_with(begins) && f.contains(ends)))
            };
            assert!(sources.iter().any(|source| is_there(&source)), "{table}: {module}::{name}");
            named += 1;
        }
    }
    assert!(named > 200, "{named}");
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
