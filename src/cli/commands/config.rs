//! `mmchat config`: checks the config, prints its path, effective settings and schema, imports other tools' configs.

use clap::{Args, Subcommand};

use crate::cli::{
    CliError, Context,
    support::{
        config_transaction::{ConfigTransaction, no_config_path},
        exit::Exit,
    },
};
use crate::{
    config::{self, ConfigError, Flags, Origins, renamed_keys::replace_renamed_keys, show::effective_toml},
    model::plural,
    render::Output,
    term::output::{Streams, write_stderr},
};

/// Show, check, import or migrate the config, or print its path or schema
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat config check\n  \
      mmchat --config team.toml config show\n  \
      mmchat config import ~/litellm/config.yaml --dry-run")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show the effective settings and config, without secrets
    #[command(after_help = "Layers, later ones win: defaults, the system's config file, the config file of the user, \
    environment variables, options. An endpoint, model, route, set, preset or client key of the user replaces the \
    whole entry of the system with this name.\n\n\
    Examples:\n  \
      mmchat config show --origin\n  \
      mmchat --config team.toml config show")]
    Show(ShowArgs),
    /// Check the config file and list every problem in it
    #[command(after_help = "Exit code 3: the config has problems.\n\n\
    Examples:\n  \
      mmchat config check\n  \
      mmchat --config team.toml config check")]
    Check,
    /// Print the path of the config file
    #[command(after_help = "Examples:\n  \
      mmchat config path\n  \
      $EDITOR \"$(mmchat config path)\"")]
    Path,
    #[cfg(feature = "import")]
    Import(super::import::ImportArgs),
    /// Replace the old names of renamed config keys, and keep a copy of the old file
    #[command(after_help = "Examples:\n  \
      mmchat config migrate --dry-run\n  \
      mmchat config migrate")]
    Migrate(MigrateArgs),
    /// Print the JSON schema of the config file
    #[cfg(feature = "schema")]
    #[command(after_help = "Examples:\n  \
      mmchat config schema\n  \
      mmchat config schema > ~/.config/mmchat/schema.json")]
    Schema,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Show the origin of each value: file and line, variable, option or default
    #[arg(long)]
    origin: bool,
}

#[derive(Debug, Args)]
struct MigrateArgs {
    /// Print the new text of the file, and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &ConfigArgs, context: &Context) -> Result<Exit, CliError> {
    let settings = || context.settings(Flags::default());
    let out = match &args.command {
        ConfigCommand::Path => config_path_line(&settings()?)?,
        ConfigCommand::Check => return check(context, &settings()?),
        ConfigCommand::Migrate(args) => return migrate(args, context),
        #[cfg(feature = "import")]
        ConfigCommand::Import(args) => return super::import::run(args, context),
        ConfigCommand::Show(args) => {
            let (config, layers, settings) = context.config_with_layers(settings()?)?;
            print_warnings(&config);
            effective_toml(&config, &settings, args.origin.then(|| Origins::new(&layers)).as_ref())
        }
        #[cfg(feature = "schema")]
        ConfigCommand::Schema => format!("{}\n", schema()),
    };
    Streams::stdout().write(&mut Output::data(out))?;
    Ok(Exit::Ok)
}

fn config_path_line(settings: &config::ResolvedSettings) -> Result<String, CliError> {
    match &settings.config.value {
        Some(path) => Ok(format!("{}\n", path.display())),
        None => Err(no_config_path()),
    }
}

fn check(context: &Context, settings: &config::ResolvedSettings) -> Result<Exit, CliError> {
    let (config, _) = context.config(settings.clone())?;
    if config.files.is_empty() {
        let path = settings.config.value.clone().unwrap_or_default();
        return Err(ConfigError::Read { path, reason: "no such file or directory".into() }.into());
    }
    print_warnings(&config);
    let files: Vec<_> = config.files.iter().map(|file| file.display().to_string()).collect();
    write_stderr(&format!(
        "{}: {}, {}, {}, {}, {}, no problems\n",
        files.join(", "),
        plural(config.endpoints.len(), "endpoint"),
        plural(config.models.len(), "model"),
        plural(config.routes.len(), "route"),
        plural(config.sets.len(), "set"),
        plural(config.presets.len(), "preset"),
    ));
    Ok(Exit::Ok)
}

fn migrate(args: &MigrateArgs, context: &Context) -> Result<Exit, CliError> {
    let transaction = ConfigTransaction::open(context, args.dry_run)?;
    if !transaction.exists() {
        let path = transaction.path().to_owned();
        return Err(ConfigError::Read { path, reason: "no such file or directory".into() }.into());
    }
    let renamed_keys = transaction.config()?.renamed_keys;
    let text = replace_renamed_keys(transaction.original(), &renamed_keys);
    if args.dry_run {
        Streams::stdout().write(&mut Output::data(config::without_keys(&text)))?;
        return Ok(Exit::Ok);
    }
    if renamed_keys.is_empty() {
        write_stderr(&format!("{}: no renamed config keys\n", transaction.path().display()));
        return Ok(Exit::Ok);
    }
    transaction.check(&text)?;
    let backup = transaction.back_up()?;
    transaction.write(&text)?;
    for key in &renamed_keys {
        write_stderr(&format!("{key}\n"));
    }
    if let Some(backup) = backup {
        write_stderr(&format!("the old file was saved as {}\n", backup.display()));
    }
    Ok(Exit::Ok)
}

/// Prints the warnings of the config. Only `config` and `serve` do so: repeated by every command, they would be noise.
fn print_warnings(config: &config::Config) {
    for warning in &config.warnings {
        write_stderr(&format!("warning: {warning}\n"));
    }
}

/// The JSON schema of the config file.
#[cfg(feature = "schema")]
fn schema() -> String {
    let schema = schemars::schema_for!(config::file::ConfigFile);
    serde_json::to_string_pretty(&schema).expect("a schema serializes to JSON")
}
