//! What the fuzz target `acl` does with its bytes: they become lists, ports and packets, and the compiled tables say of every
//! packet what their dull twin says.

use crate::acl::compile::compile;
use crate::acl::sets::{MemberChange, Set, Sets};
use crate::acl::{Candidate, Compiled, FrameHead, Header, Input, Part, Placed, check, plain, slots_of};
use crate::wire::hop::V4_MAPPED;
use std::collections::BTreeMap;
use std::net::IpAddr;
use switch_api::{
    Acl, AclAction, AclPorts, AclRule, AclTier, FragmentMatch, IcmpKind, IpProtocol, Mac, MacMask, Name,
    Owner, PolicyType, PortRange, Prefix, TcpFlags,
};

/// Address sets there are.
pub(super) const SETS: usize = 2;

/// Bytes, as long as there are some; then zeros.
pub(crate) struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl<'a> Bytes<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data.iter())
    }

    /// So many as they are, or those that are left.
    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.as_slice().split_at(len.min(self.0.len()));
        self.0 = rest.iter();
        taken
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    pub(super) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.len() == 0
    }

    /// Up to `max` of something.
    pub(super) fn several<T>(&mut self, max: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.byte() % (max + 1)).map(|_| one(self)).collect()
    }

    /// An address of few, so that packets meet rules.
    pub(super) fn address(&mut self) -> IpAddr {
        let [kind, low] = [self.byte(), self.byte()];
        match kind & 1 == 1 {
            true => IpAddr::from([10, kind >> 6, low >> 4, low & 15]),
            false => IpAddr::from([
                0xfd00,
                0,
                u16::from(kind >> 6),
                0,
                0,
                0,
                u16::from(low >> 4),
                u16::from(low & 15),
            ]),
        }
    }

    pub(super) fn prefix(&mut self) -> Prefix {
        let (address, len) = (self.address(), self.byte());
        let bits = Prefix::host(address).bits();
        Prefix { address, len: len % (bits + 1) }.network()
    }

    pub(super) fn range(&mut self) -> PortRange {
        let (one, other) = (self.word(), self.word());
        PortRange { first: one.min(other), last: one.max(other) }
    }

    fn protocol(&mut self) -> u8 {
        let byte = self.byte();
        *[6, 17, 132, 1, 58].get(usize::from(byte % 8)).unwrap_or(&byte)
    }

    fn rule(&mut self) -> AclRule {
        let byte = self.byte();
        // The first three as ever: what was found with them is kept as data.
        let action = match (byte % 3, byte & 0x80 != 0) {
            (0, _) => AclAction::Allow,
            (1, false) => AclAction::Deny,
            (1, true) => AclAction::Reject,
            _ => AclAction::Pass,
        };
        let protocol = (self.byte() & 3 != 0).then(|| IpProtocol(self.protocol()));
        let flags = self.byte();
        let mut rule =
            AclRule { protocol, staged: flags & 3 == 3, log: byte & 0x40 != 0, ..AclRule::all(action) };
        let sets =
            |at: u8| (0..SETS).filter(|n| flags >> at >> n & 1 == 1).filter_map(|n| name("s", n)).collect();
        (rule.source_sets, rule.destination_sets) = (sets(2), sets(4));
        // A rule that names flags names one.
        let mask = byte & 0x37;
        rule.tcp_flags = (flags & 0x40 != 0 && protocol == Some(IpProtocol::TCP) && mask != 0)
            .then_some(TcpFlags { mask, value: byte & 0x12 });
        if flags & 0x80 != 0 {
            let wanted =
                [FragmentMatch::Any, FragmentMatch::First, FragmentMatch::Later, FragmentMatch::None];
            rule.fragment = wanted.get(usize::from(self.byte() & 7)).copied();
            let mask = if byte & 8 != 0 { MacMask::ALL } else { Mac([0xff, 0xff, 0xff, 0xf0, 0, 0]) };
            let mac = |bits: u64| MacMask { mac: Mac::from_u64(bits & mask.to_u64()), mask };
            rule.source_mac = self.several(2, |bytes| mac(bytes.mac()));
            rule.destination_mac = self.several(1, |bytes| mac(bytes.mac()));
        }
        rule.source = self.several(2, Self::prefix);
        rule.destination = self.several(2, Self::prefix);
        if protocol.is_some_and(IpProtocol::has_ports) {
            rule.source_ports = self.several(2, Self::range);
            rule.destination_ports = self.several(2, Self::range);
        }
        if protocol.is_some_and(IpProtocol::is_icmp) {
            rule.icmp = self.several(2, |bytes| {
                let (kind, code) = (bytes.byte(), bytes.word());
                IcmpKind { kind, code: (code & 1 == 1).then_some((code >> 8) as u8) }
            });
        }
        rule
    }

    pub(super) fn list(&mut self, n: usize) -> Option<Acl> {
        let tier = if self.byte() & 1 == 1 { AclTier::After } else { AclTier::Before };
        let whom = self.byte();
        let ports = (0..3).filter(|port| whom >> port & 1 == 1).filter_map(|port| name("p", port)).collect();
        Some(Acl {
            name: name("l", n)?,
            tier,
            stateless: whom & 64 != 0,
            priority: u16::from(self.byte() & 3),
            applies_to: AclPorts { ports, workloads: None, all: whom & 128 != 0 },
            ingress: self.several(6, Self::rule),
            egress: self.several(6, Self::rule),
            owner: Owner::Operator,
        })
    }

    /// One of few.
    fn mac(&mut self) -> u64 {
        let byte = u64::from(self.byte());
        0x02_00_00_00_00_00 | (byte >> 4) << 16 | byte & 3
    }

    /// A member comes to a set or goes.
    fn change(&mut self) -> Option<MemberChange> {
        let [set, is] = [self.byte(), self.byte()];
        Some(MemberChange {
            set: name("s", usize::from(set) % SETS)?,
            member: self.prefix(),
            is: is & 3 != 3,
        })
    }

    /// None: something else happens before the next packet.
    fn header(&mut self) -> Option<Header> {
        match self.byte() {
            0 => return Some(Header::NOT_IP),
            0xa5 => return None,
            _ => {}
        }
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => V4_MAPPED | u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let ends = [bits(self.address()), bits(self.address())];
        let has = self.byte();
        Some(Header {
            ends: Some(ends),
            protocol: self.protocol(),
            source_port: (has & 1 == 1).then(|| self.word()),
            number: (has & 2 == 2).then(|| self.word()),
            flags: (has & 4 == 4).then_some(has),
            part: *[Part::Whole, Part::First, Part::Later]
                .get(usize::from(has >> 3 & 3))
                .unwrap_or(&Part::Whole),
            frame: (has & 32 == 32)
                .then(|| FrameHead { macs: [self.mac(), self.mac()], vlan: self.word() & 0xfff }),
        })
    }
}

pub(super) fn name(kind: &str, n: usize) -> Option<Name> {
    format!("{kind}{n}").parse().ok()
}

/// See the module.
pub fn acl(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let lists: Vec<Acl> = (0..usize::from(bytes.byte() % 6)).filter_map(|n| bytes.list(n)).collect();
    // What is refused is looked at, and compiled all the same.
    lists.iter().for_each(|list| _ = check::acl(list));
    let mut slot = 0;
    let place = |acl| {
        let placed = Placed { acl, slot };
        slot += slots_of(acl);
        placed
    };
    let acls: Vec<Placed> = lists.iter().map(place).collect();
    let names: Vec<Name> = (0..3).filter_map(|n| name("p", n)).collect();
    let ports = names
        .iter()
        .zip(0..)
        .map(|(name, port)| Candidate { port, name, workload: None, defaults: Default::default() })
        .collect();
    let (namespaces, mut packets, mut sets) = (BTreeMap::new(), 0, Sets::default());
    (0..SETS).filter_map(|n| name("s", n)).for_each(|name| sets.insert(name, Set::default()));
    let input = Input { acls, ports, namespaces: &namespaces, sets: &sets.clone() };
    let Ok(mut compiled) = compile(&input) else { return };
    while packets < 64 && !(bytes.is_over() && packets > 0) {
        packets += 1;
        let Some(header) = bytes.header() else {
            follow(&mut compiled, &mut sets, bytes.several(4, Bytes::change));
            continue;
        };
        let input = Input { sets: &sets, ..input.clone() };
        for (port, direction) in
            (0..3).flat_map(|port| [(port, PolicyType::Ingress), (port, PolicyType::Egress)])
        {
            let chains = compiled.subject(port).chains(direction);
            for (tier, chains) in [(AclTier::Before, chains.before), (AclTier::After, chains.after)] {
                let ours = chains.enforced.and_then(|chain| compiled.judge(chain, &header));
                let twin = |staged| plain::judge(&input, port, direction, tier, staged, &header);
                let place = || format!("port {port} {direction:?} {tier:?} {header:?} {lists:?}");
                assert_eq!(ours, twin(false), "{}", place());
                let rehearsed = twin(true).filter(|ruling| ruling.staged);
                assert_eq!(compiled.rehearse(chains, &header), rehearsed, "{}", place());
            }
        }
    }
}

/// Members of sets come and go, and the tables follow.
fn follow(compiled: &mut Compiled, sets: &mut Sets, changes: Vec<Option<MemberChange>>) {
    let mut changes: Vec<MemberChange> = changes.into_iter().flatten().collect();
    changes.retain(|change| {
        let mut set = sets.get(&change.set).cloned().unwrap_or_default();
        let is_new = set.put(change.member, change.is);
        sets.insert(change.set.clone(), set);
        is_new
    });
    if let Ok(Some(changed)) = compiled.changed(&changes, sets) {
        *compiled = changed;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        /// Not only what a fuzzer finds.
        #[test]
        fn arbitrary_bytes_agree(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::acl(&data);
        }
    }
}
