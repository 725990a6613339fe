use proptest::prelude::*;
use serde_json::json;

use super::*;

fn keys<'a>(path: &[&'a str]) -> Vec<Step<'a>> {
    path.iter().map(|key| Step::Key(key)).collect()
}

#[test]
fn additions_adopt_the_layout_of_the_text() {
    for (text, path, value, expect) in [
        ("{}", &["a"][..], json!("x"), "{\n  \"a\": \"x\"\n}"),
        ("{ }\n", &["a", "b"], json!([]), "{\n  \"a\": {\n    \"b\": []\n  }\n}\n"),
        (r#"{"a":1}"#, &["b"], json!({"c": [1]}), r#"{"a":1,"b":{"c":[1]}}"#),
        (r#"{ "a": 1 }"#, &["b"], json!({"c": [1, 2]}), r#"{ "a": 1, "b": {"c": [1, 2]} }"#),
        ("{\n\t\"a\": {}\n}", &["a", "b"], json!(1), "{\n\t\"a\": {\n\t\t\"b\": 1\n\t}\n}"),
        (
            "{\r\n    \"a\": 1\r\n}\r\n",
            &["b"],
            json!([2]),
            "{\r\n    \"a\": 1,\r\n    \"b\": [\r\n        2\r\n    ]\r\n}\r\n",
        ),
        (
            "{\n  \"a\": {\"x\": 1},\n  \"z\": 0}",
            &["a", "b"],
            json!(1),
            "{\n  \"a\": {\"x\": 1, \"b\": 1},\n  \"z\": 0}",
        ),
        ("{\n  \"a\": 1,\n  \"a\": 2\n}", &["a"], json!(3), "{\n  \"a\": 1,\n  \"a\": 3\n}"),
        ("{\"\\u0061\":\"\\\"}\"}", &["a"], json!(3), "{\"\\u0061\":3}"),
    ] {
        let edited = put(text, &keys(path), &value).unwrap();
        assert_eq!(edited, expect);
    }
}

#[test]
fn invalid_json_is_an_error_with_position_and_remedy() {
    for (text, place, part) in [
        ("{\n  // mine\n  \"a\": 1\n}", "line 2", "comments are not JSON"),
        ("{\"a\": 1, /* x */ \"b\": 2}", "line 1", "comments are not JSON"),
        ("{\n\"a\": 1,\n}", "line 3", "remove it"),
        ("{\"a\": ", "line 1", "EOF"),
        ("", "line 1", "EOF"),
        ("{} x", "line 1", "trailing characters"),
        (&"[".repeat(200), "line 1", "recursion limit"),
    ] {
        let why = put(text, &[Step::Key("b")], &json!(1)).unwrap_err().to_string();
        assert!(why.contains(place) && why.contains(part), "{why}");
    }
    for (text, why) in [(r#"{"a":1}"#, "`a` is not an object"), ("[]", "`` is not an object")] {
        assert_eq!(put(text, &keys(&["a", "b"]), &json!(1)).unwrap_err().to_string(), why);
    }
    assert_eq!(push(r#"{"a":{}}"#, &keys(&["a"]), &json!(1)).unwrap_err().to_string(), "`a` is not an array");
    assert_eq!(cut("{}", &keys(&["a"])), Err(Error::Missing("a".into())));
}

/// JSON as people and programs write it: any values with any white space between them.
fn text() -> impl Strategy<Value = String> {
    let space = || prop::sample::select(vec!["", "", " ", "\n", "\n  ", "\r\n\t", "  "]);
    let string = || {
        let part = prop::sample::select(vec![
            "a", "b", "c", "hooks", "\\n", "\\\"", "\\\\", "\\u00e9", "é", "{", "]", ",", ":", "//",
        ]);
        prop::collection::vec(part, 0..3).prop_map(|parts| format!("\"{}\"", parts.concat()))
    };
    let scalar =
        prop_oneof![string(), prop::sample::select(vec!["1", "-2.5e3", "true", "null"]).prop_map(str::to_owned)];
    let value = scalar.prop_recursive(6, 40, 4, move |inner| {
        let spaced = |inner| (space(), inner, space()).prop_map(|(a, v, b): (_, String, _)| format!("{a}{v}{b}"));
        let member = (spaced(string().boxed()), spaced(inner.clone().boxed())).prop_map(|(k, v)| format!("{k}:{v}"));
        let joined =
            |entries: Vec<String>, space: &str| if entries.is_empty() { space.to_owned() } else { entries.join(",") };
        prop_oneof![
            (prop::collection::vec(member, 0..4), space()).prop_map(move |(m, s)| format!("{{{}}}", joined(m, s))),
            (prop::collection::vec(spaced(inner.boxed()), 0..4), space())
                .prop_map(move |(e, s)| format!("[{}]", joined(e, s))),
        ]
    });
    (space(), value, space()).prop_map(|(a, v, b)| format!("{a}{v}{b}"))
}

/// Every path into a value.
fn paths(node: &Node, way: &mut Vec<(Option<String>, usize)>, found: &mut Vec<Vec<(Option<String>, usize)>>) {
    found.push(way.clone());
    for (at, element) in node.elements().iter().enumerate() {
        way.push((None, at));
        paths(element, way, found);
        way.pop();
    }
    for member in node.members() {
        // Of members with the same name only the last can be reached.
        if node.get(Step::Key(&member.key)) == Some(&member.value) {
            way.push((Some(member.key.clone()), 0));
            paths(&member.value, way, found);
            way.pop();
        }
    }
}

fn steps(way: &[(Option<String>, usize)]) -> Vec<Step<'_>> {
    way.iter().map(|(key, at)| key.as_deref().map_or(Step::At(*at), Step::Key)).collect()
}

fn at<'v>(value: &'v mut Value, path: &[Step<'_>]) -> &'v mut Value {
    path.iter().fold(value, |value, step| match step {
        Step::Key(key) => &mut value[*key],
        Step::At(at) => &mut value[*at],
    })
}

/// True if `new` is `old` with other bytes at `span` and no other change.
fn differs_only_at(old: &str, new: &str, span: &Range<usize>) -> bool {
    new.len() + span.len() >= old.len() && new.starts_with(&old[..span.start]) && new.ends_with(&old[span.end..])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn an_edit_keeps_all_other_bytes_and_can_be_undone(
        text in text(), pick in any::<prop::sample::Index>(), value in prop::sample::select(vec![json!("v"), json!({"x": [1, {"y": 2}]}), json!([])]),
    ) {
        let root = parse(&text).unwrap();
        let mut ways = Vec::new();
        paths(&root, &mut Vec::new(), &mut ways);
        let way = &ways[pick.index(ways.len())];
        let path = steps(way);
        let node = root.find(&path).unwrap();
        let mut expected: Value = serde_json::from_str(&text).unwrap();

        // Replaced and restored.
        let replaced = put(&text, &path, &value).unwrap();
        prop_assert!(differs_only_at(&text, &replaced, &node.span));
        let span = parse(&replaced).unwrap().find(&path).unwrap().span.clone();
        prop_assert_eq!(replace(&replaced, &span, &text[node.span.clone()]), text.clone());
        *at(&mut expected, &path) = value.clone();
        prop_assert_eq!(serde_json::from_str::<Value>(&replaced).unwrap(), expected);

        // Added and removed.
        let mut expected: Value = serde_json::from_str(&text).unwrap();
        let inside = at(&mut expected, &path);
        let mut added_at = path.clone();
        let added = match &node.children {
            Children::Members(_) => {
                inside["new \"one\""] = value.clone();
                added_at.push(Step::Key("new \"one\""));
                put(&text, &added_at, &value).unwrap()
            }
            Children::Elements(elements) => {
                inside.as_array_mut().unwrap().push(value.clone());
                added_at.push(Step::At(elements.len()));
                push(&text, &path, &value).unwrap()
            }
            Children::None => return Ok(()),
        };
        prop_assert_eq!(serde_json::from_str::<Value>(&added).unwrap(), expected);
        let empty = node.is_empty();
        let place = if empty { node.span.clone() } else {
            let last = node.spans().pop().unwrap().end;
            last..last
        };
        prop_assert!(differs_only_at(&text, &added, &place));
        let undone = cut(&added, &added_at).unwrap();
        if empty {
            prop_assert!(differs_only_at(&text, &undone, &node.span) && parse(&undone).unwrap().find(&path).unwrap().is_empty());
        } else {
            prop_assert_eq!(undone, text);
        }
    }

    #[test]
    fn a_cut_removes_only_the_value(text in text(), pick in any::<prop::sample::Index>()) {
        let root = parse(&text).unwrap();
        let mut ways = Vec::new();
        paths(&root, &mut Vec::new(), &mut ways);
        let way = &ways[pick.index(ways.len())];
        let path = steps(way);
        let Some((last, up)) = path.split_last() else { return Ok(()) };
        let parent = root.find(up).unwrap();
        if parent.members().iter().filter(|member| Step::Key(&member.key) == *last).count() > 1 {
            return Ok(());
        }
        let mut expected: Value = serde_json::from_str(&text).unwrap();
        match last {
            Step::Key(key) => drop(at(&mut expected, up).as_object_mut().unwrap().remove(*key)),
            Step::At(index) => drop(at(&mut expected, up).as_array_mut().unwrap().remove(*index)),
        }
        let rest = cut(&text, &path).unwrap();
        prop_assert!(differs_only_at(&text, &rest, &parent.span));
        prop_assert_eq!(serde_json::from_str::<Value>(&rest).unwrap(), expected);
    }
}
