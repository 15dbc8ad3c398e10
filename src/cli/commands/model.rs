//! `mmchat model`: adds, removes and renames the models of the config, and sets the default one.

use clap::{Args, Subcommand};

use super::{init::questions, models::find_endpoint};
use crate::cli::{
    CliError, Context,
    support::{
        completion::CompletionKind,
        config_input::validate_name,
        config_transaction::ConfigTransaction,
        context::{preset_file_names, preset_folder, read_text_file},
        exit::Exit,
        shell_word::shell_word,
        terminal_guard::TerminalGuard,
    },
};
use crate::{
    config::{Flags, NameKind, Preset, direct_target, edit::NewModel, normalize_name, parse_duration},
    engine::plan,
    term::{output::write_stderr, prompt::can_prompt},
};

/// Add, remove or rename models, or set the default one
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat model add fast --endpoint openai --model gpt-4o-mini\n  \
      mmchat model rename fast quick\n  \
      mmchat model default quick")]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    Add(AddArgs),
    Remove(RemoveArgs),
    /// Rename a model, also where the config refers to it
    #[command(after_help = "Examples:\n  \
      mmchat model rename gpt-4o-mini fast\n  \
      mmchat model rename fast fast-old")]
    Rename {
        /// Current name
        #[arg(value_name = "FROM", add = CompletionKind::Models.completer())]
        from: String,
        /// New name
        #[arg(value_name = "TO")]
        to: String,
    },
    /// Set the model or route that `mmchat ask` uses by default
    #[command(after_help = "Examples:\n  \
      mmchat model default chat\n  \
      mmchat model default openai/gpt-4o-mini")]
    Default {
        /// Model, route or endpoint/id
        #[arg(value_name = "NAME", add = CompletionKind::ModelsAndRoutes.completer())]
        name: String,
    },
}

/// Add a model of an endpoint, with questions if NAME is omitted
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat model add\n  \
      mmchat model add fast --endpoint openai --model gpt-4o-mini --tag cheap\n  \
      mmchat model add fast -e openai -m gpt-4o-mini --context 128000")]
struct AddArgs {
    /// Name of the new model
    #[arg(value_name = "NAME", requires_all = ["endpoint", "model"])]
    name: Option<String>,
    /// Set the endpoint that serves the model
    #[arg(short, long, value_name = "ENDPOINT", add = CompletionKind::Endpoints.completer(), help_heading = "Models")]
    endpoint: Option<String>,
    /// Set the ID of the model at the endpoint
    #[arg(short, long, value_name = "ID", help_heading = "Models")]
    model: Option<String>,
    /// Add a tag, for `mmchat compare --tag`
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',', help_heading = "Models")]
    tags: Vec<String>,
    /// Set the context window: input and output tokens together
    #[arg(long, value_name = "TOKENS", allow_negative_numbers = true, help_heading = "Models")]
    context: Option<u64>,
    /// Set the price of a million input tokens
    #[arg(
        long,
        value_name = "AMOUNT",
        allow_negative_numbers = true,
        requires = "price_output",
        help_heading = "Models"
    )]
    price_input: Option<f64>,
    /// Set the price of a million output tokens
    #[arg(
        long,
        value_name = "AMOUNT",
        allow_negative_numbers = true,
        requires = "price_input",
        help_heading = "Models"
    )]
    price_output: Option<f64>,
    /// Limit the time to list the endpoint's models when no model is given
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, help_heading = "Limits")]
    timeout: std::time::Duration,
}

/// Remove a model
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat model remove fast\n  \
      mmchat model remove fast --everywhere")]
struct RemoveArgs {
    /// Model to remove
    #[arg(value_name = "NAME", add = CompletionKind::Models.completer())]
    name: String,
    /// Also remove all references to it in the config, and the routes and sets left empty
    #[arg(long)]
    everywhere: bool,
}

pub(crate) fn run(args: &ModelArgs, context: &Context) -> Result<Exit, CliError> {
    let message = match &args.command {
        ModelCommand::Add(args) => add(args, context)?,
        ModelCommand::Remove(args) => {
            let transaction = ConfigTransaction::begin(context)?;
            let removed = transaction.edit(|editor| editor.remove_model(&args.name, args.everywhere))?;
            warn_about_presets(&args.name, context)?;
            let with = if removed.is_empty() { String::new() } else { format!(" with {}", removed.join(", ")) };
            format!("removed \"{}\"{with}", args.name)
        }
        ModelCommand::Rename { from, to } => {
            let to = &validate_name(NameKind::Model, to)?;
            ConfigTransaction::begin(context)?.edit(|editor| editor.rename_model(from, to))?;
            warn_about_presets(from, context)?;
            format!("renamed \"{from}\" to \"{to}\"")
        }
        ModelCommand::Default { name } => {
            let transaction = ConfigTransaction::begin(context)?;
            plan::check_name(&transaction.config()?, name)?;
            transaction.edit(|editor| {
                editor.set_default(name);
                Ok(())
            })?;
            format!("mmchat ask now uses \"{name}\"")
        }
    };
    write_stderr(&format!("{message}\n"));
    Ok(Exit::Ok)
}

/// Warns about preset files that still name the model, because only the config itself is edited.
fn warn_about_presets(model: &str, context: &Context) -> Result<(), CliError> {
    let folder = preset_folder(&context.settings(Flags::default())?).unwrap_or_default();
    for name in preset_file_names(&folder) {
        let path = folder.join(format!("{name}.toml"));
        let preset = read_text_file(&path).and_then(|text| Preset::from_file(&name, &text, &path));
        if preset.is_ok_and(|preset| preset.model.is_some_and(|named| normalize_name(&named) == normalize_name(model)))
        {
            write_stderr(&format!("warning: {} still names \"{model}\"\n", path.display()));
        }
    }
    Ok(())
}

fn add(args: &AddArgs, context: &Context) -> Result<String, CliError> {
    let new = match (&args.name, &args.endpoint, &args.model) {
        (Some(name), Some(endpoint), Some(model)) => NewModel {
            name: validate_name(NameKind::Model, name)?,
            endpoint: endpoint.clone(),
            upstream: model.clone(),
            ..NewModel::default()
        },
        (None, ..) if can_prompt() => prompt_for_model(args, context)?,
        _ => {
            return Err(CliError::usage(
                "missing model name",
                "run \"mmchat model add NAME --endpoint ENDPOINT --model ID\"",
            ));
        }
    };
    let price = args.price_input.zip(args.price_output);
    let transaction = ConfigTransaction::begin(context)?;
    find_endpoint(&transaction.config()?, &new.endpoint)?;
    let new = NewModel { tags: args.tags.clone(), context: args.context, price, ..new };
    transaction.edit(|editor| editor.add_model(&new))?;
    Ok(format!(
        "added \"{}\": {}/{}\n  try it: mmchat ask -m {} \"hello\"",
        new.name,
        new.endpoint,
        new.upstream,
        shell_word(&new.name)
    ))
}

/// Prompts for what the flags do not specify.
fn prompt_for_model(args: &AddArgs, context: &Context) -> Result<NewModel, CliError> {
    let config = ConfigTransaction::begin(context)?.config()?;
    let _guard = TerminalGuard::install()?;
    let endpoint = match &args.endpoint {
        Some(name) => find_endpoint(&config, name)?,
        None => questions::choose_endpoint(&config)?,
    };
    let upstream = if let Some(model) = &args.model {
        model.clone()
    } else {
        let (engine, target) = (context.stateless_engine(), direct_target(endpoint, ""));
        let listed = context.runtime()?.block_on(engine.list_models(&target, args.timeout));
        questions::prompt_upstream_id(&endpoint.name, listed)?
    };
    let name = questions::prompt_model_name(&config, &upstream)?;
    Ok(NewModel { name, endpoint: endpoint.name.clone(), upstream, ..NewModel::default() })
}
