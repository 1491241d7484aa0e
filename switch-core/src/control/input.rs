//! What a client has sent and nobody has looked at yet. Everybody may send lines of [`LINE_LEN_MAX`]; an admin one of
//! [`LONG_LINE_LEN_MAX`], as long as all that is above the former, of all clients together, stays below [`LONG_BYTES_MAX`]: whoever
//! sends half a giant and waits takes no more memory than that, and not for long.

use std::time::{Duration, Instant};
use switch_api::codec::{LINE_LEN_MAX, LONG_LINE_LEN_MAX};
use switch_api::{ApiError, Code, Role};

/// Bytes that all clients together may have sent beyond the line that everybody may have in hand: two of the longest requests at once.
pub(crate) const LONG_BYTES_MAX: usize = 2 * LONG_LINE_LEN_MAX;
/// A line that is longer than everybody's is whole within this time, or its client is let go: a Unix socket carries the longest in a tenth
/// of a second.
const LONG_WITHIN: Duration = Duration::from_secs(30);

/// The longest line of a client of this role, when nobody else has a long one on its way.
pub(super) fn line_len_max(role: Role) -> usize {
    Room::of(role, 0).bytes
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Where the first line ends, if it does.
    end: Option<usize>,
    long_since: Option<Instant>,
}

/// How much one client may have in hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    bytes: usize,
    /// It would be more if others had less.
    is_shared: bool,
}

impl Room {
    /// For a client of this role, when the others have so many bytes beyond what is everybody's.
    pub fn of(role: Role, others: usize) -> Self {
        if role != Role::Admin {
            return Self { bytes: LINE_LEN_MAX, is_shared: false };
        }
        let left = LINE_LEN_MAX + LONG_BYTES_MAX.saturating_sub(others);
        Self { bytes: left.min(LONG_LINE_LEN_MAX), is_shared: left < LONG_LINE_LEN_MAX }
    }

    /// The refusal of a line for which it is too small.
    pub fn refusal(self) -> ApiError {
        let Self { bytes, is_shared } = self;
        if is_shared {
            let text =
                format!("so many long requests are on their way that a line is at most {bytes} bytes now");
            return ApiError::new(Code::Limit, text)
                .hint("this connection is closed; send it again when they are answered");
        }
        let text = format!("a line is at most {bytes} bytes");
        let hint = match bytes > LINE_LEN_MAX {
            true => "declare it in several requests, one per line; this connection is closed",
            false => "send one request per line, and a longer one as an admin; this connection is closed",
        };
        ApiError::new(Code::Limit, text).hint(hint)
    }
}

impl Input {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether a whole line is there.
    pub fn has_line(&self) -> bool {
        self.end.is_some()
    }

    /// What it has beyond what is everybody's.
    pub fn beyond(&self) -> usize {
        self.bytes.len().saturating_sub(LINE_LEN_MAX)
    }

    /// Whether a long line has had its time.
    pub fn is_overdue(&self) -> bool {
        self.long_since.is_some_and(|since| since.elapsed() > LONG_WITHIN)
    }

    /// Whether to read on: a line that is not whole has all of the room, several have what is everybody's.
    pub fn wants_more(&self, room: Room) -> bool {
        self.bytes.len() <= if self.has_line() { LINE_LEN_MAX.min(room.bytes) } else { room.bytes }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        if self.end.is_none() {
            self.end = bytes.iter().position(|byte| *byte == b'\n').map(|end| at + end);
        }
        if self.end.is_none() && self.beyond() > 0 {
            self.long_since.get_or_insert_with(Instant::now);
        }
    }

    /// The first line, its end included; none: it is not whole. An error: it is longer than there is room for.
    pub fn line(&mut self, room: Room) -> Result<Option<Vec<u8>>, ApiError> {
        match self.end {
            Some(end) if end < room.bytes => {}
            None if self.bytes.len() <= room.bytes => return Ok(None),
            _ => return Err(room.refusal()),
        }
        let rest = self.bytes.split_off(self.end.map_or(0, |end| end + 1));
        let line = std::mem::replace(&mut self.bytes, rest);
        self.end = self.bytes.iter().position(|byte| *byte == b'\n');
        self.long_since = None;
        Ok(Some(line))
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Room = Room { bytes: LONG_LINE_LEN_MAX, is_shared: false };

    proptest! {
        /// However lines are cut up on their way, they come out as they were.
        #[test]
        fn lines_come_out_as_they_went_in(
            lines in prop::collection::vec("[a-z]{0,40}", 0..20),
            tail in "[a-z]{0,10}",
            cuts in prop::collection::vec(1..50usize, 1..40),
        ) {
            let all: String = lines.iter().map(|line| format!("{line}\n")).chain([tail.clone()]).collect();
            let (mut input, mut came, mut rest) = (Input::default(), Vec::new(), all.as_bytes());
            for cut in cuts.into_iter().cycle() {
                let (some, left) = rest.split_at(cut.min(rest.len()));
                input.push(some);
                rest = left;
                // One at a time, as if others had their turn between.
                came.extend(input.line(ALL).unwrap());
                if rest.is_empty() {
                    break;
                }
            }
            while let Some(line) = input.line(ALL).unwrap() {
                came.push(line);
            }
            let wanted: Vec<Vec<u8>> = lines.iter().map(|line| format!("{line}\n").into_bytes()).collect();
            prop_assert_eq!(came, wanted);
            prop_assert_eq!(input.bytes, tail.into_bytes());
        }
    }

    #[test]
    fn a_giant_is_an_admins_and_all_of_them_have_one_room() {
        let most = |role, others| Room::of(role, others).bytes;
        for role in [Role::Reader, Role::Cni] {
            assert_eq!(most(role, 0), LINE_LEN_MAX);
        }
        assert_eq!(most(Role::Admin, 0), LONG_LINE_LEN_MAX);
        // Whatever giants there are, there is room for a line of everybody's, and for no byte above the limit of all.
        let mut others = 0;
        for _ in 0..crate::control::places::CLIENTS_MAX {
            let room = most(Role::Admin, others);
            assert!(room >= LINE_LEN_MAX);
            others += room - LINE_LEN_MAX;
        }
        assert_eq!(others, LONG_BYTES_MAX);
        assert!(Room::of(Role::Admin, others).refusal().message.contains("long requests"));
    }

    #[test]
    fn a_line_is_as_long_as_there_is_room_for_and_no_longer() {
        let room = Room::of(Role::Reader, 0);
        let mut input = Input::default();
        input.push(&vec![b' '; LINE_LEN_MAX - 1]);
        assert!(input.wants_more(room) && input.line(room).unwrap().is_none());
        input.push(b"\n{}");
        assert_eq!(input.line(room).unwrap().map(|line| line.len()), Some(LINE_LEN_MAX));
        assert_eq!(input.bytes, b"{}");
        input.push(&vec![b' '; LINE_LEN_MAX - 1]);
        assert!(!input.wants_more(room));
        assert_eq!(input.line(room).unwrap_err().code, Code::Limit);
        input.push(b"\n");
        assert_eq!(input.line(room).unwrap_err().code, Code::Limit);
        assert!(input.beyond() > 0 && input.long_since.is_some());
        input.clear();
        assert_eq!((input.beyond(), input.is_empty(), input.has_line()), (0, true, false));
    }
}
