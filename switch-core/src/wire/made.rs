//! Superframes and trains made for tests, and the dull twin of the segmenter: it takes a superframe apart with
//! `etherparse`, makes each segment from nothing, and leaves checksums to `etherparse` as well.

use super::checksum::Csum;
use super::ethernet;
use super::gso::{Gso, GsoKind};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
use proptest::prelude::*;
use std::num::NonZeroU16;

/// A superframe, told in parts.
#[derive(Clone, Debug)]
pub struct Made {
    pub tci: Option<u16>,
    pub v6: bool,
    pub tcp: bool,
    /// IPv4 options (a multiple of four) or an IPv6 destination options header of that many words of four.
    pub ip_options: u8,
    pub tcp_options: Vec<u8>,
    /// NS, CWR, ECE, URG, ACK, PSH, RST, SYN, FIN: the low nine bits.
    pub flags: u16,
    pub id: u16,
    pub dont_fragment: bool,
    pub tos: u8,
    pub ttl: u8,
    pub flow_label: u32,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub window: u16,
    pub ports: (u16, u16),
    pub payload: Vec<u8>,
    pub size: NonZeroU16,
}

impl Made {
    pub fn gso(&self) -> Gso {
        let kind = match (self.tcp, self.v6) {
            (true, false) => GsoKind::Tcp4,
            (true, true) => GsoKind::Tcp6,
            _ => GsoKind::Udp,
        };
        Gso { kind, ecn: self.flags & 0x80 != 0, size: self.size }
    }

    /// As a kernel hands it over: the checksum unfinished.
    pub fn superframe(&self) -> (Vec<u8>, Csum) {
        let mut frame = self.datagram(0, true, true, &self.payload);
        let csum = unfinish(&mut frame, self);
        (frame, csum)
    }

    /// The segments, whole, by the dull twin.
    pub fn segments(&self) -> Vec<Vec<u8>> {
        let mut pieces: Vec<&[u8]> = self.payload.chunks(usize::from(self.size.get())).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        let last = pieces.len() - 1;
        pieces.iter().enumerate().map(|(i, piece)| self.datagram(i, i == 0, i == last, piece)).collect()
    }

    fn datagram(&self, i: usize, first: bool, last: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 7];
        if let Some(tci) = self.tci {
            frame.extend(ethernet::TPID_C.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        frame.extend(if self.v6 { ethernet::IPV6 } else { ethernet::IPV4 }.to_be_bytes());
        let protocol = if self.tcp { IpNumber::TCP } else { IpNumber::UDP };
        let v4 = (!self.v6).then(|| self.v4(i, protocol, payload.len()));
        let v6 = self.v6.then(|| self.v6(protocol, payload.len()));
        if let Some(v4) = &v4 {
            v4.write(&mut frame).unwrap();
        }
        if let Some(v6) = &v6 {
            v6.write(&mut frame).unwrap();
            if self.ip_options > 0 {
                frame.extend([protocol.0, self.ip_options / 2, 1, 4, 0, 0, 0, 0]);
                frame.extend(std::iter::repeat_n(0, usize::from(self.ip_options / 2) * 8));
            }
        }
        if self.tcp {
            let mut tcp = self.tcp(i, first, last);
            tcp.checksum = match (&v4, &v6) {
                (Some(v4), _) => tcp.calc_checksum_ipv4(v4, payload).unwrap(),
                (_, Some(v6)) => tcp.calc_checksum_ipv6_raw(v6.source, v6.destination, payload).unwrap(),
                _ => unreachable!(),
            };
            tcp.write(&mut frame).unwrap();
        } else {
            let mut udp = UdpHeader {
                source_port: self.ports.0,
                destination_port: self.ports.1,
                length: 8 + payload.len() as u16,
                checksum: 0,
            };
            udp.checksum = match (&v4, &v6) {
                (Some(v4), _) => udp.calc_checksum_ipv4_raw(v4.source, v4.destination, payload).unwrap(),
                (_, Some(v6)) => udp.calc_checksum_ipv6_raw(v6.source, v6.destination, payload).unwrap(),
                _ => unreachable!(),
            };
            udp.write(&mut frame).unwrap();
        }
        frame.extend(payload);
        frame
    }

    fn v4(&self, i: usize, protocol: IpNumber, payload: usize) -> Ipv4Header {
        let transport = self.transport_header() + payload;
        let mut header =
            Ipv4Header::new(transport as u16, self.ttl, protocol, [10, 0, 0, 7], [10, 0, 0, 9]).unwrap();
        header.identification = self.id.wrapping_add(i as u16);
        header.dont_fragment = self.dont_fragment;
        header.dscp = (self.tos >> 2).try_into().unwrap();
        header.ecn = (self.tos & 3).try_into().unwrap();
        let options = vec![1; usize::from(self.ip_options) * 4];
        header.options = options.as_slice().try_into().unwrap();
        header.set_payload_len(transport).unwrap();
        header.header_checksum = header.calc_header_checksum();
        header
    }

    fn v6(&self, protocol: IpNumber, payload: usize) -> Ipv6Header {
        let extension = if self.ip_options > 0 { 8 + usize::from(self.ip_options / 2) * 8 } else { 0 };
        Ipv6Header {
            traffic_class: self.tos,
            flow_label: (self.flow_label & 0xf_ffff).try_into().unwrap(),
            payload_length: (extension + self.transport_header() + payload) as u16,
            next_header: if extension > 0 { IpNumber(60) } else { protocol },
            hop_limit: self.ttl,
            source: [0xfd; 16],
            destination: [0xfc; 16],
        }
    }

    fn transport_header(&self) -> usize {
        if self.tcp { 20 + self.tcp_options.len() } else { 8 }
    }

    fn tcp(&self, i: usize, first: bool, last: bool) -> TcpHeader {
        let before = (i * usize::from(self.size.get())) as u32;
        let (source, destination) = self.ports;
        let mut tcp = TcpHeader::new(source, destination, self.sequence.wrapping_add(before), self.window);
        let flag = |bit: u16| self.flags >> bit & 1 == 1;
        tcp.acknowledgment_number = self.acknowledgment;
        tcp.fin = flag(0) && last;
        tcp.syn = flag(1);
        tcp.rst = flag(2);
        tcp.psh = flag(3) && last;
        tcp.ack = flag(4);
        tcp.urg = flag(5);
        tcp.ece = flag(6);
        tcp.cwr = flag(7) && first;
        tcp.ns = flag(8);
        tcp.set_options_raw(&self.tcp_options).unwrap();
        tcp
    }

    /// Where the transport header is.
    pub fn transport_at(&self) -> usize {
        let words = usize::from(self.ip_options);
        let ip = match (self.v6, words) {
            (true, 0) => 40,
            (true, words) => 48 + words / 2 * 8,
            (false, words) => 20 + words * 4,
        };
        14 + if self.tci.is_some() { 4 } else { 0 } + ip
    }
}

/// Puts the bare pseudo-header's sum where the checksum is, by adding it up word for word.
pub fn unfinish(frame: &mut [u8], made: &Made) -> Csum {
    let start = made.transport_at();
    let (field, protocol): (u8, u8) = if made.tcp { (16, 6) } else { (6, 17) };
    let ip = 14 + if made.tci.is_some() { 4 } else { 0 };
    let addresses = if made.v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
    let mut total = (frame.len() - start) as u32 + u32::from(protocol);
    for pair in frame[addresses].chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(pair[1]);
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    frame[start + usize::from(field)..][..2].copy_from_slice(&(total as u16).to_be_bytes());
    Csum::Partial { start: start as u16, field }
}

/// Any superframe, with at most `payload_max` bytes of payload.
pub fn any_made(payload_max: usize) -> impl Strategy<Value = Made> {
    let headers = (any::<Option<u16>>(), any::<bool>(), any::<bool>(), 0u8..6, 0usize..10, 0u16..512);
    let ip = (any::<u16>(), any::<bool>(), any::<u8>(), any::<u8>(), any::<u32>());
    let transport = (any::<u32>(), any::<u32>(), any::<u16>(), any::<(u16, u16)>());
    let size = prop_oneof![1u16..50, 400u16..1500, 1u16..];
    (headers, ip, transport, 0..=payload_max, size, any::<u8>()).prop_map(
        |(headers, ip, transport, len, size, seed)| {
            let (tci, v6, tcp, ip_options, words, flags) = headers;
            Made {
                tci,
                v6,
                tcp,
                ip_options,
                tcp_options: vec![1; words * 4],
                flags,
                id: ip.0,
                dont_fragment: ip.1,
                tos: ip.2,
                ttl: ip.3,
                flow_label: ip.4,
                sequence: transport.0,
                acknowledgment: transport.1,
                window: transport.2,
                ports: transport.3,
                payload: (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed).collect(),
                size: NonZeroU16::new(size).unwrap(),
            }
        },
    )
}
