//! Formats comparisons of answers, word diffs and votes, as text and as JSON.
//!
//! Answers are shown by their number, from 1, and the name of their call.

use serde_json::{Value, json};

use super::{RESET, table::Table};
use crate::analysis::{AnswerComparison, DiffSegment, Vote};

const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";

/// Groups of equal answers, the similarity of each pair, and the numbers that some answers lack.
#[must_use]
pub(crate) fn render_difference(names: &[String], difference: &AnswerComparison) -> String {
    let mut out = String::new();
    let equal_groups = difference.groups.iter().filter(|group| group.len() > 1);
    let identical: Vec<String> = equal_groups.map(|group| answer_numbers(group).join(" = ")).collect();
    let identical = if identical.is_empty() { "none".to_owned() } else { identical.join(", ") };
    out.extend(["identical: ", &identical, "\n"]);
    let columns: Vec<String> = (1..=names.len()).map(|number| format!(">{number}")).collect();
    let head: Vec<&str> = ["#", "similarity"].into_iter().chain(columns.iter().map(String::as_str)).collect();
    let mut table = Table::new(&head);
    for (index, name) in names.iter().enumerate() {
        let cell = |other: usize| match difference.similarity[index][other] {
            Some(similarity) if other != index => format_percent(similarity),
            _ => String::new(),
        };
        table.add_row([(index + 1).to_string(), name.clone()].into_iter().chain((0..names.len()).map(cell)).collect());
    }
    out.push_str(&table.render(None, false));
    if !difference.differing_numbers.is_empty() {
        let numbers = difference
            .differing_numbers
            .iter()
            .map(|(number, answers)| format!("{number} ({})", answer_numbers(answers).join(", ")));
        out.extend(["numbers missing in some answers: ", &numbers.collect::<Vec<_>>().join(", "), "\n"]);
    }
    out
}

fn format_percent(ratio: f64) -> String {
    format!("{:.0} %", ratio * 100.0)
}

fn answer_numbers(indices: &[usize]) -> Vec<String> {
    indices.iter().map(|index| (index + 1).to_string()).collect()
}

/// Word diff of two answers: removed words are red or in `[-…-]`, added words are green or in `{+…+}`.
#[must_use]
pub(crate) fn render_word_diff((old, new): (&str, &str), changes: &[DiffSegment], styled: bool) -> String {
    let (removed, added) = if styled { ((RED, RESET), (GREEN, RESET)) } else { (("[-", "-]"), ("{+", "+}")) };
    let [red, green, reset] = if styled { [RED, GREEN, RESET] } else { [""; 3] };
    let mut out = [red, "--- ", old, reset, "\n", green, "+++ ", new, reset, "\n"].concat();
    for change in changes {
        match change {
            DiffSegment::Equal(text) => out.push_str(text),
            DiffSegment::Removed(text) => mark_lines(text, removed, &mut out),
            DiffSegment::Added(text) => mark_lines(text, added, &mut out),
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// Marks each line separately, so that a line can be shown without the others.
fn mark_lines(text: &str, (on, off): (&str, &str), out: &mut String) {
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if !line.is_empty() {
            out.extend([on, line, off]);
        }
    }
}

/// The majority, and the answers that gave each value.
#[must_use]
pub(crate) fn render_vote(names: &[String], vote: &Vote) -> String {
    let count = vote.total();
    let head = match (vote.majority(), vote.tally.first()) {
        (Some(value), Some((_, voters))) => format!("vote: {value}  ({} of {count})\n", voters.len()),
        _ => format!("vote: no majority among {count}\n"),
    };
    let mut table = Table::new(&[">votes", "answer", "models"]);
    let names_of = |voters: &[usize]| voters.iter().map(|voter| names[*voter].clone()).collect::<Vec<_>>().join(", ");
    for (value, voters) in &vote.tally {
        table.add_row(vec![voters.len().to_string(), value.clone(), names_of(voters)]);
    }
    if !vote.unparsed.is_empty() {
        table.add_row(vec![vote.unparsed.len().to_string(), "(no value found)".into(), names_of(&vote.unparsed)]);
    }
    if table.is_empty() { head } else { head + &table.render(None, false) }
}

/// A comparison as JSON; answers are identified by their index, from 0.
#[must_use]
pub(crate) fn difference_json(difference: &AnswerComparison) -> Value {
    let numbers =
        difference.differing_numbers.iter().map(|(number, answers)| json!({"number": number, "answers": answers}));
    json!({"groups": difference.groups, "similarity": difference.similarity, "numbers": numbers.collect::<Vec<_>>()})
}

/// A vote as JSON.
#[must_use]
pub(crate) fn vote_json(vote: &Vote) -> Value {
    let split = vote.tally.iter().map(|(value, voters)| json!({"answer": value, "answers": voters}));
    json!({"majority": vote.majority(), "counted": vote.total(), "split": split.collect::<Vec<_>>(), "unread": vote.unparsed})
}

/// A word diff as JSON.
#[must_use]
pub(crate) fn word_diff_json((old, new): (usize, usize), changes: &[DiffSegment]) -> Value {
    let parts = changes.iter().map(|change| match change {
        DiffSegment::Equal(text) => json!({"same": text}),
        DiffSegment::Removed(text) => json!({"removed": text}),
        DiffSegment::Added(text) => json!({"added": text}),
    });
    json!({"from": old, "to": new, "changes": parts.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{VoteKind, word_diff};

    fn names() -> Vec<String> {
        ["fast", "big", "local"].map(str::to_owned).to_vec()
    }

    #[test]
    fn comparison_refers_to_answers_by_number() {
        let texts = [Some("It is 42 or so."), Some("It is 41 or so."), Some("it is 42 or so")];
        let text = render_difference(&names(), &AnswerComparison::new(&texts));
        assert!(text.starts_with("identical: 1 = 3\n#  similarity"), "{text}");
        assert!(text.contains("1  fast            -  0 %  100 %"), "{text}");
        assert!(text.ends_with("numbers missing in some answers: 42 (1, 3), 41 (2)\n"), "{text}");
    }

    #[test]
    fn word_diff_is_marked_line_by_line() {
        let text = render_word_diff(("1 a", "2 b"), &word_diff("one two\nthree", "one 2\nthree four"), false);
        assert_eq!(text, "--- 1 a\n+++ 2 b\none [-two-]{+2+}\nthree{+ four+}\n");
        let text = render_word_diff(("1 a", "2 b"), &word_diff("a\nb", "c"), true);
        assert!(text.lines().all(|line| line.matches(RESET).count() == line.matches("\u{1b}[3").count()), "{text:?}");
    }

    #[test]
    fn vote_lists_the_models_of_each_value() {
        let texts = [Some("42"), Some("41"), Some("42")];
        let text = render_vote(&names(), &Vote::new(&texts, VoteKind::Number, None));
        assert_eq!(text, "vote: 42  (2 of 3)\nvotes  answer  models\n    2  42      fast, local\n    1  41      big\n");
        let text = render_vote(&names(), &Vote::new(&[Some("1"), Some("2"), None], VoteKind::Number, None));
        assert!(text.starts_with("vote: no majority among 2\n"), "{text}");
    }
}
