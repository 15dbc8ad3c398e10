//! What is asked, as every command that asks a model takes it: prompt, files, preset, parameters.
//!
//! Owns these flags and the [`Call`] they make. Refuses to know who is asked.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    time::Duration,
};

use clap::Args;

use super::{complete::Offer, prompt};
use crate::cli::{CliError, Context};
use crate::{
    config::{
        Config, Flags, Layers, Preset, nearest, parse_duration,
        preset::{PresetError, Rendered},
    },
    model::{Call, ChatRequest, Message, Params, Part, Role},
    render::{FORMATS, Format, format},
    term::output::{Streams, WriteError},
};

/// The request.
#[derive(Debug, Default, Args)]
pub(crate) struct RequestArgs {
    /// The prompt; words are joined with spaces
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    /// Attach a text file, or a picture (PNG, JPEG, WebP, GIF; or its http address)
    #[arg(short, long = "file", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    files: Vec<String>,
    /// The system text
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    /// Fill in this preset
    #[arg(short, long, value_name = "NAME", add = Offer::Presets.completer())]
    preset: Option<String>,
    /// A variable of the preset
    #[arg(short = 'P', long = "variable", value_name = "NAME=VALUE", requires = "preset")]
    variables: Vec<String>,
    #[command(flatten)]
    params: ParamArgs,
    #[command(flatten)]
    how: HowArgs,
    /// Do not read standard input [env: MMCHAT_NO_STDIN]
    #[arg(long)]
    no_stdin: bool,
    /// The longest silence of standard input; 0: any
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    stdin_timeout: Duration,
}

/// The parameters of a request.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ParamArgs {
    /// Any parameter of the endpoint; the value is JSON, or text
    #[arg(short, long = "option", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Sampling temperature
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<f64>,
    /// Upper limit of the answer, in tokens
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u64>,
}

/// How the answer is asked for and written.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct HowArgs {
    /// What stdout holds: text, markdown, json or jsonl [env: MMCHAT_FORMAT]
    #[arg(long, value_name = "FORMAT", add = Offer::Formats.completer())]
    format: Option<String>,
    /// Write the answer to a file instead of stdout; -: stdout
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// For the whole answer, such as 90s or 5m [env: MMCHAT_TIMEOUT]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Show Markdown as it comes, even on a terminal
    #[arg(long)]
    pub(crate) raw: bool,
    /// Ask for the whole answer at once instead of a stream
    #[arg(long)]
    pub(crate) no_stream: bool,
}

impl HowArgs {
    /// What the settings that have layers are worth.
    pub(crate) fn check(layers: &Layers) -> Result<Format, CliError> {
        if layers.timeout.value.is_some_and(|timeout| timeout.is_zero()) {
            return Err(CliError::usage(
                "a timeout of 0 leaves no time to ask",
                "leave it out for the default of 10 minutes",
            ));
        }
        named_format(&layers.format.value)
    }

    /// The file that the data goes to.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        self.output.as_ref().filter(|path| path.as_os_str() != "-")
    }

    /// What the flags say of the settings that have layers.
    pub(crate) fn flags(&self) -> Flags {
        Flags { format: self.format.clone(), timeout: self.timeout, ..Flags::default() }
    }
}

impl RequestArgs {
    /// What is asked is known already.
    pub(crate) fn with(how: &HowArgs) -> Self {
        Self { how: how.clone(), ..Self::default() }
    }

    /// How the answer is asked for and written.
    pub(crate) fn how(&self) -> &HowArgs {
        &self.how
    }

    /// Whether Markdown is shown as it comes.
    pub(crate) fn raw(&self) -> bool {
        self.how.raw
    }

    /// Whether the answer is asked for as a stream.
    pub(crate) fn streamed(&self) -> bool {
        !self.how.no_stream
    }

    /// What the flags say of the settings that have layers.
    pub(crate) fn flags(&self) -> Flags {
        Flags { no_stdin: self.no_stdin, ..self.how.flags() }
    }

    /// What the flags of this request are worth, told before anything is read or asked.
    pub(crate) fn check(&self, layers: &Layers) -> Result<Format, CliError> {
        self.params.params()?;
        HowArgs::check(layers)
    }

    /// The preset that was asked for.
    pub(crate) fn preset(
        &self,
        context: &Context,
        config: &Config,
        layers: &Layers,
    ) -> Result<Option<Preset>, CliError> {
        self.preset.as_ref().map(|name| context.preset(config, layers, name)).transpose()
    }

    /// Reads the prompt and makes the call.
    pub(crate) fn call(&self, preset: Option<&Preset>, layers: &Layers) -> Result<Arc<Call>, CliError> {
        let input = prompt::read(&prompt::PromptArgs {
            words: &self.words,
            files: &self.files,
            no_stdin: layers.no_stdin.value,
            stdin_timeout: Some(self.stdin_timeout).filter(|limit| !limit.is_zero()),
            // A preset that lacks its input says so itself.
            optional: preset.is_some_and(|preset| preset.asks_by_itself() || preset.places_input()),
        })?;
        let own = self.params.params()?;
        let (system, text, params) = match preset {
            Some(preset) => {
                let rendered = rendered(preset, input.text, self.variables()?)?;
                (rendered.system, rendered.prompt, preset.params.clone().overlaid(own))
            }
            None => (None, input.text, own),
        };
        let system = self.system.clone().or(system).map(|text| Message::text(Role::System, text));
        let text = Some(text).filter(|text| !text.is_empty()).map(Part::Text);
        let parts = text.into_iter().chain(input.images.into_iter().map(Part::Image)).collect();
        let messages = system.into_iter().chain([Message { role: Role::User, parts }]).collect();
        Ok(Arc::new(Call::Chat(ChatRequest { messages, params, stream: self.streamed(), ..ChatRequest::default() })))
    }

    /// Whether the data goes to a file.
    pub(crate) fn to_file(&self) -> bool {
        self.how.file().is_some()
    }

    /// Where the data goes.
    pub(crate) fn streams(&self) -> Result<Streams, WriteError> {
        self.how.file().map_or_else(|| Ok(Streams::stdout()), |path| Streams::file(path))
    }

    fn variables(&self) -> Result<Vec<(String, String)>, CliError> {
        let pair = |text: &String| match text.split_once('=').filter(|(name, _)| !name.is_empty()) {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(CliError::usage(format!("`-P {text}` has no value"), "write -P name=value")),
        };
        self.variables.iter().map(pair).collect()
    }
}

impl ParamArgs {
    /// The parameters of the flags. `-o` values are JSON where they read as JSON, else text.
    pub(crate) fn params(&self) -> Result<Params, CliError> {
        let mut params = Params { temperature: self.temperature, max_tokens: self.max_tokens, ..Params::default() };
        if self.temperature.is_some_and(|temperature| !temperature.is_finite() || temperature < 0.0) {
            return Err(CliError::usage("--temperature is no number from 0 up", "most services take 0 to 2"));
        }
        for option in &self.options {
            let Some((key, value)) = option.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(CliError::usage(format!("`-o {option}` has no value"), "write -o key=value"));
            };
            if matches!(key, "messages" | "model" | "stream") {
                return Err(CliError::usage(
                    format!("`-o {key}=…` would replace what is sent anyway"),
                    "use -m, -s and --no-stream",
                ));
            }
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            params.extra.insert(key.to_owned(), value);
        }
        Ok(params)
    }
}

/// How long a template may take; one that needs longer has no end.
const TEMPLATE: Duration = Duration::from_secs(5);

/// The preset's texts. A template can work without taking a step of its program, and nothing stops it then: it is left
/// behind on a thread that ends with the process, which is about to say so and end.
fn rendered(preset: &Preset, input: String, variables: Vec<(String, String)>) -> Result<Rendered, CliError> {
    let (done, result) = sync_channel(1);
    let (name, preset) = (preset.name.clone(), preset.clone());
    // The receiver is gone only when the time was up.
    std::thread::spawn(move || drop(done.send(preset.render(&input, &variables))));
    let endless = || PresetError::Template { preset: name, part: "text", reason: "it runs without end".into() };
    match result.recv_timeout(TEMPLATE) {
        Ok(rendered) => Ok(rendered?),
        Err(RecvTimeoutError::Timeout) => Err(endless().into()),
        Err(RecvTimeoutError::Disconnected) => panic!("the template's thread said why it ended"),
    }
}

fn named_format(name: &str) -> Result<Format, CliError> {
    format(name).ok_or_else(|| {
        let known: Vec<&str> = FORMATS.iter().map(|(name, _)| *name).collect();
        unknown("format", name, &known)
    })
}

/// Neither an endpoint of the config nor anything that can be asked.
pub(crate) fn unknown_name(config: &Config, name: &str) -> CliError {
    let endpoints = config.endpoints.iter().map(|endpoint| endpoint.name.as_str());
    unknown("endpoint or model", name, &endpoints.chain(config.names()).collect::<Vec<_>>())
}

/// A word that is none of those there are.
pub(crate) fn unknown(what: &str, word: &str, known: &[&str]) -> CliError {
    let near = nearest(word, known.iter().copied()).map(|near| format!("did you mean {near}? "));
    let hint = format!("{}known: {}", near.unwrap_or_default(), known.join(", "));
    CliError::usage(format!("unknown {what} `{word}`"), hint)
}
