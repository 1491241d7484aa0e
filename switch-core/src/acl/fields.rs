//! Classes of what else a packet has: TCP flags, which part of a packet it is, its VLAN, its MACs. What rules name is a field, found by
//! one look into a table; a chain whose rules name it crosses it with what is known so far, and others do not look at it.
//! MACs of one mask are a field: so many masks there are, so many looks.

use super::compile::TooMuch;
use super::table::Table;
use super::{Header, Part};
use crate::table::probes::{self, Probes};
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::ops::Range;
use switch_api::{AclRule, FragmentMatch, MacMask};

/// Most masks of source MACs and of destination MACs, together: a vendor's prefix, a platform's, groups; each is one look more.
pub const MAC_MASKS_MAX: usize = 8;
/// VLAN identifiers there are (IEEE 802.1Q).
const VLANS: usize = 4096;
/// Of each field: what has none, or of which nobody knows.
const UNKNOWN: u16 = 0;

/// A field that rules name.
#[derive(Debug)]
pub(super) enum Field {
    /// By the byte of flags; the class is one more.
    Flags,
    /// By [`Part`]; the class is one more.
    Part,
    /// Class by VLAN.
    Vlan(Box<[u16]>, u16),
    /// Class by the bits of a mask: of the source (0) or the destination (1).
    Mac { end: usize, mask: u64, classes: HashMap<u64, u16> },
}

/// A field in a chain.
#[derive(Debug)]
pub(super) struct Step {
    /// Which.
    pub field: usize,
    /// By class.
    pub columns: Box<[u32]>,
    /// What was known, by what is known with it.
    pub table: Table,
}

impl Step {
    /// The class of a packet with this field, from that without it.
    #[inline]
    pub fn at(&self, words: u32, fields: &[Field], header: &Header, probes: impl Probes) -> u32 {
        let class = fields[self.field].of(header, probes);
        self.table.read(words, probes::at(&self.columns, usize::from(class), probes), probes)
    }
}

impl Field {
    /// The fields that rules name.
    pub fn all<'a>(rules: impl Iterator<Item = &'a AclRule> + Clone) -> Result<Vec<Self>, TooMuch> {
        let mut fields = Vec::new();
        fields.extend(rules.clone().any(|rule| rule.tcp_flags.is_some()).then_some(Self::Flags));
        fields.extend(rules.clone().any(|rule| rule.fragment.is_some()).then_some(Self::Part));
        if rules.clone().any(|rule| !rule.vlan.is_empty()) {
            fields.push(Self::vlan(rules.clone()));
        }
        for end in [0, 1] {
            let named: BTreeSet<(u64, u64)> = rules
                .clone()
                .flat_map(|rule| macs(rule, end))
                .map(|it| (it.mask.to_u64(), it.mac.to_u64()))
                .collect();
            if named.len() > usize::from(u16::MAX) {
                return Err(TooMuch::Classes(named.len()));
            }
            let masks: BTreeSet<u64> = named.iter().map(|(mask, _)| *mask).collect();
            fields.extend(masks.into_iter().map(|mask| {
                let values = named.range((mask, 0)..=(mask, u64::MAX)).map(|(_, mac)| *mac);
                Self::Mac { end, mask, classes: values.zip(UNKNOWN + 1..).collect() }
            }));
        }
        let masks = fields.iter().filter(|field| matches!(field, Self::Mac { .. })).count();
        if masks > MAC_MASKS_MAX { Err(TooMuch::Masks(masks)) } else { Ok(fields) }
    }

    fn vlan<'a>(rules: impl Iterator<Item = &'a AclRule>) -> Self {
        let mut starts = BTreeSet::from([0]);
        for range in rules.flat_map(|rule| &rule.vlan) {
            starts.extend([usize::from(range.first.get()), usize::from(range.last.get()) + 1]);
        }
        let mut table = Vec::with_capacity(VLANS);
        let ends = starts.iter().skip(1).copied().chain([VLANS]);
        ends.zip(UNKNOWN + 1..).for_each(|(end, class)| table.resize(end, class));
        Self::Vlan(table.into(), UNKNOWN + 1 + starts.len() as u16)
    }

    /// How many classes it has.
    pub fn len(&self) -> u16 {
        match self {
            Self::Flags => 1 + 256,
            Self::Part => 1 + 3,
            Self::Vlan(_, len) => *len,
            Self::Mac { classes, .. } => classes.len() as u16 + 1,
        }
    }

    /// The class of a packet.
    #[inline]
    fn of(&self, header: &Header, probes: impl Probes) -> u16 {
        match self {
            Self::Flags => header.flags.map_or(UNKNOWN, |flags| u16::from(flags) + 1),
            Self::Part if header.ends.is_none() => UNKNOWN,
            Self::Part => header.part as u16 + 1,
            Self::Vlan(table, _) => {
                let class = |vlan: u16| {
                    probes.probe();
                    table.get(usize::from(vlan)).copied()
                };
                header.frame.and_then(|frame| class(frame.vlan)).unwrap_or(UNKNOWN)
            }
            Self::Mac { end, mask, classes } => {
                let class = |mac: u64| {
                    probes.probe();
                    classes.get(&(mac & mask)).copied()
                };
                header.frame.and_then(|frame| class(frame.macs[*end])).unwrap_or(UNKNOWN)
            }
        }
    }

    /// Whether its class stands in a table.
    pub fn is_looked_up(&self) -> bool {
        matches!(self, Self::Vlan(..) | Self::Mac { .. })
    }

    /// Whether a rule names it.
    pub fn is_named(&self, rule: &AclRule) -> bool {
        match self {
            Self::Flags => rule.tcp_flags.is_some(),
            Self::Part => rule.fragment.is_some(),
            Self::Vlan(..) => !rule.vlan.is_empty(),
            Self::Mac { end, mask, .. } => macs(rule, *end).any(|it| it.mask.to_u64() == *mask),
        }
    }

    /// The classes that a rule is about.
    pub fn ranges(&self, rule: &AclRule) -> Vec<Range<u16>> {
        let one = |class: u16| class..class + 1;
        if !self.is_named(rule) {
            return std::iter::once(0..self.len()).collect();
        }
        match self {
            Self::Flags => {
                let fit = |flags: &u8| rule.tcp_flags.is_some_and(|wanted| wanted.fit(*flags));
                (0..=u8::MAX).filter(fit).map(|flags| one(u16::from(flags) + 1)).collect()
            }
            Self::Part => {
                let fit = |part: &Part| rule.fragment.is_some_and(|wanted| is_part(wanted, *part));
                let parts = [Part::Whole, Part::First, Part::Later];
                parts.into_iter().filter(fit).map(|part| one(part as u16 + 1)).collect()
            }
            Self::Vlan(table, _) => {
                let class = |vlan: switch_api::Vid| table[usize::from(vlan.get())];
                rule.vlan.iter().map(|range| class(range.first)..class(range.last) + 1).collect()
            }
            Self::Mac { end, classes, .. } => macs(rule, *end)
                .filter_map(|it| classes.get(&it.mac.to_u64()))
                .map(|class| one(*class))
                .collect(),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Flags | Self::Part => 0,
            Self::Vlan(table, _) => size_of_val(&**table),
            Self::Mac { classes, .. } => 2 * classes.len() * size_of::<(u64, u16)>(),
        }
    }
}

fn macs(rule: &AclRule, end: usize) -> impl Iterator<Item = &MacMask> {
    if end == 0 { rule.source_mac.iter() } else { rule.destination_mac.iter() }
}

/// Whether a part of a packet is what is wanted.
pub(super) fn is_part(wanted: FragmentMatch, part: Part) -> bool {
    match wanted {
        FragmentMatch::Any => part != Part::Whole,
        FragmentMatch::First => part == Part::First,
        FragmentMatch::Later => part == Part::Later,
        FragmentMatch::None => part == Part::Whole,
    }
}
