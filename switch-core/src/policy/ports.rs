//! Classes of ports: ports that no rule tells apart have one class, found by one look into a table.

use super::compile::TooMuch;
use crate::table::probes::Probes;
use crate::wire::ip::{SCTP, TCP, UDP};
use std::collections::BTreeSet;
use std::ops::Range;
use switch_api::Protocol;

/// Ports there are.
const PORTS: usize = 1 << 16;
/// The class of every protocol that policies know no ports of.
const OTHER: u16 = 0;
/// The first of the classes of a protocol's packets without a port: later fragments.
const PORTLESS: u16 = 1;
/// The first of the others.
const FIRST: u16 = PORTLESS + Protocol::ALL.len() as u16;

/// Ports that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ports {
    /// Of any protocol, also of those that have none.
    All,
    /// All of a protocol.
    Of(Protocol),
    /// From one to another, that one too.
    Range(Protocol, u16, u16),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Classes {
    /// Class by protocol and port; empty as long as no rule names a port.
    table: Box<[u16]>,
    /// Classes of each protocol's ports.
    of: [Range<u16>; Protocol::ALL.len()],
    /// How many there are.
    pub len: u16,
}

impl Default for Classes {
    fn default() -> Self {
        let of = std::array::from_fn(|n| FIRST + n as u16..FIRST + n as u16 + 1);
        Self { table: Box::default(), of, len: FIRST + Protocol::ALL.len() as u16 }
    }
}

impl Classes {
    /// Classes that tell apart what `all` tell apart.
    pub fn new(all: &[Ports]) -> Result<Self, TooMuch> {
        let mut starts: [BTreeSet<u32>; Protocol::ALL.len()] = std::array::from_fn(|_| BTreeSet::from([0]));
        for ports in all {
            if let Ports::Range(protocol, first, last) = *ports {
                starts[protocol as usize].extend([u32::from(first), u32::from(last) + 1]);
            }
        }
        starts.iter_mut().for_each(|starts| _ = starts.remove(&(PORTS as u32)));
        let len = usize::from(FIRST) + starts.iter().map(BTreeSet::len).sum::<usize>();
        if len > usize::from(u16::MAX) {
            return Err(TooMuch::Classes(len));
        }
        if starts.iter().all(|starts| starts.len() == 1) {
            return Ok(Self::default());
        }
        let (mut table, mut next) = (Vec::with_capacity(Protocol::ALL.len() * PORTS), FIRST);
        let of = starts.map(|starts| {
            let (first, begin) = (next, table.len());
            // A class reaches to where the next one begins; the last one to the end.
            for end in starts.iter().skip(1).map(|start| *start as usize).chain([PORTS]) {
                table.resize(begin + end, next);
                next += 1;
            }
            first..next
        });
        Ok(Self { table: table.into(), of, len: next })
    }

    /// The class of a port, if it is known, of a protocol.
    #[inline]
    pub fn of(&self, protocol: u8, port: Option<u16>, probes: impl Probes) -> u16 {
        let protocol = match protocol {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            SCTP => Protocol::Sctp,
            _ => return OTHER,
        } as usize;
        match port {
            None => PORTLESS + protocol as u16,
            Some(port) => {
                probes.probe();
                match self.table.get(protocol * PORTS + usize::from(port)) {
                    Some(class) => *class,
                    None => FIRST + protocol as u16,
                }
            }
        }
    }

    /// The first port of each class of a protocol's ports, in order.
    pub fn starts(&self, protocol: Protocol) -> Vec<u16> {
        let from = protocol as usize * PORTS;
        let Some(table) = self.table.get(from..from + PORTS) else { return vec![0] };
        let begins = |port: &u16| *port == 0 || table[usize::from(*port)] != table[usize::from(*port) - 1];
        (0..=u16::MAX).filter(begins).collect()
    }

    /// The classes that a rule's ports are.
    pub fn ranges(&self, ports: Ports) -> Vec<Range<u16>> {
        match ports {
            Ports::All => std::iter::once(0..self.len).collect(),
            Ports::Of(protocol) => {
                let portless = PORTLESS + protocol as u16;
                vec![portless..portless + 1, self.of[protocol as usize].clone()]
            }
            Ports::Range(protocol, first, last) => {
                let class = |port: u16| match self.table.get(protocol as usize * PORTS + usize::from(port)) {
                    Some(class) => *class,
                    None => FIRST + protocol as u16,
                };
                std::iter::once(class(first)..class(last) + 1).collect()
            }
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.table)
    }
}
