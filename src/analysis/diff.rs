//! How alike answers are: groups of equal ones, likeness by word 3-grams, numbers that differ, and two of them word by word.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use similar::{ChangeTag, TextDiff};
use unicode_segmentation::UnicodeSegmentation;

use crate::analysis::{
    numeric::differing,
    tokenize::{plain, words},
};

/// So many words in a row make texts alike.
const GRAM: usize = 3;
/// Longer than that nobody waits to see what differs; what is found then is right, but may not be the shortest.
const LONGEST: Duration = Duration::from_secs(2);

/// What several answers have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Answers that say the same, as their places; those that nobody else gave stand alone. Failed ones are in none.
    pub groups: Vec<Vec<usize>>,
    /// How alike each two are, from 0 to 1; `None`: one of them failed.
    pub likeness: Vec<Vec<Option<f64>>>,
    /// Numbers that not all have, with those that do.
    pub numbers: Vec<(String, Vec<usize>)>,
}

impl Difference {
    /// Of these answers; `None`: one that failed.
    #[must_use]
    pub fn of(texts: &[Option<&str>]) -> Self {
        let grams: Vec<Option<HashSet<u64>>> = texts.iter().map(|text| text.map(grams)).collect();
        let pair = |a: &Option<HashSet<u64>>, b: &Option<HashSet<u64>>| Some(jaccard(a.as_ref()?, b.as_ref()?));
        let likeness = grams.iter().map(|a| grams.iter().map(|b| pair(a, b)).collect()).collect();
        Self { groups: groups(texts), likeness, numbers: differing(texts) }
    }
}

/// Equal answers, in the order of the first of each.
fn groups(texts: &[Option<&str>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let Some(text) = text.map(plain) else { continue };
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, members)) => members.push(index),
            None => groups.push((text, vec![index])),
        }
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

/// Three words each, as their hashes: a text may be long. A shorter text is one gram as a whole.
fn grams(text: &str) -> HashSet<u64> {
    let words = words(text);
    let hash = |words: &[String]| {
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        hasher.finish()
    };
    if words.len() < GRAM { HashSet::from([hash(&words)]) } else { words.windows(GRAM).map(hash).collect() }
}

/// What both have of what either has.
fn jaccard(a: &HashSet<u64>, b: &HashSet<u64>) -> f64 {
    let both = a.intersection(b).count();
    let either = a.len() + b.len() - both;
    #[expect(clippy::cast_precision_loss, reason = "word counts are far below 2^52")]
    let share = both as f64 / either.max(1) as f64;
    share
}

/// A piece of two texts, word by word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// In both.
    Same(String),
    /// In the first alone.
    Removed(String),
    /// In the second alone.
    Added(String),
}

/// What becomes of `old` to be `new`, word by word; joined, what is not `Added` is `old`, and what is not `Removed` is `new`.
#[must_use]
pub fn changes(old: &str, new: &str) -> Vec<Change> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split_word_bounds().collect(), new.split_word_bounds().collect());
    let diff = TextDiff::configure().timeout(LONGEST).diff_slices(&old, &new);
    let mut changes: Vec<Change> = Vec::new();
    for change in diff.iter_all_changes() {
        let text = change.value();
        match (changes.last_mut(), change.tag()) {
            (Some(Change::Same(known)), ChangeTag::Equal)
            | (Some(Change::Removed(known)), ChangeTag::Delete)
            | (Some(Change::Added(known)), ChangeTag::Insert) => known.push_str(text),
            (_, ChangeTag::Equal) => changes.push(Change::Same(text.to_owned())),
            (_, ChangeTag::Delete) => changes.push(Change::Removed(text.to_owned())),
            (_, ChangeTag::Insert) => changes.push(Change::Added(text.to_owned())),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_answers_are_one_group_and_failed_ones_are_in_none() {
        let difference = Difference::of(&[Some("Paris."), None, Some("**paris**"), Some("London")]);
        assert_eq!(difference.groups, [vec![0, 2], vec![3]]);
        assert_eq!((difference.likeness[0][2], difference.likeness[0][1]), (Some(1.0), None));
    }

    #[test]
    fn likeness_is_the_share_of_word_triples() {
        let texts = ["the quick brown fox jumps", "the quick brown fox sleeps", "nothing at all like it"];
        let difference = Difference::of(&texts.map(Some));
        // Two of four triples.
        assert_eq!(difference.likeness[0][1], Some(0.5));
        assert_eq!(difference.likeness[0][2], Some(0.0));
        assert_eq!(Difference::of(&[Some("借用检查器"), Some("借用检查员")]).likeness[0][1], Some(0.5));
    }

    #[test]
    fn two_texts_differ_by_words() {
        let same = |text: &str| Change::Same(text.into());
        assert_eq!(
            changes("The sky is blue.", "The sea is blue, too."),
            [
                same("The "),
                Change::Removed("sky".into()),
                Change::Added("sea".into()),
                same(" is blue"),
                Change::Added(", too".into()),
                same(".")
            ]
        );
        assert_eq!(changes("", ""), []);
    }

    proptest! {
        #[test]
        fn both_texts_are_in_what_changed(old in "([a-c]{1,3}|借|[.,]| |\n){0,40}", new in "([a-c]{1,3}|借|[.,]| |\n){0,40}") {
            let all = changes(&old, &new);
            let of = |keep: fn(&Change) -> bool| all.iter().filter(|change| keep(change)).map(|change| match change {
                Change::Same(text) | Change::Removed(text) | Change::Added(text) => text.as_str(),
            }).collect::<String>();
            prop_assert_eq!(of(|change| !matches!(change, Change::Added(_))), old);
            prop_assert_eq!(of(|change| !matches!(change, Change::Removed(_))), new);
        }
    }
}
