//! Filters against their second opinion: what our compiler makes of an expression and what tcpdump's does accept the
//! same frames, both run by the switch's interpreter.

#[path = "../../src/filter/mod.rs"]
mod filter;

use etherparse::{IpNumber, PacketBuilder, VlanId};
use std::process::Command;
use switch_core::wire::bpf::{Instruction, Program};

/// What README and `--help` promise, and more.
const FILTERS: &[&str] = &[
    "arp",
    "ip",
    "ip6",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "tcp port 443",
    "udp port 53",
    "port 80",
    "src port 443",
    "dst port 443",
    "portrange 1-100",
    "tcp portrange 400-500",
    "host 10.0.0.1",
    "src host 10.0.0.1",
    "dst host 10.0.0.2",
    "host 10.0.0.1 and host 10.0.0.2",
    "net 10.0.0.0/8",
    "src net 10.0.0.0/24",
    "dst net 192.168.0.0/16",
    "host fd00::1",
    "ether host 02:00:00:00:00:01",
    "ether src 02:00:00:00:00:01",
    "ether dst ff:ff:ff:ff:ff:ff",
    "ether proto 0x0806",
    "ip proto 17",
    "not arp",
    "tcp or udp",
    "tcp and not port 443",
    "not (tcp port 443 or udp port 53)",
    "host 10.0.0.1 and (port 80 or port 443)",
    "vlan",
    "vlan 7",
    "vlan 7 and tcp port 443",
    "vlan and host 10.0.0.1",
    "less 80",
    "greater 200",
    "ether broadcast",
    "ether multicast",
    "icmp or arp",
    "port 80 or 443",
    "ip multicast",
    "ip6 multicast",
    "src or dst port 53",
    "src and dst net 10.0.0.0/8",
    "net fd00::/16",
    "tcp or udp and port 53",
    "!(arp or vlan)",
    "arp host 10.0.0.1",
    "proto 47",
    "ip6 proto 17",
];

fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let addresses = [[10, 0, 0, 1], [10, 0, 0, 2], [192, 168, 1, 1], [11, 0, 0, 1]];
    let links = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [0xff; 6]];
    for (n, from) in addresses.into_iter().enumerate() {
        for to in addresses {
            for (source, target) in [(40_000, 443), (443, 9), (53, 53), (80, 1), (7, 100)] {
                for vlan in [None, Some(7), Some(9)] {
                    let (src, dst) = (links[n % 2], links[(n + usize::from(source)) % 3]);
                    let link = || PacketBuilder::ethernet2(src, dst);
                    let len = if target == 9 { 300 } else { 10 };
                    let v6 = |last: u8| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
                    for kind in 0..6 {
                        let mut frame = Vec::new();
                        let ip = match (vlan, kind < 4) {
                            (None, true) => link().ipv4(from, to, 64),
                            (None, false) => link().ipv6(v6(from[3]), v6(to[3]), 64),
                            (Some(vid), v4) => {
                                let tagged = link().single_vlan(VlanId::try_new(vid).unwrap());
                                if v4 {
                                    tagged.ipv4(from, to, 64)
                                } else {
                                    tagged.ipv6(v6(from[3]), v6(to[3]), 64)
                                }
                            }
                        };
                        let payload = vec![0x5a; len];
                        match kind {
                            0 | 4 => ip.tcp(source, target, 1, 1).write(&mut frame, &payload).unwrap(),
                            1 | 5 => ip.udp(source, target).write(&mut frame, &payload).unwrap(),
                            2 => ip.icmpv4_echo_request(1, 1).write(&mut frame, &payload).unwrap(),
                            _ => ip.write(&mut frame, IpNumber::GRE, &payload).unwrap(),
                        }
                        frames.push(frame);
                    }
                }
            }
        }
    }
    let mut arp = vec![0xff; 6];
    arp.extend([
        2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10,
        0, 0, 2,
    ]);
    frames.push(arp);
    // Later fragments have no ports, options move them.
    let mut fragment = frames[0].clone();
    fragment[20..22].copy_from_slice(&[0, 5]);
    frames.push(fragment);
    frames
}

fn program(lines: &[filter::Instruction]) -> Program {
    let lines: Vec<_> =
        lines.iter().map(|(code, jt, jf, k)| Instruction { code: *code, jt: *jt, jf: *jf, k: *k }).collect();
    Program::new(&lines).unwrap()
}

#[test]
fn our_filters_accept_what_tcpdumps_do() {
    let frames = frames();
    let mut differ = Vec::new();
    for expression in FILTERS {
        let printed = Command::new("tcpdump").args(["-y", "EN10MB", "-ddd", expression]).output().unwrap();
        assert!(printed.status.success(), "{expression}: {}", String::from_utf8_lossy(&printed.stderr));
        let theirs = program(&filter::parse_ddd(&String::from_utf8_lossy(&printed.stdout)).unwrap());
        let ours = program(&filter::compile(expression).unwrap());
        let wrong = frames
            .iter()
            .filter(|frame| ours.accepts(frame, frame.len()) != theirs.accepts(frame, frame.len()));
        if let Some(frame) = wrong.clone().next() {
            differ.push(format!("{expression}: {} of {}, like {frame:02x?}", wrong.count(), frames.len()));
        }
    }
    assert!(differ.is_empty(), "{} filters differ:\n{}", differ.len(), differ.join("\n"));
}
