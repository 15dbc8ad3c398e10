//! Completes commands, names and paths in a chat.

use std::path::Path;

use crate::{
    config::{Config, resolve_config_path},
    conversation::COMMANDS,
    term::editor::CompletionItem,
};

/// A function that returns the completions for the typed text.
pub(super) fn completer(config: &Config) -> impl Fn(&str) -> Vec<CompletionItem> + Send + Sync + use<> {
    let names: Vec<String> = config.names().map(str::to_owned).collect();
    let names_without_sets: Vec<String> = names.iter().filter(|name| config.set(name).is_none()).cloned().collect();
    move |typed| {
        let Some(rest) = typed.strip_prefix('/') else { return Vec::new() };
        let Some((command, argument)) = rest.split_once(' ') else { return complete_commands(rest) };
        let start = typed.len() - argument.len();
        match command {
            "model" => complete_names(&names_without_sets, argument, start),
            "models" => {
                let last = argument.rfind(',').map_or(0, |comma| comma + 1);
                complete_names(&names, &argument[last..], start + last)
            }
            "file" | "save" => complete_paths(argument, start),
            _ => Vec::new(),
        }
    }
}

fn complete_commands(prefix: &str) -> Vec<CompletionItem> {
    let matching = COMMANDS.iter().filter(|(name, ..)| name.starts_with(prefix));
    let item = |(name, argument, help): &(&str, &str, &str)| CompletionItem {
        start: 0,
        value: format!("/{name}"),
        description: Some(format!("{argument} {help}").trim().to_owned()),
    };
    matching.map(item).collect()
}

fn complete_names(names: &[String], prefix: &str, start: usize) -> Vec<CompletionItem> {
    let matching = names.iter().filter(|name| name.starts_with(prefix));
    matching.map(|name| CompletionItem { start, value: name.clone(), description: None }).collect()
}

/// The matching entries of the folder; folders end with a slash.
fn complete_paths(typed: &str, start: usize) -> Vec<CompletionItem> {
    let (folder, name) = typed.rsplit_once('/').map_or(("", typed), |(folder, name)| (&typed[..=folder.len()], name));
    let entries =
        std::fs::read_dir(if folder.is_empty() { ".".into() } else { resolve_config_path(Path::new(""), folder) });
    let mut items: Vec<CompletionItem> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let hidden = file.starts_with('.') && !name.starts_with('.');
            let suffix = if entry.path().is_dir() { "/" } else { "" };
            (file.starts_with(name) && !hidden).then(|| CompletionItem {
                start,
                value: format!("{folder}{file}{suffix}"),
                description: None,
            })
        })
        .collect();
    items.sort_by(|a, b| a.value.cmp(&b.value));
    items
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn commands_names_and_paths_are_completed() {
        let text = "[endpoints.e]\nbase_url = \"http://h/v1\"\n[models]\nfast = { endpoint = \"e\", model = \"1\" }\n\
                    far = { endpoint = \"e\", model = \"2\" }\n[sets]\nfew = [\"far\"]\n";
        let config = crate::config::resolve(text, Path::new("c.toml")).expect("valid config");
        let complete = completer(&config);
        let found = |typed: &str| {
            complete(typed)
                .into_iter()
                .map(|item| format!("{}{}", &typed[..item.start], item.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(found("/mo"), ["/model", "/models"]);
        assert_eq!(found("/model fa"), ["/model fast", "/model far"]);
        assert_eq!(found("/models far,f"), ["/models far,fast", "/models far,far", "/models far,few"]);
        assert_eq!((found("hello"), found("/stats x")), (vec![], vec![]));
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join("notes.md"), "").expect("folder is writable");
        std::fs::create_dir(folder.path().join("now")).expect("folder is writable");
        let typed = format!("/file {}/no", folder.path().display());
        assert_eq!(found(&typed), [format!("{typed}tes.md"), format!("{typed}w/")]);
    }
}
