//! Paths into a parsed TOML table: the path at a position in the text, and the value at a path.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A step from a table to a key, or from an array to the element at a position in the text. Unlike an index, the position
/// stays the same when another element is removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Key(String),
    Element(usize),
}

/// Whether the value at `path` is a table with a fixed set of keys. serde would also accept a list of their values.
pub(super) fn is_table_path(path: &[Step]) -> bool {
    let keys = path.iter().map(|step| match step {
        Step::Key(key) => key.as_str(),
        Step::Element(_) => "",
    });
    matches!(
        keys.collect::<Vec<_>>()[..],
        ["serve" | "spend" | "retry" | "availability"]
            | ["endpoints" | "models" | "routes" | "presets", _]
            | ["endpoints" | "models", _, "timeouts"]
            | ["models", _, "price" | "params"]
            | ["presets", _, "params"]
            | ["serve", "keys", _]
            | ["spend", "endpoints" | "models", _]
    )
}

/// The path of the innermost key or value that contains `span`; a key comes before a value.
pub(super) fn path_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    let mut paths: Vec<(usize, bool, Vec<Step>)> = Vec::new();
    for (key, value) in table {
        let step = Step::Key(key.get_ref().to_string());
        // A table that only exists because a subtable has a header (`[a.b]` defines `a`) has the position of its name
        // in that header.
        let is_table = matches!(value.get_ref(), DeValue::Table(_));
        if key.span() == *span || is_table && value.span() == *span {
            return Some(vec![step]);
        }
        if contains(&key.span(), span) {
            paths.push((key.span().len(), false, vec![step.clone()]));
        }
        if contains(&value.span(), span) {
            paths.push((value.span().len(), true, vec![step.clone()]));
        }
        if let Some(inner) = path_in_value(value, span) {
            return Some([&[step], &inner[..]].concat());
        }
    }
    paths.into_iter().min_by_key(|(len, is_value, _)| (*len, *is_value)).map(|(_, _, path)| path)
}

/// The path from `value` to something inside it that contains `span`.
fn path_in_value(value: &toml::Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<Step>> {
    match value.get_ref() {
        DeValue::Table(inner) => path_at(inner, span),
        DeValue::Array(elements) => elements.iter().find_map(|element| {
            let inner = path_in_value(element, span).or_else(|| contains(&element.span(), span).then(Vec::new))?;
            Some([&[Step::Element(element.span().start)], &inner[..]].concat())
        }),
        _ => None,
    }
}

fn contains(outer: &Range<usize>, span: &Range<usize>) -> bool {
    outer.start <= span.start && span.end <= outer.end
}

pub(super) fn remove_at(table: &mut DeTable<'_>, path: &[Step]) {
    match path {
        [] => {}
        [parent @ .., Step::Key(name)] => {
            if let Some(table) = table_at(table, parent) {
                table.remove(name.as_str());
            }
        }
        [parent @ .., Step::Element(start)] => {
            if let Some(DeValue::Array(elements)) = value_at(table, parent) {
                *elements = elements.iter().filter(|element| element.span().start != *start).cloned().collect();
            }
        }
    }
}

pub(super) fn table_at<'a, 't>(table: &'a mut DeTable<'t>, path: &[Step]) -> Option<&'a mut DeTable<'t>> {
    if path.is_empty() {
        return Some(table);
    }
    if let DeValue::Table(inner) = value_at(table, path)? { Some(inner) } else { None }
}

fn value_at<'a, 't>(table: &'a mut DeTable<'t>, path: &[Step]) -> Option<&'a mut DeValue<'t>> {
    let (first, rest) = path.split_first()?;
    let Step::Key(name) = first else { return None };
    let (_, value) = table.iter_mut().find(|(key, _)| *key.get_ref() == name.as_str())?;
    rest.iter().try_fold(value.get_mut(), |value, step| match (value, step) {
        (DeValue::Table(inner), Step::Key(name)) => {
            let (_, value) = inner.iter_mut().find(|(key, _)| *key.get_ref() == name.as_str())?;
            Some(value.get_mut())
        }
        (DeValue::Array(elements), Step::Element(start)) => {
            elements.iter_mut().find(|element| element.span().start == *start).map(toml::Spanned::get_mut)
        }
        _ => None,
    })
}

/// The part of `path` that names its entry: an entry with an error anywhere in it is left out as a whole.
pub(super) fn entry_path(path: &[Step]) -> &[Step] {
    let names: Vec<&str> = path
        .iter()
        .map_while(|step| if let Step::Key(name) = step { Some(name.as_str()) } else { None })
        .take(3)
        .collect();
    // An element of an array has no entry of its own.
    &path[..entry_len(&names).min(names.len())]
}

/// The number of leading names of a path that identify an entry. `serve` without its client keys is one entry; each
/// client key is another.
pub(super) fn entry_len(names: &[&str]) -> usize {
    match names {
        ["endpoints" | "models" | "routes" | "sets" | "presets", ..] => 2,
        ["serve", "keys", _, ..] => 3,
        ["serve", ..] => 1,
        _ => names.len(),
    }
}
