//! The order in which a route's candidates are asked.
//!
//! Owns the strategies. One exists so far; the others of the configuration are refused by name until they do.

use std::sync::Arc;

use crate::target::Target;

/// How a route chooses among its models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// In the order written down.
    #[default]
    Priority,
}

impl Strategy {
    /// Every strategy the configuration knows the name of, and whether it works yet.
    pub const NAMES: [(&'static str, Option<Self>); 5] = [
        ("priority", Some(Self::Priority)),
        ("weighted", None),
        ("least-busy", None),
        ("fastest", None),
        ("cheapest", None),
    ];

    /// The candidates in the order they are to be asked.
    #[must_use]
    pub fn order(self, candidates: &[Arc<Target>]) -> Vec<Arc<Target>> {
        match self {
            Self::Priority => candidates.to_vec(),
        }
    }
}
