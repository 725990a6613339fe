//! Sessions on Langfuse's pages: a conversation wherever there is one, and every token once.

use std::{collections::HashMap, fmt::Write, fs, path::Path};

use serde_json::Value;
use tests::{
    bins,
    home::run,
    ui::{Shown, View, shown},
};

/// How the pages show [`KINDS`] in `measured` semantics. To accept a wanted change: `GOLDEN=write cargo test -p
/// tests --test ui`.
const GOLDEN: &str = "golden/ui.txt";

/// Kinds of traces, and a session with each: a recording, or a transcript below `golden`.
const KINDS: [(&str, &str); 18] = [
    ("an answer", "fixtures/plain"),
    ("tools", "fixtures/bash1"),
    ("a tool that failed", "fixtures/toolerr"),
    ("thinking", "fixtures/thinking"),
    ("an image that a tool read", "fixtures/image"),
    ("an image while the model works", "fixtures/midturn_image"),
    ("a queued prompt", "fixtures/i_queue"),
    ("what a Stop hook said", "fixtures/stopblock"),
    ("a subagent", "fixtures/subagent_fg"),
    ("a subagent of a subagent", "fixtures/nested"),
    ("an error in place of an answer", "fixtures/err529"),
    ("an error after an answer", "fixtures/err_mid"),
    ("interrupted", "fixtures/i_interrupt"),
    ("stopped at the output limit", "fixtures/maxtok"),
    ("compacted", "fixtures/compact"),
    ("a background task that reports", "fixtures/bgbash"),
    ("commands", "fixtures/slash"),
    ("tools of the API, and an advisor", "golden/server_tools.jsonl"),
];

/// The spans of a session, as they are sent.
fn spans(session: &str, semantics: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(session);
    let transcript = if path.is_dir() {
        let below =
            |dir: &Path| fs::read_dir(dir).expect(session).map(|entry| entry.expect("an entry").path()).collect();
        let projects: Vec<_> = below(&path.join("projects"));
        let mut files: Vec<_> = projects.iter().flat_map(|dir| -> Vec<_> { below(dir) }).collect();
        files.retain(|file| file.extension().is_some_and(|ext| ext == "jsonl"));
        files.sort();
        files.swap_remove(0)
    } else {
        path
    };
    let home = tests::Home::new();
    let mut command = home.command(&bins().ctl);
    command.args(["show", "--json"]).arg(transcript).env("CC_LANGFUSE_SEMANTICS", semantics);
    let (output, _) = run(command, b"");
    assert!(output.status.success(), "{session}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn view(span: &Value) -> Shown {
    shown(|key| span["attributes"][key].as_str())
}

fn text<'s>(span: &'s Value, key: &str) -> &'s str {
    span[key].as_str().unwrap_or_default()
}

/// A line for each span, below its parent's.
fn page(spans: &[Value]) -> String {
    let parents: HashMap<&str, &str> =
        spans.iter().map(|span| (text(span, "span_id"), text(span, "parent_id"))).collect();
    let mut page = String::new();
    for span in spans {
        let mut depth = 0;
        let mut above = text(span, "parent_id");
        while let Some(next) = parents.get(above) {
            (above, depth) = (next, depth + 1);
        }
        let Shown { input, output, on_session_page, tokens } = view(span);
        let (indent, kind, name) = ("  ".repeat(depth), text(span, "type"), text(span, "name"));
        let hidden = if on_session_page { "" } else { "; not on the session page" };
        let tokens = tokens.map_or_else(String::new, |[prompt, completion, total]| {
            format!("; {prompt} prompt → {completion} completion (∑ {total})")
        });
        let _ = writeln!(page, "{indent}{kind} {name}: {input} → {output}{tokens}{hidden}");
    }
    page
}

#[test]
fn the_pages_show_each_kind_of_trace_as_recorded() {
    let mut pages = String::new();
    for (kind, session) in KINDS {
        let _ = writeln!(pages, "# {kind}\n{}", page(&spans(session, "measured")));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    if std::env::var_os("GOLDEN").is_some_and(|order| order == "write") {
        fs::write(&path, &pages).expect("written");
    }
    let golden = fs::read_to_string(&path).expect("the golden file");
    for (number, (is, was)) in (1..).zip(pages.lines().zip(golden.lines())) {
        assert_eq!(is, was, "line {number} of {GOLDEN}");
    }
    assert_eq!(pages.lines().count(), golden.lines().count());
}

#[test]
fn conversations_are_shown_as_chats_and_every_token_once() {
    for (kind, session) in KINDS {
        for semantics in ["measured", "spec"] {
            for span in spans(session, semantics) {
                let (seen, name) = (view(&span), text(&span, "name"));
                let is_chat = |view: &View| matches!(view, View::Chat(_));
                match text(&span, "type") {
                    "agent" => assert!(is_chat(&seen.input) && is_chat(&seen.output), "{kind}: {name}: {seen:?}"),
                    "generation" | "event" => {
                        assert!(is_chat(&seen.input) || seen.input == View::Nothing, "{kind}: {name}: {seen:?}");
                    }
                    _ => {}
                }
                if let Some([prompt, completion, total]) = seen.tokens.filter(|_| semantics == "measured") {
                    assert_eq!(prompt + completion, total, "{kind}: {name}");
                }
            }
        }
    }
}
