use super::*;
use crate::doctor::State;

#[test]
fn a_disk_is_nearly_full_by_bytes_or_by_share() {
    let gib = 1 << 30;
    for (free, total, expect) in [
        (100 * gib, 1000 * gib, State::Ok),
        (gib, 20 * gib, State::Ok),
        (gib - 1, 2 * gib, State::Warning),
        (49 * gib, 1000 * gib, State::Warning),
        (0, 0, State::Warning),
    ] {
        assert_eq!(judge_disk(Path::new("/s"), free, total).state, expect, "{free} of {total}");
    }
}

#[test]
fn the_service_and_the_daemon_are_judged_together() {
    let systemd = |enabled: &str, active: &str| Unit::Systemd { enabled: enabled.into(), active: active.into() };
    for (unit, remedy, state) in [
        (Unit::NoManager, "cc-langfusectl start", State::Ok),
        (systemd("enabled", "failed"), "systemctl --user enable --now", State::Problem),
        (systemd("enabled", "inactive"), "systemctl --user enable --now", State::Ok),
        (systemd("disabled", "inactive"), "systemctl --user enable --now", State::Warning),
        (systemd("not-found", "inactive"), "cc-langfusectl setup", State::Warning),
    ] {
        let [daemon, service] = judge_daemon(&Daemon::NotRunning, &unit, 0, "1").try_into().unwrap();
        assert_eq!((daemon.state, service.state), (State::Problem, state), "{unit:?}");
        assert!(daemon.remedy.unwrap().starts_with(remedy), "{unit:?}");
    }
}

#[test]
fn a_starting_daemon_is_no_problem() {
    let starting = Daemon::Starting("its database of 700 MB is changed".into());
    let daemon = judge_daemon(&starting, &Unit::NoManager, 3, "1").swap_remove(0);
    assert_eq!(daemon.state, State::Warning);
    assert!(daemon.seen.contains("700 MB") && daemon.remedy.unwrap().starts_with("wait"));
}

#[test]
fn a_state_directory_that_cannot_be_created_has_a_remedy() {
    let found = judge_access("state-directory", Path::new("/s"), &Access::Forbidden, "700", false);
    assert_eq!((found.check, found.state), ("state-directory", State::Problem));
    assert!(found.remedy.unwrap_or_default().contains("CC_LANGFUSE_STATE_DIR"));
}
