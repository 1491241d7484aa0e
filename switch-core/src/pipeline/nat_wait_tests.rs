//! How long a port of translation is somebody's: TCP as frames through one port, its TIME-WAIT, and ports that run out and come back by
//! themselves.

use super::Now;
use super::nat_rig::{NOW, Net, P, What, host, source, whose};
use crate::config::gateway::is_v4;
use crate::counter::DropReason;
use crate::table::flow::state::Stage;
use crate::wire::checksum::{fold, sum};
use crate::wire::ip::TCP;
use etherparse::PacketBuilder;

const S: u64 = 1_000_000_000;
/// All places are looked at once in so long.
const ROUND_S: u64 = 5;

/// An address and a port.
type End = (u128, u16);

/// Both sources are translated to one address, out of so many ports.
fn lab(v6: bool, ports: &str) -> (Lab, u128) {
    let (from, to) = (if v6 { "fd00:0::/64" } else { "10.0.0.0/16" }, host(v6, 9, 100));
    let net = Net::new(1, &[source("out", &[from], &[], Some("br1"), &[to], ports)]);
    (Lab { net, now: NOW }, to)
}

struct Lab {
    net: Net,
    now: Now,
}

impl Lab {
    /// Whose segment it is by the time it arrives, and for whom; `s`, `a`, `f` and `r` are its flags.
    fn says(&mut self, [from, to]: [End; 2], flags: &str, seq: u32, ack: u32) -> Option<[End; 2]> {
        let v4 = |ip: u128| (ip as u32).to_be_bytes();
        let set = |mut tcp: etherparse::TcpHeader| {
            (tcp.syn, tcp.fin, tcp.rst) = (flags.contains('s'), flags.contains('f'), flags.contains('r'));
            (tcp.ack, tcp.acknowledgment_number) = (flags.contains('a'), ack);
            tcp
        };
        let (tcp, mut packet) = (set(etherparse::TcpHeader::new(from.1, to.1, seq, 8000)), Vec::new());
        match is_v4(from.0) {
            true => PacketBuilder::ipv4(v4(from.0), v4(to.0), 64).tcp_header(tcp).write(&mut packet, &[]),
            false => {
                let ip = PacketBuilder::ipv6(from.0.to_be_bytes(), to.0.to_be_bytes(), 64);
                ip.tcp_header(tcp).write(&mut packet, &[])
            }
        }
        .unwrap();
        let (n, station) = whose(from.0);
        self.net.put(n, station, &packet);
        let out = self.net.settle(self.now);
        assert!(out.len() <= 1, "{out:02x?}");
        out.first().map(|(_, frame)| ends(&frame[14..]))
    }

    /// A connection from a client through to a server, and its end from both sides. Who the client was to the server.
    fn open_and_close(&mut self, client: End, server: End) -> End {
        let [seen, _] = self.says([client, server], "s", 100, 0).expect("a port is free");
        let answered = self.says([server, seen], "sa", 500, 101);
        assert_eq!(answered, Some([server, client]));
        for (from_client, flags, seq, ack) in
            [(true, "a", 101, 501), (true, "fa", 101, 501), (false, "fa", 501, 102), (true, "a", 102, 502)]
        {
            let (ends, becomes) = match from_client {
                true => ([client, server], [seen, server]),
                false => ([server, seen], [server, client]),
            };
            assert_eq!(self.says(ends, flags, seq, ack), Some(becomes), "{flags} {seq}");
        }
        seen
    }

    /// Time goes by, and nobody says anything.
    fn pass(&mut self, seconds: u64) {
        let end = self.now.ns + seconds * S;
        while self.now.ns < end {
            self.now.ns += 2_000_000;
            self.net.rig.run(self.now);
        }
    }

    fn stages(&self) -> Vec<Stage> {
        let (flows, mut stages) = (&self.net.rig.tables.flows, Vec::new());
        flows.scan(0..flows.places(), self.now.s(), |_, entry| stages.push(entry.state.stage));
        stages.retain(|stage| *stage != Stage::Reply);
        stages
    }

    fn exhausted(&self) -> u64 {
        self.net.rig.drops(DropReason::NatExhausted)
    }
}

/// Whose an IP packet with TCP is, and for whom; its checksums are right.
fn ends(packet: &[u8]) -> [End; 2] {
    let v4 = packet[0] >> 4 == 4;
    let (header, addresses) = if v4 { (20, &packet[12..20]) } else { (40, &packet[8..40]) };
    let segment = &packet[header..];
    assert!(!v4 || fold(sum(&packet[..20])) == 0xffff);
    assert_eq!(fold(sum(addresses) + segment.len() as u64 + u64::from(TCP) + sum(segment)), 0xffff);
    let bits = |bytes: &[u8]| match v4 {
        true => 0xffff << 32 | u128::from(u32::from_be_bytes(bytes.try_into().unwrap())),
        false => u128::from_be_bytes(bytes.try_into().unwrap()),
    };
    let (src, dst) = addresses.split_at(addresses.len() / 2);
    let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    [(bits(src), port(0)), (bits(dst), port(2))]
}

/// The peer remembers the connection as well, and would take another's SYN by its number (RFC 9293 §3.6.1).
#[test]
fn a_port_in_time_wait_is_nobody_elses_for_that_peer() {
    for v6 in [false, true] {
        let (mut lab, outside) = lab(v6, "2000-2000");
        let (one, other) = ((host(v6, 0, 10), 1000), (host(v6, 0, 11), 1000));
        let (server, another) = ((host(v6, 77, 1), 80), (host(v6, 77, 2), 80));
        assert_eq!(lab.open_and_close(one, server), (outside, 2000));
        assert_eq!(lab.stages(), [Stage::TimeWait]);
        // Neither another host's nor the same host's by another port.
        assert_eq!(lab.says([other, server], "s", 9, 0), None);
        assert_eq!(lab.says([(one.0, 1001), server], "s", 9, 0), None);
        assert_eq!(lab.exhausted(), 2);
        // The last FIN once more still gets to who sent the first one.
        assert_eq!(lab.says([server, (outside, 2000)], "fa", 501, 102), Some([server, one]));
        // Another peer knows nothing of it, and another port of the same one is another peer.
        assert_eq!(lab.says([other, another], "s", 9, 0), Some([(outside, 2000), another]));
        assert_eq!(lab.says([other, (server.0, 81)], "s", 9, 0), Some([(outside, 2000), (server.0, 81)]));
        lab.pass(110);
        assert_eq!((lab.says([other, server], "s", 9, 0), lab.exhausted()), (None, 3));
        lab.pass(15 + ROUND_S);
        assert_eq!(lab.says([other, server], "s", 9, 0), Some([(outside, 2000), server]));
        assert_eq!(lab.exhausted(), 3);
    }
}

/// Whoever has it may begin another with it, and has it then.
#[test]
fn a_port_in_time_wait_serves_the_next_connection_of_the_same_ends() {
    for v6 in [false, true] {
        let (mut lab, outside) = lab(v6, "2000-2000");
        let (one, server) = ((host(v6, 0, 10), 1000), (host(v6, 77, 1), 80));
        for first in [0, 1_000_000] {
            assert_eq!(lab.open_and_close(one, server), (outside, 2000));
            assert_eq!(lab.says([one, server], "s", 50_000 + first, 0), Some([(outside, 2000), server]));
            assert_eq!(lab.stages(), [Stage::SynSent]);
            assert_eq!(lab.says([server, (outside, 2000)], "ra", 0, 50_001 + first), Some([server, one]));
            assert_eq!(lab.stages(), [Stage::Closed]);
        }
        assert_eq!(lab.exhausted(), 0);
    }
}

/// Of connections that were reset the ports are free after ten seconds, of datagrams that nobody answered after thirty.
#[test]
fn ports_that_ran_out_come_back_when_flows_end_by_themselves() {
    for v6 in [false, true] {
        let (mut lab, outside) = lab(v6, "2000-2002");
        let (client, server) = (host(v6, 0, 10), (host(v6, 77, 1), 80));
        let asks = |lab: &mut Lab, port: u16| lab.says([(client, port), server], "s", 100, 0);
        let seen: Vec<_> = (1..4).filter_map(|port| asks(&mut lab, port)).map(|[seen, _]| seen).collect();
        let mut ports: Vec<_> = seen.iter().map(|(_, port)| *port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [2000, 2001, 2002]);
        assert_eq!((asks(&mut lab, 4), lab.exhausted()), (None, 1));
        assert_eq!(lab.says([server, seen[1]], "ra", 0, 101), Some([server, (client, 2)]));
        assert_eq!((asks(&mut lab, 4), lab.exhausted()), (None, 2), "what is on its way still is");
        lab.pass(11 + ROUND_S);
        assert_eq!(asks(&mut lab, 4), Some([(outside, seen[1].1), server]));
        assert_eq!((asks(&mut lab, 5), lab.exhausted()), (None, 3), "one came back");

        // Ports of datagrams are others, and run out by themselves.
        let tells = |lab: &mut Lab, port: u16| {
            let asks = P { what: What::Udp, src: client, dst: server.0, ports: [port, 53] };
            let (n, station) = whose(client);
            lab.net.put(n, station, &asks.packet(b"what it says"));
            lab.net.settle(lab.now).len()
        };
        assert_eq!([1, 2, 3, 4].map(|port| tells(&mut lab, port)), [1, 1, 1, 0]);
        assert_eq!(lab.exhausted(), 4);
        lab.pass(28);
        assert_eq!(tells(&mut lab, 4), 0);
        lab.pass(4 + ROUND_S);
        assert_eq!([4, 5, 6, 7].map(|port| tells(&mut lab, port)), [1, 1, 1, 0]);
        assert_eq!(lab.exhausted(), 6);
    }
}
