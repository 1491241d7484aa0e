//! What is read at a glance and settled at once against its dull twin: the same packets with options in their IPv4 headers, which are read
//! with care and asked about one by one. Whatever is sent, by whomever, in batches of any mixture, and whatever policies say meanwhile:
//! the same arrives, the same is dropped and counted by the same name, and the same flows are there with the same state.

use super::Now;
use super::glance_rig::{Counted, Segment, counted, packet, protocol, transport};
use super::policy_tests::{NOW, Net, introduce, mac, net, pod};
use crate::wire::packet::flags::{ACK, FIN, RST, SYN};
use proptest::prelude::*;
use switch_api::{NetworkPolicy, Request};

/// Pods: `db` is isolated, `web` may ask it, `other` may not.
const PODS: usize = 3;

/// A packet of a pod.
#[derive(Clone, Copy, Debug)]
struct Sent {
    from: usize,
    /// As whom.
    source: usize,
    to: usize,
    tcp: Segment,
    /// Which conversation.
    port: u16,
}

/// What may happen.
#[derive(Clone, Debug)]
enum Op {
    /// Packets that come in together by each port.
    Send(Vec<Sent>),
    /// A connection is opened, or what both take for one.
    Connect { from: usize, to: usize },
    /// Whom `db` takes from, by which ports.
    Allow { app: &'static str, end: u16 },
    /// Seconds pass.
    Wait(u64),
}

fn sent() -> impl Strategy<Value = Sent> {
    let segment = (
        prop_oneof![12 => Just(ACK), 2 => Just(SYN), 2 => Just(SYN | ACK), 1 => Just(FIN | ACK), 1 => Just(RST), 1 => any::<u8>()],
        prop_oneof![8 => 1u32..4, 1 => Just(0u32), 1 => any::<u32>()],
        prop_oneof![8 => 1u32..4, 1 => Just(0u32), 1 => any::<u32>()],
    );
    let tcp = prop_oneof![1 => Just(None), 2 => segment.prop_map(Some)];
    (0..PODS, prop_oneof![9 => Just(PODS), 1 => 0..PODS], 0..PODS, tcp, 1u16..4).prop_map(
        |(from, source, to, tcp, port)| {
            let source = if source == PODS { from } else { source };
            Sent { from, source, to, tcp, port }
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => proptest::collection::vec(sent(), 1..12).prop_map(Op::Send),
        2 => (0..PODS, 0..PODS).prop_map(|(from, to)| Op::Connect { from, to }),
        1 => (prop_oneof![2 => Just("web"), 1 => Just("other")], 1u16..4).prop_map(|(app, end)| Op::Allow { app, end }),
        2 => prop_oneof![2 => Just(0u64), 2 => Just(1), 1 => Just(31), 1 => Just(301)].prop_map(Op::Wait),
    ]
}

fn policy(app: &str, end: u16) -> NetworkPolicy {
    let ports =
        ["TCP", "UDP"].map(|protocol| serde_json::json!({"protocol": protocol, "port": 1, "endPort": end}));
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}], "ports": ports}],
            "egress": [{"ports": ports}],
        },
    }))
    .unwrap()
}

/// All that can be seen: by whom which packet was got, what was counted, which flows there are and what their ends have said.
type Outcome = (Vec<(usize, u32)>, Counted);

struct Lab {
    net: Net,
    /// It has options in its packets.
    is_dull: bool,
    sent: u32,
}

impl Lab {
    fn new(is_dull: bool) -> Self {
        let pods = [pod("db", "10.0.0.1"), pod("web", "10.0.0.2"), pod("other", "10.0.0.3")];
        let mut net = net(vec![], &pods, &[policy("web", 2)]);
        introduce(&mut net);
        Self { net, is_dull, sent: 0 }
    }

    fn send(&mut self, sent: Sent) {
        let Sent { from, source, to, tcp, port } = sent;
        // Who asks, asks from a port above; answers go back there.
        let ports = if from < to { [port + 1000, port] } else { [port, port + 1000] };
        self.sent += 1;
        let transport = transport(ports, tcp, self.sent);
        let addresses = [source, to].map(|pod| [10, 0, 0, pod as u8 + 1]);
        let packet = packet(self.is_dull, protocol(tcp), addresses, &transport);
        let frame = [&mac(to)[..], &mac(from)[..], &[8, 0], &packet].concat();
        assert!(self.net.peers[from].send(frame));
    }

    fn go(&mut self, op: &Op, now: Now) -> Outcome {
        match op {
            Op::Send(all) => all.iter().for_each(|sent| self.send(*sent)),
            Op::Connect { from, to } => {
                let segment = |from: usize, to: usize, flags, seq, ack| Sent {
                    from,
                    source: from,
                    to,
                    tcp: Some((flags, seq, ack)),
                    port: 1,
                };
                for sent in [
                    segment(*from, *to, SYN, 0, 0),
                    segment(*to, *from, SYN | ACK, 0, 1),
                    segment(*from, *to, ACK, 1, 1),
                ] {
                    self.send(sent);
                    self.net.rig.settle(now);
                }
            }
            Op::Allow { app, end } => {
                self.net.rig.declare(&Request::PolicySet(Box::new(policy(app, *end)))).unwrap();
            }
            Op::Wait(_) => {}
        }
        self.net.rig.settle(now);
        self.seen(now)
    }

    fn seen(&self, now: Now) -> Outcome {
        let mut got = Vec::new();
        for (n, peer) in self.net.peers.iter().enumerate() {
            let marks = std::iter::from_fn(|| peer.recv());
            got.extend(
                marks.map(|frame| (n, frame.last_chunk().map_or(0, |mark| u32::from_be_bytes(*mark)))),
            );
        }
        (got, counted(&self.net.rig, PODS, 8, now))
    }
}

proptest! {
    #![proptest_config(crate::cases::cases(96))]

    #[test]
    fn who_reads_at_a_glance_does_what_who_reads_with_care_does(ops in proptest::collection::vec(op(), 10..80)) {
        let (mut clever, mut dull) = (Lab::new(false), Lab::new(true));
        let mut now = NOW;
        for op in ops {
            now.ns += 1_000_000;
            if let Op::Wait(seconds) = op {
                now.ns += seconds * 1_000_000_000;
            }
            prop_assert_eq!(clever.go(&op, now), dull.go(&op, now), "{:?}", op);
        }
        clever.net.rig.assert_conserved();
    }
}
