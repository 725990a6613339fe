//! README and docs are true: every command exists, every variable is read, every link leads somewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tests::bins;

/// Variables in the documents that other programs define.
const OF_OTHERS: &[&str] = &[
    "CC_LANGFUSE_LONG",
    "CC_LANGFUSE_HISTORY",
    "CC_LANGFUSE_TEST_MLFLOW",
    "CC_LANGFUSE_TEST_PHOENIX",
    "CC_LANGFUSE_UPDATE",
    "CLAUDE_CONFIG_DIR",
    "MLFLOW_ALLOW_FILE_STORE",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// Every document for people, by its path in the repository.
fn documents() -> BTreeMap<String, String> {
    let mut paths = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    let docs = fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("an entry").file_name());
    let docs = docs.map(|name| name.into_string().expect("UTF-8")).filter(|name| name.ends_with(".md"));
    paths.extend(docs.map(|name| format!("docs/{name}")));
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(root().join(&path)).expect("text"))).collect()
}

/// The commands in `text`: lines of `sh` blocks, split at `&&`, and inline code; without comments.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, part) in text.split("```").enumerate() {
        if index % 2 == 1 {
            let Some(lines) = part.strip_prefix("sh\n").or_else(|| part.strip_prefix("console\n")) else { continue };
            let lines = lines.lines().map(|line| line.split(" #").next().unwrap_or(line).trim_start_matches("$ "));
            found.extend(lines.flat_map(|line| line.split(" && ")).map(|command| command.trim().to_owned()));
        } else {
            // Inline code may be broken over two lines.
            let code = part.split('`').skip(1).step_by(2);
            found.extend(code.map(|code| code.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    found
}

/// The words of `command` after `program`, without variables and directory before it.
fn arguments<'c>(command: &'c str, program: &str) -> Option<Vec<&'c str>> {
    let mut words = command.split_whitespace().skip_while(|word| {
        word.split_once('=').is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
    });
    let first = words.next()?;
    (first.rsplit('/').next() == Some(program)).then(|| words.collect())
}

#[derive(Default)]
struct Help(BTreeMap<String, Option<String>>);

impl Help {
    /// The help of a command of `cc-langfusectl`; `None` if there is no such command.
    fn of(&mut self, words: &[&str]) -> Option<&str> {
        let shown = self.0.entry(words.join(" ")).or_insert_with(|| {
            let output = Command::new(&bins().ctl).args(words).arg("--help").output().expect("started");
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        });
        shown.as_deref()
    }

    /// Why this command is not valid; `None` if it is.
    fn refuses(&mut self, words: &[&str]) -> Option<String> {
        let words: Vec<&str> = words.iter().copied().take_while(|word| !["--", "|", "&", ">"].contains(word)).collect();
        // `CMD SUB`, such as `destinations move`, if that command has its own help.
        let is_name =
            |word: &&&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !word.starts_with('-');
        let mut path: Vec<&str> = words.iter().take_while(is_name).take(2).copied().collect();
        let lists = |help: &str, name: &str| {
            help.split_once("Commands:").is_some_and(|(_, list)| list.contains(&format!("\n  {name}")))
        };
        if path.len() == 2 && !self.of(&path[..1]).is_some_and(|help| lists(help, path[1])) {
            path.truncate(1);
        }
        let Some(help) = self.of(&path).map(str::to_owned) else { return Some(format!("no command {path:?}")) };
        let flags =
            words.iter().filter(|word| word.starts_with('-')).map(|flag| flag.split('=').next().unwrap_or(flag));
        let known = |flag: &str| help.split([' ', ',', '\n', '=', '[']).any(|word| word == flag);
        flags.filter(|flag| !known(flag)).map(|flag| format!("{path:?} has no {flag}")).next()
    }
}

#[test]
fn every_command_in_a_document_exists_with_its_flags() {
    let (mut help, mut checked, mut wrong) = (Help::default(), 0, Vec::new());
    for (path, text) in documents() {
        for command in commands(&text) {
            if let Some(words) = arguments(&command, "cc-langfusectl") {
                checked += 1;
                wrong.extend(help.refuses(&words).map(|why| format!("{path}: `{command}`: {why}")));
            }
            // Programs that are run as shown.
            if let Some(words) = arguments(&command, "cargo")
                && let Some(at) = words.iter().position(|word| *word == "--test" || *word == "--bench")
                && words.contains(&"tests")
            {
                let dir = if words[at] == "--test" { "tests/tests" } else { "tests/benches" };
                let names = words.windows(2).filter(|pair| pair[0] == words[at]).map(|pair| pair[1]);
                let missing = names.filter(|name| !root().join(dir).join(format!("{name}.rs")).exists());
                wrong.extend(missing.map(|name| format!("{path}: `{command}`: no {dir}/{name}.rs")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 25, "{checked}");
    for (made_up, is_refused) in [
        (&["backfill", "--dry-run"][..], false),
        (&["backfill", "--dryrun"], true),
        (&["destinations", "move"], false),
        (&["destinations", "--move"], true),
        (&["back-fill"], true),
        (&["run", "--", "claude", "--whatever"], false),
    ] {
        assert_eq!(help.refuses(made_up).is_some(), is_refused, "{made_up:?}");
    }
}

#[test]
fn every_command_of_the_tool_is_in_a_document() {
    let output = Command::new(&bins().ctl).arg("--help").output().expect("started");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let (_, listed) = help.split_once("Commands:\n").expect("the list of commands");
    let names = listed.lines().take_while(|line| line.starts_with("  ")).filter_map(|line| {
        line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.split_whitespace().next())
    });
    let documents = documents();
    let code: BTreeSet<&str> = documents.values().flat_map(|text| text.split('`').skip(1).step_by(2)).collect();
    let is_shown = |name: &&str| code.iter().any(|code| code.split([' ', '\n']).any(|word| word == *name));
    let missing: Vec<&str> = names.filter(|name| *name != "help" && !is_shown(name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn every_variable_in_a_document_is_read() {
    let known = |name: &str| {
        proto::env::VARIABLES.iter().any(|row| row.name == name || row.setting == name) || OF_OTHERS.contains(&name)
    };
    let (mut checked, mut wrong) = (0, Vec::new());
    for (path, text) in documents() {
        for name in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let is_ours =
                ["CC_LANGFUSE_", "LANGFUSE_", "MLFLOW_", "TRACE_TO_"].iter().any(|start| name.starts_with(start));
            // `LANGFUSE_X` stands for any variable, `LANGFUSE_*` for all.
            if !is_ours || name.ends_with('_') || name.ends_with("_X") {
                continue;
            }
            checked += 1;
            if !known(name) {
                wrong.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 80, "{checked}");
}

/// The anchor of a heading on the pages where people read the documents.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_of_this_repository() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for (path, text) in documents() {
        let dir = root().join(&path).parent().expect("a directory").to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            checked += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(&path) } else { dir.join(file) };
            let Ok(page) = fs::read_to_string(&target).or_else(|_| fs::metadata(&target).map(|_| String::new())) else {
                wrong.push(format!("{path}: {link}: no such file"));
                continue;
            };
            let mut headings =
                page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
            if !heading.is_empty() && !headings.any(|line| anchor(line) == heading) {
                wrong.push(format!("{path}: {link}: no such heading"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 20, "{checked}");
}
