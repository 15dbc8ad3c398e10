//! Adds values to lists and removes them, and keeps each comment with the value to which it belongs.
//!
//! A comment at the end of a value's line belongs to that value, even after the comma, where `toml_edit` attaches it to
//! the next value. Comments on lines of their own belong to the value below.

use toml_edit::{Array, Value};

/// Removes the values that match, with their comments.
pub(super) fn remove_values(list: &mut Array, is_removed: &dyn Fn(&Value) -> bool) {
    if !list.iter().any(is_removed) {
        return;
    }
    let values: Vec<Value> = list.iter().cloned().collect();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let prefix = |value: &Value| text(value.decor().prefix().and_then(|prefix| prefix.as_str()));
    let suffix = |value: &Value| text(value.decor().suffix().and_then(|suffix| suffix.as_str()));
    let mut end = text(list.trailing().as_str());
    if !list.trailing_comma() {
        end = values.last().map(suffix).unwrap_or_default() + &end;
    }
    // The text before each value and after the last, each split into the rest of the line above and the lines below it.
    let gaps: Vec<(String, String)> = values.iter().map(prefix).chain([end]).map(|gap| split_line(&gap)).collect();
    let mut line_rest = gaps[0].0.clone();
    // The line break before values that were removed: it ends the line of the value above, and its comment.
    let mut line_break = None;
    let has_trailing_comma = list.trailing_comma();
    list.clear();
    for (index, mut value) in values.into_iter().enumerate() {
        let lead = &gaps[index].1;
        if is_removed(&value) {
            line_break = line_break.or_else(|| lead.rfind('\n').map(|start| lead[start..].to_owned()));
            continue;
        }
        let removed_break = line_break.take().filter(|_| !lead.contains('\n'));
        // The first value of a list on one line has no space before it.
        let lead = if list.is_empty() && !lead.contains('\n') { line_start(&gaps[0].1) } else { lead };
        value.decor_mut().set_prefix(format!("{line_rest}{}", removed_break.as_deref().unwrap_or(lead)));
        if index + 2 == gaps.len() && !has_trailing_comma {
            value.decor_mut().set_suffix("");
        }
        list.push_formatted(value);
        line_rest.clone_from(&gaps[index + 1].0);
    }
    let lead = &gaps[gaps.len() - 1].1;
    let removed_break = line_break.filter(|_| line_rest.contains('#') && !lead.contains('\n')).unwrap_or_default();
    let end = format!("{line_rest}{removed_break}{lead}");
    match list.iter_mut().last().filter(|_| !has_trailing_comma) {
        Some(last) => {
            let end = suffix(last) + &end;
            last.decor_mut().set_suffix(end);
            list.set_trailing("");
        }
        None => list.set_trailing(end),
    }
    list.set_trailing_comma(has_trailing_comma && !list.is_empty());
}

/// The text from the last line break on.
fn line_start(lead: &str) -> &str {
    lead.rfind('\n').map_or(lead, |start| &lead[start..])
}

/// Splits a text between two values at its first line break.
fn split_line(gap: &str) -> (String, String) {
    let (rest, lead) = gap.find('\n').map_or(("", gap), |line_end| gap.split_at(line_end));
    (rest.to_owned(), lead.to_owned())
}

/// Appends a value to a list. In a multi-line list, it gets its own line after the last value and its comment.
pub(super) fn push_value(list: &mut Array, mut value: Value) {
    let Some(indent) = list.iter().last().and_then(|last| {
        let prefix = last.decor().prefix()?.as_str()?;
        prefix.rfind('\n').map(|line| prefix[line..].to_owned())
    }) else {
        return list.push(value);
    };
    // A comment after the last value stays on the line of that value.
    let suffix = list.iter_mut().last().and_then(|last| {
        let suffix = last.decor().suffix()?.as_str()?.to_owned();
        last.decor_mut().set_suffix("");
        Some(suffix)
    });
    let trailing = format!("{}{}", suffix.unwrap_or_default(), list.trailing().as_str().unwrap_or_default());
    value.decor_mut().set_prefix(format!("{}{indent}", trailing.trim_end()));
    list.push_formatted(value);
    list.set_trailing(trailing[trailing.trim_end().len()..].to_owned());
    list.set_trailing_comma(true);
}

#[cfg(test)]
mod tests {
    use toml_edit::{DocumentMut, Item};

    use super::*;

    fn without(list: &str, removed: &[&str]) -> String {
        let mut document: DocumentMut = format!("a = {list} # list\n").parse().expect("valid TOML");
        let values = document.get_mut("a").and_then(Item::as_array_mut).expect("a list");
        remove_values(values, &|value| value.as_str().is_some_and(|text| removed.contains(&text)));
        let text = document.to_string();
        text.strip_prefix("a = ").and_then(|text| text.strip_suffix(" # list\n")).expect("the same line").to_owned()
    }

    #[test]
    fn comments_stay_with_their_values() {
        let list = "[ # all\n  \"a\", # cheap\n  # for code\n  \"b\", # expensive\n  \"c\", # local\n]";
        assert_eq!(without(list, &["a"]), "[ # all\n  # for code\n  \"b\", # expensive\n  \"c\", # local\n]");
        assert_eq!(without(list, &["b"]), "[ # all\n  \"a\", # cheap\n  \"c\", # local\n]");
        assert_eq!(without(list, &["c"]), "[ # all\n  \"a\", # cheap\n  # for code\n  \"b\", # expensive\n]");
        assert_eq!(without(list, &["a", "c"]), "[ # all\n  # for code\n  \"b\", # expensive\n]");
        assert_eq!(without(list, &["a", "b", "c"]), "[ # all\n]");
    }

    #[test]
    fn last_value_without_a_comma_can_be_removed() {
        let list = "[\n  \"a\", # cheap\n  \"b\" # expensive\n]";
        assert_eq!(without(list, &["b"]), "[\n  \"a\" # cheap\n]");
        assert_eq!(without(list, &["a"]), "[\n  \"b\" # expensive\n]");
    }

    #[test]
    fn list_on_one_line_keeps_its_spacing() {
        for (removed, want) in [("a", "[\"b\", \"c\"]"), ("b", "[\"a\", \"c\"]"), ("c", "[\"a\", \"b\"]")] {
            assert_eq!(without("[\"a\", \"b\", \"c\"]", &[removed]), want);
        }
        assert_eq!(without("[ \"a\", \"b\" ]", &["a"]), "[ \"b\" ]");
        assert_eq!(without("[ \"a\", \"b\" ]", &["b"]), "[ \"a\" ]");
    }

    #[test]
    fn line_break_after_a_comment_is_kept() {
        let list = "[\n  \"a\", \"b\", # cheap\n  \"c\", \"d\", # others\n]";
        assert_eq!(without(list, &["c"]), "[\n  \"a\", \"b\", # cheap\n  \"d\", # others\n]");
        assert_eq!(without(list, &["c", "d"]), "[\n  \"a\", \"b\", # cheap\n]");
        assert_eq!(without("[\n  \"x\", # cheap\n  \"y\" ]", &["y"]), "[\n  \"x\" # cheap\n   ]");
        assert_eq!(without("[\n  # above a\n  \"a\", \"b\"]", &["a"]), "[\n  \"b\"]");
        assert_eq!(without("[\"x\" # one\n, \"y\"]", &["y"]), "[\"x\" # one\n]");
    }

    proptest::proptest! {
        #[test]
        fn exactly_the_other_values_are_left(
            parts in proptest::collection::vec((proptest::bool::ANY, 0..4_usize, 0..4_usize), 1..7),
            start in 0..4_usize, trailing_comma in proptest::bool::ANY
        ) {
            const GAPS: [&str; 4] = ["", " ", "\n  ", " # comment\n  # above\n "];
            let mut list = format!("[{}", GAPS[start]);
            for (index, (_, before_comma, after_comma)) in parts.iter().enumerate() {
                let comma = if trailing_comma || index + 1 < parts.len() { "," } else { "" };
                let value = format!("\"v{index}\"{}{comma}{}", GAPS[*before_comma], GAPS[*after_comma]);
                list.push_str(&value);
            }
            list += "]";
            let name = |index: usize| format!("v{index}");
            let removed: Vec<String> = (0..parts.len()).filter(|&index| parts[index].0).map(name).collect();
            let text = without(&list, &removed.iter().map(String::as_str).collect::<Vec<_>>());
            let parsed: Result<DocumentMut, _> = format!("a = {text}\n").parse();
            let left: Option<Vec<String>> = parsed.ok().and_then(|document| {
                Some(document.get("a")?.as_array()?.iter().filter_map(|value| Some(value.as_str()?.to_owned())).collect())
            });
            let want: Vec<String> = (0..parts.len()).filter(|&index| !parts[index].0).map(name).collect();
            proptest::prop_assert_eq!(left, Some(want), "{} -> {}", list, text);
        }

        #[test]
        fn remaining_values_and_their_comments_are_kept(
            removed in proptest::collection::vec(proptest::bool::ANY, 1..6), trailing_comma in proptest::bool::ANY
        ) {
            let mut list = "[\n".to_owned();
            for index in 0..removed.len() {
                let comma = if trailing_comma || index + 1 < removed.len() { "," } else { "" };
                let line = format!("  # above {index}\n  \"v{index}\"{comma} # beside {index}\n");
                list.push_str(&line);
            }
            list += "]";
            let names: Vec<String> = (0..removed.len()).filter(|&index| removed[index]).map(|index| format!("v{index}")).collect();
            let text = without(&list, &names.iter().map(String::as_str).collect::<Vec<_>>());
            for (index, &is_removed) in removed.iter().enumerate() {
                for part in [format!("# above {index}\n  \"v{index}\""), format!("# beside {index}\n")] {
                    proptest::prop_assert_eq!(text.contains(&part), !is_removed, "{}", text);
                }
            }
        }
    }
}
