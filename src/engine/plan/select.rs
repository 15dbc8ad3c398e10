//! Resolves a selection of several models (names, sets and tags) to calls, in the order given and each model once.

use std::sync::Arc;

use super::{Call, PlanError, resolve_call};
use crate::{
    config::{Config, normalize_name},
    model::ModelRequest,
    routing::OnIncomplete,
};

/// The models that the user selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names of models, routes, `endpoint/id`s and sets.
    pub models: Vec<String>,
    /// Names of sets.
    pub sets: Vec<String>,
    /// Tags of models.
    pub tags: Vec<String>,
    /// Select every model of the config.
    pub all: bool,
}

/// The calls of a selection, with warnings.
#[derive(Clone, Debug)]
pub struct SelectedCalls {
    /// One for each name, in the order given.
    pub calls: Vec<Call>,
    /// Parts of the selection that were ignored.
    pub warnings: Vec<String>,
}

impl Selection {
    /// Whether nothing is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The calls of `request` to the selected models. If nothing is selected: the set named by `compare`, else the only
    /// set; without a config, all models with a known key.
    pub fn resolve(
        &self,
        config: &Config,
        request: &Arc<ModelRequest>,
        on_incomplete: OnIncomplete,
    ) -> Result<SelectedCalls, PlanError> {
        let (mut calls, mut warnings) = (Vec::<Call>::new(), Vec::new());
        let names = if self.is_empty() { default_selection(config)? } else { self.names(config)? };
        for (name, explicit) in names {
            match calls.iter().find(|call| call.name == name) {
                Some(_) if explicit => warnings.push(format!("\"{name}\" was given twice; it is used once")),
                Some(_) => {}
                None => calls.push(resolve_call(config, Some(&name), request, on_incomplete)?),
            }
        }
        Ok(SelectedCalls { calls, warnings })
    }

    /// All selected names, each with whether the user gave the name itself (not a set or tag that contains it).
    fn names(&self, config: &Config) -> Result<Vec<(String, bool)>, PlanError> {
        let mut names = Vec::new();
        for name in self.models.iter().map(|name| normalize_name(name)) {
            match config.set(&name) {
                Some(set) => names.extend(set.members.iter().map(|member| (member.clone(), false))),
                None => names.push((name, true)),
            }
        }
        for name in self.sets.iter().map(|name| normalize_name(name)) {
            names.extend(set_members(config, &name)?.iter().map(|member| (member.clone(), false)));
        }
        for tag in &self.tags {
            names.extend(models_with_tag(config, tag)?.into_iter().map(|name| (name, false)));
        }
        if self.all {
            names.extend(all_models(config)?.into_iter().map(|name| (name, false)));
        }
        Ok(names)
    }
}

fn set_members<'a>(config: &'a Config, name: &str) -> Result<&'a [String], PlanError> {
    if let Some(set) = config.set(name) {
        return Ok(&set.members);
    }
    let sets: Vec<&str> = config.sets.iter().map(|set| set.name.as_str()).collect();
    let hint = match crate::config::closest_name(name, sets.iter().copied()) {
        _ if config.model(name).is_some() || config.route(name).is_some() => format!("use -m {name}"),
        Some(suggestion) => format!("did you mean the set \"{suggestion}\"?"),
        None if sets.is_empty() => "the config has no [sets]".to_owned(),
        None => format!("available: {}", sets.join(", ")),
    };
    Err(PlanError::Unknown { name: name.to_owned(), kind: "set", hint })
}

fn models_with_tag(config: &Config, tag: &str) -> Result<Vec<String>, PlanError> {
    let models_tagged = |wanted: &str| {
        let models = config.models.iter().filter(|model| model.tags.iter().any(|tag| tag == wanted));
        models.map(|model| model.id.0.clone()).collect::<Vec<_>>()
    };
    let tagged = models_tagged(tag);
    if !tagged.is_empty() {
        return Ok(tagged);
    }
    let mut tags: Vec<&str> = config.models.iter().flat_map(|model| &model.tags).map(String::as_str).collect();
    tags.sort_unstable();
    tags.dedup();
    let hint = if tags.is_empty() {
        "no model in the config has `tags`".to_owned()
    } else {
        format!("available: {}", tags.join(", "))
    };
    Err(PlanError::UnknownTag { tag: tag.to_owned(), hint })
}

fn all_models(config: &Config) -> Result<Vec<String>, PlanError> {
    if !config.models.is_empty() {
        return Ok(config.models.iter().map(|model| model.id.0.clone()).collect());
    }
    if config.files.is_empty() {
        return Err(PlanError::NoEndpoints);
    }
    Err(PlanError::NoSelection { hint: "the config has no [models]; run \"mmchat model add\"".into() })
}

/// The models of `compare` without a selection.
fn default_selection(config: &Config) -> Result<Vec<(String, bool)>, PlanError> {
    let members = match (&config.compare, config.sets.as_slice()) {
        (Some(name), _) => set_members(config, name)?,
        (None, [only]) => &only.members,
        (None, []) if config.files.is_empty() => {
            return Ok(all_models(config)?.into_iter().map(|name| (name, false)).collect());
        }
        (None, []) => {
            let hint = "choose models with -m a,b, --tag or --all, or add a set to the config".to_owned();
            return Err(PlanError::NoSelection { hint });
        }
        (None, sets) => {
            let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
            let hint = format!(
                "choose one with --set: {}; or set `compare` in the config; or use -m a,b, --tag, --all",
                names.join(", ")
            );
            return Err(PlanError::NoSelection { hint });
        }
    };
    Ok(members.iter().map(|member| (member.clone(), false)).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::from_environment, model::ChatRequest};

    const CONFIG: &str = r#"
[endpoints.e]
base_url = "http://h/v1"
[models]
a = { endpoint = "e", model = "1", tags = ["cheap"] }
b = { endpoint = "e", model = "2", tags = ["cheap", "big"] }
c = { endpoint = "e", model = "3" }
[routes.chat]
models = ["a", "b"]
[sets]
panel = ["b", "chat", "e/x"]
"#;

    fn select(config: &str, selection: &Selection) -> Result<(Vec<String>, usize), PlanError> {
        let config = crate::config::resolve(config, Path::new("c.toml")).expect("valid config");
        let request = Arc::new(ModelRequest::Chat(ChatRequest::default()));
        let selected = selection.resolve(&config, &request, OnIncomplete::Buffer)?;
        Ok((selected.calls.into_iter().map(|call| call.name).collect(), selected.warnings.len()))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn names_sets_and_tags_are_merged_in_order_without_duplicates() {
        let selected = |models: &[&str], sets: &[&str], tags: &[&str], all| {
            let selection = Selection { models: names(models), sets: names(sets), tags: names(tags), all };
            select(CONFIG, &selection).expect("valid selection")
        };
        assert_eq!(selected(&["c", "chat", "e/y"], &[], &[], false), (names(&["c", "chat", "e/y"]), 0));
        assert_eq!(selected(&["c", "c"], &[], &[], false), (names(&["c"]), 1));
        assert_eq!(selected(&["panel", "a"], &[], &[], false), (names(&["b", "chat", "e/x", "a"]), 0));
        assert_eq!(selected(&["b"], &["panel"], &["cheap"], false), (names(&["b", "chat", "e/x", "a"]), 0));
        assert_eq!(selected(&[], &[], &[], true), (names(&["a", "b", "c"]), 0));
    }

    #[test]
    fn empty_selection_uses_the_default_set() {
        let select_default = |prefix: &str| select(&format!("{prefix}{CONFIG}"), &Selection::default());
        assert_eq!(select_default("").expect("the only set").0, ["b", "chat", "e/x"]);
        let two_sets = format!("{CONFIG}other = [\"a\"]\n");
        let error = select(&two_sets, &Selection::default()).expect_err("two sets and no default");
        assert!(error.hint().contains("panel, other"), "{}", error.hint());
        let default =
            select(&format!("compare = \"other\"\n{two_sets}"), &Selection::default()).expect("a default set");
        assert_eq!(default.0, ["a"]);
    }

    #[test]
    fn hints_list_the_available_names() {
        let hint = |selection: Selection| select(CONFIG, &selection).expect_err("unknown name").hint();
        let set = |name: &str| hint(Selection { sets: names(&[name]), ..Selection::default() });
        assert!(set("panle").contains("\"panel\"") && set("a").contains("-m a"));
        assert!(hint(Selection { tags: names(&["none"]), ..Selection::default() }).contains("big, cheap"));
        assert!(hint(Selection { models: names(&["d"]), ..Selection::default() }).contains("available"));
        let error =
            select("[endpoints.e]\nbase_url = \"http://h/v1\"\n", &Selection::default()).expect_err("no models");
        assert!(error.hint().contains("-m a,b"));
    }

    #[test]
    fn without_a_config_all_models_with_a_known_key_are_selected() {
        let environment = [("OPENAI_API_KEY", "sk-1"), ("DEEPSEEK_API_KEY", "sk-2")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        let config = from_environment(&environment).expect("valid environment");
        let request = Arc::new(ModelRequest::Chat(ChatRequest::default()));
        let selected = Selection::default().resolve(&config, &request, OnIncomplete::Error).expect("two keys are set");
        assert_eq!(selected.calls.len(), 2);
        let without_keys =
            from_environment(&crate::model::environment::Environment::default()).expect("valid environment");
        assert!(matches!(
            Selection::default().resolve(&without_keys, &request, OnIncomplete::Error),
            Err(PlanError::NoEndpoints)
        ));
    }
}
