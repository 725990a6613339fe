//! The inputs of later calls, and what the last call says about its turn.

use super::*;

const TOKEN: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
const INPUT: &str = "langfuse.observation.input";

fn measured() -> Options {
    Options { semantics: Semantics::Measured, ..Options::default() }
}

fn calls(id: &str, tools: &[&str]) -> Json {
    let blocks = tools.iter().map(|tool| json!({"type": "tool_use", "id": tool, "name": "Bash", "input": {}}));
    answer(id, blocks.collect(), json!({"output_tokens": 1}))
}

fn said(id: &str) -> Json {
    answer(id, text(&format!("answer {id}")), json!({"output_tokens": 1}))
}

fn queued(text: &str) -> Json {
    json!({"type": "attachment", "timestamp": "2026-03-01T10:00:02Z", "attachment": {"type": "queued_command", "prompt": text}})
}

/// The input of each generation by message id; null if it has none.
fn inputs(spans: &[WireSpan]) -> BTreeMap<String, Json> {
    let generations = spans.iter().filter(|span| span.text("langfuse.observation.type") == Some("generation"));
    let input = |span: &WireSpan| span.text(INPUT).map_or(Json::Null, |text| serde_json::from_str(text).unwrap());
    let id = |span: &WireSpan| span.text("langfuse.observation.metadata.message_id").unwrap().to_owned();
    generations.map(|span| (id(span), input(span))).collect()
}

/// The result of [`observed_in_steps`] as spans.
fn in_steps(
    lines: &[Json],
    scopes: &[(usize, Scope)],
    options: &Options,
    rules: Option<&Rules>,
) -> (Vec<WireSpan>, Counts) {
    let (found, counts) = observed_in_steps(lines, scopes, options, rules);
    (wire(&found), counts)
}

/// What is emitted of the turn in `lines` if it is emitted after each line that has a scope in `scopes`, and once at the end.
fn observed_in_steps(
    lines: &[Json],
    scopes: &[(usize, Scope)],
    options: &Options,
    rules: Option<&Rules>,
) -> (Vec<Outgoing>, Counts) {
    let mut assembler = Assembler::new(SESSION, 0);
    let (mut found, mut counts) = (Vec::new(), Counts::new());
    for (index, line) in lines.iter().enumerate() {
        assert!(assembler.push(record::parse(line.to_string().as_bytes()).unwrap(), index as u64).is_none());
        let last = (index + 1 == lines.len()).then_some(Scope::Final);
        let step = scopes.iter().find(|(at, _)| *at == index).map(|(_, scope)| *scope).or(last);
        if let (Some(scope), Some(turn)) = (step, assembler.open_mut()) {
            found.extend(emitted(turn, scope, options, rules, &mut counts));
            turn.mark_sent(scope);
        }
    }
    (found, counts)
}

fn tool(id: &str, content: impl Into<Json>) -> Json {
    json!({"role": "tool", "tool_call_id": id, "name": "Bash", "content": content.into()})
}

fn user(content: &str) -> Json {
    json!({"role": "user", "content": content})
}

/// A turn of five calls: two parallel tools, one of them late; a message typed meanwhile; a Stop hook's output; a call with no
/// new input.
fn busy() -> Vec<Json> {
    let feedback = json!({"type": "user", "isMeta": true, "timestamp": "2026-03-01T10:00:03Z",
        "message": {"content": "Stop hook feedback:\nrun the tests"}});
    vec![
        prompt(),
        calls("m1", &["t1", "t2"]),
        result("t2", json!("two"), false),
        calls("m2", &["t3"]),
        result("t1", json!("one"), false),
        queued("also this"),
        result("t3", json!("no such file"), true),
        said("m3"),
        feedback,
        said("m4"),
        said("m5"),
    ]
}

#[test]
fn later_calls_have_their_input_in_measured_semantics_only() {
    let first = json!([user("count \"a\" & <b>")]);
    let expect: BTreeMap<String, Json> = [
        ("m1", first.clone()),
        ("m2", json!([tool("t2", "two")])),
        ("m3", json!([tool("t1", "one"), tool("t3", "no such file"), user("also this")])),
        ("m4", json!([user("run the tests")])),
        ("m5", Json::Null),
    ]
    .map(|(id, input)| (id.to_owned(), input))
    .into();
    assert_eq!(inputs(&encoded(&busy(), &measured())), expect);
    let spec = inputs(&encoded(&busy(), &full()));
    assert!(spec.iter().all(|(id, input)| *input == if id == "m1" { first.clone() } else { Json::Null }), "{spec:?}");
}

#[test]
fn the_inputs_do_not_depend_on_the_steps_in_which_a_turn_is_emitted() {
    let whole = inputs(&encoded(&busy(), &measured()));
    for scope in [Scope::Part, Scope::Settled, Scope::Final] {
        for at in 1..busy().len() - 1 {
            let (spans, _) = in_steps(&busy(), &[(at, scope)], &measured(), None);
            let found = inputs(&spans);
            assert_eq!(found.len(), whole.len(), "{scope:?} after line {at}");
            for (id, input) in &found {
                // A tool without a result is emitted without one. If it returns later, the next call still has the result.
                assert_eq!(input, &whole[id], "{id}: {scope:?} after line {at}");
            }
        }
        let all: Vec<_> = (1..busy().len() - 1).map(|at| (at, scope)).collect();
        assert_eq!(inputs(&in_steps(&busy(), &all, &measured(), None).0), whole, "{scope:?} after every line");
    }
}

#[test]
fn the_input_of_a_call_is_masked_and_counted_once() {
    let secret = format!("token {TOKEN}");
    let mut lines = vec![
        prompt(),
        calls("m1", &["t1", "t2"]),
        result("t1", json!(secret), false),
        result(
            "t2",
            json!([{"type": "text", "text": secret}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJDRA=="}}]),
            false,
        ),
        queued(&secret),
        said("m2"),
    ];
    let rules = Rules::default();
    let (spans, once) = in_steps(&lines, &[], &measured(), Some(&rules));
    let (spec, expect) = in_steps(&lines, &[], &Options::default(), Some(&rules));
    assert_eq!((once.clone(), expect.values().sum::<u64>()), (expect, 3));
    assert_eq!(spans.len(), spec.len());
    // What is masked in each text on its own is masked in the message too.
    let output = |id: &str| {
        let of = |span: &&WireSpan| span.text("langfuse.observation.metadata.tool_id") == Some(id);
        spans.iter().find(of).unwrap().text("langfuse.observation.output").unwrap().to_owned()
    };
    let input = inputs(&spans)["m2"].clone();
    assert_eq!(input[0], tool("t1", output("t1")));
    assert_eq!(input[1]["content"][0]["text"], output("t1"));
    assert!(output("t1").contains("[REDACTED"), "{}", output("t1"));
    assert!(input[2]["content"].as_str().unwrap().contains("[REDACTED"), "{input}");
    // Also in later steps, and in names.
    lines[1]["message"]["content"][0]["name"] = json!(format!("run {TOKEN}"));
    for scope in [Scope::Part, Scope::Settled, Scope::Final] {
        for at in [3, 4] {
            let (spans, _) = in_steps(&lines, &[(at, scope)], &measured(), Some(&rules));
            let all = serde_json::to_string(&spans).unwrap();
            assert!(!all.contains(TOKEN), "{scope:?} after line {at}: {all}");
            assert_eq!(inputs(&spans)["m2"].as_array().map(Vec::len), Some(3), "{scope:?} after line {at}");
        }
    }
}

#[test]
fn a_call_shows_the_images_of_the_tool_results_it_was_given() {
    let (png, id) = ("QUJDRA==", "4S4RWs9FUrJWi1XpPL05OU");
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}});
    let other = json!({"type": "resource_link", "uri": "file:///x"});
    let lines = [
        prompt(),
        calls("m1", &["t1"]),
        result("t1", json!([{"type": "text", "text": "see"}, image, other]), false),
        said("m2"),
    ];
    let url = format!("@@@langfuseMedia:type=image/png|id={id}|source=bytes@@@");
    let parts = json!([
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": other.to_string()},
    ]);
    for steps in [&[][..], &[(2, Scope::Settled)]] {
        let (found, _) = observed_in_steps(&lines, steps, &measured(), Some(&Rules::default()));
        assert_eq!(inputs(&wire(&found))["m2"], json!([tool("t1", parts.clone())]), "{steps:?}");
        let shown: Vec<_> = found
            .last()
            .unwrap()
            .observation
            .media
            .iter()
            .map(|(field, media)| (*field, media_id(&media.hash)))
            .collect();
        assert_eq!(shown, [(Field::Input, id.to_owned())], "{steps:?}");
    }
    let sizes = Options { capture: Capture::Metadata, ..measured() };
    let (found, _) = observed_in_steps(&lines, &[], &sizes, None);
    assert!(found.iter().all(|out| out.observation.media.is_empty()));
    let content = inputs(&wire(&found))["m2"][0]["content"].as_str().unwrap().to_owned();
    assert!(content.ends_with("characters] [image/png, 4 bytes]"), "{content}");
}

#[test]
fn the_last_call_has_the_output_of_its_turn() {
    let key = "langfuse.trace.output";
    let says = |spans: &[WireSpan]| -> Vec<(String, String)> {
        let named = spans.iter().filter_map(|span| Some((span.name.clone(), span.text(key)?.to_owned())));
        named.collect()
    };
    for options in [full(), measured()] {
        // The newest call carries it after every step in which the turn grew; a turn that is emitted in parts carries it only
        // at the end.
        let (spans, _) = in_steps(&busy(), &[(5, Scope::Part), (7, Scope::Settled)], &options, None);
        let message = |id: &str| format!(r#"{{"role":"assistant","content":"answer {id}"}}"#);
        let (turn, model) = ("Turn 1".to_owned(), "claude-haiku-4-5".to_owned());
        let expect = [(&turn, "m3"), (&model, "m3"), (&turn, "m5"), (&model, "m5")];
        assert_eq!(says(&spans), expect.map(|(name, id)| (name.clone(), message(id))));
    }
    // An error in place of an answer is the turn's output.
    let error = json!({"type": "assistant", "isApiErrorMessage": true, "timestamp": "2026-03-01T10:00:04Z",
        "message": {"model": "<synthetic>", "content": text("API Error: 529")}});
    let spans = encoded(&[prompt(), calls("m1", &["t1"]), result("t1", json!("x"), false), error], &full());
    let texts: BTreeSet<_> = says(&spans).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, [r#"{"role":"assistant","content":"API Error: 529"}"#.to_owned()].into());
}
