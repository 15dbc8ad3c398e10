//! The environment variables of this process, read once.
//!
//! Owns a snapshot that is handed to whoever needs it, so that tests set variables without touching the process.
//! Refuses to interpret them.

use std::{collections::HashMap, sync::Arc};

/// A snapshot of environment variables. Variables that are set but empty count as not set.
#[derive(Clone, Debug, Default)]
pub struct Environment(Arc<HashMap<String, String>>);

impl Environment {
    /// The variables of this process; values that are not Unicode are left out.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// A variable's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(Arc::new(pairs.into_iter().collect()))
    }
}
