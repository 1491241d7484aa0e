//! Router advertisements (RFC 4861 §4.2): hosts learn their default router, the link's MTU and its networks, and make
//! addresses for themselves (RFC 4862).

use super::{ipv6_header, mac_bytes, v6};
use arrayvec::ArrayVec;
use smoltcp::time::Duration;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, NdiscOption, NdiscOptionRepr, NdiscPrefixInfoFlags,
    NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
};
use switch_api::RouterAdvert;

/// Networks that one advertisement names: what fits any link (RFC 8200 §5: 1 280 bytes), with room to spare.
pub const NETWORKS_MAX: usize = 32;
/// Networks beside them that hosts are told not to use any more: what one link loses within two hours. With them it still fits.
pub const WITHDRAWN_MAX: usize = 4;
/// Seconds that an address made of a network is valid, and preferred (RFC 4861 §6.2.1).
const VALID_S: u64 = 2_592_000;
const PREFERRED_S: u64 = 604_800;
/// A network of which hosts can make addresses over Ethernet (RFC 2464 §4).
pub const AUTONOMOUS_LEN: u8 = 64;
/// Only neighbours can send this (RFC 4861 §6.1.2).
const HOP_LIMIT: u8 = 255;

/// Networks of [`AUTONOMOUS_LEN`] that a router had.
pub type Withdrawn = ArrayVec<u128, WITHDRAWN_MAX>;

/// A router, as it speaks of itself.
#[derive(Clone, Copy, Debug)]
pub struct Router {
    /// Its station.
    pub mac: u64,
    /// Its link-local address.
    pub link_local: u128,
}

/// Writes what `router` says of itself, of a link of `mtu` bytes (0: unknown), of its `networks`, each with the length of
/// its prefix, and of those that it had and lost; its length.
pub fn write(
    out: &mut [u8],
    dst: u128,
    router: Router,
    advert: &RouterAdvert,
    mtu: u16,
    networks: impl Iterator<Item = (u128, u8)>,
    lost: &Withdrawn,
) -> usize {
    let mut flags = NdiscRouterFlags::empty();
    flags.set(NdiscRouterFlags::MANAGED, advert.managed);
    flags.set(NdiscRouterFlags::OTHER, advert.other);
    let networks = networks.take(NETWORKS_MAX).map(|(network, len)| {
        let mut flags = NdiscPrefixInfoFlags::ON_LINK;
        flags.set(NdiscPrefixInfoFlags::ADDRCONF, advert.autonomous && len == AUTONOMOUS_LEN);
        NdiscPrefixInformation {
            prefix_len: len,
            flags,
            valid_lifetime: Duration::from_secs(VALID_S),
            preferred_lifetime: Duration::from_secs(PREFERRED_S),
            prefix: v6(network),
        }
    });
    say(
        out,
        dst,
        router,
        advert.lifetime_s(),
        flags,
        (mtu > 0).then_some(mtu),
        networks.chain(withdrawn(lost)),
    )
}

/// Writes that `router` is no router any more (RFC 4861 §6.2.5), and has `lost` these networks; its length.
pub fn write_last(out: &mut [u8], dst: u128, router: Router, lost: &Withdrawn) -> usize {
    say(out, dst, router, 0, NdiscRouterFlags::empty(), None, withdrawn(lost))
}

/// Networks whose addresses are not to be used for anything new. With a valid lifetime of 0 those there are last two hours
/// more at most, and nobody makes one (RFC 4862 §5.5.3 d, e); what is on the link stays on it.
fn withdrawn(lost: &Withdrawn) -> impl Iterator<Item = NdiscPrefixInformation> {
    lost.iter().map(|network| NdiscPrefixInformation {
        prefix_len: AUTONOMOUS_LEN,
        flags: NdiscPrefixInfoFlags::ADDRCONF,
        valid_lifetime: Duration::ZERO,
        preferred_lifetime: Duration::ZERO,
        prefix: v6(*network),
    })
}

fn say(
    out: &mut [u8],
    dst: u128,
    router: Router,
    lifetime_s: u16,
    flags: NdiscRouterFlags,
    mtu: Option<u16>,
    networks: impl Iterator<Item = NdiscPrefixInformation>,
) -> usize {
    let src = router.link_local;
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit: super::TTL,
        flags,
        router_lifetime: Duration::from_secs(u64::from(lifetime_s)),
        // Neither is for us to say: hosts keep their own.
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: Some(EthernetAddress(mac_bytes(router.mac)).into()),
        mtu: mtu.map(u32::from),
        prefix_info: None,
    });
    let at = ipv6_header(out, src, dst, HOP_LIMIT, 0);
    let mut end = at + repr.buffer_len();
    let message = &mut Icmpv6Packet::new_unchecked(&mut out[at..end]);
    repr.emit(&v6(src), &v6(dst), message, &super::checksums());
    // The representation has room for one network.
    for network in networks {
        let option = NdiscOptionRepr::PrefixInformation(network);
        let len = option.buffer_len();
        option.emit(&mut NdiscOption::new_unchecked(&mut out[end..end + len]));
        end += len;
    }
    ipv6_header(out, src, dst, HOP_LIMIT, end - at);
    Icmpv6Packet::new_unchecked(&mut out[at..end]).fill_checksum(&v6(src), &v6(dst));
    end
}

#[cfg(test)]
mod tests {
    use super::super::PACKET_LEN_MAX;
    use super::*;
    use crate::host::nd;
    use etherparse::{Icmpv6Slice, Ipv6HeaderSlice};

    const ROUTER: Router = Router { mac: 0x0200_0000_0001, link_local: 0xfe80 << 112 | 1 };

    /// The second of them is no /64.
    fn networks(count: u16) -> impl Iterator<Item = (u128, u8)> {
        (0..count).map(|n| (0xfd00 << 112 | u128::from(n) << 96, if n == 1 { 80 } else { 64 }))
    }

    /// The options of a packet whose checksum another reader finds right.
    fn options(packet: &[u8]) -> Vec<Vec<u8>> {
        let header = Ipv6HeaderSlice::from_slice(packet).unwrap();
        assert_eq!((header.hop_limit(), usize::from(header.payload_length())), (255, packet.len() - 40));
        let icmp = Icmpv6Slice::from_slice(&packet[40..]).unwrap();
        assert!(icmp.is_checksum_valid(header.source(), header.destination()));
        assert_eq!(icmp.type_u8(), 134);
        let (mut rest, mut all) = (&packet[56..], Vec::new());
        while !rest.is_empty() {
            let (option, tail) = rest.split_at(usize::from(rest[1]) * 8);
            all.push(option.to_vec());
            rest = tail;
        }
        all
    }

    #[test]
    fn hosts_are_told_of_router_link_and_networks() {
        let mut out = [0; PACKET_LEN_MAX];
        let advert = RouterAdvert { interval_s: 100, other: true, ..RouterAdvert::default() };
        let len = write(&mut out, nd::ALL_NODES, ROUTER, &advert, 1400, networks(2), &Withdrawn::default());
        assert_eq!((out[44], out[45], &out[46..48]), (64, 0x40, &300u16.to_be_bytes()[..]));
        let options = options(&out[..len]);
        assert_eq!(options[0], [1, 1, 2, 0, 0, 0, 0, 1]);
        assert_eq!(options[1], [5, 1, 0, 0, 0, 0, 5, 120]);
        // On-link both; only of the /64 can addresses be made.
        assert_eq!((&options[2][..4], &options[3][..4]), (&[3, 4, 64, 0xc0][..], &[3, 4, 80, 0x80][..]));
        assert_eq!(options[2][16..], "fd00::".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(options.len(), 4);
    }

    #[test]
    fn the_last_word_is_that_it_is_no_router() {
        let mut out = [0; PACKET_LEN_MAX];
        let lost = [0xfd07 << 112].into_iter().collect();
        let len = write_last(&mut out, nd::ALL_NODES, ROUTER, &lost);
        let options = options(&out[..len]);
        assert_eq!((out[46], out[47], options.len()), (0, 0, 2));
        // Not said to be on the link, and for no time: neither valid nor preferred.
        assert_eq!(options[1][..12], [3, 4, 64, 0x40, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(options[1][16..], "fd07::".parse::<std::net::Ipv6Addr>().unwrap().octets());
    }

    #[test]
    fn as_many_networks_as_fit_any_link() {
        let mut out = [0; PACKET_LEN_MAX];
        let lost = Withdrawn::from([1, 2, 3, 4]);
        let len =
            write(&mut out, nd::ALL_NODES, ROUTER, &RouterAdvert::default(), 1500, networks(100), &lost);
        assert_eq!(options(&out[..len]).len(), 2 + NETWORKS_MAX + WITHDRAWN_MAX);
        assert!(len <= 1280);
    }
}
