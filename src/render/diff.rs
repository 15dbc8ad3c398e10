//! What several answers have in common, as text and as data.
//!
//! Owns how groups, likeness, numbers, words and votes read. Names are the lanes' with their numbers, as everywhere.

use serde_json::{Value, json};

use super::table::Table;
use crate::analysis::{Change, Difference, Vote};

const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";
const RESET: &str = "\u{1b}[0m";

/// Groups of equal answers, how alike each two are, and the numbers that not all have.
#[must_use]
pub fn difference(names: &[String], difference: &Difference) -> String {
    let mut out = String::new();
    let several = difference.groups.iter().filter(|group| group.len() > 1);
    let same: Vec<String> = several.map(|group| numbers_of(group).join(" = ")).collect();
    let same = if same.is_empty() { "none".to_owned() } else { same.join(", ") };
    out.extend(["the same: ", &same, "\n"]);
    let columns: Vec<String> = (1..=names.len()).map(|number| format!(">{number}")).collect();
    let head: Vec<&str> = ["#", "alike"].into_iter().chain(columns.iter().map(String::as_str)).collect();
    let mut table = Table::new(&head);
    for (index, name) in names.iter().enumerate() {
        let share = |other: usize| match difference.likeness[index][other] {
            Some(share) if other != index => percent(share),
            _ => String::new(),
        };
        table.row([(index + 1).to_string(), name.clone()].into_iter().chain((0..names.len()).map(share)).collect());
    }
    out.push_str(&table.text(None, false));
    if !difference.numbers.is_empty() {
        let told =
            difference.numbers.iter().map(|(number, holders)| format!("{number} ({})", numbers_of(holders).join(", ")));
        out.extend(["numbers that not all have: ", &told.collect::<Vec<_>>().join(", "), "\n"]);
    }
    out
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn numbers_of(lanes: &[usize]) -> Vec<String> {
    lanes.iter().map(|lane| (lane + 1).to_string()).collect()
}

/// Two answers word by word: what only the first has is red, or in `[-…-]`; what only the second has green, or in `{+…+}`.
#[must_use]
pub fn words((old, new): (&str, &str), changes: &[Change], styled: bool) -> String {
    let (removed, added) = if styled { ((RED, RESET), (GREEN, RESET)) } else { (("[-", "-]"), ("{+", "+}")) };
    let ends = if styled { [RED, GREEN, RESET] } else { [""; 3] };
    let mut out = [ends[0], "--- ", old, ends[2], "\n", ends[1], "+++ ", new, ends[2], "\n"].concat();
    for change in changes {
        match change {
            Change::Same(text) => out.push_str(text),
            Change::Removed(text) => marked(text, removed, &mut out),
            Change::Added(text) => marked(text, added, &mut out),
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// Marks end with their line, so that each line stands alone.
fn marked(text: &str, (on, off): (&str, &str), out: &mut String) {
    for (place, line) in text.split('\n').enumerate() {
        if place > 0 {
            out.push('\n');
        }
        if !line.is_empty() {
            out.extend([on, line, off]);
        }
    }
}

/// The majority, and who said what.
#[must_use]
pub fn vote(names: &[String], vote: &Vote) -> String {
    let count = vote.count();
    let head = match (vote.majority(), vote.split.first()) {
        (Some(value), Some((_, voters))) => format!("vote: {value}  ({} of {count})\n", voters.len()),
        _ => format!("vote: no majority among {count}\n"),
    };
    let mut table = Table::new(&[">votes", "answer", "of"]);
    let of = |voters: &[usize]| voters.iter().map(|voter| names[*voter].clone()).collect::<Vec<_>>().join(", ");
    for (value, voters) in &vote.split {
        table.row(vec![voters.len().to_string(), value.clone(), of(voters)]);
    }
    if !vote.unread.is_empty() {
        table.row(vec![vote.unread.len().to_string(), "(cannot be read)".into(), of(&vote.unread)]);
    }
    if table.is_empty() { head } else { head + &table.text(None, false) }
}

/// The same for programs; answers are told by their places, from 0.
#[must_use]
pub fn difference_object(difference: &Difference) -> Value {
    let numbers = difference.numbers.iter().map(|(number, holders)| json!({"number": number, "answers": holders}));
    json!({"groups": difference.groups, "similarity": difference.likeness, "numbers": numbers.collect::<Vec<_>>()})
}

/// A vote for programs.
#[must_use]
pub fn vote_object(vote: &Vote) -> Value {
    let split = vote.split.iter().map(|(value, voters)| json!({"answer": value, "answers": voters}));
    json!({"majority": vote.majority(), "counted": vote.count(), "split": split.collect::<Vec<_>>(), "unread": vote.unread})
}

/// What changed for programs.
#[must_use]
pub fn words_object((old, new): (usize, usize), changes: &[Change]) -> Value {
    let pieces = changes.iter().map(|change| match change {
        Change::Same(text) => json!({"same": text}),
        Change::Removed(text) => json!({"removed": text}),
        Change::Added(text) => json!({"added": text}),
    });
    json!({"from": old, "to": new, "changes": pieces.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Kind, changes};

    fn names() -> Vec<String> {
        ["fast", "big", "local"].map(str::to_owned).to_vec()
    }

    #[test]
    fn what_is_common_is_told_by_the_lanes_numbers() {
        let texts = [Some("It is 42 or so."), Some("It is 41 or so."), Some("it is 42 or so")];
        let text = difference(&names(), &Difference::of(&texts));
        assert!(text.starts_with("the same: 1 = 3\n#  alike"), "{text}");
        assert!(text.contains("1  fast       -  0 %  100 %"), "{text}");
        assert!(text.ends_with("numbers that not all have: 42 (1, 3), 41 (2)\n"), "{text}");
    }

    #[test]
    fn words_are_marked_line_by_line() {
        let text = words(("1 a", "2 b"), &changes("one two\nthree", "one 2\nthree four"), false);
        assert_eq!(text, "--- 1 a\n+++ 2 b\none [-two-]{+2+}\nthree{+ four+}\n");
        let text = words(("1 a", "2 b"), &changes("a\nb", "c"), true);
        assert!(text.lines().all(|line| line.matches(RESET).count() == line.matches("\u{1b}[3").count()), "{text:?}");
    }

    #[test]
    fn a_vote_tells_who_said_what() {
        let texts = [Some("42"), Some("41"), Some("42")];
        let text = vote(&names(), &Vote::of(&texts, Kind::Number, None));
        assert_eq!(text, "vote: 42  (2 of 3)\nvotes  answer  of\n    2  42      fast, local\n    1  41      big\n");
        let text = vote(&names(), &Vote::of(&[Some("1"), Some("2"), None], Kind::Number, None));
        assert!(text.starts_with("vote: no majority among 2\n"), "{text}");
    }
}
