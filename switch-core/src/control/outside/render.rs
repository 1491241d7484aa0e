//! What is declared, as the table `inet switchd`. `nft list table inet switchd` shows it; docs/adr/0020 explains it.

use crate::config::outside::{Forward, Outside};
use crate::nft::expression::{Family, Meta, REG, Rule};
use crate::nft::ranges::ranges;
use crate::nft::table::Type;
use crate::nft::{Chain, Hook, Set, Table};
use std::collections::BTreeSet;
use std::net::IpAddr;
use switch_api::Protocol;

/// The table's name. There is one of it in a network namespace, as there is one daemon that has a host port there.
pub(super) const TABLE: &str = "switchd";
const COMMENT: &str = "kept by switchd: changes are undone";

/// IANA's number.
pub(super) const UDP: u8 = 17;

/// Devices by which the kernel reaches the switch.
const DEVICES: &str = "devices";
/// Those to which answers return.
const RETURNING: &str = "returning";

/// The table.
pub(super) fn table(outside: &Outside) -> Table {
    let mut sets = vec![Set::devices(DEVICES, &outside.devices)];
    if returns(outside) {
        sets.push(Set::devices(RETURNING, &outside.returning));
    }
    sets.extend(Family::ALL.into_iter().flat_map(|family| sets_of(outside, family)));
    let mut chains = Vec::new();
    if !outside.published.is_empty() {
        chains.extend(published());
    }
    chains.push(postrouting(outside));
    Table { name: TABLE.into(), comment: COMMENT.into(), sets, chains }
}

/// Whether what is published is led by a device to which answers return.
fn returns(outside: &Outside) -> bool {
    !outside.published.is_empty() && !outside.returning.is_empty()
}

/// A set's name, for one IP version.
fn of(name: &str, family: Family) -> String {
    format!("{name}{}", if family == Family::V4 { 4 } else { 6 })
}

fn sets_of(outside: &Outside, family: Family) -> Vec<Set> {
    let v4 = family == Family::V4;
    let address = if v4 { Type::V4 } else { Type::V6 };
    let mut sets = vec![
        Set::addresses(&of("masquerade", family), v4, &ranges(&outside.sources, v4)),
        Set::addresses(&of("no_masquerade", family), v4, &ranges(&outside.direct, v4)),
    ];
    if outside.published.is_empty() {
        return sets;
    }
    let all = || outside.published.iter().filter(|forward| forward.to.is_ipv4() == v4);
    let (protocol, port) = (Type::Protocol, Type::Port);
    let target = |forward: &Forward| [bytes_of(forward.to), port_of(forward.to_port)].concat();
    let asked = |forward: &Forward| [protocol_of(forward.protocol), port_of(forward.port)].concat();
    let anywhere = all().filter(|forward| forward.at.is_none());
    let anywhere = anywhere.map(|forward| (asked(forward), target(forward)));
    sets.push(Set::map(&of("published", family), &[protocol, port], &[address, port], anywhere));
    let somewhere =
        all().filter_map(|forward| Some(([bytes_of(forward.at?), asked(forward)].concat(), target(forward))));
    let name = of("published_at", family);
    sets.push(Set::map(&name, &[address, protocol, port], &[address, port], somewhere));
    let led_to = |forward: &Forward| {
        [bytes_of(forward.to), protocol_of(forward.protocol), port_of(forward.to_port)].concat()
    };
    // Two ports of the node may lead to one of a pod.
    let once = |rows: BTreeSet<Vec<u8>>| rows.into_iter().collect::<Vec<_>>();
    let pods = once(all().map(led_to).collect());
    sets.push(Set::of(&of("pods", family), &[address, protocol, port], pods));
    if returns(outside) {
        let itself = all().map(|forward| [bytes_of(forward.to), led_to(forward)].concat());
        let itself = once(itself.collect());
        sets.push(Set::of(&of("itself", family), &[address, address, protocol, port], itself));
    }
    sets
}

/// The way in. Destinations are translated for what comes, and for what the node sends itself.
fn published() -> Vec<Chain> {
    let mut rules = Vec::new();
    for family in Family::ALL {
        let (address, behind) = (REG, REG + family.address_len() / 4);
        let at = Rule::new()
            .family(family)
            .destination(family, REG)
            .meta(Meta::Protocol, behind)
            .destination_port(behind + 1)
            .mapped(&of("published_at", family), REG)
            .translate(family, address, behind);
        let anywhere = Rule::new()
            .family(family)
            .meta(Meta::Protocol, REG)
            .destination_port(REG + 1)
            .mapped(&of("published", family), REG)
            .translate(family, address, behind);
        rules.extend([at, anywhere]);
    }
    let enter = || vec![Rule::new().to_this_machine().jump("published")];
    // The device lets 127.0.0.0/8 through for answers to what the node asks from there, which have the device's address until they
    // are translated back. Whoever writes such an address on the wire reaches for what only the node may reach (CVE-2020-8558).
    let guard = || Rule::new().meta(Meta::InDevice, REG).is_in(DEVICES, REG);
    let guard = vec![guard().to_loopback().drop(), guard().from_loopback().drop()];
    vec![
        Chain::new("guard", Some(Hook::Raw), guard),
        Chain::new("published", None, rules),
        Chain::new("prerouting", Some(Hook::Prerouting), enter()),
        Chain::new("output", Some(Hook::Output), enter()),
    ]
}

fn postrouting(outside: &Outside) -> Chain {
    let to_switch = || Rule::new().meta(Meta::OutDevice, REG).is_in(DEVICES, REG);
    let mut rules = Vec::new();
    if !outside.published.is_empty() {
        // A pod has no way back to the node's loopback.
        rules.push(to_switch().from_loopback().masquerade());
        // A pod that asks for a published port of its own must not get its own address to answer to.
        if returns(outside) {
            rules.extend(Family::ALL.map(|family| {
                let words = family.address_len() / 4;
                let (to, behind) = (REG + words, REG + 2 * words);
                to_switch()
                    .is_translated()
                    .family(family)
                    .source(family, REG)
                    .destination(family, to)
                    .meta(Meta::Protocol, behind)
                    .destination_port(behind + 1)
                    .is_in(&of("itself", family), REG)
                    .masquerade()
            }));
        }
        // One that asks for another pod's must get the answer from the node that it asked. Where answers return to the node anyway, its own address
        // stays: kube-proxy may have led it to that very port, and a policy would take it for the node.
        rules.extend(Family::ALL.map(|family| {
            let behind = REG + family.address_len() / 4;
            let to_switch = match returns(outside) {
                true => to_switch().is_not_in(RETURNING, REG),
                false => to_switch(),
            };
            to_switch
                .meta(Meta::InDevice, REG)
                .is_in(DEVICES, REG)
                .is_translated()
                .family(family)
                .destination(family, REG)
                .meta(Meta::Protocol, behind)
                .destination_port(behind + 1)
                .is_in(&of("pods", family), REG)
                .masquerade()
        }));
    }
    let is_asked = |family: &Family| {
        outside.sources.iter().any(|prefix| prefix.address.is_ipv4() == (*family == Family::V4))
    };
    rules.extend(Family::ALL.into_iter().filter(is_asked).map(|family| {
        Rule::new()
            .meta(Meta::OutDevice, REG)
            .is_not_in(DEVICES, REG)
            .family(family)
            .source(family, REG)
            .is_in(&of("masquerade", family), REG)
            .destination(family, REG)
            .is_not_in(&of("no_masquerade", family), REG)
            .masquerade()
    }));
    Chain::new("postrouting", Some(Hook::Postrouting), rules)
}

fn bytes_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Padded to 4 bytes, as a part of a key.
fn port_of(port: u16) -> Vec<u8> {
    [&port.to_be_bytes()[..], &[0; 2]].concat()
}

/// IANA's number, padded to 4 bytes.
fn protocol_of(protocol: Protocol) -> Vec<u8> {
    let number = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => UDP,
        Protocol::Sctp => 132,
    };
    vec![number, 0, 0, 0]
}
