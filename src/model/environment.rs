//! A snapshot of the environment variables of this process, read once.
//!
//! The snapshot is passed as a value, so that tests can set variables without changing the process.

use std::{collections::HashMap, sync::Arc};

/// A snapshot of environment variables. Empty variables count as unset.
#[derive(Clone, Debug, Default)]
pub struct Environment(Arc<HashMap<String, String>>);

impl Environment {
    /// Reads the variables of this process; values that are not Unicode are skipped.
    #[must_use]
    pub fn from_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Returns the value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(Arc::new(variables.into_iter().collect()))
    }
}
