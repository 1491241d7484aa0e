//! How flows are dealt out among ports: what two that take all they get leave to the others.

use super::tests::{Table, packet};
use super::*;
use crate::wire::packet::Content;

/// Begins flows at a port until it may have no more, all of them answered. How many there are.
fn takes_all(table: &mut Table, port: u16) -> u32 {
    for n in 0..=u128::from(table.flows.limits().all) {
        if begins(table, port, n) == Err(Refusal::PortLimit) {
            return table.flows.counted_of(port).all;
        }
    }
    panic!("port {port} had all");
}

/// One more flow of a port, and its answer.
fn begins(table: &mut Table, port: u16, n: u128) -> Result<Opened, Refusal> {
    let (ends, ports) = ((u128::from(port) << 64 | n, u128::from(port) << 64 | 1 << 32), [5, 6]);
    let opened = table.packet(&packet(ends.0, ends.1, 17, ports, Content::Udp), port)?;
    assert!(table.packet(&packet(ends.1, ends.0, 17, [6, 5], Content::Udp), port).is_ok());
    Ok(opened)
}

/// A quarter of the table is dealt out: two ports have no more than the rest, and each of the others has its share of the quarter, exactly.
#[test]
fn two_greedy_ports_leave_each_of_the_others_its_share() {
    let mut table = Table::new(1024, false);
    let limits = table.flows.limits();
    assert_eq!(limits, Limits { all: 1024, port: 512, share: 32, half_open: 128 });
    // The first has as much as one port may, the second what is left of the part that is not dealt out.
    assert_eq!([takes_all(&mut table, 1), takes_all(&mut table, 2)], [512, 256]);
    for port in [0, 3, 4, 5, 6, 7] {
        for n in 0..u128::from(limits.share) {
            assert!(matches!(begins(&mut table, port, n), Ok(Opened::New(_))), "port {port}, {n}");
        }
        assert_eq!(begins(&mut table, port, 99), Err(Refusal::PortLimit), "port {port}");
        assert_eq!(table.flows.counted_of(port).all, limits.share);
        // What they leave is nobody's but a quiet port's.
        assert_eq!(begins(&mut table, 2, 5000), Err(Refusal::PortLimit), "port {port}");
    }
    assert_eq!(table.flows.counted().all, 512 + 256 + 6 * 32);
    // What is over is anybody's again.
    table.now_s += state::Stage::UdpAnswered.timeout_s() + 60;
    table.sweep();
    assert_eq!([takes_all(&mut table, 2), takes_all(&mut table, 3)], [512, 256]);
}

/// One that has more than its share has nothing of it beside: the quarter is for whoever has less.
#[test]
fn who_has_its_share_already_gets_nothing_of_the_quarter() {
    let mut table = Table::new(1024, false);
    let share = u128::from(table.flows.limits().share);
    for n in 0..share + 1 {
        assert!(matches!(begins(&mut table, 3, n), Ok(Opened::New(_))), "{n}");
    }
    assert_eq!([takes_all(&mut table, 1), takes_all(&mut table, 2)], [512, 768 - 512 - 33]);
    assert_eq!(begins(&mut table, 3, 99), Err(Refusal::PortLimit));
    assert!(matches!(begins(&mut table, 4, 0), Ok(Opened::New(_))));
}

/// Places are dealt to workers by chunks: one that comes when all are dealt has none, whatever the ports may have. A chunk in which no flow is
/// left goes back, and is the other's.
#[test]
fn a_worker_that_comes_when_all_places_are_dealt_waits_until_a_chunk_is_unused() {
    let mut table = Table::new(CHUNK as usize, false);
    assert!(matches!(begins(&mut table, 1, 0), Ok(Opened::New(_))));
    let mut late = keeper::Keeper::new(8, table.flows.places());
    std::mem::swap(&mut table.keeper, &mut late);
    assert_eq!(begins(&mut table, 2, 0), Err(Refusal::Full));
    assert_eq!((table.flows.counted().all, table.flows.counted_of(2).all), (1, 0));
    std::mem::swap(&mut table.keeper, &mut late);
    assert!(matches!(begins(&mut table, 2, 0), Ok(Opened::New(_))));
    table.sweep();
    std::mem::swap(&mut table.keeper, &mut late);
    assert_eq!(begins(&mut table, 2, 1), Err(Refusal::Full), "two flows are there");
    std::mem::swap(&mut table.keeper, &mut late);
    table.now_s += state::Stage::UdpAnswered.timeout_s() + 60;
    table.sweep();
    std::mem::swap(&mut table.keeper, &mut late);
    assert!(matches!(begins(&mut table, 2, 1), Ok(Opened::New(_))));
    std::mem::swap(&mut table.keeper, &mut late);
    assert_eq!(begins(&mut table, 1, 1), Err(Refusal::Full), "it is the other's now");
}

/// A worker at rest comes by four times a second. What a flood and its other ports left with it goes back all the same, and soon.
#[test]
fn a_worker_at_rest_gives_its_places_back() {
    const BEAT_NS: u64 = 250_000_000;
    let mut table = Table::new(65_536, false);
    for n in 0..10_000 {
        assert!(begins(&mut table, 1, n).is_ok());
    }
    let half_open = u128::from(table.flows.limits().half_open);
    for n in 0..half_open {
        let opened = table.packet(&packet(7 << 64 | n, 8 << 64, 17, [5, 6], Content::Udp), 2);
        assert!(opened.is_ok(), "{opened:?}");
    }
    let mut late = keeper::Keeper::new(8, table.flows.places());
    let mut now_ns = u64::from(table.now_s + state::Stage::UdpAnswered.timeout_s() + 1) * 1_000_000_000;
    let mut beats = 0;
    while table.keeper.owned() > 0 {
        beats += 1;
        now_ns += BEAT_NS;
        table.keeper.sweep_at_rest(&table.flows, now_ns);
        assert!(beats < 4 * 30, "{} places are left, {:?}", table.keeper.owned(), table.flows.counted());
    }
    std::mem::swap(&mut table.keeper, &mut late);
    for n in 0..10_000 {
        assert!(begins(&mut table, 1, n).is_ok());
    }
}
