//! What can be completed in a conversation: commands, names, paths.

use std::path::Path;

use crate::{
    config::{Config, in_folder},
    conversation::COMMANDS,
    term::editor::Choice,
};

/// The choices for what was typed so far.
pub(super) fn choices(config: &Config) -> impl Fn(&str) -> Vec<Choice> + Send + Sync + use<> {
    let all: Vec<String> = config.names().map(str::to_owned).collect();
    let askable: Vec<String> = all.iter().filter(|name| config.set(name).is_none()).cloned().collect();
    move |typed| {
        let Some(rest) = typed.strip_prefix('/') else { return Vec::new() };
        let Some((command, argument)) = rest.split_once(' ') else { return commands(rest) };
        let from = typed.len() - argument.len();
        match command {
            "model" => names(&askable, argument, from),
            "models" => {
                let last = argument.rfind(',').map_or(0, |comma| comma + 1);
                names(&all, &argument[last..], from + last)
            }
            "file" | "save" => paths(argument, from),
            _ => Vec::new(),
        }
    }
}

fn commands(begun: &str) -> Vec<Choice> {
    let fitting = COMMANDS.iter().filter(|(name, ..)| name.starts_with(begun));
    let choice = |(name, argument, what): &(&str, &str, &str)| Choice {
        from: 0,
        value: format!("/{name}"),
        what: Some(format!("{argument} {what}").trim().to_owned()),
    };
    fitting.map(choice).collect()
}

fn names(known: &[String], begun: &str, from: usize) -> Vec<Choice> {
    let fitting = known.iter().filter(|name| name.starts_with(begun));
    fitting.map(|name| Choice { from, value: name.clone(), what: None }).collect()
}

/// What is in the folder; folders end with a slash.
fn paths(begun: &str, from: usize) -> Vec<Choice> {
    let (folder, name) = begun.rsplit_once('/').map_or(("", begun), |(folder, name)| (&begun[..=folder.len()], name));
    let entries = std::fs::read_dir(if folder.is_empty() { ".".into() } else { in_folder(Path::new(""), folder) });
    let mut choices: Vec<Choice> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let found = entry.file_name().into_string().ok()?;
            let hidden = found.starts_with('.') && !name.starts_with('.');
            let end = if entry.path().is_dir() { "/" } else { "" };
            (found.starts_with(name) && !hidden).then(|| Choice {
                from,
                value: format!("{folder}{found}{end}"),
                what: None,
            })
        })
        .collect();
    choices.sort_by(|a, b| a.value.cmp(&b.value));
    choices
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn commands_names_and_paths_are_completed() {
        let text = "[endpoints.e]\nbase_url = \"http://h/v1\"\n[models]\nfast = { endpoint = \"e\", model = \"1\" }\n\
                    far = { endpoint = \"e\", model = \"2\" }\n[sets]\nfew = [\"far\"]\n";
        let config = crate::config::resolve(text, Path::new("c.toml")).expect("good");
        let choices = choices(&config);
        let found = |typed: &str| {
            choices(typed)
                .into_iter()
                .map(|choice| format!("{}{}", &typed[..choice.from], choice.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(found("/mo"), ["/model", "/models"]);
        assert_eq!(found("/model fa"), ["/model fast", "/model far"]);
        assert_eq!(found("/models far,f"), ["/models far,fast", "/models far,far", "/models far,few"]);
        assert_eq!((found("hello"), found("/stats x")), (vec![], vec![]));
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("notes.md"), "").expect("writable");
        std::fs::create_dir(folder.path().join("now")).expect("writable");
        let typed = format!("/file {}/no", folder.path().display());
        assert_eq!(found(&typed), [format!("{typed}tes.md"), format!("{typed}w/")]);
    }
}
