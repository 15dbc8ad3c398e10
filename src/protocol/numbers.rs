//! Numbers in the texts of services.

/// The text with numbers such as "16,384" as "16384". The commas of a list such as "[1,512]" stay.
pub(super) fn without_separators(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_digit = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_digit);
    let is_separator = |index: usize| {
        let groups = bytes[..index].iter().rposition(|byte| !(byte.is_ascii_digit() || *byte == b','));
        let is_list = groups.is_some_and(|before| bytes[before] == b'[');
        let is_group = (index + 1..index + 4).all(is_digit) && !is_digit(index + 4);
        !is_list && is_group && index > 0 && is_digit(index - 1)
    };
    text.char_indices().filter(|(index, c)| *c != ',' || !is_separator(*index)).map(|(_, c)| c).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_separators_of_thousands_are_removed() {
        for (text, want) in [
            ("at most 16,384 tokens, not 1,048,576.", "at most 16384 tokens, not 1048576."),
            ("the range is [1,512] or [1, 8192]", "the range is [1,512] or [1, 8192]"),
            ("1,2,3 and 12,34 and ,500 und 5,", "1,2,3 and 12,34 and ,500 und 5,"),
            ("最多 4,096。", "最多 4096。"),
        ] {
            assert_eq!(without_separators(text), want);
        }
    }
}
