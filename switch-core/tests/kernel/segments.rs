//! What our segmenter makes of a superframe, put on a cable to a real kernel: its sockets get every byte, and
//! its counters of bad packets stay at zero. Then the same with a byte turned over, so that we know they count.

use etherparse::{IpHeaders, UdpHeader};
use etherparse::{PacketBuilder, PacketBuilderStep, SlicedPacket, TcpHeaderSlice, TransportSlice};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::num::NonZeroU16;
use std::sync::mpsc;
use std::time::Duration;
use switch_core::wire::checksum::Csum;
use switch_core::wire::gso::{Gso, GsoKind, Segmenter};
use switch_core::wire::transport::Transport;
use switch_lab::{Net, RawSocket, wait_until};

const LONG: Duration = Duration::from_secs(60);
const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 7];
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 9];
const PORT: u16 = 9000;

/// Two namespaces and a cable. The near end has no address: nobody answers there but we.
struct Cable {
    _near: Net,
    far: Net,
    socket: RawSocket,
}

impl Cable {
    fn new() -> Self {
        let (near, far) = (Net::new("near"), Net::new("far"));
        near.ip(&format!("link add near0 type veth peer name far0 netns {}", far.name()));
        near.run("sysctl -qw net.ipv6.conf.near0.disable_ipv6=1");
        near.ip("link set near0 address 02:00:00:00:00:07 up");
        far.ip("link set far0 address 02:00:00:00:00:09 up");
        far.ip("address add 10.9.0.9/24 dev far0");
        far.ip("address add fd09::9/64 dev far0 nodad");
        for address in ["10.9.0.7", "fd09::7"] {
            far.ip(&format!("neigh replace {address} lladdr 02:00:00:00:00:07 dev far0 nud permanent"));
        }
        let socket = RawSocket::open(&near, "near0").unwrap();
        Self { _near: near, far, socket }
    }

    /// Bad packets the far kernel has counted: IP, TCP and UDP, wrong checksums and other errors.
    fn bad(&self) -> u64 {
        let (old, new) = (self.far.run("cat /proc/net/snmp"), self.far.run("cat /proc/net/snmp6"));
        let mut lines = old.lines();
        let mut total = 0;
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let pairs = names.split_whitespace().zip(values.split_whitespace());
            total += pairs
                .filter(|(name, _)| is_bad(name))
                .map(|(_, value)| value.parse().unwrap_or(0))
                .sum::<u64>();
        }
        let pairs = new.lines().filter_map(|line| line.split_once(char::is_whitespace));
        total
            + pairs
                .filter(|(name, _)| is_bad(name))
                .map(|(_, value)| value.trim().parse().unwrap_or(0))
                .sum::<u64>()
    }

    fn send_all(&self, segments: &[Vec<u8>]) {
        segments.iter().for_each(|segment| self.socket.send(segment));
    }
}

fn is_bad(name: &str) -> bool {
    let bad = ["InErrs", "InErrors", "InCsumErrors", "InHdrErrors", "InTruncatedPkts"];
    bad.iter().any(|bad| name.ends_with(bad))
}

fn ip(v6: bool) -> PacketBuilderStep<IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(NEAR, FAR);
    let address = |last| {
        let mut address = [0; 16];
        (address[0], address[1], address[15]) = (0xfd, 0x09, last);
        address
    };
    if v6 {
        ethernet.ipv6(address(7), address(9), 64)
    } else {
        ethernet.ipv4([10, 9, 0, 7], [10, 9, 0, 9], 64)
    }
}

/// Leaves the checksum unfinished, as a kernel does for a superframe, and cuts.
fn cut(mut frame: Vec<u8>, kind: GsoKind, size: u16) -> Vec<Vec<u8>> {
    let transport = Transport::read(&frame).unwrap();
    let field = transport.at + usize::from(transport.field());
    let pseudo = transport.pseudo(&frame);
    frame[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let gso = Gso { kind, ecn: false, size: NonZeroU16::new(size).unwrap() };
    let csum = Csum::Partial { start: transport.at as u16, field: transport.field() };
    let segmenter = Segmenter::new(&frame, csum, gso).unwrap();
    let write = |i| {
        let mut segment = vec![0; segmenter.len_of(i)];
        segmenter.write(i, &mut segment, true).unwrap();
        segment
    };
    (0..segmenter.count()).map(write).collect()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(37) ^ (i >> 8) as u8).collect()
}

fn udp_superframe(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(v6).udp(4000, PORT).write(&mut frame, payload).unwrap();
    assert_eq!(frame.len() - payload.len(), 14 + if v6 { 40 } else { 20 } + UdpHeader::LEN);
    frame
}

fn udp_arrives(v6: bool) {
    let cable = Cable::new();
    let bind = if v6 { "[::]:9000" } else { "0.0.0.0:9000" };
    let socket = cable.far.inside(move || UdpSocket::bind(bind)).join().unwrap().unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut buffer = vec![0; 2000];
    // Fewer at a time than the socket's buffer holds: it counts each at the size of its memory.
    for (len, size) in [(10_001, 1001), (1400 * 20, 1400), (100, 1), (1399, 1400), (4096, 512)] {
        let payload = bytes(len);
        cable.send_all(&cut(udp_superframe(v6, &payload), GsoKind::Udp, size));
        for piece in payload.chunks(size.into()) {
            let got = socket.recv(&mut buffer).unwrap();
            assert!(buffer[..got] == *piece, "a datagram of {} bytes came as other {got}", piece.len());
        }
    }
    assert_eq!(cable.bad(), 0);
    let mut segments = cut(udp_superframe(v6, &bytes(3000)), GsoKind::Udp, 1000);
    *segments[1].last_mut().unwrap() ^= 1;
    cable.send_all(&segments);
    assert_eq!(socket.recv(&mut buffer).unwrap(), 1000);
    assert_eq!(socket.recv(&mut buffer).unwrap(), 1000);
    wait_until("the wrong checksum to be counted", LONG, || cable.bad() > 0);
}

#[test]
fn a_kernel_takes_every_udp_segment_over_ipv4() {
    udp_arrives(false);
}

#[test]
fn a_kernel_takes_every_udp_segment_over_ipv6() {
    udp_arrives(true);
}

/// One end of a TCP connection by hand: it says what it likes and hears what the kernel acknowledges.
struct Hand<'a> {
    cable: &'a Cable,
    v6: bool,
    port: u16,
    sequence: u32,
    acknowledgment: u32,
}

impl<'a> Hand<'a> {
    fn connect(cable: &'a Cable, v6: bool, port: u16, sequence: u32) -> Self {
        let mut hand = Self { cable, v6, port, sequence, acknowledgment: 0 };
        let mut syn = Vec::new();
        ip(v6).tcp(port, PORT, sequence, 65_535).syn().write(&mut syn, &[]).unwrap();
        cable.socket.send(&syn);
        let answer =
            cable.socket.recv(LONG, |frame| tcp(frame, port).is_some_and(|tcp| tcp.syn() && tcp.ack()));
        hand.acknowledgment = tcp(&answer.unwrap(), port).unwrap().sequence_number().wrapping_add(1);
        hand.sequence = sequence.wrapping_add(1);
        cable.send_all(&[hand.superframe(&[], false)]);
        hand
    }

    fn superframe(&mut self, payload: &[u8], fin: bool) -> Vec<u8> {
        let mut frame = Vec::new();
        let step = ip(self.v6).tcp(self.port, PORT, self.sequence, 65_535).ack(self.acknowledgment);
        let step = step.options_raw(&[1; 12]).unwrap();
        let step = if payload.is_empty() { step } else { step.psh() };
        if fin { step.fin().write(&mut frame, payload) } else { step.write(&mut frame, payload) }.unwrap();
        self.sequence = self.sequence.wrapping_add(payload.len() as u32);
        frame
    }

    /// Waits until the kernel has acknowledged all that was said.
    fn is_heard(&self, all: u32) {
        let heard = self
            .cable
            .socket
            .recv(LONG, |frame| tcp(frame, self.port).is_some_and(|tcp| tcp.acknowledgment_number() == all));
        assert!(heard.is_some(), "the kernel never acknowledged {all}");
    }
}

fn tcp(frame: &[u8], port: u16) -> Option<TcpHeaderSlice<'_>> {
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Tcp(tcp) if tcp.destination_port() == port => {
            TcpHeaderSlice::from_slice(tcp.slice()).ok()
        }
        _ => None,
    }
}

fn tcp_arrives(v6: bool) {
    let cable = Cable::new();
    let kind = if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
    let (all, got) = mpsc::channel();
    let bind = if v6 { "[::]:9000" } else { "0.0.0.0:9000" };
    let listener = cable.far.inside(move || TcpListener::bind(bind)).join().unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut read = Vec::new();
            stream.unwrap().read_to_end(&mut read).unwrap();
            if all.send(read).is_err() {
                return;
            }
        }
    });
    // The second begins so that its sequence numbers pass through zero.
    for (n, (len, size)) in [(30_001, 1400), (29_000, 1399), (500, 9)].into_iter().enumerate() {
        let mut hand = Hand::connect(&cable, v6, 5000 + n as u16, 0u32.wrapping_sub(n as u32 * 7777));
        let payload = bytes(len);
        let segments = cut(hand.superframe(&payload, true), kind, size);
        assert_eq!(segments.len(), len.div_ceil(size.into()));
        cable.send_all(&segments);
        hand.is_heard(hand.sequence.wrapping_add(1));
        assert!(got.recv_timeout(LONG).unwrap() == payload, "other bytes than were sent");
    }
    assert_eq!(cable.bad(), 0);
    let mut hand = Hand::connect(&cable, v6, 6000, 1);
    let mut segments = cut(hand.superframe(&bytes(2000), true), kind, 1000);
    let whole = segments.clone();
    *segments[1].last_mut().unwrap() ^= 1;
    cable.send_all(&segments);
    wait_until("the wrong checksum to be counted", LONG, || cable.bad() > 0);
    cable.send_all(&whole);
    assert!(got.recv_timeout(LONG).unwrap() == bytes(2000));
}

#[test]
fn a_kernel_takes_every_tcp_segment_over_ipv4() {
    tcp_arrives(false);
}

#[test]
fn a_kernel_takes_every_tcp_segment_over_ipv6() {
    tcp_arrives(true);
}
