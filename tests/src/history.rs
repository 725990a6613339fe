//! Generates a user's history: many sessions of several projects, with subagents and forks.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Turns of a session, and calls of its main transcript.
const TURNS: usize = 5;
const CALLS: usize = 26;

/// Calls of a subagent; every second session has one.
const AGENT_CALLS: usize = 12;

/// Each session of this many is a fork of the one before, of which it copies this many turns.
const FORKS: usize = 10;
const COPIED: usize = 2;

/// The history spans this many days until now.
const DAYS: u64 = 120;

const MODELS: [&str; 3] = ["claude-sonnet-4-5-20250929", "claude-opus-4-6", "claude-haiku-4-5-20251001"];
const TOOLS: [&str; 4] = ["Bash", "Read", "Edit", "mcp__plugin_db_main__query"];
const SKILLS: [Option<&str>; 4] = [None, None, Some("review"), Some("tools:format")];

/// Calls and their tokens: input, output, cache reads, five-minute and one-hour cache writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) calls: u64,
    pub(crate) tokens: [u64; 5],
}

impl Sum {
    fn add(&mut self, tokens: [u64; 5]) {
        self.calls += 1;
        self.tokens.iter_mut().zip(tokens).for_each(|(sum, count)| *sum += count);
    }
}

/// What was generated.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The transcripts of sessions.
    pub(crate) sessions: Vec<PathBuf>,
    pub(crate) bytes: u64,
    /// Calls in the sessions themselves, without copies.
    pub(crate) main: Sum,
    /// Calls of subagents.
    pub(crate) agents: Sum,
    /// Copies of calls, in forks.
    pub(crate) copies: Sum,
}

/// Writes the transcripts of `count` sessions below `dir`, as below `~/.claude/projects`.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn history(dir: &Path, count: usize) -> io::Result<History> {
    let mut made = History::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    for number in 0..count {
        let start = now - DAYS * 86_400 * (count - number) as u64 / count as u64;
        let is_fork = number % FORKS == FORKS - 1;
        let project = if is_fork { number - 1 } else { number } / FORKS % 40;
        let mut session = Session::new(number, project, start);
        if is_fork {
            session.copies_of = Some(number - 1);
            let mut origin =
                Session::new(number - 1, project, now - DAYS * 86_400 * (count - number + 1) as u64 / count as u64);
            for turn in 0..COPIED {
                let lines = origin.turn(turn);
                session.copy(&origin, &lines);
                (session.line, session.call, session.time) = (origin.line, origin.call, origin.time);
            }
            made.copies.calls += origin.sum.calls;
            made.copies.tokens.iter_mut().zip(origin.sum.tokens).for_each(|(sum, count)| *sum += count);
            (session.line, session.time) = (100_000, start);
            session.sum = Sum::default();
        }
        let path = dir.join(format!("-home-dev-app-{project}/{}.jsonl", session.id()));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let agent = (number % 2 == 0).then(|| session.agent());
        for turn in 0..TURNS {
            let lines = session.turn(turn);
            session.text += &lines;
        }
        if let Some((name, text)) = agent {
            let file = path.with_extension("").join("subagents").join(format!("agent-{name}.jsonl"));
            fs::create_dir_all(file.parent().unwrap_or(dir))?;
            fs::write(
                file.with_extension("meta.json"),
                format!(r#"{{"agentType":"general-purpose","toolUseId":"toolu_{number}_0_0"}}"#),
            )?;
            made.bytes += put(&file, &text, session.time)?;
        }
        made.bytes += put(&path, &session.text, session.time)?;
        made.sessions.push(path);
        for (sum, more) in [(&mut made.main, session.sum), (&mut made.agents, session.of_agent)] {
            sum.calls += more.calls;
            sum.tokens.iter_mut().zip(more.tokens).for_each(|(sum, count)| *sum += count);
        }
    }
    Ok(made)
}

/// One more turn for the session `number`, to be appended to its transcript.
pub(crate) fn one_more(number: usize, turn: usize) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut session = Session::new(number, number / FORKS % 40, now);
    (session.line, session.call) = (200_000 + turn * 1000, 100_000 + turn * 100);
    session.turn(turn)
}

fn put(path: &Path, text: &str, time: u64) -> io::Result<u64> {
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.set_modified(UNIX_EPOCH + Duration::from_secs(time))?;
    Ok(text.len() as u64)
}

struct Session {
    number: usize,
    project: usize,
    text: String,
    line: usize,
    call: usize,
    time: u64,
    copies_of: Option<usize>,
    sum: Sum,
    of_agent: Sum,
}

impl Session {
    fn new(number: usize, project: usize, time: u64) -> Self {
        let (text, sum) = (String::new(), Sum::default());
        Self { number, project, text, line: 0, call: 0, time, copies_of: None, sum, of_agent: sum }
    }

    fn id(&self) -> String {
        format!("{:08x}-1111-4111-8111-111111111111", self.number)
    }

    /// Adds `lines` of `origin` as a fork does.
    fn copy(&mut self, origin: &Self, lines: &str) {
        let (old, own) = (origin.id(), self.id());
        for line in lines.lines() {
            let line = line.replace(&format!(r#""sessionId":"{old}""#), &format!(r#""sessionId":"{own}""#));
            let at = line.find(r#""uuid":""#).map_or(0, |at| at + 8);
            let uuid = line[at..].split('"').next().unwrap_or_default().to_owned();
            let _ = writeln!(
                self.text,
                r#"{},"forkedFrom":{{"sessionId":"{old}","messageUuid":"{uuid}"}}}}"#,
                line.trim_end_matches('}').to_owned() + &"}".repeat(line.len() - line.trim_end_matches('}').len() - 1)
            );
        }
    }

    fn envelope(&mut self, kind: &str, more: &str, rest: &str) -> String {
        let uuid = |line: usize| format!("{:08x}-0000-4000-8000-{line:012x}", self.number);
        let parent = if self.line == 0 { "null".to_owned() } else { format!("\"{}\"", uuid(self.line - 1)) };
        let line = format!(
            r#"{{"parentUuid":{parent},"isSidechain":false,{more}"userType":"external","cwd":"/home/dev/app-{}","sessionId":"{}","version":"2.1.329","gitBranch":"branch-{}","type":"{kind}","uuid":"{}","timestamp":"{}",{rest}}}"#,
            self.project,
            self.id(),
            self.number % 7,
            uuid(self.line),
            time(self.time),
        );
        self.line += 1;
        self.time += 3;
        line + "\n"
    }

    /// The lines of a turn.
    fn turn(&mut self, turn: usize) -> String {
        let calls = CALLS / TURNS + usize::from(turn < CALLS % TURNS);
        let mut lines = self.envelope(
            "user",
            &format!(r#""promptId":"p{}-{turn}","#, self.number),
            &format!(r#""message":{{"role":"user","content":"Question {turn}: {}"}}"#, text(turn, 6)),
        );
        for call in 0..calls {
            let is_last = call + 1 == calls;
            let tokens = self.tokens();
            self.sum.add(tokens);
            lines += &self.answer(turn, call, is_last, tokens, "");
        }
        lines
    }

    fn tokens(&self) -> [u64; 5] {
        let n = (self.number * 31 + self.call * 7) as u64;
        [
            3 + n % 20,
            50 + n % 900,
            10_000 + n % 50_000,
            if n.is_multiple_of(3) { 700 } else { 0 },
            if n.is_multiple_of(3) { 0 } else { 900 + n % 5000 },
        ]
    }

    /// The lines of a call: text, then a tool and its result unless it is the last one.
    fn answer(&mut self, turn: usize, call: usize, is_last: bool, tokens: [u64; 5], more: &str) -> String {
        let [input, output, read, five, hour] = tokens;
        let (number, at) = (self.number, self.call);
        let apart = if more.is_empty() { "" } else { "a" };
        self.call += 1;
        let stop = if is_last { "end_turn" } else { "tool_use" };
        let skill =
            SKILLS[(number + turn) % 4].map_or_else(String::new, |skill| format!(r#""attributionSkill":"{skill}","#));
        let message = |content: &str| {
            format!(
                r#"{skill}"requestId":"req_{apart}{number}_{at}","message":{{"id":"msg_{apart}{number}_{at}","type":"message","role":"assistant","model":"{}","content":[{content}],"stop_reason":"{stop}","usage":{{"input_tokens":{input},"output_tokens":{output},"cache_read_input_tokens":{read},"cache_creation_input_tokens":{},"cache_creation":{{"ephemeral_5m_input_tokens":{five},"ephemeral_1h_input_tokens":{hour}}},"service_tier":"standard"}}}}"#,
                MODELS[number % 3],
                five + hour
            )
        };
        let said = message(&format!(r#"{{"type":"text","text":"{}"}}"#, text(at, 4)));
        let mut lines = self.envelope("assistant", more, &said);
        if is_last {
            return lines;
        }
        let launches = apart.is_empty() && number.is_multiple_of(2) && (turn, call) == (0, 0);
        let (name, id) =
            (if launches { "Agent" } else { TOOLS[at % 4] }, format!("toolu_{apart}{number}_{turn}_{call}"));
        let input = if launches {
            r#"{"description":"look","prompt":"look"}"#.to_owned()
        } else {
            format!(r#"{{"command":"{}"}}"#, text(at, 1))
        };
        let used = message(&format!(r#"{{"type":"tool_use","id":"{id}","name":"{name}","input":{input}}}"#));
        lines += &self.envelope("assistant", more, &used);
        let result = if launches {
            format!(r#""toolUseResult":{{"status":"completed","agentId":"a{number:08x}"}},"#)
        } else {
            String::new()
        };
        lines += &self.envelope(
            "user",
            more,
            &format!(r#"{result}"message":{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"{id}","content":"{}"}}]}}"#, text(at, 8)),
        );
        lines
    }

    /// The name and lines of its subagent.
    fn agent(&mut self) -> (String, String) {
        let name = format!("a{:08x}", self.number);
        let more = format!(r#""agentId":"{name}","#);
        let mut agent = Self { line: 0, call: 0, ..Self::new(self.number, self.project, self.time + 5) };
        let mut lines = agent.envelope("user", &more, r#""message":{"role":"user","content":"look"}"#);
        for call in 0..AGENT_CALLS {
            let tokens = agent.tokens();
            self.of_agent.add(tokens);
            lines += &agent.answer(0, call, call + 1 == AGENT_CALLS, tokens, &more);
        }
        (
            name,
            lines
                .replace(r#""isSidechain":false"#, r#""isSidechain":true"#)
                .replace("-0000-4000-8000-", "-0000-4000-8aaa-"),
        )
    }
}

/// Some sentences.
fn text(seed: usize, sentences: usize) -> String {
    const WORDS: [&str; 12] =
        ["build", "the", "parser", "reads", "lines", "until", "a", "token", "ends", "with", "its", "value"];
    let mut said = String::new();
    for word in 0..sentences * 14 {
        said.push_str(WORDS[(seed * 5 + word * 7 + word / 12) % 12]);
        said.push(if word % 14 == 13 { '.' } else { ' ' });
    }
    said
}

/// Seconds since the epoch as a time in UTC.
fn time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.000Z", rest / 3600, rest / 60 % 60, rest % 60)
}
