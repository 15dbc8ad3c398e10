//! `mmchat config import`: what another tool's configuration names, added to ours.
//!
//! Owns the merging: what is there stays, names that are taken get a number, keys go to files of their own. All of it is
//! written, or nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use crate::cli::{
    CliError, Context,
    support::{config_transaction::Change, context::text_of, exit::Exit, request::unknown},
};
use crate::{
    config::{
        Config, Route,
        edit::{Edit, EditError, KeyPlace, NewEndpoint, NewModel},
        template::key_file,
    },
    import::{ImportFormat, Imported, ImportedEndpoint, ImportedKey, ImportedModel, ImportedRoute, free},
    model::{
        api_key::{ApiKey, KeySource},
        endpoint::Endpoint,
        sanitize::one_line,
    },
    term::{input, output::say},
    transport::keys::KeyRing,
};

/// Add what another tool's configuration names: services, models, keys
#[derive(Debug, Args)]
#[command(
    after_help = "Reads Langchain-Chatchat (model_settings.yaml, or ONLINE_LLM_MODEL of model_config.py: read, never run), a\n\
    One-API or new-api list of channels (GET /api/channel/), LiteLLM's and aichat's config.yaml, llm's\n\
    extra-openai-models.yaml, and NAME=VALUE lines such as .env. What does not map is told, with the reason.\n\n\
    mmchat config import ~/chatchat/model_settings.yaml\n\
    env | mmchat config import --from env -"
)]
pub(crate) struct ImportArgs {
    /// The file; -: standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Whose it is, if that does not show: langchain-chatchat, langchain-chatchat-python, one-api, litellm, aichat, llm, env
    #[arg(long, value_name = "TOOL")]
    from: Option<String>,
    /// Tell what would be added, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Where every key is, and every value of a header.
pub(crate) fn sources(config: &Config) -> impl Iterator<Item = &KeySource> {
    config
        .endpoints
        .iter()
        .flat_map(|endpoint| endpoint.keys.iter().chain(endpoint.headers.iter().map(|(_, source)| source)))
}

/// The names of the files that hold keys of the config's endpoints.
pub(crate) fn key_files(config: &Config) -> Vec<String> {
    let name = |source: &KeySource| match source {
        KeySource::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        _ => None,
    };
    sources(config).filter_map(name).collect()
}

/// What is to be added.
#[derive(Default)]
struct Additions {
    /// What the file's endpoints are called here.
    named: Vec<(String, String)>,
    endpoints: Vec<NewEndpoint>,
    models: Vec<NewModel>,
    routes: Vec<ImportedRoute>,
    default: Option<String>,
    /// Keys that go to files, by name.
    keys: Vec<(String, ApiKey)>,
    /// What was there already.
    known: Vec<String>,
}

pub(crate) fn run(args: &ImportArgs, context: &Context) -> Result<Exit, CliError> {
    let text = read(&args.file)?;
    let format = format(args, &text)?;
    let imported = format.read(&text).map_err(|error| {
        CliError::usage(
            format!("{} cannot be imported: {error}", args.file.display()),
            "nothing was changed; --from says whose it is",
        )
    })?;
    let change = Change::begin(context)?;
    let ring = KeyRing::new(context.environment.clone());
    let additions = additions(&imported, &change.config()?, &ring);
    let ((), text) = change.edited(|edit| additions.make(edit))?;
    change.check(&text)?;
    if !args.dry_run {
        // A key that nobody names yet does no harm; a config that names a key which is not there does.
        for (name, key) in &additions.keys {
            change.keep_key(name, key)?;
        }
        change.write(&text)?;
    }
    report(&imported, &additions, change.path(), args.dry_run);
    Ok(Exit::Ok)
}

fn read(file: &Path) -> Result<String, CliError> {
    if file.as_os_str() == "-" {
        return String::from_utf8(input::read(None)?)
            .map(|text| unmarked(&text))
            .map_err(|_| CliError::usage("standard input is no UTF-8 text", "nothing was changed"));
    }
    let unreadable =
        |reason| CliError::usage(format!("{} cannot be read: {reason}", file.display()), "nothing was changed");
    match text_of(file) {
        Ok(text) => Ok(unmarked(&text)),
        Err(crate::config::ConfigError::Read { reason, .. }) => Err(unreadable(reason)),
        Err(other) => Err(other.into()),
    }
}

/// Without what some editors put in front of a text: it is no part of it.
fn unmarked(text: &str) -> String {
    text.trim_start_matches('\u{feff}').to_owned()
}

fn format(args: &ImportArgs, text: &str) -> Result<ImportFormat, CliError> {
    let names = ImportFormat::NAMES.map(|(name, _)| name);
    match &args.from {
        Some(wanted) => match ImportFormat::NAMES.iter().find(|(name, _)| name == wanted) {
            Some((_, format)) => Ok(*format),
            None => Err(unknown("tool", wanted, &names)),
        },
        None => ImportFormat::guess(text).ok_or_else(|| {
            CliError::usage(
                format!("{} looks like none of: {}", args.file.display(), names.join(", ")),
                "say --from TOOL",
            )
        }),
    }
}

/// What of `imported` is not in `config` yet, under names that are free there.
fn additions(imported: &Imported, config: &Config, ring: &KeyRing) -> Additions {
    let mut additions = Additions::default();
    let mut taken: Vec<String> = config.endpoints.iter().map(|known| known.name.clone()).collect();
    for endpoint in &imported.endpoints {
        let ours = existing(config, endpoint, ring).unwrap_or_else(|| {
            let name = free(&endpoint.name, &taken);
            taken.push(name.clone());
            name
        });
        additions.named.push((endpoint.name.clone(), ours));
    }
    for endpoint in &imported.endpoints {
        let name = additions.endpoint_named(&endpoint.name);
        if config.endpoint(&name).is_none() {
            additions.endpoint(&name, endpoint, config, &taken);
        }
    }
    let mut taken: Vec<String> = config.names().map(str::to_owned).collect();
    let mut renamed: Vec<(String, String)> = Vec::new();
    for model in &imported.models {
        let name = additions.model(model, config, &mut taken);
        renamed.push((model.name.clone(), name));
    }
    for route in &imported.routes {
        let name = additions.route(route, config, &renamed, &mut taken);
        renamed.push((route.name.clone(), name));
    }
    let named = |wanted: &String| match wanted.split_once('/') {
        Some((endpoint, upstream)) => Some(format!("{}/{upstream}", additions.endpoint_named(endpoint))),
        None => renamed.iter().rev().find(|(theirs, _)| theirs == wanted).map(|(_, ours)| ours.clone()),
    };
    additions.default = imported.default.as_ref().filter(|_| config.default.is_none()).and_then(named);
    additions
}

/// An endpoint of ours at the same address that has every key it is brought.
fn existing(config: &Config, endpoint: &ImportedEndpoint, ring: &KeyRing) -> Option<String> {
    let url = crate::config::base_url(&endpoint.base_url).ok()?;
    let same = |known: &str| known.trim_end_matches('/') == url.as_str().trim_end_matches('/');
    let has = |known: &KeySource, key: &ImportedKey| match key {
        ImportedKey::Env(variable) => *known == KeySource::Env(variable.clone()),
        ImportedKey::Literal(key) => ring.hash(known, "") == ring.hash(&KeySource::Literal(key.clone()), ""),
    };
    let has_all = |known: &Endpoint| endpoint.keys.iter().all(|key| known.keys.iter().any(|source| has(source, key)));
    let fits = |known: &&Arc<Endpoint>| same(known.base_url.as_str()) && has_all(known);
    config.endpoints.iter().find(fits).map(|known| known.name.clone())
}

impl Additions {
    fn endpoint_named(&self, theirs: &str) -> String {
        let known = self.named.iter().find(|(name, _)| name == theirs);
        known.map_or(theirs, |(_, ours)| ours).to_owned()
    }

    fn endpoint(&mut self, name: &str, endpoint: &ImportedEndpoint, config: &Config, names: &[String]) {
        let mut keys: Vec<KeyPlace> = Vec::new();
        for key in &endpoint.keys {
            keys.push(match key {
                ImportedKey::Env(variable) => ("env", variable.clone()),
                ImportedKey::Literal(key) => {
                    // A file that another endpoint has, or will have, is not this one's to replace.
                    let mut taken = key_files(config);
                    taken.extend(names.iter().filter(|other| *other != name).cloned());
                    taken.extend(self.keys.iter().map(|(file, _)| file.clone()));
                    let file = free(name, &taken);
                    self.keys.push((file.clone(), key.clone()));
                    ("file", key_file(&file))
                }
            });
        }
        let base_url = Some(endpoint.base_url.clone());
        self.endpoints.push(NewEndpoint { name: name.to_owned(), base_url, keys, gateway: endpoint.gateway });
    }

    /// Adds a model, unless there is one that asks the same; its name.
    fn model(&mut self, model: &ImportedModel, config: &Config, taken: &mut Vec<String>) -> String {
        let endpoint = self.endpoint_named(&model.endpoint);
        let ours =
            config.models.iter().find(|known| known.endpoint.name == endpoint && known.upstream == model.upstream);
        if let Some(known) = ours {
            self.known.push(format!("model {}", known.id));
            return known.id.0.clone();
        }
        let new = self.models.iter().find(|known| known.endpoint == endpoint && known.upstream == model.upstream);
        if let Some(known) = new {
            return known.name.clone();
        }
        let name = free(&model.name, taken);
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

    /// Adds a route, unless there is one of the same models; its name.
    fn route(
        &mut self,
        route: &ImportedRoute,
        config: &Config,
        renamed: &[(String, String)],
        taken: &mut Vec<String>,
    ) -> String {
        let mut models: Vec<(String, u32)> = Vec::new();
        for (theirs, weight) in &route.models {
            let ours = renamed.iter().find(|(name, _)| name == theirs).map(|(_, ours)| ours.clone());
            let new = ours.filter(|name| models.iter().all(|(known, _)| known != name));
            models.extend(new.map(|name| (name, *weight)));
        }
        let same =
            |known: &&Route| known.models.iter().map(|model| &model.id.0).eq(models.iter().map(|(name, _)| name));
        if let Some(known) = config.routes.iter().find(same) {
            self.known.push(format!("route {}", known.name));
            return known.name.clone();
        }
        let name = free(&route.name, taken);
        taken.push(name.clone());
        self.routes.push(ImportedRoute { name: name.clone(), models, strategy: route.strategy });
        name
    }

    fn make(&self, edit: &mut Edit) -> Result<(), EditError> {
        self.endpoints.iter().try_for_each(|endpoint| edit.add_endpoint(endpoint))?;
        self.models.iter().try_for_each(|model| edit.add_model(model))?;
        for ImportedRoute { name, models, strategy } in &self.routes {
            edit.add_route(name, models, Some(*strategy).filter(|strategy| *strategy != "priority"))?;
        }
        if let Some(default) = &self.default {
            edit.set_default(default);
        }
        Ok(())
    }
}

/// Advice names endpoints as the file does: it ends in the name, which may be another here.
fn advised(why: &str, additions: &Additions) -> String {
    let renamed = additions.named.iter().find_map(|(theirs, ours)| {
        let start = why.strip_suffix(theirs.as_str()).filter(|start| start.ends_with(' '))?;
        Some(format!("{start}{ours}"))
    });
    renamed.unwrap_or_else(|| why.to_owned())
}

fn report(imported: &Imported, additions: &Additions, path: &Path, dry_run: bool) {
    let verb = if dry_run { "would add" } else { "added" };
    for NewEndpoint { name, base_url, keys, .. } in &additions.endpoints {
        let keys: Vec<String> = keys.iter().map(|(kind, place)| format!("{kind} {place}")).collect();
        let keys = if keys.is_empty() { "no key".to_owned() } else { keys.join(", ") };
        let address = base_url.as_deref().and_then(|url| crate::config::base_url(url).ok());
        let address = address.map(|url| crate::model::api_key::masked_url(&url)).unwrap_or_default();
        say(&format!("{verb} endpoint {name}: {address} ({keys})\n"));
    }
    for model in &additions.models {
        say(&format!("{verb} model {}: {}/{}\n", model.name, model.endpoint, one_line(&model.upstream)));
    }
    for ImportedRoute { name, models, strategy } in &additions.routes {
        let models: Vec<&str> = models.iter().map(|(model, _)| model.as_str()).collect();
        say(&format!("{verb} route {name} ({strategy}): {}\n", models.join(", ")));
    }
    if let Some(default) = &additions.default {
        say(&format!("{verb} default: {default}\n"));
    }
    for known in &additions.known {
        say(&format!("{known} is there already\n"));
    }
    for left_out in &imported.left_out {
        let why = advised(&left_out.why, additions);
        say(&format!("left out: {}: {}\n", one_line(&left_out.what), one_line(&why)));
    }
    let sums = format!(
        "{} endpoint(s), {} model(s), {} route(s), {} key file(s); {} left out",
        additions.endpoints.len(),
        additions.models.len(),
        additions.routes.len(),
        additions.keys.len(),
        imported.left_out.len()
    );
    say(&if dry_run {
        format!("{sums}; nothing was written\n")
    } else {
        format!("{sums}; written to {}\n", path.display())
    });
}
