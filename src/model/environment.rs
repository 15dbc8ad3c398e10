//! A snapshot of the environment variables of this process, read once.
//!
//! The snapshot is passed as a value, so that tests can set variables without changing the process.

use std::{collections::HashMap, sync::Arc};

/// A snapshot of environment variables. Empty variables count as unset.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Arc<HashMap<String, String>>,
    /// The names of the variables whose values are not Unicode.
    invalid: Arc<Vec<String>>,
}

impl Environment {
    /// Reads the variables of this process. Values that are not Unicode are skipped, and their names are kept.
    #[must_use]
    pub fn from_process() -> Self {
        let (mut variables, mut invalid) = (HashMap::new(), Vec::new());
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(variables.insert(name, value)),
                Err(_) => invalid.push(name),
            }
        }
        Self { variables: Arc::new(variables), invalid: Arc::new(invalid) }
    }

    /// A variable of mmchat whose value is not Unicode.
    #[must_use]
    pub fn invalid_variable(&self) -> Option<&str> {
        self.invalid.iter().map(String::as_str).find(|name| name.starts_with("MMCHAT_"))
    }

    /// Returns the value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self { variables: Arc::new(variables.into_iter().collect()), invalid: Arc::default() }
    }
}
