//! The daemon as a service of the user: its files, and the service manager.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use proto::paths::Paths;

use crate::programs;
use cc_langfuse::environment;

const SERVICE: &str = include_str!("../../../../systemd/cc-langfused.service");
const NAMESPACES: &str = include_str!("../../../../systemd/cc-langfused.service.d/10-namespaces.conf");
const SOCKET: &str = include_str!("../../../../systemd/cc-langfused.socket");
const PLIST: &str = include_str!("../../../../launchd/cc-langfused.plist");

/// The path of the daemon in the units.
const EXEC: &str = "%h/.local/bin/cc-langfused";
const PLIST_EXEC: &str = "/Users/YOU/.local/bin/cc-langfused";

/// The part of the unit that needs user namespaces.
pub(crate) const DROP_IN: &str = "cc-langfused.service.d/10-namespaces.conf";

/// How long a manager may take: systemd itself gives a service 90 s to start.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// The service managers that can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Systemd,
    Launchd,
}

/// The message after success, or what is left to do.
pub(crate) type Outcome = Result<String, String>;

impl Manager {
    /// The service manager of this machine.
    pub(crate) fn find() -> Option<Self> {
        let answers =
            |program: &str, args: &[&str]| programs::on_path(program).is_some() && call(program, args).is_ok();
        if answers("systemctl", &["--user", "show-environment"]) {
            Some(Self::Systemd)
        } else if answers("launchctl", &["print", &domain()]) {
            Some(Self::Launchd)
        } else {
            None
        }
    }

    /// Its name in the record.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Launchd => "launchd",
        }
    }

    /// Parses the name in the record.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Systemd, Self::Launchd].into_iter().find(|manager| manager.name() == name)
    }

    /// The files it needs to run `daemon` in `home`.
    pub(crate) fn files(self, home: &Path, paths: &Paths, daemon: &str) -> anyhow::Result<Vec<(PathBuf, String)>> {
        let moved = paths.state != Paths::new(home, None).state;
        let state = paths.state.to_str().context("the state directory's path is not UTF-8")?;
        Ok(match self {
            Self::Systemd => {
                let dir = units(home);
                let mut service = SERVICE.replace(EXEC, &systemd_word(daemon));
                let mut namespaces = NAMESPACES.to_owned();
                if moved {
                    let word = systemd_word(state);
                    let set = systemd_word(&format!("{}={state}", proto::env::STATE_DIR));
                    service = service.replace(
                        "\n[Install]",
                        &format!("# Where it was when this was set up.\nEnvironment={set}\n\n[Install]"),
                    );
                    namespaces.push_str(&format!(
                        "# The state directory when this was set up.\nExecStartPre=+mkdir -p \
                        {word}\nReadWritePaths={word}\n"
                    ));
                }
                let mut files = vec![(dir.join("cc-langfused.service"), service), (dir.join(DROP_IN), namespaces)];
                if !moved && paths.socket.starts_with(&paths.state) {
                    files.push((dir.join("cc-langfused.socket"), SOCKET.to_owned()));
                }
                files
            }
            Self::Launchd => {
                let home_text = home.to_str().context("HOME is not UTF-8")?;
                let mut plist = PLIST.replace(PLIST_EXEC, &xml(daemon)).replace("/Users/YOU", &xml(home_text));
                if moved {
                    let set = format!(
                        "    <!-- The state directory when this was set up. -->\n    <key>EnvironmentVariables</key>\n    \
                         <dict>\n        <key>{}</key>\n        <string>{}</string>\n    </dict>\n</dict>\n</plist>",
                        proto::env::STATE_DIR,
                        xml(state)
                    );
                    plist = plist.replace("</dict>\n</plist>", &set);
                }
                vec![(agent(home), plist)]
            }
        })
    }

    /// Starts the daemon, now and at every login; restarts it if its files `changed`.
    ///
    /// # Errors
    /// If the manager does not answer.
    pub(crate) fn start(self, home: &Path, changed: bool) -> anyhow::Result<Outcome> {
        match self {
            Self::Systemd => start_systemd(home, changed),
            Self::Launchd => {
                let path = agent(home);
                let path = path.to_str().context("HOME is not UTF-8")?;
                if changed {
                    // An error because it is not loaded does not matter.
                    let _ = call("launchctl", &["bootout", &format!("{}/cc-langfused", domain())]);
                } else if call("launchctl", &["print", &format!("{}/cc-langfused", domain())]).is_ok() {
                    return Ok(Ok("running under launchd".into()));
                }
                Ok(match call("launchctl", &["bootstrap", &domain(), path]) {
                    Ok(()) => Ok("running under launchd".into()),
                    Err(why) => Err(format!("launchd cannot start it: {why:#}")),
                })
            }
        }
    }

    /// True if the service works without user namespaces.
    pub(crate) fn is_plain(self, home: &Path) -> bool {
        self == Self::Systemd && !units(home).join(DROP_IN).exists()
    }

    /// The daemon has been set up there.
    pub(crate) fn is_set_up(self, home: &Path) -> bool {
        match self {
            Self::Systemd => !present(home).is_empty(),
            Self::Launchd => agent(home).exists(),
        }
    }

    /// Stops the daemon until it is started again.
    ///
    /// # Errors
    /// If the manager fails to.
    pub(crate) fn halt(self, home: &Path) -> anyhow::Result<()> {
        match self {
            Self::Systemd => call("systemctl", &[&["--user", "stop"][..], &present(home)].concat()),
            Self::Launchd => {
                // An unknown service is stopped already.
                let _ = call("launchctl", &["bootout", &format!("{}/cc-langfused", domain())]);
                Ok(())
            }
        }
    }

    /// Stops the daemon for good.
    pub(crate) fn stop(self, home: &Path) {
        // An unknown service is stopped already.
        let _ = match self {
            Self::Systemd => {
                let mut args = vec!["--user", "disable", "--now"];
                args.extend(present(home));
                call("systemctl", &args)
            }
            Self::Launchd => call("launchctl", &["bootout", &format!("{}/cc-langfused", domain())]),
        };
    }

    /// Makes it notice that its files were removed.
    pub(crate) fn forget(self) {
        if self == Self::Systemd {
            let _ = call("systemctl", &["--user", "daemon-reload"]);
            let _ = call("systemctl", &["--user", "reset-failed", "cc-langfused.service"]);
        }
    }
}

/// The existing units: the socket is optional.
fn present(home: &Path) -> Vec<&'static str> {
    ["cc-langfused.socket", "cc-langfused.service"].into_iter().filter(|unit| units(home).join(unit).exists()).collect()
}

fn start_systemd(home: &Path, changed: bool) -> anyhow::Result<Outcome> {
    let units = present(home);
    let reload = || call("systemctl", &["--user", "daemon-reload"]);
    reload()?;
    call("systemctl", &[&["--user", "enable"][..], &units].concat())?;
    let verb = if changed { "restart" } else { "start" };
    let start = || call("systemctl", &[&["--user", verb][..], &units].concat());
    let Err(why) = start() else { return Ok(Ok("running under systemd".into())) };
    let drop_in = self::units(home).join(DROP_IN);
    let show = ["--user", "show", "--property=ExecMainStatus", "--value", "cc-langfused.service"];
    let status: u32 = said("systemctl", &show)?.trim().parse().unwrap_or_default();
    if (217..=226).contains(&status) && drop_in.exists() {
        super::files::remove(&drop_in)?;
        reload()?;
        let _ = call("systemctl", &["--user", "reset-failed", "cc-langfused.service"]);
        if start().is_ok() {
            return Ok(Ok(format!(
                "running under systemd, without the hardening that needs user namespaces, which this system forbids \
                    (status {status})"
            )));
        }
    }
    Ok(Err(format!("systemd cannot start it: {why:#}; see: systemctl --user status cc-langfused")))
}

/// The directory of user units.
fn units(home: &Path) -> PathBuf {
    let config = environment::absolute("XDG_CONFIG_HOME");
    config.unwrap_or_else(|| home.join(".config")).join("systemd/user")
}

fn agent(home: &Path) -> PathBuf {
    home.join("Library/LaunchAgents/cc-langfused.plist")
}

fn domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

fn call(program: &str, args: &[&str]) -> anyhow::Result<()> {
    said(program, args).map(drop)
}

fn said(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let path = programs::on_path(program).with_context(|| format!("{program} is not on PATH"))?;
    let mut command = Command::new(path);
    command.args(args);
    let said = programs::run(command, TIME_LIMIT).with_context(|| format!("{program} {}", args.join(" ")))?;
    if !said.status.success() {
        bail!("{program} {}: {}", args.join(" "), said.err.trim());
    }
    Ok(said.out)
}

/// One word of a unit file.
fn systemd_word(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%");
    if escaped.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=%".contains(c)) {
        escaped
    } else {
        format!("\"{escaped}\"")
    }
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
