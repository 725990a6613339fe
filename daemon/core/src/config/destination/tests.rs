use std::path::{Path, PathBuf};

use super::*;
use crate::config::{Config, Layers};

/// The tables of a file: each name with its destination or what is wrong.
fn read(text: &str) -> Vec<(String, Result<Entry, String>)> {
    let config = Config::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    config.destinations.into_iter().map(|named| (named.name, named.entry)).collect()
}

fn one(text: &str) -> Result<Entry, String> {
    let mut read = read(&format!("[[destination]]\n{text}"));
    assert_eq!(read.len(), 1);
    read.remove(0).1
}

const GOOD: &str = "name = 'team'\nkind = 'otlp'\naddress = 'https://otel.example'\n";

#[test]
fn each_kind_takes_its_own_settings() {
    for (text, kind, address, account) in [
        (
            "name = 'a'\nkind = 'langfuse'\naddress = ' https://lf.example/ '\nLANGFUSE_PUBLIC_KEY = 'pk-1'\nsecret_file = '~/k'",
            Kind::Langfuse,
            "https://lf.example",
            "pk-1",
        ),
        (
            "name = 'a'\nkind = 'mlflow'\naddress = 'http://127.0.0.1:5000'\nMLFLOW_EXPERIMENT_NAME = 'e'",
            Kind::Mlflow,
            "http://127.0.0.1:5000",
            "name=e",
        ),
        (
            "name = 'a'\nkind = 'mlflow'\naddress = 'http://127.0.0.1:5000'\nMLFLOW_EXPERIMENT_ID = 7",
            Kind::Mlflow,
            "http://127.0.0.1:5000",
            "7",
        ),
        ("name = 'a'\nkind = 'mlflow'\naddress = 'file:///srv/runs'", Kind::Mlflow, "file:///srv/runs", "0"),
        (GOOD, Kind::Otlp, "https://otel.example/v1/traces", "both"),
        (
            &format!("{GOOD}CC_LANGFUSE_OTLP_DIALECT = 'genai'\nCC_LANGFUSE_OTLP_MAX_VALUE_BYTES = 4095"),
            Kind::Otlp,
            "https://otel.example/v1/traces",
            "genai,max=4095",
        ),
    ] {
        let to = one(text).unwrap_or_else(|why| panic!("{text}: {why}")).destination;
        assert_eq!((to.kind, &*to.address, &*to.account), (kind, address, account));
    }
}

#[test]
fn an_invalid_table_gets_a_remedy_and_does_not_affect_others() {
    let langfuse = "name = 'a'\nkind = 'langfuse'\naddress = 'https://lf.example'\n";
    let keyed = format!("{langfuse}LANGFUSE_PUBLIC_KEY = 'pk-1'\n");
    for (text, parts) in [
        ("", &["needs a `name`"][..]),
        ("name = ''", &["`name` must be 1 to 64"]),
        ("name = 5", &["needs a `name`"]),
        ("name = 'two words'", &["`name` must be"]),
        ("name = '--yes'", &["`name` must be"]),
        ("name = 'otlp-3'\nkind = 'otlp'\naddress = 'https://x'", &["choose another one"]),
        ("name = 'a'", &["needs a `kind`", "langfuse, mlflow, otlp"]),
        ("name = 'a'\nkind = 'langfuze'", &["unknown `kind` \"langfuze\"", "langfuse, mlflow, otlp"]),
        ("name = 'a'\nkind = 'otlp'", &["needs an `address`"]),
        ("name = 'a'\nkind = 'otlp'\naddress = ''", &["`address` must be a string"]),
        ("name = 'a'\nkind = 'otlp'\naddress = ['https://x']", &["`address` must be a string"]),
        ("name = 'a'\nkind = 'otlp'\naddress = 'nonsense'", &["`address` is not an address"]),
        ("name = 'a'\nkind = 'otlp'\naddress = 'https://x/?key=hidden'", &["without a query"]),
        ("name = 'a'\nkind = 'otlp'\naddress = 'https://me:hidden@x'", &["must hold no credentials", "`secret_file`"]),
        ("name = 'a'\nkind = 'mlflow'\naddress = './runs'", &["an absolute path"]),
        (langfuse, &["needs `LANGFUSE_PUBLIC_KEY`"]),
        (&keyed, &["needs its secret key", "`secret_file` or `secret_command`"]),
        (
            &format!("{langfuse}LANGFUSE_PUBLIC_KEY = 'sk-lf-hidden'\nsecret_file = '/k'"),
            &["in place of the public one"],
        ),
        (
            &format!("{keyed}LANGFUSE_SECRET_KEY = 'hidden'"),
            &["`LANGFUSE_SECRET_KEY` must not be", "0600", "`secret_file`"],
        ),
        (&format!("{keyed}LANGFUSE_BASE_URL = 'https://x'\nsecret_file = '/k'"), &["say `address`"]),
        (&format!("{keyed}secret_file = '/k'\nsecret_command = ['x']"), &["both"]),
        (&format!("{keyed}secret_file = 'k'"), &["`secret_file` must be a path"]),
        (&format!("{keyed}secret_file = 5"), &["`secret_file` must be a path"]),
        (&format!("{keyed}secret_command = 'pass show x'"), &["`secret_command` must be a list", "[\"pass\""]),
        (&format!("{keyed}secret_command = []"), &["`secret_command` must be a list"]),
        (&format!("{GOOD}projects = []"), &["is empty"]),
        (&format!("{GOOD}projects = '~/code'"), &["`projects` must be a list"]),
        (&format!("{GOOD}projects = ['work/**']"), &["`projects`", "\"work/**\"", "begin with"]),
        (&format!("{GOOD}project = ['/x']"), &["unknown key `project`", "did you mean `projects`?"]),
        (&format!("{GOOD}CC_LANGFUSE_OTLP_DIALEKT = 'x'"), &["did you mean `CC_LANGFUSE_OTLP_DIALECT`?"]),
        (&format!("{GOOD}LANGFUSE_PUBLIC_KEY = 'pk'"), &["unknown key `LANGFUSE_PUBLIC_KEY`"]),
        (&format!("{GOOD}CC_LANGFUSE_OTLP_DIALECT = 1.5"), &["must be a string"]),
    ] {
        let why = one(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
        for part in parts {
            assert!(why.contains(part), "{text}: {why}");
        }
        assert!(!why.contains("hidden") && !why.contains('\n'), "{text}: {why}");
        let others = format!("outbox_mib = 5\n[[destination]]\n{text}\n[[destination]]\n{}", GOOD.replace("team", "b"));
        let both = read(&others);
        assert!(both[0].1.is_err() && both[1].1.is_ok(), "{others}: {both:?}");
    }
    for text in ["destination = 3", "[destination]\nname = 'a'\nkind = 'x'", "destination = [1]"] {
        assert!(matches!(&read(text)[..], [(_, Err(_))]), "{text}");
    }
    assert!(read("destination = []").is_empty());
}

#[test]
fn names_and_destinations_must_be_unique_across_files() {
    let mut layers = Layers::default();
    let table = |name: &str, host: &str| {
        format!("[[destination]]\nname = '{name}'\nkind = 'otlp'\naddress = 'https://{host}.example'\n")
    };
    layers.lay(Path::new("/etc/c.toml"), &table("a", "one")).unwrap();
    let own = ["\n".to_owned(), table("a", "two"), table("b", "one"), table("c", "three")].concat();
    layers.lay(Path::new("/home/dev/c.toml"), &own).unwrap();
    let config = layers.config();
    let all: Vec<_> = config.destinations.iter().map(|named| (&*named.name, named.entry.as_ref().err())).collect();
    let said = |at: usize| all[at].1.cloned().unwrap_or_default();
    assert_eq!(all.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["a", "unnamed-2", "b", "c"]);
    assert!(
        said(1).contains("another destination is called a") && said(2).contains("a has the same address"),
        "{all:?}"
    );
    assert!(all[0].1.is_none() && all[3].1.is_none(), "{all:?}");
    let location = config.destinations[1].location.clone().unwrap();
    assert_eq!((location.file, location.line), (PathBuf::from("/home/dev/c.toml"), 2));
}

#[test]
fn a_secret_is_the_first_line_or_the_named_lines() {
    let langfuse =
        "name = 'a'\nkind = 'langfuse'\naddress = 'https://x'\nLANGFUSE_PUBLIC_KEY = 'pk'\nsecret_file = '/k'";
    let mlflow = "name = 'a'\nkind = 'mlflow'\naddress = 'https://x'";
    for (table, text, expect) in [
        (langfuse, "sk-1\n", &[("LANGFUSE_SECRET_KEY", "sk-1")][..]),
        (langfuse, " sk-1 \nurl: https://x\n", &[("LANGFUSE_SECRET_KEY", "sk-1")]),
        (langfuse, "# mine\nLANGFUSE_SECRET_KEY=sk-2", &[("LANGFUSE_SECRET_KEY", "sk-2")]),
        (langfuse, "CC_LANGFUSE_SECRET_KEY = 'sk-3'", &[("LANGFUSE_SECRET_KEY", "sk-3")]),
        (langfuse, "LANGFUSE_PUBLIC_KEY=pk-other\nLANGFUSE_SECRET_KEY=sk-2", &[("LANGFUSE_SECRET_KEY", "sk-2")]),
        (langfuse, "", &[]),
        (langfuse, "\nsk-1", &[]),
        (langfuse, "LANGFUSE_SECRET_KEY=", &[]),
        (mlflow, "token", &[("MLFLOW_TRACKING_TOKEN", "token")]),
        (
            mlflow,
            "MLFLOW_TRACKING_USERNAME=me\nMLFLOW_TRACKING_PASSWORD=p=w",
            &[("MLFLOW_TRACKING_USERNAME", "me"), ("MLFLOW_TRACKING_PASSWORD", "p=w")],
        ),
        (GOOD, "authorization=Bearer x", &[("CC_LANGFUSE_OTLP_HEADERS", "authorization=Bearer x")]),
    ] {
        let found = one(table).unwrap().secrets_in(text);
        assert_eq!(found.is_some(), !expect.is_empty(), "{table} {text:?}");
        for (name, value) in expect {
            let secret = found.as_ref().and_then(|found| found.get(name));
            assert!(secret.is_some_and(|secret| *secret == crate::secret::Secret::new(value)), "{table} {text:?}");
        }
    }
}

#[test]
fn entries_join_matching_projects_and_leave_when_removed() {
    let of = |text: &str| -> Vec<Entry> { read(text).into_iter().map(|(_, entry)| entry.unwrap()).collect() };
    let table = |host: &str, more: &str| {
        format!("[[destination]]\nname = '{host}'\nkind = 'otlp'\naddress = 'http://{host}'\n{more}\n")
    };
    let all = of(&(table("all", "") + &table("code", "projects = ['~/code/**', '/srv/x']")));
    let homes = [PathBuf::from("/home/dev")];
    let by_variable = |host: &str| Target {
        destination: Destination { address: format!("http://{host}/v1/traces"), ..all[0].destination.clone() },
        chooser: Some(Chooser::User),
    };
    let joined = |entries: &[Entry], dir: Option<&str>, targets: &[Target]| {
        let mut targets = targets.to_vec();
        join(entries.iter(), dir.map(Path::new), &homes, &mut targets);
        targets
    };
    let names = |targets: &[Target]| -> String {
        let name = |target: &Target| {
            let by = if target.chooser == Some(Chooser::Config) { "+" } else { "" };
            let host = target.destination.address.trim_start_matches("http://").trim_end_matches("/v1/traces");
            format!("{by}{host}")
        };
        targets.iter().map(name).collect::<Vec<_>>().join(" ")
    };
    for (dir, variables, expect) in [
        (Some("/home/dev/code/a"), &[][..], "+all +code"),
        (Some("/srv/x"), &["v"], "v +all +code"),
        (Some("/home/dev/other"), &["v"], "v +all"),
        (None, &[], "+all"),
        (Some("/srv/x"), &["code"], "code +all"),
    ] {
        let variables: Vec<_> = variables.iter().map(|host| by_variable(host)).collect();
        let targets = joined(&all, dir, &variables);
        assert_eq!(names(&targets), expect, "{dir:?}");
        assert_eq!(joined(&all, dir, &targets), targets, "a second time");
        let first = joined(&all[..1], dir, &targets);
        assert_eq!(names(&first), expect.replace(" +code", ""), "one is gone");
        assert_eq!(joined(&[], dir, &targets), variables, "all are gone");
    }
}
