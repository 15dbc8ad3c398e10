//! Warnings about the API keys of endpoints that cannot be used.

use crate::{
    cli::support::key_uses::{KeyUser, key_uses},
    config::Config,
    model::environment::Environment,
    transport::keys::KeyRing,
};

/// The keys of endpoints that cannot be used, as far as it is known without running a command or asking for access to the
/// keyring. The keys of clients are not checked: a server reads them when it starts.
pub(super) fn unusable_keys(environment: &Environment, config: &Config) -> Vec<String> {
    let ring = KeyRing::new(environment.clone());
    let endpoint_keys = key_uses(config).filter(|key| !matches!(key.user, KeyUser::Client(_)));
    let unusable = endpoint_keys.filter_map(|key| Some(format!("{}: {}", key.user, ring.check(key.source).err()?)));
    unusable.collect()
}
