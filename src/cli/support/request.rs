//! Defines the options of a request (prompt, files, preset, parameters, output) and builds the request from them.

use std::{
    num::NonZeroU64,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    time::Duration,
};

use clap::Args;
use strum::VariantNames as _;

use super::{completion::CompletionKind, error::unknown_value, prompt};

use crate::{
    cli::{CliError, Context},
    config::{
        Config, Flags, Preset, ResolvedSettings, parse_duration,
        preset::{PresetError, RenderedPreset},
    },
    model::{ChatRequest, Message, ModelRequest, Params, Part, Role},
    render::Format,
    term::output::{Streams, WriteError},
};

/// The options of a request. Options of the same help heading may be in different structs; the headings appear in the
/// order of their first option.
#[derive(Debug, Default, Args)]
pub(crate) struct RequestArgs {
    /// The prompt; words are joined with spaces, and - reads standard input
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    /// Attach a text file, an image (PNG, JPEG, WebP or GIF), or the URL of an image
    #[arg(short, long = "file", value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Prompt")]
    files: Vec<String>,
    /// Set the system prompt
    #[arg(short, long, value_name = "TEXT", help_heading = "Prompt")]
    system: Option<String>,
    /// Use a preset
    #[arg(short, long, value_name = "NAME", add = CompletionKind::Presets.completer(), help_heading = "Prompt")]
    preset: Option<String>,
    /// Set a variable of the preset
    #[arg(short = 'P', long = "variable", value_name = "NAME=VALUE", requires = "preset", help_heading = "Prompt")]
    variables: Vec<String>,
    /// Do not read standard input [env: MMCHAT_NO_STDIN]
    #[arg(long, help_heading = "Prompt")]
    no_stdin: bool,
    /// Fail if standard input sends nothing for this long; 0 waits without limit
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, help_heading = "Prompt")]
    stdin_timeout: Duration,
    #[command(flatten)]
    output_args: OutputArgs,
    #[command(flatten)]
    params: ParamArgs,
}

/// The parameters of a request.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ParamArgs {
    /// Set the sampling temperature
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Models")]
    temperature: Option<f64>,
    /// Set another parameter of the request; the value is sent as JSON if it is valid JSON, else as text
    #[arg(short, long = "option", value_name = "KEY=VALUE", help_heading = "Models")]
    options: Vec<String>,
    /// Limit the answer to this many tokens
    #[arg(
        long,
        value_name = "TOKENS",
        allow_negative_numbers = true,
        value_parser = parse_positive::<NonZeroU64>,
        help_heading = "Limits"
    )]
    max_tokens: Option<NonZeroU64>,
}

/// The options for how the answer is requested and written.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// Write the answer as text, markdown, json or jsonl [env: MMCHAT_FORMAT]
    #[arg(long, value_name = "FORMAT", add = CompletionKind::Formats.completer(), help_heading = "Output")]
    format: Option<String>,
    /// Write the answer to a file instead of stdout; - is stdout
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,
    /// Print Markdown unrendered, also on a terminal
    #[arg(long, help_heading = "Output")]
    pub(crate) raw: bool,
    /// Request the complete answer in one response instead of a stream
    #[arg(long, help_heading = "Output")]
    pub(crate) no_stream: bool,
    /// Limit the time of the complete answer, such as 90s or 5m [env: MMCHAT_TIMEOUT]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Limits")]
    timeout: Option<Duration>,
}

impl OutputArgs {
    /// Validates the resolved settings and returns the output format.
    pub(crate) fn check(settings: &ResolvedSettings) -> Result<Format, CliError> {
        if settings.timeout.value.is_some_and(|timeout| timeout.is_zero()) {
            return Err(CliError::usage(
                "invalid timeout 0: expected a duration such as 90s or 5m",
                "omit it for the default of 10 minutes",
            ));
        }
        parse_format(&settings.format.value)
    }

    /// The output file; `None` for stdout.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        self.output.as_ref().filter(|path| path.as_os_str() != "-")
    }

    /// The settings that these options override.
    pub(crate) fn flags(&self) -> Flags {
        Flags { format: self.format.clone(), timeout: self.timeout, ..Flags::default() }
    }
}

impl RequestArgs {
    /// For a request whose prompt is already known.
    pub(crate) fn from_output_args(output_args: &OutputArgs) -> Self {
        Self { output_args: output_args.clone(), ..Self::default() }
    }

    /// The output options.
    pub(crate) fn output_args(&self) -> &OutputArgs {
        &self.output_args
    }

    /// Whether Markdown is printed unrendered.
    pub(crate) fn raw(&self) -> bool {
        self.output_args.raw
    }

    /// Whether a streamed answer is requested.
    pub(crate) fn is_streaming(&self) -> bool {
        !self.output_args.no_stream
    }

    /// The settings that these options override.
    pub(crate) fn flags(&self) -> Flags {
        Flags { no_stdin: self.no_stdin, ..self.output_args.flags() }
    }

    /// Validates the options before any input is read or any request is sent.
    pub(crate) fn check(&self, settings: &ResolvedSettings) -> Result<Format, CliError> {
        self.params.params()?;
        OutputArgs::check(settings)
    }

    /// The preset of `--preset`.
    pub(crate) fn preset(
        &self,
        context: &Context,
        config: &Config,
        settings: &ResolvedSettings,
    ) -> Result<Option<Preset>, CliError> {
        self.preset.as_ref().map(|name| context.preset(config, settings, name)).transpose()
    }

    /// Reads the prompt and builds the request.
    pub(crate) fn build_request(
        &self,
        preset: Option<&Preset>,
        settings: &ResolvedSettings,
    ) -> Result<Arc<ModelRequest>, CliError> {
        let input = prompt::read(&prompt::PromptArgs {
            words: &self.words,
            files: &self.files,
            no_stdin: settings.no_stdin.value,
            stdin_timeout: Some(self.stdin_timeout).filter(|limit| !limit.is_zero()),
            // The template of a preset that uses its input reports an empty input.
            allow_empty: preset.is_some_and(|preset| preset.is_complete_without_input() || preset.uses_input()),
        })?;
        let overrides = self.params.params()?;
        let (system, text, params) = match preset {
            Some(preset) => {
                let rendered = render_preset(preset, input.text, self.variables()?)?;
                (rendered.system, rendered.prompt, preset.params.clone().with_overrides(overrides))
            }
            None => (None, input.text, overrides),
        };
        let system = self.system.clone().or(system).map(|text| Message::text(Role::System, text));
        let text = Some(text).filter(|text| !text.is_empty()).map(Part::Text);
        let parts = text.into_iter().chain(input.images.into_iter().map(Part::Image)).collect();
        let messages = system.into_iter().chain([Message { role: Role::User, parts }]).collect();
        Ok(Arc::new(ModelRequest::Chat(ChatRequest {
            messages,
            params,
            stream: self.is_streaming(),
            ..ChatRequest::default()
        })))
    }

    /// Whether the answer is written to a file.
    pub(crate) fn writes_to_file(&self) -> bool {
        self.output_args.file().is_some()
    }

    /// The output streams: the file, or stdout.
    pub(crate) fn streams(&self) -> Result<Streams, WriteError> {
        self.output_args.file().map_or_else(|| Ok(Streams::stdout()), |path| Streams::file(path))
    }

    fn variables(&self) -> Result<Vec<(String, String)>, CliError> {
        let parse_pair = |text: &String| match text.split_once('=').filter(|(name, _)| !name.is_empty()) {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(CliError::usage(format!("missing value in \"-P {text}\""), "write -P name=value")),
        };
        self.variables.iter().map(parse_pair).collect()
    }
}

/// Parses a number of a type that excludes 0, such as `NonZeroU64`.
pub(crate) fn parse_positive<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number, 1 or more".to_owned())
}

/// The fields of a request that `-o` cannot set, and what to use instead.
const RESERVED_FIELDS: [(&str, &str); 3] = [
    ("model", "use -m MODEL"),
    ("messages", "pass the prompt as an argument, and the system prompt with -s"),
    ("stream", "use --no-stream"),
];

impl ParamArgs {
    /// The parameters. A value of `-o` that is not valid JSON is text.
    pub(crate) fn params(&self) -> Result<Params, CliError> {
        let max_tokens = self.max_tokens.map(NonZeroU64::get);
        let mut params = Params { temperature: self.temperature, max_tokens, ..Params::default() };
        if self.temperature.is_some_and(|temperature| !temperature.is_finite() || temperature < 0.0) {
            return Err(CliError::usage("invalid --temperature: expected 0 or more", "most services accept 0 to 2"));
        }
        for option in &self.options {
            let Some((key, value)) = option.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(CliError::usage(format!("missing value in \"-o {option}\""), "write -o key=value"));
            };
            if let Some((_, instead)) = RESERVED_FIELDS.iter().find(|(field, _)| *field == key) {
                return Err(CliError::usage(format!("-o cannot set \"{key}\""), *instead));
            }
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            params.extra.insert(key.to_owned(), value);
        }
        Ok(params)
    }
}

/// Maximum time to render a template.
const TEMPLATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Renders the templates of the preset on a separate thread. The fuel limit of the template engine counts instructions
/// and cannot stop a single long one; after the timeout the thread is abandoned, and the process exits with an error.
fn render_preset(preset: &Preset, input: String, variables: Vec<(String, String)>) -> Result<RenderedPreset, CliError> {
    let (sender, receiver) = sync_channel(1);
    let (name, preset) = (preset.name.clone(), preset.clone());
    // Sending fails only after the timeout, when the receiver is gone.
    std::thread::spawn(move || drop(sender.send(preset.render(&input, &variables))));
    let timed_out = || {
        let reason = format!("it takes longer than {} s", TEMPLATE_TIMEOUT.as_secs());
        PresetError::Template { preset: name, part: "text", reason }
    };
    match receiver.recv_timeout(TEMPLATE_TIMEOUT) {
        Ok(rendered) => Ok(rendered?),
        Err(RecvTimeoutError::Timeout) => Err(timed_out().into()),
        Err(RecvTimeoutError::Disconnected) => panic!("the template thread panicked"),
    }
}

fn parse_format(name: &str) -> Result<Format, CliError> {
    name.parse().map_err(|_| unknown_value("format", name, Format::VARIANTS))
}
