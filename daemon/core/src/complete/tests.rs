use super::*;

/// A turn as the decision sees it.
#[derive(Clone, Default)]
struct Fake {
    has_news: bool,
    answer: &'static str,
    looks_finished: bool,
    is_interrupted: bool,
    calls: &'static [&'static str],
    began: Option<Nanos>,
}

impl View for Fake {
    fn has_news(&self) -> bool {
        self.has_news
    }

    fn ends_with(&self, answer: &Fingerprint) -> bool {
        Fingerprint::of(self.answer) == *answer
    }

    fn looks_finished(&self) -> bool {
        self.looks_finished
    }

    fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    fn has_call(&self, tool: &str) -> bool {
        self.calls.contains(&tool)
    }

    fn began(&self) -> Option<Nanos> {
        self.began
    }
}

/// A situation, with times in milliseconds before now.
#[derive(Clone, Default)]
struct Case {
    /// Events with their age; their hooks fired one nanosecond apart, the first at 1.
    events: Vec<(Event, u64)>,
    silent: u64,
    is_line_unfinished: bool,
    awaits_totals: bool,
    is_superseded: bool,
    aside: Vec<Fake>,
    open: Option<Fake>,
    unclaimed: &'static [&'static str],
}

impl Case {
    /// The decision in words: settled events, claimed answers, emitted turns (`aside` first), and what is awaited, in
    /// milliseconds from now.
    fn decided(&self) -> String {
        let now = Instant::now() + Duration::from_secs(3600);
        let ago = |ms: u64| now.checked_sub(Duration::from_millis(ms)).unwrap();
        let fired = self.events.iter().zip(1..);
        let waiting: Vec<_> = fired
            .map(|((event, ms), fired_ns)| Waiting {
                event,
                fired_ns,
                came: ago(*ms),
                awaits_totals: self.awaits_totals,
            })
            .collect();
        let turns: Vec<&Fake> = self.aside.iter().chain(&self.open).collect();
        let unclaimed: Vec<Fingerprint> = self.unclaimed.iter().map(|text| Fingerprint::of(text)).collect();
        let decision = decide(
            now,
            &Situation {
                waiting: &waiting,
                grown: ago(self.silent),
                is_line_unfinished: self.is_line_unfinished,
                is_superseded: self.is_superseded,
                turns: &turns,
                open: self.open.as_ref().map(|_| self.aside.len()),
                unclaimed: &unclaimed,
            },
        );
        let mut said = Vec::new();
        if !decision.handled.is_empty() {
            said.push(format!("handled {:?}", decision.handled));
        }
        if !decision.claimed.is_empty() {
            said.push(format!("claims {:?}", decision.claimed));
        }
        if let Some(Emission { scope, fired_ns, turns }) = decision.emission {
            let fired = fired_ns.map_or(String::new(), |ns| format!(" fired {ns}"));
            said.push(format!("{scope:?} of {turns:?}{fired}"));
        }
        let ms = |at: Instant| at.saturating_duration_since(now).as_millis();
        said.push(match decision.awaits {
            Awaits::Nothing => "idle".into(),
            Awaits::Events { poll } => format!("poll in {}", ms(poll)),
            Awaits::Silence { until } => format!("silence for {}", ms(until)),
        });
        said.join(", ")
    }
}

fn stop(answer: &str) -> Event {
    Event::Stopped { answer: (!answer.is_empty()).then(|| Fingerprint::of(answer)) }
}

fn tool(tool: &str) -> Event {
    Event::ToolEnded { tool: tool.into(), took_ms: 5 }
}

/// A turn that ends with this answer and was not emitted.
fn ends(answer: &'static str) -> Fake {
    Fake { has_news: true, answer, ..Fake::default() }
}

fn check(rows: impl IntoIterator<Item = (&'static str, Case, &'static str)>) {
    for (name, case, expect) in rows {
        assert_eq!(case.decided(), expect, "{name}");
    }
}

#[test]
fn a_stop_waits_for_its_answer() {
    let at = |event: Event, came: u64, silent: u64, open: Option<Fake>| Case {
        events: vec![(event, came)],
        silent,
        open,
        ..Case::default()
    };
    let done = || Some(ends("done"));
    let other = || Some(ends("let me see"));
    check([
        ("its answer is there", at(stop("done"), 20, 20, done()), "handled [0], Settled of [0] fired 1, idle"),
        ("in a burst nothing is decided", at(stop("done"), 19, 500, done()), "poll in 10"),
        ("nor while lines are written", at(stop("done"), 500, 19, done()), "poll in 10"),
        (
            "unless the burst lasts too long",
            at(stop("done"), 2000, 0, done()),
            "handled [0], Settled of [0] fired 1, idle",
        ),
        ("its answer is not there yet", at(stop("done"), 100, 1999, other()), "poll in 50"),
        ("polls become rarer", at(stop("done"), 1999, 1500, other()), "poll in 750"),
        (
            "its answer was emitted before",
            at(stop("done"), 100, 900, Some(Fake { has_news: false, ..ends("done") })),
            "poll in 50",
        ),
        (
            "its answer does not come: silence since the event",
            at(stop("done"), 2000, 9000, other()),
            "handled [0], Settled of [0] fired 1, idle",
        ),
        (
            "its answer does not come: silence since the last line",
            at(stop("done"), 9000, 2000, other()),
            "handled [0], Settled of [0] fired 1, idle",
        ),
        ("the transcript keeps growing without it", at(stop("done"), 9000, 1000, other()), "poll in 500"),
        ("a version that does not say its answer waits", at(stop(""), 299, 900, done()), "poll in 149"),
        (
            "a version that does not say its answer has written it",
            at(stop(""), 300, 900, done()),
            "handled [0], Settled of [0] fired 1, idle",
        ),
        ("there is no turn to end", at(stop("done"), 100, 100, None), "poll in 50"),
        (
            "there never was a turn to end",
            at(stop("done"), 2000, 2000, None),
            "handled [0], Settled of [] fired 1, idle",
        ),
    ]);
}

#[test]
fn a_late_stop_claims_the_answer_of_its_own_turn() {
    let at = |events: &[&str], came: u64, unclaimed: &'static [&'static str]| Case {
        events: events.iter().map(|answer| (stop(answer), came)).collect(),
        silent: 50,
        open: Some(ends("not yet")),
        unclaimed,
        ..Case::default()
    };
    check([
        ("the next prompt came first", at(&["done"], 50, &["one", "done"]), "handled [0], claims [1], idle"),
        ("once for each", at(&["done", "done"], 50, &["done"]), "handled [0], claims [0], poll in 25"),
        ("two that end alike", at(&["done", "done"], 50, &["done", "done"]), "handled [0, 1], claims [0, 1], idle"),
        ("the oldest first", at(&["done"], 50, &["done", "done"]), "handled [0], claims [0], idle"),
        ("none is its own", at(&["done"], 50, &["one"]), "poll in 25"),
        ("one that says no answer claims none", at(&[""], 50, &["done"]), "poll in 25"),
    ]);
    let shown = Case { open: Some(ends("done")), ..at(&["done"], 50, &["done"]) };
    check([("the open turn ends so too", shown, "handled [0], Settled of [0] fired 1, idle")]);
    let quiet = Case { silent: 9000, ..at(&["done"], 2000, &["done"]) };
    check([("it has waited for long", quiet, "handled [0], Settled of [0] fired 1, idle")]);
}

#[test]
fn the_end_of_a_session_ends_all_its_turns() {
    let at = |came: u64, silent: u64| Case {
        events: vec![(Event::Ended, came)],
        silent,
        aside: vec![ends("elsewhere")],
        open: Some(ends("done")),
        ..Case::default()
    };
    let torn = |case| Case { is_line_unfinished: true, ..case };
    let superseded = |case| Case { is_superseded: true, ..case };
    check([
        ("all of it", at(20, 20), "handled [0], Final of [0, 1], idle"),
        ("in a burst nothing is decided", at(19, 20), "poll in 10"),
        ("unless the burst lasts too long", at(2000, 0), "handled [0], Final of [0, 1], idle"),
        ("a last line is waited for", torn(at(4999, 9000)), "poll in 2499"),
        ("and its newline, while it is written", torn(at(9000, 4999)), "poll in 2499"),
        ("not for ever", torn(at(5000, 5000)), "handled [0], Final of [0, 1], idle"),
        ("another session followed: nobody writes", superseded(at(0, 0)), "handled [0], Final of [0, 1], idle"),
        ("not even the rest of a line", superseded(torn(at(0, 0))), "handled [0], Final of [0, 1], idle"),
    ]);
    let uncounted = |case| Case { awaits_totals: true, ..case };
    check([
        ("totals follow: the turns do not wait", uncounted(at(20, 20)), "Final of [0, 1], poll in 10"),
        ("nobody writes them any more", uncounted(superseded(at(0, 0))), "handled [0], Final of [0, 1], idle"),
        ("they did not come", uncounted(at(1000, 1000)), "handled [0], Final of [0, 1], idle"),
    ]);
    let both = |first, second| Case { events: vec![(first, 50), (second, 50)], ..at(50, 50) };
    check([
        ("after a Stop", both(stop("done"), Event::Ended), "handled [0, 1], Final of [0, 1] fired 1, idle"),
        (
            "before a Stop that was late",
            both(Event::Ended, stop("done")),
            "handled [0, 1], Final of [0, 1] fired 2, idle",
        ),
        (
            "before a Stop whose answer is missing",
            both(Event::Ended, stop("gone")),
            "handled [0], Final of [0, 1], poll in 25",
        ),
    ]);
}

#[test]
fn each_of_two_terminals_ends_only_its_own_turn() {
    let at = |aside: Fake, open: Fake, event: Event| Case {
        events: vec![(event, 50)],
        silent: 50,
        aside: vec![aside],
        open: Some(open),
        ..Case::default()
    };
    let over = |answer| Fake { looks_finished: true, ..ends(answer) };
    check([
        (
            "the Stop of the one written to last",
            at(ends("a"), over("b"), stop("b")),
            "handled [0], Settled of [1] fired 1, idle",
        ),
        (
            "the Stop of the other one, which looks finished",
            at(over("a"), ends("b"), stop("a")),
            "handled [0], Settled of [0, 1] fired 1, idle",
        ),
        ("the Stop of neither", at(ends("a"), ends("b"), stop("c")), "poll in 25"),
        ("both look finished", at(over("a"), over("b"), stop("a")), "handled [0], Settled of [0, 1] fired 1, idle"),
    ]);
    let unanswered = Case { open: None, ..at(over("a"), ends(""), stop("a")) };
    check([("the one written to last has no answer", unanswered, "handled [0], Settled of [0] fired 1, idle")]);
    let unfinished = Case { open: None, ..at(ends("a"), ends(""), stop("a")) };
    check([("the only one that has an answer works on", unfinished, "handled [0], Settled of [] fired 1, idle")]);
    let two = Case { events: vec![(stop("a"), 50), (stop("b"), 50)], ..at(over("a"), over("b"), Event::Other) };
    check([("the last Stop says when", two, "handled [0, 1], Settled of [0, 1] fired 2, idle")]);
}

#[test]
fn a_turn_that_was_interrupted_is_complete_at_once() {
    let cut = |answer| Fake { is_interrupted: true, ..ends(answer) };
    let at = |aside: Option<Fake>, open: Fake, events: Vec<(Event, u64)>| Case {
        events,
        aside: aside.into_iter().collect(),
        open: Some(open),
        ..Case::default()
    };
    let over = Fake { looks_finished: true, ..ends("a") };
    check([
        ("without any event", at(None, cut("b"), vec![]), "Final of [0], idle"),
        ("in a burst", at(None, cut("b"), vec![(stop("b"), 0)]), "Final of [0], poll in 10"),
        ("the other terminal works on", at(Some(ends("a")), cut("b"), vec![]), "Final of [1], idle"),
        ("or has said that it is done", at(Some(over), cut("b"), vec![]), "Final of [0, 1], idle"),
        ("what another terminal interrupted waits", at(Some(cut("a")), ends("b"), vec![]), "idle"),
    ]);
}

#[test]
fn without_a_stop_a_finished_turn_is_complete_after_a_silence() {
    let over = || Fake { looks_finished: true, ..ends("done") };
    let at = |silent: u64, open: Fake| Case { silent, open: Some(open), ..Case::default() };
    check([
        ("silent for long enough", at(5000, over()), "Settled of [0], idle"),
        ("not yet", at(4000, over()), "silence for 1000"),
        ("it does not look finished", at(9000, ends("done")), "idle"),
        ("it was emitted before", at(9000, Fake { has_news: false, ..over() }), "idle"),
    ]);
    let waits = Case { events: vec![(stop("later"), 100)], ..at(9000, over()) };
    check([("a Stop waits: that decides", waits, "poll in 50")]);
    let nothing = Case { events: vec![(Event::Other, 0)], ..at(5000, over()) };
    check([("what came says nothing", nothing, "handled [0], Settled of [0], idle")]);
    let aside = Case { aside: vec![over()], ..at(5000, ends("b")) };
    check([("that of another terminal", aside, "Settled of [0, 1], idle")]);
}

#[test]
fn other_events_are_settled_once_the_transcript_was_read() {
    let at = |event: Event, came: u64| Case {
        events: vec![(event, came)],
        open: Some(Fake { calls: &["t-1"], ..ends("") }),
        ..Case::default()
    };
    let quiet = |case| Case { silent: 2000, ..case };
    let elsewhere = Case { aside: vec![Fake { calls: &["t-2"], ..ends("") }], ..at(tool("t-2"), 0) };
    check([
        ("a reason to look", at(Event::Other, 0), "handled [0], idle"),
        ("a subagent that stopped", at(Event::AgentStopped { agent: "a".into() }, 0), "handled [0], idle"),
        ("a tool whose call is written", at(tool("t-1"), 0), "handled [0], idle"),
        ("a tool of another terminal", elsewhere, "handled [0], idle"),
        ("a tool that ended before its call was written", at(tool("t-2"), 1000), "poll in 10"),
        ("its call is waited for while lines come", at(tool("t-2"), 9000), "poll in 10"),
        ("and is given up in silence", quiet(at(tool("t-2"), 2000)), "handled [0], idle"),
        ("but not before", quiet(at(tool("t-2"), 1999)), "poll in 999"),
    ]);
    let mixed = Case {
        events: vec![(Event::Other, 90), (stop("later"), 80), (tool("t-1"), 70), (tool("t-9"), 60)],
        silent: 40,
        ..at(Event::Other, 0)
    };
    check([("each by itself, in any order", mixed, "handled [0, 2], poll in 20")]);
}

#[test]
fn one_read_serves_all_events_of_a_burst() {
    let now = Instant::now();
    let agent = Event::AgentStopped { agent: "a".into() };
    for (name, event, is_hurried, expect) in [
        ("a Stop", stop("done"), true, 20),
        ("the end of the session", Event::Ended, true, 20),
        ("a tool", tool("t"), true, 200),
        ("a subagent", agent, true, 200),
        ("anything", Event::Other, true, 200),
        ("a Stop of history", stop("done"), false, 0),
        ("what a search found", Event::Other, false, 0),
    ] {
        assert_eq!(first_poll(now, &event, is_hurried), now + Duration::from_millis(expect), "{name}");
    }
}

#[test]
fn polls_back_off_from_the_oldest_event_or_the_last_growth() {
    let now = Instant::now() + Duration::from_secs(3600);
    let ago = |ms: u64| now.checked_sub(Duration::from_millis(ms)).unwrap();
    let poll = |ms| Awaits::Events { poll: now + Duration::from_millis(ms) };
    for (name, grown, came, looks_finished, expect) in [
        ("just now", 0, vec![0], false, poll(10)),
        ("half as long again", 5000, vec![1000], false, poll(500)),
        ("the oldest counts", 5000, vec![3000, 10], false, poll(1500)),
        ("what grows is polled often", 30, vec![3000], false, poll(15)),
        ("events first", 30, vec![40], true, poll(15)),
        ("none waits", 30, vec![], false, Awaits::Nothing),
        ("none waits for a finished turn", 30, vec![], true, Awaits::Silence { until: ago(30) + QUIET_FINISHED }),
    ] {
        assert_eq!(awaits(now, ago(grown), came.into_iter().map(ago), looks_finished), expect, "{name}");
    }
}

#[test]
fn the_last_line_of_an_ended_session_needs_no_newline() {
    let grown = Instant::now();
    for (silent, expect) in [(0, false), (4999, false), (5000, true), (900_000, true)] {
        assert_eq!(is_last_line_over(grown + Duration::from_millis(silent), grown), expect, "{silent} ms");
    }
}

#[test]
fn a_late_event_does_not_end_a_later_turn_in_progress() {
    let at = |event: Event, began: Option<Nanos>, change: fn(&mut Case)| {
        let open = Some(Fake { has_news: true, began, ..Fake::default() });
        let mut case = Case { events: vec![(event, 9000)], silent: 9000, open, ..Case::default() };
        change(&mut case);
        case
    };
    let same = |_: &mut Case| {};
    check([
        ("started before the end", at(Event::Ended, Some(1), same), "handled [0], Final of [0], idle"),
        ("started since", at(Event::Ended, Some(2), same), "handled [0], Final of [], idle"),
        ("a Stop of the turn before", at(stop("done"), Some(2), same), "handled [0], Settled of [] fired 1, idle"),
        ("no line says when", at(Event::Ended, None, same), "handled [0], Final of [0], idle"),
        (
            "the last of several counts",
            at(Event::Ended, Some(2), |case| case.events.push((Event::Ended, 9000))),
            "handled [0, 1], Final of [0], idle",
        ),
        (
            "the model has said that it is done",
            at(Event::Ended, Some(2), |case| case.open.as_mut().unwrap().looks_finished = true),
            "handled [0], Final of [0], idle",
        ),
        (
            "the user interrupted it",
            at(Event::Ended, Some(2), |case| case.open.as_mut().unwrap().is_interrupted = true),
            "handled [0], Final of [0], idle",
        ),
        (
            "nobody writes to it any more",
            at(Event::Ended, Some(2), |case| case.is_superseded = true),
            "handled [0], Final of [0], idle",
        ),
    ]);
}
