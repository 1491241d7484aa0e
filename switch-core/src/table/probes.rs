//! Probes: the reads that a classification waits for, one after the other. A *probe* reads one entry of a table, at a place that the packet
//! says, or a probe before it. Of a prefix table that is the root's word, in each part on the way a line, and the word behind it that leads on; of
//! any other table an entry. A look into a hash table counts as one: how far it goes is up to a secret, and not to how many rules there are.
//!
//! Whoever looks up tells whoever counts with each read, so that the two cannot come apart: [`Uncounted`] on the packet path, where it is no
//! instruction, [`Counted`] where somebody asks. The bound stands beside each lookup: `PROBES_MAX` of [`super::lpm`], [`crate::policy`] and
//! [`crate::acl`], and of all that is said of one first packet in [`crate::pipeline::judge`].
//!
//! What is found without looking into a table that rules make is none: where a table lies, which is the same for all packets of a port; which
//! addresses are a port's own, and which the node's.

use std::cell::Cell;

/// Who is told of probes. It is passed by value, so that nobody is no argument.
pub trait Probes: Copy {
    /// One more.
    fn probe(self);
}

/// Nobody counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uncounted;

impl Probes for Uncounted {
    #[inline(always)]
    fn probe(self) {}
}

/// So many so far.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a>(pub &'a Cell<u32>);

impl Probes for Counted<'_> {
    #[inline(always)]
    fn probe(self) {
        self.0.update(|probes| probes + 1);
    }
}

/// An entry of a table: a probe.
#[inline(always)]
pub fn at<T: Copy>(table: &[T], index: usize, probes: impl Probes) -> T {
    probes.probe();
    table[index]
}
