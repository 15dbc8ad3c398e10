//! Other tools' configurations, read: which services, keys and models they name.
//!
//! Owns what maps and what does not: everything that is left out is told, with the reason. Texts in, [`Imported`] out:
//! nothing is run, and refuses files and the terminal. Keys go where the caller keeps keys; none is in a message.

use crate::model::api_key::ApiKey;

mod aichat;
mod environment;
mod langchain;
mod litellm;
mod llm;
mod one_api;
mod python;
mod yaml;

/// What a configuration names.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Services; their names are unique among these.
    pub endpoints: Vec<ImportedEndpoint>,
    /// Models, in the order of the file; their names are unique among these and the routes'.
    pub models: Vec<ImportedModel>,
    /// Names that stand for several models.
    pub routes: Vec<ImportedRoute>,
    /// What is asked when nothing is named: a model, a route, or `endpoint/id`.
    pub default: Option<String>,
    /// What was left out.
    pub left_out: Vec<LeftOut>,
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedEndpoint {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub base_url: String,
    /// Its keys.
    pub keys: Vec<ImportedKey>,
    /// It is a gateway, which retries by itself.
    pub gateway: bool,
}

/// A key, or where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportedKey {
    /// It stood in the file.
    Literal(ApiKey),
    /// In a variable of the environment.
    Env(String),
}

/// A model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportedModel {
    /// Its name.
    pub name: String,
    /// Its service's name.
    pub endpoint: String,
    /// What the service calls it.
    pub upstream: String,
    /// Tokens it reads and writes together.
    pub context: Option<u64>,
    /// Price of a million tokens of input and of output, in US dollars.
    pub price: Option<(f64, f64)>,
    /// Parameters that are sent.
    pub params: Vec<(&'static str, f64)>,
}

/// A name that stands for several models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedRoute {
    /// Its name.
    pub name: String,
    /// The names of its models, in order, with their shares where it is `weighted`; 0: when all others failed.
    pub models: Vec<(String, u32)>,
    /// How it chooses.
    pub strategy: &'static str,
}

/// Something that does not map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What.
    pub what: String,
    /// Why, and what can be done.
    pub why: String,
}

/// A text that is not what it is taken for.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ImportError(pub String);

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// Langchain-Chatchat's `model_settings.yaml`.
    Langchain,
    /// Its older `model_config.py`.
    LangchainPython,
    /// One-API's or new-api's list of channels, as its API gives it.
    OneApi,
    /// LiteLLM's `config.yaml`.
    LiteLlm,
    /// aichat's `config.yaml`.
    Aichat,
    /// llm's `extra-openai-models.yaml`.
    Llm,
    /// `NAME=VALUE` lines: `.env`, or the output of `env`.
    Env,
}

impl ImportFormat {
    /// Every format with its name.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("langchain-chatchat", Self::Langchain),
        ("langchain-chatchat-python", Self::LangchainPython),
        ("one-api", Self::OneApi),
        ("litellm", Self::LiteLlm),
        ("aichat", Self::Aichat),
        ("llm", Self::Llm),
        ("env", Self::Env),
    ];

    /// Whose `text` looks like it is.
    #[must_use]
    pub fn guess(text: &str) -> Option<Self> {
        let line = |begins: &str| text.lines().any(|line| line.trim_start().starts_with(begins));
        let top = |key: &str| text.lines().any(|line| line.starts_with(key));
        if top("ONLINE_LLM_MODEL") {
            Some(Self::LangchainPython)
        } else if top("MODEL_PLATFORMS") {
            Some(Self::Langchain)
        } else if top("model_list") {
            Some(Self::LiteLlm)
        } else if top("clients") {
            Some(Self::Aichat)
        } else if line("- model_id") {
            Some(Self::Llm)
        } else if text.trim_start().starts_with(['{', '[']) {
            Some(Self::OneApi)
        } else {
            text.lines().any(environment::is_assignment).then_some(Self::Env)
        }
    }

    /// Reads `text`.
    pub fn read(self, text: &str) -> Result<Imported, ImportError> {
        let mut imported = match self {
            Self::Langchain => langchain::settings(text),
            Self::LangchainPython => langchain::python(text),
            Self::OneApi => one_api::channels(text),
            Self::LiteLlm => litellm::config(text),
            Self::Aichat => aichat::config(text),
            Self::Llm => llm::models(text),
            Self::Env => environment::variables(text),
        }?;
        imported.tidy();
        Ok(imported)
    }
}

impl Imported {
    /// The service at this address with these keys: the one there is, or a new one called `name` or so. `None`, and told that
    /// `what` is left out: it is no address.
    fn endpoint(&mut self, what: &str, name: &str, base_url: &str, keys: Vec<ImportedKey>) -> Option<String> {
        let base_url = base_url.trim().trim_end_matches('/');
        if let Err(wrong) = crate::config::base_url(base_url) {
            self.leave_out(what, format!("its address {wrong}"));
            return None;
        }
        if let Some(known) = self.endpoints.iter().find(|known| known.base_url == base_url && known.keys == keys) {
            return Some(known.name.clone());
        }
        let taken: Vec<String> = self.endpoints.iter().map(|known| known.name.clone()).collect();
        let name = free(&crate::config::template::name_of(name), &taken);
        self.endpoints.push(ImportedEndpoint {
            name: name.clone(),
            base_url: base_url.to_owned(),
            keys,
            gateway: false,
        });
        Some(name)
    }

    /// A key as such files hold it, of `what`; `None`: it stands for none, or, and that is told, for one that is not in the file.
    fn key(&mut self, what: &str, text: &str) -> Option<ImportedKey> {
        // What templates hold in the place of a key.
        const NONE: [&str; 8] = ["", "EMPTY", "sk-", "sk-proj-", "none", "null", "xxx", "your-api-key"];
        let text = text.trim();
        if NONE.iter().any(|none| none.eq_ignore_ascii_case(text)) {
            return None;
        }
        let Some(expression) = text.strip_prefix("os.environ/").or_else(|| text.strip_prefix('$')) else {
            return Some(ImportedKey::Literal(ApiKey::new(text)));
        };
        let inside = expression.strip_prefix('{').and_then(|inside| inside.strip_suffix('}'));
        // `${NAME:-default}`
        let (variable, default) = match inside.unwrap_or(expression).split_once(":-") {
            Some((variable, _)) if inside.is_some() => (variable, true),
            _ => (inside.unwrap_or(expression), false),
        };
        if !environment::is_variable(variable) {
            // It is not shown: it may be a key.
            self.leave_out(format!("the key of {what}"), "it names no variable of the environment; set it by hand");
            return None;
        }
        if default {
            self.leave_out(format!("the key of {what} where {variable} is not set"), "set the variable");
        }
        Some(ImportedKey::Env(variable.to_owned()))
    }

    /// A service's key is a placeholder, or is kept elsewhere.
    fn lacks_key(&mut self, endpoint: &str) {
        self.leave_out(
            format!("the key of {endpoint}"),
            format!("there is none in the file: mmchat key set {endpoint}"),
        );
    }

    fn leave_out(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.left_out.push(LeftOut { what: what.into(), why: why.into() });
    }

    /// Makes names unique, and those of routes theirs; models that are the same twice are one. Whoever names a model that gets
    /// another name names it so.
    fn tidy(&mut self) {
        let routes: Vec<String> = self.routes.iter().map(|route| route.name.clone()).collect();
        let (mut taken, mut models, mut renamed) = (routes.clone(), Vec::<ImportedModel>::new(), Vec::new());
        for mut model in std::mem::take(&mut self.models) {
            let same = |known: &&ImportedModel| known.endpoint == model.endpoint && known.upstream == model.upstream;
            if let Some(known) = models.iter().find(same) {
                renamed.push((model.name, known.name.clone()));
                continue;
            }
            let mut name = crate::config::template::name_of(&model.name);
            if routes.contains(&name) {
                name = format!("{name}-{}", model.endpoint);
            }
            name = free(&name, &taken);
            renamed.push((std::mem::replace(&mut model.name, name.clone()), name.clone()));
            taken.push(name);
            models.push(model);
        }
        for model in &mut models {
            self.left_out.extend(model.leave_out_what_cannot_be());
        }
        self.models = models;
        let ours = |name: &str| renamed.iter().find(|(theirs, _)| theirs == name).map(|(_, ours)| ours.clone());
        for route in &mut self.routes {
            let mut models: Vec<(String, u32)> = Vec::new();
            for (name, weight) in &route.models {
                let named = ours(name).filter(|name| models.iter().all(|(known, _)| known != name));
                models.extend(named.map(|name| (name, *weight)));
            }
            route.models = models;
        }
        self.default =
            self.default.take().map(|name| if routes.contains(&name) { name } else { ours(&name).unwrap_or(name) });
    }
}

impl ImportedModel {
    /// Leaves out figures that no model has: the rest of the file is as good as ever.
    fn leave_out_what_cannot_be(&mut self) -> Vec<LeftOut> {
        let mut wrong = Vec::new();
        let why = "a model has no such figure";
        if self.price.is_some_and(|(input, output)| ![input, output].iter().all(|price| (0.0..1e12).contains(price))) {
            self.price = None;
            wrong.push(LeftOut { what: format!("the price of {}", self.name), why: why.into() });
        }
        if self.context == Some(0) {
            self.context = None;
            wrong.push(LeftOut { what: format!("the context of {}", self.name), why: why.into() });
        }
        let name = &self.name;
        self.params.retain(|(parameter, value)| {
            let fits = match *parameter {
                "max_tokens" => value.fract() == 0.0 && (1.0..1e15).contains(value),
                _ => value.is_finite(),
            };
            if !fits {
                wrong.push(LeftOut { what: format!("{parameter} {value} of {name}"), why: why.into() });
            }
            fits
        });
        wrong
    }
}

/// Services with formats of their own: only their usual addresses speak the OpenAI format as well.
const OWN_FORMAT: [&str; 3] = ["anthropic", "cohere", "gemini"];

/// `name`, or with a number behind it if it is taken.
#[must_use]
pub fn free(name: &str, taken: &[String]) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !taken.contains(name)).expect("numbers do not end")
}

/// Whether a model is for something else than chat, by what such models are called.
fn is_no_chat_model(id: &str) -> bool {
    const OTHERS: [&str; 12] = [
        "embed",
        "bge-",
        "rerank",
        "whisper",
        "tts-",
        "dall-e",
        "stable-diffusion",
        "moderation",
        "m3e",
        "gte-",
        "-asr",
        "cogview",
    ];
    let id = id.to_lowercase();
    OTHERS.iter().any(|other| id.contains(other))
}

#[cfg(test)]
mod tests;
