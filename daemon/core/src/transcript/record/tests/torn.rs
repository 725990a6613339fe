//! Lines with more or less than one record: a process was killed while writing, or a disk lost a page.

use super::*;

/// The texts of prompts and answers on a line, with the offsets at which they can be read again, and the skip reasons.
fn found(line: &[u8]) -> (Vec<(usize, String)>, Vec<Skip>) {
    let (mut said, mut skipped) = (Vec::new(), Vec::new());
    super::super::read(line, |at, found| match found {
        Ok(Record::Prompt(prompt)) => said.push((at, prompt.text)),
        Ok(Record::Assistant(answer)) => match &answer.blocks[..] {
            [Block::Text(text)] => said.push((at, text.clone())),
            other => panic!("{other:?}"),
        },
        Ok(Record::Title(title)) => said.push((at, title)),
        Ok(Record::Request { id, .. }) => said.push((at, id)),
        Ok(_) => {}
        Err(skip) => skipped.push(skip),
    });
    (said, skipped)
}

fn compact(text: &str) -> String {
    format!(
        r#"{{"parentUuid":"p","isSidechain":false,"message":{{"role":"user","content":"{text}"}},"type":"user","uuid":"u-{text}","timestamp":"{T}"}}"#
    )
}

const STUBS: [&str; 14] = [
    r#"{"type":"pr-link","sessionId":"s","prNu"#,
    r#"{"type":"user","message":{"content":"a\"#,
    r#"{"type":"user","message":{"content":"half a senten"#,
    r#"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"x"}"#,
    r#"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"x"}],"a":["#,
    r#"{"parentUuid":null,"isSidechain":false,"message":{"id":"m","role":"assistant","usage":{"input_tokens":1},"content":[{"type":"tool_use","input":{"a":{"#,
    r#"{"type":"mode","mode":"def"#,
    r#"{"type":"queue-operation","operation":"enq"#,
    r#"{"type":"file-history-snapshot","snapshot":{"#,
    r#"{"type":"api-request","id":"r-0","timest"#,
    r#"{"parentUuid":"p","isSidechain":false,"attachment":{"type":"skill_listing","content":"ab"#,
    r#"{"parentUuid":"p","isSidechain":false,"attachment":{"type":"date"},"type":"attachment","uuid":"u-0","times"#,
    r#"{""#,
    "{",
];

#[test]
fn a_record_after_a_torn_one_is_found_and_the_torn_one_counted() {
    for stub in STUBS {
        for record in [compact("behind"), user(json!("behind")).to_string(), answer(json!("behind")).to_string()] {
            // Titles and other records without an id are too common to search skipped lines for.
            let (said, skipped) = found(format!("{stub}{record}").as_bytes());
            assert_eq!((said, skipped), (vec![(stub.len(), "behind".into())], vec![Skip::NotJson]), "{stub}{record}");
        }
    }
    let title = r#"{"type":"custom-title","customTitle":"behind","sessionId":"s"}"#;
    for stub in &STUBS[..9] {
        assert_eq!(found(format!("{stub}{title}").as_bytes()).0, [(stub.len(), "behind".to_owned())], "{stub}");
    }
}

#[test]
fn each_of_several_records_on_one_line_is_read() {
    let (a, b) = (compact("a"), answer(json!("b")).to_string());
    let mode = r#"{"type":"mode","mode":"default","sessionId":"x"}"#;
    let attachment =
        r#"{"parentUuid":"p","isSidechain":false,"attachment":{"type":"date"},"type":"attachment","uuid":"u-0"}"#;
    for between in ["", " ", "\0\0\0", "\u{feff}", "\r"] {
        let gap = between.len();
        for (line, expect) in [
            (format!("{a}{between}{b}"), vec![(0, "a"), (a.len() + gap, "b")]),
            (
                format!("{a}{between}{b}{between}{a}"),
                vec![(0, "a"), (a.len() + gap, "b"), (a.len() + b.len() + 2 * gap, "a")],
            ),
            (format!("{mode}{between}{a}"), vec![(mode.len() + gap, "a")]),
            (format!("{a}{between}{mode}{between}{b}"), vec![(0, "a"), (a.len() + mode.len() + 2 * gap, "b")]),
            (format!("{attachment}{between}{b}"), vec![(attachment.len() + gap, "b")]),
        ] {
            let expect: Vec<_> = expect.into_iter().map(|(at, text)| (at, text.to_owned())).collect();
            let (said, skipped) = found(line.as_bytes());
            assert_eq!(said, expect, "{line}");
            assert!(skipped.iter().all(|skip| *skip == Skip::Bookkeeping), "{line}: {skipped:?}");
        }
    }
}

#[test]
fn padding_and_byte_order_marks_are_ignored() {
    let line = compact("a");
    for padded in [
        format!("\u{feff}{line}"),
        format!("{line}\u{feff}"),
        format!("\0\0\0\0{line}\0\0\0"),
        format!("\u{feff}\0 {line}\r"),
        format!("\0\u{feff}\u{feff}{line} \0"),
    ] {
        assert_eq!(found(padded.as_bytes()), (vec![(0, "a".to_owned())], vec![]), "{padded:?}");
    }
    for blank in ["", "\0\0", "\u{feff}", " \r\0"] {
        assert_eq!(found(blank.as_bytes()), (vec![], vec![]));
    }
}

#[test]
fn a_record_torn_at_its_end_loses_only_itself() {
    let (a, b) = (compact("a"), compact("b"));
    for cut in 1..b.len() {
        let (said, skipped) = found(format!("{a}{}", &b[..cut]).as_bytes());
        assert_eq!((said, skipped), (vec![(0, "a".to_owned())], vec![Skip::NotJson]), "{cut}");
    }
}

#[test]
fn objects_inside_a_torn_line_are_no_records() {
    let inner = compact("quoted");
    for line in [
        format!(r#"{{"type":"user","toolUseResult":{{"lines":[{inner},{inner}],"more":"#),
        format!(r#"{{"type":"user","toolUseResult":{{"line":{inner},"mo"#),
        format!(r#"{{"type":"progress","data":{{"message":{inner}}},"x":"#),
        format!(r#"{{"type":"user","message":{{"content":{}"#, json!(inner)),
    ] {
        assert_eq!(found(line.as_bytes()), (vec![], vec![Skip::NotJson]), "{line}");
    }
}

#[test]
fn a_line_of_brackets_takes_few_tries() {
    for text in [
        r#"{"a":"#.repeat(200_000),
        r#"{"a":[{"#.repeat(100_000),
        "{".repeat(1 << 20),
        r#"{"type":"mode","uuid"{"#.repeat(50_000),
    ] {
        let started = std::time::Instant::now();
        assert_eq!(found(text.as_bytes()), (vec![], vec![Skip::NotJson]));
        assert!(started.elapsed().as_secs() < 20);
    }
}

#[test]
fn each_half_surrogate_pair_becomes_one_replacement_character() {
    for (escaped, expect) in [
        (r"cut \ud83d", "cut \u{fffd}"),
        (r"\ude00 rest", "\u{fffd} rest"),
        (r"\ud83d\ude00", "\u{1f600}"),
        (r"\uD83D\uDE00\uD83D", "\u{1f600}\u{fffd}"),
        (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
        (r"\ud83dx\udc00", "\u{fffd}x\u{fffd}"),
        (r"\\ud83d", "\\ud83d"),
        (r"\\\ud83d", "\\\u{fffd}"),
    ] {
        let line = format!(
            r#"{{"type":"assistant","message":{{"id":"m","content":[{{"type":"text","text":"{escaped}"}},{{"type":"tool_use","id":"t","name":"B","input":{{"q":"{escaped}"}}}}]}}}}"#
        );
        let Ok(Record::Assistant(answer)) = parse(line.as_bytes()) else { panic!("{line}") };
        let [Block::Text(text), Block::ToolUse { input, .. }] = &answer.blocks[..] else { panic!("{line}") };
        assert_eq!(text, expect);
        let input: Value = serde_json::from_str(input).unwrap_or_else(|error| panic!("{input}: {error}"));
        assert_eq!(input["q"], expect);
    }
}
