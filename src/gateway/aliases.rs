//! Resolves names that clients send, such as `gpt-4o`, to models and routes (`[serve.aliases]`).

use crate::config::{Alias, Config, normalize_name};

/// The name that a client's `name` stands for: itself if it is known, else that of the most specific alias.
pub(super) fn resolve_alias(config: &Config, name: &str) -> String {
    let name = normalize_name(name);
    let aliases = &config.serve.aliases;
    if aliases.is_empty() || config.names().any(|known| known == name) || config.split_direct(&name).is_some() {
        return name;
    }
    let matching = aliases.iter().filter_map(|alias| Some((specificity(alias), apply(alias, &name)?)));
    matching.max_by_key(|(specificity, _)| *specificity).map_or(name, |(_, target)| target)
}

/// The name that `name` stands for, if it matches.
fn apply(alias: &Alias, name: &str) -> Option<String> {
    let Some((start, end)) = alias.pattern.split_once('*') else {
        return (alias.pattern == name).then(|| alias.target.clone());
    };
    let matched = name.strip_prefix(start)?.strip_suffix(end)?;
    Some(alias.target.replacen('*', matched, 1))
}

/// The length of the text that must match: the longer, the more specific.
fn specificity(alias: &Alias) -> (bool, usize) {
    (!alias.pattern.contains('*'), alias.pattern.len())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    const CONFIG: &str = r#"
[endpoints.e]
base_url = "http://h/v1"
[models."qwen2.5:7b"]
endpoint = "e"
model = "qwen"
[models.gpt-real]
endpoint = "e"
model = "r"
[routes.chat]
models = ["qwen2.5:7b"]
[serve.aliases]
"*" = "chat"
"gpt-*" = "chat"
"gpt-4o" = "gpt-real"
"vendor/*" = "e/*"
"#;

    #[test]
    fn name_wins_over_aliases_and_the_most_specific_alias_wins() {
        let config = crate::config::resolve(CONFIG, Path::new("c.toml")).expect("valid config");
        for (name, resolved) in [
            ("qwen2.5:7b", "qwen2.5:7b"),
            ("gpt-real", "gpt-real"),
            ("e/anything", "e/anything"),
            ("gpt-4o", "gpt-real"),
            ("gpt-5", "chat"),
            ("vendor/m:1", "e/m:1"),
            ("other", "chat"),
        ] {
            assert_eq!(super::resolve_alias(&config, name), resolved, "{name}");
        }
    }

    #[test]
    fn unknown_target_and_second_wildcard_are_errors() {
        for (entry, error) in [
            ("x = \"nope\"", "[serve.aliases]"),
            ("\"*a*\" = \"chat\"", "more than one"),
            ("x = \"e/*\"", "must have one"),
            ("\"x/*\" = \"e/*/*\"", "must have one"),
            ("\"x/*\" = \"nope/*\"", "unknown endpoint"),
        ] {
            let text = CONFIG.replace("\"*\" = \"chat\"", entry);
            let message = format!("{:?}", crate::config::resolve(&text, Path::new("c.toml")).expect_err("invalid"));
            assert!(message.contains(error), "{message}");
        }
    }
}
