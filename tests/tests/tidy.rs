//! The layering holds: what may import what, who has the SQL, the HTTP, the clock, a backend's names. Each rule also finds
//! made-up sources that break it, so that none passes because it looks at nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tests::source::{Source, sources};

/// Which way imports go in the daemon: each row may use the rows above it, and nothing of its own.
const DAEMON: &[&[&str]] = &[
    &["clock", "environment", "files", "threads"],
    &["command"],
    &["git", "log", "output", "service", "socket", "watch"],
    &["config_file", "credentials", "import_state_file", "reader", "store"],
    &["configured"],
    &["agents", "first_start", "consent_files", "copies", "delivery"],
    &["rebuild", "telemetry"],
    &["engine"],
    &["archive", "index", "intake", "scan"],
    &["api", "serve"],
    &["boot"],
];

/// The same in the pure core.
const CORE: &[&[&str]] = &[
    &["claude", "ids", "media", "project", "redact", "secret", "settings", "vars", "verdict", "visible"],
    &["transcript"],
    &["archive", "import_state", "observation", "turn"],
    &["price", "telemetry", "trace"],
    &["observe", "reconcile"],
    &["pipeline", "usage"],
    &["book", "score"],
    &["destination"],
    &["consent", "delivery", "status"],
    &["route"],
    &["config", "hook", "metrics"],
    &["admit", "complete", "doctor"],
    &["phase"],
];

/// What the core may depend on: none of these opens a file or a socket, starts a thread or needs the clock.
const PURE: &[&str] = &[
    "proto",
    "base64",
    "bytes",
    "http",
    "httpdate",
    "jiff",
    "memchr",
    "regex",
    "serde",
    "serde_json",
    "sha2",
    "similar",
    "strsim",
    "thiserror",
    "toml",
    "url",
    "zeroize",
];

/// What no code of the core names.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::os",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
];

/// What makes a client of HTTP.
const CLIENTS: &[&str] =
    &["hyper::client", "hyper_util::client", "hyper_rustls", "reqwest", "ureq", "TcpStream::connect"];

/// What only the file of a backend in `destination` may say: what the file is called, its variant of `Kind`, how the names of its
/// attributes begin, what its paths contain.
const BACKENDS: &[(&str, &str, &str, &str)] =
    &[("langfuse", "Kind::Langfuse", "langfuse.", "/api/public"), ("mlflow", "Kind::Mlflow", "mlflow.", "0/mlflow")];

/// Words of SQL: a literal that holds all of one row is some.
const SQL: &[&[&str]] = &[
    &["SELECT ", " FROM "],
    &["INSERT ", "INTO "],
    &["UPDATE ", " SET "],
    &["DELETE FROM "],
    &["CREATE TABLE "],
    &["DROP TABLE "],
    &["PRAGMA "],
];

/// Where SQL may stand: a database each.
const SQL_HOMES: &[&str] = &["daemon/src/store/", "daemon/src/index.rs", "daemon/src/index/"];

/// How long a file may be.
const LINES: usize = 600;

/// What this project once said in words of its own, and what a colleague says.
const OLD_WORDS: &[(&str, &str)] = &[
    ("stumble", "say what stopped"),
    ("told to its end", "emitted whole"),
    ("mend it", "fix it"),
    ("mend that", "fix that"),
    ("none of ours", "say what it is"),
    (" mended", "fixed"),
    ("at least as grave", "minimum level"),
    ("so many of the", "show the last N"),
    ("no place to stay", "not a permanent location"),
    ("are interchanged", "are swapped"),
    ("patience(", "a time limit"),
];

/// How long the README may be, in bytes.
const README: u64 = 9 << 10;

/// A rule's name and what it finds.
type Rule = (&'static str, fn(&[Source]) -> Vec<Finding>);

/// Where what stands that should not, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(source: &Source, line: usize, what: impl Into<String>) -> Self {
        Self { path: source.path.clone(), line, what: what.into() }
    }
}

const RULES: &[Rule] = &[
    ("flow", flow),
    ("circle", circles),
    ("pure", pure),
    ("sql", sql),
    ("http", http),
    ("backend", backend),
    ("headline", headline),
    ("length", length),
    ("doc", docs),
    ("word", words),
];

/// What is known to break a rule, and why it may for now.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("backend", "daemon/core/src/config/project.rs", "a project without an address goes to Langfuse's own cloud"),
    ("backend", "daemon/core/src/destination/address.rs", "people paste the address of Langfuse's API for its own"),
    ("backend", "daemon/core/src/doctor/settings.rs", "findings on Langfuse's variables"),
    ("backend", "daemon/core/src/doctor/settings/mlflow.rs", "findings on MLflow's variables"),
    ("backend", "daemon/core/src/settings/rival.rs", "it knows MLflow's own integration, no wire"),
    ("backend", "daemon/core/src/route.rs", "one variable names the environment for all kinds, in Langfuse's form"),
    ("backend", "daemon/ctl/src/replay.rs", "what is replayed to Langfuse goes there even where tracing is off"),
    ("backend", "daemon/ctl/src/setup.rs", "it asks for Langfuse's keys"),
    ("backend", "daemon/ctl/src/setup/apart.rs", "it says where Langfuse's secret key is kept"),
    ("backend", "daemon/ctl/src/setup/mlflow.rs", "it asks where MLflow is"),
    ("backend", "daemon/ctl/src/show.rs", "its form is Langfuse's, as other tools rely on it"),
    ("backend", "daemon/ctl/src/sink.rs", "it stands in for a Langfuse server"),
    ("backend", "daemon/src/delivery/erase.rs", "it removes what the backend says are files"),
    ("backend", "daemon/src/delivery/folder.rs", "it writes what the backend says are files"),
    ("http", "daemon/ctl/src/client.rs", "it asks the daemon, over its Unix socket"),
];

/// Sources that are not test code below `dir`.
fn below<'s>(sources: &'s [Source], dir: &'s str) -> impl Iterator<Item = &'s Source> {
    sources.iter().filter(move |source| source.path.starts_with(dir) && !source.is_test)
}

fn flow(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (dir, table) in [("daemon/src/", DAEMON), ("daemon/core/src/", CORE)] {
        let row = |name: &str| table.iter().position(|row| row.contains(&name));
        for source in below(sources, dir) {
            let Some(module) = source.module().first().map(ToString::to_string) else { continue };
            // Programs stand above everything.
            if module == "bin" {
                continue;
            }
            let Some(own) = row(&module) else {
                findings.push(Finding::new(source, 1, format!("`{module}` is in no row of the table of flow")));
                continue;
            };
            for (line, import) in source.imports() {
                if row(&import).is_some_and(|row| row >= own) {
                    findings.push(Finding::new(source, line, format!("`{module}` may not import `{import}`")));
                }
            }
        }
    }
    findings
}

/// Modules that import each other, over whatever way.
fn circles(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for dir in ["proto/src/", "hook-client/src/", "daemon/src/", "daemon/core/src/", "daemon/ctl/src/"] {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for source in below(sources, dir) {
            if let Some(module) = source.module().first() {
                let imports = source.imports().into_iter().map(|(_, name)| name);
                graph.entry((*module).to_owned()).or_default().extend(imports);
            }
        }
        for module in graph.keys() {
            let (mut reached, mut next) = (BTreeSet::new(), vec![module]);
            while let Some(from) = next.pop() {
                next.extend(graph.get(from).into_iter().flatten().filter(|to| reached.insert(*to)));
            }
            if reached.contains(module) {
                findings.push(Finding { path: dir.to_owned(), line: 0, what: format!("`{module}` is in a circle") });
            }
        }
    }
    findings
}

/// True if `path` is `sought` or below it, or ends so.
fn names(path: &str, sought: &str) -> bool {
    let (path, sought) = (format!("::{path}::"), format!("::{sought}::"));
    path.contains(&sought)
}

fn pure(sources: &[Source]) -> Vec<Finding> {
    let named = |source: &Source| -> Vec<Finding> {
        let found = source.paths().iter().filter(|(_, path)| IMPURE.iter().any(|impure| names(path, impure)));
        found.map(|(line, path)| Finding::new(source, *line, format!("the core names `{path}`"))).collect()
    };
    below(sources, "daemon/core/src/").flat_map(named).collect()
}

fn sql(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_home = |path: &str| SQL_HOMES.iter().any(|home| path.starts_with(home));
    for source in below(sources, "").filter(|source| !is_home(&source.path)) {
        for (line, literal) in &source.literals {
            if SQL.iter().any(|words| words.iter().all(|word| literal.contains(word))) {
                findings.push(Finding::new(source, *line, format!("SQL outside the store: {literal:?}")));
            }
        }
        let paths = source.paths().iter().filter(|(_, path)| path.starts_with("rusqlite"));
        findings.extend(paths.map(|(line, path)| Finding::new(source, *line, format!("`{path}` outside the store"))));
    }
    findings
}

fn http(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in below(sources, "").filter(|source| !source.path.starts_with("daemon/src/delivery/")) {
        let paths = source.paths().iter().filter(|(_, path)| CLIENTS.iter().any(|client| names(path, client)));
        findings.extend(paths.map(|(line, path)| Finding::new(source, *line, format!("`{path}` outside delivery"))));
    }
    findings
}

fn backend(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (kind, variant, prefix, path) in BACKENDS {
        let home = format!("daemon/core/src/destination/{kind}");
        for source in below(sources, "").filter(|source| !source.path.starts_with(&home)) {
            let is_name = |literal: &str| {
                let rest = literal.strip_prefix(prefix);
                rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '{'))
            };
            let found = source.literals.iter().filter(|(_, literal)| is_name(literal) || literal.contains(path));
            findings.extend(found.map(|(line, literal)| {
                Finding::new(source, *line, format!("a backend's word outside its file: {literal:?}"))
            }));
            // That lists the kinds.
            if source.path == "daemon/core/src/destination/mod.rs" {
                continue;
            }
            let module = format!("destination::{kind}");
            let found = source.paths().iter().filter(|(_, path)| names(path, variant) || path.contains(&module));
            findings.extend(
                found.map(|(line, path)| Finding::new(source, *line, format!("a backend by its name: `{path}`"))),
            );
        }
    }
    findings
}

fn headline(sources: &[Source]) -> Vec<Finding> {
    let bare = sources.iter().filter(|source| !source.is_test && !source.text.starts_with("//!"));
    bare.map(|source| Finding::new(source, 1, "the module does not say what it is for")).collect()
}

fn length(sources: &[Source]) -> Vec<Finding> {
    let long = sources.iter().filter(|source| source.text.lines().count() > LINES);
    long.map(|source| Finding::new(source, LINES + 1, format!("{} lines", source.text.lines().count()))).collect()
}

/// A comment of one word says what the code says.
fn docs(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let lines: Vec<&str> = source.text.lines().map(str::trim_start).collect();
        let is_comment = |line: Option<&&str>| line.is_some_and(|line| line.starts_with("//"));
        for (at, line) in lines.iter().enumerate() {
            let text = line.strip_prefix("///").or_else(|| line.strip_prefix("// ")).map(str::trim);
            let is_alone = !is_comment(lines.get(at + 1)) && (at == 0 || !is_comment(lines.get(at - 1)));
            if let Some(text) = text.filter(|text| is_alone && !text.contains([' ', '`'])) {
                findings.push(Finding::new(source, at + 1, format!("a comment of one word: {text:?}")));
            }
        }
    }
    findings
}

fn words(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path != "tests/tests/tidy.rs") {
        for (at, line) in source.text.lines().enumerate() {
            let line = line.to_lowercase();
            let found = OLD_WORDS.iter().filter(|(word, _)| line.contains(word));
            findings.extend(found.map(|(word, say)| Finding::new(source, at + 1, format!("{word:?}: {say}"))));
        }
    }
    findings
}

/// Dependencies of a manifest that are not on the list.
fn impure_dependencies(manifest: &str) -> Vec<String> {
    let section = |text: &str| {
        let (_, rest) = text.split_once("\n[dependencies]\n")?;
        Some(rest.split("\n[").next().unwrap_or(rest).to_owned())
    };
    let section = section(manifest).unwrap_or_default();
    let names = section.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let names = names.filter_map(|line| line.split(['.', ' ', '=']).next());
    // A table of its own for one of them.
    let tables = manifest.lines().filter_map(|line| line.strip_prefix("[dependencies.")?.strip_suffix(']'));
    names.chain(tables).filter(|name| !PURE.contains(name)).map(str::to_owned).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

#[test]
fn the_architecture_document_names_every_module() {
    let text = include_str!("../../ARCHITECTURE.md");
    for (name, table) in [("core", CORE), ("daemon", DAEMON)] {
        let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
        let part = text.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end)).expect("its table").0;
        let named: BTreeSet<&str> = part
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| line.split(" | ").next())
            .flat_map(|cell| cell.split('`').filter(|word| !word.trim().is_empty() && *word != ", "))
            .collect();
        let known: BTreeSet<&str> = table.iter().flat_map(|row| row.iter().copied()).collect();
        assert_eq!(named, known, "daemon/{name}");
    }
}

#[test]
fn the_readme_is_short() {
    let length = std::fs::metadata(root().join("README.md")).expect("the README").len();
    assert!(length <= README, "{length} bytes: what is over {README} belongs into docs/");
}

#[test]
fn the_layering_holds() {
    let all = sources(root(), &["proto/src", "hook-client/src", "daemon", "tests"]);
    assert!(all.len() > 250, "{}", all.len());
    let product: Vec<Source> = all.iter().filter(|source| !source.path.starts_with("tests/")).cloned().collect();
    assert!(product.iter().map(|source| source.imports().len()).sum::<usize>() > 100, "imports are seen");
    let mut wrong = Vec::new();
    for (name, rule) in RULES {
        let findings = rule(if ["headline", "length", "doc", "word"].contains(name) { &all } else { &product });
        let excepted = |path: &str| EXCEPTIONS.iter().any(|(rule, file, _)| rule == name && *file == path);
        let new = findings.iter().filter(|finding| !excepted(&finding.path));
        wrong.extend(new.map(|Finding { path, line, what }| format!("{name}: {path}:{line}: {what}")));
        let idle = EXCEPTIONS.iter().filter(|(rule, file, _)| rule == name && findings.iter().all(|f| f.path != *file));
        wrong.extend(idle.map(|(_, file, _)| format!("{name}: {file} is no exception any more: take it off the list")));
    }
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_core_has_no_dependency_that_does_io() {
    let manifest = std::fs::read_to_string(root().join("daemon/core/Cargo.toml")).expect("the manifest");
    assert_eq!(impure_dependencies(&manifest), Vec::<String>::new());
    assert!(manifest.contains("\nserde.workspace"), "they are seen");
    let made_up = "[package]\nname = \"x\"\n\n[dependencies]\nserde.workspace = true\nrusqlite = \"1\"\n# a word\ntokio.workspace = true\n\n[dev-dependencies]\nproptest = \"1\"\n\n[dependencies.ureq]\nversion = \"1\"\n";
    assert_eq!(impure_dependencies(made_up), ["rusqlite", "tokio", "ureq"]);
}

/// A rule, files by path, and how many findings they are.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);

#[test]
fn each_rule_finds_what_breaks_it() {
    let long = "//! x\n".repeat(LINES + 1);
    let fit = "//! x\n".repeat(LINES);
    let cases: &[Case<'_>] = &[
        ("flow", &[("daemon/src/store/open.rs", "use crate::{clock, engine::Input};")], 1),
        ("flow", &[("daemon/src/reader/places.rs", "fn f() { crate::store::x() }")], 1),
        ("flow", &[("daemon/src/reader.rs", "use super::api;")], 1),
        ("flow", &[("daemon/core/src/transcript/lines.rs", "use crate::turn::Turn;")], 1),
        ("flow", &[("daemon/src/unheard_of.rs", "fn f() {}")], 1),
        ("flow", &[("daemon/src/main.rs", "use crate::api;"), ("daemon/src/api.rs", "use crate::store;")], 0),
        ("flow", &[("daemon/src/store/open.rs", "#[cfg(test)]\nmod tests { use crate::engine; }")], 0),
        ("circle", &[("daemon/ctl/src/a.rs", "use crate::b;"), ("daemon/ctl/src/b.rs", "use crate::a;")], 2),
        (
            "circle",
            &[
                ("proto/src/a.rs", "use crate::b;"),
                ("proto/src/b/x.rs", "use super::super::c;"),
                ("proto/src/c.rs", "use crate::{a::X, d};"),
                ("proto/src/d.rs", ""),
            ],
            3,
        ),
        ("circle", &[("proto/src/a.rs", "use crate::b;"), ("proto/src/b.rs", "// use crate::a;\nuse crate::b::c;")], 0),
        ("pure", &[("daemon/core/src/turn.rs", "use std::{collections::BTreeMap, fs, io::Write};")], 1),
        ("pure", &[("daemon/core/src/turn.rs", "fn f() { let _ = std::time::Instant::now(); }")], 1),
        ("pure", &[("daemon/core/src/turn.rs", "use std::time::SystemTime;\nfn f() { SystemTime::now(); }")], 1),
        ("pure", &[("daemon/core/src/turn.rs", "use std::{env::var_os, net::TcpStream, thread::{self, sleep}};")], 4),
        ("pure", &[("daemon/core/src/turn.rs", "fn f() { jiff::Timestamp::now(); }")], 1),
        ("pure", &[("daemon/core/src/turn.rs", "use core::net::IpAddr; use std::time::{Duration, Instant};")], 0),
        ("pure", &[("daemon/core/src/turn/tests.rs", "use std::fs;")], 0),
        ("sql", &[("daemon/src/api.rs", "const X: &str = \"SELECT a FROM b\";")], 1),
        ("sql", &[("daemon/ctl/src/show.rs", "const X: &str = r\"PRAGMA user_version\";")], 1),
        ("sql", &[("daemon/src/api.rs", "fn f(error: rusqlite::Error) {}")], 1),
        ("sql", &[("daemon/src/store/x.rs", "use rusqlite::params; const X: &str = \"DELETE FROM b\";")], 0),
        ("sql", &[("daemon/src/api.rs", "const X: &str = \"a word FROM a friend\";")], 0),
        ("http", &[("daemon/src/api.rs", "use hyper_util::client::legacy::Client;")], 1),
        ("http", &[("daemon/ctl/src/open.rs", "fn f() { reqwest::get(\"x\"); }")], 1),
        ("http", &[("daemon/src/scan.rs", "use std::net::TcpStream;\nfn f() { TcpStream::connect(\"x\"); }")], 1),
        ("http", &[("daemon/src/delivery/client.rs", "use hyper_util::client::legacy::Client;")], 0),
        ("backend", &[("daemon/ctl/src/show.rs", "const X: &str = \"langfuse.trace.name\";")], 1),
        ("backend", &[("daemon/core/src/trace.rs", "fn f() { format!(\"langfuse.{x}\"); }")], 1),
        ("backend", &[("daemon/core/src/destination/langfuse/x.rs", "const X: &str = \"mlflow.spanType\";")], 1),
        ("backend", &[("daemon/core/src/destination/langfuse/x.rs", "const X: &str = \"langfuse.trace.name\";")], 0),
        ("backend", &[("daemon/ctl/src/show.rs", "const X: &str = \"langfuse.com, or cloud.langfuse.com\";")], 1),
        ("backend", &[("daemon/ctl/src/show.rs", "// \"langfuse.trace.name\"\nconst X: &str = \"langfuse. \";")], 0),
        ("backend", &[("daemon/src/delivery/x.rs", "fn f(u: &str) { format!(\"{u}/api/public/media\"); }")], 1),
        ("backend", &[("daemon/src/delivery/x.rs", "const X: &str = \"/api/2.0/mlflow/experiments/get\";")], 1),
        ("backend", &[("daemon/src/delivery/x.rs", "use cc_core::destination::{Kind, langfuse::{self, auth}};")], 2),
        ("backend", &[("daemon/src/engine.rs", "fn f(k: Kind) -> bool { k == Kind::Langfuse }")], 1),
        ("backend", &[("daemon/core/src/destination/mod.rs", "pub mod x; fn f() { Kind::Langfuse; }")], 0),
        ("backend", &[("daemon/core/src/destination/mod.rs", "const X: &str = \"/api/public\";")], 1),
        ("headline", &[("daemon/src/store/x.rs", "use std::fs;")], 1),
        ("headline", &[("daemon/src/store/x.rs", "//! What it is.\n")], 0),
        ("length", &[("tests/tests/x.rs", &long)], 1),
        ("length", &[("tests/tests/x.rs", &fit)], 0),
        ("doc", &[("daemon/src/x.rs", "    /// When.\n    at: u64,\n    /// Why.\n    why: Why,")], 2),
        ("doc", &[("daemon/src/x.rs", "/// `requestId`.\nid: Id,\n/// In bytes, at\n/// most.\nlength: u64,")], 0),
        ("doc", &[("daemon/src/x.rs", "    // Commands.\n    f();\n    // See\n    // it.\n")], 1),
        ("word", &[("daemon/src/x.rs", "// A Stumble, and how to mend it\n")], 2),
        ("word", &[("daemon/src/x.rs", "// An amendment of the patience of saints\n")], 0),
    ];
    let mut proved = BTreeSet::new();
    for (name, files, count) in cases {
        let (_, rule) = RULES.iter().find(|(rule, _)| rule == name).expect("a rule");
        let files: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let findings = rule(&files);
        assert_eq!(findings.len(), *count, "{name}: {files:?}: {findings:?}");
        proved.extend((*count > 0).then_some(*name));
    }
    assert_eq!(proved.len(), RULES.len(), "each rule is tried");
}
