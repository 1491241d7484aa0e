//! Whose an object is. Nobody silently undoes what another made.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Who declared an object. It is said when the object is made and stays: what replaces it is its owner's too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// A person or a script, through `switch-ctl`. What was declared before there were owners is the operator's.
    #[default]
    Operator,
    /// The CNI plugin.
    Cni,
    /// The mirror of the kernel's routes.
    Routes,
    /// The Kubernetes agent.
    Agent,
}

impl Owner {
    const ALL: [Self; 4] = [Self::Operator, Self::Cni, Self::Routes, Self::Agent];

    /// As a sentence has it.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Operator => "the operator",
            Self::Cni => "the CNI plugin",
            Self::Routes => "the kernel's routes",
            Self::Agent => "the agent",
        }
    }

    /// As requests and options have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Cni => "cni",
            Self::Routes => "routes",
            Self::Agent => "agent",
        }
    }

    /// Whether it is the one that need not be said.
    pub(crate) fn is_operator(&self) -> bool {
        *self == Self::Operator
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text is no [`Owner`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} owns nothing: it is operator, cni, routes or agent")]
pub struct NoOwner(String);

impl FromStr for Owner {
    type Err = NoOwner;
    fn from_str(text: &str) -> Result<Self, NoOwner> {
        let found = Self::ALL.into_iter().find(|owner| owner.as_str() == text);
        found.ok_or_else(|| NoOwner(text.chars().take(crate::name::NAME_LEN_MAX).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lease, StaticMac};

    #[test]
    fn words_are_the_same_in_options_and_on_the_wire() {
        for owner in Owner::ALL {
            assert_eq!(owner.as_str().parse(), Ok(owner));
            assert_eq!(serde_json::to_value(owner).unwrap(), owner.as_str());
        }
        assert!("Cni".parse::<Owner>().is_err());
    }

    #[test]
    fn what_was_kept_before_there_were_owners_has_one() {
        let station = r#"{"mac":"02:00:00:00:00:01","bridge":"b","vid":1,"port":"p"}"#;
        let station: StaticMac = serde_json::from_str(station).unwrap();
        assert_eq!(station.owner, Owner::Operator);
        let lease = r#"{"pool":"p","holder":{"network":"n","container":"c","interface":"i"},"addresses":[],"boot_id":""}"#;
        let kept: Lease = serde_json::from_str(lease).unwrap();
        assert_eq!(kept.owner, Owner::Cni);
        // An older daemon reads what is nobody's but theirs.
        assert_eq!(serde_json::to_string(&kept).unwrap(), lease);
    }
}
