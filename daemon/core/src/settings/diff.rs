//! What changes in a text, line by line, for people to read.

/// One line of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'t> {
    /// In both texts.
    Same(&'t str),
    /// In the old one.
    Old(&'t str),
    /// In the new one.
    New(&'t str),
    /// Here lines that are in both are left out.
    Gap,
}

/// How many lines around a change are shown.
const AROUND: usize = 3;

/// Most pairs of lines that are compared; beyond, everything between the first and the last difference counts as changed.
const MOST: usize = 4_000_000;

/// The lines that make `new` of `old`, with some around them; none if the texts are the same.
pub fn diff<'t>(old: &'t str, new: &'t str) -> Vec<Line<'t>> {
    if old == new {
        return Vec::new();
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(old, new)| old == new).count();
    let (left, right) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut lines: Vec<Line<'t>> = old[..head].iter().map(|line| Line::Same(line)).collect();
    if left.len().saturating_mul(right.len()) > MOST {
        lines.extend(left.iter().map(|line| Line::Old(line)));
        lines.extend(right.iter().map(|line| Line::New(line)));
    } else {
        compare(left, right, &mut lines);
    }
    lines.extend(old[old.len() - tail..].iter().map(|line| Line::Same(line)));
    shorten(&lines)
}

/// By their longest common subsequence.
fn compare<'t>(left: &[&'t str], right: &[&'t str], lines: &mut Vec<Line<'t>>) {
    let width = right.len() + 1;
    // Lengths of the common subsequences of what is left from each pair of lines on.
    let mut common = vec![0u32; (left.len() + 1) * width];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            common[i * width + j] = if left[i] == right[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            lines.push(Line::Same(left[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < left.len() && (j == right.len() || common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(Line::Old(left[i]));
            i += 1;
        } else {
            lines.push(Line::New(right[j]));
            j += 1;
        }
    }
}

fn shorten<'t>(lines: &[Line<'t>]) -> Vec<Line<'t>> {
    let changed: Vec<usize> = (0..lines.len()).filter(|at| !matches!(lines[*at], Line::Same(_))).collect();
    let mut short = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let next = changed.partition_point(|changed| *changed < at);
        let near = |changed: Option<&usize>| changed.is_some_and(|changed| changed.abs_diff(at) <= AROUND);
        if near(changed.get(next)) || near(next.checked_sub(1).and_then(|before| changed.get(before))) {
            short.push(*line);
        } else if short.last() != Some(&Line::Gap) {
            short.push(Line::Gap);
        }
    }
    short
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
    fn what_changes_is_shown_with_a_little_around_it() {
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
    fn a_difference_can_be_followed_from_either_text() {
        let mut state = 1u64;
        let mut word = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let old: Vec<String> = (0..word(12)).map(|_| word(4).to_string()).collect();
            let new: Vec<String> = (0..word(12)).map(|_| word(4).to_string()).collect();
            let (mut lines, mut left, mut right) = (Vec::new(), Vec::new(), Vec::new());
            let (old, new): (Vec<&str>, Vec<&str>) =
                (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
            compare(&old, &new, &mut lines);
            for line in lines {
                match line {
                    Line::Same(text) => (left.push(text), right.push(text)).0,
                    Line::Old(text) => left.push(text),
                    Line::New(text) => right.push(text),
                    Line::Gap => {}
                }
            }
            assert_eq!((left, right), (old, new));
        }
    }
}
