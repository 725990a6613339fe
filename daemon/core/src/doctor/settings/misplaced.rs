//! Settings under names that Claude Code ignores, as guides for other tracers have them.

use std::path::Path;

use proto::env::VARIABLES;
use serde_json::Value;

use super::Finding;
use crate::settings::HOOK;

/// Keys that people write in place of `env` and `hooks`, and the right ones.
const NAMES: [(&str, &str); 6] = [
    ("environment", "env"),
    ("Env", "env"),
    ("ENV", "env"),
    ("environmentVariables", "env"),
    ("hook", "hooks"),
    ("Hooks", "hooks"),
];

/// The keys in the settings `file` that Claude Code ignores; `None` if there are none.
pub(super) fn judge(check: &'static str, file: &Path, value: &Value) -> Option<Finding> {
    let shown = file.display();
    let top = value.as_object()?;
    let known = |name: &str| VARIABLES.iter().any(|row| row.name == name);
    if let Some((wrong, right)) = NAMES.iter().find(|(wrong, _)| top.get(*wrong).is_some_and(Value::is_object)) {
        return Some(Finding::warning(
            check,
            format!("{shown} has `{wrong}`, which Claude Code does not read"),
            match top.contains_key(*right) {
                true => format!("move what is in `{wrong}` into `{right}` of {shown}"),
                false => format!("rename `{wrong}` to `{right}` in {shown}"),
            },
        ));
    }
    let stray = top.keys().find(|name| known(name))?;
    Some(Finding::warning(
        check,
        format!("{shown} has {stray} outside `env`, where Claude Code does not read it"),
        format!("move it into `env` of {shown}"),
    ))
}

/// Reports a `hooks.json` beside the settings.
pub fn judge_hooks_file(file: &Path) -> Finding {
    let settings = file.with_file_name("settings.json");
    Finding::warning(
        "hooks-file",
        format!("Claude Code does not read {}: the hooks in it never run", file.display()),
        format!(
            "hooks belong in `hooks` of {}: cc-langfusectl setup registers {HOOK} for you; then remove {}",
            settings.display(),
            file.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_misplaced_key_is_reported_with_the_right_one() {
        let judge = |value: Value| judge("project-settings", Path::new("/p/.claude/settings.json"), &value);
        for (value, seen, remedy) in [
            (json!({"environment": {"MLFLOW_TRACKING_URI": "x"}}), "`environment`", "rename `environment` to `env`"),
            (json!({"environment": {}, "env": {}}), "`environment`", "move what is in `environment` into `env`"),
            (json!({"ENV": {"A": "b"}}), "`ENV`", "rename `ENV` to `env`"),
            (json!({"Hooks": {"Stop": []}}), "`Hooks`", "rename `Hooks` to `hooks`"),
            (json!({"TRACE_TO_LANGFUSE": "true"}), "TRACE_TO_LANGFUSE outside `env`", "into `env`"),
        ] {
            let finding = judge(value.clone()).unwrap();
            let remedied = finding.remedy.as_deref().unwrap_or_default();
            assert!(finding.state == State::Warning && finding.seen.contains(seen), "{value}: {finding:?}");
            assert!(remedied.contains(remedy), "{value}: {finding:?}");
        }
        for value in [json!({}), json!([]), json!({"env": {"A": "b"}, "hooks": {}}), json!({"environment": "prod"})] {
            assert_eq!(judge(value.clone()), None, "{value}");
        }
    }

    #[test]
    fn a_hooks_file_beside_the_settings_is_reported() {
        let finding = judge_hooks_file(Path::new("/p/.claude/hooks.json"));
        assert!(finding.seen.contains("does not read /p/.claude/hooks.json"));
        assert!(finding.remedy.unwrap().contains("`hooks` of /p/.claude/settings.json"));
    }
}
