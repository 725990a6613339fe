//! `setup --project` writes no secret where git would commit it, whatever the repository's own rules are.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use tests::{
    Home, bins,
    home::run,
    setup::{KEYS, QUIET, SECRET, files, git, setup, succeeds, text},
};

const FILE: &str = ".claude/settings.local.json";

/// Runs git with its global settings in `home`; returns its output.
fn git_of(home: &Home, dir: &Path, args: &[&str]) -> String {
    let mut command = home.command(Path::new("git"));
    command.args(["-c", "user.email=a@b", "-c", "user.name=x", "-c", "protocol.file.allow=always"]);
    command.args(args).current_dir(dir);
    let output = run(command, b"").0;
    assert!(output.status.success(), "git {args:?}: {}", text(&output));
    text(&output)
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    fs::write(path, text).expect("written");
}

/// A repository with one commit; `None` if git is missing.
fn repository(home: &Home, name: &str) -> Option<PathBuf> {
    let dir = home.project(name);
    git(&dir, &["init", "-q"])?;
    write(&dir.join("a"), "x");
    git_of(home, &dir, &["add", "a"]);
    git_of(home, &dir, &["commit", "-qm", "1"]);
    Some(dir)
}

/// True if `git add -A` over the whole working tree takes the secret.
fn takes_the_secret(home: &Home, dir: &Path) -> bool {
    git_of(home, dir, &["add", "-A", ":/"]);
    let mut grep = home.command(Path::new("git"));
    grep.args(["grep", "--cached", "-q", SECRET, "--", ":/"]).current_dir(dir);
    let found = run(grep, b"").0;
    assert!(found.stderr.is_empty(), "{}", text(&found));
    found.status.success()
}

/// Prepares a repository; returns the directory in which `setup` is run.
type Prepare = fn(&Home, &Path) -> PathBuf;

#[test]
fn nothing_is_written_where_the_repositorys_rules_would_commit_it() {
    // The preparation, and how the responsible rule is named.
    let kinds: [(&str, Prepare, &str); 8] = [
        (
            "the file itself",
            |_, dir| {
                write(&dir.join(".gitignore"), "x\n!.claude/settings.local.json\n");
                dir.to_owned()
            },
            ".gitignore:2:!.claude/settings.local.json",
        ),
        (
            "all of a directory that is committed",
            |home, dir| {
                write(&dir.join(".gitignore"), ".*\n!.gitignore\n!.claude/\n!.claude/**\n");
                git_of(home, dir, &["add", "-A"]);
                git_of(home, dir, &["commit", "-qm", "2"]);
                dir.to_owned()
            },
            ".gitignore:4:!.claude/**",
        ),
        (
            "a file of its own in that directory",
            |_, dir| {
                write(&dir.join(".claude/.gitignore"), "!*\n");
                dir.to_owned()
            },
            ".claude/.gitignore:1:!*",
        ),
        (
            "below, wherever it is",
            |_, dir| {
                write(&dir.join(".gitignore"), "!**/settings.local.json\n");
                fs::create_dir_all(dir.join("sub/.claude")).expect("made");
                dir.join("sub")
            },
            ".gitignore:1:!**/settings.local.json",
        ),
        (
            "a directory that is no repository, in one that is",
            |_, dir| {
                write(&dir.join("deep/er/.gitignore"), "!*.json\n");
                fs::create_dir_all(dir.join("deep/er/.claude")).expect("made");
                // Git does not accept this as a repository.
                fs::create_dir_all(dir.join("deep/er/.git")).expect("made");
                dir.join("deep/er")
            },
            "deep/er/.gitignore:1:!*.json",
        ),
        (
            "a linked working tree",
            |home, dir| {
                write(&dir.join(".gitignore"), "!.claude/*\n");
                git_of(home, dir, &["add", ".gitignore"]);
                git_of(home, dir, &["commit", "-qm", "2"]);
                let tree = home.path().join("tree");
                git_of(home, dir, &["worktree", "add", "-q", tree.to_str().expect("text")]);
                tree
            },
            ".gitignore:1:!.claude/*",
        ),
        (
            "a submodule",
            |home, dir| {
                let other = repository(home, "other").expect("git");
                write(&other.join(".gitignore"), "!.claude/settings.local.*\n");
                git_of(home, &other, &["add", ".gitignore"]);
                git_of(home, &other, &["commit", "-qm", "2"]);
                git_of(home, dir, &["submodule", "--quiet", "add", other.to_str().expect("text"), "module"]);
                dir.join("module")
            },
            ".gitignore:1:!.claude/settings.local.*",
        ),
        (
            "only the copy of what was there before",
            |_, dir| {
                write(&dir.join(".gitignore"), "!*.before-*\n");
                dir.to_owned()
            },
            ".gitignore:1:!*.before-*",
        ),
    ];
    for (kind, prepare, rule) in kinds {
        let home = Home::new();
        let Some(dir) = repository(&home, "work") else { return };
        let dir = prepare(&home, &dir);
        let before = files(home.path());
        for more in [&["--dry-run", "--no-check", "--no-service"], &QUIET] {
            let refused = setup(&home, &dir, "--project", more);
            let said = text(&refused);
            assert_eq!(refused.status.code(), Some(1), "{kind}: {said}");
            assert!(said.contains(rule) && said.contains("--user"), "{kind}: {said}");
            assert!(files(home.path()) == before, "{kind}: something was written");
            assert!(!dir.join(FILE).exists() && !said.contains(SECRET), "{kind}");
        }
        // The alternative that it offers.
        succeeds(&setup(&home, &dir, "--user", &QUIET));
        assert!(!takes_the_secret(&home, &dir), "{kind}");
    }
}

#[test]
fn a_file_that_git_ignores_is_written_and_stays_untracked() {
    let kinds: [(&str, Prepare); 8] = [
        ("no rule at all", |_, dir| dir.to_owned()),
        ("a rule that ignores it", |_, dir| {
            write(&dir.join(".gitignore"), ".claude/\n");
            dir.to_owned()
        }),
        ("a rule that wants another file", |_, dir| {
            write(&dir.join(".gitignore"), "!.claude/settings.json\n");
            dir.to_owned()
        }),
        ("the user's own ignore file, which comes last", |home, dir| {
            write(&home.path().join(".gitignore"), "!.claude/settings.local.json\n");
            let file = home.path().join(".gitignore");
            git_of(home, dir, &["config", "--global", "core.excludesFile", file.to_str().expect("text")]);
            dir.to_owned()
        }),
        ("an earlier rule in the same exclude file", |_, dir| {
            write(&dir.join(".git/info/exclude"), "!.claude/settings.local.json\n");
            dir.to_owned()
        }),
        ("a linked working tree", |home, dir| {
            let tree = home.path().join("tree");
            git_of(home, dir, &["worktree", "add", "-q", tree.to_str().expect("text")]);
            tree
        }),
        ("a submodule", |home, dir| {
            let other = repository(home, "other").expect("git");
            git_of(home, dir, &["submodule", "--quiet", "add", other.to_str().expect("text"), "module"]);
            dir.join("module")
        }),
        ("a directory whose working tree is around it", |home, dir| {
            let inner = dir.join("inner");
            fs::create_dir_all(inner.join(".claude")).expect("made");
            fs::remove_dir_all(dir.join(".git")).expect("removed");
            git_of(home, &inner, &["init", "-q"]);
            git_of(home, &inner, &["config", "core.worktree", dir.to_str().expect("text")]);
            inner
        }),
    ];
    for (kind, prepare) in kinds {
        let home = Home::new();
        let Some(dir) = repository(&home, "work") else { return };
        let dir = prepare(&home, &dir);
        let said = succeeds(&setup(&home, &dir, "--project", &QUIET));
        assert!(fs::read_to_string(dir.join(FILE)).expect("written").contains(SECRET), "{kind}: {said}");
        assert!(!takes_the_secret(&home, &dir), "{kind}: {said}");
    }
}

#[test]
fn nothing_is_written_if_git_cannot_answer() {
    let kinds: [(&str, Prepare); 3] = [
        ("a bare repository around the project", |home, dir| {
            git_of(home, dir, &["config", "core.bare", "true"]);
            dir.to_owned()
        }),
        ("a repository that is damaged", |_, dir| {
            fs::remove_file(dir.join(".git/HEAD")).expect("removed");
            dir.to_owned()
        }),
        ("a repository that is gone", |_, dir| {
            fs::remove_dir_all(dir.join(".git")).expect("removed");
            write(&dir.join(".git"), "gitdir: /nowhere\n");
            dir.to_owned()
        }),
    ];
    for (kind, prepare) in kinds {
        let home = Home::new();
        let Some(dir) = repository(&home, "work") else { return };
        let dir = prepare(&home, &dir);
        let before = files(home.path());
        let refused = setup(&home, &dir, "--project", &QUIET);
        let said = text(&refused);
        assert!(refused.status.code() == Some(1) && said.contains("--user"), "{kind}: {said}");
        assert!(files(home.path()) == before, "{kind}: something was written");
    }
}

#[test]
fn a_tracked_file_gets_no_secret() {
    let kinds: [(&str, Prepare); 4] = [
        ("a link to a file elsewhere", |home, dir| {
            write(&home.path().join("own.json"), "{}");
            fs::create_dir_all(dir.join(".claude")).expect("made");
            symlink(home.path().join("own.json"), dir.join(FILE)).expect("a link");
            git_of(home, dir, &["add", "-f", FILE]);
            dir.to_owned()
        }),
        ("the file", |home, dir| {
            write(&dir.join(FILE), "{}");
            git_of(home, dir, &["add", "-f", FILE]);
            dir.to_owned()
        }),
        ("what the file links to", |home, dir| {
            write(&dir.join("linked.json"), "{}");
            git_of(home, dir, &["add", "linked.json"]);
            fs::create_dir_all(dir.join(".claude")).expect("made");
            symlink("../linked.json", dir.join(FILE)).expect("a link");
            dir.to_owned()
        }),
        ("the file in a repository that the environment names", |home, dir| {
            let (other, tree) = (home.path().join("dotfiles"), home.project("plain"));
            git_of(home, dir, &["init", "-q", "--bare", other.to_str().expect("text")]);
            tree
        }),
    ];
    for (kind, prepare) in kinds {
        let home = Home::new();
        let Some(dir) = repository(&home, "work") else { return };
        let dir = prepare(&home, &dir);
        let before = files(home.path());
        let mut command = home.command(&bins().ctl);
        command.args(["setup", "--project"]).args(KEYS).args(QUIET).current_dir(&dir);
        let named = home.path().join("dotfiles");
        if named.exists() {
            // Its rules include everything.
            write(&dir.join(".gitignore"), "!*\n");
            command.env("GIT_DIR", &named).env("GIT_WORK_TREE", &dir);
        }
        let refused = run(command, b"").0;
        let said = text(&refused);
        assert!(refused.status.code() == Some(1) && said.contains("--user"), "{kind}: {said}");
        let after = files(home.path());
        assert!(after.iter().all(|(_, _, text)| !String::from_utf8_lossy(text).contains(SECRET)), "{kind}");
        assert!(named.exists() || after == before, "{kind}: something was written");
    }
}

#[test]
fn an_exclude_line_without_effect_is_removed_again() {
    let home = Home::new();
    let Some(dir) = repository(&home, "work") else { return };
    write(&dir.join(".claude/x"), "");
    let before = files(home.path());
    // A git with inconsistent answers: nothing proves that the line would help.
    let real = String::from_utf8(Command::new("sh").args(["-c", "command -v git"]).output().expect("sh").stdout)
        .expect("text");
    let bin = home.path().join("bin");
    let ignores = format!("case \"$*\" in *check-ignore*) exit 1;; esac\nexec {} \"$@\"", real.trim());
    tests::setup::script(&bin, "git", &ignores);
    let args = [&["setup", "--project"][..], &KEYS, &QUIET].concat();
    let refused = tests::setup::ctl(&home, &dir, Some(&bin), &args);
    let said = text(&refused);
    fs::remove_dir_all(&bin).expect("removed");
    assert!(refused.status.code() == Some(1) && said.contains("in spite of") && said.contains("--user"), "{said}");
    assert!(files(home.path()) == before, "something was left behind");
}
