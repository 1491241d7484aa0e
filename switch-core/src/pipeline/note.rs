//! What the stages know of one frame. Notes lie beside the frames of a batch, by index.

use super::verdict::Verdict;
use crate::frame::BATCH_FRAMES;
use crate::wire::ethernet::{HEADER_LEN, TAG_LEN};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Note {
    /// Destination MAC, low 48 bits. `parse`.
    pub dst: u64,
    /// Source MAC, low 48 bits. `parse`.
    pub src: u64,
    /// EtherType behind the tag. `parse`.
    pub ethertype: u16,
    /// Tag control information (PCP, DEI, VID); meaningful if `tagged`. `parse`.
    pub tci: u16,
    /// The frame carries a C-tag. `parse`.
    pub tagged: bool,
    /// It leaves as a router sends it: from the gateway's MAC, by any port, also the one it came from.
    /// `route`, and what the switch says itself.
    pub routed: bool,
    /// Filtering identifier: bridge and VLAN in one number. `guard`.
    pub fid: u16,
    /// Where the FDB keeps the destination, already asked for. `learn`.
    pub dst_home: u32,
    /// Segments it stands for: 1, unless it is a superframe. `parse`.
    pub segments: u16,
    /// What shall become of it.
    pub verdict: Verdict,
}

impl Note {
    /// Where the payload begins.
    #[inline(always)]
    pub fn payload_at(&self) -> usize {
        HEADER_LEN + if self.tagged { TAG_LEN } else { 0 }
    }

    /// Whether no stage has decided yet.
    #[inline(always)]
    pub fn is_undecided(&self) -> bool {
        matches!(self.verdict, Verdict::Undecided)
    }
}

/// Notes of a whole batch.
pub type Notes = [Note; BATCH_FRAMES];
