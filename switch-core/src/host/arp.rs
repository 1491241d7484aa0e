//! ARP (RFC 826), for Ethernet and IPv4.

use super::{from_v4, mac_bytes, mac_word, v4};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

/// Bytes of a packet.
pub const LEN: usize = 28;

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// It asks; else it answers.
    pub asks: bool,
    /// The sender's station.
    pub sender_mac: u64,
    /// The sender's address, IPv4-mapped; 0.0.0.0 if it only wants to know (RFC 5227).
    pub sender: u128,
    /// The station that is answered; meaningless in a question.
    pub target_mac: u64,
    /// The address that is asked for.
    pub target: u128,
}

impl Arp {
    /// Whether the sender says that the address is its own, and nothing else.
    pub fn is_announcement(&self) -> bool {
        self.sender == self.target
    }
}

/// Reads a packet; none if it is not ARP for Ethernet and IPv4.
pub fn read(packet: &[u8]) -> Option<Arp> {
    match ArpRepr::parse(&ArpPacket::new_checked(packet).ok()?).ok()? {
        ArpRepr::EthernetIpv4 {
            operation: operation @ (ArpOperation::Request | ArpOperation::Reply),
            source_hardware_addr,
            source_protocol_addr,
            target_hardware_addr,
            target_protocol_addr,
        } => Some(Arp {
            asks: operation == ArpOperation::Request,
            sender_mac: mac_word(source_hardware_addr.as_bytes()),
            sender: from_v4(source_protocol_addr),
            target_mac: mac_word(target_hardware_addr.as_bytes()),
            target: from_v4(target_protocol_addr),
        }),
        _ => None,
    }
}

/// Writes a packet into the first [`LEN`] bytes of `out`.
pub fn write(out: &mut [u8], arp: &Arp) -> usize {
    let repr = ArpRepr::EthernetIpv4 {
        operation: if arp.asks { ArpOperation::Request } else { ArpOperation::Reply },
        source_hardware_addr: EthernetAddress(mac_bytes(arp.sender_mac)),
        source_protocol_addr: v4(arp.sender),
        target_hardware_addr: EthernetAddress(mac_bytes(arp.target_mac)),
        target_protocol_addr: v4(arp.target),
    };
    repr.emit(&mut ArpPacket::new_unchecked(&mut out[..LEN]));
    LEN
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::ArpPacketSlice;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(asks: bool, macs in any::<[[u8; 6]; 2]>(), ips: [u32; 2]) {
            let ip = |n: usize| from_v4(ips[n].into());
            let arp = Arp { asks, sender_mac: mac_word(&macs[0]), sender: ip(0), target_mac: mac_word(&macs[1]), target: ip(1) };
            let mut out = [0; LEN];
            prop_assert_eq!(write(&mut out, &arp), LEN);
            prop_assert_eq!(read(&out), Some(arp));
            // And by the second opinion.
            let slice = ArpPacketSlice::from_slice(&out).unwrap();
            prop_assert_eq!(slice.sender_hw_addr(), &macs[0][..]);
            prop_assert_eq!(slice.target_protocol_addr(), &ips[1].to_be_bytes()[..]);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            _ = read(&bytes);
        }
    }
}
