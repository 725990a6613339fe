//! For tests: a large amount of ordinary text: the sources of the crates this is built from, and the output of tools.
//! Only text that looks like a secret to people as well may be masked in it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::*;

/// Crate, file and rule of the expected findings: keys, passwords and tokens made up for tests and examples. They would
/// be masked in a conversation as well.
const RIGHT: &[(&str, &str, &str)] = &[
    ("http", "src/uri/tests.rs", "url"), // user and password in addresses
    ("hyper-util", "src/client/proxy/matcher.rs", "authorization"), // Basic credentials
    ("hyper-util", "src/client/proxy/matcher.rs", "url"), // user and password of proxies
    ("pem", "README.md", "pem"),         // RSA private keys
    ("pem", "benches/pem_benchmark.rs", "pem"),
    ("pem", "src/lib.rs", "pem"),
    ("rcgen", "src/certificate.rs", "pem"),
    ("rmcp", "src/model/request_state.rs", "assignment"), // keys to sign with
    ("rmcp", "src/transport/auth.rs", "assignment"),      // tokens
    ("rmcp", "tests/test_client_credentials.rs", "assignment"),
    ("security-framework", "src/os/macos/import_export.rs", "assignment"), // a passphrase
    ("url", "src/lib.rs", "url"),                                          // user and password in addresses
    ("url", "tests/setters_tests.json", "assignment"),                     // a password beside its name
    ("url", "tests/setters_tests.json", "url"),
    ("url", "tests/unit.rs", "url"),
    ("url", "tests/urltestdata.json", "assignment"), // the same password again, beside its name
    ("url", "tests/urltestdata.json", "url"),
];

/// Enough for a test that runs every time; the long run (`CC_LANGFUSE_LONG=1`) reads everything.
const SHORT_RUN_BYTES: usize = 100 << 20;

const TEXT: [&str; 16] =
    ["rs", "md", "toml", "c", "h", "json", "lock", "txt", "yml", "yaml", "py", "js", "sh", "html", "css", "S"];

/// Name and directory of the crates of the lock file that are in this machine's registry.
fn crates() -> Vec<(String, PathBuf)> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))).unwrap_or_default();
    let registries: Vec<PathBuf> = entries(&home.join("registry/src"));
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).unwrap();
    let field = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let lines: Vec<&str> = lock.lines().collect();
    let packages = lines.windows(2).filter(|pair| pair[0].starts_with("name = ") && pair[1].starts_with("version = "));
    packages
        .filter_map(|pair| Some((field(pair[0])?, field(pair[1])?)))
        .flat_map(|(name, version)| {
            let dir = format!("{name}-{version}");
            registries.iter().map(|registry| (name.clone(), registry.join(&dir))).collect::<Vec<_>>()
        })
        .filter(|(_, dir)| dir.is_dir())
        .collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(dir) {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ext| TEXT.iter().any(|text| ext == *text)) {
            found.push(path);
        }
    }
}

/// The rules that would mask something in `text` when it is sent, each once.
fn found(text: &str) -> Vec<String> {
    let mut counts = Counts::new();
    Redactor::built_in().scrub(text, &mut counts);
    if text.starts_with(['{', '[']) {
        Redactor::built_in().scrub_json(text, &mut counts);
    }
    counts.into_keys().collect()
}

#[test]
#[allow(clippy::print_stderr, reason = "how much was read is the point")]
fn the_sources_of_all_dependencies_are_not_masked() {
    let mut all: Vec<(String, PathBuf, PathBuf)> = Vec::new();
    for (name, dir) in crates() {
        let mut paths = Vec::new();
        files(&dir, &mut paths);
        all.extend(paths.into_iter().map(|path| (name.clone(), path.strip_prefix(&dir).unwrap().to_owned(), path)));
    }
    // A fixed order that mixes the crates.
    all.sort_by_cached_key(|(name, file, _)| Sha256::digest(format!("{name} {}", file.display())));
    let limit =
        if std::env::var("CC_LANGFUSE_LONG").is_ok_and(|value| value == "1") { usize::MAX } else { SHORT_RUN_BYTES };
    let (mut bytes, mut count, mut wrong) = (0, 0, Vec::new());
    for (name, file, path) in &all {
        let Ok(text) = fs::read_to_string(path) else { continue };
        if bytes > limit {
            break;
        }
        bytes += text.len();
        count += 1;
        for rule in found(&text) {
            if !RIGHT.contains(&(name, &file.to_string_lossy(), &rule)) {
                wrong.push(format!("{rule} in {}", path.display()));
            }
        }
    }
    eprintln!("{:.0} MB of ordinary text in {count} files", bytes as f64 / 1e6);
    if all.is_empty() {
        eprintln!("skipped: no sources in cargo's registry");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A fixed sequence of numbers that look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }

    fn text(&mut self, alphabet: &str, len: usize) -> String {
        (0..len).map(|_| char::from(alphabet.as_bytes()[self.roll(alphabet.len())])).collect()
    }

    fn hex(&mut self, len: usize) -> String {
        self.text("0123456789abcdef", len)
    }

    fn base64(&mut self, len: usize) -> String {
        self.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", len)
    }

    fn uuid(&mut self) -> String {
        format!("{}-{}-4{}-a{}-{}", self.hex(8), self.hex(4), self.hex(3), self.hex(3), self.hex(12))
    }

    /// A name like programmers choose, often of words that also name secrets.
    fn name(&mut self, separator: &str) -> String {
        const WORDS: [&str; 20] = [
            "token", "secret", "password", "key", "access", "api", "auth", "session", "user", "parse", "count", "v2",
            "id", "store", "client", "refresh", "cache", "index", "sha256", "manager",
        ];
        let words: Vec<&str> = (0..1 + self.roll(3)).map(|_| self.one(&WORDS)).collect();
        words.join(separator)
    }
}

/// Output of tools and pasted text: the kind, and about 200 KB of it.
fn shapes() -> Vec<(&'static str, String)> {
    let mut dice = Dice(11);
    let lines = |dice: &mut Dice, line: &dyn Fn(&mut Dice) -> String| {
        let mut text = String::new();
        while text.len() < 200_000 {
            text += &line(dice);
            text.push('\n');
        }
        text
    };
    let source = include_str!("../turn/assembler.rs");
    let mut diff = String::new();
    for (index, line) in source.lines().enumerate() {
        if index % 40 == 0 {
            let _ = writeln!(
                diff,
                "diff --git a/src/x{index}.rs b/src/x{index}.rs\nindex {}..{} 100644",
                dice.hex(7),
                dice.hex(7)
            );
            let _ = writeln!(diff, "@@ -{index},7 +{index},9 @@ fn token_store(&self) -> Secret {{");
        }
        let _ = writeln!(diff, "{}{line}", dice.one(&["+", "-", " "]));
    }
    vec![
        ("git diff", diff),
        ("git log", lines(&mut dice, &|d| format!("commit {}\n    Rotate {} ({})", d.hex(40), d.name(" "), d.hex(9)))),
        ("ls -l", lines(&mut dice, &|d| {
            format!("-rw-r--r-- 1 dev dev {:>9} Nov {:>2} 12:{:02} {}.{}", d.roll(9_999_999), d.roll(30), d.roll(60), d.name("-"), d.one(&["rs", "pem.pub", "jsonl", "tar.gz"]))
        })),
        ("test output", lines(&mut dice, &|d| format!("test {}::{} ... ok ({} ms)", d.name("::"), d.name("_"), d.roll(5000)))),
        ("log", lines(&mut dice, &|d| {
            format!("2026-11-20T08:{:02}:{:02}.{:03}Z  INFO request{{id={} trace={}}}: {}={} {}_ms={} status=200", d.roll(60), d.roll(60), d.roll(1000), d.uuid(), d.hex(32), d.name("_") + "_count", d.roll(100_000), d.name("_"), d.roll(1000))
        })),
        ("lock file", lines(&mut dice, &|d| {
            format!("    \"node_modules/{}\": {{\"version\": \"{}.{}.0\", \"integrity\": \"sha512-{}==\"}},", d.name("-"), d.roll(9), d.roll(30), d.base64(86))
        })),
        ("go.sum", lines(&mut dice, &|d| format!("github.com/{}/{} v1.{}.0 h1:{}=", d.name(""), d.name("-"), d.roll(40), d.base64(43)))),
        ("Cargo.lock", lines(&mut dice, &|d| format!("[[package]]\nname = \"{}\"\nversion = \"1.0.{}\"\nchecksum = \"{}\"", d.name("-"), d.roll(99), d.hex(64)))),
        ("code", lines(&mut dice, &|d| {
            let (a, b, c) = (d.name("_"), d.name("_"), d.name(""));
            match d.roll(6) {
                0 => format!("    let {a} = self.{b}.{c}({}, &{a}_{b})?;", d.roll(4096)),
                1 => format!("    {a}: Option<{c}>, {b}: &'static str,"),
                2 => format!("if {a} == other.{b} || {b}.len() > {} {{ return Err({c}::Missing) }}", d.roll(4096)),
                3 => format!("const {}: usize = 0x{};", a.to_uppercase(), d.hex(8)),
                4 => format!("const {{ {a}, {b} }} = await use{c}({{ {a}: {b}, {b}: props.{c}, {c}: null }});"),
                _ => format!("    {a} = {b}[\"{a}\"] if {b} else {c}.get(\"{b}\", None)"),
            }
        })),
        ("minified JS", lines(&mut dice, &|d| {
            let name = d.name("");
            format!("var {0}=function({0},e){{var t={0}.{1},n={0}.{2}||{3};return e?t[{4}]:{1}({0},n)}},r={0}(t,{4});", d.one(&["t", "n", "r", "i"]), name, d.name(""), d.one(&["null", "!1", "void 0", "\"\""]), d.roll(999)).repeat(4)
        })),
        ("JSON", format!("[{}]", lines(&mut dice, &|d| {
            format!("{{\"id\":\"{}\",\"{}_id\":\"{}\",\"etag\":\"{}\",\"max_tokens\":{},\"cursor\":\"{}\",\"url\":\"https://x.test/{}?page={}&sha={}\"}},", d.uuid(), d.name("_"), d.hex(24), d.hex(32), d.roll(200_000), d.base64(40), d.name("/"), d.roll(99), d.hex(40))
        }).trim_end().trim_end_matches(','))),
        ("YAML", lines(&mut dice, &|d| {
            let name = d.name("-");
            format!("      - name: {}\n        valueFrom: {{secretKeyRef: {{name: {name}, key: {}}}}}\n        image: registry.test/{name}@sha256:{}", d.name("_").to_uppercase(), d.name("-"), d.hex(64))
        })),
        ("hex dump", lines(&mut dice, &|d| format!("{:08x}  {} {}  |{}|", d.roll(1 << 30), d.hex(16), d.hex(16), d.text("abcdef.=@", 16)))),
        ("base64", lines(&mut dice, &|d| d.base64(76))),
        ("prose", lines(&mut dice, &|d| format!("The {} of the {} is not the {}: rotate it, then run `{}` again.", d.name(" "), d.name(" "), d.name(" "), d.name("-")))),
    ]
}

#[test]
fn the_output_of_tools_is_not_masked() {
    for (kind, text) in shapes() {
        let wrong: Vec<_> = text.lines().filter(|line| !found(line).is_empty()).take(5).collect();
        assert!(wrong.is_empty(), "{kind}: {wrong:#?}");
        assert_eq!(found(&text), [""; 0], "{kind}");
        assert_eq!(found(&serde_json::to_string(&text).unwrap()), [""; 0], "{kind}");
    }
}
