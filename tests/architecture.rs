//! The direction of imports: a module uses only the floors below it (`src/lib.rs` has the map).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Every module with its floor. Modules of one floor do not know each other, except where `NEIGHBOURS` says so.
const FLOORS: &[(&str, u8)] = &[
    ("chat", 1),
    ("secret", 1),
    ("environment", 1),
    ("endpoint", 2),
    ("target", 2),
    ("protocol", 3),
    ("transport", 4),
    ("keys", 4),
    ("attempt", 5),
    ("route", 6),
    ("config", 7),
    ("plan", 8),
    ("engine", 9),
    ("metrics", 10),
    ("store", 10),
    ("analysis", 11),
    ("conversation", 11),
    ("doctor", 11),
    ("gateway", 11),
    ("mock", 11),
    ("render", 12),
    ("term", 13),
    ("cli", 14),
];

/// Uses between modules that do not go down.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("target", "endpoint", "a target is an endpoint and more"),
    ("store", "metrics", "the record keeps times summed up"),
];

/// One `crate::…` path in a file.
#[derive(Debug)]
struct Use {
    line: usize,
    module: String,
}

fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|end| end == "rs") {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(&root(), &mut out);
    out
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The module a file belongs to: the first part of its path below `src`.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root()).expect("below src");
    let first = inside.iter().next().expect("a file").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Every module named by a `crate::` path, in `use` trees and inline, and by `super::` paths that leave the module.
fn uses(path: &Path, text: &str) -> Vec<Use> {
    let code: String = text
        .lines()
        .map(|line| if line.trim_start().starts_with("//") { "" } else { line })
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    let mut note = |at: usize, module: &str| {
        let line = code[..at].matches('\n').count() + 1;
        found.push(Use { line, module: module.to_owned() });
    };
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            for name in top_level_names(group) {
                note(at, &name);
            }
        } else {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            note(at, &name);
        }
    }
    // From a file right below `src`, `super::x` is `crate::x`; a test module inside it is one deeper.
    let depth = path.strip_prefix(root()).expect("below src").iter().count() - usize::from(path.ends_with("mod.rs"));
    let leaving = "super::".repeat(depth);
    for (at, _) in code.match_indices(&leaving) {
        let before = code[..at].ends_with("super::");
        let rest = &code[at + leaving.len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => top_level_names(group),
            None => vec![rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()],
        };
        for name in names {
            if !before && FLOORS.iter().any(|(module, _)| *module == name) && !code[..at].contains("mod tests") {
                note(at, &name);
            }
        }
    }
    found
}

/// The first name of every item in a `{…}` group that was opened just before `text`.
fn top_level_names(text: &str) -> Vec<String> {
    let (mut names, mut depth, mut name) = (Vec::new(), 0, String::new());
    let mut open = true;
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                open = true;
            }
            c if depth == 0 && open && (c.is_alphanumeric() || c == '_') => name.push(c),
            c if depth == 0 && !c.is_whitespace() => open = false,
            _ => {}
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

fn violations(path: &Path, text: &str) -> Vec<String> {
    let floors: BTreeMap<&str, u8> = FLOORS.iter().copied().collect();
    let from = module_of(path);
    let Some(&floor) = floors.get(from.as_str()) else { return Vec::new() };
    let allowed = |to: &str| EXCEPTIONS.iter().any(|(a, b, _)| *a == from && *b == to);
    uses(path, text)
        .into_iter()
        .filter(|used| used.module != from && !allowed(&used.module))
        .filter_map(|used| {
            let to = floors.get(used.module.as_str())?;
            let shown = path.strip_prefix(root()).expect("below src").display();
            (*to >= floor)
                .then(|| format!("{shown}:{}: {from} (floor {floor}) uses {} (floor {to})", used.line, used.module))
        })
        .collect()
}

#[test]
fn imports_run_one_way() {
    let found: Vec<String> =
        sources().iter().flat_map(|path| violations(path, &fs::read_to_string(path).expect("a source"))).collect();
    assert!(found.is_empty(), "upward imports:\n{}", found.join("\n"));
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    let file = |name: &str| root().join(name);
    for (path, code) in [
        ("chat/mod.rs", "use crate::engine::Engine;"),
        ("chat/answer.rs", "use crate::{chat::X, engine::{Engine, Event}};"),
        ("chat/answer.rs", "fn f() -> crate::engine::Event { x() }"),
        ("secret.rs", "use super::engine::Engine;"),
        ("chat/answer.rs", "use super::super::engine::Engine;"),
        ("chat/answer.rs", "use super::super::{engine::Engine};"),
        ("keys.rs", "use crate::{\n    transport::X,\n};"),
    ] {
        assert_eq!(violations(&file(path), code).len(), 1, "{path}: {code}");
    }
    assert!(violations(&file("engine/mod.rs"), "use crate::{chat::X, plan::Plan};\n// crate::cli::x").is_empty());
}

#[test]
fn every_module_has_a_floor() {
    for path in sources() {
        let module = module_of(&path);
        let known = FLOORS.iter().any(|(name, _)| *name == module) || matches!(module.as_str(), "lib" | "main");
        assert!(known, "{} has no floor", path.display());
    }
}

#[test]
fn one_file_names_the_http_client_and_every_file_says_what_it_owns() {
    for path in sources() {
        let text = fs::read_to_string(&path).expect("a source");
        let shown = path.strip_prefix(root()).expect("below src").to_string_lossy().replace('\\', "/");
        assert!(text.starts_with("//!"), "{shown} does not say what it owns");
        let names_client = text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("reqwest"));
        assert!(!names_client || shown == "transport/http.rs", "{shown} names the HTTP client");
    }
}
