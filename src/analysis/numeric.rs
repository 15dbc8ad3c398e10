//! Extracts and normalizes numbers in texts.
//!
//! `1,000`, `1000` and `1000.0` are the same number. Units are ignored: `5 km` and `5 m` have the same number.

use std::collections::BTreeMap;

/// Normalized numbers in `text`, in order.
#[must_use]
pub(crate) fn extract_numbers(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let (mut numbers, mut position) = (Vec::new(), 0);
    while position < characters.len() {
        let before = position.checked_sub(1).map(|before| characters[before]);
        // Digits after a letter are part of a name: `x2`, `v1.2`.
        let is_start =
            characters[position].is_ascii_digit() && !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        if !is_start {
            position += 1;
            continue;
        }
        let is_negative = matches!(before, Some('-' | '−'))
            && !position.checked_sub(2).is_some_and(|index| characters[index].is_alphanumeric());
        let end = end_of_number(&characters, position);
        let literal: String = characters[position..end].iter().collect();
        let has_suffix =
            characters.get(end).is_some_and(|c| c.is_alphabetic() && c.is_ascii() && !is_unit(&characters[end..]));
        if let Some(number) = normalize_number(&literal).filter(|_| !has_suffix) {
            numbers.push(if is_negative && number != "0" { format!("-{number}") } else { number });
        }
        position = end;
    }
    numbers
}

/// Up to three letters after a number are a unit (`5km`, `3s`, `3rd`); more are part of a name.
fn is_unit(rest: &[char]) -> bool {
    rest.iter().take_while(|c| c.is_alphanumeric()).count() <= 3
}

/// End of the number at `start`: digits and the separators between them.
fn end_of_number(characters: &[char], start: usize) -> usize {
    let mut end = start;
    while end < characters.len() {
        let next_is_digit = characters.get(end + 1).is_some_and(char::is_ascii_digit);
        match characters[end] {
            c if c.is_ascii_digit() => end += 1,
            '.' | ',' | '_' if next_is_digit => end += 1,
            // Non-breaking spaces can be thousands separators.
            '\u{a0}' | '\u{202f}' if next_is_digit => end += 1,
            _ => break,
        }
    }
    end
}

/// Normalizes a number; `None`: not a number (an IP address, a version).
fn normalize_number(literal: &str) -> Option<String> {
    let bare: String = literal.chars().filter(|c| !matches!(c, '_' | '\u{a0}' | '\u{202f}')).collect();
    let has_thousands_separators = bare.contains(',')
        && bare
            .split('.')
            .next()?
            .split(',')
            .enumerate()
            .all(|(index, group)| if index == 0 { (1..=3).contains(&group.len()) } else { group.len() == 3 });
    let plain = if has_thousands_separators { bare.replace(',', "") } else { bare };
    let decimal = match (plain.matches('.').count(), plain.matches(',').count()) {
        (0 | 1, 0) => plain,
        (0, 1) => plain.replace(',', "."),
        _ => return None,
    };
    let (integer, fraction) = decimal.split_once('.').unwrap_or((&decimal, ""));
    let integer = integer.trim_start_matches('0');
    let integer = if integer.is_empty() { "0" } else { integer };
    let fraction = fraction.trim_end_matches('0');
    Some(if fraction.is_empty() { integer.to_owned() } else { format!("{integer}.{fraction}") })
}

/// Numbers that some texts contain and others lack, in order of first occurrence, each with the indices of the texts
/// that contain it.
#[must_use]
pub(crate) fn differing_numbers(texts: &[Option<&str>]) -> Vec<(String, Vec<usize>)> {
    let mut holders: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut order = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        for number in text.map(extract_numbers).unwrap_or_default() {
            let indices = holders.entry(number.clone()).or_insert_with(|| {
                order.push(number);
                Vec::new()
            });
            if indices.last() != Some(&index) {
                indices.push(index);
            }
        }
    }
    let text_count = texts.iter().flatten().count();
    let with_indices = |number: String| holders.remove(&number).map(|holders| (number, holders));
    order.into_iter().filter_map(with_indices).filter(|(_, holders)| holders.len() < text_count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_extracted_and_normalized() {
        for (text, expected) in [
            ("1,000 and 1000.0 and 1_000", &["1000", "1000", "1000"][..]),
            ("3,14 is 3.140", &["3.14", "3.14"]),
            ("-5 °C, from 3-5 to 7", &["-5", "3", "5", "7"]),
            ("$1,234,567.50", &["1234567.5"]),
            ("1.2.3 and 10.0.0.1 and x86 and utf8", &[]),
            ("50% of 007, 0.50", &["50", "7", "0.5"]),
            ("共 42 个，2024年", &["42", "2024"]),
            ("5km in 20min, 12 000", &["5", "20", "12", "0"]),
            ("-0", &["0"]),
            ("", &[]),
        ] {
            assert_eq!(extract_numbers(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_in_all_texts_are_not_reported() {
        let texts = [Some("In 1969, 3 men."), Some("1969: 2 men, 2 of them walked"), None, Some("1969 3")];
        assert_eq!(differing_numbers(&texts), [("3".to_owned(), vec![0, 3]), ("2".to_owned(), vec![1])]);
    }
}
