//! What becomes of what nobody decides.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Of a port: what becomes of packets that no access control list and no network policy decides, by direction. Answers to what is
/// let through pass, whatever these say; so do ARP and neighbour discovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefaultVerdicts {
    /// Of what the port is sent.
    pub ingress: Verdict,
    /// Of what it sends.
    pub egress: Verdict,
}

/// Whether a packet may pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It passes.
    #[default]
    Allow,
    /// It is dropped.
    Deny,
}

impl DefaultVerdicts {
    /// Whether everything passes that nobody decides: what a port has unless told otherwise.
    pub fn is_allow(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}
