//! Prebuilt programs: what npm, Homebrew and `cargo binstall` are given is whole, and leads to the programs of the archive.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;
use tests::skipped;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const URL: &str = "https://example.org/cc-langfuse/releases/download/v1";
const PROGRAMS: [&str; 3] = ["cc-langfuse-hook", "cc-langfused", "cc-langfusectl"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What Node calls this platform, and one of Rust's targets for it.
fn here() -> (&'static str, &'static str) {
    match (cfg!(target_os = "macos"), cfg!(target_arch = "aarch64")) {
        (false, false) => ("linux-x64", "x86_64-unknown-linux-gnu"),
        (false, true) => ("linux-arm64", "aarch64-unknown-linux-gnu"),
        (true, false) => ("darwin-x64", "x86_64-apple-darwin"),
        (true, true) => ("darwin-arm64", "aarch64-apple-darwin"),
    }
}

/// Puts an archive for `target` into a release's directory `dist`. Its programs say what they are called with: those of a debug build
/// would take minutes to pack.
fn archive(dist: &Path, target: &str) {
    let name = format!("cc-langfuse-{VERSION}-{target}");
    let tree = dist.join(&name);
    fs::create_dir_all(tree.join("bin")).expect("a directory");
    for program in PROGRAMS {
        let to = tree.join("bin").join(program);
        fs::write(&to, format!("#!/bin/sh\necho {program} \"$@\"\n[ \"$1\" != status ] || exit 3\n")).expect("written");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(root().join(licence), tree.join(licence)).expect("a copy");
    }
    said(&output(Command::new("tar").current_dir(dist).args(["-czf", &format!("{name}.tar.gz"), &name])));
    fs::remove_dir_all(tree).expect("removed");
}

/// Runs `.ci/packages` on archives for this platform and another one.
fn packages() -> TempDir {
    let dist = tempfile::tempdir().expect("a directory");
    archive(dist.path(), here().1);
    archive(dist.path(), "riscv64gc-unknown-linux-gnu");
    let other = if here().0 == "darwin-arm64" { "x86_64-unknown-linux-gnu" } else { "aarch64-apple-darwin" };
    archive(dist.path(), other);
    said(&output(Command::new(root().join(".ci/packages")).arg(dist.path()).args([VERSION, URL])));
    dist
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("there")).expect("JSON")
}

#[test]
fn npm_packages_hold_the_programs_of_each_platform_and_the_launcher_becomes_them() {
    if !is_there("npm") || !is_there("node") {
        return skipped("no npm");
    }
    let dist = packages();
    let npm = dist.path().join("npm");
    let main = json(&npm.join("cc-langfuse/package.json"));
    let optional: Vec<&String> = main["optionalDependencies"].as_object().expect("packages").keys().collect();
    assert_eq!((optional.len(), main["version"].as_str()), (2, Some(VERSION)));
    let modules = dist.path().join("lib/node_modules");
    for name in optional.into_iter().map(String::as_str).chain(["cc-langfuse"]) {
        let dir = npm.join(name);
        let pack = |args: &[&str]| {
            let mut command = Command::new("npm");
            command.current_dir(&dir).args(["pack", "--json", "--offline"]).args(args);
            command.env("npm_config_cache", dist.path().join("cache")).env("npm_config_update_notifier", "false");
            serde_json::from_str::<Value>(&said(&output(&mut command))).expect("JSON")[0].clone()
        };
        let packed = pack(&["--dry-run"]);
        let files = packed["files"].as_array().expect("files");
        for program in PROGRAMS {
            let path = if name == "cc-langfuse" { format!("bin/{program}.js") } else { format!("bin/{program}") };
            let file = files.iter().find(|file| file["path"] == *path).unwrap_or_else(|| panic!("{name} lacks {path}"));
            assert_eq!(file["mode"].as_u64().map(|mode| mode & 0o111), Some(0o111), "{name}: {file}");
        }
        let expect = if name == "cc-langfuse" { 8 } else { 6 };
        assert_eq!(files.len(), expect, "{name}: {files:?}");
        if name != "cc-langfuse" {
            let package = json(&dir.join("package.json"));
            let words: Vec<&str> = name.rsplitn(3, '-').collect();
            assert_eq!((&package["os"][0], &package["cpu"][0]), (&words[1].into(), &words[0].into()), "{package}");
        }
        // As npm lays it out.
        let tarball = dir.join(pack(&[])["filename"].as_str().expect("a name"));
        let to = modules.join(name);
        fs::create_dir_all(&to).expect("a directory");
        said(&output(Command::new("tar").args(["-xzf"]).arg(tarball).args(["--strip-components=1", "-C"]).arg(&to)));
    }
    // By a link in a directory of PATH, as npm makes it.
    let bin = dist.path().join("bin");
    fs::create_dir_all(&bin).expect("a directory");
    let link = bin.join("cc-langfusectl");
    std::os::unix::fs::symlink(modules.join("cc-langfuse/bin/cc-langfusectl.js"), &link).expect("a link");
    let run = |args: &[&str]| output(Command::new(&link).args(args));
    assert_eq!(said(&run(&["show", "a b", "--json"])), "cc-langfusectl show a b --json");
    assert_eq!(run(&["status"]).status.code(), Some(3), "its exit code is the program's");
    let own = modules.join(format!("cc-langfuse-{}", here().0));
    fs::rename(&own, own.with_extension("aside")).expect("moved");
    let missing = run(&["--version"]);
    let error = String::from_utf8_lossy(&missing.stderr);
    assert!(missing.status.code() == Some(1) && error.contains("--omit=optional"), "{missing:?}");
}

#[test]
fn the_formula_names_each_archive_with_its_hash() {
    let dist = packages();
    let formula = fs::read_to_string(dist.path().join("cc-langfuse.rb")).expect("the formula");
    let mut count = 0;
    for entry in fs::read_dir(dist.path()).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
        if !name.ends_with(".tar.gz") || name.contains("riscv") {
            continue;
        }
        count += 1;
        let sum = said(&output(Command::new("sha256sum").arg(&entry)));
        let sum = sum.split(' ').next().expect("a hash");
        assert!(formula.contains(&format!("url \"{URL}/{name}\"\n      sha256 \"{sum}\"")), "{formula}");
    }
    assert_eq!((count, formula.matches("sha256").count()), (2, 2));
    let words = |word: &str| formula.split_whitespace().filter(|found| *found == word).count();
    assert_eq!(words("do") + words("def") + words("class"), words("end"), "{formula}");
    if !is_there("ruby") {
        return skipped("no ruby: the formula's syntax is only counted");
    }
    said(&output(Command::new("ruby").arg("-c").arg(dist.path().join("cc-langfuse.rb"))));
}

#[test]
fn without_an_archive_nothing_is_packaged() {
    let dist = tempfile::tempdir().expect("a directory");
    let failed = output(Command::new(root().join(".ci/packages")).arg(dist.path()).args([VERSION, URL]));
    let error = String::from_utf8_lossy(&failed.stderr);
    assert!(failed.status.code() == Some(1) && error.contains(".ci/release"), "{failed:?}");
}

#[test]
fn binstall_finds_each_program_in_the_archive() {
    let dist = packages();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(["metadata", "--no-deps", "--offline", "--format-version=1"]);
    let metadata: Value = serde_json::from_str(&said(&output(&mut command))).expect("JSON");
    let target = here().1;
    let fill = |text: &str, bin: &str| {
        let values = [("repo", "https://example.org/r"), ("version", VERSION), ("target", target), ("bin", bin)];
        let text =
            values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{ {name} }}"), value));
        text.replace("{ binary-ext }", "").replace("{ archive-suffix }", ".tar.gz")
    };
    let list = format!("cc-langfuse-{VERSION}-{target}.tar.gz");
    let list = said(&output(Command::new("tar").arg("-tzf").arg(dist.path().join(&list))));
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let binstall = &package["metadata"]["binstall"];
        if binstall.is_null() {
            continue;
        }
        let url = fill(binstall["pkg-url"].as_str().expect("an address"), "");
        assert_eq!(
            url,
            format!("https://example.org/r/releases/download/v{VERSION}/cc-langfuse-{VERSION}-{target}.tar.gz")
        );
        assert_eq!(binstall["pkg-fmt"], "tgz");
        let targets = package["targets"].as_array().expect("targets").iter();
        for bin in targets.filter(|target| target["kind"][0] == "bin" && target["required-features"].is_null()) {
            let bin = bin["name"].as_str().expect("a name");
            let path = fill(binstall["bin-dir"].as_str().expect("a directory"), bin);
            assert!(list.lines().any(|line| line == path), "{path} is not in {list}");
            found.push(bin.to_owned());
        }
    }
    found.sort();
    assert_eq!(found, ["cc-langfuse-hook", "cc-langfusectl", "cc-langfused"]);
}
