//! Compares the documentation with the code: config keys, exit codes, error classes, names in the code, vendors, generated
//! completions, and both READMEs.

use std::{collections::BTreeSet, fs, path::Path};

use crate::common::TestEnv;
use mmchat::internals::{cli::Exit, config::vendors, model::ErrorClass};
use serde_json::Value;

fn read_file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Collects every property name of a schema.
fn collect_properties(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                found.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| collect_nested_properties(value, found));
        }
        other => collect_nested_properties(other, found),
    }
}

fn collect_nested_properties(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(_) => collect_properties(value, found),
        Value::Array(items) => items.iter().for_each(|item| collect_nested_properties(item, found)),
        _ => {}
    }
}

#[test]
fn config_reference_lists_exactly_the_schema_keys() {
    let schema = TestEnv::new().run(&["config", "schema"]).expect_exit(0).json();
    let mut keys = BTreeSet::new();
    collect_properties(&schema, &mut keys);
    assert!(keys.contains("base_url") && keys.contains("think_prefilled") && keys.len() > 40, "{keys:?}");
    let text = read_file("docs/config.md");
    // Keys are code spans, or parts of an inline table in a code span.
    let code: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let words: BTreeSet<&str> =
        code.iter().flat_map(|code| code.split(|c: char| !(c.is_alphanumeric() || c == '_'))).collect();
    let missing: Vec<_> = keys.iter().filter(|key| !words.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "docs/config.md does not document {missing:?}");
    let rows = text
        .split("## Environment")
        .next()
        .expect("text before the heading")
        .lines()
        .filter_map(|line| line.strip_prefix("| `"));
    let unknown: Vec<_> = rows.filter_map(|row| row.split('`').next()).filter(|key| !keys.contains(*key)).collect();
    assert!(unknown.is_empty(), "docs/config.md documents unknown keys {unknown:?}");
}

/// The contents of all Rust files below `folder`.
fn read_sources(folder: &Path, out: &mut String) {
    for entry in fs::read_dir(folder).expect("readable folder") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() {
            read_sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push_str(&fs::read_to_string(&path).expect("readable file"));
        }
    }
}

#[test]
fn names_in_the_description_of_the_code_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut sources = String::new();
    for folder in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        read_sources(&root.join(folder), &mut sources);
    }
    let names: BTreeSet<&str> = sources.split(|c| !is_name_char(c)).collect();
    let mut missing = Vec::new();
    for file in ["docs/architecture.md", "CONTRIBUTING.md"] {
        let text = read_file(file);
        // Code blocks have code spans in comments, or none.
        let prose: String = text.split("```").step_by(2).collect();
        for span in prose.split('`').skip(1).step_by(2) {
            let is_path = ["src/", "tests/", "docs/", "scripts/", "benches/", "fuzz/"]
                .iter()
                .any(|start| span.starts_with(start));
            let has_placeholder = ["NAME", "CASE", "*", " "].iter().any(|placeholder| span.contains(placeholder));
            if is_path {
                missing.extend((!has_placeholder && !root.join(span).exists()).then(|| format!("{file}: {span}")));
                continue;
            }
            let is_name =
                span.contains("::") || span.starts_with(|c: char| c.is_ascii_uppercase()) || span.contains('_');
            // CONTRIBUTING.md has parts of names, for rules of naming.
            if file == "docs/architecture.md" && is_name && span.chars().all(|c| is_name_char(c) || c == ':') {
                let is_unknown = span.split("::").any(|part| !names.contains(part));
                missing.extend(is_unknown.then(|| format!("{file}: {span}")));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn vendor_counts_in_the_documentation_are_right() {
    let (count, with_key) =
        (vendors::all().len(), vendors::all().iter().filter(|vendor| !vendor.key_env.is_empty()).count());
    let variables: usize = vendors::all().iter().map(|vendor| vendor.key_env.len()).sum();
    let english = read_file("README.md");
    assert!(english.contains(&format!("{variables} variables of {with_key} vendors")));
    assert!(english.contains(&format!("all {count} known vendors")));
    let chinese = read_file("README.zh-CN.md");
    assert!(chinese.contains(&format!("共 {with_key} 家厂商的 {variables} 个变量")));
    assert!(chinese.contains(&format!("全部 {count} 家已知厂商")));
    assert!(read_file("CHANGELOG.md").contains(&format!("{count} vendors, {variables} key variables")));
}

#[test]
fn exit_code_table_matches_the_code() {
    let text = read_file("docs/exit-codes.md");
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit()).collect();
    let want: Vec<String> =
        Exit::ALL.iter().map(|(exit, meaning)| format!("| {} | {meaning} |", *exit as u8)).collect();
    assert_eq!(rows, want);
}

#[test]
fn every_error_class_is_documented() {
    let text = read_file("docs/errors.md");
    let rows: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| line.split('`').next()).collect();
    let want: Vec<&str> = ErrorClass::ALL.iter().map(|class| class.as_str()).collect();
    assert_eq!(rows, want);
}

#[test]
fn completion_scripts_are_up_to_date() {
    let env = TestEnv::new();
    for (shell, file) in [
        ("bash", "mmchat.bash"),
        ("zsh", "_mmchat"),
        ("fish", "mmchat.fish"),
        ("powershell", "_mmchat.ps1"),
        ("elvish", "mmchat.elv"),
    ] {
        let result = env.run(&["completions", shell]).expect_exit(0);
        assert!(
            result.stdout == read_file(&format!("completions/{file}")),
            "completions/{file} is out of date: run scripts/completions"
        );
    }
}

#[test]
fn both_readmes_have_the_same_commands() {
    let code_blocks = |name: &str| {
        let text = read_file(name);
        let blocks: Vec<String> = text.split("```").skip(1).step_by(2).map(str::to_owned).collect();
        assert!(!blocks.is_empty());
        blocks
    };
    // Comments are translated; commands and config are the same.
    let without_comments = |name: &str| -> Vec<String> {
        let blocks = code_blocks(name);
        let lines = blocks.iter().flat_map(|block| block.lines());
        lines
            .map(|line| line.split(" # ").next().unwrap_or(line).trim_end().to_owned())
            .filter(|line| !line.starts_with('#'))
            .collect()
    };
    assert_eq!(without_comments("README.md"), without_comments("README.zh-CN.md"));
}

#[test]
fn readme_config_is_valid() {
    let text = read_file("README.md");
    let config = text.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).expect("config block");
    TestEnv::with_config(config).run(&["config", "check"]).expect_exit(0);
}

#[test]
fn demo_runs_without_config_or_keys() {
    let result = TestEnv::new().run(&["demo"]).expect_exit(0).expect_stderr(&[
        "scripted mocks",
        "overloaded",
        "trying backup",
        "mmchat init",
    ]);
    assert!(
        ["1 fast  ok", "2 thinker  ok", "3 chat  ok"].iter().all(|head| result.stdout.contains(head)),
        "{result:?}"
    );
}
