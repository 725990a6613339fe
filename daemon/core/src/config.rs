//! The daemon's own settings: `~/.config/cc-langfuse/config.toml` on top of the administrator's file → [`Config`], which is
//! always valid. A project's options are not here: they are in the project's environment ([`project`]) and come with each hook
//! event.

use std::{
    ops::Range,
    path::{Component, Path, PathBuf},
};

use serde::Serialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    consent::Floor,
    price::Own,
    project::Capture,
    redact::{Redactor, Rules},
};

pub mod budget;
pub mod destination;
mod glob;
mod price;
pub mod project;
pub mod telemetry;

use budget::{BUDGET, Budget};
use destination::{DESTINATION, Named};
use price::PRICE;
use telemetry::{Receiver, TELEMETRY};

const ROOTS: &str = "transcript_roots";
const OUTBOX: &str = "outbox_mib";
const FROM_NOW: &str = "from_now";
const START: &str = "start";
const CAPTURE: &str = "capture_at_most";
const MASK: &str = "always_redact";
const ARCHIVE: &str = "archive";
const ARCHIVE_MIB: &str = "archive_mib";
const KEYS: [&str; 13] = [
    ROOTS,
    OUTBOX,
    FROM_NOW,
    START,
    CAPTURE,
    MASK,
    ARCHIVE,
    ARCHIVE_MIB,
    REDACT,
    PRICE,
    BUDGET,
    DESTINATION,
    TELEMETRY,
];
const REDACT: &str = "redact";
const NAME: &str = "name";
const PATTERN: &str = "pattern";

const MIB: u64 = 1 << 20;

/// The default of `outbox_mib`.
const OUTBOX_MIB: u64 = 256;

/// The default of `archive_mib`: a year of daily work, compressed.
const DEFAULT_ARCHIVE_MIB: u64 = 1024;

#[derive(Clone, Debug)]
pub struct Config {
    /// Absolute directories below which transcripts may lie, besides Claude Code's own. Never the root directory.
    pub transcript_roots: Vec<PathBuf>,
    /// How many bytes of spans may wait for each destination.
    pub outbox_bytes: u64,
    /// Turns from before a project is first seen are left out.
    pub from_now: bool,
    /// The privacy that no project can loosen.
    pub floor: Floor,
    /// How many bytes the archive of transcripts may have; `None` if nothing is archived.
    pub archive_bytes: Option<u64>,
    /// The masking rules.
    pub rules: Rules,
    /// Prices that override the built-in ones.
    pub prices: Vec<Own>,
    /// What a day may cost before it is shown in another colour, or why what is given cannot be used.
    pub budget: Option<Budget>,
    /// The `[[destination]]` tables, valid or not.
    pub destinations: Vec<Named>,
    /// How Claude Code's own telemetry is received, if it is.
    pub telemetry: Option<Receiver>,
}

impl Default for Config {
    fn default() -> Self {
        Layers::default().config()
    }
}

/// Why a text is not a valid configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct BadConfig {
    /// Counted from 1.
    pub line: usize,
    pub problem: String,
}

/// The position of a problem in the text, and the problem.
type Problem = (Range<usize>, String);

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
}

/// A value and the line that sets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sourced<T> {
    pub value: T,
    /// `None` if it is the default.
    #[serde(rename = "place")]
    pub location: Option<Location>,
}

/// A masking rule of the user's or the administrator's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub name: String,
    pub pattern: String,
}

/// Configuration files in layers: the last value of a key counts, rules and prices add up.
#[derive(Clone, Debug)]
pub struct Layers {
    /// See [`Config::transcript_roots`].
    pub transcript_roots: Sourced<Vec<PathBuf>>,
    /// How many MiB of spans may wait for each destination.
    pub outbox_mib: Sourced<u64>,
    /// See [`Config::from_now`].
    pub from_now: Sourced<bool>,
    /// Hooks start the daemon where it does not run. The hook reads this itself, of the user's own file.
    pub start_by_hook: Sourced<bool>,
    /// `full` or `metadata`. The strictest file counts.
    pub capture_at_most: Sourced<Capture>,
    /// Projects cannot turn masking off. One file is enough to say so.
    pub always_redact: Sourced<bool>,
    /// Masked copies of transcripts are kept.
    pub archive: Sourced<bool>,
    /// How many MiB they may have.
    pub archive_mib: Sourced<u64>,
    /// Rules besides the built-in ones, the first file's first.
    pub redact: Vec<Sourced<Rule>>,
    /// Prices besides the built-in ones, the first file's first.
    pub prices: Vec<Sourced<Own>>,
    /// See [`Config::budget`].
    pub budget: Option<Sourced<Budget>>,
    /// See [`Config::destinations`].
    pub destinations: Vec<Named>,
    /// See [`Config::telemetry`].
    pub telemetry: Option<Sourced<Receiver>>,
    rules: Rules,
}

impl Default for Layers {
    fn default() -> Self {
        Self {
            transcript_roots: Sourced { value: Vec::new(), location: None },
            outbox_mib: Sourced { value: OUTBOX_MIB, location: None },
            from_now: Sourced { value: false, location: None },
            start_by_hook: Sourced { value: false, location: None },
            capture_at_most: Sourced { value: Capture::Full, location: None },
            always_redact: Sourced { value: false, location: None },
            archive: Sourced { value: false, location: None },
            archive_mib: Sourced { value: DEFAULT_ARCHIVE_MIB, location: None },
            redact: Vec::new(),
            prices: Vec::new(),
            budget: None,
            destinations: Vec::new(),
            telemetry: None,
            rules: Rules::default(),
        }
    }
}

impl Layers {
    /// Adds `file` on top.
    ///
    /// # Errors
    /// The first problem in it.
    pub fn lay(&mut self, file: &Path, text: &str) -> Result<(), BadConfig> {
        let line = |at: &Range<usize>| {
            let before = text.as_bytes().get(..at.start).unwrap_or_default();
            1 + before.iter().filter(|byte| **byte == b'\n').count()
        };
        let location = |at: Range<usize>| Some(Location { file: file.to_path_buf(), line: line(&at) });
        read(self, text, &location).map_err(|(at, problem)| BadConfig { line: line(&at), problem })
    }

    /// The effective configuration.
    pub fn config(self) -> Config {
        Config {
            transcript_roots: self.transcript_roots.value,
            outbox_bytes: self.outbox_mib.value * MIB,
            from_now: self.from_now.value,
            floor: Floor { capture: self.capture_at_most.value, redact: self.always_redact.value },
            archive_bytes: self.archive.value.then_some(self.archive_mib.value * MIB),
            rules: self.rules,
            prices: self.prices.into_iter().map(|price| price.value).collect(),
            budget: self.budget.map(|budget| budget.value),
            destinations: self.destinations,
            telemetry: self.telemetry.map(|telemetry| telemetry.value),
        }
    }
}

impl Config {
    /// US dollars that a day may cost, if there is a valid budget.
    pub fn day_budget(&self) -> Option<f64> {
        self.budget.as_ref().and_then(|budget| budget.as_ref().ok().copied())
    }

    /// Every directory below which transcripts may lie, for a user whose home is `home`.
    pub fn roots(&self, home: &Path) -> Vec<PathBuf> {
        let own = [home.join(".claude/projects"), home.join(".config/claude/projects")];
        own.into_iter().chain(self.transcript_roots.iter().cloned()).collect()
    }

    /// Reads a configuration. Every key may be left out.
    ///
    /// # Errors
    /// The first problem in it.
    pub fn parse(text: &str) -> Result<Self, BadConfig> {
        let mut layers = Layers::default();
        layers.lay(Path::new(""), text)?;
        Ok(layers.config())
    }
}

/// `hook` if hooks start the daemon, `service` if anything else does.
fn start(value: &Spanned<DeValue<'_>>) -> Result<bool, Problem> {
    match value.get_ref().as_str() {
        Some("hook") => Ok(true),
        Some("service") => Ok(false),
        _ => Err((value.span(), "`start` must be \"hook\" or \"service\"".to_owned())),
    }
}

fn read(layers: &mut Layers, text: &str, location: &dyn Fn(Range<usize>) -> Option<Location>) -> Result<(), Problem> {
    let document =
        DeTable::parse(text).map_err(|error| (error.span().unwrap_or_default(), error.message().to_owned()))?;
    for (key, value) in entries(document.get_ref(), &KEYS)? {
        let of_value = location(value.span());
        match key {
            ROOTS => {
                let roots = items(key, value)?.iter().map(root).collect::<Result<_, _>>()?;
                layers.transcript_roots = Sourced { value: roots, location: of_value };
            }
            OUTBOX => layers.outbox_mib = Sourced { value: mebibytes(key, value)?, location: of_value },
            ARCHIVE => layers.archive = Sourced { value: boolean(key, value)?, location: of_value },
            ARCHIVE_MIB => layers.archive_mib = Sourced { value: mebibytes(key, value)?, location: of_value },
            START => layers.start_by_hook = Sourced { value: start(value)?, location: of_value },
            FROM_NOW => layers.from_now = Sourced { value: boolean(key, value)?, location: of_value },
            // A later file cannot loosen these.
            CAPTURE if capture(value)? == Capture::Metadata => {
                layers.capture_at_most = Sourced { value: Capture::Metadata, location: of_value };
            }
            MASK if boolean(key, value)? => layers.always_redact = Sourced { value: true, location: of_value },
            CAPTURE | MASK => {}
            // The last file's price of a model counts.
            PRICE => {
                for table in items(key, value)? {
                    layers.prices.push(Sourced { value: price::price(table)?, location: location(table.span()) });
                }
            }
            BUDGET => layers.budget = Some(Sourced { value: budget::read(value), location: of_value }),
            TELEMETRY => layers.telemetry = Some(Sourced { value: telemetry::read(value)?, location: of_value }),
            DESTINATION => destination::read(&mut layers.destinations, value, location),
            _ => rules(layers, items(key, value)?, location)?,
        }
    }
    Ok(())
}

/// The entries of a table in textual order, if all keys are known.
fn entries<'t, 'i>(
    table: &'t DeTable<'i>,
    known: &[&str],
) -> Result<Vec<(&'t str, &'t Spanned<DeValue<'i>>)>, Problem> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let named = |(key, value): (&'t Spanned<_>, _)| {
        let name: &'t std::borrow::Cow<'_, str> = key.get_ref();
        if known.contains(&&**name) { Ok((&**name, value)) } else { Err((key.span(), unknown(name, known))) }
    };
    entries.into_iter().map(named).collect()
}

fn unknown(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|name| (strsim::osa_distance(key, name), *name)).min();
    match near {
        Some((edits, name)) if edits <= 1 + name.len() / 4 => format!("unknown key `{key}`, did you mean `{name}`?"),
        _ => format!("unknown key `{key}`; there are {}", known.join(", ")),
    }
}

fn items<'t, 'i>(key: &str, value: &'t Spanned<DeValue<'i>>) -> Result<&'t [Spanned<DeValue<'i>>], Problem> {
    let array = value.get_ref().as_array().ok_or_else(|| {
        let is_of_tables = [REDACT, PRICE].contains(&key);
        let wanted =
            if is_of_tables { format!("a list of tables, each under `[[{key}]]`") } else { "a list".to_owned() };
        (value.span(), format!("`{key}` must be {wanted}"))
    })?;
    Ok(array)
}

fn root(value: &Spanned<DeValue<'_>>) -> Result<PathBuf, Problem> {
    let bad = |why: &str| (value.span(), format!("`{ROOTS}`: {why}"));
    let text = value.get_ref().as_str().ok_or_else(|| bad("each must be a string"))?;
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(bad(&format!("`{text}` is not an absolute path")));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(bad(&format!("`{text}` must not contain `..`")));
    }
    if path.parent().is_none() {
        return Err(bad("`/` would allow every file of yours"));
    }
    Ok(path.to_path_buf())
}

fn mebibytes(key: &str, value: &Spanned<DeValue<'_>>) -> Result<u64, Problem> {
    let number = value.get_ref().as_integer().and_then(|int| u64::from_str_radix(int.as_str(), int.radix()).ok());
    number
        .filter(|mib| (1..=65536).contains(mib))
        .ok_or_else(|| (value.span(), format!("`{key}` must be a whole number from 1 to 65536")))
}

fn boolean(key: &str, value: &Spanned<DeValue<'_>>) -> Result<bool, Problem> {
    value.get_ref().as_bool().ok_or_else(|| (value.span(), format!("`{key}` must be true or false")))
}

fn capture(value: &Spanned<DeValue<'_>>) -> Result<Capture, Problem> {
    match value.get_ref().as_str() {
        Some("full") => Ok(Capture::Full),
        Some("metadata") => Ok(Capture::Metadata),
        _ => Err((value.span(), format!("`{CAPTURE}` must be \"full\" or \"metadata\""))),
    }
}

/// Adds the rules of one file.
fn rules(
    layers: &mut Layers,
    tables: &[Spanned<DeValue<'_>>],
    location: &dyn Fn(Range<usize>) -> Option<Location>,
) -> Result<(), Problem> {
    if tables.is_empty() {
        return Ok(());
    }
    let first = layers.redact.len();
    for table in tables {
        let bad = |why: &str| (table.span(), format!("`{REDACT}`: {why}"));
        let members = table.get_ref().as_table().ok_or_else(|| bad("each rule must be a table"))?;
        let (mut name, mut pattern) = (None, None);
        for (key, value) in entries(members, &[NAME, PATTERN])? {
            let text = value.get_ref().as_str();
            let text = text.ok_or_else(|| (value.span(), format!("`{REDACT}`: `{key}` must be a string")))?;
            *(if key == NAME { &mut name } else { &mut pattern }) = Some(text.to_owned());
        }
        match (name, pattern) {
            (Some(name), Some(pattern)) => {
                layers.redact.push(Sourced { value: Rule { name, pattern }, location: location(table.span()) });
            }
            (Some(name), None) => return Err(bad(&format!("rule {name:?} has no `{PATTERN}`"))),
            (None, _) => return Err(bad(&format!("a rule has no `{NAME}`"))),
        }
    }
    let all: Vec<_> = layers.redact.iter().map(|rule| (rule.value.name.clone(), rule.value.pattern.clone())).collect();
    // The rules of other files were checked when those were added.
    let at = |name: &str| all[first..].iter().position(|(other, _)| other == name).map(|index| tables[index].span());
    let redactor =
        Redactor::with_extra(&all).map_err(|error| (at(&error.name).unwrap_or_default(), error.to_string()))?;
    layers.rules = redactor.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Counts;

    #[test]
    fn an_empty_file_gives_the_defaults() {
        for text in ["", "# outbox_mib = 1\n", "transcript_roots = []\n", "redact = []"] {
            let config = Config::parse(text).unwrap();
            assert_eq!((config.transcript_roots, config.outbox_bytes), (vec![], 256 << 20), "{text}");
            assert_eq!(config.rules.scrub("TICKET-123456", &mut Counts::new()), None);
        }
    }

    #[test]
    fn every_key_is_understood() {
        let text = r#"
            transcript_roots = ["/srv/claude", '/home/dev/my "projects"/'] # two
            outbox_mib = 1_024
            [[redact]]
            name = "ticket"
            pattern = 'TICKET-[0-9]{6}'
            [[redact]]
            pattern = 'pin=(\d+)'
            name = "pin"
        "#;
        let config = Config::parse(text).unwrap();
        assert_eq!(config.transcript_roots, ["/srv/claude", "/home/dev/my \"projects\"/"].map(PathBuf::from));
        assert_eq!(config.outbox_bytes, 1 << 30);
        let masked = config.rules.scrub("TICKET-123456 pin=77", &mut Counts::new());
        assert_eq!(masked.as_deref(), Some("[REDACTED:ticket] pin=[REDACTED:pin]"));
        for (text, bytes) in [
            ("archive_mib = 5", None),
            ("archive = true", Some(1 << 30)),
            ("archive = true\narchive_mib = 5", Some(5 << 20)),
            ("archive = false", None),
        ] {
            assert_eq!(Config::parse(text).unwrap().archive_bytes, bytes, "{text}");
        }
        for (text, mib) in [("1", 1), ("65536", 65536), ("0x10", 16), ("+7", 7)] {
            assert_eq!(Config::parse(&format!("outbox_mib = {text}")).unwrap().outbox_bytes, mib << 20, "{text}");
        }
    }

    #[test]
    fn errors_name_their_line() {
        let rule = |name: &str, pattern: &str| format!("\n[[redact]]\nname = {name}\npattern = {pattern}\n");
        let good = rule("'ok'", "'x+'");
        for (text, line, parts) in [
            ("outbox_mb = 1", 1, &["unknown key `outbox_mb`", "did you mean `outbox_mib`?"][..]),
            ("\n\ntranscripts_root = []", 3, &["did you mean `transcript_roots`?"]),
            ("colour = 'red'", 1, &["unknown key `colour`", "transcript_roots, outbox_mib, from_now"]),
            ("outbox_mib = 0", 1, &["`outbox_mib`", "1 to 65536"]),
            ("outbox_mib = 65537", 1, &["1 to 65536"]),
            ("outbox_mib = -1", 1, &["1 to 65536"]),
            ("outbox_mib = 99999999999999999999", 1, &["1 to 65536"]),
            ("outbox_mib = 1.5", 1, &["1 to 65536"]),
            ("outbox_mib = '5'", 1, &["1 to 65536"]),
            ("from_now = 1", 1, &["`from_now` must be true or false"]),
            ("archive = 'yes'", 1, &["`archive` must be true or false"]),
            ("archive_mib = 0", 1, &["`archive_mib`", "1 to 65536"]),
            ("always_redact = 'yes'", 1, &["`always_redact` must be true or false"]),
            ("\ncapture_at_most = 'none'", 2, &["`capture_at_most` must be \"full\" or \"metadata\""]),
            ("outbox_mib = 1\noutbox_mib = 2", 2, &["duplicate key"]),
            ("transcript_roots = '/x'", 1, &["`transcript_roots` must be a list"]),
            ("transcript_roots = [\n'/x',\n1]", 3, &["each must be a string"]),
            ("transcript_roots = ['x']", 1, &["`x` is not an absolute path"]),
            ("transcript_roots = ['~/x']", 1, &["not an absolute path"]),
            ("transcript_roots = ['']", 1, &["not an absolute path"]),
            ("transcript_roots = ['/']", 1, &["`/` would allow every file"]),
            ("transcript_roots = ['//.']", 1, &["`/` would allow every file"]),
            ("transcript_roots = ['/x/..']", 1, &["must not contain `..`"]),
            ("redact = 'x'", 1, &["[[redact]]"]),
            ("[redact]\nname = 'x'", 1, &["[[redact]]"]),
            ("redact = [1]", 1, &["each rule must be a table"]),
            ("[[redact]]\nname = 'x'", 1, &["rule \"x\" has no `pattern`"]),
            ("[[redact]]\npattern = 'x'", 1, &["has no `name`"]),
            ("[[redact]]\nname = 5", 2, &["`name` must be a string"]),
            ("[[redact]]\nname = 'x'\npatern = 'x'", 3, &["did you mean `pattern`?"]),
            (&rule("'open'", "'('"), 2, &["\"open\"", "unclosed group"]),
            (&(good.clone() + &rule("'none'", "'a*'")), 6, &["\"none\"", "matches empty text"]),
            (&(good + &rule("'a b'", "'x'")), 6, &["\"a b\"", "1 to 64"]),
            ("outbox_mib =", 1, &[]),
            ("a = 1\n[b", 2, &[]),
        ] {
            let error = Config::parse(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert_eq!(error.line, line, "{text}: {error}");
            for part in parts {
                assert!(error.to_string().contains(part), "{text}: {error}");
            }
            assert!(!error.problem.is_empty() && !error.problem.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_key_comes_from_the_last_file_and_rules_from_all_files() {
        let (fleet, own) = (Path::new("/etc/c.toml"), Path::new("/home/dev/c.toml"));
        let rule = |name: &str, pattern: &str| format!("\n[[redact]]\nname = '{name}'\npattern = '{pattern}'\n");
        let at = |file: &Path, line| Some(Location { file: file.to_path_buf(), line });
        let mut layers = Layers::default();
        let text = "# for all\noutbox_mib = 7\ntranscript_roots = ['/fleet']".to_owned() + &rule("ticket", "T-[0-9]+");
        layers.lay(fleet, &text).unwrap();
        layers.lay(own, &("\noutbox_mib = 9".to_owned() + &rule("pin", "PIN [0-9]+"))).unwrap();
        assert_eq!(layers.outbox_mib, Sourced { value: 9, location: at(own, 2) });
        let mut strict = Layers::default();
        strict.lay(fleet, "capture_at_most = 'metadata'\nalways_redact = true\nfrom_now = true").unwrap();
        strict.lay(own, "capture_at_most = 'full'\nalways_redact = false\nfrom_now = false").unwrap();
        assert_eq!(strict.always_redact, Sourced { value: true, location: at(fleet, 2) });
        let config = strict.config();
        assert_eq!((config.floor, config.from_now), (Floor { capture: Capture::Metadata, redact: true }, false));
        assert_eq!(layers.transcript_roots, Sourced { value: vec!["/fleet".into()], location: at(fleet, 3) });
        let rules: Vec<_> = layers.redact.iter().map(|rule| (&*rule.value.name, rule.location.clone())).collect();
        assert_eq!(rules, [("ticket", at(fleet, 4)), ("pin", at(own, 3))]);
        let config = layers.clone().config();
        assert_eq!((config.outbox_bytes, config.transcript_roots), (9 << 20, vec!["/fleet".into()]));
        let masked = config.rules.scrub("T-1 PIN 2", &mut Counts::new());
        assert_eq!(masked.as_deref(), Some("[REDACTED:ticket] [REDACTED:pin]"));
        // A rule of the same name in another file is a separate rule; an error in it names its own line.
        let error = layers.clone().lay(own, &("\n\n".to_owned() + &rule("ticket", "("))).unwrap_err();
        assert_eq!(error.line, 4, "{error}");
        layers.lay(own, "redact = []").unwrap();
        assert_eq!(layers.redact.len(), 2);
    }
}
