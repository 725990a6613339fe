use super::*;

#[test]
fn spec_times_follow_the_table_of_the_specification() {
    let expect = [
        ("Turn 1", 1000, 7000), // the prompt … the latest answer or result
        ("a", 2000, 6000),      // its first line … the next answer
        ("t1", 2000, 4000),     // its answer … its result
        ("t2", 4000, 4000),     // the tool before … its result, but not before its start
        ("t3", 4000, 5000),     // the tool before … its result
        ("b", 6000, 7000),      // its first line … the end of the turn
    ];
    assert_eq!(times(&conversation(), Semantics::Spec, None), expected(&expect));
}

#[test]
fn in_spec_the_last_answer_ends_when_the_hook_fired() {
    for (fired, end) in [(7500, 7500), (6500, 6500), (10, 6000)] {
        let found = times(&conversation(), Semantics::Spec, Some(fired));
        assert_eq!(found[5], ("b".into(), 6000, end), "fired at {fired}");
        assert_eq!(found[0], ("Turn 1".into(), 1000, 7000), "the turn has its own end");
        assert_eq!(found[1].2, 6000, "and so have earlier answers");
    }
}

#[test]
fn measured_times_are_the_observed_ones() {
    let expect = [
        ("Turn 1", 1000, 7000),
        ("a", 1200, 2600), // its request … its last block
        ("t1", 2500, 4000),
        ("t2", 2500, 3000), // beside the other
        ("t3", 2600, 5000),
        ("b", 5100, 7000),
    ];
    for fired in [None, Some(7500)] {
        assert_eq!(times(&conversation(), Semantics::Measured, fired), expected(&expect));
    }
}

#[test]
fn without_requests_measured_calls_start_at_the_line_before() {
    let lines = [user("p1", 1000, "go"), calls("a", 2000, &["t1"]), returns("t1", 4000), says("b", 5000, "done")];
    let expect = [("Turn 1", 1000, 5000), ("a", 1000, 2000), ("t1", 2000, 4000), ("b", 4000, 5000)];
    assert_eq!(times(&lines, Semantics::Measured, None), expected(&expect));
}

#[test]
fn only_measured_semantics_has_the_time_of_the_first_block() {
    let assembler = assembled(&conversation());
    for (semantics, expect) in
        [(Semantics::Spec, [None, None]), (Semantics::Measured, [Some(nanos(2000)), Some(nanos(6000))])]
    {
        let found = spans(assembler.open().unwrap(), Scope::Final, semantics, None);
        let starts = found.iter().filter_map(|span| match &span.body {
            Body::Generation { completion_start, .. } => Some(*completion_start),
            _ => None,
        });
        assert_eq!(starts.collect::<Vec<_>>(), expect);
    }
}

#[test]
fn a_missing_time_is_the_nearest_known_one_and_is_marked() {
    let marked = |lines: &[Value], fired: Option<u64>| -> Vec<(String, u64, u64, bool)> {
        let assembler = assembled(lines);
        let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, fired.map(nanos));
        let estimated: Vec<_> = found.iter().map(|span| span.estimated).collect();
        let times = times(lines, Semantics::Spec, fired);
        times.into_iter().zip(estimated).map(|((name, start, end), estimated)| (name, start, end, estimated)).collect()
    };
    let of = |spans: &[(&str, u64, u64, bool)]| -> Vec<(String, u64, u64, bool)> {
        spans.iter().map(|(name, start, end, guess)| ((*name).to_owned(), *start, *end, *guess)).collect()
    };
    let (p, a, t, b) =
        (user("p1", 1000, "go"), calls("a", 2000, &["t1"]), returns("t1", 3000), says("b", 4000, "done"));
    let all = [p.clone(), a.clone(), t.clone(), b.clone()];
    for (lines, expect) in [
        (
            all.to_vec(),
            [
                ("Turn 1", 1000, 4000, false),
                ("a", 2000, 4000, false),
                ("t1", 2000, 3000, false),
                ("b", 4000, 4000, false),
            ],
        ),
        (
            vec![untimed(p.clone()), a.clone(), t.clone(), b.clone()],
            [
                ("Turn 1", 2000, 4000, true),
                ("a", 2000, 4000, false),
                ("t1", 2000, 3000, false),
                ("b", 4000, 4000, false),
            ],
        ),
        (
            vec![p.clone(), untimed(a.clone()), t.clone(), b.clone()],
            [
                ("Turn 1", 1000, 4000, false),
                ("a", 1000, 4000, true),
                ("t1", 1000, 3000, false),
                ("b", 4000, 4000, false),
            ],
        ),
        (
            vec![p.clone(), a.clone(), untimed(t.clone()), b.clone()],
            [
                ("Turn 1", 1000, 4000, false),
                ("a", 2000, 4000, false),
                ("t1", 2000, 4000, true),
                ("b", 4000, 4000, false),
            ],
        ),
        (
            vec![p.clone(), a.clone(), t.clone(), untimed(b.clone())],
            [
                ("Turn 1", 1000, 3000, false),
                ("a", 2000, 3000, false),
                ("t1", 2000, 3000, false),
                ("b", 3000, 3000, true),
            ],
        ),
    ] {
        assert_eq!(marked(&lines, None), of(&expect), "{lines:?}");
    }
    let none = all.map(untimed);
    let expect =
        [("Turn 1", 9000, 9000, true), ("a", 9000, 9000, true), ("t1", 9000, 9000, true), ("b", 9000, 9000, true)];
    assert_eq!(marked(&none, Some(9000)), of(&expect), "the hook is all that is known");
}

#[test]
fn a_turn_without_any_time_still_has_one() {
    let lines = [user("p1", 0, "go"), calls("a", 0, &["t1"]), returns("t1", 0)].map(untimed);
    let assembler = assembled(&lines);
    for semantics in [Semantics::Spec, Semantics::Measured] {
        for span in spans(assembler.open().unwrap(), Scope::Final, semantics, None) {
            assert_eq!((span.start, span.end, span.estimated), (1, 1, true), "OTLP takes 0 for none");
        }
    }
}

#[test]
fn no_span_ends_before_its_start_if_the_clock_went_back() {
    let lines = [
        user("p1", 9000, "go"),
        request("a", 8000),
        calls("a", 7000, &["t1", "t2"]),
        returns("t1", 3000),
        says("b", 5000, "done"),
        says("b", 1000, "and gone"),
    ];
    let expect = [("Turn 1", 9000, 9000), ("a", 7000, 7000), ("t1", 7000, 7000), ("t2", 7000, 9000), ("b", 5000, 9000)];
    assert_eq!(times(&lines, Semantics::Spec, None), expected(&expect));
    let expect = [("Turn 1", 9000, 9000), ("a", 7000, 7000), ("t1", 7000, 7000), ("t2", 7000, 9000), ("b", 5000, 5000)];
    assert_eq!(times(&lines, Semantics::Measured, Some(10)), expected(&expect));
}
