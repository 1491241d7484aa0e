//! What a flow is told by: addresses, protocol, ports, and the words of TCP, ICMP and SCTP that say how far a
//! conversation has come. Read once, at the door; every offset handed out lies inside the packet.

use super::hop::V4_MAPPED;
use super::ip::{self, ICMP, ICMPV6, Ip, SCTP, TCP, UDP, Version};
use super::{Malformed, be16, be32};

/// A TCP header without options (RFC 9293 §3.1).
const TCP_HEADER_LEN: usize = 20;
/// A UDP header (RFC 768), and all that ICMP needs to say of a query.
const SHORT_HEADER_LEN: usize = 8;
/// The common header and the first chunk's (RFC 9260 §3).
const SCTP_HEADER_LEN: usize = 16;
/// An IPv4 header without options, and as much of what follows as every transport has.
pub(super) const PLAIN_LEN: usize = V4_HEADER_LEN + SHORT_HEADER_LEN;
/// An IPv4 header without options (RFC 791 §3.1), and its first byte.
pub(super) const V4_HEADER_LEN: usize = 20;
const V4_WITHOUT_OPTIONS: u8 = 0x45;
/// Of IPv4's flags and offset: what only fragments have.
const MORE_OR_OFFSET: u16 = 0x3fff;
/// UDP-Lite (RFC 3828): ports lie as in UDP.
const UDP_LITE: u8 = 136;
/// The largest shift of a window that counts (RFC 7323 §2.3).
pub const SCALE_MAX: u8 = 14;

/// TCP flags, as bits of the header's fourteenth byte.
pub mod flags {
    /// No more from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// The acknowledgement counts.
    pub const ACK: u8 = 16;
    /// The urgent pointer counts.
    pub const URG: u8 = 32;
}

/// A TCP segment, or a train of them: then all its payload counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Next byte expected from the other side.
    pub ack: u32,
    /// See [`flags`].
    pub flags: u8,
    /// As it stands in the header, not scaled.
    pub window: u16,
    /// Bytes of payload.
    pub len: u32,
    /// Window scale that a SYN offers.
    pub scale: Option<u8>,
}

/// The first chunk of an SCTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sctp {
    /// Verification tag.
    pub tag: u32,
    /// Type of the first chunk.
    pub chunk: u8,
    /// Its flags.
    pub chunk_flags: u8,
    /// Of INIT and INIT ACK: the tag its sender wants to see.
    pub initiate: u32,
}

/// What lies behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp,
    /// SCTP.
    Sctp(Sctp),
    /// An ICMP question that expects an answer (echo, timestamp), or the answer.
    Query {
        /// It is the answer.
        answer: bool,
    },
    /// An ICMP error; what it quotes begins here.
    Error {
        /// From the packet's first byte.
        quote_at: usize,
    },
    /// ICMP that belongs to the link or is no query: neighbour discovery, router advertisements, redirects.
    Control,
    /// Another protocol.
    Other,
    /// A later fragment: what it belongs to is known by its first.
    Later,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source; IPv4 is IPv4-mapped.
    pub src: u128,
    /// Destination.
    pub dst: u128,
    /// Protocol of the transport header.
    pub protocol: u8,
    /// Ports, source first; a query's identifier twice; 0 where there are none.
    pub ports: [u16; 2],
    /// ICMP type and code.
    pub icmp: [u8; 2],
    /// What the transport header says.
    pub content: Content,
    /// Fragment facts; none for a whole packet.
    pub fragment: Option<Fragment>,
}

/// What tells the flow of nearly all packets: IPv4 without options, not a fragment, UDP or TCP. Small enough for registers; what the
/// transport header says beside is a [`Content`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Source.
    pub src: u32,
    /// Destination.
    pub dst: u32,
    /// Ports, source first.
    pub ports: [u16; 2],
    /// UDP or TCP.
    pub protocol: u8,
}

impl Plain {
    /// Reads one, and hands on what TCP says. Each field is read once, at a place that is known. None: it is another packet or none, and what
    /// was handed on does not count.
    #[inline(always)]
    pub fn read(packet: &[u8], keep: impl FnOnce(Tcp)) -> Option<Self> {
        let head = Self::head(packet, keep)?;
        Some(Self {
            src: be32(head, 12),
            dst: be32(head, 16),
            ports: [be16(head, V4_HEADER_LEN), be16(head, V4_HEADER_LEN + 2)],
            protocol: head[9],
        })
    }

    /// The same as two words, addresses and ports as they lie there, in no order of their own: both addresses; both ports in the upper 32 bits,
    /// and from bit 24 on the protocol, as in the last word of a flow's key.
    #[inline(always)]
    pub fn read_words(packet: &[u8], keep: impl FnOnce(Tcp)) -> Option<[u64; 2]> {
        let head = Self::head(packet, keep)?;
        let (ends, ports) = (head[12..20].first_chunk()?, head[V4_HEADER_LEN..].first_chunk()?);
        let ports = u64::from(u32::from_ne_bytes(*ports));
        Some([u64::from_ne_bytes(*ends), ports << 32 | u64::from(head[9]) << 24])
    }

    /// What [`Plain::read_words`] says of a packet like this.
    #[cfg(test)]
    pub fn words(&self) -> [u64; 2] {
        let mut head = [0; PLAIN_LEN];
        head[12..16].copy_from_slice(&self.src.to_be_bytes());
        head[16..20].copy_from_slice(&self.dst.to_be_bytes());
        head[V4_HEADER_LEN..V4_HEADER_LEN + 2].copy_from_slice(&self.ports[0].to_be_bytes());
        head[V4_HEADER_LEN + 2..V4_HEADER_LEN + 4].copy_from_slice(&self.ports[1].to_be_bytes());
        (head[0], head[3], head[9]) = (V4_WITHOUT_OPTIONS, PLAIN_LEN as u8, self.protocol);
        Self::read_words(&head, |_| ()).unwrap_or_default()
    }

    /// What [`Plain::read`] would have said where [`Plain::read_words`] said this; what stands below the protocol does not count.
    pub fn of_words([ends, rest]: [u64; 2]) -> Self {
        let (ends, ports) = (ends.to_ne_bytes(), ((rest >> 32) as u32).to_ne_bytes());
        Self {
            src: be32(&ends, 0),
            dst: be32(&ends, 4),
            ports: [be16(&ports, 0), be16(&ports, 2)],
            protocol: (rest >> 24) as u8,
        }
    }

    /// The headers of one, as far as its ports; what TCP says is handed on.
    #[inline(always)]
    fn head(packet: &[u8], keep: impl FnOnce(Tcp)) -> Option<&[u8; PLAIN_LEN]> {
        let head = packet.first_chunk::<PLAIN_LEN>()?;
        let end = usize::from(be16(head, 2));
        // At least so long, and no longer than what is there: one comparison says both.
        let is_within = end.wrapping_sub(PLAIN_LEN) <= packet.len() - PLAIN_LEN;
        let is_plain = (head[0] == V4_WITHOUT_OPTIONS) & (be16(head, 6) & MORE_OR_OFFSET == 0);
        if !is_within | !is_plain {
            return None;
        }
        match head[9] {
            UDP => {}
            TCP => keep(tcp(&packet[V4_HEADER_LEN..end]).ok()?),
            _ => return None,
        }
        Some(head)
    }
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification.
    pub id: u32,
    /// First byte in the whole payload.
    pub offset: usize,
    /// Bytes of payload.
    pub len: usize,
}

/// Why a packet tells of no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A header is cut short or contradicts itself.
    Header(Malformed),
    /// A first fragment without the whole transport header: made to hide it (RFC 1858 §3).
    Tiny,
    /// A later fragment that would lie over the transport header (RFC 1858 §4, RFC 3128).
    Overlap,
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Self {
        Self::Header(malformed)
    }
}

impl Packet {
    /// Nothing was read.
    pub const EMPTY: Self = Self {
        src: 0,
        dst: 0,
        protocol: 0,
        ports: [0; 2],
        icmp: [0; 2],
        content: Content::Other,
        fragment: None,
    };

    /// Reads the packet that begins at the slice's first byte.
    pub fn read(packet: &[u8], version: Version) -> Result<Self, Unreadable> {
        let mut read = Self::EMPTY;
        read.read_again(packet, version).map(|()| read)
    }

    /// The same over what was read before; after an error it is neither. In place: a packet that is handed on by value is
    /// written and read again in pieces of other sizes, and waits for itself each time.
    #[inline(always)]
    pub fn read_again(&mut self, packet: &[u8], version: Version) -> Result<(), Unreadable> {
        if version == Version::V4 && self.read_plain(packet) {
            return Ok(());
        }
        self.take(packet, ip::parse(packet, version)?, false)
    }

    /// [`Plain::read`] over what was read before. False for every other packet, of which nothing counts then.
    #[inline(always)]
    fn read_plain(&mut self, packet: &[u8]) -> bool {
        // Unless it says more.
        self.content = Content::Udp;
        let Some(plain) = Plain::read(packet, |tcp| self.content = Content::Tcp(tcp)) else { return false };
        self.src = V4_MAPPED | u128::from(plain.src);
        self.dst = V4_MAPPED | u128::from(plain.dst);
        self.protocol = plain.protocol;
        self.ports = plain.ports;
        (self.icmp, self.fragment) = ([0; 2], None);
        true
    }

    /// Reads what an ICMP error quotes: at least the addresses and the first eight bytes behind them.
    pub fn read_quoted(packet: &[u8], version: Version) -> Result<Self, Unreadable> {
        let mut read = Self::EMPTY;
        read.take(packet, ip::parse_quoted(packet, version)?, true).map(|()| read)
    }

    #[inline(always)]
    fn take(&mut self, packet: &[u8], ip: Ip, quoted: bool) -> Result<(), Unreadable> {
        let read = self;
        [read.src, read.dst] = addresses(packet, ip.version);
        let segment = &packet[ip.transport_at..ip.end];
        (read.protocol, read.ports, read.icmp) = (ip.protocol, [0; 2], [0; 2]);
        (read.content, read.fragment) = (Content::Other, None);
        // An IPv6 packet may carry a fragment header and be whole (RFC 6946).
        if ip.fragment && (ip.later_fragment || ip.more) {
            read.fragment = Some(Fragment { id: ip.id, offset: ip.offset, len: segment.len() });
        }
        if ip.later_fragment {
            read.content = Content::Later;
            let header = if ip.protocol == TCP { TCP_HEADER_LEN } else { SHORT_HEADER_LEN };
            return if ip.offset < header { Err(Unreadable::Overlap) } else { Ok(()) };
        }
        let is_fragment = read.fragment.is_some();
        let short = || if is_fragment { Unreadable::Tiny } else { Unreadable::Header(Malformed::Truncated) };
        match ip.protocol {
            TCP if quoted => read.ports = ports(segment).ok_or(Malformed::Truncated)?,
            TCP => {
                read.ports = ports(segment).ok_or_else(short)?;
                read.content = Content::Tcp(
                    tcp(segment).map_err(|cut| if cut { short() } else { Malformed::Length.into() })?,
                );
            }
            UDP | UDP_LITE if segment.len() < SHORT_HEADER_LEN => return Err(short()),
            UDP | UDP_LITE => {
                read.ports = ports(segment).ok_or_else(short)?;
                read.content = Content::Udp;
            }
            SCTP if quoted => read.ports = ports(segment).ok_or(Malformed::Truncated)?,
            SCTP => {
                read.ports = ports(segment).ok_or_else(short)?;
                read.content = Content::Sctp(sctp(segment).ok_or_else(short)?);
            }
            ICMP | ICMPV6 if is_icmp_of(ip.protocol, ip.version) => {
                if segment.len() < SHORT_HEADER_LEN {
                    return Err(short());
                }
                read.icmp = [segment[0], segment[1]];
                read.content = icmp(segment[0], ip.protocol, ip.transport_at + SHORT_HEADER_LEN);
                if matches!(read.content, Content::Query { .. }) {
                    read.ports = [be16(segment, 4); 2];
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether it is an answer, if it is a query or one, or a later fragment of such: of that its first has said what it is.
    pub fn is_answer(&self) -> Option<bool> {
        let content = match self.content {
            Content::Later if is_icmp_of(self.protocol, self.version()) => {
                icmp(self.icmp[0], self.protocol, 0)
            }
            content => content,
        };
        if let Content::Query { answer } = content { Some(answer) } else { None }
    }

    /// Whether its addresses are IPv4.
    pub fn is_v4(&self) -> bool {
        self.src >> 32 == V4_MAPPED >> 32
    }

    /// Its version.
    pub fn version(&self) -> Version {
        if self.is_v4() { Version::V4 } else { Version::V6 }
    }
}

/// ICMP belongs to IPv4 and ICMPv6 to IPv6; crossed over they are some protocol.
fn is_icmp_of(protocol: u8, version: Version) -> bool {
    (protocol == ICMP) == (version == Version::V4)
}

#[inline(always)]
fn addresses(packet: &[u8], version: Version) -> [u128; 2] {
    // `ip::parse` has seen the fixed header. Not by `map`, which stays a call.
    match version {
        Version::V4 => [V4_MAPPED | u128::from(be32(packet, 12)), V4_MAPPED | u128::from(be32(packet, 16))],
        Version::V6 => {
            let wide = |at: usize| packet[at..].first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes));
            [wide(8), wide(24)]
        }
    }
}

#[inline(always)]
fn ports(segment: &[u8]) -> Option<[u16; 2]> {
    let head = segment.first_chunk::<4>()?;
    Some([be16(head, 0), be16(head, 2)])
}

/// The header's words; the error says whether it is cut short (or else contradicts itself).
#[inline(always)]
fn tcp(segment: &[u8]) -> Result<Tcp, bool> {
    let head = segment.first_chunk::<TCP_HEADER_LEN>().ok_or(true)?;
    let header_len = usize::from(head[12] >> 4) * 4;
    if header_len < TCP_HEADER_LEN {
        return Err(false);
    }
    let options = segment.get(TCP_HEADER_LEN..header_len).ok_or(true)?;
    let word = |at: usize| be32(head, at);
    let flags = head[13];
    Ok(Tcp {
        seq: word(4),
        ack: word(8),
        flags,
        window: be16(head, 14),
        len: (segment.len() - header_len) as u32,
        scale: if flags & flags::SYN != 0 { scale(options) } else { None },
    })
}

/// The window scale option (RFC 7323 §2.2). Options that contradict themselves end the list.
fn scale(options: &[u8]) -> Option<u8> {
    let mut rest = options;
    loop {
        match rest {
            [3, 3, shift, ..] => return Some((*shift).min(SCALE_MAX)),
            [1, tail @ ..] => rest = tail,
            [0, ..] | [] | [_] => return None,
            [_, len, ..] if *len >= 2 => rest = rest.get(usize::from(*len)..)?,
            _ => return None,
        }
    }
}

fn sctp(segment: &[u8]) -> Option<Sctp> {
    let head = segment.first_chunk::<SCTP_HEADER_LEN>()?;
    let word = |bytes: &[u8], at: usize| u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2));
    let initiate = segment.get(16..20).map_or(0, |bytes| word(bytes, 0));
    Some(Sctp { tag: word(head, 4), chunk: head[12], chunk_flags: head[13], initiate })
}

/// Which kind of ICMP message a type is.
fn icmp(kind: u8, protocol: u8, quote_at: usize) -> Content {
    match (protocol, kind) {
        // RFC 792: echo, timestamp, information; RFC 950: address mask.
        (ICMP, 8 | 13 | 15 | 17) | (ICMPV6, 128) => Content::Query { answer: false },
        (ICMP, 0 | 14 | 16 | 18) | (ICMPV6, 129) => Content::Query { answer: true },
        // Unreachable, quench, time exceeded, parameter problem; RFC 4443: too big among them.
        (ICMP, 3 | 4 | 11 | 12) | (ICMPV6, 1..=4) => Content::Error { quote_at },
        _ => Content::Control,
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    proptest! {
        /// What `etherparse` reads of arbitrary and of half-sensible bytes we read as well, or refuse by name.
        #[test]
        fn agrees_with_etherparse(mut packet in proptest::collection::vec(any::<u8>(), 20..120), v6: bool,
                                  protocol in prop_oneof![Just(TCP), Just(UDP), Just(ICMP), Just(ICMPV6), any::<u8>()]) {
            let len = packet.len() as u16;
            if v6 {
                if packet.len() < 40 { return Ok(()) }
                packet[0] = 0x60;
                packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                packet[6] = protocol;
            } else {
                packet[0] = 0x45;
                packet[2..4].copy_from_slice(&len.to_be_bytes());
                packet[6] &= 0x1f * u8::from(packet[6] & 3 == 0);
                packet[9] = protocol;
            }
            let version = if v6 { Version::V6 } else { Version::V4 };
            let Ok(read) = Packet::read(&packet, version) else { return Ok(()) };
            if let Content::Error { quote_at } = read.content {
                prop_assert!(quote_at <= packet.len());
            }
            let Ok(sliced) = SlicedPacket::from_ip(&packet) else { return Ok(()) };
            match &sliced.net {
                Some(NetSlice::Ipv4(ip)) => {
                    prop_assert_eq!(read.src, ip.header().source_addr().to_ipv6_mapped().to_bits());
                    prop_assert_eq!(read.dst, ip.header().destination_addr().to_ipv6_mapped().to_bits());
                }
                Some(NetSlice::Ipv6(ip)) => prop_assert_eq!(read.src, ip.header().source_addr().to_bits()),
                _ => {}
            }
            match (&sliced.transport, read.content) {
                (Some(TransportSlice::Tcp(tcp)), Content::Tcp(ours)) => {
                    prop_assert_eq!(read.ports, [tcp.source_port(), tcp.destination_port()]);
                    prop_assert_eq!((ours.seq, ours.ack, ours.window), (tcp.sequence_number(), tcp.acknowledgment_number(), tcp.window_size()));
                    prop_assert_eq!(ours.len as usize, tcp.payload().len());
                    prop_assert_eq!(ours.flags & flags::SYN != 0, tcp.syn());
                    prop_assert_eq!(ours.flags & flags::FIN != 0, tcp.fin());
                    prop_assert_eq!(ours.flags & flags::RST != 0, tcp.rst());
                    prop_assert_eq!(ours.flags & flags::ACK != 0, tcp.ack());
                }
                (Some(TransportSlice::Udp(udp)), Content::Udp) =>
                    prop_assert_eq!(read.ports, [udp.source_port(), udp.destination_port()]),
                (Some(TransportSlice::Tcp(_) | TransportSlice::Udp(_)), content) =>
                    prop_assert!(false, "read as {:?}", content),
                _ => {}
            }
        }

        /// The short way reads what the long one does, or leaves it to it.
        #[test]
        fn plain_packets_are_read_as_all_others(mut packet in proptest::collection::vec(any::<u8>(), 20..120), head in prop_oneof![9 => Just(0x45u8), 1 => any::<u8>()],
                                                protocol in prop_oneof![Just(TCP), Just(UDP), any::<u8>()], missing in -9i32..9,
                                                flags in prop_oneof![4 => Just(0u8), 1 => Just(0x40), 1 => Just(0x20), 1 => any::<u8>()], offset in prop_oneof![9 => Just(0u8), 1 => any::<u8>()]) {
            let len = (packet.len() as i32 - missing.max(-2)) as u16;
            packet[0] = head;
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            (packet[6], packet[7], packet[9]) = (flags, offset, protocol);
            let mut long = Packet::EMPTY;
            let read = ip::parse(&packet, Version::V4).map_err(Unreadable::from).and_then(|ip| long.take(&packet, ip, false));
            let mut short = Packet::EMPTY;
            if short.read_plain(&packet) {
                prop_assert_eq!(read, Ok(()));
                prop_assert_eq!(short, long);
            } else {
                let plain = matches!(long.content, Content::Udp | Content::Tcp(_)) && protocol != UDP_LITE;
                prop_assert!(read.is_err() || !plain || head != 0x45 || long.fragment.is_some(), "took the long way: {:?}", long);
            }
            prop_assert_eq!(Packet::read(&packet, Version::V4), read.map(|()| long));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(packet in proptest::collection::vec(any::<u8>(), 0..200), v6: bool) {
            let version = if v6 { Version::V6 } else { Version::V4 };
            _ = Packet::read(&packet, version);
            if let Ok(read) = Packet::read_quoted(&packet, version) {
                prop_assert!(read.fragment.is_none_or(|fragment| fragment.len <= packet.len()));
            }
        }
    }

    fn built(v6: bool) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 9)
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
        }
    }

    #[test]
    fn the_window_scale_is_found_among_the_options() {
        for (options, found) in [
            (&[1u8, 3, 3, 7][..], Some(7)),
            (&[2, 4, 5, 0xb4, 1, 1, 3, 3, 200, 0, 0, 0], Some(SCALE_MAX)),
            (&[2, 4, 5, 0xb4], None),
            (&[0, 3, 3, 7], None),
            (&[8, 0, 3, 3], None),
            (&[8, 99, 3, 3], None),
        ] {
            assert_eq!(scale(options), found, "{options:?}");
        }
    }

    #[test]
    fn a_tiny_first_fragment_and_one_over_the_header_are_told_apart() {
        let mut packet = Vec::new();
        built(false).tcp(5, 6, 7, 8).write(&mut packet, &[9; 40]).unwrap();
        packet[6] = 0x20;
        assert_eq!(
            Packet::read(&packet, Version::V4).unwrap().fragment,
            Some(Fragment { id: 0, offset: 0, len: 60 })
        );
        let mut tiny = packet[..28].to_vec();
        tiny[2..4].copy_from_slice(&28u16.to_be_bytes());
        assert_eq!(Packet::read(&tiny, Version::V4), Err(Unreadable::Tiny));
        for (offset, read) in
            [(1, Err(Unreadable::Overlap)), (2, Err(Unreadable::Overlap)), (3, Ok(Content::Later))]
        {
            packet[7] = offset;
            assert_eq!(Packet::read(&packet, Version::V4).map(|packet| packet.content), read, "{offset}");
        }
    }

    #[test]
    fn a_query_and_an_error_are_told_apart() {
        let mut echo = Vec::new();
        built(true).icmpv6_echo_request(77, 1).write(&mut echo, &[1; 8]).unwrap();
        let read = Packet::read(&echo, Version::V6).unwrap();
        assert_eq!((read.content, read.ports), (Content::Query { answer: false }, [77, 77]));
        let mut error = Vec::new();
        built(true).icmpv6_raw(2, 0, [0, 0, 5, 0]).write(&mut error, &echo[..48]).unwrap();
        let Content::Error { quote_at } = Packet::read(&error, Version::V6).unwrap().content else {
            panic!()
        };
        let quoted = Packet::read_quoted(&error[quote_at..], Version::V6).unwrap();
        assert_eq!((quoted.ports, quoted.content), ([77, 77], Content::Query { answer: false }));
        let mut advert = Vec::new();
        built(true).icmpv6_raw(136, 0, [0; 4]).write(&mut advert, &[0; 16]).unwrap();
        assert_eq!(Packet::read(&advert, Version::V6).unwrap().content, Content::Control);
    }
}
