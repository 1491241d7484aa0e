//! The versions of CNI, and what each of them knows.

use crate::refusal::{INCOMPATIBLE_VERSION, Refusal};
use serde_json::{Value, json};

/// A version that the plugin speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1: lists of interfaces and addresses.
    V0_3_1,
    /// 0.4.0: CHECK.
    V0_4_0,
    /// 1.0.0: an address no longer says its family.
    V1_0_0,
    /// 1.1.0: GC, STATUS, and more about interfaces and routes.
    #[default]
    V1_1_0,
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that a configuration names.
    pub fn find(text: &str) -> Result<Self, Refusal> {
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Refusal::new(INCOMPATIBLE_VERSION, format!("CNI version {text:?} is not spoken here"))
                .details(format!("set \"cniVersion\" in the network configuration to one of {known}"))
        })
    }

    /// Refuses a verb that this version does not have.
    pub fn require(self, since: Self, verb: &str) -> Result<(), Refusal> {
        if self >= since {
            return Ok(());
        }
        let text = format!("{verb} is not known to CNI version {}", self.as_str());
        Err(Refusal::new(INCOMPATIBLE_VERSION, text)
            .details(format!("set \"cniVersion\" to {} or later", since.as_str())))
    }
}

/// The answer to VERSION. What was asked with is repeated, whatever it is (specification, "VERSION").
pub fn answer(asked: Option<&str>) -> Value {
    let ours = asked.unwrap_or(Version::default().as_str());
    json!({ "cniVersion": ours, "supportedVersions": Version::ALL.map(Version::as_str) })
}
