//! DIR-24-8 (Gupta, Lin, McKeown 1998), as DPDK's `rte_lpm` has it: what the switch's own table is held
//! against. One array for the first 24 bits, groups of 256 for the others; changed in place, by one thread.

use switch_core::table::lpm::Change;

/// In an entry: it names a group.
const GROUP: u32 = 1 << 31;

/// See the module. An entry is a value; how long its prefix is stands beside it, for changes.
#[derive(Debug)]
pub struct Dir24 {
    first: Box<[u32]>,
    first_len: Box<[u8]>,
    groups: Vec<[u32; 256]>,
    groups_len: Vec<[u8; 256]>,
}

impl Default for Dir24 {
    fn default() -> Self {
        let (first, first_len) = (vec![0; 1 << 24].into(), vec![0; 1 << 24].into());
        Self { first, first_len, groups: Vec::new(), groups_len: Vec::new() }
    }
}

impl Dir24 {
    /// The value of the longest prefix.
    #[inline(always)]
    pub fn find(&self, ip: u32) -> u32 {
        let entry = self.first[(ip >> 8) as usize];
        if entry & GROUP == 0 { entry } else { self.groups[(entry & !GROUP) as usize][ip as usize & 0xff] }
    }

    /// Adds a prefix or changes its value.
    pub fn insert(&mut self, change: &Change) {
        let ip = (change.key >> 96) as u32;
        if change.len <= 24 {
            let at = (ip >> 8) as usize;
            for at in at..at + (1 << (24 - change.len)) {
                self.insert_at(at, 0..256, change);
            }
        } else {
            let from = ip as usize & 0xff;
            self.insert_at((ip >> 8) as usize, from..from + (1 << (32 - change.len)), change);
        }
    }

    fn insert_at(&mut self, at: usize, part: std::ops::Range<usize>, change: &Change) {
        let entry = self.first[at];
        if entry & GROUP == 0 && part.len() == 256 {
            if self.first_len[at] <= change.len {
                (self.first[at], self.first_len[at]) = (change.value, change.len);
            }
            return;
        }
        if entry & GROUP == 0 {
            self.first[at] = GROUP | self.groups.len() as u32;
            self.groups.push([entry; 256]);
            self.groups_len.push([self.first_len[at]; 256]);
        }
        let group = (self.first[at] & !GROUP) as usize;
        for place in part {
            if self.groups_len[group][place] <= change.len {
                (self.groups[group][place], self.groups_len[group][place]) = (change.value, change.len);
            }
        }
    }

    /// Bytes that lookups read; what changes need comes on top.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.first) + self.groups.len() * size_of::<[u32; 256]>()
    }
}
