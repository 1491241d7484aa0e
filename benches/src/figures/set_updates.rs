//! [set-updates] Members of an address set that come and go one by one, each in a request of its own that is kept on disk and answered when every worker
//! goes by it, with 100 000 rules and 99 000 members loaded; and beside them numbered datagrams to and from a port whose rules name the set:
//! their flow is judged anew after each change, and none may be lost. Before that members that each are the first in one of the rules' networks:
//! no address was in such a combination, and tables get what is said of it.

use super::{Bench, Figure, Held};
use crate::changes::{as_answered, each_timed, named};
use crate::iperf::PATIENCE;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use switch_api::{
    Acl, AclPorts, AclRule, AclTier, AddressSet, AddressSetDone, AddressSetUpdate, Client, Done, IpProtocol,
    Name, Owner, PortRange, Prefix, Request,
};
use switch_lab::scenes::shop;
use switch_lab::{Options, sequence, wait_until};

/// Members that are there all the time; those that come and go are beside them.
const MEMBERS: u32 = 99_000;
/// Members of a request while they are loaded.
const LOADED_AT_ONCE: usize = 16_384;
/// Ports with rules, and rules of each.
const LISTED: [&str; 2] = ["tap1", "tap2"];
const RULES: u32 = 50_000;
/// Networks that these are about; each of them meets so many ports.
const NETWORKS: u32 = 250;
/// Members that come and go in turn.
const CHANGING: u32 = 500;
const DURATION: Duration = Duration::from_secs(10);
/// Before anything counts: every member that changes has come and gone, so that tables have grown as far as they do.
const BEGIN: u32 = 2 * CHANGING;
/// Datagrams under way in each direction.
const WINDOW: u64 = 64;
/// In force on every worker, p99.
const BAR_MS: f64 = 10.0;

/// What it is held against.
pub(super) const HELD: Held = Held::at_least("changes a second", 1_000.0);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let options = Options::new(&bench.switchd).with("--cores 0,1").keeping_state();
    let (_node, mut daemon, pods) = shop(&options);
    let mut client = daemon.client();
    let set = AddressSet { name: name("blocked")?, members: None, owner: Owner::Operator };
    let _: AddressSetDone = ask(&mut client, &Request::AddressSetSet(set))?;
    let all: Vec<Prefix> = (0..MEMBERS).map(member).collect();
    for some in all.chunks(LOADED_AT_ONCE) {
        update(&mut client, some, &[])?;
    }
    for port in LISTED {
        let _: Done = ask(&mut client, &Request::AclSet(Box::new(list(port)?)))?;
    }
    let [db, _, other] = &pods[..] else { return Err("three pods".into()) };
    wait_until("pods reach each other", PATIENCE, || other.reaches(&db.ip));
    let address = |ip: &str| ip.parse::<IpAddr>().map_err(|error| error.to_string());
    let load = sequence::start(&other.net, &db.net, &[(address(&other.ip)?, address(&db.ip)?)], WINDOW);
    let firsts = each_timed(NETWORKS, |n| update(&mut client, &[first_in(n)], &[]));
    let changed = as_answered(BEGIN, DURATION, |n| change(&mut client, n));
    let tally = load.finish();
    let ((times, rate), firsts) = (changed?, firsts?);
    daemon.assert_conserved();
    let dropped = named(daemon.stats().drops);
    daemon.stop(true);
    let ms = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e6;
    let first_ms = |quantile: f64| firsts.value_at_quantile(quantile) as f64 / 1e6;
    let detail = format!(
        "one member a request, by one client that waits for each answer, for {:.0} s, kept on disk, 2 workers; {} rules, {MEMBERS} \
         members; from request to every worker has it p50 {:.2}, p99 {:.2} (bar {BAR_MS}), worst {:.2} ms; of {NETWORKS} that each were \
         the first in one of the rules' networks p50 {:.2}, p99 {:.2} (bar {BAR_MS}), worst {:.2} ms; of {} datagrams of a flow \
         that is judged anew after each {} lost (bar 0), {} overtaken; the switch dropped {dropped}",
        DURATION.as_secs_f64(),
        RULES * LISTED.len() as u32,
        ms(0.5),
        ms(0.99),
        ms(1.0),
        first_ms(0.5),
        first_ms(0.99),
        first_ms(1.0),
        tally.sent,
        tally.lost,
        tally.overtaken,
    );
    let holds = ms(0.99).max(first_ms(0.99)) <= BAR_MS
        && tally.lost == 0
        && tally.overtaken == 0
        && tally.sent > 1_000;
    Ok(Figure::new("set-updates", rate, HELD, detail).only_if(holds))
}

/// The next change: a member comes, or the one that came goes.
fn change(client: &mut Client, n: u32) -> Result<(), String> {
    let changes = [member(MEMBERS + n / 2 % CHANGING)];
    match n.is_multiple_of(2) {
        true => update(client, &changes, &[]),
        false => update(client, &[], &changes),
    }
}

/// Members that come and go, all of which do.
fn update(client: &mut Client, add: &[Prefix], remove: &[Prefix]) -> Result<(), String> {
    let update = AddressSetUpdate { name: name("blocked")?, add: add.to_vec(), remove: remove.to_vec() };
    let done: AddressSetDone = ask(client, &Request::AddressSetUpdate(update))?;
    let are_done = (done.added, done.removed) == (add.len(), remove.len());
    if are_done { Ok(()) } else { Err(format!("{done:?} of {} and {}", add.len(), remove.len())) }
}

/// A member, half of them of IPv6, all over an address space that nobody here is in.
fn member(n: u32) -> Prefix {
    let scattered = n.wrapping_mul(0x9e37_79b1);
    Prefix::host(match n % 2 {
        0 => Ipv4Addr::from(100 << 24 | 64 << 16 | scattered >> 10).into(),
        _ => Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(scattered) << 32).into(),
    })
}

/// A member in one of the networks that rules are about.
fn first_in(n: u32) -> Prefix {
    Prefix::host(Ipv4Addr::from(u32::from(network(n)) + 7).into())
}

/// A network that rules are about.
fn network(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(172 << 24 | 16 << 16 | (n % NETWORKS) << 8)
}

/// Rules about what a port is sent, of which none is about what is sent here; the first denies what comes from the set.
fn list(port: &str) -> Result<Acl, String> {
    let blocked =
        AclRule { source_sets: vec![name("blocked")?], ..AclRule::all(switch_api::AclAction::Deny) };
    let rule = |n: u32| {
        let to = 10_000 + (n / NETWORKS) as u16;
        AclRule {
            protocol: Some(IpProtocol::UDP),
            source: vec![Prefix { address: network(n).into(), len: 24 }],
            destination_ports: vec![PortRange { first: to, last: to }],
            ..AclRule::all(switch_api::AclAction::Deny)
        }
    };
    Ok(Acl {
        name: name(&format!("guard-{port}"))?,
        tier: AclTier::default(),
        priority: 0,
        applies_to: AclPorts { ports: vec![name(port)?], ..AclPorts::default() },
        stateless: false,
        ingress: std::iter::once(blocked).chain((1..RULES).map(rule)).collect(),
        egress: Vec::new(),
        owner: Owner::Operator,
    })
}

fn ask<T: serde::de::DeserializeOwned>(client: &mut Client, request: &Request) -> Result<T, String> {
    client.call(request).map_err(|error| error.to_string())
}

fn name(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error| format!("{error}"))
}
