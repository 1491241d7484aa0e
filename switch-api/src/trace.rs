//! What becomes of one frame, asked and answered.

use crate::Name;
use crate::name::as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Bytes, as hexadecimal text on the wire. Blanks and colons between digits are read over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

/// Text that is not hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHex {
    /// Something that is no digit.
    #[error("{0:?} is no hexadecimal digit")]
    Digit(char),
    /// Half a byte at the end.
    #[error("an odd number of hexadecimal digits: two make a byte")]
    Odd,
}

impl FromStr for Hex {
    type Err = NotHex;
    fn from_str(text: &str) -> Result<Self, NotHex> {
        let mut digits = Vec::with_capacity(text.len());
        for letter in text.chars().filter(|letter| !letter.is_ascii_whitespace() && *letter != ':') {
            digits.push(letter.to_digit(16).ok_or(NotHex::Digit(letter))? as u8);
        }
        let (pairs, rest) = digits.as_chunks::<2>();
        if rest.is_empty() {
            Ok(Self(pairs.iter().map(|[a, b]| a << 4 | b).collect()))
        } else {
            Err(NotHex::Odd)
        }
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let text: String = digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect();
        f.write_str(&text)
    }
}

as_text!(Hex);

/// See [`crate::Request::Trace`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// The port by which the frame would come in.
    #[serde(rename = "in")]
    pub in_port: Name,
    /// The frame from its destination MAC on, without FCS.
    pub frame: Hex,
}

/// Answer to [`crate::Request::Trace`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceReply {
    /// What becomes of it, in a sentence.
    pub outcome: String,
    /// The snapshot that decided.
    pub generation: u64,
    /// Every stage, in order.
    pub steps: Vec<TraceStep>,
    /// What leaves.
    pub out: Vec<TraceOut>,
    /// What is dropped.
    pub drops: Vec<TraceDrop>,
    /// What else would happen, by the names that `stats` has.
    pub events: Vec<String>,
}

/// What one stage makes of the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The stage.
    pub stage: String,
    /// What is decided after it: `undecided`, `port NAME`, `flood CLASS`, `drop REASON`, `aside WHY`.
    pub verdict: String,
    /// Why.
    pub why: String,
}

/// A frame that leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceOut {
    /// By which port.
    pub port: Name,
    /// It is the switch's own word (an answer, a question, an error, a piece), not the frame or a copy.
    pub by_switch: bool,
    /// As it would be sent.
    pub frame: Hex,
}

/// Frames that are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceDrop {
    /// Whose they are.
    pub port: Name,
    /// The reason's name.
    pub reason: String,
    /// What it means, in a sentence.
    pub meaning: String,
    /// The rule of a policy or of an access control list that decided, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// See [`crate::Request::TraceLive`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceLive {
    /// Only what comes in by these ports; none: by any.
    pub ports: Vec<Name>,
    /// A program of classic BPF, as for a capture; none: every frame.
    pub filter: Vec<(u16, u8, u8, u32)>,
    /// So many frames: 1 to 1000.
    pub count: u32,
}

impl Default for TraceLive {
    fn default() -> Self {
        Self { ports: Vec::new(), filter: Vec::new(), count: 10 }
    }
}

/// A frame that was followed; the notice `trace.frame`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedFrame {
    /// When it came, in nanoseconds since 1970, UTC.
    pub time_ns: u64,
    /// The port by which it came in.
    pub port: Name,
    /// Bytes it had.
    pub len: u32,
    /// The first of them, 256 at most.
    pub data: Hex,
    /// Frames that went through the stages with it: what a stage took, it took for all of them.
    pub batch: u32,
    /// The snapshot by which its way is put into words.
    pub generation: u64,
    /// Its way.
    pub steps: Vec<LiveStep>,
    /// What was decided about it, as the last step has it.
    pub outcome: String,
}

/// What one stage made of a frame, and how long that took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveStep {
    /// The stage.
    pub stage: String,
    /// What is decided after it, as in [`TraceStep`].
    pub verdict: String,
    /// Why.
    pub why: String,
    /// Ticks of the worker's clock for the whole batch.
    pub cycles: u64,
    /// The same in nanoseconds.
    pub ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_text_is_read_as_people_paste_it() {
        assert_eq!("02:00 aA\n".parse(), Ok(Hex(vec![2, 0, 0xaa])));
        assert_eq!("020".parse::<Hex>(), Err(NotHex::Odd));
        assert_eq!("0x02".parse::<Hex>(), Err(NotHex::Digit('x')));
        assert_eq!(Hex(vec![2, 0xaa]).to_string(), "02aa");
    }
}
