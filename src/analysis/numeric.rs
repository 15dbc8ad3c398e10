//! Numbers in texts, read as people write them.
//!
//! Owns that `1,000`, `1000` and `1000.0` are one number. Refuses units: `5 km` and `5 m` have the same number.

use std::collections::BTreeMap;

/// The numbers of `text` in their order, each as it is written by everybody alike.
#[must_use]
pub fn numbers(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < characters.len() {
        let before = at.checked_sub(1).map(|before| characters[before]);
        // `x2` and `v1.2` are names.
        let begins = characters[at].is_ascii_digit() && !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        if !begins {
            at += 1;
            continue;
        }
        let minus = matches!(before, Some('-' | '−'))
            && !at.checked_sub(2).is_some_and(|place| characters[place].is_alphanumeric());
        let end = end_of_number(&characters, at);
        let written: String = characters[at..end].iter().collect();
        let follows =
            characters.get(end).is_some_and(|c| c.is_alphabetic() && c.is_ascii() && !is_unit(&characters[end..]));
        if let Some(number) = canonical(&written).filter(|_| !follows) {
            found.push(if minus && number != "0" { format!("-{number}") } else { number });
        }
        at = end;
    }
    found
}

/// A letter or two behind a number are a unit (`5km`, `3s`), more are a name (`3rd` is none either).
fn is_unit(rest: &[char]) -> bool {
    rest.iter().take_while(|c| c.is_alphanumeric()).count() <= 3
}

/// Digits, with separators that stand between digits.
fn end_of_number(characters: &[char], from: usize) -> usize {
    let mut at = from;
    while at < characters.len() {
        let next_is_digit = characters.get(at + 1).is_some_and(char::is_ascii_digit);
        match characters[at] {
            c if c.is_ascii_digit() => at += 1,
            '.' | ',' | '_' if next_is_digit => at += 1,
            // Spaces that do not break stand between thousands.
            '\u{a0}' | '\u{202f}' if next_is_digit => at += 1,
            _ => break,
        }
    }
    at
}

/// As everybody writes it; `None`: it is none (an address, a version).
fn canonical(written: &str) -> Option<String> {
    let bare: String = written.chars().filter(|c| !matches!(c, '_' | '\u{a0}' | '\u{202f}')).collect();
    let thousands = bare.contains(',')
        && bare
            .split('.')
            .next()?
            .split(',')
            .enumerate()
            .all(|(place, group)| if place == 0 { (1..=3).contains(&group.len()) } else { group.len() == 3 });
    let plain = if thousands { bare.replace(',', "") } else { bare };
    let decimal = match (plain.matches('.').count(), plain.matches(',').count()) {
        (0 | 1, 0) => plain,
        (0, 1) => plain.replace(',', "."),
        _ => return None,
    };
    let (whole, fraction) = decimal.split_once('.').unwrap_or((&decimal, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let fraction = fraction.trim_end_matches('0');
    Some(if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") })
}

/// The numbers that some texts have and others lack, in the order in which they are met first; each with the texts that have
/// it.
#[must_use]
pub fn differing(texts: &[Option<&str>]) -> Vec<(String, Vec<usize>)> {
    let mut holders: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut order = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        for number in text.map(numbers).unwrap_or_default() {
            let known = holders.entry(number.clone()).or_insert_with(|| {
                order.push(number);
                Vec::new()
            });
            if known.last() != Some(&index) {
                known.push(index);
            }
        }
    }
    let all = texts.iter().flatten().count();
    let with = |number: String| holders.remove(&number).map(|holders| (number, holders));
    order.into_iter().filter_map(with).filter(|(_, holders)| holders.len() < all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, want) in [
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
            assert_eq!(numbers(text), want, "{text}");
        }
    }

    #[test]
    fn what_all_have_does_not_differ() {
        let texts = [Some("In 1969, 3 men."), Some("1969: 2 men, 2 of them walked"), None, Some("1969 3")];
        assert_eq!(differing(&texts), [("3".to_owned(), vec![0, 3]), ("2".to_owned(), vec![1])]);
    }
}
