//! `mmchat presets`: lists, shows and edits presets.

use std::{path::Path, process::Command};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::{
    CliError, Context,
    support::{
        completion::CompletionKind,
        config_input::validate_name,
        config_transaction::no_config_path,
        context::{preset_folder, read_text_file},
        exit::Exit,
        list_format::ListArgs,
    },
};
use crate::{
    config::{Flags, Preset},
    model::sanitize::sanitize,
    render::{Output, table::Table},
    store,
    term::output::{Streams, write_stderr},
};

/// The content of a new preset file.
const NEW_PRESET: &str = "# Usage: mmchat ask -p NAME \"…\". Variables are written {{ name }} and set with -P name=value;\n\
# {{ input }} is the prompt of the command line, with the files of -f and standard input.\n\n\
# model = \"chat\"\n# params = { temperature = 0.2 }\nsystem = \"You are brief.\"\nprompt = \"\"\"\n{{ input }}\n\"\"\"\n";

/// List, show or edit presets, the reusable prompts of -p
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mmchat presets list\n  \
    mmchat presets edit review\n  \
    git diff | mmchat ask -p review")]
pub(crate) struct PresetsArgs {
    #[command(subcommand)]
    command: PresetsCommand,
}

#[derive(Debug, Subcommand)]
enum PresetsCommand {
    /// List the presets with their models and variables
    #[command(after_help = "Examples:\n  \
        mmchat presets list\n  \
        mmchat presets list --format json")]
    List(ListArgs),
    /// Show a preset
    #[command(after_help = "Examples:\n  \
        mmchat presets show review")]
    Show {
        /// Preset to show
        #[arg(value_name = "NAME", add = CompletionKind::Presets.completer())]
        name: String,
    },
    /// Edit a preset in $VISUAL or $EDITOR; a new preset gets its own file
    #[command(after_help = "Examples:\n  \
        mmchat presets edit review\n  \
        EDITOR=nano mmchat presets edit review")]
    Edit {
        /// Preset to edit
        #[arg(value_name = "NAME", add = CompletionKind::Presets.completer())]
        name: String,
    },
}

pub(crate) fn run(args: &PresetsArgs, context: &Context) -> Result<Exit, CliError> {
    match &args.command {
        PresetsCommand::List(args) => list(args, context),
        PresetsCommand::Show { name } => show(name, context),
        PresetsCommand::Edit { name } => edit(name, context),
    }
}

fn list(args: &ListArgs, context: &Context) -> Result<Exit, CliError> {
    let (config, settings) = context.config(context.settings(Flags::default())?)?;
    let names = context.preset_names(&config, &settings);
    if names.is_empty() && args.is_text() {
        write_stderr("no presets; to create one, run \"mmchat presets edit NAME\"\n");
    }
    let mut table = Table::new(&["preset", "model", "variables", "location"]);
    let (mut document, mut exit) = (Vec::<Value>::new(), Exit::Ok);
    for name in names {
        let preset = match context.preset(&config, &settings, &name) {
            Ok(preset) => preset,
            Err(error) => {
                // Report an invalid preset and list the others.
                table.add_row(vec![name.clone(), String::new(), String::new(), "invalid".into()]);
                document.push(json!({"preset": name, "error": error.to_string()}));
                exit = error.report();
                continue;
            }
        };
        let location = preset.file.as_ref().map_or_else(|| "config".to_owned(), |path| path.display().to_string());
        let variables = preset.variables();
        document.push(json!({"preset": name, "model": preset.model, "variables": variables, "where": location}));
        table.add_row(vec![name, preset.model.unwrap_or_default(), variables.join(", "), location]);
    }
    args.print(context, &[table], &document.into())?;
    Ok(exit)
}

fn show(name: &str, context: &Context) -> Result<Exit, CliError> {
    let (config, settings) = context.config(context.settings(Flags::default())?)?;
    let preset = context.preset(&config, &settings, name)?;
    let text = match &preset.file {
        Some(path) => read_text_file(path)?,
        None => crate::config::show::preset_toml(&preset),
    };
    let is_terminal = context.terminal_info(&settings).stdout_width.is_some();
    Streams::stdout().write(&mut Output::data(if is_terminal { sanitize(&text) } else { text }))?;
    Ok(Exit::Ok)
}

/// Opens the file of the preset in the editor and validates it afterwards. The file is kept even if it is invalid.
fn edit(name: &str, context: &Context) -> Result<Exit, CliError> {
    let (config, settings) = context.config(context.settings(Flags::default())?)?;
    let name = validate_name(crate::config::NameKind::Other, name)?;
    let in_config = config.preset(&name).and_then(|_| {
        let layers = Context::layers(&context.environment, &settings).ok()?;
        layers.file_of_preset(&name).map(Path::to_owned)
    });
    let own_file = || preset_folder(&settings).map(|folder| folder.join(format!("{name}.toml")));
    let path = in_config.clone().or_else(own_file).ok_or_else(no_config_path)?;
    let editor = editor_command(context, &path)?;
    if !path.exists() {
        store::write_atomic(&path, NEW_PRESET)
            .map_err(|source| CliError::System { what: format!("cannot write {}", path.display()), source })?;
    }
    open_in_editor(&editor, &path, &name)?;
    if in_config.is_some() {
        context.config(context.settings(Flags::default())?)?;
    } else {
        Preset::from_file(&name, &read_text_file(&path)?, &path)?;
    }
    write_stderr(&format!("{} is valid\n", path.display()));
    Ok(Exit::Ok)
}

/// The editor command, from VISUAL or EDITOR.
fn editor_command(context: &Context, path: &Path) -> Result<String, CliError> {
    let editor = context.environment.get("VISUAL").or(context.environment.get("EDITOR"));
    let hint = || format!("set one of them, or edit {} directly", path.display());
    editor.map(str::to_owned).ok_or_else(|| CliError::usage("neither VISUAL nor EDITOR is set", hint()))
}

fn open_in_editor(editor: &str, path: &Path, preset: &str) -> Result<(), CliError> {
    // The command may have arguments, such as `code --wait`.
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or_default();
    let status = Command::new(program).args(words).arg(path).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CliError::usage(
            format!(
                "the editor \"{program}\" ended with {}, so the file was not checked",
                crate::model::describe_status(status)
            ),
            format!("run \"mmchat presets show {preset}\" to check it"),
        )),
        Err(source) => Err(CliError::System { what: format!("cannot run the editor \"{program}\""), source }),
    }
}
