//! What is refused, in a form that scripts can act on and people can read.

use serde::{Deserialize, Serialize};

/// The kind of a refusal. Negative numbers follow JSON-RPC 2.0 §5.1, `-32099..=-32000` are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "i32", from = "i32")]
#[repr(i32)]
pub enum Code {
    /// The line is not JSON.
    Parse = -32700,
    /// The JSON is not a request.
    InvalidRequest = -32600,
    /// No such method.
    UnknownMethod = -32601,
    /// The parameters do not fit the method, or the change does not fit the rest.
    InvalidParams = -32602,
    /// A defect of the switch.
    Internal = -32603,
    /// The client and the daemon speak different versions.
    Version = -32000,
    /// This user may not do this.
    Forbidden = -32001,
    /// The named object is not there.
    NotFound = -32002,
    /// The name is taken.
    Exists = -32003,
    /// Something else still needs the object, or another program holds the device.
    Busy = -32004,
    /// A limit was reached.
    Limit = -32005,
    /// The kernel refused.
    System = -32006,
    /// This kernel or device cannot do it.
    Unsupported = -32007,
    /// It did not happen in time; the daemon goes on.
    Timeout = -32008,
    /// A kind that this version does not know: the daemon is newer. The message says what it is.
    Unknown = -32099,
}

impl Code {
    const ALL: [Self; 15] = [
        Self::Parse,
        Self::InvalidRequest,
        Self::UnknownMethod,
        Self::InvalidParams,
        Self::Internal,
        Self::Version,
        Self::Forbidden,
        Self::NotFound,
        Self::Exists,
        Self::Busy,
        Self::Limit,
        Self::System,
        Self::Unsupported,
        Self::Timeout,
        Self::Unknown,
    ];

    /// The exit code `switch-ctl` ends with: scripts tell refusals apart without reading text.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Parse | Self::InvalidRequest | Self::UnknownMethod | Self::InvalidParams => 2,
            Self::Forbidden => 3,
            Self::NotFound => 4,
            Self::Exists => 5,
            Self::Busy => 6,
            Self::Limit => 7,
            Self::Unsupported => 8,
            Self::Timeout => 9,
            Self::Version => 10,
            Self::System | Self::Internal | Self::Unknown => 1,
        }
    }
}

impl From<Code> for i32 {
    fn from(code: Code) -> Self {
        code as Self
    }
}

impl From<i32> for Code {
    fn from(number: i32) -> Self {
        Self::ALL.into_iter().find(|code| *code as i32 == number).unwrap_or(Self::Unknown)
    }
}

/// A refusal: its kind, a sentence, the field it is about, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ApiError {
    /// The kind.
    pub code: Code,
    /// What is wrong, in a sentence.
    pub message: String,
    /// Where and what to do.
    #[serde(default)]
    pub data: ErrorData,
}

/// The part of a refusal that JSON-RPC calls `data`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// The parameter it is about, as a path (`settings.vlan.vid`), if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Each by itself, where several things are wrong with several objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<crate::Problem>,
    /// Whose the object is that was left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<crate::Owner>,
}

/// What to do about a defect of the switch, which nobody can put right who meets it.
const DEFECT: &str =
    "this is a mistake of the switch's: `switch-ctl support-bundle` gathers what finding it takes";

impl ApiError {
    /// A refusal that is about no field in particular. It has to say what to do as well ([`Self::hint`]); of a defect this says it.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let hint = (code == Code::Internal).then(|| DEFECT.to_owned());
        Self { code, message: message.into(), data: ErrorData { hint, ..ErrorData::default() } }
    }

    /// One more of something of which there may be so many; `list` is the command that shows those there are.
    pub fn full(most: usize, what: &str, list: &str) -> Self {
        Self::new(Code::Limit, format!("no more than {most} {what} are possible")).hint(format!(
            "nothing was changed; `switch-ctl {list}` shows those there are, to take away what is not needed"
        ))
    }

    /// The same, about `field`.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.data.field = Some(field.into());
        self
    }

    /// The same, with what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.data.hint = Some(hint.into());
        self
    }
}
