//! A new user's first ten minutes on a terminal as a scripted session: few questions, mistakes can be corrected, and
//! the final message is true.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use regex::Regex;
use tests::{Answer, Home, Server, Story, setup::json_of, terminal::Dialogue};

const PUBLIC: &str = "pk-lf-01628e54-f2e1-4452-8e4e-eede11a0a73e";
const SECRET: &str = "sk-lf-0a1b2c3d-0000-4452-8e4e-canary0a73e9";
const WRONG: &str = "sk-lf-99999999-0000-4452-8e4e-eede11a0a73e";

/// A server that knows one pair of keys.
fn langfuse() -> Server {
    Server::answering(|request| match &*request.path {
        _ if request.key() != format!("{PUBLIC}:{SECRET}") => {
            Answer::status(401).body(r#"{"error":"UnauthorizedError","message":"Invalid credentials."}"#)
        }
        "/api/public/projects" => Answer::ok().body(r#"{"data":[{"id":"proj-7","name":"Night shift"}]}"#),
        _ => Answer::ok(),
    })
}

/// A home with installed programs, a Claude Code, and no service manager.
struct Desk {
    home: Home,
    bin: PathBuf,
}

impl Desk {
    fn new() -> Self {
        Self::at_home(Home::new())
    }

    fn at_home(home: Home) -> Self {
        let bin = home.install();
        tests::setup::script(&bin, "claude", "echo '2.1.332 (Claude Code)'");
        Self { home, bin }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&self.bin.join("cc-langfusectl"));
        // Finds `git` and `sh`, but no `systemctl`.
        let tools = self.home.project("tools");
        for tool in ["git", "sh", "cat"] {
            let found = std::env::split_paths(&std::env::var_os("PATH").expect("a PATH"))
                .map(|dir| dir.join(tool))
                .find(|path| path.exists());
            if let Some(found) = found {
                let _ = std::os::unix::fs::symlink(found, tools.join(tool));
            }
        }
        command.args(args).env("PATH", format!("{}:{}", self.bin.display(), tools.display()));
        command.current_dir(self.home.project("work"));
        command
    }

    fn at(&self, size: (u16, u16), args: &[&str]) -> Dialogue {
        Dialogue::start(self.command(args), size)
    }

    fn settings(&self) -> PathBuf {
        self.home.path().join(".claude/settings.json")
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.command(&["stop"]).output();
    }
}

fn fits(shown: &str, columns: usize) {
    let long: Vec<&str> =
        shown.lines().filter(|line| line.starts_with("make") && line.chars().count() > columns).collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn setup_needs_four_answers_to_a_running_daemon() {
    for size in [(80, 24), (200, 50)] {
        let (desk, server) = (Desk::new(), langfuse());
        let blank = desk.at(size, &["doctor", "--no-probe"]).end();
        assert_eq!(blank.0, Some(1), "{}", blank.1);
        assert!(blank.1.contains("not set up") && blank.1.contains("cc-langfusectl setup"), "{}", blank.1);
        assert!(blank.1.trim().lines().count() <= 3, "{}", blank.1);

        let mut person = desk.at(size, &["setup"]);
        person.expect("What is to be traced?").say("");
        person.expect("Langfuse server").say(&server.url);
        person.expect("Public key").say(&format!("LANGFUSE_PUBLIC_KEY=\"{PUBLIC}\" LANGFUSE_SECRET_KEY=\"{SECRET}\""));
        person.expect("Night shift").expect("Make these changes?").say("");
        let (code, shown) = person.end();
        assert_eq!(code, Some(0), "{shown}");
        let screen = &shown[shown.find("Night shift").expect("the project")..];
        let plan = &screen[..screen.find("Make these changes?").expect("the question")];
        assert!(plan.trim().lines().count() <= 10, "{plan}");
        fits(plan, 200);
        assert!(screen.contains("started, pid") && screen.contains("from their next prompt on"), "{shown}");
        assert!(screen.contains("--from-now") && !screen.contains("go on with their old settings"), "{shown}");
        assert!(screen.contains("All is well") || screen.contains("no problem"), "{shown}");
        assert_eq!(json_of(&desk.settings())["env"]["LANGFUSE_SECRET_KEY"], SECRET);

        // The second run starts from the existing setup.
        let mut person = desk.at(size, &["setup"]);
        person.expect("What is to be traced?").say("");
        person.expect(&format!("[{}]", server.url)).say("");
        person.expect(&format!("[{PUBLIC}]")).say("");
        person.expect("Enter to keep sk-lf-…").say("");
        person.expect("nothing to change");
        let (code, shown) = person.end();
        assert_eq!(code, Some(0), "{shown}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

/// What the screens of the first ten minutes were when they were last looked at. To accept a wanted change:
/// `GOLDEN=write cargo test -p tests --test first_minutes`.
const GOLDEN: &str = "golden/first_ten_minutes.txt";

/// A screen without what differs from run to run.
fn normal(shown: &str, desk: &Desk, server: &Server) -> String {
    // A text that is shown briefly is overwritten.
    let kept = shown.lines().map(|line| line.rsplit("\r\x1b[K").next().unwrap_or_default().trim_end());
    let mut text = kept.collect::<Vec<_>>().join("\n").replace(desk.home.path().to_str().expect("text"), "HOME");
    text = text.replace(&server.url, "http://SERVER").replace(server.url.trim_start_matches("http://"), "SERVER");
    for (pattern, put) in [
        (r"0\.1\.0 \([^)]*\)", "VERSION"),
        (r"pid \d+", "pid N"),
        (r"\b[0-9a-f]{32}\b", "TRACE"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME"),
        (r"\d+(\.\d+)? m?s\b", "N s"),
        (r"\d+ (min|h|d) ago", "N s ago"),
        (r"\d+(\.\d+)? (GiB|TiB) of \d+(\.\d+)? (GiB|TiB)", "N of N"),
    ] {
        text = Regex::new(pattern).expect("a pattern").replace_all(&text, put).into_owned();
    }
    text
}

/// Lines that a terminal would break in the middle of a word, although they are neither one word nor one command.
fn too_wide(shown: &str, columns: usize) -> Vec<&str> {
    let is_whole = |line: &str| {
        let text = line.trim().trim_start_matches("→ ");
        !text.contains(' ') || ["cc-langfusectl ", "SESSION ", "01628e54 "].iter().any(|start| text.starts_with(start))
    };
    // A text that is shown briefly is overwritten.
    let shown = shown.lines().map(|line| line.rsplit("\r\x1b[K").next().unwrap_or_default());
    shown.filter(|line| line.chars().count() > columns && !is_whole(line)).collect()
}

#[test]
fn what_goes_to_no_terminal_is_not_broken() {
    let desk = Desk::new();
    let output = desk.command(&["status"]).output().expect("it runs");
    let (shown, wide) = (String::from_utf8(output.stderr).expect("text"), desk.at((60, 20), &["status"]).end().1);
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(wide.lines().count() > 1, "{wide}");
    assert_eq!(shown.trim(), wide.lines().collect::<Vec<_>>().join(" ").trim());
}

#[test]
fn the_screens_of_the_first_ten_minutes_are_as_recorded() {
    let mut screens = String::new();
    for size in [(60, 20), (80, 24), (200, 50)] {
        // Where a line is broken depends on the length of the paths in it.
        let (desk, server) = (Desk::at_home(Home::of_length(24)), langfuse());
        let _ = writeln!(screens, "==== {} columns, {} rows", size.0, size.1);
        let mut screen = |args: &[&str], person: Dialogue| {
            let (code, shown) = person.end();
            // Answers are typed behind a question, and a table has its own least width.
            if !["setup", "usage"].contains(&args[0]) {
                assert_eq!(too_wide(&shown, size.0.into()), [""; 0], "{args:?}: {shown}");
            }
            let shown = normal(&shown, &desk, &server);
            let _ = writeln!(screens, "$ cc-langfusectl {}\n{shown}\n[exit {}]\n", args.join(" "), code.unwrap_or(-1));
        };
        for args in [&["doctor", "--no-probe"][..], &["status"]] {
            screen(args, desk.at(size, args));
        }
        let mut person = desk.at(size, &["setup"]);
        // The answer must not be echoed into the question.
        person.expect("What is to be traced? [1]:").say("");
        person.expect("[https://cloud.langfuse.com]:").say(&server.url);
        person.expect("as Langfuse shows them:").say(PUBLIC);
        person.expect("(not shown):").say(SECRET);
        person.expect("status line too [y]:").say("");
        screen(&["setup"], person);
        let mut story = Story::new(&desk.home, "work", "01628e54-f2e1-4452-8e4e-eede11a0a73e");
        story.prompt("Fix the slice helper, please.").tool("3 passed").answer("All tests pass now.");
        let settings = json_of(&desk.settings());
        let env = settings["env"].as_object().expect("env").iter();
        let env: Vec<_> = env.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect();
        desk.home.hook(&story.stop("All tests pass now."), &env);
        for args in [
            &["flush"][..],
            &["status"],
            &["sessions"],
            &["open", "--print"],
            &["show", "01628e54"],
            &["usage", "--by", "model"],
            &["backfill", "--dry-run"],
            &["doctor", "--no-probe"],
            &["pause"],
            &["doctor", "--no-probe"],
            &["resume"],
            &["stop"],
            &["status"],
            &["uninstall", "--yes", "--purge"],
        ] {
            screen(args, desk.at(size, args));
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    if std::env::var_os("GOLDEN").is_some_and(|order| order == "write") {
        fs::write(&path, &screens).expect("written");
    }
    let golden = fs::read_to_string(&path).expect("the golden file");
    for (number, (is, was)) in (1..).zip(screens.lines().zip(golden.lines())) {
        assert_eq!(is, was, "line {number} of {GOLDEN}\n{screens}");
    }
    assert_eq!(screens.lines().count(), golden.lines().count());
}

#[test]
fn setup_corrects_mistyped_values_and_keeps_the_answers() {
    let (desk, server) = (Desk::new(), langfuse());
    let address = server.url.strip_prefix("http://").expect("an address");
    let mut person = desk.at((80, 24), &["setup", "--no-service"]);
    person.expect("What is to be traced?").say("both");
    person.expect("What is to be traced?").say("1");
    person.expect("Langfuse Cloud, US").expect("Langfuse server").say("nonsense");
    person.expect("not an address").expect("Langfuse server").say("http://langfuse.example.org");
    person.expect("is not encrypted").expect("Langfuse server").say(PUBLIC);
    person.expect("that is a key").expect("Langfuse server").say(&format!("{address}/project/proj-7/traces"));
    person.expect(&format!("Is {} the server?", server.url)).say("y");
    person.expect("Public key").say("'oops'");
    person.expect("not a key").expect("Public key").say(&PUBLIC[..30]);
    person.expect("incomplete").say("n");
    person.expect("Public key").say(&format!("\"{PUBLIC}\""));
    person.expect("Secret key").say(PUBLIC);
    person.expect("the secret key starts with").expect("Secret key").say(WRONG);
    person.expect("does not know these keys").expect("Try again?").say("y");
    person.expect(&format!("[{}]", server.url)).say("");
    person.expect(&format!("[{PUBLIC}]")).say("");
    person.expect("Secret key").say(&format!("'{SECRET}'"));
    person.expect("Night shift").expect("Make these changes?").say("d");
    person.expect("LANGFUSE_PUBLIC_KEY = ").expect("Make these changes?").say("what?");
    person.expect("Make these changes?").say("y");
    let (code, shown) = person.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains(SECRET) && !shown.contains(WRONG), "{shown}");
    let env = &json_of(&desk.settings())["env"];
    assert_eq!((&env["LANGFUSE_BASE_URL"], &env["LANGFUSE_PUBLIC_KEY"]), (&server.url.clone().into(), &PUBLIC.into()));
    assert_eq!(env["LANGFUSE_SECRET_KEY"], SECRET);
}

#[test]
fn keys_are_kept_while_the_address_is_corrected() {
    let (desk, server) = (Desk::new(), langfuse());
    let wrong = format!("http://{}", tests::server::unused());
    let mut person = desk.at((80, 24), &["setup", "--user", "--no-service"]);
    person.expect("Langfuse server").say(&wrong);
    person.expect("Public key").say(PUBLIC);
    person.expect("Secret key").say(SECRET);
    person.expect("could not connect to").expect("Try again?").say("");
    person.expect(&format!("[{wrong}]:")).say(&server.url);
    person.expect(&format!("[{PUBLIC}]:")).say("");
    person.expect("or Enter to keep sk-lf-…").say("");
    person.expect("Night shift").expect("Make these changes?").say("");
    let (code, shown) = person.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    assert_eq!(json_of(&desk.settings())["env"]["LANGFUSE_SECRET_KEY"], SECRET);
}

#[test]
fn keys_are_pasted_in_any_order_and_do_not_agree_to_the_plan() {
    let server = langfuse();
    let secret = format!("LANGFUSE_SECRET_KEY=\"{SECRET}\"");
    let public = format!("LANGFUSE_PUBLIC_KEY = \"{PUBLIC}\"");
    let url = format!("LANGFUSE_BASE_URL=\"{}\"", server.url);
    for lines in [[&secret, &public, &url], [&public, &secret, &url], [&url, &public, &secret]] {
        let desk = Desk::new();
        let mut person = desk.at((80, 24), &["setup", "--user", "--base-url", &server.url]);
        let lines: Vec<&str> = lines.into_iter().map(String::as_str).collect();
        person.expect("Public key").say(&format!("{}\n\n", lines.join("\n")));
        person.expect("Make these changes?");
        assert!(!desk.settings().exists());
        person.say("n");
        let (code, shown) = person.end();
        assert!(code == Some(1) && shown.contains("nothing was changed") && !desk.settings().exists(), "{shown}");
        assert!(!shown.contains("Secret key (sk-lf-"), "{shown}");
    }
}

#[test]
fn setup_changes_nothing_after_a_no() {
    let (desk, server) = (Desk::new(), langfuse());
    let mut person = desk
        .at((80, 24), &["setup", "--user", "--public-key", PUBLIC, "--secret-key", SECRET, "--base-url", &server.url]);
    person.expect("Make these changes?").say("n");
    assert_eq!(person.end().0, Some(1));
    assert!(!desk.settings().exists());
}

#[test]
fn setup_can_leave_out_earlier_turns() {
    let (desk, server) = (Desk::new(), langfuse());
    let config = desk.home.paths().config;
    let args = [
        "setup",
        "--user",
        "--public-key",
        PUBLIC,
        "--secret-key",
        SECRET,
        "--base-url",
        &server.url,
        "--yes",
        "--from-now",
    ];
    let (code, shown) = desk.at((80, 24), &args).end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("what was said before is left out"), "{shown}");
    let text = fs::read_to_string(&config).expect("there");
    assert_eq!(text, "start = \"hook\"\nfrom_now = true\n");
    let (code, shown) = desk.at((80, 24), &["uninstall", "--yes"]).end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!config.exists() && !Path::new(&desk.settings()).exists(), "{shown}");
}

#[test]
fn the_registered_command_succeeds_if_the_program_is_missing() {
    let (desk, server) = (Desk::new(), langfuse());
    let args = [
        "setup",
        "--user",
        "--public-key",
        PUBLIC,
        "--secret-key",
        SECRET,
        "--base-url",
        &server.url,
        "--yes",
        "--no-service",
        "--no-check",
    ];
    assert_eq!(desk.command(&args).output().expect("it runs").status.code(), Some(0));
    let settings = json_of(&desk.settings());
    let command = settings["hooks"]["Stop"][0]["hooks"][0]["command"].as_str().expect("a command");
    let call = || {
        Command::new("sh").args(["-c", command]).env_clear().env("HOME", desk.home.path()).output().expect("it runs")
    };
    for is_there in [true, false] {
        let output = call();
        assert!(
            output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
            "{is_there}: {output:?}"
        );
        let _ = fs::remove_file(desk.bin.join("cc-langfuse-hook"));
    }
}

#[test]
fn uninstall_stops_the_daemon_that_setup_started_and_no_other() {
    let (desk, other, server) = (Desk::new(), Desk::new(), langfuse());
    let keys = ["--public-key", PUBLIC, "--secret-key", SECRET, "--base-url", &server.url, "--yes"];
    let runs = |desk: &Desk| desk.command(&["status"]).output().expect("it runs").status.code() == Some(0);
    for desk in [&desk, &other] {
        let output = desk.command(&[&["setup", "--user"][..], &keys].concat()).output().expect("it runs");
        assert!(output.status.success() && runs(desk), "{output:?}");
    }
    let output = desk.command(&["uninstall", "--yes"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("stop          the daemon, pid "), "{output:?}");
    assert!(!runs(&desk) && runs(&other), "{said}");
    assert!(said.contains("data          kept"), "{said}");
}
