//! Majority vote among short answers.
//!
//! Extracts a number, a choice or a JSON field from each answer. A majority is more than half of all complete answers,
//! including those from which no value can be extracted. Failed answers do not count.

use crate::analysis::{numeric::extract_numbers, tokenize::normalize_text};

/// Kind of value extracted from an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum VoteKind {
    /// Detect the kind that fits all answers.
    #[default]
    Auto,
    /// The number after the last answer marker, otherwise the last number.
    Number,
    /// A letter, or yes or no.
    Choice,
    /// The text, ignoring case, whitespace and emphasis.
    Text,
}

/// All kinds with their names.
pub(crate) static VOTE_KINDS: &[(&str, VoteKind)] =
    &[("auto", VoteKind::Auto), ("number", VoteKind::Number), ("choice", VoteKind::Choice), ("text", VoteKind::Text)];

/// Result of a vote. Answers are identified by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vote {
    /// Values with the answers that gave them, the most frequent first, ties in order of first occurrence.
    pub tally: Vec<(String, Vec<usize>)>,
    /// Complete answers without a value.
    pub unparsed: Vec<usize>,
}

impl Vote {
    /// Counts the votes in `texts`; `None` is a failed answer. With `field`, each answer is JSON and the value is that
    /// field.
    #[must_use]
    pub(crate) fn new(texts: &[Option<&str>], kind: VoteKind, field: Option<&str>) -> Self {
        let kind = if kind == VoteKind::Auto { detect_kind(texts) } else { kind };
        let mut vote = Self { tally: Vec::new(), unparsed: Vec::new() };
        for (index, text) in texts.iter().enumerate() {
            let Some(text) = text else { continue };
            let value = match field {
                Some(field) => json_field(text, field).map(|value| normalize_value(&value)),
                None => parse_answer(text, kind),
            };
            match value {
                None => vote.unparsed.push(index),
                Some(value) => match vote.tally.iter_mut().find(|(known, _)| *known == value) {
                    Some((_, voters)) => voters.push(index),
                    None => vote.tally.push((value, vec![index])),
                },
            }
        }
        vote.tally.sort_by_key(|(_, voters)| std::cmp::Reverse(voters.len()));
        vote
    }

    /// Number of complete answers.
    #[must_use]
    pub(crate) fn total(&self) -> usize {
        self.unparsed.len() + self.tally.iter().map(|(_, voters)| voters.len()).sum::<usize>()
    }

    /// The value given by more than half of the complete answers.
    #[must_use]
    pub(crate) fn majority(&self) -> Option<&str> {
        self.tally.first().filter(|(_, voters)| voters.len() * 2 > self.total()).map(|(value, _)| value.as_str())
    }
}

/// Detects the kind that unambiguously fits all complete answers.
fn detect_kind(texts: &[Option<&str>]) -> VoteKind {
    let all_fit = |fits: fn(&str) -> bool| {
        let mut nonempty = texts.iter().flatten().filter(|text| !text.trim().is_empty()).peekable();
        nonempty.peek().is_some() && nonempty.all(|text| fits(text))
    };
    if all_fit(|text| parse_choice(text).is_some()) {
        VoteKind::Choice
    } else if all_fit(|text| number_after_marker(text).is_some() || is_number(text)) {
        VoteKind::Number
    } else {
        VoteKind::Text
    }
}

fn parse_answer(text: &str, kind: VoteKind) -> Option<String> {
    match kind {
        VoteKind::Number => number_after_marker(text).or_else(|| extract_numbers(text).pop()),
        VoteKind::Choice => parse_choice(text),
        VoteKind::Text | VoteKind::Auto => Some(normalize_text(text)).filter(|text| !text.is_empty()),
    }
}

/// Whether `text` is one short line with exactly one number.
fn is_number(text: &str) -> bool {
    let text = text.trim();
    extract_numbers(text).len() == 1 && text.chars().count() <= 40 && !text.contains('\n')
}

/// The number after the last answer marker.
fn number_after_marker(text: &str) -> Option<String> {
    text_after_marker(text).and_then(|rest| extract_numbers(rest).into_iter().next())
}

/// The text after the last answer marker: "answer is", `####`, `\boxed{` and the like.
fn text_after_marker(text: &str) -> Option<&str> {
    const MARKERS: &[&str] =
        &["answer is", "answer:", "####", "\\boxed{", "答案是", "答案为", "答案：", "答案:", "answer**:", "answer:**"];
    // Unicode lowercasing may change byte lengths and so shift the offsets.
    let lower = text.to_ascii_lowercase();
    let end = MARKERS.iter().filter_map(|marker| lower.rfind(marker).map(|start| start + marker.len())).max()?;
    text.get(end..)
}

/// Extracts a choice: `B`, `(b)`, `**B.** because`, `The answer is B`, `yes`.
fn parse_choice(text: &str) -> Option<String> {
    let marked_choice = text_after_marker(text).and_then(parse_leading_choice);
    marked_choice.or_else(|| parse_leading_choice(text))
}

fn parse_leading_choice(text: &str) -> Option<String> {
    let bare: String = text.chars().map(|c| if "*_`()[]{}\"'“”：:".contains(c) { ' ' } else { c }).collect();
    let mut words = bare.split_whitespace();
    let first = words.next()?;
    let letter = first.trim_end_matches(['.', ',', ')', '。', '，', ';', '!']);
    match letter.to_lowercase().as_str() {
        "yes" | "true" | "是" | "对" => return Some("yes".into()),
        "no" | "false" | "否" | "不" | "不是" => return Some("no".into()),
        _ => {}
    }
    let mut characters = letter.chars();
    let (initial, next) = (characters.next()?, characters.next());
    // `A` may also start a sentence: it is a choice only if it is the whole text or is marked as a choice.
    let is_marked =
        words.next().is_none() || letter.len() < first.len() || text.trim_start().starts_with(['(', '*', '[']);
    (next.is_none() && initial.is_ascii_alphabetic() && is_marked).then(|| initial.to_ascii_uppercase().to_string())
}

/// The value at `path` (`a.b.0`) of the JSON in an answer, which may be in a code fence or surrounded by text.
fn json_field(text: &str, path: &str) -> Option<serde_json::Value> {
    let json = find_json(text)?;
    path.split('.').filter(|part| !part.is_empty()).try_fold(json, |mut value, part| match &mut value {
        serde_json::Value::Object(fields) => fields.shift_remove(part),
        serde_json::Value::Array(items) => {
            let index: usize = part.parse().ok()?;
            (index < items.len()).then(|| items.swap_remove(index))
        }
        _ => None,
    })
}

fn find_json(text: &str) -> Option<serde_json::Value> {
    if let Ok(value) = serde_json::from_str(text.trim()) {
        return Some(value);
    }
    let starts = text.char_indices().filter(|(_, c)| matches!(c, '{' | '['));
    // The first complete JSON value; text after it is ignored.
    starts
        .map(|(offset, _)| &text[offset..])
        .take(20)
        .find_map(|rest| serde_json::Deserializer::from_str(rest).into_iter::<serde_json::Value>().next()?.ok())
}

/// Normalizes a JSON value for comparison.
fn normalize_value(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => normalize_text(text),
        serde_json::Value::Number(number) => {
            let text = number.to_string();
            extract_numbers(&text).pop().unwrap_or(text)
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(texts: &[&str], kind: VoteKind) -> (Vec<(String, usize)>, Option<String>) {
        let texts: Vec<Option<&str>> = texts.iter().map(|text| Some(*text)).collect();
        let vote = Vote::new(&texts, kind, None);
        let majority = vote.majority().map(str::to_owned);
        (vote.tally.into_iter().map(|(value, voters)| (value, voters.len())).collect(), majority)
    }

    fn tally(rows: &[(&str, usize)]) -> Vec<(String, usize)> {
        rows.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect()
    }

    #[test]
    fn numbers_are_equal_in_any_notation() {
        let texts = ["42", "The answer is **42**.", "6 * 7 = 42.0\n\n#### 42", "41"];
        assert_eq!(vote(&texts, VoteKind::Number), (tally(&[("42", 3), ("41", 1)]), Some("42".into())));
        assert_eq!(vote(&["42", "42 km", "1,042"], VoteKind::Auto).0, tally(&[("42", 2), ("1042", 1)]));
        assert_eq!(vote(&["答案是 7。", "7"], VoteKind::Auto).1.as_deref(), Some("7"));
    }

    #[test]
    fn letters_and_yes_or_no_are_choices() {
        let texts = ["B", "(b)", "**B.** Because it is.", "The answer is: C", "Answer: B"];
        assert_eq!(vote(&texts, VoteKind::Auto), (tally(&[("B", 4), ("C", 1)]), Some("B".into())));
        assert_eq!(vote(&["Yes, it is.", "yes", "No."], VoteKind::Auto).0, tally(&[("yes", 2), ("no", 1)]));
        assert_eq!(vote(&["A dog barks.", "B"], VoteKind::Choice).0, tally(&[("B", 1)]), "a sentence is not a choice");
    }

    #[test]
    fn other_answers_are_compared_as_text() {
        assert_eq!(
            vote(&["Paris.", "  **paris**", "Lyon"], VoteKind::Auto),
            (tally(&[("paris", 2), ("lyon", 1)]), Some("paris".into()))
        );
    }

    #[test]
    fn majority_is_more_than_half_of_all_complete_answers() {
        assert_eq!(vote(&["1", "2"], VoteKind::Number).1, None);
        assert_eq!(vote(&["1", "1", "none", "nothing"], VoteKind::Number).1, None, "two answers have no value");
        let vote = Vote::new(&[Some("1"), None, Some("1"), Some("2"), None], VoteKind::Number, None);
        assert_eq!((vote.majority(), vote.total()), (Some("1"), 3));
        assert_eq!(Vote::new(&[None], VoteKind::Auto, None).majority(), None);
    }

    #[test]
    fn json_field_is_the_value() {
        let texts = [
            "{\"verdict\": {\"ok\": true, \"n\": 5.0}}",
            "```json\n{\"verdict\": {\"n\": 5}}\n```",
            "Sure {here it is}: {\"verdict\": {\"n\": 6}} as you asked.",
            "no JSON",
        ];
        let texts = texts.map(Some);
        let vote = Vote::new(&texts, VoteKind::Auto, Some("verdict.n"));
        assert_eq!((vote.tally, vote.unparsed), (vec![("5".into(), vec![0, 1]), ("6".into(), vec![2])], vec![3]));
        let items = Vote::new(&[Some("[\"Yes.\", 2]"), Some("[\"yes\"]")], VoteKind::Auto, Some("0"));
        assert_eq!(items.tally, [("yes".into(), vec![0, 1])]);
    }
}
