//! Splits and normalizes texts for comparison.

use unicode_segmentation::UnicodeSegmentation;

/// Lowercase words of `text`. In scripts without spaces between words, each character is a word.
pub(super) fn words(text: &str) -> Vec<String> {
    text.unicode_words().map(str::to_lowercase).collect()
}

/// `text` normalized for equality: ignores case, whitespace, emphasis marks, and quotes and full stops at the ends.
pub(super) fn normalize_text(text: &str) -> String {
    let bare: String = text.chars().filter(|c| !matches!(c, '*' | '`')).collect();
    let joined = bare.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let is_trimmed = |c: char| matches!(c, '.' | '。' | '!' | '"' | '\'' | '“' | '”' | '_' | ' ');
    joined.trim_matches(is_trimmed).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalization_ignores_case_whitespace_and_emphasis() {
        assert_eq!(normalize_text("  **Paris**.\n"), normalize_text("paris"));
        assert_ne!(normalize_text("2.5"), normalize_text("25"));
        assert_eq!(words("Don't stop, 借用!"), ["don't", "stop", "借", "用"]);
    }
}
