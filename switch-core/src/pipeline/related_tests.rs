//! ICMP errors as packets, of both IP versions: those about a flow pass, also where their receiver is isolated, and those that quote what nobody sent, or
//! go to whom did not send it, are of no flow.

use super::Now;
use super::policy_tests::{NOW, Net, introduce, mac, net, packet, reply};
use crate::counter::DropReason;
use crate::wire::checksum::{fold, sum};
use etherparse::PacketBuilder;
use serde_json::json;
use std::net::IpAddr;
use switch_api::{NetworkPolicy, PortSet, PortSettings, Protocol, Request, Workload};

fn ip(v6: bool, pod: usize) -> IpAddr {
    if v6 { format!("fd00::{}", pod + 1) } else { format!("10.0.0.{}", pod + 1) }.parse().unwrap()
}

/// What keeps flows at the port of who is told of errors.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    /// It is tracked.
    Tracked,
    /// It is isolated: nobody is allowed in.
    Isolated,
}

/// Pods behind ports p0 to p2, of which the first asks and the last is asked.
struct Lab {
    net: Net,
    v6: bool,
    now: Now,
}

impl Lab {
    fn new(v6: bool, kept: Kept) -> Self {
        let pods = ["db", "web", "other"].into_iter().enumerate().map(|(n, app)| Workload {
            namespace: "shop".into(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            ports: vec![],
            addresses: vec![ip(false, n), ip(true, n)],
        });
        let mut net = net(vec![], &pods.collect::<Vec<_>>(), &[]);
        match kept {
            Kept::Tracked => {
                let settings = PortSettings { track: true, ..PortSettings::default() };
                let set = PortSet { name: "p0".parse().unwrap(), settings };
                net.rig.declare(&Request::PortSet(set)).unwrap();
            }
            Kept::Isolated => {
                let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]});
                let policy = json!({"metadata": {"name": "closed", "namespace": "shop"}, "spec": spec});
                let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
                net.rig.declare(&Request::PolicyAdd(Box::new(policy))).unwrap();
            }
        }
        introduce(&mut net);
        Self { net, v6, now: NOW }
    }

    /// All stations are known.
    fn hear(&mut self) {
        for n in 0..3 {
            self.passes(n, n, &[&[0xff; 6][..], &mac(n), &[8, 6], &[0; 46]].concat());
        }
    }

    fn passes(&mut self, from: usize, to: usize, frame: &[u8]) -> bool {
        assert!(self.net.peers[from].send(frame.to_vec()));
        self.net.rig.settle(self.now);
        self.net.rig.assert_conserved();
        let came = std::iter::from_fn(|| self.net.peers[to].recv()).count();
        self.net.peers.iter().for_each(|peer| while peer.recv().is_some() {});
        came == 1
    }

    /// An error of the last pod to the first passes.
    fn tells(&mut self, quoted: &[u8]) -> bool {
        let error = self.error((2, ip(self.v6, 2)), (0, ip(self.v6, 0)), KINDS[0], quoted);
        self.passes(2, 0, &error)
    }

    /// From a pod's station as this address, to one's as that.
    fn error(&self, from: (usize, IpAddr), to: (usize, IpAddr), kind: Kind, quoted: &[u8]) -> Vec<u8> {
        let (link, mut frame) = (PacketBuilder::ethernet2(mac(from.0), mac(to.0)), Vec::new());
        let (Kind { v4, v6 }, rest) = (kind, [0, 0, 5, 0]);
        let written = match (from.1, to.1) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let step = link.ipv4(src.octets(), dst.octets(), 64);
                step.icmpv4_raw(v4.0, v4.1, rest).write(&mut frame, quoted)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let step = link.ipv6(src.octets(), dst.octets(), 64);
                step.icmpv6_raw(v6.0, v6.1, rest).write(&mut frame, quoted)
            }
            other => panic!("{other:?} are of two families"),
        };
        written.unwrap();
        frame
    }

    fn unrelated(&self) -> u64 {
        self.net.rig.drops(DropReason::IcmpUnrelated)
    }

    /// What one pod sends another to begin something, and how much of it an error has to quote.
    fn begins(&self, what: What, from: usize, to: usize) -> Vec<u8> {
        what.frame(false, self.v6, from, to)
    }

    fn quote<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[14..14 + self.head() + 8]
    }

    /// Length of an IP header.
    fn head(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }
}

/// Type and code, by version.
#[derive(Clone, Copy, Debug)]
struct Kind {
    v4: (u8, u8),
    v6: (u8, u8),
}

const KINDS: [Kind; 4] = [
    Kind { v4: (3, 3), v6: (1, 4) },
    Kind { v4: (3, 4), v6: (2, 0) },
    Kind { v4: (11, 0), v6: (3, 0) },
    Kind { v4: (12, 0), v6: (4, 1) },
];

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Udp,
    Tcp,
    Sctp,
    Echo,
}

const ALL: [What; 4] = [What::Udp, What::Tcp, What::Sctp, What::Echo];

impl What {
    /// Its first packet, or the first answer.
    fn frame(self, is_answer: bool, v6: bool, from: usize, to: usize) -> Vec<u8> {
        let protocol = match self {
            Self::Udp => Protocol::Udp,
            Self::Tcp => Protocol::Tcp,
            Self::Sctp => Protocol::Sctp,
            Self::Echo => return echo(is_answer, v6, from, to),
        };
        let (link, from, to) = ((mac(to), mac(from)), ip(v6, from), ip(v6, to));
        if is_answer {
            reply(link, from, to, (protocol, 53), 7)
        } else {
            packet(link, from, to, (protocol, 53), 7)
        }
    }
}

fn echo(is_answer: bool, v6: bool, from: usize, to: usize) -> Vec<u8> {
    let (link, mut frame) = (PacketBuilder::ethernet2(mac(from), mac(to)), Vec::new());
    match (ip(v6, from), ip(v6, to), is_answer) {
        (IpAddr::V4(src), IpAddr::V4(dst), false) => {
            link.ipv4(src.octets(), dst.octets(), 64).icmpv4_echo_request(77, 1).write(&mut frame, &[7; 32])
        }
        (IpAddr::V4(src), IpAddr::V4(dst), true) => {
            link.ipv4(src.octets(), dst.octets(), 64).icmpv4_echo_reply(77, 1).write(&mut frame, &[7; 32])
        }
        (IpAddr::V6(src), IpAddr::V6(dst), false) => {
            link.ipv6(src.octets(), dst.octets(), 64).icmpv6_echo_request(77, 1).write(&mut frame, &[7; 32])
        }
        (IpAddr::V6(src), IpAddr::V6(dst), true) => {
            link.ipv6(src.octets(), dst.octets(), 64).icmpv6_echo_reply(77, 1).write(&mut frame, &[7; 32])
        }
        other => panic!("{other:?} are of two families"),
    }
    .unwrap();
    frame
}

fn each(test: impl Fn(&mut Lab, What, &str)) {
    for (v6, kept) in [false, true].into_iter().flat_map(|v6| [(v6, Kept::Tracked), (v6, Kept::Isolated)]) {
        for what in ALL {
            test(&mut Lab::new(v6, kept), what, &format!("{what:?}, v6 {v6}, {kept:?}"));
        }
    }
}

#[test]
fn errors_about_a_flow_reach_who_sent_what_they_quote_whichever_they_are() {
    each(|lab, what, name| {
        let asked = lab.begins(what, 0, 2);
        assert!(!lab.tells(lab.quote(&asked).to_vec().as_slice()), "{name}: nothing was sent yet");
        assert_eq!(lab.unrelated(), 1, "{name}");
        assert!(lab.passes(0, 2, &asked), "{name}");
        let (other, db) = ((2, ip(lab.v6, 2)), (0, ip(lab.v6, 0)));
        for kind in KINDS {
            let error = lab.error(other, db, kind, lab.quote(&asked));
            assert!(lab.passes(2, 0, &error), "{name}: {kind:?}");
            // The whole packet is quoted, as IPv6 has it.
            let error = lab.error(other, db, kind, &asked[14..]);
            assert!(lab.passes(2, 0, &error), "{name}: {kind:?}");
        }
        // Who is asked is told as well of what it answered.
        let answered = what.frame(true, lab.v6, 2, 0);
        assert!(lab.passes(2, 0, &answered), "{name}");
        let error = lab.error(db, other, KINDS[0], lab.quote(&answered));
        assert!(lab.passes(0, 2, &error), "{name}");
        assert_eq!(lab.unrelated(), 1, "{name}");
        // Nothing is left of it after a day and a bit.
        lab.now.ns += 90_000_000_000_000;
        lab.hear();
        assert!(!lab.tells(lab.quote(&asked).to_vec().as_slice()), "{name}: forgotten");
        assert_eq!(lab.unrelated(), 2, "{name}");
    });
}

/// A byte of it is another: of an address, a port, the protocol.
#[test]
fn an_error_that_quotes_what_nobody_sent_is_unrelated() {
    each(|lab, what, name| {
        let asked = lab.begins(what, 0, 2);
        assert!(lab.passes(0, 2, &asked), "{name}");
        let quote = lab.quote(&asked).to_vec();
        let (head, protocol_at) = (lab.head(), if lab.v6 { 6 } else { 9 });
        // The last bytes of both addresses, and of the protocol.
        let (src, dst) = if lab.v6 { (23, 39) } else { (15, 19) };
        let mut places = vec![src, dst, protocol_at];
        // Ports, or of a ping the identifier.
        places.extend(if what == What::Echo { vec![head + 4, head + 5] } else { (head..head + 4).collect() });
        for (n, at) in places.into_iter().enumerate() {
            let mut forged = quote.clone();
            forged[at] ^= 0x10;
            if !lab.v6 {
                forged[10..12].fill(0);
                let checksum = !fold(sum(&forged[..20]));
                forged[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            assert!(!lab.tells(&forged), "{name}: byte {at}");
            assert_eq!(lab.unrelated(), n as u64 + 1, "{name}: byte {at}");
        }
        // Too little of it to tell what it was, or nothing.
        let before = lab.unrelated();
        for len in [0, head - 1, head, head + 3] {
            assert!(!lab.tells(&quote[..len]), "{name}: {len} bytes");
        }
        assert_eq!(lab.unrelated(), before + 4, "{name}");
        assert!(lab.tells(&quote), "{name}");
    });
}

#[test]
fn an_error_to_whom_did_not_send_what_it_quotes_is_unrelated() {
    each(|lab, what, name| {
        let asked = lab.begins(what, 0, 2);
        let answered = what.frame(true, lab.v6, 2, 0);
        assert!(lab.passes(0, 2, &asked) && lab.passes(2, 0, &answered), "{name}");
        let v6 = lab.v6;
        let (db, other) = ((0, ip(v6, 0)), (2, ip(v6, 2)));
        for (n, (from, to, quoted)) in [
            // To who asked, about the answer.
            (other, db, &answered),
            // To who answered, about the question.
            (db, other, &asked),
            // To the one's station, about what the other sent, as if it were for the other.
            (other, (0, ip(v6, 1)), &asked),
        ]
        .into_iter()
        .enumerate()
        {
            let error = lab.error(from, to, KINDS[0], lab.quote(quoted));
            assert!(!lab.passes(from.0, to.0, &error), "{name}: {n}");
            assert_eq!(lab.unrelated(), n as u64 + 1, "{name}");
        }
        // The right ones still pass.
        let error = lab.error(db, other, KINDS[0], lab.quote(&answered));
        assert!(lab.tells(lab.quote(&asked).to_vec().as_slice()) && lab.passes(0, 2, &error), "{name}");
    });
}

/// A router on the way tells whose packet it was, by whichever port it is reached.
#[test]
fn an_error_by_a_router_passes_and_one_about_nothing_that_was_sent_does_not() {
    for (v6, what) in [false, true].into_iter().flat_map(|v6| ALL.map(|what| (v6, what))) {
        let (mut lab, name) = (Lab::new(v6, Kept::Tracked), format!("{what:?}, v6 {v6}"));
        let (asked, never) = (lab.begins(what, 0, 2), lab.begins(what, 0, 1));
        assert!(lab.passes(0, 2, &asked), "{name}");
        for station in [1, 2] {
            let by = |quoted: &[u8]| lab.error((station, ip(v6, 98)), (0, ip(v6, 0)), KINDS[1], quoted);
            let (right, wrong) = (by(lab.quote(&asked)), by(lab.quote(&never)));
            assert!(lab.passes(station, 0, &right) && !lab.passes(station, 0, &wrong), "{name}");
        }
        assert_eq!(lab.unrelated(), 2, "{name}");
    }
}
