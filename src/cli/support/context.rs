//! Provides what commands share: settings, config, engine and runtime.
//!
//! Each is created on first use, so that an invalid config does not break `completions` or `demo`.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    error::CliError,
    key_uses::{KeyUse, key_uses},
};

use crate::{
    cli::GlobalArgs,
    config::{
        Config, ConfigError, ConfigLayers, ConfigText, Flags, Preset, ResolvedSettings, SettingSource,
        exposed_key_warning, normalize_name,
    },
    engine::Engine,
    model::{api_key::KeySource, describe_error, endpoint::Endpoint, environment::Environment},
    render::TerminalInfo,
    routing::policies::Policies,
    store::{
        self,
        health::HealthFile,
        record::{Database, SqliteSpendLedger},
    },
    term::{self, output::write_stderr},
    transport::{
        http::HttpTransport,
        keys::{KeyRing, is_readable_by_others},
    },
};

/// Maximum size of a file that is written by hand.
const MAX_CONFIG_BYTES: usize = 4 * 1024 * 1024;

/// The environment and the global options of a command.
#[derive(Debug)]
pub(crate) struct Context {
    /// The environment variables.
    pub environment: Environment,
    global: GlobalArgs,
}

/// The folder of preset files: `presets` beside the config.
pub(crate) fn preset_folder(settings: &ResolvedSettings) -> Option<PathBuf> {
    Some(settings.config.value.as_ref()?.parent()?.join("presets"))
}

/// The sorted names of the presets in `folder`; empty if it does not exist.
pub(crate) fn preset_file_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(normalize_name(entry.file_name().to_str()?.strip_suffix(".toml")?))).collect();
    names.sort();
    names
}

/// Adds those of `more` that `names` does not contain yet.
pub(crate) fn extend_with_new(names: &mut Vec<String>, more: &[String]) {
    for name in more {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
}

/// Reads a text file of at most 4 MiB, such as the config.
pub(crate) fn read_text_file(path: &Path) -> Result<String, ConfigError> {
    let failed = |reason: String| ConfigError::Read { path: path.to_owned(), reason };
    let bytes = read_limited(path).map_err(|error| failed(describe_error(&error)))?;
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(failed("larger than 4 MiB".into()));
    }
    String::from_utf8(bytes).map_err(|_| failed("not valid UTF-8".into()))
}

/// Reads the file, at most one byte beyond the limit.
fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    // Checked before opening: opening a named pipe without a writer blocks.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_CONFIG_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The config file of the system, if it exists.
pub(crate) fn read_system_config(settings: &ResolvedSettings) -> Result<Option<ConfigText>, ConfigError> {
    read_config_text(settings.system_config.value.as_deref(), false)
}

fn read_config_text(path: Option<&Path>, must_exist: bool) -> Result<Option<ConfigText>, ConfigError> {
    let Some(path) = path else { return Ok(None) };
    if !must_exist && matches!(path.try_exists(), Ok(false)) {
        return Ok(None);
    }
    Ok(Some(ConfigText { path: path.to_owned(), text: read_text_file(path)? }))
}

impl Context {
    pub(crate) fn new(environment: Environment, global: GlobalArgs) -> Self {
        Self { environment, global }
    }

    /// The settings from the environment, the global options and `flags`.
    pub(crate) fn settings(&self, flags: Flags) -> Result<ResolvedSettings, ConfigError> {
        let config = self.global.config.clone().or(flags.config);
        let plain = self.global.plain || flags.plain;
        let mut settings = ResolvedSettings::new(&self.environment, &Flags { config, plain, ..flags })?;
        if self.global.verbose {
            settings.log.value = true;
            settings.log.source = SettingSource::Flag("--verbose");
        }
        Ok(settings)
    }

    /// The config from its layers, and the settings with the default model of the files.
    pub(crate) fn config(&self, settings: ResolvedSettings) -> Result<(Config, ResolvedSettings), ConfigError> {
        let (config, _, settings) = self.config_with_layers(settings)?;
        Ok((config, settings))
    }

    /// The same, with the layers.
    pub(crate) fn config_with_layers(
        &self,
        settings: ResolvedSettings,
    ) -> Result<(Config, ConfigLayers, ResolvedSettings), ConfigError> {
        let layers = Self::layers(&self.environment, &settings)?;
        let config = layers.resolve()?;
        if let Some(warning) = exposed_secret_warning(&config, &layers) {
            write_stderr(&format!("warning: {warning}\n"));
        }
        self.warn_about_renamed_keys(&config);
        let settings = settings.with_file_default(config.default.as_deref().filter(|_| !config.files.is_empty()));
        Ok((config, layers, settings))
    }

    /// The config files and the environment.
    pub(crate) fn layers(environment: &Environment, settings: &ResolvedSettings) -> Result<ConfigLayers, ConfigError> {
        Ok(ConfigLayers {
            system: read_system_config(settings)?,
            user: Self::read_config(settings)?,
            environment: environment.clone(),
        })
    }

    /// Warns about keys that a command sends unencrypted, once a day for each endpoint.
    pub(crate) fn warn_about_exposed_keys<'e>(&self, endpoints: impl IntoIterator<Item = &'e Arc<Endpoint>>) {
        for endpoint in endpoints {
            if let Some(warning) = exposed_key_warning(endpoint)
                && self.is_first_today("exposed-keys", &format!("{} {}", endpoint.name, endpoint.base_url))
            {
                write_stderr(&format!("warning: {warning}\n"));
            }
        }
    }

    /// Whether the warning `name` about `subject` was not shown today.
    fn is_first_today(&self, name: &str, subject: &str) -> bool {
        let cache = store::cache_folder(&self.environment);
        cache.is_none_or(|cache| store::daily_warning::claim_daily_warning(&cache, name, subject))
    }

    /// Warns about old spellings of config keys, once a day for each file.
    fn warn_about_renamed_keys(&self, config: &Config) {
        let (Some(first), Some(path)) = (config.renamed_keys.first(), config.files.last()) else { return };
        if self.is_first_today("renamed-keys", &path.to_string_lossy()) {
            write_stderr(&format!(
                "warning: {}: {first}; the old name still works\nhint: run \"mmchat config migrate\"\n",
                path.display()
            ));
        }
    }

    /// The config file of the user; `None` if the default file does not exist.
    fn read_config(settings: &ResolvedSettings) -> Result<Option<ConfigText>, ConfigError> {
        let is_explicit =
            matches!(settings.config.source, SettingSource::Flag(_) | SettingSource::Environment("MMCHAT_CONFIG"));
        read_config_text(settings.config.value.as_deref(), is_explicit)
    }

    /// The preset called `name`, from the config or from its own file beside it.
    pub(crate) fn preset(&self, config: &Config, settings: &ResolvedSettings, name: &str) -> Result<Preset, CliError> {
        let name = normalize_name(name);
        let file =
            preset_folder(settings).map(|folder| folder.join(format!("{name}.toml"))).filter(|path| path.is_file());
        match (config.preset(&name), file) {
            (Some(_), Some(file)) => Err(CliError::usage(
                format!("preset \"{name}\" is defined both in the config and in {}", file.display()),
                "rename or remove one of them",
            )),
            (Some(preset), None) => Ok(preset.clone()),
            (None, Some(file)) => Ok(Preset::from_file(&name, &read_text_file(&file)?, &file)?),
            (None, None) => {
                let known = self.preset_names(config, settings);
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                Err(super::error::unknown_value("preset", &name, &known))
            }
        }
    }

    /// The names of all presets.
    #[expect(clippy::unused_self, reason = "a method like the other accessors")]
    pub(crate) fn preset_names(&self, config: &Config, settings: &ResolvedSettings) -> Vec<String> {
        let mut names: Vec<String> = config.presets.iter().map(|preset| preset.name.clone()).collect();
        let files = preset_folder(settings).map(|folder| preset_file_names(&folder)).unwrap_or_default();
        extend_with_new(&mut names, &files);
        names
    }

    /// The terminal properties of stdout and stderr.
    pub(crate) fn terminal_info(&self, settings: &ResolvedSettings) -> TerminalInfo {
        term::detect_style(&self.environment, settings.plain.value)
    }

    /// An engine without the health state and the spend limits of earlier runs.
    pub(crate) fn stateless_engine(&self) -> Arc<Engine> {
        Arc::new(self.new_engine(Policies::default()))
    }

    /// The engine for `config`, with the health state of earlier runs and the spend limits. With `store_content`, error
    /// texts of services, which may quote a prompt, are stored for as long as prompts are.
    pub(crate) fn engine_for(&self, config: &Config, store_content: bool) -> Arc<Engine> {
        Arc::new(self.stateful_engine(config, store_content, config.policies.clone()))
    }

    /// The same for a command that sends requests repeatedly.
    #[cfg(any(feature = "chat", feature = "serve"))]
    pub(crate) fn long_lived_engine_for(&self, config: &Config, store_content: bool) -> Arc<Engine> {
        Arc::new(self.stateful_engine(config, store_content, config.policies.clone()).with_long_lived_process())
    }

    /// The same for a server. Its spend limits are in `ledger`, because they change with its config; the content of its
    /// clients' requests is never stored.
    #[cfg(feature = "serve")]
    pub(crate) fn server_engine(&self, config: &Config, ledger: Option<Arc<SqliteSpendLedger>>) -> Arc<Engine> {
        let unlimited = Config { spend: Vec::new(), ..config.clone() };
        let engine =
            self.stateful_engine(&unlimited, false, config.policies.clone().for_server()).with_long_lived_process();
        Arc::new(match ledger {
            Some(ledger) => engine.with_ledger(ledger),
            None => engine,
        })
    }

    fn stateful_engine(&self, config: &Config, store_content: bool, policies: Policies) -> Engine {
        let mut engine = self.new_engine(policies);
        let retention = match config.history.retention_days {
            _ if !store_content => Duration::ZERO,
            Some(days) => Duration::from_secs(u64::from(days) * 24 * 3600),
            None => Duration::MAX,
        };
        if let Some(state) = store::state_folder(&self.environment) {
            engine = engine.with_health(Arc::new(HealthFile::new(&state)), retention);
            if !config.spend.is_empty() {
                engine = engine
                    .with_ledger(Arc::new(SqliteSpendLedger::new(config.spend.clone(), Database::path_in(&state))));
            }
        }
        engine
    }

    fn new_engine(&self, policies: Policies) -> Engine {
        Engine::with_policies(Arc::new(HttpTransport::new()), KeyRing::new(self.environment.clone()), policies)
    }

    /// A single-threaded runtime, because a command mostly waits for the network.
    #[expect(clippy::unused_self, reason = "created on first use, like the rest")]
    pub(crate) fn runtime(&self) -> Result<tokio::runtime::Runtime, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| CliError::System { what: "cannot create the async runtime".into(), source })?;
        let guard = runtime.enter();
        term::signals::handle_file_size_signal();
        drop(guard);
        Ok(runtime)
    }
}

/// A warning if the user's config file contains a secret and other users can read it.
fn exposed_secret_warning(config: &Config, layers: &ConfigLayers) -> Option<String> {
    let user = layers.user.as_ref()?;
    // A secret of the system's file is not in the text of the user's file.
    let is_secret = |key: &KeyUse| matches!(key.source, KeySource::Literal(key) if key.is_secret() && user.text.contains(key.expose()));
    let secret = key_uses(config).find(is_secret)?;
    let exposed = std::fs::metadata(&user.path).is_ok_and(|metadata| is_readable_by_others(&metadata));
    exposed.then(|| {
        let path = user.path.display();
        format!("{path} contains a secret of {} and other users can read it: run \"chmod 600 {path}\"", secret.user)
    })
}
