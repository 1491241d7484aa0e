//! What becomes of frames that need a place in a table where another worker writes at that very moment: a worker waits for nobody, so they are
//! dropped by name, and the next one of the same kind finds it free.

use super::Now;
use super::flow_room_tests::{Lab, udp};
use super::fragment_tests::piece;
use super::nat_rig::{NOW, Net, P, host, source};
use crate::counter::DropReason;
use crate::rig::Rig;
use crate::table::flow::key::Key;
use crate::wire::ip::Version;
use crate::wire::packet::Packet;
use etherparse::PacketBuilder;
use switch_api::{PortLimits, PortSettings};

/// From a port with these settings to one with none, and one that wants its flows' answers back: flows are kept of all three.
fn lab(settings: PortSettings) -> Lab {
    let returns = PortSettings { return_flows: true, ..PortSettings::default() };
    Lab::of(4096, vec![(settings, 0), (PortSettings::default(), 0), (returns, 0)])
}

fn held() -> PortSettings {
    PortSettings { track: true, ..PortSettings::default() }
}

/// What is read of a frame, and the zone that its flow is in.
fn read(rig: &Rig, frame: &[u8]) -> (Packet, u16) {
    let fid = *rig.model.fids.values().next().unwrap();
    (Packet::read(&frame[14..], Version::V4).unwrap(), rig.snapshot().fids[usize::from(fid)].zone)
}

/// Writes where the index has a frame's flow, and meanwhile does something.
fn while_its_flow_is_written(lab: &mut Lab, frame: &[u8], meanwhile: impl FnOnce(&mut Lab)) {
    let ((packet, zone), tables) = (read(&lab.rig, frame), lab.rig.tables.clone());
    let flows = &tables.flows;
    flows.while_written(flows.hash(&Key::of(&packet, zone).0), || meanwhile(lab));
}

/// Who is held to flows, or may begin so many, goes no further without one; where they are kept for ways back alone, that is no reason to drop.
#[test]
fn a_flow_that_begins_where_another_worker_writes_is_flow_busy_and_its_next_packet_begins_it() {
    let counted = PortLimits { connections: Some(9), ..PortLimits::default() };
    let counted = PortSettings { limits: counted, ..PortSettings::default() };
    for (settings, is_dropped) in [(held(), true), (counted, true), (PortSettings::default(), false)] {
        let mut lab = lab(settings);
        let (frame, another) = (udp(0, 1, [7, 53]), udp(0, 1, [8, 53]));
        while_its_flow_is_written(&mut lab, &frame.clone(), |lab| {
            assert_eq!(lab.send(0, 1, frame.clone()), !is_dropped);
            assert!(lab.send(0, 1, another), "elsewhere nobody writes");
        });
        lab.rig.assert_conserved();
        let drops = if is_dropped { vec![("flow-busy", 1)] } else { vec![] };
        assert_eq!(lab.drops(), drops);
        assert_eq!(lab.rig.counters[0].drops(0, DropReason::FlowBusy), u64::from(is_dropped));
        // The place that it was to have is nobody's, and what it counted for is taken back.
        assert_eq!(lab.rig.tables.flows.begun_at(0), 1);
        assert!(lab.send(0, 1, frame) && lab.send(1, 0, udp(1, 0, [53, 7])));
        assert_eq!((lab.rig.tables.flows.begun_at(0), lab.drops()), (2, drops));
    }
}

/// Where the index is written it answers nobody. What goes on is known without it, as soon as it is remembered; what is not is as a beginning.
#[test]
fn a_flow_that_goes_on_passes_while_the_index_is_written_where_it_stands() {
    for (packets, is_remembered) in [(1, false), (20, true)] {
        let mut lab = lab(held());
        let (asks, answers) = (udp(0, 1, [7, 53]), udp(1, 0, [53, 7]));
        for _ in 0..packets {
            assert!(lab.send(0, 1, asks.clone()) && lab.send(1, 0, answers.clone()));
        }
        while_its_flow_is_written(&mut lab, &asks.clone(), |lab| {
            assert_eq!(lab.send(0, 1, asks.clone()), is_remembered);
            assert_eq!(lab.send(1, 0, answers.clone()), is_remembered);
        });
        lab.rig.assert_conserved();
        assert_eq!(lab.drops(), if is_remembered { vec![] } else { vec![("flow-busy", 2)] });
        assert!(lab.send(0, 1, asks) && lab.send(1, 0, answers), "nothing has become of the flow");
        assert_eq!(lab.rig.tables.flows.begun_at(0), 1);
    }
}

/// A segment between the first two ports: flags as letters, and what it is about.
fn segment(from: usize, flags: &str, [seq, ack]: [u32; 2]) -> Vec<u8> {
    let end = |n: usize| ([2, 0, 0, 0, 0, n as u8], [10, 0, 0, n as u8]);
    let (mine, other) = (end(from), end(1 - from));
    let builder = PacketBuilder::ethernet2(mine.0, other.0).ipv4(mine.1, other.1, 64);
    let tcp = builder.tcp([7, 80][from], [80, 7][from], seq, 8000);
    let mut frame = Vec::new();
    let built = match flags {
        "s" => tcp.syn(),
        "sa" => tcp.syn().ack(ack),
        _ => tcp.ack(ack),
    };
    built.write(&mut frame, &[]).unwrap();
    frame
}

/// From the middle of a connection, while the index is written where that stands: it is not said that there was no connection. Where there is none
/// it is.
#[test]
fn a_segment_of_a_connection_that_cannot_be_looked_up_is_flow_busy_and_one_of_none_is_no_flow() {
    for (is_open, name) in [(true, "flow-busy"), (false, "no-flow")] {
        let mut lab = lab(held());
        if is_open {
            assert!(
                lab.send(0, 1, segment(0, "s", [100, 0])) && lab.send(1, 0, segment(1, "sa", [900, 101]))
            );
        }
        let middle = segment(0, "a", [101, 901]);
        if is_open {
            while_its_flow_is_written(&mut lab, &middle.clone(), |lab| {
                assert!(!lab.send(0, 1, middle.clone()))
            });
        } else {
            assert!(!lab.send(0, 1, middle.clone()));
        }
        lab.rig.assert_conserved();
        assert_eq!(lab.drops(), [(name, 1)]);
        assert_eq!(lab.send(0, 1, middle), is_open);
    }
}

/// To the owner of a flow that is over it belongs to give up what it was bound to: until he comes round, nobody else can begin it or end it.
#[test]
fn an_answer_to_a_translated_flow_that_is_over_is_flow_busy_until_the_worker_that_made_it_comes_round() {
    const S: u64 = 1_000_000_000;
    let rule = source("out", &["10.0.0.0/16"], &[], Some("br1"), &[host(false, 9, 100)], "2000-2005");
    let mut net = Net::new(2, &[rule]);
    let asks = P::udp("10.0.0.10", 4000, "10.1.0.10", 53);
    let became = net.send(asks).unwrap();
    let busy = |net: &Net| net.rig.counters[1].drops(1, DropReason::FlowBusy);
    // One end has spoken: 30 s. The other worker alone has a turn.
    let late = Now { ns: NOW.ns + 31 * S };
    for dropped in 1..3 {
        net.put(1, 10, &became.mirror().packet(b"late"));
        (0..3).for_each(|_| _ = net.rig.turns[1].run(late));
        net.rig.assert_conserved();
        assert_eq!(busy(&net), dropped);
    }
    // A round of the first worker's is 4 s.
    for ms in 0..5000 {
        net.rig.run(Now { ns: late.ns + ms * 1_000_000 });
    }
    let later = Now { ns: late.ns + 5 * S };
    net.put(1, 10, &became.mirror().packet(b"late"));
    assert_eq!(net.settle(later), []);
    assert_eq!(
        (busy(&net), net.rig.drops(DropReason::FlowBusy), net.rig.drops(DropReason::NatNone)),
        (2, 2, 1)
    );
    // Whoever asks again is translated again, and answered.
    net.put(0, 10, &asks.packet(b"again"));
    let out = net.settle(later);
    let [(1, frame)] = &out[..] else { panic!("{out:02x?}") };
    net.put(1, 10, &P::read(&frame[14..], true).mirror().packet(b"answer"));
    assert_eq!(net.settle(later).len(), 1);
}

/// The first piece of a packet leaves a note for those that follow; where that cannot be left, none of them passes.
#[test]
fn a_first_fragment_whose_place_is_being_written_is_fragment_table_full_and_passes_when_sent_again() {
    for (settings, is_dropped) in [(held(), true), (PortSettings::default(), false)] {
        let mut lab = lab(settings);
        let pieces = |id| {
            [(0..8, true), (8..16, false)].map(|(part, more)| piece(&udp(0, 1, [7, 53]), id, part, more))
        };
        let ([first, later], tables) = (pieces(1), lab.rig.tables.clone());
        let (packet, zone) = read(&lab.rig, &first);
        let fragments = &tables.fragments;
        fragments.while_written(&packet, zone, || {
            assert_eq!(lab.send(0, 1, first.clone()), !is_dropped);
            for another in pieces(2) {
                assert!(lab.send(0, 1, another), "elsewhere nobody writes");
            }
        });
        let mut drops = if is_dropped { vec![("fragment-table-full", 1)] } else { vec![] };
        assert_eq!(lab.drops(), drops);
        assert_eq!(lab.send(0, 1, later.clone()), !is_dropped, "behind no first");
        if is_dropped {
            drops.insert(0, ("fragment-no-first", 1));
        }
        assert!(lab.send(0, 1, first) && lab.send(0, 1, later));
        assert_eq!(
            (lab.drops(), lab.rig.counters[0].drops(0, DropReason::FragmentFull)),
            (drops, u64::from(is_dropped))
        );
        lab.rig.assert_conserved();
    }
}
