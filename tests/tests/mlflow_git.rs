//! Traces in MLflow's file store are kept out of commits: by a line in the repository's own exclude file, by `setup`
//! and by the first trace.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tests::{
    Home, Story,
    setup::{ctl, git, succeeds, text},
};

const STORE: &str = ".claude/mlflow";

/// A repository; `None` where there is no git.
fn repository(home: &Home, name: &str) -> Option<PathBuf> {
    let dir = home.project(name);
    git(&dir, &["init", "-q"])?;
    git(&dir, &["-c", "user.email=a@b", "-c", "user.name=x", "commit", "-q", "--allow-empty", "-m", "1"])?;
    Some(dir)
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    fs::write(path, text).expect("written");
}

/// One turn in `project`.
fn play_turn(home: &Home, project: &str, session: &str, more: &[(&str, &str)]) {
    let mut story = Story::new(home, project, session);
    story.turn("q", "a");
    let dir = home.project(project).display().to_string();
    let all = [("MLFLOW_CLAUDE_TRACING_ENABLED", "true"), ("CLAUDE_PROJECT_DIR", &*dir)];
    let env = all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    home.hook(&story.stop("a"), &env.collect::<Vec<_>>());
}

/// The files that `git add -A` would take.
fn taken(dir: &Path) -> String {
    git(dir, &["add", "-A", "--dry-run", ":/"]).unwrap_or_default()
}

/// The lines of an exclude file, without comments.
fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn the_first_trace_adds_a_line_to_the_repositorys_exclude_file() {
    let home = Home::new();
    let Some(plain) = repository(&home, "plain") else { return };
    let below = plain.join("a dir");
    fs::create_dir_all(&below).expect("made");
    let _ = repository(&home, "named");
    let _ = repository(&home, "main");
    git(&home.project("main"), &["worktree", "add", "-q", "../tree"]);
    let _daemon = home.daemon();
    play_turn(&home, "plain", "one", &[]);
    play_turn(&home, "plain/a dir", "two", &[]);
    play_turn(&home, "named", "three", &[("MLFLOW_TRACKING_URI", "./mlruns")]);
    play_turn(&home, "tree", "four", &[]);
    play_turn(&home, "outside", "five", &[]);
    home.flush();
    let exclude = |name: &str| lines(&home.path().join(name).join(".git/info/exclude"));
    assert_eq!(exclude("plain"), ["/.claude/mlflow/", "/a\\ dir/.claude/mlflow/"]);
    assert_eq!(exclude("named"), ["/mlruns/"]);
    // A linked worktree uses the list of its main one.
    assert_eq!(exclude("main"), ["/.claude/mlflow/"]);
    for name in ["plain", "named", "tree"] {
        // This program's own `.gitignore` would keep them out as well.
        let _ = fs::remove_file(home.path().join(name).join(STORE).join(".gitignore"));
        assert!(home.path().join(name).join(if name == "named" { "mlruns/0" } else { STORE }).is_dir(), "{name}");
        assert_eq!(taken(&home.path().join(name)), "", "{name}");
    }
    assert!(home.path().join("outside").join(STORE).join("runs/0/meta.yaml").exists());
    // Another daemon adds nothing.
    drop(_daemon);
    let _daemon = home.daemon();
    play_turn(&home, "plain", "six", &[]);
    home.flush();
    assert_eq!(exclude("plain").len(), 2);
}

#[test]
fn no_trace_is_written_where_the_repositorys_rules_would_commit_it() {
    let home = Home::new();
    let Some(dir) = repository(&home, "app") else { return };
    write(&dir.join(STORE).join(".gitignore"), "!*\n");
    let _daemon = home.daemon();
    play_turn(&home, "app", "s", &[]);
    let status = home.status_until("it to be parked", |status| status["destinations"][0]["state"] == "parked");
    let why = status["destinations"][0]["last_error"].as_str().expect("a reason");
    assert!(why.contains(".gitignore:1:!*") && why.contains("remove that line"), "{why}");
    assert!(!dir.join(STORE).join("runs").exists());
    fs::remove_file(dir.join(STORE).join(".gitignore")).expect("removed");
    home.flush();
    assert!(dir.join(STORE).join("runs/0/meta.yaml").exists());
    assert_eq!(taken(&dir), "");
}

#[test]
fn programs_and_links_of_a_repository_are_not_used() {
    let home = Home::new();
    let Some(dir) = repository(&home, "app") else { return };
    let canary = home.path().join("ran");
    let script = dir.join(".git/run.sh");
    write(&script, &format!("#!/bin/sh\ntouch {}\n", canary.display()));
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    let run = script.to_str().expect("UTF-8");
    for key in ["core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "credential.helper"] {
        git(&dir, &["config", key, run]);
    }
    git(&dir, &["config", "core.hooksPath", ".git"]);
    // A file that is not this program's to change.
    let victim = home.path().join("victim");
    write(&victim, "whole\n");
    let exclude = dir.join(".git/info/exclude");
    let _ = fs::remove_file(&exclude);
    fs::create_dir_all(exclude.parent().expect("a directory")).expect("made");
    symlink(&victim, &exclude).expect("a link");
    let _daemon = home.daemon();
    play_turn(&home, "app", "s", &[]);
    home.flush();
    assert!(dir.join(STORE).join("runs/0/meta.yaml").exists());
    assert_eq!(fs::read_to_string(&victim).expect("text"), "whole\n");
    assert!(!canary.exists());
    // This program's own `.gitignore` does it then.
    git(&dir, &["config", "--unset", "core.fsmonitor"]);
    assert_eq!(taken(&dir), "");
}

#[test]
fn setup_adds_the_exclude_line_or_refuses_if_it_has_no_effect() {
    let home = Home::new();
    let Some(dir) = repository(&home, "app") else { return };
    let setup = ["setup", "--mlflow", "--project", "--yes", "--no-service"];
    succeeds(&ctl(&home, &dir, None, &setup));
    let exclude = dir.join(".git/info/exclude");
    assert!(lines(&exclude).contains(&"/.claude/mlflow/".to_owned()), "{:?}", lines(&exclude));
    let doctor = text(&ctl(&home, &dir, None, &["doctor", "--no-probe"]));
    assert!(doctor.contains("git ignores"), "{doctor}");
    // A second run adds nothing, and earlier lines are kept.
    succeeds(&ctl(&home, &dir, None, &setup));
    assert_eq!(lines(&exclude).iter().filter(|line| line.contains("mlflow")).count(), 1);
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert_eq!(lines(&exclude), [""; 0]);
    // A directory that the user chose, and one outside.
    succeeds(&ctl(&home, &dir, None, &[&setup[..], &["--tracking-uri", "./runs"]].concat()));
    assert!(lines(&exclude).contains(&"/runs/".to_owned()));
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));

    let wants = home.project("wants");
    git(&wants, &["init", "-q"]);
    for rule in ["!.claude/mlflow/", "!mlflow", "!/.claude/mlflow"] {
        write(&wants.join(".gitignore"), &format!("*.log\n{rule}\n"));
        let refused = ctl(&home, &wants, None, &setup);
        let said = text(&refused);
        assert!(!refused.status.success() && said.contains(&format!(".gitignore:2:{rule}")), "{said}");
        assert!(!wants.join(".claude/settings.local.json").exists());
    }
}
