//! Errors as the specification wants them: a code, a sentence, and what to do.

use serde_json::{Value, json};
use switch_api::{ApiError, Code};

/// The configuration's version is not spoken.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// The configuration asks for what we do not do.
pub const UNSUPPORTED_FIELD: u32 = 2;
/// The container, or its namespace, is not there.
pub const UNKNOWN_CONTAINER: u32 = 3;
/// The environment is wrong.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// A file or socket could not be read.
pub const IO_FAILURE: u32 = 5;
/// What was read is not what was expected.
pub const DECODING_FAILURE: u32 = 6;
/// The configuration is wrong.
pub const INVALID_CONFIG: u32 = 7;
/// It may work later.
pub const TRY_AGAIN_LATER: u32 = 11;
/// ADD would not work now.
pub const NOT_AVAILABLE: u32 = 50;
/// ADD would not work now, and those that are attached may not be connected.
pub const NOT_CONNECTED: u32 = 51;
/// The switch refused.
pub const SWITCH_REFUSED: u32 = 100;
/// CHECK found something that is not as it was.
pub const DIFFERENT: u32 = 101;
/// Another plugin could not be run, or made no sense.
pub const DELEGATE_FAILED: u32 = 102;

/// All of them, and when.
pub const CODES: &[(u32, &str)] = &[
    (INCOMPATIBLE_VERSION, "a version that is not spoken, or a verb that it does not have"),
    (UNSUPPORTED_FIELD, "a capability of other plugins"),
    (UNKNOWN_CONTAINER, "the namespace cannot be entered"),
    (INVALID_ENVIRONMENT, "the environment is wrong, or the namespace has such an interface already"),
    (IO_FAILURE, "stateDir cannot be read"),
    (DECODING_FAILURE, "not JSON, or no result"),
    (INVALID_CONFIG, "the configuration is wrong; everything that is, is said"),
    (TRY_AGAIN_LATER, "the daemon is down or busy, the pool exhausted, the address in use: try again"),
    (NOT_AVAILABLE, "STATUS: there is no pool, or no address left in it"),
    (NOT_CONNECTED, "STATUS: the daemon does not answer; who is attached has no network either"),
    (SWITCH_REFUSED, "the switch or the kernel refused; the message says why"),
    (DIFFERENT, "CHECK found differences"),
    (DELEGATE_FAILED, "another plugin is missing, cannot be run or makes no sense"),
];

/// Why a verb did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The specification's code, or one of ours from 100.
    pub code: u32,
    /// What is wrong, in a sentence.
    pub message: String,
    /// More, and what to do.
    pub details: String,
}

impl Refusal {
    /// Without details.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// With them.
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// With one more thing to know.
    pub fn and(mut self, more: &str) -> Self {
        if self.details.contains(more) {
            return self;
        }
        if !self.details.is_empty() {
            self.details += "; ";
        }
        self.details += more;
        self
    }

    /// As it is printed.
    pub fn to_json(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "code": self.code, "msg": self.message, "details": self.details })
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let code = match error.code {
            // What passes by itself: a full pool, a device in use, a daemon that is busy.
            Code::Busy | Code::Limit | Code::Timeout => TRY_AGAIN_LATER,
            Code::NotFound if error.data.field.as_deref() == Some("netns") => UNKNOWN_CONTAINER,
            Code::InvalidParams | Code::NotFound => INVALID_CONFIG,
            _ => SWITCH_REFUSED,
        };
        Self { code, message: error.message, details: error.data.hint.unwrap_or_default() }
    }
}
