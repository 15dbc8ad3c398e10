//! Checks the imports of every file in `src/`: a module uses only modules of lower layers, and there are no import
//! cycles. `docs/architecture.md` explains the layers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{UseTree, spanned::Spanned, visit::Visit};

/// Every top-level module with its layer. Modules of one layer do not use each other.
const LAYERS: &[(&str, u8)] = &[
    ("model", 1),
    ("protocol", 2),
    ("transport", 3),
    ("routing", 4),
    ("config", 5),
    ("engine", 6),
    ("store", 7),
    ("analysis", 8),
    ("conversation", 8),
    ("doctor", 8),
    ("gateway", 8),
    ("import", 8),
    ("mock", 8),
    ("render", 9),
    ("term", 10),
    ("cli", 11),
];

/// A path of modules below the crate: `["engine", "plan"]`.
type ModulePath = Vec<String>;

/// A module path that a file uses, made absolute, with its line.
struct Import {
    path: ModulePath,
    line: usize,
    in_test: bool,
}

/// Collects the imports of one file.
struct Collector<'a> {
    /// The file's module, then the inline modules around the current item.
    module: ModulePath,
    test_depth: usize,
    modules: &'a BTreeSet<ModulePath>,
    imports: Vec<Import>,
}

impl Collector<'_> {
    /// Records a path whose first segments are `crate`, `self` or `super`, or a child module of the current one.
    fn record(&mut self, segments: &[String], line: usize) {
        let mut module = self.module.clone();
        let mut rest = segments;
        match segments.first().map(String::as_str) {
            Some("crate") => {
                module.clear();
                rest = &segments[1..];
            }
            Some("self") => rest = &segments[1..],
            Some("super") => {
                while rest.first().is_some_and(|first| first == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
            }
            Some(first) => {
                let mut child = module.clone();
                child.push(first.to_owned());
                if !self.modules.contains(&child) {
                    return;
                }
            }
            None => return,
        }
        module.extend_from_slice(rest);
        self.imports.push(Import { path: module, line, in_test: self.test_depth > 0 });
    }

    fn use_tree(&mut self, prefix: &mut ModulePath, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(prefix, &path.tree);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.use_tree(prefix, item)),
            UseTree::Name(syn::UseName { ident }) | UseTree::Rename(syn::UseRename { ident, .. }) => {
                prefix.push(ident.to_string());
                self.record(prefix, ident.span().start().line);
                prefix.pop();
            }
            UseTree::Glob(glob) => self.record(prefix, glob.span().start().line),
        }
    }

    /// Macro arguments are not parsed: finds the paths in their tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut line, mut colons) = (Vec::new(), 0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if colons == 2 || path.is_empty() => {
                    line = ident.span().start().line;
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                other => {
                    self.record_if_path(&std::mem::take(&mut path), line);
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Ident(ident) => {
                            line = ident.span().start().line;
                            path.push(ident.to_string());
                        }
                        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
        }
        self.record_if_path(&path, line);
    }

    fn record_if_path(&mut self, path: &[String], line: usize) {
        if path.len() > 1 {
            self.record(path, line);
        }
    }
}

fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let test = usize::from(is_test_only(&item.attrs));
        self.test_depth += test;
        if let Some((_, items)) = &item.content {
            self.module.push(item.ident.to_string());
            for item in items {
                self.visit_item(item);
            }
            self.module.pop();
        }
        self.test_depth -= test;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.record_if_path(&segments, path.span().start().line);
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.tokens(mac.tokens.clone());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file, relative to `src/`, with its text.
fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("readable directory") {
            let path = entry.expect("readable entry").path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("path below src").to_string_lossy().replace('\\', "/");
                out.insert(name, fs::read_to_string(&path).expect("readable file"));
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(&root(), &mut out);
    out
}

/// The module that a file defines: `engine/plan/mod.rs` is `["engine", "plan"]`.
fn module_of(file: &str) -> ModulePath {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if matches!(path, "lib" | "main") { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

fn imports(file: &str, text: &str, modules: &BTreeSet<ModulePath>) -> Vec<Import> {
    let module = module_of(file);
    // Files below a folder `tests`, and the scripted transport, are compiled for tests only.
    let is_test = module.iter().any(|part| part == "tests") || file == "transport/mock.rs";
    let mut collector = Collector { module, test_depth: usize::from(is_test), modules, imports: Vec::new() };
    collector.visit_file(&syn::parse_file(text).expect("Rust source"));
    collector.imports
}

fn layer(module: &[String]) -> Option<u8> {
    let first = module.first()?;
    LAYERS.iter().find(|(name, _)| name == first).map(|(_, layer)| *layer)
}

/// The imports of `file` that do not go to a lower layer.
fn upward_imports(file: &str, text: &str, modules: &BTreeSet<ModulePath>) -> Vec<String> {
    let module = module_of(file);
    let Some(own_layer) = layer(&module) else { return Vec::new() };
    let mut found = Vec::new();
    for Import { path, line, .. } in imports(file, text, modules) {
        let Some(other_layer) = layer(&path) else { continue };
        if path[0] != module[0] && other_layer >= own_layer {
            found.push(format!(
                "{file}:{line}: {} (layer {own_layer}) uses {} (layer {other_layer})",
                module[0], path[0]
            ));
        }
        if file.starts_with("cli/support/") && path.starts_with(&["cli".to_owned(), "commands".to_owned()]) {
            found.push(format!("{file}:{line}: cli/support uses cli/commands"));
        }
    }
    found.dedup();
    found
}

#[test]
fn imports_go_to_lower_layers_only() {
    let sources = sources();
    let modules = sources.keys().map(|file| module_of(file)).collect();
    let found: Vec<String> = sources.iter().flat_map(|(file, text)| upward_imports(file, text, &modules)).collect();
    assert!(found.is_empty(), "upward imports:\n{}", found.join("\n"));
}

#[test]
fn every_form_of_an_upward_import_is_found() {
    let modules = BTreeSet::from([module_of("engine/mod.rs"), module_of("model/mod.rs")]);
    for (file, code) in [
        ("model/mod.rs", "use crate::engine::Engine;"),
        ("model/answer.rs", "use crate::{model::X, engine::{Engine, Event}};"),
        ("model/answer.rs", "fn f() -> crate::engine::Event { x() }"),
        ("model/answer.rs", "fn f() { assert!(matches!(x, crate::engine::Event)); }"),
        ("model/mod.rs", "use super::engine::Engine;"),
        ("model/answer.rs", "use super::super::engine::Engine;"),
        ("model/answer.rs", "mod inner { use super::super::super::engine::Engine; }"),
        ("transport/keys/mod.rs", "use crate::{\n    routing::X,\n};"),
        ("cli/support/prompt.rs", "use crate::cli::commands::ask;"),
    ] {
        assert_eq!(upward_imports(file, code, &modules).len(), 1, "{file}: {code}");
    }
    assert!(
        upward_imports("engine/mod.rs", "use crate::{model::X, config::Config};\n// crate::cli::x", &modules)
            .is_empty()
    );
}

/// The files that each file uses outside tests. Uses of an enclosing module are not counted, because `mod.rs` reexports
/// the items of its folder.
fn import_graph(sources: &BTreeMap<String, String>) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let modules: BTreeSet<ModulePath> = sources.keys().map(|file| module_of(file)).collect();
    let file_of =
        |path: ModulePath| (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|part| modules.contains(part));
    let mut graph = BTreeMap::new();
    for (file, text) in sources {
        let module = module_of(file);
        let used = imports(file, text, &modules).into_iter().filter(|import| !import.in_test);
        let used = used.filter_map(|import| file_of(import.path));
        let used: BTreeSet<ModulePath> = used.filter(|other| !module.starts_with(other)).collect();
        graph.insert(module, used);
    }
    graph
}

/// An import cycle that can be reached from `module`, if there is one.
fn find_cycle(
    module: &ModulePath,
    graph: &BTreeMap<ModulePath, BTreeSet<ModulePath>>,
    trail: &mut Vec<ModulePath>,
    visited: &mut BTreeSet<ModulePath>,
) -> Option<Vec<ModulePath>> {
    if let Some(start) = trail.iter().position(|step| step == module) {
        return Some(trail[start..].to_vec());
    }
    if !visited.insert(module.clone()) {
        return None;
    }
    trail.push(module.clone());
    let found = graph.get(module)?.iter().find_map(|other| find_cycle(other, graph, trail, visited));
    trail.pop();
    found
}

fn first_cycle(sources: &BTreeMap<String, String>) -> Option<String> {
    let graph = import_graph(sources);
    let mut visited = BTreeSet::new();
    let found = graph.keys().find_map(|module| find_cycle(module, &graph, &mut Vec::new(), &mut visited))?;
    Some(found.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(" -> "))
}

#[test]
fn there_are_no_import_cycles() {
    assert_eq!(first_cycle(&sources()), None);
}

#[test]
fn import_cycle_of_three_files_is_found() {
    let mut sources: BTreeMap<String, String> = [
        ("a/mod.rs", "mod b; mod c; mod d; pub struct A;"),
        ("a/b.rs", "use super::{A, c::C}; pub struct B;"),
        ("a/c.rs", "pub struct C; fn f() -> crate::a::d::D { D }"),
        ("a/d.rs", "pub struct D; #[cfg(test)] mod tests { use crate::a::b::B; }"),
    ]
    .map(|(file, text)| (file.to_owned(), text.to_owned()))
    .into();
    assert_eq!(first_cycle(&sources), None, "tests may use anything");
    sources.insert("a/d.rs".to_owned(), "use crate::a::b::B; pub struct D;".to_owned());
    assert_eq!(first_cycle(&sources).as_deref(), Some("a::b -> a::c -> a::d"));
}

#[test]
fn every_module_has_a_layer() {
    for file in sources().keys() {
        let module = module_of(file);
        assert!(module.is_empty() || layer(&module).is_some(), "{file} has no layer");
    }
}

#[test]
fn only_one_file_uses_the_http_client() {
    for (file, text) in sources() {
        let uses_client = text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("reqwest"));
        assert!(!uses_client || file == "transport/http.rs", "{file} uses the HTTP client library");
    }
}

#[test]
fn every_file_starts_with_its_documentation() {
    for (file, text) in sources() {
        assert!(text.starts_with("//!"), "{file} does not start with `//!`");
    }
}
