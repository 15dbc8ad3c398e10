//! The system's keyring, which is a cargo feature.
//!
//! Owns our entries in it. Refuses to know what they are for.

use super::KeyError;
use crate::model::api_key::{ApiKey, KeySource};

/// What our entries in the system's keyring are filed under.
#[cfg(feature = "keyring")]
const SERVICE: &str = "mmchat";

#[cfg(feature = "keyring")]
fn in_keyring<T: Send>(
    name: &str,
    act: impl FnOnce(&keyring::Entry) -> keyring::Result<T> + Send,
) -> Result<T, KeyError> {
    let work = || keyring::Entry::new(SERVICE, name).and_then(|entry| act(&entry));
    // On a thread of its own: the keyring's client waits for answers in a way a runtime's thread must not.
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(|error| KeyError::Keyring {
        entry: KeySource::Keyring(name.to_owned()).to_string(),
        reason: error.to_string(),
    })
}

#[cfg(feature = "keyring")]
pub(crate) fn read(name: &str) -> Result<ApiKey, KeyError> {
    in_keyring(name, keyring::Entry::get_password).map(|key| ApiKey::new(&key))
}

/// Keeps a key in the system's keyring.
#[cfg(feature = "keyring")]
pub fn keep(name: &str, key: &ApiKey) -> Result<(), KeyError> {
    in_keyring(name, |entry| entry.set_password(key.expose()))
}

/// Takes a key out of the system's keyring.
#[cfg(feature = "keyring")]
pub fn remove(name: &str) -> Result<(), KeyError> {
    in_keyring(name, keyring::Entry::delete_credential)
}

#[cfg(not(feature = "keyring"))]
pub(crate) fn read(name: &str) -> Result<ApiKey, KeyError> {
    Err(KeyError::Unsupported(KeySource::Keyring(name.to_owned()).to_string()))
}

/// This build has none.
#[cfg(not(feature = "keyring"))]
pub fn keep(name: &str, _: &ApiKey) -> Result<(), KeyError> {
    read(name).map(drop)
}

/// This build has none.
#[cfg(not(feature = "keyring"))]
pub fn remove(name: &str) -> Result<(), KeyError> {
    read(name).map(drop)
}
