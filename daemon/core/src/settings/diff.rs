//! A line-by-line diff of two texts, for people to read.

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices, group_diff_ops};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'t> {
    Same(&'t str),
    Old(&'t str),
    New(&'t str),
    /// Unchanged lines that are left out.
    Gap,
}

/// Unchanged lines shown around a change.
const CONTEXT_LINES: usize = 3;

/// How many pairs of lines are compared at most. Beyond that, everything between the first and the last difference counts as
/// changed.
const MAX_PAIRS: usize = 4_000_000;

/// The diff with context; empty if the texts are equal.
pub fn diff<'t>(old: &'t str, new: &'t str) -> Vec<Line<'t>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let mut lines = Vec::new();
    let mut end = 0;
    for group in group_diff_ops(compare(&old, &new), CONTEXT_LINES) {
        if group.first().is_some_and(|op| op.old_range().start > end) {
            lines.push(Line::Gap);
        }
        for op in &group {
            let (_, left, right) = op.as_tag_tuple();
            match op.tag() {
                DiffTag::Equal => lines.extend(old[left].iter().map(|line| Line::Same(line))),
                _ => {
                    lines.extend(old[left].iter().map(|line| Line::Old(line)));
                    lines.extend(new[right].iter().map(|line| Line::New(line)));
                }
            }
            end = op.old_range().end;
        }
    }
    if !lines.is_empty() && end < old.len() {
        lines.push(Line::Gap);
    }
    lines
}

fn compare(old: &[&str], new: &[&str]) -> Vec<DiffOp> {
    let head = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(old, new)| old == new).count();
    let (left, right) = (old.len() - head - tail, new.len() - head - tail);
    if left.saturating_mul(right) <= MAX_PAIRS {
        return capture_diff_slices(Algorithm::Myers, old, new);
    }
    vec![
        DiffOp::Equal { old_index: 0, new_index: 0, len: head },
        DiffOp::Replace { old_index: head, old_len: left, new_index: head, new_len: right },
        DiffOp::Equal { old_index: head + left, new_index: head + right, len: tail },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> String {
        let line = |line: Line<'_>| match line {
            Line::Same(text) => format!(" {text}"),
            Line::Old(text) => format!("-{text}"),
            Line::New(text) => format!("+{text}"),
            Line::Gap => "…".to_owned(),
        };
        diff(old, new).into_iter().map(line).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn a_diff_shows_changes_with_context() {
        for (old, new, expect) in [
            ("a\nb", "a\nb", ""),
            ("", "a", "-|+a"),
            ("a\nb\nc", "a\nx\nc", " a|-b|+x| c"),
            ("a\nb\nc\nd", "x\na\nb\ny\nd", "+x| a| b|-c|+y| d"),
            ("1\n2\n3\n4\n5\n6\n7\n8", "1\n2\n3\n4\nx\n5\n6\n7\n8", "…| 2| 3| 4|+x| 5| 6| 7|…"),
        ] {
            assert_eq!(shown(old, new), expect);
        }
    }

    #[test]
    fn a_diff_reproduces_both_texts() {
        let mut state = 1u64;
        let mut word = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let text = |word: &mut dyn FnMut(u64) -> u64| -> String {
                (0..=word(12)).map(|_| word(4).to_string()).collect::<Vec<_>>().join("\n")
            };
            let (old, new) = (text(&mut word), text(&mut word));
            let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
            let (mut left, mut right) = (Vec::new(), Vec::new());
            for op in compare(&old, &new) {
                let (tag, of_old, of_new) = op.as_tag_tuple();
                left.extend_from_slice(&old[of_old.clone()]);
                right.extend_from_slice(if tag == DiffTag::Equal { &old[of_old] } else { &new[of_new] });
            }
            assert_eq!((left, right), (old, new));
        }
    }

    #[test]
    fn very_different_texts_are_shown_as_replaced() {
        let text = |word: &str| (0..2100).map(|n| format!("{word} {n}\n")).collect::<String>();
        let (old, new) = (format!("same\n{}", text("old")), format!("same\n{}", text("new")));
        let count = |is: fn(&Line<'_>) -> bool| diff(&old, &new).iter().filter(|line| is(line)).count();
        assert_eq!(count(|line| matches!(line, Line::Same(_))), 2);
        assert_eq!(count(|line| matches!(line, Line::Old(_))), 2100);
        assert_eq!(count(|line| matches!(line, Line::New(_))), 2100);
    }
}
