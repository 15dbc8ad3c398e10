//! Texts as words, for comparing them.

use unicode_segmentation::UnicodeSegmentation;

/// The words of `text` in lower case. Characters that are written without spaces between them are words of their own.
pub(super) fn words(text: &str) -> Vec<String> {
    text.unicode_words().map(str::to_lowercase).collect()
}

/// `text` as it is compared for being the same: case, white space, marks of emphasis and the full stop at the end apart.
pub(super) fn plain(text: &str) -> String {
    let bare: String = text.chars().filter(|c| !matches!(c, '*' | '`')).collect();
    let joined = bare.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let ends = |c: char| matches!(c, '.' | '。' | '!' | '"' | '\'' | '“' | '”' | '_' | ' ');
    joined.trim_matches(ends).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_by_what_they_say() {
        assert_eq!(plain("  **Paris**.\n"), plain("paris"));
        assert_ne!(plain("2.5"), plain("25"));
        assert_eq!(words("Don't stop, 借用!"), ["don't", "stop", "借", "用"]);
    }
}
