//! `mmchat config import`: adds the endpoints, models, routes and keys of another tool's config to ours.
//!
//! Existing entries are kept, a name that is taken gets a number, and keys are stored in separate files. Either all
//! additions are written or none.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use strum::VariantNames as _;

use crate::cli::{
    CliError, Context,
    support::{
        config_transaction::ConfigTransaction,
        context::read_text_file,
        error::unknown_value,
        exit::Exit,
        key_uses::{key_file_names, unused_key_file},
    },
};
use crate::{
    config::{
        Config, Route,
        edit::{ConfigEditor, EditError, KeyRef, NewEndpoint, NewModel},
        template::key_file_path,
        unique_name,
    },
    import::{ImportError, ImportFormat, ImportedConfig, ImportedEndpoint, ImportedKey, ImportedModel, ImportedRoute},
    model::{
        api_key::{ApiKey, KeySource},
        endpoint::Endpoint,
        plural,
        sanitize::one_line,
    },
    term::{input, output::write_stderr},
    transport::keys::KeyRing,
};

/// Import endpoints, models and keys from another tool's config
#[derive(Debug, Args)]
#[command(
    after_help = "Reads Langchain-Chatchat (model_settings.yaml, or ONLINE_LLM_MODEL of model_config.py, which is \
    parsed and never run), a One-API or new-api list of channels (GET /api/channel/), config.yaml of LiteLLM and \
    aichat, extra-openai-models.yaml of llm, and NAME=VALUE lines such as .env. What cannot be imported is reported \
    with the reason.\n\n\
    Examples:\n  \
      mmchat config import ~/chatchat/model_settings.yaml\n  \
      mmchat config import ~/litellm/config.yaml --dry-run\n  \
      env | mmchat config import --from env -"
)]
pub(crate) struct ImportArgs {
    /// File to import, or - for standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Read the file as the config of this tool: langchain-chatchat, langchain-chatchat-python, one-api, litellm,
    /// aichat, llm or env [default: detected from the content]
    #[arg(long, value_name = "TOOL")]
    from: Option<String>,
    /// Print what would be added, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What the import adds.
#[derive(Default)]
struct Additions {
    /// The path of our config.
    config_path: PathBuf,
    /// The name of each imported endpoint in the imported file, and in our config.
    endpoint_names: Vec<(String, String)>,
    endpoints: Vec<NewEndpoint>,
    models: Vec<NewModel>,
    routes: Vec<ImportedRoute>,
    default: Option<String>,
    /// Keys to store in files, by file name.
    keys: Vec<(String, ApiKey)>,
    /// Imported entries that exist already.
    already_present: Vec<String>,
}

pub(crate) fn run(args: &ImportArgs, context: &Context) -> Result<Exit, CliError> {
    let text = read_input(&args.file)?;
    let format = select_format(args, &text)?;
    let imported = format.parse(&text).map_err(|error| parse_error(&error, format, args))?;
    let transaction = ConfigTransaction::open(context, args.dry_run)?;
    let ring = KeyRing::new(context.environment.clone());
    let additions = plan_additions(&imported, &transaction.config()?, &ring, transaction.path());
    let ((), text) = transaction.prepare(|editor| additions.apply(editor))?;
    transaction.check(&text)?;
    if !args.dry_run {
        // Keys are stored first: an unused key file is harmless, a reference to a missing one is not.
        for (name, key) in &additions.keys {
            transaction.write_key_file(name, key)?;
        }
        transaction.write(&text)?;
    }
    report(&imported, &additions, transaction.path(), args.dry_run);
    Ok(Exit::Ok)
}

fn read_input(file: &Path) -> Result<String, CliError> {
    if is_stdin(file) {
        return String::from_utf8(input::read(None)?)
            .map(|text| without_bom(&text))
            .map_err(|_| CliError::usage("standard input is not UTF-8 text", "convert it to UTF-8"));
    }
    let unreadable = |reason| CliError::usage(format!("cannot read {}: {reason}", file.display()), "check the path");
    match read_text_file(file) {
        Ok(text) => Ok(without_bom(&text)),
        Err(crate::config::ConfigError::Read { reason, .. }) => Err(unreadable(reason)),
        Err(other) => Err(other.into()),
    }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// The name of the imported file in messages.
fn input_name(file: &Path) -> String {
    if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() }
}

/// The error for a file that cannot be parsed.
fn parse_error(error: &ImportError, format: ImportFormat, args: &ImportArgs) -> CliError {
    let name = input_name(&args.file);
    let check_format = format!("check that {name} {}", format.requirement());
    let advice = match (error, &args.from) {
        (ImportError::Syntax(_), None) => format!("fix the syntax error in {name}"),
        (ImportError::Syntax(_), Some(_)) => format!("fix the syntax error, or {check_format}"),
        (ImportError::TooLarge(_), _) => format!("import a smaller part of {name}"),
        (ImportError::Content(_), None) => format!("{check_format}, or name another format with --from"),
        (ImportError::Content(_), Some(_)) => check_format,
    };
    CliError::usage(format!("cannot import {name}: {error}"), format!("{advice}; the mmchat config was not changed"))
}

/// Removes the byte order mark that some editors write.
fn without_bom(text: &str) -> String {
    text.trim_start_matches('\u{feff}').to_owned()
}

fn select_format(args: &ImportArgs, text: &str) -> Result<ImportFormat, CliError> {
    let names = ImportFormat::VARIANTS;
    match &args.from {
        Some(tool) => tool.parse().map_err(|_| unknown_value("tool", tool, names)),
        None => ImportFormat::detect(text).ok_or_else(|| {
            CliError::usage(
                format!("{} has no known format", input_name(&args.file)),
                format!("name the tool with --from; available: {}", names.join(", ")),
            )
        }),
    }
}

/// The parts of `imported` that are not in `config` yet, with names that are free there.
fn plan_additions(imported: &ImportedConfig, config: &Config, ring: &KeyRing, config_path: &Path) -> Additions {
    let mut additions = Additions { config_path: config_path.to_owned(), ..Additions::default() };
    let mut taken: Vec<String> = config.endpoints.iter().map(|existing| existing.name.clone()).collect();
    for endpoint in &imported.endpoints {
        let local_name = find_matching_endpoint(config, endpoint, ring).unwrap_or_else(|| {
            let name = unique_name(&endpoint.name, &taken);
            taken.push(name.clone());
            name
        });
        additions.endpoint_names.push((endpoint.name.clone(), local_name));
    }
    for endpoint in &imported.endpoints {
        let name = additions.local_endpoint_name(&endpoint.name);
        if config.endpoint(&name).is_none() {
            additions.add_endpoint(&name, endpoint, config, &taken);
        }
    }
    let mut taken: Vec<String> = config.names().map(str::to_owned).collect();
    let mut renamed: Vec<(String, String)> = Vec::new();
    for model in &imported.models {
        let name = additions.add_model(model, config, &mut taken);
        renamed.push((model.name.clone(), name));
    }
    for route in &imported.routes {
        let name = additions.add_route(route, config, &renamed, &mut taken);
        renamed.push((route.name.clone(), name));
    }
    let local_default = |default: &String| match default.split_once('/') {
        Some((endpoint, upstream)) => Some(format!("{}/{upstream}", additions.local_endpoint_name(endpoint))),
        None => renamed.iter().rev().find(|(theirs, _)| theirs == default).map(|(_, ours)| ours.clone()),
    };
    additions.default = imported.default.as_ref().filter(|_| config.default.is_none()).and_then(local_default);
    additions
}

/// A configured endpoint with the same address that has all keys of the imported one.
fn find_matching_endpoint(config: &Config, endpoint: &ImportedEndpoint, ring: &KeyRing) -> Option<String> {
    let url = crate::config::parse_base_url(&endpoint.base_url).ok()?;
    let is_same_url = |existing: &str| existing.trim_end_matches('/') == url.as_str().trim_end_matches('/');
    let is_same_key = |source: &KeySource, key: &ImportedKey| match key {
        ImportedKey::Env(variable) => *source == KeySource::Env(variable.clone()),
        ImportedKey::Literal(key) => ring.hash(source, "") == ring.hash(&KeySource::Literal(key.clone()), ""),
    };
    let has_all_keys = |existing: &Endpoint| {
        endpoint.keys.iter().all(|key| existing.keys.iter().any(|source| is_same_key(source, key)))
    };
    let matches = |existing: &&Arc<Endpoint>| is_same_url(existing.base_url.as_str()) && has_all_keys(existing);
    config.endpoints.iter().find(matches).map(|existing| existing.name.clone())
}

impl Additions {
    fn local_endpoint_name(&self, theirs: &str) -> String {
        let found = self.endpoint_names.iter().find(|(name, _)| name == theirs);
        found.map_or(theirs, |(_, ours)| ours).to_owned()
    }

    fn add_endpoint(&mut self, name: &str, endpoint: &ImportedEndpoint, config: &Config, names: &[String]) {
        let mut keys: Vec<KeyRef> = Vec::new();
        for key in &endpoint.keys {
            keys.push(match key {
                ImportedKey::Env(variable) => ("env", variable.clone()),
                ImportedKey::Literal(key) => {
                    // Never reuse a key file that another endpoint has or will have.
                    let mut taken = key_file_names(config);
                    taken.extend(names.iter().filter(|other| *other != name).cloned());
                    taken.extend(self.keys.iter().map(|(file, _)| file.clone()));
                    let file = unused_key_file(name, &taken, &self.config_path, key);
                    self.keys.push((file.clone(), key.clone()));
                    ("file", key_file_path(&file))
                }
            });
        }
        let base_url = Some(endpoint.base_url.clone());
        self.endpoints.push(NewEndpoint { name: name.to_owned(), base_url, keys, gateway: endpoint.gateway });
    }

    /// Adds a model unless one with the same endpoint and upstream id exists; returns its name.
    fn add_model(&mut self, model: &ImportedModel, config: &Config, taken: &mut Vec<String>) -> String {
        let endpoint = self.local_endpoint_name(&model.endpoint);
        let existing =
            config.models.iter().find(|other| other.endpoint.name == endpoint && other.upstream_id == model.upstream);
        if let Some(existing) = existing {
            self.already_present.push(format!("model \"{}\"", existing.id));
            return existing.id.0.clone();
        }
        let added = self.models.iter().find(|other| other.endpoint == endpoint && other.upstream == model.upstream);
        if let Some(added) = added {
            return added.name.clone();
        }
        let name = unique_name(&model.name, taken);
        taken.push(name.clone());
        self.models.push(NewModel {
            name: name.clone(),
            endpoint,
            upstream: model.upstream.clone(),
            tags: Vec::new(),
            context: model.context,
            price: model.price,
            params: model.params.clone(),
        });
        name
    }

    /// Adds a route unless one with the same models exists; returns its name.
    fn add_route(
        &mut self,
        route: &ImportedRoute,
        config: &Config,
        renamed: &[(String, String)],
        taken: &mut Vec<String>,
    ) -> String {
        let mut models: Vec<(String, u32)> = Vec::new();
        for (theirs, weight) in &route.models {
            let ours = renamed.iter().find(|(name, _)| name == theirs).map(|(_, ours)| ours.clone());
            let new = ours.filter(|name| models.iter().all(|(other, _)| other != name));
            models.extend(new.map(|name| (name, *weight)));
        }
        let has_same_models =
            |route: &&Route| route.models.iter().map(|model| &model.id.0).eq(models.iter().map(|(name, _)| name));
        if let Some(existing) = config.routes.iter().find(has_same_models) {
            self.already_present.push(format!("route \"{}\"", existing.name));
            return existing.name.clone();
        }
        let name = unique_name(&route.name, taken);
        taken.push(name.clone());
        self.routes.push(ImportedRoute { name: name.clone(), models, strategy: route.strategy });
        name
    }

    fn apply(&self, editor: &mut ConfigEditor) -> Result<(), EditError> {
        self.endpoints.iter().try_for_each(|endpoint| editor.add_endpoint(endpoint))?;
        self.models.iter().try_for_each(|model| editor.add_model(model))?;
        for ImportedRoute { name, models, strategy } in &self.routes {
            editor.add_route(name, models, Some(*strategy).filter(|strategy| *strategy != "priority"))?;
        }
        if let Some(default) = &self.default {
            editor.set_default(default);
        }
        Ok(())
    }
}

/// Replaces the imported endpoint name at the end of an advice with the name of the endpoint in our config.
fn localize_advice(advice: &str, additions: &Additions) -> String {
    let localized = additions.endpoint_names.iter().find_map(|(theirs, ours)| {
        let start = advice.strip_suffix(theirs.as_str()).filter(|start| start.ends_with(' '))?;
        Some(format!("{start}{ours}"))
    });
    localized.unwrap_or_else(|| advice.to_owned())
}

fn report(imported: &ImportedConfig, additions: &Additions, path: &Path, dry_run: bool) {
    let verb = if dry_run { "would add" } else { "added" };
    for NewEndpoint { name, base_url, keys, .. } in &additions.endpoints {
        let keys: Vec<String> = keys.iter().map(|(kind, value)| format!("{kind} {value}")).collect();
        let keys = if keys.is_empty() { "no key".to_owned() } else { keys.join(", ") };
        let address = base_url.as_deref().and_then(|url| crate::config::parse_base_url(url).ok());
        let address = address.map(|url| crate::model::api_key::redact_url(&url)).unwrap_or_default();
        write_stderr(&format!("{verb} endpoint \"{name}\": {address} ({keys})\n"));
    }
    for model in &additions.models {
        write_stderr(&format!("{verb} model \"{}\": {}/{}\n", model.name, model.endpoint, one_line(&model.upstream)));
    }
    for ImportedRoute { name, models, strategy } in &additions.routes {
        let models: Vec<&str> = models.iter().map(|(model, _)| model.as_str()).collect();
        write_stderr(&format!("{verb} route \"{name}\" ({strategy}): {}\n", models.join(", ")));
    }
    if let Some(default) = &additions.default {
        write_stderr(&format!("{verb} default \"{default}\"\n"));
    }
    for existing in &additions.already_present {
        write_stderr(&format!("{existing} already exists\n"));
    }
    for entry in &imported.skipped {
        let reason = localize_advice(&entry.reason, additions);
        write_stderr(&format!("skipped: {}: {}\n", one_line(&entry.item), one_line(&reason)));
    }
    let totals = format!(
        "{}, {}, {}, {}; {} skipped",
        plural(additions.endpoints.len(), "endpoint"),
        plural(additions.models.len(), "model"),
        plural(additions.routes.len(), "route"),
        plural(additions.keys.len(), "key file"),
        imported.skipped.len()
    );
    write_stderr(&if dry_run {
        format!("{totals}; nothing was written\n")
    } else {
        format!("{totals}; written to {}\n", path.display())
    });
}
