//! Compares answers: groups of equal answers, similarity by word 3-grams, differing numbers, and word diffs.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use similar::{ChangeTag, TextDiff};
use unicode_segmentation::UnicodeSegmentation;

use crate::analysis::{
    numeric::differing_numbers,
    tokenize::{normalize_text, words},
};

/// Number of words per n-gram.
const NGRAM_SIZE: usize = 3;
/// Time limit of the diff algorithm. After it the result is still correct, but may not be the shortest diff.
const DIFF_TIMEOUT: Duration = Duration::from_secs(2);

/// Result of comparing several answers. Answers are identified by their index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AnswerComparison {
    /// Groups of equal answers; a unique answer is a group of one. Failed answers are in no group.
    pub groups: Vec<Vec<usize>>,
    /// Pairwise similarity from 0 to 1; `None`: one of the two failed.
    pub similarity: Vec<Vec<Option<f64>>>,
    /// Numbers that some answers lack, with the answers that contain them.
    pub differing_numbers: Vec<(String, Vec<usize>)>,
}

impl AnswerComparison {
    /// Compares `texts`; `None` is a failed answer.
    #[must_use]
    pub(crate) fn new(texts: &[Option<&str>]) -> Self {
        let grams: Vec<Option<HashSet<u64>>> = texts.iter().map(|text| text.map(ngram_hashes)).collect();
        let pair_similarity =
            |a: &Option<HashSet<u64>>, b: &Option<HashSet<u64>>| Some(jaccard(a.as_ref()?, b.as_ref()?));
        let similarity = grams.iter().map(|a| grams.iter().map(|b| pair_similarity(a, b)).collect()).collect();
        Self { groups: group_equal(texts), similarity, differing_numbers: differing_numbers(texts) }
    }
}

/// Groups equal answers, in the order of the first answer of each group.
fn group_equal(texts: &[Option<&str>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let Some(text) = text.map(normalize_text) else { continue };
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, members)) => members.push(index),
            None => groups.push((text, vec![index])),
        }
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

/// Hashes of all word 3-grams; hashes, because a text may be long. A text of fewer than 3 words is one n-gram.
fn ngram_hashes(text: &str) -> HashSet<u64> {
    let words = words(text);
    let hash = |words: &[String]| {
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        hasher.finish()
    };
    if words.len() < NGRAM_SIZE { HashSet::from([hash(&words)]) } else { words.windows(NGRAM_SIZE).map(hash).collect() }
}

/// Jaccard index: size of the intersection divided by the size of the union.
fn jaccard(a: &HashSet<u64>, b: &HashSet<u64>) -> f64 {
    let intersection = a.intersection(b).count();
    let union = a.len() + b.len() - intersection;
    #[expect(clippy::cast_precision_loss, reason = "word counts are far below 2^52")]
    let index = intersection as f64 / union.max(1) as f64;
    index
}

/// Segment of a word diff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DiffSegment {
    /// In both texts.
    Equal(String),
    /// Only in the first text.
    Removed(String),
    /// Only in the second text.
    Added(String),
}

/// Word diff from `old` to `new`. Joining all segments except `Added` yields `old`, all except `Removed` yields `new`.
#[must_use]
pub(crate) fn word_diff(old: &str, new: &str) -> Vec<DiffSegment> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split_word_bounds().collect(), new.split_word_bounds().collect());
    let diff = TextDiff::configure().timeout(DIFF_TIMEOUT).diff_slices(&old, &new);
    let mut changes: Vec<DiffSegment> = Vec::new();
    for change in diff.iter_all_changes() {
        let text = change.value();
        match (changes.last_mut(), change.tag()) {
            (Some(DiffSegment::Equal(last)), ChangeTag::Equal)
            | (Some(DiffSegment::Removed(last)), ChangeTag::Delete)
            | (Some(DiffSegment::Added(last)), ChangeTag::Insert) => last.push_str(text),
            (_, ChangeTag::Equal) => changes.push(DiffSegment::Equal(text.to_owned())),
            (_, ChangeTag::Delete) => changes.push(DiffSegment::Removed(text.to_owned())),
            (_, ChangeTag::Insert) => changes.push(DiffSegment::Added(text.to_owned())),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_answers_form_a_group_and_failed_answers_are_in_no_group() {
        let comparison = AnswerComparison::new(&[Some("Paris."), None, Some("**paris**"), Some("London")]);
        assert_eq!(comparison.groups, [vec![0, 2], vec![3]]);
        assert_eq!((comparison.similarity[0][2], comparison.similarity[0][1]), (Some(1.0), None));
    }

    #[test]
    fn similarity_is_the_jaccard_index_of_word_3_grams() {
        let texts = ["the quick brown fox jumps", "the quick brown fox sleeps", "nothing at all like it"];
        let comparison = AnswerComparison::new(&texts.map(Some));
        // 2 of 4 n-grams.
        assert_eq!(comparison.similarity[0][1], Some(0.5));
        assert_eq!(comparison.similarity[0][2], Some(0.0));
        assert_eq!(AnswerComparison::new(&[Some("借用检查器"), Some("借用检查员")]).similarity[0][1], Some(0.5));
    }

    #[test]
    fn texts_are_compared_word_by_word() {
        let equal = |text: &str| DiffSegment::Equal(text.into());
        assert_eq!(
            word_diff("The sky is blue.", "The sea is blue, too."),
            [
                equal("The "),
                DiffSegment::Removed("sky".into()),
                DiffSegment::Added("sea".into()),
                equal(" is blue"),
                DiffSegment::Added(", too".into()),
                equal(".")
            ]
        );
        assert_eq!(word_diff("", ""), []);
    }

    proptest! {
        #[test]
        fn both_texts_can_be_rebuilt_from_the_diff(old in "([a-c]{1,3}|借|[.,]| |\n){0,40}", new in "([a-c]{1,3}|借|[.,]| |\n){0,40}") {
            let changes = word_diff(&old, &new);
            let joined = |keep: fn(&DiffSegment) -> bool| changes.iter().filter(|change| keep(change)).map(|change| match change {
                DiffSegment::Equal(text) | DiffSegment::Removed(text) | DiffSegment::Added(text) => text.as_str(),
            }).collect::<String>();
            prop_assert_eq!(joined(|change| !matches!(change, DiffSegment::Added(_))), old);
            prop_assert_eq!(joined(|change| !matches!(change, DiffSegment::Removed(_))), new);
        }
    }
}
