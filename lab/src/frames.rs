//! Frames to make by hand.

use switch_api::Mac;

/// An EtherType nobody else uses (IEEE 802 local experimental 2), so that a kernel's own chatter is not
/// taken for ours.
pub const ETHERTYPE: [u8; 2] = [0x88, 0xb6];

/// A frame of `len` bytes; its payload repeats `mark`.
pub fn plain(dst: Mac, src: Mac, mark: u8, len: usize) -> Vec<u8> {
    let mut frame = [&dst.0[..], &src.0, &ETHERTYPE].concat();
    frame.resize(len.max(14), mark);
    frame
}

/// The same with a C-tag.
pub fn tagged(dst: Mac, src: Mac, tci: u16, mark: u8, len: usize) -> Vec<u8> {
    let mut frame = [&dst.0[..], &src.0, &[0x81, 0x00], &tci.to_be_bytes(), &ETHERTYPE].concat();
    frame.resize(len.max(18), mark);
    frame
}

/// Whether a frame is one of ours with this mark in its last byte.
pub fn has_mark(frame: &[u8], mark: u8) -> bool {
    let ours = |at: usize| frame.get(at..at + 2) == Some(&ETHERTYPE);
    (ours(12) || ours(16)) && frame.last() == Some(&mark)
}

/// A locally administered station.
pub fn station(n: u8) -> Mac {
    Mac([0x02, 0xaa, 0, 0, 0, n])
}
