//! Warnings about keys that cannot be used, or that others can read.

use std::path::Path;

use crate::{
    cli::support::key_uses::{KeyUser, key_uses},
    config::Config,
    model::environment::Environment,
    transport::keys::{KeyRing, is_readable_by_all},
};

/// Warnings about the API keys of endpoints and the key of the TLS certificate, as far as they are known without running a
/// command or asking for access to the keyring. The keys of clients are not checked: a server reads them when it starts.
pub(super) fn key_warnings(environment: &Environment, config: &Config) -> Vec<String> {
    let ring = KeyRing::new(environment.clone());
    let endpoint_keys = key_uses(config).filter(|key| !matches!(key.user, KeyUser::Client(_)));
    let unusable = endpoint_keys.filter_map(|key| Some(format!("{}: {}", key.user, ring.check(key.source).err()?)));
    let exposed = config.serve.tls.iter().filter_map(|(_, key)| exposed_key_warning(key));
    unusable.chain(exposed).collect()
}

fn exposed_key_warning(key: &Path) -> Option<String> {
    let is_exposed = std::fs::metadata(key).is_ok_and(|metadata| is_readable_by_all(&metadata));
    let path = key.display();
    is_exposed.then(|| format!("all users can read the private key {path}: run \"chmod o-r {path}\""))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn private_key_that_all_users_can_read_is_reported() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = folder.path().join("key.pem");
        std::fs::write(&key, "key").expect("writable file");
        for (mode, is_reported) in [(0o644, true), (0o640, false), (0o600, false)] {
            std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).expect("own file");
            assert_eq!(exposed_key_warning(&key).is_some(), is_reported, "{mode:o}");
        }
        assert_eq!(exposed_key_warning(Path::new("/no/such/file")), None);
    }
}
