//! `mmchat presets`: prompts to be used again: list, show, edit.

use std::{path::Path, process::Command};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::{
    CliError, Context,
    support::{
        complete::Offer,
        config_transaction::no_place,
        context::{preset_folder, text_of},
        exit::Exit,
        list_format::ListArgs,
    },
};
use crate::{
    config::{Flags, Preset, is_name, normalised},
    render::{Output, table::Table},
    store,
    term::output::{Streams, say},
};

/// What a new preset begins with.
const NEW: &str = "# Used with: mmchat ask -p NAME \"…\". Variables are written {{ name }} and given with -P name=value;\n\
# {{ input }} is what follows on the command line, from -f and from standard input.\n\n\
# model = \"chat\"\n# params = { temperature = 0.2 }\nsystem = \"You are brief.\"\nprompt = \"\"\"\n{{ input }}\n\"\"\"\n";

/// Prompts to be used again with -p: list, show, edit
#[derive(Debug, Args)]
pub(crate) struct PresetsArgs {
    #[command(subcommand)]
    command: PresetsCommand,
}

#[derive(Debug, Subcommand)]
enum PresetsCommand {
    /// List them, with their variables
    List(ListArgs),
    /// Print one
    Show {
        /// Which
        #[arg(value_name = "NAME", add = Offer::Presets.completer())]
        name: String,
    },
    /// Open one in $VISUAL or $EDITOR; a new one gets a file of its own
    Edit {
        /// Which
        #[arg(value_name = "NAME", add = Offer::Presets.completer())]
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
    let (config, layers) = context.config(context.layers(Flags::default())?)?;
    let names = context.presets(&config, &layers);
    if names.is_empty() && args.is_text() {
        say("there are none; make one: mmchat presets edit NAME\n");
    }
    let mut table = Table::new(&["preset", "model", "variables", "where"]);
    let (mut document, mut exit) = (Vec::<Value>::new(), Exit::Ok);
    for name in names {
        let preset = match context.preset(&config, &layers, &name) {
            Ok(preset) => preset,
            Err(error) => {
                // One that is broken hides no other.
                table.row(vec![name.clone(), String::new(), String::new(), "broken".into()]);
                document.push(json!({"preset": name, "error": error.to_string()}));
                exit = error.report();
                continue;
            }
        };
        let place = preset.file.as_ref().map_or_else(|| "config".to_owned(), |path| path.display().to_string());
        let variables = preset.variables();
        document.push(json!({"preset": name, "model": preset.model, "variables": variables, "where": place}));
        table.row(vec![name, preset.model.unwrap_or_default(), variables.join(", "), place]);
    }
    args.print(context, &[table], &document.into())?;
    Ok(exit)
}

fn show(name: &str, context: &Context) -> Result<Exit, CliError> {
    let (config, layers) = context.config(context.layers(Flags::default())?)?;
    let preset = context.preset(&config, &layers, name)?;
    let text = match &preset.file {
        Some(path) => text_of(path)?,
        None => crate::config::effective::preset_text(&preset),
    };
    Streams::stdout().put(&mut Output::data(text))?;
    Ok(Exit::Ok)
}

/// Opens the file the preset is in and checks it afterwards: what was written stays, mistakes are told.
fn edit(name: &str, context: &Context) -> Result<Exit, CliError> {
    let (config, layers) = context.config(context.layers(Flags::default())?)?;
    let name = normalised(name);
    if !is_name(&name) {
        return Err(CliError::usage(
            format!("`{name}` cannot be a name"),
            "names are letters of any script, digits, `.`, `_` and `-`",
        ));
    }
    let in_config = config.preset(&name).and(config.path.clone());
    let own = || preset_folder(&layers).map(|folder| folder.join(format!("{name}.toml")));
    let path = in_config.clone().or_else(own).ok_or_else(no_place)?;
    let editor = editor(context, &path)?;
    if !path.exists() {
        store::replace(&path, NEW)
            .map_err(|source| CliError::System { what: format!("{} cannot be written", path.display()), source })?;
    }
    open(&editor, &path)?;
    if in_config.is_some() {
        context.config(context.layers(Flags::default())?)?;
    } else {
        Preset::from_file(&name, &text_of(&path)?, &path)?;
    }
    say(&format!("{} is good\n", path.display()));
    Ok(Exit::Ok)
}

/// The person's editor.
fn editor(context: &Context, path: &Path) -> Result<String, CliError> {
    let editor = context.environment.get("VISUAL").or(context.environment.get("EDITOR"));
    let hint = || format!("or open {} yourself", path.display());
    editor
        .map(str::to_owned)
        .ok_or_else(|| CliError::usage("neither VISUAL nor EDITOR says which editor to use", hint()))
}

fn open(editor: &str, path: &Path) -> Result<(), CliError> {
    // An editor may bring arguments of its own: `code --wait`.
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or_default();
    let status = Command::new(program).args(words).arg(path).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(CliError::usage(format!("the editor `{program}` ended with {status}"), "nothing was checked"))
        }
        Err(source) => Err(CliError::System { what: format!("the editor `{program}` could not be run"), source }),
    }
}
