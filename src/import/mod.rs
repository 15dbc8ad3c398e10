//! Reads the configuration files of other tools: their services, keys and models.
//!
//! Everything that cannot be imported is reported with a reason. No file is executed. Messages contain no keys.

use strum::{EnumString, VariantArray, VariantNames};

use crate::model::api_key::ApiKey;

mod aichat;
mod environment;
mod langchain;
mod litellm;
mod llm;
mod one_api;
mod python;
mod yaml;

/// The contents of another tool's configuration.
#[derive(Clone, Debug, Default)]
pub struct ImportedConfig {
    /// Services, with unique names.
    pub endpoints: Vec<ImportedEndpoint>,
    /// Models, in the order of the file. Names are unique among models and routes.
    pub models: Vec<ImportedModel>,
    /// Routes: names for several models.
    pub routes: Vec<ImportedRoute>,
    /// The default: a model, a route or `endpoint/id`.
    pub default: Option<String>,
    /// What could not be imported.
    pub skipped: Vec<SkippedItem>,
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedEndpoint {
    /// The name.
    pub name: String,
    /// The base URL.
    pub base_url: String,
    /// The keys.
    pub keys: Vec<ImportedKey>,
    /// The service is a gateway with its own retries.
    pub gateway: bool,
}

/// A key, or the variable that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportedKey {
    /// A key from the file.
    Literal(ApiKey),
    /// An environment variable.
    Env(String),
}

/// A model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportedModel {
    /// The name.
    pub name: String,
    /// The name of the service.
    pub endpoint: String,
    /// The model ID used by the service.
    pub upstream: String,
    /// The context window: input and output tokens together.
    pub context: Option<u64>,
    /// The prices of input and output per million tokens, in US dollars.
    pub price: Option<(f64, f64)>,
    /// The default parameters.
    pub params: Vec<(&'static str, f64)>,
}

/// A name for several models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedRoute {
    /// The name.
    pub name: String,
    /// The names of the models, in order, with their weights (used by `weighted`). A model with weight 0 is only tried
    /// after all others failed.
    pub models: Vec<(String, u32)>,
    /// The strategy.
    pub strategy: &'static str,
}

/// Something that could not be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedItem {
    /// The setting, model or service.
    pub item: String,
    /// The reason, and how to configure it in mmchat.
    pub reason: String,
}

/// A file that is not in the expected format.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImportError {
    /// The text is not valid YAML, JSON or Python. The message names the position.
    #[error("{0}")]
    Syntax(String),
    /// The text is valid, but its content is not that of the format.
    #[error("{0}")]
    Content(String),
    /// The text exceeds a limit of the parser.
    #[error("{0}")]
    TooLarge(String),
}

/// The tool and format of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantArray, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum ImportFormat {
    /// Langchain-Chatchat's `model_settings.yaml`.
    #[strum(serialize = "langchain-chatchat")]
    Langchain,
    /// The `model_config.py` of older versions of Langchain-Chatchat.
    #[strum(serialize = "langchain-chatchat-python")]
    LangchainPython,
    /// The list of channels from the API of One-API or new-api.
    OneApi,
    /// LiteLLM's `config.yaml`.
    #[strum(serialize = "litellm")]
    LiteLlm,
    /// aichat's `config.yaml`.
    Aichat,
    /// llm's `extra-openai-models.yaml`.
    Llm,
    /// `NAME=VALUE` lines: `.env`, or the output of `env`.
    Env,
}

impl ImportFormat {
    /// All formats.
    pub const ALL: &[Self] = <Self as VariantArray>::VARIANTS;

    /// Detects the format of `text`.
    #[must_use]
    pub fn detect(text: &str) -> Option<Self> {
        let has_line = |prefix: &str| text.lines().any(|line| line.trim_start().starts_with(prefix));
        let has_key = |key: &str| text.lines().any(|line| line.starts_with(key));
        if has_key("ONLINE_LLM_MODEL") {
            Some(Self::LangchainPython)
        } else if has_key("MODEL_PLATFORMS") {
            Some(Self::Langchain)
        } else if has_key("model_list") {
            Some(Self::LiteLlm)
        } else if has_key("clients") {
            Some(Self::Aichat)
        } else if has_line("- model_id") {
            Some(Self::Llm)
        } else if text.trim_start().starts_with(['{', '[']) {
            Some(Self::OneApi)
        } else {
            text.lines().any(environment::is_assignment).then_some(Self::Env)
        }
    }

    /// What a file of this format is or has; follows the name of the file in a message.
    #[must_use]
    pub fn requirement(self) -> &'static str {
        match self {
            Self::Langchain => "is the model_settings.yaml of Langchain-Chatchat",
            Self::LangchainPython => "is the model_config.py of Langchain-Chatchat",
            Self::OneApi => "is a list of channels, from GET /api/channel/ with an access token",
            Self::LiteLlm => "is the config.yaml of LiteLLM",
            Self::Aichat => "is the config.yaml of aichat",
            Self::Llm => "is the extra-openai-models.yaml of llm",
            Self::Env => "has NAME=VALUE lines with names that \"mmchat vendors\" lists",
        }
    }

    /// Parses `text`.
    pub fn parse(self, text: &str) -> Result<ImportedConfig, ImportError> {
        let mut imported = match self {
            Self::Langchain => langchain::parse_yaml(text),
            Self::LangchainPython => langchain::parse_python(text),
            Self::OneApi => one_api::parse(text),
            Self::LiteLlm => litellm::parse(text),
            Self::Aichat => aichat::parse(text),
            Self::Llm => llm::parse(text),
            Self::Env => environment::parse(text),
        }?;
        imported.deduplicate();
        Ok(imported)
    }
}

impl ImportedConfig {
    /// The name of the service with this base URL and these keys. Adds a service named after `name` if there is none.
    /// `None` if the URL is invalid; `item` is then reported as skipped.
    fn find_or_add_endpoint(
        &mut self,
        item: &str,
        name: &str,
        base_url: &str,
        keys: Vec<ImportedKey>,
    ) -> Option<String> {
        let base_url = base_url.trim().trim_end_matches('/');
        if let Err(reason) = crate::config::parse_base_url(base_url) {
            self.skip(item, format!("its base URL {reason}"));
            return None;
        }
        if let Some(endpoint) =
            self.endpoints.iter().find(|endpoint| endpoint.base_url == base_url && endpoint.keys == keys)
        {
            return Some(endpoint.name.clone());
        }
        let taken: Vec<String> = self.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        let name = crate::config::unique_name(&crate::config::template::name_from_upstream_id(name), &taken);
        self.endpoints.push(ImportedEndpoint {
            name: name.clone(),
            base_url: base_url.to_owned(),
            keys,
            gateway: false,
        });
        Some(name)
    }

    /// Parses the key of `item`. `None` for a placeholder, and for a reference that is not a variable name; the latter is
    /// reported as skipped.
    fn parse_key(&mut self, item: &str, text: &str) -> Option<ImportedKey> {
        // Placeholders in the templates of these tools.
        const PLACEHOLDERS: [&str; 8] = ["", "EMPTY", "sk-", "sk-proj-", "none", "null", "xxx", "your-api-key"];
        let text = text.trim();
        if PLACEHOLDERS.iter().any(|placeholder| placeholder.eq_ignore_ascii_case(text)) {
            return None;
        }
        let Some(expression) = text.strip_prefix("os.environ/").or_else(|| text.strip_prefix('$')) else {
            return Some(ImportedKey::Literal(ApiKey::new(text)));
        };
        let braced = expression.strip_prefix('{').and_then(|braced| braced.strip_suffix('}'));
        // `${NAME:-default}`
        let (variable, has_default) = match braced.unwrap_or(expression).split_once(":-") {
            Some((variable, _)) if braced.is_some() => (variable, true),
            _ => (braced.unwrap_or(expression), false),
        };
        if !environment::is_variable_name(variable) {
            // The text is not shown because it may be a key.
            self.skip(format!("the key of {item}"), "not the name of an environment variable; set the key manually");
            return None;
        }
        if has_default {
            self.skip(format!("the default key of {item} if {variable} is not set"), "set the variable");
        }
        Some(ImportedKey::Env(variable.to_owned()))
    }

    /// Reports that the key of a service is a placeholder or is not in the file.
    fn skip_missing_key(&mut self, endpoint: &str) {
        self.skip(format!("the key of {endpoint}"), format!("not in the file; run mmchat key set {endpoint}"));
    }

    fn skip(&mut self, item: impl Into<String>, reason: impl Into<String>) {
        self.skipped.push(SkippedItem { item: item.into(), reason: reason.into() });
    }

    /// Merges duplicate models and makes names unique; routes keep their names. Updates references to renamed models.
    fn deduplicate(&mut self) {
        let routes: Vec<String> = self.routes.iter().map(|route| route.name.clone()).collect();
        let (mut taken, mut models, mut renamed) = (routes.clone(), Vec::<ImportedModel>::new(), Vec::new());
        for mut model in std::mem::take(&mut self.models) {
            let is_same = |known: &&ImportedModel| known.endpoint == model.endpoint && known.upstream == model.upstream;
            if let Some(known) = models.iter().find(is_same) {
                renamed.push((model.name, known.name.clone()));
                continue;
            }
            let mut name = crate::config::template::name_from_upstream_id(&model.name);
            if routes.contains(&name) {
                name = format!("{name}-{}", model.endpoint);
            }
            name = crate::config::unique_name(&name, &taken);
            renamed.push((std::mem::replace(&mut model.name, name.clone()), name.clone()));
            taken.push(name);
            models.push(model);
        }
        for model in &mut models {
            self.skipped.extend(model.remove_invalid_values());
        }
        self.models = models;
        let new_name = |name: &str| renamed.iter().find(|(old, _)| old == name).map(|(_, new)| new.clone());
        for route in &mut self.routes {
            let mut models: Vec<(String, u32)> = Vec::new();
            for (name, weight) in &route.models {
                let member = new_name(name).filter(|name| models.iter().all(|(known, _)| known != name));
                models.extend(member.map(|name| (name, *weight)));
            }
            route.models = models;
        }
        self.default =
            self.default.take().map(|name| if routes.contains(&name) { name } else { new_name(&name).unwrap_or(name) });
    }
}

impl ImportedModel {
    /// Removes and returns invalid values, so that the rest of the file can still be imported.
    fn remove_invalid_values(&mut self) -> Vec<SkippedItem> {
        let mut invalid = Vec::new();
        let reason = "invalid value";
        if self.price.is_some_and(|(input, output)| ![input, output].iter().all(|price| (0.0..1e12).contains(price))) {
            self.price = None;
            invalid.push(SkippedItem { item: format!("the price of {}", self.name), reason: reason.into() });
        }
        if self.context == Some(0) {
            self.context = None;
            invalid.push(SkippedItem { item: format!("the context of {}", self.name), reason: reason.into() });
        }
        let name = &self.name;
        self.params.retain(|(parameter, value)| {
            let is_valid = match *parameter {
                "max_tokens" => value.fract() == 0.0 && (1.0..1e15).contains(value),
                _ => value.is_finite(),
            };
            if !is_valid {
                invalid.push(SkippedItem { item: format!("{parameter} {value} of {name}"), reason: reason.into() });
            }
            is_valid
        });
        invalid
    }
}

/// Vendors with a native format. Only their default base URLs also support the OpenAI format.
const NATIVE_FORMAT_VENDORS: [&str; 3] = ["anthropic", "cohere", "gemini"];

/// Whether the name of a model suggests that it is not a chat model.
fn is_non_chat_model(id: &str) -> bool {
    const MARKERS: [&str; 12] = [
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
    MARKERS.iter().any(|marker| id.contains(marker))
}

#[cfg(test)]
mod tests;
