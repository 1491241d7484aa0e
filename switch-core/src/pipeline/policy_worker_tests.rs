//! Connections whose two directions come by two workers, under policies that isolate one end: what passes, what is dropped and why is as on one.

use super::Now;
use super::policy_tests::{NOW, Net, introduce, mac, pod};
use crate::counter::{DropReason, Event};
use crate::port::memory;
use crate::rig::{Rig, Size};
use crate::table::flow::state::Stage;
use etherparse::{PacketBuilder, TcpHeader};
use serde_json::{Value, json};
use switch_api::{ByPolicy, NetworkPolicy, PortLabel, PortSettings, Request};

const DB: usize = 0;
const WEB: usize = 1;

struct Lab {
    net: Net,
    now: Now,
}

/// What a frame came to: whether it passed, all drops so far, and the stages of all flows.
type Outcome = (bool, Vec<(&'static str, u64)>, Vec<Stage>);

impl Lab {
    /// `db` takes 5432 from `web`, and asks it for 53; nothing else. Each behind a port of its own worker, if there are two.
    fn new(workers: usize) -> Self {
        let rig = Rig::new(Size { fdb_entries: 256, flows: 1 << 12, workers, ..Size::default() });
        let mut net = Net { rig, peers: Vec::new() };
        for (n, app) in ["db", "web"].into_iter().enumerate() {
            let ((port, peer), name) = (memory::wire(), format!("p{n}"));
            let worker = (n % workers) as u16;
            net.rig.add_port(&name, PortSettings::default(), Box::new(port), worker).unwrap();
            net.peers.push(peer);
            let workload = Some(pod(app, &format!("10.0.0.{}", n + 1)));
            net.rig
                .declare(&Request::PortLabel(PortLabel { name: name.parse().unwrap(), workload }))
                .unwrap();
        }
        let mut lab = Self { net, now: NOW };
        lab.allow("db", 5432);
        introduce(&mut lab.net);
        lab
    }

    fn allow(&mut self, name: &str, port: u16) {
        let web = json!([{"podSelector": {"matchLabels": {"app": "web"}}}]);
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": web, "ports": [{"port": port}]}],
            "egress": [{"to": web, "ports": [{"protocol": "UDP", "port": 53}]}],
        });
        self.policy(name, spec);
    }

    fn policy(&mut self, name: &str, spec: Value) {
        let policy = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
        self.net.rig.declare(&Request::PolicySet(Box::new(policy))).unwrap();
    }

    fn send(&mut self, from: usize, frame: Vec<u8>) -> Outcome {
        assert!(self.net.peers[from].send(frame));
        self.net.rig.settle(self.now);
        self.net.rig.assert_conserved();
        let came = std::iter::from_fn(|| self.net.peers[1 - from].recv()).count();
        let all = DropReason::ALL.iter().map(|reason| (reason.name(), self.net.rig.drops(*reason)));
        (came == 1, all.filter(|(_, frames)| *frames > 0).collect(), self.stages())
    }

    fn stages(&self) -> Vec<Stage> {
        let (flows, mut stages) = (&self.net.rig.tables.flows, Vec::new());
        flows.scan(0..flows.places(), self.now.s(), |_, entry| stages.push(entry.state.stage));
        stages
    }

    fn begun(&self) -> u64 {
        self.net.rig.counters.iter().map(|counters| counters.event(Event::FlowNew).get()).sum()
    }
}

fn link(from: usize) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let ip = |n: usize| [10, 0, 0, n as u8 + 1];
    PacketBuilder::ethernet2(mac(from), mac(1 - from)).ipv4(ip(from), ip(1 - from), 64)
}

/// A segment of the connection that `web` opens to `db`.
fn tcp(from: usize, flags: &str, seq: u32, ack: u32) -> Vec<u8> {
    let (own, other) = if from == WEB { (40_000, 5432) } else { (5432, 40_000) };
    let mut header = TcpHeader::new(own, other, seq, 8000);
    (header.syn, header.ack, header.fin) = (flags.contains('s'), flags.contains('a'), flags.contains('f'));
    header.acknowledgment_number = ack;
    let mut frame = Vec::new();
    link(from).tcp_header(header).write(&mut frame, &[]).unwrap();
    frame
}

fn udp(from: usize, ports: (u16, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    link(from).udp(ports.0, ports.1).write(&mut frame, &[7; 20]).unwrap();
    frame
}

/// The same on one worker and on two; what passed.
fn on_both<const N: usize>(
    steps: impl Fn(&mut Lab) -> [Outcome; N],
) -> ([bool; N], Vec<(&'static str, u64)>) {
    let [one, two] = [1, 2].map(|workers| {
        let mut lab = Lab::new(workers);
        let went = steps(&mut lab);
        (went, lab.begun())
    });
    assert_eq!(one, two);
    let drops = two.0.last().unwrap().1.clone();
    (two.0.map(|(passed, ..)| passed), drops)
}

#[test]
fn a_connection_that_is_allowed_opens_talks_and_closes() {
    let steps = [
        (WEB, "s", 100, 0),
        (DB, "sa", 900, 101),
        (WEB, "a", 101, 901),
        (DB, "a", 901, 101),
        // Far beyond its window, and of what was never sent.
        (DB, "a", 5_000_000, 101),
        (WEB, "a", 101, 5_000_000),
        (WEB, "fa", 101, 901),
        (DB, "fa", 901, 102),
        (WEB, "a", 102, 902),
    ];
    let (passed, drops) = on_both(|lab| {
        let went = steps.map(|(from, flags, seq, ack)| lab.send(from, tcp(from, flags, seq, ack)));
        assert_eq!((went[3].2.clone(), went[8].2.clone()), (vec![Stage::Established], vec![Stage::TimeWait]));
        went
    });
    assert_eq!(passed, [true, true, true, true, false, false, true, true, true]);
    assert_eq!(drops, [("tcp-window", 2)]);
}

/// The question is judged by its own worker, and its answer, which no rule allows, by the other one.
#[test]
fn who_is_isolated_is_answered_and_begins_nothing_else() {
    let (passed, drops) = on_both(|lab| {
        let (asks, answers) = ((1000, 53), (53, 1000));
        let mut went = vec![
            lab.send(WEB, udp(WEB, answers)),
            lab.send(DB, udp(DB, asks)),
            lab.send(WEB, udp(WEB, answers)),
            lab.send(WEB, udp(WEB, (53, 1001))),
            lab.send(DB, udp(DB, (1000, 54))),
            lab.send(DB, tcp(DB, "sa", 900, 101)),
        ];
        // It is forgotten.
        lab.now.ns += 130_000_000_000;
        introduce(&mut lab.net);
        went.push(lab.send(WEB, udp(WEB, answers)));
        went.try_into().unwrap()
    });
    assert_eq!(passed, [false, true, true, false, false, false, false]);
    assert_eq!(drops, [("policy-egress", 2), ("policy-ingress", 3)]);
}

/// Whichever worker sees it first after the change: each direction stops, and goes on when it is allowed again.
#[test]
fn what_is_no_longer_allowed_stops_in_both_directions() {
    for first in [WEB, DB] {
        let (passed, drops) = on_both(|lab| {
            let begins = [tcp(WEB, "s", 100, 0), tcp(DB, "sa", 900, 101), tcp(WEB, "a", 101, 901)];
            for (frame, from) in begins.into_iter().zip([WEB, DB, WEB]) {
                assert!(lab.send(from, frame).0);
            }
            let goes_on = |lab: &mut Lab| {
                [first, 1 - first].map(|from| {
                    let (seq, ack) = if from == WEB { (101, 901) } else { (901, 101) };
                    lab.send(from, tcp(from, "a", seq, ack))
                })
            };
            let before = goes_on(lab);
            lab.allow("db", 5433);
            let denied = goes_on(lab);
            lab.allow("db", 5432);
            let again = goes_on(lab);
            let by = ByPolicy { name: "db".into(), namespace: "shop".into() };
            lab.net.rig.declare(&Request::PolicyDelete(by)).unwrap();
            let without = goes_on(lab);
            [before, denied, again, without].concat().try_into().unwrap()
        });
        assert_eq!(passed, [true, true, false, false, true, true, true, true], "first {first}");
        assert_eq!(drops, [("policy-ingress", 2)], "first {first}");
    }
}
