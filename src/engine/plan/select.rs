//! Several answers at once: from names, sets and tags to lanes.
//!
//! Owns the order (as asked for) and that nobody is asked twice. Refuses to know how many fit on a screen.

use std::sync::Arc;

use super::{Lane, PlanError, lane};
use crate::{
    config::{Config, normalised},
    model::Call,
    routing::OnCut,
};

/// Whom a person wants to hear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Models, routes, `endpoint/id`s, and sets.
    pub models: Vec<String>,
    /// Sets.
    pub sets: Vec<String>,
    /// Labels of models.
    pub tags: Vec<String>,
    /// Every model there is.
    pub all: bool,
}

/// The lanes of a selection, and what should be known of it.
#[derive(Clone, Debug)]
pub struct Selected {
    /// One for each name, in the order asked for.
    pub lanes: Vec<Lane>,
    /// What was not done as it was written.
    pub warnings: Vec<String>,
}

impl Selection {
    /// Nothing was chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The lanes that answer `call`. Without a choice: the set named by `compare`, else the only set; without a config,
    /// everybody whose key is known.
    pub fn lanes(&self, config: &Config, call: &Arc<Call>, on_cut: OnCut) -> Result<Selected, PlanError> {
        let (mut lanes, mut warnings) = (Vec::<Lane>::new(), Vec::new());
        let names = if self.is_empty() { bare(config)? } else { self.names(config)? };
        for (name, chosen) in names {
            match lanes.iter().find(|known| known.name == name) {
                Some(_) if chosen => warnings.push(format!("`{name}` is asked once, although it was named twice")),
                Some(_) => {}
                None => lanes.push(lane(config, Some(&name), call, on_cut)?),
            }
        }
        Ok(Selected { lanes, warnings })
    }

    /// Every name, and whether a person wrote that very name.
    fn names(&self, config: &Config) -> Result<Vec<(String, bool)>, PlanError> {
        let mut names = Vec::new();
        for name in self.models.iter().map(|name| normalised(name)) {
            match config.set(&name) {
                Some(set) => names.extend(set.members.iter().map(|member| (member.clone(), false))),
                None => names.push((name, true)),
            }
        }
        for name in self.sets.iter().map(|name| normalised(name)) {
            names.extend(members(config, &name)?.iter().map(|member| (member.clone(), false)));
        }
        for tag in &self.tags {
            names.extend(tagged(config, tag)?.into_iter().map(|name| (name, false)));
        }
        if self.all {
            names.extend(everybody(config)?.into_iter().map(|name| (name, false)));
        }
        Ok(names)
    }
}

fn members<'a>(config: &'a Config, name: &str) -> Result<&'a [String], PlanError> {
    if let Some(set) = config.set(name) {
        return Ok(&set.members);
    }
    let sets: Vec<&str> = config.sets.iter().map(|set| set.name.as_str()).collect();
    let hint = match crate::config::nearest(name, sets.iter().copied()) {
        _ if config.model(name).is_some() || config.route(name).is_some() => format!("name it with -m {name}"),
        Some(near) => format!("did you mean the set `{near}`?"),
        None if sets.is_empty() => "the config has no [sets]".to_owned(),
        None => format!("there are: {}", sets.join(", ")),
    };
    Err(PlanError::Unknown { name: name.to_owned(), kind: "set", hint })
}

fn tagged(config: &Config, tag: &str) -> Result<Vec<String>, PlanError> {
    let has = |wanted: &str| {
        let models = config.models.iter().filter(|model| model.tags.iter().any(|tag| tag == wanted));
        models.map(|model| model.id.0.clone()).collect::<Vec<_>>()
    };
    let found = has(tag);
    if !found.is_empty() {
        return Ok(found);
    }
    let mut tags: Vec<&str> = config.models.iter().flat_map(|model| &model.tags).map(String::as_str).collect();
    tags.sort_unstable();
    tags.dedup();
    let hint = if tags.is_empty() {
        "the config gives no model `tags`".to_owned()
    } else {
        format!("there are: {}", tags.join(", "))
    };
    Err(PlanError::NoTag { tag: tag.to_owned(), hint })
}

fn everybody(config: &Config) -> Result<Vec<String>, PlanError> {
    if !config.models.is_empty() {
        return Ok(config.models.iter().map(|model| model.id.0.clone()).collect());
    }
    Err(match config.path {
        None => PlanError::NoKey,
        Some(_) => PlanError::Nobody { hint: "the config has no [models]; add one: mmchat model add".into() },
    })
}

/// What a bare `compare` asks.
fn bare(config: &Config) -> Result<Vec<(String, bool)>, PlanError> {
    let set = match (&config.compare, config.sets.as_slice()) {
        (Some(name), _) => members(config, name)?,
        (None, [only]) => &only.members,
        (None, []) if config.path.is_none() => {
            return Ok(everybody(config)?.into_iter().map(|name| (name, false)).collect());
        }
        (None, []) => {
            let hint = "choose with -m a,b, --tag or --all, or name a set in the config".to_owned();
            return Err(PlanError::Nobody { hint });
        }
        (None, sets) => {
            let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
            let hint = format!(
                "choose one with --set: {}; or set `compare` in the config; or use -m a,b, --tag, --all",
                names.join(", ")
            );
            return Err(PlanError::Nobody { hint });
        }
    };
    Ok(set.iter().map(|member| (member.clone(), false)).collect())
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

    fn lanes(config: &str, selection: &Selection) -> Result<(Vec<String>, usize), PlanError> {
        let config = crate::config::resolve(config, Path::new("c.toml")).expect("good");
        let call = Arc::new(Call::Chat(ChatRequest::default()));
        let selected = selection.lanes(&config, &call, OnCut::Buffer)?;
        Ok((selected.lanes.into_iter().map(|lane| lane.name).collect(), selected.warnings.len()))
    }

    fn names(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn names_sets_and_tags_are_joined_in_order_and_each_once() {
        let chosen = |models: &[&str], sets: &[&str], tags: &[&str], all| {
            let selection = Selection { models: names(models), sets: names(sets), tags: names(tags), all };
            lanes(CONFIG, &selection).expect("good")
        };
        assert_eq!(chosen(&["c", "chat", "e/y"], &[], &[], false), (names(&["c", "chat", "e/y"]), 0));
        assert_eq!(chosen(&["c", "c"], &[], &[], false), (names(&["c"]), 1));
        assert_eq!(chosen(&["panel", "a"], &[], &[], false), (names(&["b", "chat", "e/x", "a"]), 0));
        assert_eq!(chosen(&["b"], &["panel"], &["cheap"], false), (names(&["b", "chat", "e/x", "a"]), 0));
        assert_eq!(chosen(&[], &[], &[], true), (names(&["a", "b", "c"]), 0));
    }

    #[test]
    fn without_a_choice_the_config_decides() {
        let bare = |more: &str| lanes(&format!("{more}{CONFIG}"), &Selection::default());
        assert_eq!(bare("").expect("the only set").0, ["b", "chat", "e/x"]);
        let two = format!("{CONFIG}other = [\"a\"]\n");
        let error = lanes(&two, &Selection::default()).expect_err("which one?");
        assert!(error.hint().contains("panel, other"), "{}", error.hint());
        let named = lanes(&format!("compare = \"other\"\n{two}"), &Selection::default()).expect("named");
        assert_eq!(named.0, ["a"]);
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let hint = |selection: Selection| lanes(CONFIG, &selection).expect_err("wrong").hint();
        let set = |name: &str| hint(Selection { sets: names(&[name]), ..Selection::default() });
        assert!(set("panle").contains("`panel`") && set("a").contains("-m a"));
        assert!(hint(Selection { tags: names(&["none"]), ..Selection::default() }).contains("big, cheap"));
        assert!(hint(Selection { models: names(&["d"]), ..Selection::default() }).contains("there are"));
        let error = lanes("[endpoints.e]\nbase_url = \"http://h/v1\"\n", &Selection::default()).expect_err("nobody");
        assert!(error.hint().contains("-m a,b"));
    }

    #[test]
    fn without_a_config_everybody_with_a_key_is_asked() {
        let environment = [("OPENAI_API_KEY", "sk-1"), ("DEEPSEEK_API_KEY", "sk-2")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        let config = from_environment(&environment).expect("fine");
        let call = Arc::new(Call::Chat(ChatRequest::default()));
        let selected = Selection::default().lanes(&config, &call, OnCut::Error).expect("two");
        assert_eq!(selected.lanes.len(), 2);
        let none = from_environment(&crate::model::environment::Environment::default()).expect("fine");
        assert!(matches!(Selection::default().lanes(&none, &call, OnCut::Error), Err(PlanError::NoKey)));
    }
}
