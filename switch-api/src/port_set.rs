//! Port sets: named ports that rules of access control lists share.

use crate::{Name, Owner, PortRange};
use serde::{Deserialize, Serialize};

/// A set of ports, of whatever protocol the rule says that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRangeSet {
    /// Its name.
    pub name: Name,
    /// Its ports; at least one.
    pub ports: Vec<PortRange>,
    /// Who declared it.
    #[serde(default)]
    pub owner: Owner,
}

/// One set in the answer to [`crate::Request::PortSetList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSetStatus {
    /// As declared.
    pub set: PortRangeSet,
    /// Access control lists with rules that name it.
    pub used_by: Vec<Name>,
}
