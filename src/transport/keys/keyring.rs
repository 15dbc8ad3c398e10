//! Reads and writes entries in the system's keyring, if built with the `keyring` feature.

use super::KeyError;
use crate::model::api_key::{ApiKey, KeySource};

/// Service name of mmchat's entries in the system's keyring.
#[cfg(feature = "keyring")]
const SERVICE: &str = "mmchat";

#[cfg(feature = "keyring")]
fn with_entry<T: Send>(
    name: &str,
    operation: impl FnOnce(&keyring::Entry) -> keyring::Result<T> + Send,
) -> Result<T, KeyError> {
    let run = || keyring::Entry::new(SERVICE, name).and_then(|entry| operation(&entry));
    // Runs in a separate thread, because the keyring client blocks in a way that is not allowed in a tokio thread.
    let result = std::thread::scope(|scope| scope.spawn(run).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(|error| KeyError::Keyring {
        entry: KeySource::Keyring(name.to_owned()).to_string(),
        reason: error.to_string(),
    })
}

#[cfg(feature = "keyring")]
pub(crate) fn read(name: &str) -> Result<ApiKey, KeyError> {
    with_entry(name, keyring::Entry::get_password).map(|key| ApiKey::new(&key))
}

/// Stores a key in the system's keyring.
#[cfg(feature = "keyring")]
pub fn store(name: &str, key: &ApiKey) -> Result<(), KeyError> {
    with_entry(name, |entry| entry.set_password(key.expose()))
}

/// Deletes a key from the system's keyring.
#[cfg(feature = "keyring")]
pub fn delete(name: &str) -> Result<(), KeyError> {
    with_entry(name, keyring::Entry::delete_credential)
}

#[cfg(not(feature = "keyring"))]
pub(crate) fn read(name: &str) -> Result<ApiKey, KeyError> {
    Err(KeyError::KeyringUnsupported(KeySource::Keyring(name.to_owned()).to_string()))
}

/// Always fails, because this build has no keyring support.
#[cfg(not(feature = "keyring"))]
pub fn store(name: &str, _: &ApiKey) -> Result<(), KeyError> {
    read(name).map(drop)
}

/// Always fails, because this build has no keyring support.
#[cfg(not(feature = "keyring"))]
pub fn delete(name: &str) -> Result<(), KeyError> {
    read(name).map(drop)
}
