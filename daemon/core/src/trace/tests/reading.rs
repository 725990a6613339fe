use super::*;

/// The properties of a span that must not depend on how the transcript was read.
type Seen = (String, String, Option<String>, String, Nanos, Nanos, Level);

fn seen(turn: &Turn) -> impl Iterator<Item = Seen> {
    let found = spans(turn, Scope::Final, Semantics::Measured, None);
    let seen: Vec<_> = found
        .iter()
        .map(|span| {
            let hex = crate::ids::hex;
            let ids = (hex(&span.trace_id), hex(&span.span_id), span.parent.map(|id| hex(&id)));
            (ids.0, ids.1, ids.2, span.name.clone(), span.start, span.end, span.level)
        })
        .collect();
    seen.into_iter()
}

/// Reads `bytes` from the start in pieces that end at `cuts`. After the lines numbered in `restarts` all state is dropped, and
/// reading starts again where the assembler says. Returns the spans sorted by id.
fn read(bytes: &[u8], cuts: &[usize], restarts: &[usize]) -> Vec<Seen> {
    let mut all = Vec::new();
    let (mut offset, mut before) = (0, 0);
    let mut ends: Vec<usize> = memchr::memchr_iter(b'\n', bytes).map(|at| at + 1).collect();
    ends = restarts.iter().map(|restart| ends[restart % ends.len()]).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    for (run, until) in ends.iter().enumerate() {
        let mut lines = Lines::at(offset);
        let mut assembler = Assembler::new("session-1", before);
        let mut at = offset as usize;
        let mut pieces: Vec<usize> =
            cuts.iter().map(|cut| cut % bytes.len()).filter(|cut| (at..*until).contains(cut)).collect();
        pieces.sort_unstable();
        pieces.push(*until);
        for end in pieces {
            lines.feed(&bytes[at..end], |offset, line| {
                if let Line::Whole(line) = line
                    && let Ok(record) = record::parse(line)
                    && let Some(turn) = assembler.push(record, offset)
                {
                    all.extend(seen(&turn));
                }
            });
            at = end;
        }
        if run + 1 == ends.len() {
            all.extend(assembler.open().into_iter().flat_map(seen));
        }
        (offset, before) = assembler.resume().unwrap_or((lines.consumed(), assembler.closed()));
    }
    all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    all
}

/// One step of a session; `n` numbers it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Prompt,
    Anonymous,
    Meta,
    Local,
    Shown,
    Asks,
    Says,
    Calls,
    Returns,
    Interleaves,
    Interrupted,
    Fails,
    Notes,
    Garbage,
}

fn transcript(steps: &[Step]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut message, mut tools, mut asked) = (0, Vec::new(), false);
    for (step, n) in steps.iter().zip(1u64..) {
        let at = n * 700;
        let current = format!("m{message}");
        let mut new = || {
            message += 1;
            format!("m{message}")
        };
        // The lines of an answer, and its request, are never split by a prompt: ids start afresh with each.
        if matches!(step, Step::Prompt | Step::Anonymous | Step::Local) {
            new();
            new();
            asked = true;
        }
        let text = format!("words {n} \u{1f600}\u{2028}");
        let line = match step {
            Step::Prompt => user(&format!("p{n}"), at, &text),
            Step::Anonymous => {
                let mut line = user("", at, &text);
                line["uuid"] = Value::Null;
                line
            }
            Step::Meta => {
                let mut line = user(&format!("p{n}"), at, &text);
                line["isMeta"] = json!(true);
                line
            }
            Step::Local => user(&format!("p{n}"), at, "<command-name>/cost</command-name>"),
            Step::Shown => user(&format!("p{n}"), at, "<local-command-stdout>0</local-command-stdout>"),
            Step::Asks => request(&format!("m{}", message + 1), at),
            Step::Says => says(&if n % 2 == 0 && asked { current } else { new() }, at, &text),
            Step::Calls => {
                tools.push(format!("t{n}"));
                calls(&new(), at, &[&format!("t{n}"), &format!("s{n}")])
            }
            Step::Returns => returns(&tools.pop().unwrap_or_default(), at),
            Step::Interleaves => {
                let (a, b) = (new(), new());
                bytes.extend_from_slice(&file(&[says(&a, at, "a1"), says(&b, at + 1, "b1")]));
                says(&a, at + 2, "a2")
            }
            Step::Interrupted => user(&format!("p{n}"), at, "[Request interrupted by user]"),
            Step::Fails => json!({"type": "assistant", "isApiErrorMessage": true, "timestamp": stamp(at),
                "message": {"model": "<synthetic>", "content": [{"type": "text", "text": "API Error"}]}}),
            Step::Notes => json!({"type": "system", "subtype": "api_error", "timestamp": stamp(at)}),
            Step::Garbage => json!("x"),
        };
        bytes.extend_from_slice(&file(&[line]));
        if matches!(step, Step::Garbage) {
            bytes.extend_from_slice(b"{\"type\":\"user\",\xff\n\n");
        }
    }
    bytes
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::*;
    let step = proptest::sample::select(vec![
        Prompt,
        Prompt,
        Prompt,
        Anonymous,
        Meta,
        Local,
        Shown,
        Asks,
        Says,
        Says,
        Says,
        Calls,
        Calls,
        Returns,
        Returns,
        Interleaves,
        Interrupted,
        Fails,
        Notes,
        Garbage,
    ]);
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn the_spans_do_not_depend_on_read_sizes_or_restarts(
        steps in steps(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        restarts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let bytes = transcript(&steps);
        let whole = read(&bytes, &[], &[]);
        prop_assert_eq!(&read(&bytes, &cuts, &[]), &whole);
        // If several turns are in progress, reading restarts before turns that were sent; the store recognises
        // these by their ids.
        let mut again = read(&bytes, &cuts, &restarts);
        again.dedup();
        prop_assert_eq!(&again, &whole);
        let mut ids: Vec<_> = whole.iter().map(|span| (&span.0, &span.1)).collect();
        ids.dedup();
        prop_assert_eq!(ids.len(), whole.len(), "every id is there once");
    }

    #[test]
    fn a_turn_emitted_in_parts_has_every_span_and_no_call_or_tool_twice(
        steps in steps(),
        emitted in proptest::collection::vec((any::<usize>(), any::<bool>()), 0..8),
    ) {
        let bytes = transcript(&steps);
        let mut parts = Vec::new();
        let mut lines = Lines::at(0);
        let mut assembler = Assembler::new("session-1", 0);
        let mut number = 0;
        let count = memchr::memchr_iter(b'\n', &bytes).count();
        let emit = |turn: &Turn, scope, parts: &mut Vec<_>| {
            let found = spans(turn, scope, Semantics::Measured, None);
            parts.extend(found.iter().map(|span| (span.parent.is_none(), span.trace_id, span.span_id)));
        };
        lines.feed(&bytes, |offset, line| {
            let Line::Whole(line) = line else { return };
            if let Ok(record) = record::parse(line)
                && let Some(turn) = assembler.push(record, offset)
                && turn.is_due(Scope::Final)
            {
                emit(&turn, Scope::Final, &mut parts);
            }
            for (_, settled) in emitted.iter().filter(|(when, _)| when % count == number) {
                let scope = if *settled { Scope::Settled } else { Scope::Part };
                if let Some(turn) = assembler.open_mut().filter(|turn| turn.is_due(scope)) {
                    emit(turn, scope, &mut parts);
                    turn.mark_sent(scope);
                }
            }
            number += 1;
        });
        if let Some(turn) = assembler.open().filter(|turn| turn.is_due(Scope::Final)) {
            emit(turn, Scope::Final, &mut parts);
        }
        let mut children: Vec<_> = parts.iter().filter(|(root, ..)| !root).collect();
        let all = children.len();
        children.sort_unstable();
        children.dedup();
        prop_assert_eq!(children.len(), all, "no answer or tool is emitted twice");
        let ids: std::collections::BTreeSet<_> =
            parts.iter().map(|(_, trace, span)| (crate::ids::hex(trace), crate::ids::hex(span))).collect();
        let whole: std::collections::BTreeSet<_> =
            read(&bytes, &[], &[]).into_iter().map(|span| (span.0, span.1)).collect();
        prop_assert_eq!(ids, whole);
    }

    #[test]
    fn no_span_ends_before_it_starts_or_has_no_time(
        stamps in proptest::collection::vec(proptest::option::of(0u64..9_000), 6),
        fired in proptest::option::of(0u64..9_000),
    ) {
        let lines = [
            user("p1", stamps[0].unwrap_or(0), "go"),
            calls("a", stamps[1].unwrap_or(0), &["t1", "t2", "t3"]),
            returns("t2", stamps[2].unwrap_or(0)),
            says("a", stamps[3].unwrap_or(0), "more"),
            returns("t1", stamps[4].unwrap_or(0)),
            says("b", stamps[5].unwrap_or(0), "done"),
        ];
        let lines: Vec<_> =
            lines.into_iter().zip(&stamps).map(|(line, at)| if at.is_none() { untimed(line) } else { line }).collect();
        let assembler = assembled(&lines);
        for semantics in [Semantics::Spec, Semantics::Measured] {
            for span in spans(assembler.open().unwrap(), Scope::Final, semantics, fired.map(nanos)) {
                prop_assert!(span.start > 0 && span.end >= span.start, "{}: {} … {}", label(&span), span.start, span.end);
            }
        }
    }
}
