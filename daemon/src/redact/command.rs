//! Secrets given to programs on the command line: `mysql -pX`, `curl -u user:X`, `sshpass -p X`.

use std::ops::Range;

use super::{
    MARK,
    name::Name,
    value::{Trust, is_password_word, is_secret, is_stopword},
};

/// Which part of an argument is the secret.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Whole,
    /// What follows the first of this sign: `user:X`.
    After(u8),
    /// `pass:X`.
    Source,
    /// The values of cookies.
    Cookies,
}
use Part::*;

/// Options of programs whose argument is a secret, and whether it may stand in the option's own word.
struct Program {
    names: &'static [&'static str],
    options: &'static [(&'static str, Part)],
    joined: Joined,
    /// Without one of these words in the command, the options mean something else.
    only_with: &'static [&'static str],
}

/// Where the argument of a short option stands.
#[derive(Clone, Copy, PartialEq)]
enum Joined {
    May,
    /// In the option's own word; as a word of its own it is something else.
    Only,
    /// The program's long options have one dash too.
    Never,
}

const fn program(names: &'static [&'static str], options: &'static [(&'static str, Part)]) -> Program {
    Program { names, options, joined: Joined::May, only_with: &[] }
}

const PROGRAMS: &[Program] = &[
    Program {
        joined: Joined::Only,
        ..program(
            &[
                "mysql",
                "mysqldump",
                "mysqladmin",
                "mysqlimport",
                "mysqlshow",
                "mysqlcheck",
                "mysqlsh",
                "mariadb",
                "mariadb-dump",
                "mariadb-admin",
                "mycli",
                "xtrabackup",
                "mydumper",
            ],
            &[("-p", Whole)],
        )
    },
    program(&["sshpass"], &[("-p", Whole)]),
    program(&["redis-cli", "valkey-cli", "keydb-cli"], &[("-a", Whole), ("--pass", Whole)]),
    Program {
        joined: Joined::Never,
        ..program(
            &["openssl"],
            &[
                ("-passin", Source),
                ("-passout", Source),
                ("-pass", Source),
                ("-password", Source),
                ("-k", Whole),
                ("-K", Whole),
            ],
        )
    },
    program(
        &["curl", "xh", "httpie", "http", "https", "wget", "ab", "siege", "grpcurl", "aria2c"],
        &[
            ("-u", After(b':')),
            ("--user", After(b':')),
            ("-U", After(b':')),
            ("--proxy-user", After(b':')),
            ("-a", After(b':')),
            ("--auth", After(b':')),
            ("-A", After(b':')),
            ("-b", Cookies),
            ("--cookie", Cookies),
            ("--oauth2-bearer", Whole),
        ],
    ),
    program(
        &["skopeo", "buildah", "crane", "regctl", "podman"],
        &[("--creds", After(b':')), ("--src-creds", After(b':')), ("--dest-creds", After(b':'))],
    ),
    Program {
        only_with: &["login", "repo add"],
        ..program(
            &[
                "docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "oras", "crane", "az", "oc", "cf",
                "ibmcloud", "argocd", "bosh",
            ],
            &[("-p", Whole), ("--password", Whole)],
        )
    },
    program(&["ldapsearch", "ldapmodify", "ldapadd", "ldapwhoami", "ldappasswd", "ldapdelete"], &[("-w", Whole)]),
    program(
        &["smbclient", "rpcclient", "smbmap", "smbget", "net", "wmic", "winexe"],
        &[("-U", After(b'%')), ("--user", After(b'%'))],
    ),
    program(&["sqlcmd", "bcp", "osql", "isql", "tsql"], &[("-P", Whole)]),
    program(
        &["mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport", "mongostat"],
        &[("-p", Whole)],
    ),
    program(
        &[
            "cqlsh",
            "cypher-shell",
            "twine",
            "evil-winrm",
            "crackmapexec",
            "netexec",
            "nxc",
            "xfreerdp",
            "rdesktop",
            "kinit",
        ],
        &[("-p", Whole)],
    ),
    program(&["zip", "unzip", "zipcloak", "mosquitto_pub", "mosquitto_sub", "ipmitool"], &[("-P", Whole)]),
    program(&["7z", "7za", "7zz", "7zr", "rar", "unrar"], &[("-p", Whole), ("-hp", Whole)]),
    Program {
        joined: Joined::Never,
        ..program(&["snmpget", "snmpwalk", "snmpset", "snmpbulkwalk"], &[("-A", Whole), ("-X", Whole), ("-c", Whole)])
    },
    program(&["lftp", "ncftp", "ncftpput", "ncftpget"], &[("-u", After(b',')), ("-p", Whole)]),
    Program {
        joined: Joined::Never,
        ..program(
            &["etcdctl", "nats", "influx"],
            &[("--user", After(b':')), ("-password", Whole), ("--token", Whole), ("-t", Whole)],
        )
    },
    program(&["ssh-keygen"], &[("-N", Whole), ("-P", Whole)]),
    Program {
        joined: Joined::Never,
        ..program(
            &["keytool", "jarsigner", "apksigner"],
            &[("-storepass", Whole), ("-keypass", Whole), ("--ks-pass", Source), ("--key-pass", Source)],
        )
    },
    Program {
        joined: Joined::Never,
        ..program(&["nuget", "dotnet"], &[("-k", Whole), ("-ApiKey", Whole), ("--api-key", Whole)])
    },
    Program {
        joined: Joined::Never,
        ..program(
            &["doctl", "fly", "flyctl", "gcloud", "wrangler", "netlify", "vercel"],
            &[("-t", Whole), ("--access-token", Whole), ("--auth", Whole)],
        )
    },
    Program {
        joined: Joined::Never,
        ..program(&["useradd", "usermod", "security", "dscl"], &[("-p", Whole), ("-w", Whole)])
    },
    Program {
        only_with: &["secret set", "variable set"],
        ..program(&["gh", "glab"], &[("-b", Whole), ("--body", Whole)])
    },
    Program {
        only_with: &["secret"],
        ..program(&["gh", "glab", "fly", "vault"], &[("-v", Whole), ("--value", Whole)])
    },
    program(&["htpasswd", "hydra", "medusa", "sqlplus", "impacket-psexec"], &[("-p", Whole)]),
    Program {
        joined: Joined::Never,
        ..program(&["signtool", "certutil", "pkcs12", "pk12util"], &[("-p", Whole), ("-W", Whole), ("-K", Whole)])
    },
];

/// Commands whose next word, or the one after, is a secret: `vault login X`, `htpasswd -b file user X`.
const PLACES: &[(&[&str], usize)] = &[
    (&["vault", "login"], 0),
    (&["cargo", "login"], 0),
    (&["rabbitmqctl", "add_user"], 1),
    (&["rabbitmqctl", "change_password"], 1),
    (&["wpa_passphrase"], 1),
    (&["htpasswd", "-b"], 2),
    (&["htpasswd", "-bc"], 2),
    (&["htpasswd", "-cb"], 2),
    (&["htpasswd", "-nb"], 1),
    (&["htpasswd", "-nbB"], 1),
    (&["htpasswd", "-bnB"], 1),
    (&["rclone", "obscure"], 0),
    (&["redis-cli", "AUTH"], 0),
    (&["redis-cli", "auth"], 0),
    (&["net", "user"], 1),
    (&["nmcli", "password"], 0),
    (&["gem", "signin"], 0),
    (&["infracost", "auth"], 0),
];

/// How long a command is read.
const COMMAND_MAX: usize = 600;

/// The programs' names, without repetition; of those that are of interest only with one word behind, that word as well.
pub(super) fn programs() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    let options: Vec<&str> = PROGRAMS.iter().flat_map(|program| program.names).copied().collect();
    let places =
        PLACES.iter().map(|(command, _)| (command[0], command.get(1).copied().filter(|word| !word.starts_with('-'))));
    // Options may stand between these and the word.
    let loose = ["redis-cli", "rabbitmqctl", "nmcli"];
    let places = places.map(|(name, word)| (name, word.filter(|_| !loose.contains(&name))));
    let places: Vec<_> = places.filter(|(name, _)| !options.contains(name)).collect();
    let mut names: Vec<_> = options.iter().map(|name| (*name, None)).chain(places).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// A word of a command, without its quotes.
#[derive(Clone)]
struct Word {
    range: Range<usize>,
    /// Not what documents write in brackets.
    plain: bool,
}

/// The words after `from`, to the end of the command.
fn words(text: &str, from: usize) -> (Vec<Word>, usize) {
    let limit = text.floor_char_boundary((from + COMMAND_MAX).min(text.len()));
    let bytes = &text.as_bytes()[..limit];
    let mut words = Vec::new();
    let mut at = from;
    while at < limit && words.len() < 60 {
        match bytes[at] {
            b' ' | b'\t' | b',' | b'[' | b'(' => at += 1,
            b'\\' if matches!(bytes.get(at + 1), Some(b'\n')) => at += 2,
            b'\\' if bytes[at..].starts_with(b"\\\r\n") => at += 3,
            b'\\' if bytes[at..].starts_with(b"\\\\\\n") => at += 4,
            b'\\' if matches!(bytes.get(at + 1), Some(b'"' | b'\'')) => at += 1,
            b'\n' | b'\r' | b'|' | b';' | b')' | b']' | b'&' | b'`' => break,
            b'\\' if matches!(bytes.get(at + 1), Some(b'n' | b'r')) => break,
            quote @ (b'"' | b'\'') => {
                let start = at + 1;
                let escaped = at > 0 && bytes[at - 1] == b'\\';
                let len = bytes[start..].iter().take_while(|b| **b != quote && **b != b'\n').count();
                let mut end = start + len;
                if bytes.get(end) != Some(&quote) {
                    // The text around it ends here.
                    at = start;
                    continue;
                }
                at = end + 1;
                if escaped {
                    end -= usize::from(bytes[..end].ends_with(b"\\"));
                }
                words.push(Word { range: start..end, plain: true });
            }
            _ => {
                let start = at;
                let mut quote = None;
                while at < limit {
                    match (bytes[at], quote) {
                        (b, Some(open)) if b == open => quote = None,
                        (b'\n', _) => break,
                        (_, Some(_)) => {}
                        (b @ (b'"' | b'\''), None)
                            if at > start && matches!(bytes[at - 1], b'=' | b'p' | b'P' | b'u' | b'U' | b':') =>
                        {
                            quote = Some(b)
                        }
                        (b' ' | b'\t' | b'"' | b'\'' | b'`' | b';' | b'|' | b')' | b'\r', None) => break,
                        (b'\\', None) if matches!(bytes.get(at + 1), Some(b'"' | b'\'' | b'\n' | b'n')) => break,
                        _ => {}
                    }
                    at += 1;
                }
                if at == start {
                    break;
                }
                words.push(Word { range: start..at, plain: !matches!(bytes[start], b'<' | b'{') });
            }
        }
    }
    (words, at)
}

fn take(text: &str, range: Range<usize>, part: Part, sure: bool, found: &mut Vec<Range<usize>>) {
    let mut range = range;
    // Quotes inside the word: -p'x'.
    if let Some(quote) = text[range.clone()].chars().next().filter(|c| matches!(c, '"' | '\'')) {
        range.start += 1;
        range.end -= usize::from(text[range.clone()].ends_with(quote));
    }
    let value = &text[range.clone()];
    let start = match part {
        Whole => 0,
        After(sign) => match value.bytes().position(|b| b == sign) {
            Some(at) if at > 0 || sign == b':' => at + 1,
            _ => return,
        },
        Source => match ["pass:", "plain:"].iter().find_map(|source| value.strip_prefix(source)) {
            Some(rest) => value.len() - rest.len(),
            None => return,
        },
        Cookies => return cookies(text, range, found),
    };
    let secret = &value[start..];
    let trust = if sure { Trust::Certain } else { Trust::Option };
    let known = is_stopword(secret)
        || is_password_word(secret)
        || secret.contains(MARK)
        || secret.starts_with(['-', '/', '<', '[', '{', '(']);
    let name = secret.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    if !known && !name && is_secret(Name::Password, secret, false, trust) {
        found.push(range.start + start..range.end);
    }
}

/// Masks the values of `a=x; b=y` that look like more than a setting.
pub(super) fn cookies(text: &str, range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let mut at = range.start;
    for pair in text[range].split(';').take(64) {
        let (start, next) = (at, at + pair.len() + 1);
        at = next;
        let Some(equals) = pair.find('=') else { continue };
        let (name, value) = (pair[..equals].trim(), &pair[equals + 1..]);
        if ["path", "domain", "expires", "max-age", "samesite", "version"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
        {
            continue;
        }
        let value = value.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '\\'));
        let lower = name.to_ascii_lowercase();
        let known = ["sess", "sid", "auth", "token", "csrf", "xsrf", "remember", "jwt", "login", "user", "identity"]
            .iter()
            .any(|word| lower.contains(word));
        let trust = if known { Trust::Option } else { Trust::Code };
        let long = value.len() >= if known { 8 } else { 16 };
        let encoded = known && value.contains('%') && value.len() >= 20 && value.bytes().any(|b| b.is_ascii_digit());
        if long
            && !value.contains(MARK)
            && (encoded || is_secret(if known { Name::Password } else { Name::Other }, value, true, trust))
        {
            found.push(start + equals + 1..start + equals + 1 + value.len());
        }
    }
}

/// The secrets in the arguments of the program whose name ends at `from`, and how far they were read.
pub(super) fn arguments(text: &str, name: &str, from: usize, found: &mut Vec<Range<usize>>) -> usize {
    let (words, end) = words(text, from);
    let word = |index: usize| words.get(index).map(|word: &Word| &text[word.range.clone()]);
    for program in PROGRAMS.iter().filter(|program| program.names.contains(&name)) {
        let command = &text[from..end];
        if !program.only_with.is_empty() && !program.only_with.iter().any(|word| command.contains(word)) {
            continue;
        }
        for (index, at) in words.iter().enumerate() {
            let this = &text[at.range.clone()];
            for (option, part) in program.options {
                let Some(rest) = this.strip_prefix(option) else { continue };
                let short = option.len() == 2;
                if rest.is_empty() {
                    let Some(next) = words.get(index + 1).filter(|next| next.plain) else { continue };
                    let next_text = &text[next.range.clone()];
                    if !next_text.starts_with('-') {
                        take(text, next.range.clone(), *part, program.joined != Joined::Only, found);
                    }
                } else if short && program.joined != Joined::Never && !rest.starts_with(['=', '-']) {
                    take(text, at.range.start + 2..at.range.end, *part, true, found);
                } else if let Some(value) = rest.strip_prefix('=') {
                    take(text, at.range.end - value.len()..at.range.end, *part, true, found);
                }
            }
        }
    }
    for (command, place) in PLACES.iter().filter(|place| place.0[0] == name) {
        let found_at = match command.get(1) {
            None => Some(0),
            Some(second) => (0..words.len()).find(|index| word(*index) == Some(second)).map(|index| index + 1),
        };
        let secret = found_at.and_then(|at| words.get(at + place)).filter(|word| word.plain);
        if let Some(secret) = secret {
            take(text, secret.range.clone(), Whole, false, found);
        }
    }
    end
}
