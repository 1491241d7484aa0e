//! What becomes of packets in pieces where there are more of them than the table notes: of the port that has most of those that wait the oldest
//! goes, nobody is kept out, nobody loses what another's flood wants, and all is forgotten in time.

use super::flow_room_tests::{Lab, udp};
use super::fragment_tests::piece;
use crate::table::flow::fragments::{FRAGMENTED_MAX, WAIT_S};
use switch_api::PortSettings;

const FLOOD: usize = 0;
const QUIET: usize = 1;
const RECEIVER: usize = 2;
/// First fragments that nothing follows: twice as many as the table has lines for.
const FIRSTS: u16 = 4 * FRAGMENTED_MAX as u16;

fn lab() -> Lab {
    let held = PortSettings { track: true, ..PortSettings::default() };
    Lab::of(4096, vec![(held.clone(), 0), (held, 0), (PortSettings::default(), 0)])
}

/// The first piece of a packet, or the one behind it.
fn part(from: usize, id: u16, is_first: bool) -> Vec<u8> {
    let part = if is_first { 0..8 } else { 8..16 };
    piece(&udp(from, RECEIVER, [1, 53]), id, part, is_first)
}

impl Lab {
    /// First pieces come in by one port; how many of them pass.
    fn flood(&mut self) -> usize {
        let mut passed = 0;
        for id in 0..FIRSTS {
            assert!(self.peers[FLOOD].send(part(FLOOD, id, true)));
            if id % 512 == 511 {
                self.rig.settle(self.now);
                passed += std::iter::from_fn(|| self.peers[RECEIVER].recv()).count();
            }
        }
        self.rig.assert_conserved();
        passed
    }

    fn passes(&mut self, from: usize, id: u16, is_first: bool) -> bool {
        self.send(from, RECEIVER, part(from, id, is_first))
    }

    /// Time goes by, and nobody says anything.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds * 500 {
            self.now.ns += 2_000_000;
            self.rig.run(self.now);
        }
    }
}

/// Whoever floods the table with firsts loses his own, oldest first: the table is full, and neither they nor another port's packets are dropped for it.
#[test]
fn a_table_full_of_first_fragments_drops_none_and_another_ports_packets_in_pieces_pass() {
    let mut lab = lab();
    assert!(lab.passes(QUIET, 9999, true));
    lab.now.ns += 1_000_000_000;
    assert_eq!(lab.flood(), usize::from(FIRSTS));
    let fragments = &lab.rig.tables.fragments;
    let (entries, lines) = (fragments.entries(), fragments.lines());
    assert_eq!(2 * lines, usize::from(FIRSTS));
    assert!((lines * 9 / 10..=lines).contains(&entries), "{entries} of {lines}");
    for id in 0..300 {
        assert!(lab.passes(QUIET, id, true) && lab.passes(QUIET, id, false), "{id}");
    }
    assert_eq!(lab.drops(), []);
    // What was flooded first has made room; what came last is there, and so is another port's that was there before.
    assert!(lab.passes(QUIET, 9999, false) && !lab.passes(FLOOD, 0, false));
    assert!(lab.passes(FLOOD, FIRSTS - 1, false));
    assert_eq!(lab.drops(), [("fragment-no-first", 1)]);
    lab.rig.assert_conserved();
}

/// Pieces may be so far apart as receivers wait. What is older is no first any more, makes room at once, and is gone after a round.
#[test]
fn what_waits_in_a_full_table_is_forgotten_after_30_s_and_keeps_nobody_out_until_then() {
    let mut lab = lab();
    lab.flood();
    assert!(lab.passes(QUIET, 1, true) && lab.passes(QUIET, 2, true));
    lab.now.ns += u64::from(WAIT_S) * 1_000_000_000;
    assert!(lab.passes(QUIET, 1, false), "still");
    lab.now.ns += 1_000_000_000;
    assert!(!lab.passes(QUIET, 2, false));
    assert_eq!(lab.drops(), [("fragment-no-first", 1)]);
    for id in 100..400 {
        assert!(lab.passes(QUIET, id, true) && lab.passes(QUIET, id, false), "{id}");
    }
    lab.wait(5);
    assert_eq!(lab.rig.tables.fragments.entries(), 300);
    lab.wait(u64::from(WAIT_S));
    assert_eq!(lab.rig.tables.fragments.entries(), 0);
    assert!(lab.passes(QUIET, 2, true) && lab.passes(QUIET, 2, false));
    assert_eq!(lab.drops(), [("fragment-no-first", 1)]);
    lab.rig.assert_conserved();
}
