//! Presets: reusable prompts with variables, as Jinja templates.
//!
//! A variable without a value is an error, never an empty string. The steps and the output of a template are limited.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use minijinja::ErrorKind;

use super::{
    ConfigError, Problem, closest_name,
    convert::params,
    file::PresetEntry,
    parse::{Parsed, parse},
    preset_template,
    source::{ConfigText, SourceMap},
    values::Spanned,
};
use crate::model::Params;

/// The template variable that holds the user's input.
const INPUT_VARIABLE: &str = "input";

/// A reusable prompt.
#[derive(Clone, Debug, Default)]
pub struct Preset {
    /// The name.
    pub name: String,
    /// The file of the preset; `None`: it is defined in the config.
    pub file: Option<PathBuf>,
    /// The system prompt, a template.
    pub system: Option<String>,
    /// The model or route to use.
    pub model: Option<String>,
    /// The request parameters.
    pub params: Params,
    /// The prompt, a template.
    pub prompt: Option<String>,
}

/// The rendered texts of a preset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedPreset {
    /// The system prompt.
    pub system: Option<String>,
    /// The prompt.
    pub prompt: String,
}

/// A preset that cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PresetError {
    /// Variables without a value.
    #[error("preset \"{preset}\" has no value for {}", .names.join(", "))]
    MissingVariables {
        /// The name of the preset.
        preset: String,
        /// The variables.
        names: Vec<String>,
    },
    /// The input was given both as a variable and as a prompt.
    #[error("preset \"{0}\" has two inputs: -P input=… and the prompt")]
    DuplicateInput(String),
    /// A variable that the templates do not use.
    #[error("preset \"{preset}\" has no variable \"{name}\"")]
    UnknownVariable {
        /// The name of the preset.
        preset: String,
        /// The variable.
        name: String,
        /// A suggestion.
        hint: String,
    },
    /// A template cannot be rendered.
    #[error("cannot render the {part} of preset \"{preset}\": {reason}")]
    Template {
        /// The name of the preset.
        preset: String,
        /// `system` or `prompt`.
        part: &'static str,
        /// The reason.
        reason: String,
    },
}

impl PresetError {
    /// How to fix it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::MissingVariables { names, .. } if names.iter().all(|name| name == INPUT_VARIABLE) => {
                "pass it as arguments, with -f or on standard input".into()
            }
            Self::MissingVariables { names, .. } => {
                let mut flags = String::new();
                for name in names.iter().filter(|name| *name != INPUT_VARIABLE) {
                    // Writing to a String cannot fail.
                    let _ = write!(flags, " -P {name}=…");
                }
                let needs_input = names.iter().any(|name| name == INPUT_VARIABLE);
                let input =
                    if needs_input { ", and pass the prompt as arguments, with -f or on standard input" } else { "" };
                format!("add{flags}{input}")
            }
            Self::DuplicateInput(_) => "remove one of them".into(),
            Self::UnknownVariable { hint, .. } => hint.clone(),
            Self::Template { preset, .. } => format!("run \"mmchat presets show {preset}\""),
        }
    }
}

impl Preset {
    /// Parses a preset file.
    pub fn from_file(name: &str, text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file = ConfigText { path: path.to_owned(), text: text.to_owned() };
        let source = SourceMap::new(std::slice::from_ref(&file));
        let Parsed { value, problems, .. } = parse::<PresetEntry>(&source, text, 0);
        let Some(entry) = value.filter(|_| problems.is_empty()) else { return Err(ConfigError::invalid(problems)) };
        let problems = template_problems(&source, &entry);
        if problems.is_empty() {
            Ok(Self { file: Some(path.to_owned()), ..Self::new(name, &entry) })
        } else {
            Err(ConfigError::invalid(problems))
        }
    }

    pub(super) fn new(name: &str, entry: &PresetEntry) -> Self {
        let value_of = |entry: &Option<Spanned<String>>| entry.as_ref().map(|text| text.value.clone());
        Self {
            name: name.to_owned(),
            file: None,
            system: value_of(&entry.system),
            model: value_of(&entry.model),
            params: params(&entry.params),
            prompt: value_of(&entry.prompt),
        }
    }

    /// The variables used by the templates, including `input` if used.
    #[must_use]
    pub fn variables(&self) -> Vec<String> {
        let templates = [&self.system, &self.prompt].into_iter().flatten();
        let mut names: Vec<String> = templates.flat_map(|text| preset_template::variables(text)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether a template uses `input`; if not, the input is appended to the prompt.
    #[must_use]
    pub fn uses_input(&self) -> bool {
        self.variables().iter().any(|name| name == INPUT_VARIABLE)
    }

    /// Whether the preset has a complete prompt without an input.
    #[must_use]
    pub fn is_complete_without_input(&self) -> bool {
        self.prompt.is_some() && !self.uses_input()
    }

    /// Renders the templates with `input` and `variables`.
    pub fn render(&self, input: &str, variables: &[(String, String)]) -> Result<RenderedPreset, PresetError> {
        let known = self.variables();
        if let Some((name, _)) = variables.iter().find(|(name, _)| !known.contains(name)) {
            return Err(self.unknown_variable(name, &known));
        }
        if !input.is_empty() && variables.iter().any(|(name, _)| name == INPUT_VARIABLE) {
            return Err(PresetError::DuplicateInput(self.name.clone()));
        }
        let mut values: BTreeMap<&str, &str> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if !input.is_empty() {
            values.entry(INPUT_VARIABLE).or_insert(input);
        }
        let render_part = |part, text: &Option<String>| {
            text.as_ref()
                .map(|text| preset_template::render(text, &values))
                .transpose()
                .map_err(|error| self.render_error(part, &error, &known, &values))
        };
        let (system, prompt) = (render_part("system", &self.system)?, render_part("prompt", &self.prompt)?);
        let prompt = match prompt {
            Some(prompt) if self.uses_input() || input.is_empty() => prompt,
            Some(prompt) => format!("{}\n\n{input}", prompt.trim_end()),
            None => input.to_owned(),
        };
        Ok(RenderedPreset { system, prompt })
    }

    fn unknown_variable(&self, name: &str, known: &[String]) -> PresetError {
        let hint = match closest_name(name, known.iter().map(String::as_str)) {
            Some(closest) => format!("did you mean \"{closest}\"?"),
            None if known.is_empty() => "remove it; the preset has no variables".to_owned(),
            None => format!("available: {}", known.join(", ")),
        };
        PresetError::UnknownVariable { preset: self.name.clone(), name: name.to_owned(), hint }
    }

    fn render_error(
        &self,
        part: &'static str,
        error: &minijinja::Error,
        known: &[String],
        values: &BTreeMap<&str, &str>,
    ) -> PresetError {
        let preset = self.name.clone();
        let missing: Vec<String> = known.iter().filter(|name| !values.contains_key(name.as_str())).cloned().collect();
        if error.kind() == ErrorKind::UndefinedError && !missing.is_empty() {
            return PresetError::MissingVariables { preset, names: missing };
        }
        PresetError::Template { preset, part, reason: preset_template::describe_error(error) }
    }
}

/// The problems in the templates of a preset.
pub(super) fn template_problems(source: &SourceMap, entry: &PresetEntry) -> Vec<Problem> {
    let texts = [&entry.system, &entry.prompt].into_iter().flatten();
    texts
        .filter_map(|text| {
            let error = preset_template::check(&text.value).err()?;
            let problem = Problem::new(
                source,
                format!("invalid template: {}", preset_template::describe_error(&error)),
                text.span.clone(),
            );
            Some(problem.with_primary_label("in this template").help("write variables as {{ name }} (Jinja syntax)"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preset(system: Option<&str>, prompt: Option<&str>) -> Preset {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Preset { name: "p".into(), system: text(system), prompt: text(prompt), ..Preset::default() }
    }

    fn render(preset: &Preset, input: &str, variables: &[(&str, &str)]) -> Result<RenderedPreset, PresetError> {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        preset.render(input, &variables)
    }

    #[test]
    fn variables_and_input_are_rendered() {
        let review = preset(Some("You know {{ lang }}."), Some("Review this {{ lang }} code:\n{{ input }}"));
        assert_eq!(review.variables(), ["input", "lang"]);
        let rendered = render(&review, "let x;", &[("lang", "Rust")]).expect("all variables are set");
        assert_eq!(rendered.system.as_deref(), Some("You know Rust."));
        assert_eq!(rendered.prompt, "Review this Rust code:\nlet x;");
    }

    #[test]
    fn unused_input_is_appended_to_the_prompt() {
        assert_eq!(
            render(&preset(None, Some("Be brief.\n")), "x", &[]).expect("valid preset").prompt,
            "Be brief.\n\nx"
        );
        assert_eq!(render(&preset(Some("s"), None), "x", &[]).expect("valid preset").prompt, "x");
        assert_eq!(
            render(&preset(Some("About: {{ input }}"), Some("go")), "x", &[]).expect("valid preset").prompt,
            "go"
        );
        assert!(
            preset(None, Some("go")).is_complete_without_input()
                && !preset(None, Some("{{ input }}")).is_complete_without_input()
        );
    }

    #[test]
    fn missing_duplicate_and_unknown_variables_are_named() {
        let review = preset(None, Some("{{ lang }} {{ style | default('short') }} {{ input }}"));
        let error = render(&review, "", &[]).expect_err("missing");
        assert!(error.to_string().contains("input, lang, style") && error.hint().contains("-P lang="), "{error}");
        assert!(matches!(render(&review, "x", &[("lang", "C"), ("input", "y")]), Err(PresetError::DuplicateInput(_))));
        let error = render(&review, "x", &[("lnag", "Rust")]).expect_err("unused");
        assert!(error.hint().contains("\"lang\""), "{error}");
        assert_eq!(render(&review, "x", &[("lang", "Rust")]).expect("all variables are set").prompt, "Rust short x");
    }

    #[test]
    fn steps_and_output_of_a_template_are_limited() {
        let endless = "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}";
        let error = render(&preset(None, Some(endless)), "", &[]).expect_err("endless loop").to_string();
        assert!(error.contains("steps"), "{error}");
        let large = "{% for a in range(90000) %}{{ input }}{% endfor %}";
        let error = render(&preset(None, Some(large)), &"x".repeat(100_000), &[]).expect_err("too large").to_string();
        assert!(error.contains("32 MiB"), "{error}");
        for invalid in ["{% for %}", "{{ input", "{{ input.nothing.more }}", "{{ nope() }}"] {
            assert!(render(&preset(None, Some(invalid)), "x", &[]).is_err(), "{invalid}");
        }
    }

    #[test]
    fn preset_file_is_checked_like_the_config() {
        let path = Path::new("presets/p.toml");
        let text = "system = \"s\"\nmodel = \"m\"\nparams = { temperature = 0.1 }\n";
        let preset = Preset::from_file("p", text, path).expect("valid preset");
        assert_eq!((preset.model.as_deref(), preset.params.temperature), (Some("m"), Some(0.1)));
        for invalid in ["systm = \"s\"", "prompt = \"{{ open\"", "prompt = 1"] {
            let Err(ConfigError::Invalid { problems, .. }) = Preset::from_file("p", invalid, path) else {
                panic!("{invalid}")
            };
            assert_eq!(problems.len(), 1);
        }
    }
}
