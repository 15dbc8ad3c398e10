//! Presets: prompts to be used again, with variables.
//!
//! Owns their templates (Jinja's language) and its bounds: a variable nobody gave is an error, never an empty text, and
//! a template can neither run nor grow without end. Refuses to read files: their text comes from the caller.

use std::{
    collections::{BTreeMap, HashSet},
    error::Error,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

use super::{
    ConfigError, Problem,
    error::SourceFile,
    file::PresetEntry,
    nearest,
    resolve::{params, syntax},
    values::At,
};
use crate::model::Params;

/// What the user gives, in a template.
const INPUT: &str = "input";
/// Steps of a template's program; a loop that needs more has no end.
const FUEL: u64 = 1_000_000;
/// No model reads more.
const LONGEST: usize = 32 * 1024 * 1024;

/// A reusable prompt.
#[derive(Clone, Debug, Default)]
pub struct Preset {
    /// Its name.
    pub name: String,
    /// Its own file; `None`: it stands in the config.
    pub file: Option<PathBuf>,
    /// Its system text, a template.
    pub system: Option<String>,
    /// The model or route it asks.
    pub model: Option<String>,
    /// Parameters of its requests.
    pub params: Params,
    /// Its template.
    pub prompt: Option<String>,
}

/// What a preset makes of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The system text.
    pub system: Option<String>,
    /// The prompt.
    pub prompt: String,
}

/// A preset that could not be filled in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PresetError {
    /// Variables without a value.
    #[error("preset `{preset}` needs {}", .names.join(", "))]
    Missing {
        /// Which preset.
        preset: String,
        /// The variables.
        names: Vec<String>,
    },
    /// The input was given, and set as a variable.
    #[error("preset `{0}` has two inputs: -P input=… and what was given otherwise")]
    Twice(String),
    /// A variable nobody asks for.
    #[error("preset `{preset}` has no variable `{name}`")]
    Unused {
        /// Which preset.
        preset: String,
        /// The variable.
        name: String,
        /// What may be meant.
        hint: String,
    },
    /// The template fails.
    #[error("preset `{preset}`, its {part}: {reason}")]
    Template {
        /// Which preset.
        preset: String,
        /// `system` or `prompt`.
        part: &'static str,
        /// Why.
        reason: String,
    },
}

impl PresetError {
    /// What the reader may do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { names, .. } if names.iter().all(|name| name == INPUT) => {
                "give it as arguments, with -f, or on standard input".into()
            }
            Self::Missing { names, .. } => {
                let mut flags = String::new();
                for name in names.iter().filter(|name| *name != INPUT) {
                    // Writing to a String cannot fail.
                    let _ = write!(flags, " -P {name}=…");
                }
                format!("give it with{flags}")
            }
            Self::Twice(_) => "leave one of them out".into(),
            Self::Unused { hint, .. } => hint.clone(),
            Self::Template { preset, .. } => format!("look at it: mmchat presets show {preset}"),
        }
    }
}

impl Preset {
    /// The preset of a file of its own.
    pub fn from_file(name: &str, text: &str, path: &Path) -> Result<Self, ConfigError> {
        let source = SourceFile::new(&path.display().to_string(), text);
        let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
        let entry: PresetEntry = toml::from_str(text).map_err(|error| invalid(vec![syntax(&source, &error)]))?;
        let problems = problems(&source, &entry);
        if problems.is_empty() {
            Ok(Self { file: Some(path.to_owned()), ..Self::new(name, &entry) })
        } else {
            Err(invalid(problems))
        }
    }

    pub(super) fn new(name: &str, entry: &PresetEntry) -> Self {
        let text = |at: &Option<At<String>>| at.as_ref().map(|text| text.value.clone());
        Self {
            name: name.to_owned(),
            file: None,
            system: text(&entry.system),
            model: text(&entry.model),
            params: params(&entry.params),
            prompt: text(&entry.prompt),
        }
    }

    /// The variables its templates ask for, `input` among them where it is.
    #[must_use]
    pub fn variables(&self) -> Vec<String> {
        let templates = [&self.system, &self.prompt].into_iter().flatten();
        let mut names: Vec<String> = templates.flat_map(|text| variables(text)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether its texts say where the input goes; else it follows the prompt.
    #[must_use]
    pub fn places_input(&self) -> bool {
        self.variables().iter().any(|name| name == INPUT)
    }

    /// Whether it asks something even without an input.
    #[must_use]
    pub fn asks_by_itself(&self) -> bool {
        self.prompt.is_some() && !self.places_input()
    }

    /// The texts with everything filled in.
    pub fn render(&self, input: &str, given: &[(String, String)]) -> Result<Rendered, PresetError> {
        let known = self.variables();
        if let Some((name, _)) = given.iter().find(|(name, _)| !known.contains(name)) {
            return Err(self.unused(name, &known));
        }
        if !input.is_empty() && given.iter().any(|(name, _)| name == INPUT) {
            return Err(PresetError::Twice(self.name.clone()));
        }
        let mut values: BTreeMap<&str, &str> =
            given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if !input.is_empty() {
            values.entry(INPUT).or_insert(input);
        }
        let fill = |part, text: &Option<String>| {
            text.as_ref()
                .map(|text| fill(text, &values))
                .transpose()
                .map_err(|error| self.failed(part, &error, &known, &values))
        };
        let (system, prompt) = (fill("system", &self.system)?, fill("prompt", &self.prompt)?);
        let prompt = match prompt {
            Some(prompt) if self.places_input() || input.is_empty() => prompt,
            Some(prompt) => format!("{}\n\n{input}", prompt.trim_end()),
            None => input.to_owned(),
        };
        Ok(Rendered { system, prompt })
    }

    fn unused(&self, name: &str, known: &[String]) -> PresetError {
        let hint = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "its texts ask for none".to_owned(),
            None => format!("there are: {}", known.join(", ")),
        };
        PresetError::Unused { preset: self.name.clone(), name: name.to_owned(), hint }
    }

    fn failed(
        &self,
        part: &'static str,
        error: &minijinja::Error,
        known: &[String],
        values: &BTreeMap<&str, &str>,
    ) -> PresetError {
        let preset = self.name.clone();
        let missing: Vec<String> = known.iter().filter(|name| !values.contains_key(name.as_str())).cloned().collect();
        if error.kind() == ErrorKind::UndefinedError && !missing.is_empty() {
            return PresetError::Missing { preset, names: missing };
        }
        PresetError::Template { preset, part, reason: told(error) }
    }
}

/// What is wrong with the templates of an entry.
pub(super) fn problems(source: &SourceFile, entry: &PresetEntry) -> Vec<Problem> {
    let texts = [&entry.system, &entry.prompt].into_iter().flatten();
    texts
        .filter_map(|text| {
            let error = environment().template_from_str(&text.value).err()?;
            let problem =
                Problem::new(source, format!("the template cannot be read: {}", told(&error)), text.span.clone());
            Some(problem.label("this text").help("variables are written {{ name }}, as Jinja has them"))
        })
        .collect()
}

fn environment<'a>() -> Environment<'a> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment
}

fn variables(text: &str) -> HashSet<String> {
    let environment = environment();
    let template = environment.template_from_str(text);
    let globals: HashSet<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
    template
        .map(|template| template.undeclared_variables(false))
        .unwrap_or_default()
        .difference(&globals)
        .cloned()
        .collect()
}

fn fill(text: &str, values: &BTreeMap<&str, &str>) -> Result<String, minijinja::Error> {
    let environment = environment();
    let template = environment.template_from_str(text)?;
    let mut out = Bounded::default();
    template.render_captured_to(Value::from_pairs(values.iter().map(|(name, value)| (*name, *value))), &mut out)?;
    Ok(String::from_utf8_lossy(&out.0).into_owned())
}

/// The error in a line, with what it comes from.
fn told(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "it runs without end".to_owned(),
        ErrorKind::WriteFailure => error.source().map_or_else(|| error.to_string(), ToString::to_string),
        _ => error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind())),
    };
    format!("{line}{what}")
}

/// A text that does not grow without end.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(io::Error::other("it makes more than 32 MiB of text"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preset(system: Option<&str>, prompt: Option<&str>) -> Preset {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Preset { name: "p".into(), system: text(system), prompt: text(prompt), ..Preset::default() }
    }

    fn render(preset: &Preset, input: &str, given: &[(&str, &str)]) -> Result<Rendered, PresetError> {
        let given: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        preset.render(input, &given)
    }

    #[test]
    fn variables_and_the_input_are_filled_in() {
        let review = preset(Some("You know {{ lang }}."), Some("Review this {{ lang }} code:\n{{ input }}"));
        assert_eq!(review.variables(), ["input", "lang"]);
        let rendered = render(&review, "let x;", &[("lang", "Rust")]).expect("all there");
        assert_eq!(rendered.system.as_deref(), Some("You know Rust."));
        assert_eq!(rendered.prompt, "Review this Rust code:\nlet x;");
    }

    #[test]
    fn an_input_without_a_place_follows_and_is_never_lost() {
        assert_eq!(render(&preset(None, Some("Be brief.\n")), "x", &[]).expect("fine").prompt, "Be brief.\n\nx");
        assert_eq!(render(&preset(Some("s"), None), "x", &[]).expect("fine").prompt, "x");
        assert_eq!(render(&preset(Some("About: {{ input }}"), Some("go")), "x", &[]).expect("fine").prompt, "go");
        assert!(preset(None, Some("go")).asks_by_itself() && !preset(None, Some("{{ input }}")).asks_by_itself());
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let review = preset(None, Some("{{ lang }} {{ style | default('short') }} {{ input }}"));
        let error = render(&review, "", &[]).expect_err("missing");
        assert!(error.to_string().contains("input, lang, style") && error.hint().contains("-P lang="), "{error}");
        assert!(matches!(render(&review, "x", &[("lang", "C"), ("input", "y")]), Err(PresetError::Twice(_))));
        let error = render(&review, "x", &[("lnag", "Rust")]).expect_err("unused");
        assert!(error.hint().contains("`lang`"), "{error}");
        assert_eq!(render(&review, "x", &[("lang", "Rust")]).expect("all there").prompt, "Rust short x");
    }

    #[test]
    fn a_template_ends_and_stays_small() {
        let turns = "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}";
        let error = render(&preset(None, Some(turns)), "", &[]).expect_err("without end").to_string();
        assert!(error.contains("without end"), "{error}");
        let grows = "{% for a in range(90000) %}{{ input }}{% endfor %}";
        let error = render(&preset(None, Some(grows)), &"x".repeat(100_000), &[]).expect_err("grows").to_string();
        assert!(error.contains("32 MiB"), "{error}");
        for wrong in ["{% for %}", "{{ input", "{{ input.nothing.more }}", "{{ nope() }}"] {
            assert!(render(&preset(None, Some(wrong)), "x", &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_of_its_own_is_checked_like_the_config() {
        let path = Path::new("presets/p.toml");
        let text = "system = \"s\"\nmodel = \"m\"\nparams = { temperature = 0.1 }\n";
        let preset = Preset::from_file("p", text, path).expect("good");
        assert_eq!((preset.model.as_deref(), preset.params.temperature), (Some("m"), Some(0.1)));
        for wrong in ["systm = \"s\"", "prompt = \"{{ open\"", "prompt = 1"] {
            let Err(ConfigError::Invalid { problems, .. }) = Preset::from_file("p", wrong, path) else {
                panic!("{wrong}")
            };
            assert_eq!(problems.len(), 1);
        }
    }
}
