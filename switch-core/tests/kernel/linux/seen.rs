//! What came out, without what may differ between two routers that do the same.

use super::topology::Topology;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switch_core::wire::checksum::{fold, sum};

/// A packet that came in, and what a reader wants to know of it.
pub struct Case<'a> {
    /// Where.
    pub topology: &'a Topology,
    /// The link it came in by.
    pub link: usize,
    /// From the IP header on.
    pub packet: &'a [u8],
    /// It has an IPv6 EtherType.
    pub v6: bool,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
}

/// Something that came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// By which link.
    pub link: usize,
    /// To which station.
    pub to: [u8; 6],
    /// What.
    pub what: What,
}

/// What came out.
#[derive(Clone, PartialEq, Eq)]
pub enum What {
    /// The packet, or a piece of it, as it is.
    Passed(Vec<u8>),
    /// The router's own: from, to, protocol, type and code and the word that follows, and the rest.
    Said(IpAddr, IpAddr, u8, [u8; 6], Vec<u8>),
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Passed(packet) => {
                write!(f, "passed {} bytes {:02x?}", packet.len(), &packet[..packet.len().min(28)])
            }
            Self::Said(src, dst, protocol, [kind, code, word @ ..], rest) => {
                write!(
                    f,
                    "said {src} -> {dst} protocol {protocol}: {kind}/{code} {word:?} and {} bytes",
                    rest.len()
                )
            }
        }
    }
}

fn addresses(packet: &[u8], v6: bool) -> (IpAddr, IpAddr) {
    let four = |at: usize| {
        IpAddr::from(Ipv4Addr::from_bits(u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())))
    };
    let six = |at: usize| {
        IpAddr::from(Ipv6Addr::from_bits(u128::from_be_bytes(packet[at..at + 16].try_into().unwrap())))
    };
    if v6 { (six(8), six(24)) } else { (four(12), four(16)) }
}

/// What a router may change in a packet that it quotes: the hops it had left, and its checksum.
fn blur(quote: &mut [u8]) {
    match quote.first().map(|byte| byte >> 4) {
        Some(4) if quote.len() >= 20 => {
            quote[8] = 0;
            quote[10..12].fill(0);
        }
        Some(6) if quote.len() >= 40 => quote[7] = 0,
        _ => {}
    }
}

impl<'a> Case<'a> {
    /// Of a frame without a tag.
    pub fn new(topology: &'a Topology, link: usize, frame: &'a [u8]) -> Self {
        let (packet, v6) = (&frame[14..], frame[12] == 0x86);
        let (src, dst) = addresses(packet, v6);
        Self { topology, link, packet, v6, src, dst }
    }

    /// What came of it.
    pub fn see(&self, frames: Vec<(usize, Vec<u8>)>) -> Vec<Seen> {
        let mut seen: Vec<Seen> = frames.into_iter().map(|(link, frame)| self.look(link, &frame)).collect();
        // Links are emptied one after the other: the order among them says nothing.
        seen.sort_by_key(|seen| seen.link);
        seen
    }

    fn look(&self, link: usize, frame: &[u8]) -> Seen {
        let to = frame[..6].try_into().unwrap();
        let v6 = frame[12] == 0x86;
        let len = if v6 {
            40 + usize::from(u16::from_be_bytes([frame[18], frame[19]]))
        } else {
            u16::from_be_bytes([frame[16], frame[17]]).into()
        };
        // Behind it is what a device fills up with.
        let packet = &frame[14..14 + len];
        let (src, dst) = addresses(packet, v6);
        if (src, dst) == (self.src, self.dst) {
            return Seen { link, to, what: What::Passed(packet.to_vec()) };
        }
        let (protocol, at) = if v6 { (packet[6], 40) } else { (packet[9], usize::from(packet[0] & 0xf) * 4) };
        if !v6 {
            assert_eq!(fold(sum(&packet[..at])), 0xffff, "a header's checksum: {packet:02x?}");
        }
        let message = &packet[at..];
        let word = |at: usize| message.get(at).copied().unwrap_or(0);
        let mut rest = message.get(8..).unwrap_or_default().to_vec();
        if matches!(protocol, 1 | 58) {
            let pseudo = if v6 { sum(&packet[8..40]) + message.len() as u64 + 58 } else { 0 };
            let is_piece = !v6 && (packet[6] & 0x3f != 0 || packet[7] != 0);
            assert!(is_piece || fold(sum(message) + pseudo) == 0xffff, "a message's checksum: {packet:02x?}");
            if self.packet.get(..4) == rest.get(..4) {
                blur(&mut rest);
            }
        }
        Seen {
            link,
            to,
            what: What::Said(
                src,
                dst,
                protocol,
                [word(0), word(1), word(4), word(5), word(6), word(7)],
                rest,
            ),
        }
    }

    /// Bytes of the IP header that are there.
    pub fn header_len(&self) -> usize {
        if self.v6 { 40 } else { usize::from(self.packet[0] & 0xf) * 4 }
    }

    /// The protocol, or the first next header.
    pub fn protocol(&self) -> u8 {
        self.packet[if self.v6 { 6 } else { 9 }]
    }

    /// It is a fragment of IPv4.
    pub fn is_fragment(&self) -> bool {
        !self.v6 && (self.packet[6] & 0x3f != 0 || self.packet[7] != 0)
    }

    /// It is for the router, by any of its addresses.
    pub fn is_for_router(&self) -> bool {
        self.topology.is_router(self.dst) || self.is_for_shared()
    }

    /// It is for a network's routers, whichever (RFC 4291 §2.6.1).
    pub fn is_for_shared(&self) -> bool {
        let mut own = self.topology.links.iter().flat_map(|link| &link.addresses);
        self.v6 && own.any(|own| own.len < 127 && own.network().address == self.dst)
    }

    /// Its source is no station of the link it came by.
    pub fn is_from_nobody_here(&self) -> bool {
        self.topology.answers(self.link, self.src).is_none()
    }
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { link, packet, v6, src, dst, .. } = self;
        let ttl = packet[if *v6 { 7 } else { 8 }];
        write!(
            f,
            "by link {link}: {src} -> {dst} protocol {} ttl {ttl} header {} bytes {}",
            self.protocol(),
            self.header_len(),
            packet.len()
        )
    }
}
