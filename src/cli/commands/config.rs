//! `mmchat config`: where the config is, whether it is right, what is in force.

use clap::{Args, Subcommand};

use crate::cli::{
    CliError, Context,
    support::{config_transaction::no_place, exit::Exit},
};
use crate::{
    config::{self, ConfigError, Flags, effective::shown, file::ConfigFile},
    render::Output,
    term::output::{Streams, say},
};

/// Look at the config: where it is, whether it is right, what is in force
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the path of the config file
    Path,
    /// Check the config file and tell every problem in it
    Check,
    /// Print what is in force, each setting with its source, without secrets
    Show,
    /// Print the JSON schema of the config file
    Schema,
    Import(super::import::ImportArgs),
}

pub(crate) fn run(args: &ConfigArgs, context: &Context) -> Result<Exit, CliError> {
    let layers = || context.layers(Flags::default());
    let out = match &args.command {
        ConfigCommand::Path => path(&layers()?)?,
        ConfigCommand::Check => return check(context, &layers()?),
        ConfigCommand::Import(args) => return super::import::run(args, context),
        ConfigCommand::Show => {
            let (config, layers) = context.config(layers()?)?;
            warn(&config);
            shown(&config, &layers)
        }
        ConfigCommand::Schema => format!("{}\n", schema()),
    };
    Streams::stdout().put(&mut Output::data(out))?;
    Ok(Exit::Ok)
}

fn path(layers: &config::Layers) -> Result<String, CliError> {
    match &layers.config.value {
        Some(path) => Ok(format!("{}\n", path.display())),
        None => Err(no_place()),
    }
}

fn check(context: &Context, layers: &config::Layers) -> Result<Exit, CliError> {
    if Context::read(layers)?.is_none() {
        let path = layers.config.value.clone().unwrap_or_default();
        return Err(ConfigError::Read { path, reason: "there is no such file".into() }.into());
    }
    let (config, _) = context.config(layers.clone())?;
    warn(&config);
    say(&format!(
        "{}: {} endpoint(s), {} model(s), {} route(s), {} set(s), {} preset(s), no problems\n",
        config.path.as_deref().unwrap_or(std::path::Path::new("?")).display(),
        config.endpoints.len(),
        config.models.len(),
        config.routes.len(),
        config.sets.len(),
        config.presets.len(),
    ));
    Ok(Exit::Ok)
}

/// What is not wrong but should be known; said here and not with every answer.
fn warn(config: &config::Config) {
    for warning in &config.warnings {
        say(&format!("warning: {warning}\n"));
    }
}

/// The schema, as it is published.
fn schema() -> String {
    let schema = schemars::schema_for!(ConfigFile);
    serde_json::to_string_pretty(&schema).expect("a schema is JSON")
}
