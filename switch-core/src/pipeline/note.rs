//! What the stages know of one frame. Notes lie beside the frames of a batch, by index.

use super::verdict::Verdict;
use crate::frame::BATCH_FRAMES;
use crate::wire::ethernet::{HEADER_LEN, TAG_LEN};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Destination MAC, low 48 bits. `parse`.
    pub dst: u64,
    /// Source MAC, high 48 bits, and the EtherType behind the tag: as they lie in a frame without one. `parse`.
    pub src_ethertype: u64,
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

// Half a cache line: a batch of them is two kilobytes, and the one at an index is found by a shift.
const _: () = assert!(size_of::<Note>() == 32);

impl Note {
    /// Source MAC, low 48 bits.
    #[inline(always)]
    pub fn src(&self) -> u64 {
        self.src_ethertype >> 16
    }

    /// It leaves with another source MAC.
    #[inline(always)]
    pub fn set_src(&mut self, mac: u64) {
        self.src_ethertype = src_ethertype(mac, self.ethertype());
    }

    /// EtherType behind the tag.
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        self.src_ethertype as u16
    }

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

/// [`Note::src_ethertype`] of the two.
#[inline(always)]
pub fn src_ethertype(mac: u64, ethertype: u16) -> u64 {
    mac << 16 | u64::from(ethertype)
}

/// What is so of all frames of a batch. Most batches are ordinary: what none of their frames is, is not looked for in each. `parse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gist {
    /// No frame has a tag, and nothing is decided of any.
    pub is_plain: bool,
    /// Some may go to a group.
    pub has_groups: bool,
}

/// Notes of a whole batch.
pub type Notes = [Note; BATCH_FRAMES];
