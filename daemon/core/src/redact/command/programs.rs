//! Which options and arguments of programs take a secret.

use super::{
    Joined,
    Part::{self, *},
    Program,
};

const fn program(names: &'static [&'static str], options: &'static [(&'static str, Part)]) -> Program {
    Program { names, options, joined: Joined::May, only_with: &[] }
}

pub(super) const PROGRAMS: &[Program] = &[
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
            "altool",
            "notarytool",
            "rabbitmqadmin",
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
    Program {
        only_with: &["SecureString", "pass", "secret", "token", "key"],
        ..program(&["aws"], &[("--value", Whole), ("--secret-string", Whole)])
    },
    Program { only_with: &["secret set"], ..program(&["az"], &[("--value", Whole)]) },
    program(&["kubectl", "oc"], &[("--from-literal", After(b'='))]),
    Program { only_with: &["bearer"], ..program(&["http", "https", "xh"], &[("-a", Whole), ("--auth", Whole)]) },
    program(&["plink", "pscp", "psftp", "putty", "kitty"], &[("-pw", Whole)]),
    program(&["psexec", "PsExec", "psexec64"], &[("-p", Whole)]),
    program(&["schtasks"], &[("/rp", Whole), ("/RP", Whole), ("/p", Whole)]),
    Program { only_with: &["source"], ..program(&["dotnet", "nuget"], &[("-p", Whole), ("-Password", Whole)]) },
    Program { only_with: &["user ", "remote login"], ..program(&["conan"], &[("-p", Whole)]) },
    program(&["htpasswd", "hydra", "medusa", "sqlplus", "impacket-psexec"], &[("-p", Whole)]),
    Program {
        joined: Joined::Never,
        ..program(&["signtool", "certutil", "pkcs12", "pk12util"], &[("-p", Whole), ("-W", Whole), ("-K", Whole)])
    },
];

/// Words of settings that are ordinary words too.
pub(super) const PLAIN_WORDS: &[&str] =
    &["enable", "snmp-server", "stats", "option", "sentinel", "net", "bundle", "composer"];

/// The words of a command, how many words come between them and the secret, and which part of its word the secret is.
type Place = (&'static [&'static str], usize, Part);

/// Programs of Oracle, which take `user/X@database`.
pub(super) const ORACLE: &[&str] = &["sqlplus", "sqlldr", "expdp", "impdp", "exp", "imp", "rman", "sqlcl"];

/// Secret stores: a `name=X` that is put there is a secret.
pub(super) const STORES: &[(&str, &[&str])] = &[("vault", &["put", "patch", "write"])];

/// Commands followed by a secret, directly or one or two words later: `vault login X`, `htpasswd -b file user X`.
pub(super) const PLACES: &[Place] = &[
    (&["vault", "login"], 0, Whole),
    (&["cargo", "login"], 0, Whole),
    (&["rabbitmqctl", "add_user"], 1, Whole),
    (&["rabbitmqctl", "change_password"], 1, Whole),
    (&["wpa_passphrase"], 1, Whole),
    (&["htpasswd", "-b"], 2, Whole),
    (&["htpasswd", "-bc"], 2, Whole),
    (&["htpasswd", "-cb"], 2, Whole),
    (&["htpasswd", "-nb"], 1, Whole),
    (&["htpasswd", "-nbB"], 1, Whole),
    (&["htpasswd", "-bnB"], 1, Whole),
    (&["rclone", "obscure"], 0, Whole),
    (&["redis-cli", "AUTH"], 0, Whole),
    (&["redis-cli", "auth"], 0, Whole),
    (&["net", "user"], 1, Whole),
    (&["nmcli", "password"], 0, Whole),
    (&["gem", "signin"], 0, Whole),
    (&["infracost", "auth"], 0, Whole),
    (&["vault", "unseal"], 0, Whole),
    (&["ansible-vault", "encrypt_string"], 0, Whole),
    (&["bw", "unlock"], 0, Whole),
    (&["chamber", "write"], 2, Whole),
    (&["mc", "set"], 3, Whole),
    (&["poetry", "config"], 2, Whole),
    (&["composer", "config"], 2, Whole),
    (&["bundle", "config"], 1, After(b':')),
    (&["nsupdate", "-y"], 0, AfterLast(b':')),
    (&["tsig-keygen", "-k"], 0, AfterLast(b':')),
    (&["ConvertTo-SecureString"], 0, Whole),
    (&["smbpasswd", "-w"], 0, Whole),
    // Settings of servers and devices in the same form.
    (&["rootpw"], 0, Whole),
    (&["enable", "secret"], 0, Whole),
    (&["enable", "password"], 0, Whole),
    (&["snmp-server", "community"], 0, Whole),
    (&["rocommunity"], 0, Whole),
    (&["rwcommunity"], 0, Whole),
    (&["stats", "auth"], 0, After(b':')),
    (&["sentinel", "auth-pass"], 1, Whole),
    (&["masterauth"], 0, Whole),
    (&["option", "key"], 0, Whole),
];
