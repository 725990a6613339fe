//! What a backend must receive of a recording if it shows tools beside the call that asked for them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    Span,
    recording::{THE_TURN, Tokens, Truth},
};

/// The kind of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A turn or a subagent.
    Agent,
    /// A model call, with its message id and its tokens.
    Call(String, Tokens),
    /// A tool, with the id of its call and whether it failed.
    Tool(String, bool),
    Other,
}

/// A span, independent of the backend.
#[derive(Clone, Debug)]
pub struct Flat {
    pub trace: String,
    pub id: String,
    /// Its parent's id; empty for a root.
    pub parent: String,
    pub session: String,
    pub what: What,
}

impl Flat {
    /// From an OTLP span in the dialect `both`.
    pub fn of(span: &Span) -> Self {
        let number = |key: &str| span.get(key).parse().unwrap_or(0);
        let what = match span.get("gen_ai.operation.name") {
            "invoke_agent" => What::Agent,
            "chat" => {
                let all = number("gen_ai.usage.input_tokens");
                let (read, written) = (
                    number("gen_ai.usage.cache_read.input_tokens"),
                    number("gen_ai.usage.cache_creation.input_tokens"),
                );
                let [short, long] = ["5m", "1h"].map(|time| number(&format!("claude_code.usage.cache_write_{time}")));
                assert_eq!(written, short + long + number("claude_code.usage.cache_write"), "{span:?}");
                let output = number("gen_ai.usage.output_tokens");
                let sums = [("prompt", all), ("completion", output), ("total", all + output)];
                sums.iter()
                    .for_each(|(name, sum)| assert_eq!(number(&format!("llm.token_count.{name}")), *sum, "{span:?}"));
                What::Call(span.get("gen_ai.response.id").to_owned(), [all - read - written, output, read, short, long])
            }
            "execute_tool" => {
                What::Tool(span.get("gen_ai.tool.call.id").to_owned(), !span.get("error.type").is_empty())
            }
            _ => What::Other,
        };
        let [trace, id, parent] = [&span.trace_id, &span.span_id, &span.parent].map(Clone::clone);
        Self { trace, id, parent, session: span.get("gen_ai.conversation.id").to_owned(), what }
    }
}

impl Flat {
    /// From the attributes of an MLflow span.
    pub fn of_mlflow(span: &Span) -> Self {
        let usage: Value = serde_json::from_str(span.get("mlflow.chat.tokenUsage")).unwrap_or_default();
        let number = |key: &str| usage[key].as_u64().unwrap_or(0);
        let what = match span.get("mlflow.spanType") {
            "AGENT" => What::Agent,
            "LLM" => {
                let (all, output) = (number("input_tokens"), number("output_tokens"));
                let (read, written) = (number("cache_read_input_tokens"), number("cache_creation_input_tokens"));
                let long = number("cache_creation_input_tokens_above_1hr");
                assert_eq!(number("total_tokens"), all + output, "{span:?}");
                let tokens = [all - read - written, output, read, written - long, long];
                What::Call(span.get("claude_code.message_id").to_owned(), tokens)
            }
            "TOOL" => What::Tool(span.get("claude_code.tool_id").to_owned(), span.is_error),
            _ => What::Other,
        };
        let [trace, id, parent] = [&span.trace_id, &span.span_id, &span.parent].map(Clone::clone);
        Self { trace, id, parent, session: span.get("session.id").to_owned(), what }
    }
}

/// What is wrong with `spans`: each must be there once, and every call must have the tokens that the API counted.
pub fn judge(truth: &Truth, spans: &[Flat]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut by_id: BTreeMap<(&str, &str), &Flat> = BTreeMap::new();
    for span in spans {
        if by_id.insert((&span.trace, &span.id), span).is_some() {
            wrong.push(format!("{span:?} is there twice"));
        }
    }
    let above = |span: &Flat| by_id.get(&(&*span.trace, &*span.parent)).copied();
    for trace in spans.iter().map(|span| &span.trace).collect::<BTreeSet<_>>() {
        let roots = spans.iter().filter(|span| span.trace == *trace && span.parent.is_empty()).count();
        if roots != 1 {
            wrong.push(format!("trace {trace} has {roots} roots"));
        }
    }
    for span in spans {
        let is_well = match above(span) {
            None => span.parent.is_empty() && span.what == What::Agent,
            Some(above) => matches!((&above.what, &span.what), (What::Agent, _) | (What::Tool(..), What::Agent)),
        };
        if !is_well || span.session.is_empty() {
            wrong.push(format!("{span:?} is below {:?}", above(span)));
        }
    }
    // The tool call above it, if it belongs to a subagent.
    let place = |span: &Flat| match above(span) {
        Some(root) if root.parent.is_empty() => None,
        Some(agent) => match above(agent).map(|tool| &tool.what) {
            Some(What::Tool(id, _)) => Some(id.clone()),
            _ => Some(THE_TURN.to_owned()),
        },
        None => Some("nothing".to_owned()),
    };
    let (mut calls, mut tools) = (BTreeMap::<&str, Vec<&Flat>>::new(), BTreeMap::<&str, Vec<&Flat>>::new());
    for span in spans {
        match &span.what {
            What::Call(id, _) => calls.entry(id).or_default().push(span),
            What::Tool(id, _) => tools.entry(id).or_default().push(span),
            What::Agent | What::Other => {}
        }
    }
    for (id, call) in &truth.calls {
        match calls.remove(id.as_str()).unwrap_or_default()[..] {
            [Flat { what: What::Call(_, tokens), session, .. }]
                if *tokens != call.tokens || call.session.as_ref().is_some_and(|own| own != session) =>
            {
                wrong.push(format!(
                    "call {id} should have {:?} tokens in {:?}, not {tokens:?} in {session}",
                    call.tokens, call.session
                ));
            }
            [span] if place(span) != call.below => {
                wrong.push(format!("call {id} should be below {:?}, not {:?}", call.below, place(span)));
            }
            [_] => {}
            ref several => wrong.push(format!("call {id} should be there once, not {} times", several.len())),
        }
    }
    calls.retain(|id, got| !(got.len() == 1 && truth.cut.iter().any(|cut| cut == id)));
    for (id, tool) in &truth.tools {
        match tools.remove(id.as_str()).unwrap_or_default()[..] {
            [Flat { what: What::Tool(_, failed), .. }] if *failed == tool.failed => {}
            ref other => wrong.push(format!("tool {id} (failed: {}) is {other:?}", tool.failed)),
        }
    }
    if !calls.is_empty() || !tools.is_empty() {
        wrong.push(format!("nobody made the calls {:?} and {:?}", calls.keys(), tools.keys()));
    }
    wrong
}

/// The tokens of all `spans`, by trace.
pub fn sums(spans: &[Flat]) -> BTreeMap<String, Tokens> {
    let mut sums: BTreeMap<String, Tokens> = BTreeMap::new();
    for span in spans {
        let sum = sums.entry(span.trace.clone()).or_default();
        if let What::Call(_, tokens) = &span.what {
            sum.iter_mut().zip(tokens).for_each(|(sum, count)| *sum += count);
        }
    }
    sums
}

/// The tokens of one trace as MLflow sums them: a span below one with tokens does not count.
pub fn shown<'a>(spans: impl Iterator<Item = &'a Flat>) -> Tokens {
    let by_id: BTreeMap<&str, &Flat> = spans.map(|span| (&*span.id, span)).collect();
    let is_hidden = |span: &Flat| {
        let above = |span: &Flat| by_id.get(&*span.parent).copied();
        let mut next = above(span);
        while let Some(span) = next {
            if matches!(span.what, What::Call(..)) {
                return true;
            }
            next = above(span);
        }
        false
    };
    let mut sum = Tokens::default();
    for span in by_id.values().filter(|span| !is_hidden(span)) {
        if let What::Call(_, tokens) = &span.what {
            sum.iter_mut().zip(tokens).for_each(|(sum, count)| *sum += count);
        }
    }
    sum
}
