//! What a name may be: letters of any script, digits, `.`, `_` and `-`, in Unicode's composed form (NFC).
//!
//! Owns the rule. `/`, `,`, `:` and space stay free, since they separate names on the command line.

use unicode_normalization::UnicodeNormalization;

/// `name` in composed form, as names are compared.
#[must_use]
pub fn normalised(name: &str) -> String {
    name.nfc().collect()
}

/// The first character of `name` that no name may have.
pub(super) fn forbidden(name: &str) -> Option<char> {
    normalised(name).chars().find(|&c| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_any_script_are_fine_and_separators_are_not() {
        for name in ["fast", "通义", "gpt-4o.mini_2", "e\u{301}clair"] {
            assert_eq!(forbidden(name), None, "{name}");
        }
        for (name, bad) in [("a/b", '/'), ("a,b", ','), ("a b", ' '), ("a:b", ':'), ("😀", '😀')] {
            assert_eq!(forbidden(name), Some(bad));
        }
        assert_eq!(normalised("e\u{301}"), "é");
    }
}
