//! A vote among short answers: what each of them comes to, and what most say.
//!
//! Owns reading a number, a choice or a field out of an answer, and what a majority is: more than half of all whole answers,
//! those that nobody can read included. Failed answers do not vote.

use crate::analysis::{numeric::numbers, tokenize::plain};

/// What an answer is read as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// What all of them look like.
    #[default]
    Auto,
    /// The number behind the last "answer", else the last there is.
    Number,
    /// A letter, yes or no.
    Choice,
    /// The text, white space and emphasis apart.
    Text,
}

/// Every kind, by its name.
pub static KINDS: &[(&str, Kind)] =
    &[("auto", Kind::Auto), ("number", Kind::Number), ("choice", Kind::Choice), ("text", Kind::Text)];

/// How the answers voted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// What was said and by whom, the most frequent first, else in order.
    pub split: Vec<(String, Vec<usize>)>,
    /// Whole answers that nothing could be read from.
    pub unread: Vec<usize>,
}

impl Vote {
    /// The vote of these answers; `None`: one that failed. `field`: each is JSON, of which this is what counts.
    #[must_use]
    pub fn of(texts: &[Option<&str>], kind: Kind, field: Option<&str>) -> Self {
        let kind = if kind == Kind::Auto { guessed(texts) } else { kind };
        let mut vote = Self { split: Vec::new(), unread: Vec::new() };
        for (index, text) in texts.iter().enumerate() {
            let Some(text) = text else { continue };
            let read = match field {
                Some(field) => field_of(text, field).map(|value| said(&value)),
                None => read(text, kind),
            };
            match read {
                None => vote.unread.push(index),
                Some(value) => match vote.split.iter_mut().find(|(known, _)| *known == value) {
                    Some((_, voters)) => voters.push(index),
                    None => vote.split.push((value, vec![index])),
                },
            }
        }
        vote.split.sort_by_key(|(_, voters)| std::cmp::Reverse(voters.len()));
        vote
    }

    /// The whole answers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.unread.len() + self.split.iter().map(|(_, voters)| voters.len()).sum::<usize>()
    }

    /// What more than half of them say.
    #[must_use]
    pub fn majority(&self) -> Option<&str> {
        self.split.first().filter(|(_, voters)| voters.len() * 2 > self.count()).map(|(value, _)| value.as_str())
    }
}

/// What all whole answers can be read as without a doubt.
fn guessed(texts: &[Option<&str>]) -> Kind {
    let all = |reads: fn(&str) -> bool| {
        let mut whole = texts.iter().flatten().filter(|text| !text.trim().is_empty()).peekable();
        whole.peek().is_some() && whole.all(|text| reads(text))
    };
    if all(|text| choice(text).is_some()) {
        Kind::Choice
    } else if all(|text| marked_number(text).is_some() || is_number(text)) {
        Kind::Number
    } else {
        Kind::Text
    }
}

fn read(text: &str, kind: Kind) -> Option<String> {
    match kind {
        Kind::Number => marked_number(text).or_else(|| numbers(text).pop()),
        Kind::Choice => choice(text),
        Kind::Text | Kind::Auto => Some(plain(text)).filter(|text| !text.is_empty()),
    }
}

/// A number and nothing but its unit, in one short line.
fn is_number(text: &str) -> bool {
    let text = text.trim();
    numbers(text).len() == 1 && text.chars().count() <= 40 && !text.contains('\n')
}

/// The number behind the last mark of an answer.
fn marked_number(text: &str) -> Option<String> {
    behind_mark(text).and_then(|rest| numbers(rest).into_iter().next())
}

/// What stands behind the last "answer", `####` or `\boxed{`.
fn behind_mark(text: &str) -> Option<&str> {
    const MARKS: &[&str] =
        &["answer is", "answer:", "####", "\\boxed{", "答案是", "答案为", "答案：", "答案:", "answer**:", "answer:**"];
    // Letters that are longer in lower case would move what is behind them.
    let lower = text.to_ascii_lowercase();
    let end = MARKS.iter().filter_map(|mark| lower.rfind(mark).map(|at| at + mark.len())).max()?;
    text.get(end..)
}

/// `B`, `(b)`, `**B.** because`, `The answer is B`, `yes`.
fn choice(text: &str) -> Option<String> {
    let marked = behind_mark(text).and_then(first_choice);
    marked.or_else(|| first_choice(text))
}

fn first_choice(text: &str) -> Option<String> {
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
    let (one, more) = (characters.next()?, characters.next());
    // `A` begins a sentence, too: it is a choice where it stands alone, or is marked as one.
    let alone = words.next().is_none() || letter.len() < first.len() || text.trim_start().starts_with(['(', '*', '[']);
    (more.is_none() && one.is_ascii_alphabetic() && alone).then(|| one.to_ascii_uppercase().to_string())
}

/// What is at `path` (`a.b.0`) of the JSON in an answer, which may stand in a fence or between words.
fn field_of(text: &str, path: &str) -> Option<serde_json::Value> {
    let json = document(text)?;
    path.split('.').filter(|part| !part.is_empty()).try_fold(json, |mut value, part| match &mut value {
        serde_json::Value::Object(fields) => fields.shift_remove(part),
        serde_json::Value::Array(items) => {
            let place: usize = part.parse().ok()?;
            (place < items.len()).then(|| items.swap_remove(place))
        }
        _ => None,
    })
}

fn document(text: &str) -> Option<serde_json::Value> {
    if let Ok(value) = serde_json::from_str(text.trim()) {
        return Some(value);
    }
    let starts = text.char_indices().filter(|(_, c)| matches!(c, '{' | '['));
    // The first that is a whole value; what follows it is talk.
    starts
        .map(|(at, _)| &text[at..])
        .take(20)
        .find_map(|rest| serde_json::Deserializer::from_str(rest).into_iter::<serde_json::Value>().next()?.ok())
}

/// A value as it is compared.
fn said(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => plain(text),
        serde_json::Value::Number(number) => {
            let text = number.to_string();
            numbers(&text).pop().unwrap_or(text)
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(texts: &[&str], kind: Kind) -> (Vec<(String, usize)>, Option<String>) {
        let texts: Vec<Option<&str>> = texts.iter().map(|text| Some(*text)).collect();
        let vote = Vote::of(&texts, kind, None);
        let majority = vote.majority().map(str::to_owned);
        (vote.split.into_iter().map(|(value, voters)| (value, voters.len())).collect(), majority)
    }

    fn split(rows: &[(&str, usize)]) -> Vec<(String, usize)> {
        rows.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect()
    }

    #[test]
    fn numbers_are_one_however_they_are_written() {
        let texts = ["42", "The answer is **42**.", "6 * 7 = 42.0\n\n#### 42", "41"];
        assert_eq!(vote(&texts, Kind::Number), (split(&[("42", 3), ("41", 1)]), Some("42".into())));
        assert_eq!(vote(&["42", "42 km", "1,042"], Kind::Auto).0, split(&[("42", 2), ("1042", 1)]));
        assert_eq!(vote(&["答案是 7。", "7"], Kind::Auto).1.as_deref(), Some("7"));
    }

    #[test]
    fn choices_are_letters_yes_and_no() {
        let texts = ["B", "(b)", "**B.** Because it is.", "The answer is: C", "Answer: B"];
        assert_eq!(vote(&texts, Kind::Auto), (split(&[("B", 4), ("C", 1)]), Some("B".into())));
        assert_eq!(vote(&["Yes, it is.", "yes", "No."], Kind::Auto).0, split(&[("yes", 2), ("no", 1)]));
        assert_eq!(vote(&["A dog barks.", "B"], Kind::Choice).0, split(&[("B", 1)]), "the first is a sentence");
    }

    #[test]
    fn other_answers_are_their_words() {
        assert_eq!(
            vote(&["Paris.", "  **paris**", "Lyon"], Kind::Auto),
            (split(&[("paris", 2), ("lyon", 1)]), Some("paris".into()))
        );
    }

    #[test]
    fn a_majority_is_more_than_half_of_all_that_are_whole() {
        assert_eq!(vote(&["1", "2"], Kind::Number).1, None);
        assert_eq!(vote(&["1", "1", "none", "nothing"], Kind::Number).1, None, "two could not be read");
        let vote = Vote::of(&[Some("1"), None, Some("1"), Some("2"), None], Kind::Number, None);
        assert_eq!((vote.majority(), vote.count()), (Some("1"), 3));
        assert_eq!(Vote::of(&[None], Kind::Auto, None).majority(), None);
    }

    #[test]
    fn a_field_of_json_is_what_counts() {
        let texts = [
            "{\"verdict\": {\"ok\": true, \"n\": 5.0}}",
            "```json\n{\"verdict\": {\"n\": 5}}\n```",
            "Sure {here it is}: {\"verdict\": {\"n\": 6}} as you asked.",
            "no JSON",
        ];
        let texts = texts.map(Some);
        let vote = Vote::of(&texts, Kind::Auto, Some("verdict.n"));
        assert_eq!((vote.split, vote.unread), (vec![("5".into(), vec![0, 1]), ("6".into(), vec![2])], vec![3]));
        let items = Vote::of(&[Some("[\"Yes.\", 2]"), Some("[\"yes\"]")], Kind::Auto, Some("0"));
        assert_eq!(items.split, [("yes".into(), vec![0, 1])]);
    }
}
