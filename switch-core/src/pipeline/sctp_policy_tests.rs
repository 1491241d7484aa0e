//! SCTP under network policies, frame by frame: packets without a chunk or with half of one, tags that nobody gave, and what fits no association.

use super::policy_tests::{NOW, Net, introduce, mac, net, packet};
use crate::counter::DropReason;
use crate::table::flow::state::Stage;
use crate::wire::checksum::{fold, sum};
use serde_json::json;
use std::net::IpAddr;
use switch_api::{NetworkPolicy, Protocol, Workload};

const DB: usize = 0;
const WEB: usize = 1;
/// What each end wants to see in what it is sent.
const TAGS: [u32; 2] = [0x2222_0001, 0x1111_0002];
const PORT: u16 = 5000;

mod chunk {
    pub const DATA: u8 = 0;
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const HEARTBEAT: u8 = 4;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

fn ip(v6: bool, pod: usize) -> IpAddr {
    if v6 { format!("fd00::{}", pod + 1) } else { format!("10.0.0.{}", pod + 1) }.parse().unwrap()
}

/// What stands in front of a packet's first chunk, and that.
#[derive(Clone, Copy, Debug)]
struct Said {
    tag: u32,
    chunk: u8,
    flags: u8,
    len: u16,
    initiate: u32,
}

fn said(tag: u32, chunk: u8, initiate: u32) -> Said {
    Said { tag, chunk, flags: 0, len: 20, initiate }
}

/// `db` takes SCTP from `web` by one port, and begins nothing.
struct Lab {
    net: Net,
    v6: bool,
}

impl Lab {
    fn new(v6: bool) -> Self {
        let pods = ["db", "web"].into_iter().enumerate().map(|(n, app)| Workload {
            namespace: "shop".into(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            ports: vec![],
            addresses: vec![ip(false, n), ip(true, n)],
        });
        let rule = json!({"from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
            "ports": [{"protocol": "SCTP", "port": PORT}]});
        let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"], "ingress": [rule]});
        let policy = json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": spec});
        let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
        let mut net = net(vec![], &pods.collect::<Vec<_>>(), &[policy]);
        introduce(&mut net);
        Self { net, v6 }
    }

    fn frame(&self, from: usize, said: Said) -> Vec<u8> {
        let (to, link) = (1 - from, (mac(1 - from), mac(from)));
        let mut frame = packet(link, ip(self.v6, from), ip(self.v6, to), (Protocol::Sctp, PORT), 7);
        let at = frame.len() - 40;
        let sctp = &mut frame[at..];
        if from == DB {
            sctp[..2].copy_from_slice(&PORT.to_be_bytes());
            sctp[2..4].copy_from_slice(&40_000u16.to_be_bytes());
        }
        sctp[4..8].copy_from_slice(&said.tag.to_be_bytes());
        (sctp[12], sctp[13]) = (said.chunk, said.flags);
        sctp[14..16].copy_from_slice(&said.len.to_be_bytes());
        sctp[16..20].copy_from_slice(&said.initiate.to_be_bytes());
        frame
    }

    /// A packet of which no more is there than so many bytes behind the IP header.
    fn cut(&self, from: usize, said: Said, len: usize) -> Vec<u8> {
        let mut frame = self.frame(from, said);
        let head = frame.len() - 40;
        frame.truncate(head + len);
        if self.v6 {
            frame[18..20].copy_from_slice(&(len as u16).to_be_bytes());
        } else {
            frame[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
            frame[24..26].fill(0);
            let checksum = !fold(sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        frame
    }

    /// How many were dropped, by reason.
    fn drops(&self) -> Vec<u64> {
        let of = |reason: &DropReason| [0, 1].map(|port| self.net.rig.counters[0].drops(port, *reason));
        DropReason::ALL.iter().map(|reason| of(reason).iter().sum()).collect()
    }

    /// Whether a frame arrives; what does not is one drop, and nothing else is.
    fn arrives(&mut self, from: usize, frame: Vec<u8>) -> bool {
        let before: u64 = self.drops().iter().sum();
        assert!(self.net.peers[from].send(frame));
        self.net.rig.settle(NOW);
        self.net.rig.assert_conserved();
        let came = std::iter::from_fn(|| self.net.peers[1 - from].recv()).count();
        assert_eq!(self.drops().iter().sum::<u64>() - before, u64::from(came == 0));
        came == 1
    }

    fn says(&mut self, from: usize, said: Said) -> bool {
        let frame = self.frame(from, said);
        self.arrives(from, frame)
    }

    /// Where a frame ends that is dropped.
    fn dropped(&mut self, from: usize, frame: Vec<u8>) -> &'static str {
        let before = self.drops();
        assert!(!self.arrives(from, frame));
        let after = self.drops();
        let at = before.iter().zip(&after).position(|(before, after)| before != after);
        at.map_or("", |at| DropReason::ALL[at].name())
    }

    fn stages(&self) -> Vec<Stage> {
        let (flows, mut stages) = (&self.net.rig.tables.flows, Vec::new());
        flows.scan(0..flows.places(), NOW.s(), |_, entry| stages.push(entry.state.stage));
        stages
    }

    /// An association as it should begin, so far.
    fn open(&mut self, stage: Stage) {
        let steps = [
            (WEB, said(0, chunk::INIT, TAGS[WEB]), Stage::SctpInit),
            (DB, said(TAGS[WEB], chunk::INIT_ACK, TAGS[DB]), Stage::SctpInitAnswered),
            (WEB, said(TAGS[DB], chunk::COOKIE_ECHO, 0), Stage::SctpCookie),
            (DB, said(TAGS[WEB], chunk::COOKIE_ACK, 0), Stage::SctpOpen),
        ];
        for (from, said, reached) in steps {
            assert!(self.says(from, said), "{said:?}");
            assert_eq!(self.stages(), [reached]);
            if reached == stage {
                return;
            }
        }
        panic!("{stage:?} is none of them");
    }
}

fn each(test: impl Fn(Lab)) {
    [false, true].into_iter().for_each(|v6| test(Lab::new(v6)));
}

#[test]
fn a_packet_with_no_chunk_or_half_of_ones_head_is_no_packet() {
    each(|mut lab| {
        let init = said(0, chunk::INIT, TAGS[WEB]);
        for len in 0..16 {
            let frame = lab.cut(WEB, init, len);
            assert_eq!(lab.dropped(WEB, frame), "ip-header", "{len} bytes, v6 {}", lab.v6);
        }
        // The head alone names no tag, and so does half of what does.
        for len in 16..20 {
            let frame = lab.cut(WEB, init, len);
            assert_eq!(lab.dropped(WEB, frame), "no-flow", "{len} bytes, v6 {}", lab.v6);
        }
        assert_eq!(lab.stages(), []);
        let frame = lab.cut(WEB, init, 32);
        assert!(lab.arrives(WEB, frame));
        // Nor are they of an association that there is.
        lab.says(DB, said(TAGS[WEB], chunk::INIT_ACK, TAGS[DB]));
        let half = lab.cut(WEB, said(TAGS[DB], chunk::COOKIE_ECHO, 0), 12);
        assert_eq!(lab.dropped(WEB, half), "ip-header");
        assert_eq!(lab.stages(), [Stage::SctpInitAnswered]);
    });
}

#[test]
fn only_an_init_without_a_tag_that_names_one_begins_an_association() {
    each(|mut lab| {
        let v6 = lab.v6;
        for said in [said(0, chunk::INIT, 0), said(1, chunk::INIT, 1), said(1, chunk::INIT, 0)] {
            let frame = lab.frame(WEB, said);
            assert_eq!(lab.dropped(WEB, frame), "no-flow", "{said:?}, v6 {v6}");
        }
        for kind in (0..=u8::MAX).filter(|kind| *kind != chunk::INIT) {
            let frame = lab.frame(WEB, said(0, kind, 1));
            assert_eq!(lab.dropped(WEB, frame), "no-flow", "chunk {kind}, v6 {v6}");
        }
        // Who may begin nothing is told so whatever it says.
        for kind in [chunk::DATA, chunk::INIT] {
            let frame = lab.frame(DB, said(0, kind, 1));
            assert_eq!(lab.dropped(DB, frame), "policy-egress", "chunk {kind}, v6 {v6}");
        }
        assert_eq!(lab.stages(), []);
        lab.open(Stage::SctpOpen);
    });
}

/// Of every stage: a packet with another tag than its receiver chose is dropped, and the association goes on as it was.
#[test]
fn a_wrong_tag_is_of_no_association_and_moves_none() {
    for stage in [Stage::SctpInit, Stage::SctpInitAnswered, Stage::SctpCookie, Stage::SctpOpen] {
        each(|mut lab| {
            let v6 = lab.v6;
            lab.open(stage);
            let kinds = [
                chunk::DATA,
                chunk::INIT_ACK,
                chunk::HEARTBEAT,
                chunk::ABORT,
                chunk::SHUTDOWN,
                chunk::COOKIE_ECHO,
                chunk::COOKIE_ACK,
                chunk::SHUTDOWN_COMPLETE,
                255,
            ];
            for (from, kind) in kinds.into_iter().flat_map(|kind| [(WEB, kind), (DB, kind)]) {
                // Nobody's, none, the sender's own, and one that differs by a bit.
                for tag in [0xdead_beef, 0, TAGS[from], TAGS[1 - from] ^ 1] {
                    let frame = lab.frame(from, said(tag, kind, 5));
                    let what = format!("{stage:?}: {kind} of {from} with {tag:x}, v6 {v6}");
                    assert_eq!(lab.dropped(from, frame), "flow-state", "{what}");
                }
            }
            assert_eq!(lab.stages(), [stage], "v6 {v6}");
            // Whom the packet of `web` reached has not chosen one yet.
            if stage == Stage::SctpOpen {
                assert!(lab.says(WEB, said(TAGS[DB], chunk::DATA, 0)));
                assert!(lab.says(DB, said(TAGS[WEB], chunk::DATA, 0)));
            }
        });
    }
}

/// RFC 9260 §8.5.1: who was sent what it knows nothing of says so with the tag that it was sent.
#[test]
fn an_abort_may_bear_its_senders_own_tag_where_it_says_so() {
    each(|mut lab| {
        lab.open(Stage::SctpOpen);
        let abort = said(TAGS[DB], chunk::ABORT, 0);
        let frame = lab.frame(DB, abort);
        assert_eq!(lab.dropped(DB, frame), "flow-state");
        assert!(lab.says(DB, Said { flags: 1, ..abort }));
        assert_eq!(lab.stages(), [Stage::SctpClosed]);
    });
}

/// Whatever a packet's first chunk is and however long it says it is: it arrives or is one drop, in every stage and from both ends.
#[test]
fn every_chunk_arrives_or_is_one_drop() {
    for stage in [None, Some(Stage::SctpInit), Some(Stage::SctpOpen)] {
        each(|mut lab| {
            stage.into_iter().for_each(|stage| lab.open(stage));
            for (kind, len) in (0..=u8::MAX).flat_map(|kind| [0, 3, 20, u16::MAX].map(|len| (kind, len))) {
                for from in [WEB, DB] {
                    let said = Said { len, flags: 1, ..said(TAGS[1 - from], kind, 1) };
                    let frame = lab.frame(from, said);
                    lab.arrives(from, frame);
                }
            }
            assert!(lab.stages().len() <= 1);
        });
    }
}
