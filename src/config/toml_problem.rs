//! Turns errors of the TOML parser into problems with a position and a suggestion.

use super::{Problem, source::SourceMap};
use std::ops::Range;

/// The error of the TOML parser, with the most similar valid key.
pub(super) fn toml_problem(source: &SourceMap, error: &toml::de::Error) -> Problem {
    let message = error.message().trim_end();
    let span = error.span().unwrap_or(0..0);
    let first_line = message.lines().next().unwrap_or("invalid TOML");
    let text = in_terms_of_toml(first_line);
    let text = if source.is_masked(&span) { without_value(&text) } else { text };
    let problem = Problem::new(source, text, span.clone());
    if message.starts_with("duplicate key") {
        let (text, start) = source.text_at(span.start);
        return match first_definition(text, span.start - start) {
            Some(first) => problem
                .with_primary_label("defined again here")
                .with_secondary_label(first.start + start..first.end + start, "first defined here")
                .help("remove or rename one of them"),
            None => problem,
        };
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(unknown_key) if message.starts_with("unknown") => {
            let valid: Vec<&str> = quoted.collect();
            let label = if message.starts_with("unknown variant") { "unknown key source" } else { "unknown key" };
            problem.with_primary_label(label).with_suggestion(unknown_key, valid.into_iter())
        }
        _ => problem,
    }
}

/// The message about an unexpected value, without the value.
fn without_value(message: &str) -> String {
    let is_about_a_value = message.starts_with("invalid type") || message.starts_with("invalid value");
    match message.rsplit_once(", expected ").filter(|_| is_about_a_value) {
        Some((found, expected)) => {
            format!("{}, expected {expected}", found.split(['"', '`']).next().unwrap_or_default().trim_end())
        }
        None => message.to_owned(),
    }
}

/// Replaces the terms of the parser by those of TOML.
fn in_terms_of_toml(message: &str) -> String {
    for (term, replacement) in
        [("unknown field", "unknown key"), ("missing field", "missing key"), ("unknown variant", "unknown key source")]
    {
        if let Some(rest) = message.strip_prefix(term) {
            return format!("{replacement}{rest}");
        }
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let found = found.replace("invalid type: map", "invalid type: table").replace("sequence", "list");
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        // Only tables are deserialized into structs.
        other if other.starts_with("struct ") => "a table",
        // The only enums are key sources.
        "enum" => "one of env, file, command and keyring",
        other => other,
    };
    format!("{found}, expected {expected}")
}

/// The first line that defines the same table or key as the line at `offset`.
fn first_definition(text: &str, offset: usize) -> Option<Range<usize>> {
    let defined_name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let duplicate_start = text[..offset].rfind('\n').map_or(0, |end| end + 1);
    let duplicate = defined_name(text[duplicate_start..].lines().next()?);
    let mut search_start = 0;
    // A key belongs to the nearest table above it, so the search starts there.
    if !duplicate.starts_with('[') {
        search_start = text[..duplicate_start].rfind("\n[").map_or(0, |line| line + 1);
    }
    let mut line_start = search_start;
    for line in text[search_start..duplicate_start].split_inclusive('\n') {
        if defined_name(line) == duplicate {
            return Some(line_start..line_start + line.trim_end().len());
        }
        line_start += line.len();
    }
    None
}
