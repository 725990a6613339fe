//! The daemon's own settings, `~/.config/cc-langfuse/config.toml` → [`Config`], which cannot be invalid. What a project
//! wants is not here: it stands in the project's environment and comes with each hook event.

use std::{
    ops::Range,
    path::{Component, Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::redact::{Redactor, Rules};

pub mod file;

const ROOTS: &str = "transcript_roots";
const OUTBOX: &str = "outbox_mib";
const REDACT: &str = "redact";
const NAME: &str = "name";
const PATTERN: &str = "pattern";

const MIB: u64 = 1 << 20;

/// The daemon's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Absolute directories below which transcripts may lie, besides Claude Code's own. None is the root of all.
    pub transcript_roots: Vec<PathBuf>,
    /// How many bytes of spans may wait for each destination. One that is away must not stop the others.
    pub outbox_bytes: u64,
    /// What masks secrets.
    pub rules: Rules,
}

impl Default for Config {
    fn default() -> Self {
        Self { transcript_roots: Vec::new(), outbox_bytes: 256 * MIB, rules: Rules::default() }
    }
}

/// Why a text is not a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct BadConfig {
    /// Where, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: String,
}

/// A problem and where in the text it is.
type Problem = (Range<usize>, String);

impl Config {
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
        read(text).map_err(|(at, problem)| {
            let before = text.as_bytes().get(..at.start).unwrap_or_default();
            BadConfig { line: 1 + before.iter().filter(|byte| **byte == b'\n').count(), problem }
        })
    }
}

fn read(text: &str) -> Result<Config, Problem> {
    let document =
        DeTable::parse(text).map_err(|error| (error.span().unwrap_or_default(), error.message().to_owned()))?;
    let mut config = Config::default();
    for (key, value) in entries(document.get_ref(), &[ROOTS, OUTBOX, REDACT])? {
        match key {
            ROOTS => config.transcript_roots = items(key, value)?.iter().map(root).collect::<Result<_, _>>()?,
            OUTBOX => config.outbox_bytes = outbox(value)? * MIB,
            _ => config.rules = rules(items(key, value)?)?,
        }
    }
    Ok(config)
}

/// The members of a table in the order of the text, if all of them are known.
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
    let near = known.iter().map(|name| (distance(key, name), *name)).min();
    match near {
        Some((edits, name)) if edits <= 1 + name.len() / 4 => format!("unknown key `{key}`, did you mean `{name}`?"),
        _ => format!("unknown key `{key}`, known are {}", known.join(", ")),
    }
}

/// How many letters must be added, removed or changed to make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn items<'t, 'i>(key: &str, value: &'t Spanned<DeValue<'i>>) -> Result<&'t [Spanned<DeValue<'i>>], Problem> {
    let array = value.get_ref().as_array().ok_or_else(|| {
        let wanted = if key == REDACT { "tables, each under `[[redact]]`" } else { "a list" };
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

fn outbox(value: &Spanned<DeValue<'_>>) -> Result<u64, Problem> {
    let number = value.get_ref().as_integer().and_then(|int| u64::from_str_radix(int.as_str(), int.radix()).ok());
    number
        .filter(|mib| (1..=65536).contains(mib))
        .ok_or_else(|| (value.span(), format!("`{OUTBOX}` must be a whole number from 1 to 65536")))
}

fn rules(tables: &[Spanned<DeValue<'_>>]) -> Result<Rules, Problem> {
    let mut rules = Vec::new();
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
            (Some(name), Some(pattern)) => rules.push((name, pattern)),
            (Some(name), None) => return Err(bad(&format!("rule {name:?} has no `{PATTERN}`"))),
            (None, _) => return Err(bad(&format!("a rule has no `{NAME}`"))),
        }
    }
    if rules.is_empty() {
        return Ok(Rules::default());
    }
    let at = |name: &str| rules.iter().position(|(other, _)| other == name).map(|index| tables[index].span());
    let redactor =
        Redactor::with_extra(&rules).map_err(|error| (at(&error.name).unwrap_or_default(), error.to_string()))?;
    Ok(redactor.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Counts;

    #[test]
    fn nothing_said_is_the_default() {
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
        for (text, mib) in [("1", 1), ("65536", 65536), ("0x10", 16), ("+7", 7)] {
            assert_eq!(Config::parse(&format!("outbox_mib = {text}")).unwrap().outbox_bytes, mib << 20, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let rule = |name: &str, pattern: &str| format!("\n[[redact]]\nname = {name}\npattern = {pattern}\n");
        let good = rule("'ok'", "'x+'");
        for (text, line, parts) in [
            ("outbox_mb = 1", 1, &["unknown key `outbox_mb`", "did you mean `outbox_mib`?"][..]),
            ("\n\ntranscripts_root = []", 3, &["did you mean `transcript_roots`?"]),
            ("colour = 'red'", 1, &["unknown key `colour`", "transcript_roots, outbox_mib, redact"]),
            ("outbox_mib = 0", 1, &["`outbox_mib`", "1 to 65536"]),
            ("outbox_mib = 65537", 1, &["1 to 65536"]),
            ("outbox_mib = -1", 1, &["1 to 65536"]),
            ("outbox_mib = 99999999999999999999", 1, &["1 to 65536"]),
            ("outbox_mib = 1.5", 1, &["1 to 65536"]),
            ("outbox_mib = '5'", 1, &["1 to 65536"]),
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
}
