//! `mmchat model`: names for models: add, remove, rename, and which one `ask` uses.

use clap::{Args, Subcommand};

use super::{init::questions, models::named_endpoint};
use crate::cli::{
    CliError, Context,
    support::{
        complete::Offer,
        config_input::new_name,
        config_transaction::Change,
        context::{preset_files, preset_folder, text_of},
        exit::Exit,
    },
};
use crate::{
    config::{Flags, Preset, direct_target, edit::NewModel, normalised, parse_duration},
    engine::plan,
    term::{output::say, prompt::can_ask},
};

/// Names for models: add, remove, rename, default
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    Add(AddArgs),
    Remove(RemoveArgs),
    /// Give a model another name, in its routes and sets too
    Rename {
        /// Its name now
        #[arg(value_name = "FROM", add = Offer::Models.completer())]
        from: String,
        /// Its new name
        #[arg(value_name = "TO")]
        to: String,
    },
    /// What `ask` uses when nothing is named: a model, a route or endpoint/id
    Default {
        /// Which
        #[arg(value_name = "NAME", add = Offer::Askable.completer())]
        name: String,
    },
}

/// Give a model of an endpoint a name; without one you are asked
#[derive(Debug, Args)]
#[command(
    after_help = "mmchat model add fast --endpoint openai --model gpt-4o-mini --price-input 0.15 --price-output 0.6"
)]
struct AddArgs {
    /// Your name for it
    #[arg(value_name = "NAME", requires_all = ["endpoint", "model"])]
    name: Option<String>,
    /// The endpoint that serves it
    #[arg(short, long, value_name = "ENDPOINT", add = Offer::Endpoints.completer())]
    endpoint: Option<String>,
    /// What the endpoint calls it
    #[arg(short, long, value_name = "ID")]
    model: Option<String>,
    /// A label, for compare --tag
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<String>,
    /// Tokens it reads and writes together
    #[arg(long, value_name = "TOKENS")]
    context: Option<u64>,
    /// Price of a million tokens of input
    #[arg(long, value_name = "AMOUNT", requires = "price_output")]
    price_input: Option<f64>,
    /// Price of a million tokens of output
    #[arg(long, value_name = "AMOUNT", requires = "price_input")]
    price_output: Option<f64>,
    /// How long the endpoint may take to list its models, when you are asked
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    timeout: std::time::Duration,
}

/// Remove a model
#[derive(Debug, Args)]
struct RemoveArgs {
    /// Which
    #[arg(value_name = "NAME", add = Offer::Models.completer())]
    name: String,
    /// From routes and sets, too; those that are empty then go with it
    #[arg(long)]
    everywhere: bool,
}

pub(crate) fn run(args: &ModelArgs, context: &Context) -> Result<Exit, CliError> {
    let done = match &args.command {
        ModelCommand::Add(args) => add(args, context)?,
        ModelCommand::Remove(args) => {
            let change = Change::begin(context)?;
            let gone = change.edit(|edit| edit.remove_model(&args.name, args.everywhere))?;
            warn_of_presets(&args.name, context)?;
            let with = if gone.is_empty() { String::new() } else { format!(" with {}", gone.join(", ")) };
            format!("removed {}{with}", args.name)
        }
        ModelCommand::Rename { from, to } => {
            let to = &new_name(to)?;
            Change::begin(context)?.edit(|edit| edit.rename_model(from, to))?;
            warn_of_presets(from, context)?;
            format!("{from} is now {to}")
        }
        ModelCommand::Default { name } => {
            let change = Change::begin(context)?;
            plan::check(&change.config()?, name)?;
            change.edit(|edit| {
                edit.set_default(name);
                Ok(())
            })?;
            format!("mmchat ask now asks {name}")
        }
    };
    say(&format!("{done}\n"));
    Ok(Exit::Ok)
}

/// Presets in files of their own are not changed with the config: those that still name the model are told.
fn warn_of_presets(model: &str, context: &Context) -> Result<(), CliError> {
    let folder = preset_folder(&context.layers(Flags::default())?).unwrap_or_default();
    for name in preset_files(&folder) {
        let path = folder.join(format!("{name}.toml"));
        let preset = text_of(&path).and_then(|text| Preset::from_file(&name, &text, &path));
        if preset.is_ok_and(|preset| preset.model.is_some_and(|named| normalised(&named) == normalised(model))) {
            say(&format!("warning: {} still names {model}\n", path.display()));
        }
    }
    Ok(())
}

fn add(args: &AddArgs, context: &Context) -> Result<String, CliError> {
    let new = match (&args.name, &args.endpoint, &args.model) {
        (Some(name), Some(endpoint), Some(model)) => NewModel {
            name: new_name(name)?,
            endpoint: endpoint.clone(),
            upstream: model.clone(),
            ..NewModel::default()
        },
        (None, ..) if can_ask() => ask(args, context)?,
        _ => {
            return Err(CliError::usage(
                "no name was given",
                "mmchat model add NAME --endpoint ENDPOINT --model ID, or at a terminal",
            ));
        }
    };
    let price = args.price_input.zip(args.price_output);
    let change = Change::begin(context)?;
    named_endpoint(&change.config()?, &new.endpoint)?;
    let new = NewModel { tags: args.tags.clone(), context: args.context, price, ..new };
    change.edit(|edit| edit.add_model(&new))?;
    Ok(format!("added {}: {}/{}\n  try it: mmchat ask -m {} \"hello\"", new.name, new.endpoint, new.upstream, new.name))
}

/// Asks for what the flags leave open.
fn ask(args: &AddArgs, context: &Context) -> Result<NewModel, CliError> {
    let config = Change::begin(context)?.config()?;
    let _restored = questions::Restored::when_interrupted()?;
    let endpoint = match &args.endpoint {
        Some(name) => named_endpoint(&config, name)?,
        None => questions::one_endpoint(&config)?,
    };
    let upstream = if let Some(model) = &args.model {
        model.clone()
    } else {
        let (engine, target) = (context.engine(), direct_target(endpoint, ""));
        let listed = context.runtime()?.block_on(engine.list_models(&target, args.timeout));
        questions::upstream_id(&endpoint.name, listed)?
    };
    let name = questions::model_name(&config, &upstream)?;
    Ok(NewModel { name, endpoint: endpoint.name.clone(), upstream, ..NewModel::default() })
}
