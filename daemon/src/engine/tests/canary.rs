use serde_json::Value;

use super::*;

/// A token as it would be in a transcript; no literal looks like one.
fn token() -> String {
    ["gh", "p_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"].concat()
}

/// Appends the token to every string that does not name a kind.
fn poison(value: &mut Value, key: &str) {
    match value {
        Value::String(text)
            if !matches!(key, "type" | "subtype" | "role" | "timestamp" | "sessionId" | "stop_reason") =>
        {
            *text = format!("{text} {}", token());
        }
        Value::Array(items) => items.iter_mut().for_each(|item| poison(item, key)),
        Value::Object(members) => members.iter_mut().for_each(|(key, value)| poison(value, key)),
        _ => {}
    }
}

/// The recorded sessions of the repository, of any length.
fn recordings() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let below = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let projects = below(fixtures).flat_map(|recording| below(recording.join("projects")));
    let mut files: Vec<PathBuf> =
        projects.flat_map(below).filter(|path| path.extension().is_some_and(|e| e == "jsonl")).collect();
    files.sort();
    files
}

#[test]
fn a_secret_in_any_field_of_any_line_is_neither_sent_nor_stored() {
    let (mut seen, mut spans) = (0, 0);
    for recording in recordings() {
        let (base, dir) = home();
        let text = std::fs::read_to_string(&recording).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).map(|mut line| {
            poison(&mut line, "");
            // A line of an unknown kind, with an unknown field.
            line[token()] = token().into();
            line
        });
        let mut lines: Vec<Value> = lines.collect();
        lines.push(serde_json::json!({"type": token(), "uuid": token(), "version": token()}));
        write(&dir.join("s.jsonl"), &lines);
        let engine = Running::new(base.path());
        engine.hear(ended(&dir, "s"));
        let counts = engine.until(|counts| counts.inbox == 0);
        spans += counts.outbox;
        drop(engine);
        for name in ["state.db", "state.db-wal"] {
            let Ok(bytes) = std::fs::read(base.path().join(name)) else { continue };
            seen += 1;
            let found = memchr::memmem::find(&bytes, token().as_bytes());
            let around = found.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(200)..at + 60]).into_owned());
            assert_eq!(around, None, "{} in {name}", recording.display());
        }
    }
    assert!(seen > 20 && spans > 100, "{seen} files, {spans} spans");
}
