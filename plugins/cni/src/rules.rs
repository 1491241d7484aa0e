//! Rules of a container's namespace that lead packets to a routing table by the address that they are from (ip-rule(8), linux/fib_rules.h).

use crate::netns::{ask, dump, inside, open};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use std::io;
use std::net::IpAddr;

/// Before the main table (32766), and behind what somebody wrote by hand with a small number.
const PRIORITY: u32 = 20_000;

/// Addresses from which packets are led to a table.
pub fn sources(netns: &str, table: u32) -> io::Result<Vec<IpAddr>> {
    inside(netns, || seen(&open()?, table))
}

/// Leads packets from these addresses to a table, and from no others.
pub fn lead(netns: &str, table: u32, wanted: &[IpAddr]) -> io::Result<()> {
    inside(netns, || {
        let socket = open()?;
        let present = seen(&socket, table)?;
        delete(&socket, table, present.iter().filter(|source| !wanted.contains(source)))?;
        for new in wanted.iter().filter(|source| !present.contains(source)) {
            let message = RouteNetlinkMessage::NewRule(rule(*new, table));
            ask(&socket, message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, |_| {})?;
        }
        Ok(())
    })
}

/// Leads packets from these addresses to a table no longer; from all, if none are named.
pub fn forget(netns: &str, table: u32, sources: Option<&[IpAddr]>) -> io::Result<()> {
    inside(netns, || {
        let socket = open()?;
        let present = seen(&socket, table)?;
        delete(&socket, table, present.iter().filter(|it| sources.is_none_or(|named| named.contains(it))))
    })
}

fn delete<'a>(socket: &Socket, table: u32, mut sources: impl Iterator<Item = &'a IpAddr>) -> io::Result<()> {
    sources.try_for_each(|source| {
        let message = RouteNetlinkMessage::DelRule(rule(*source, table));
        ask(socket, message, NLM_F_REQUEST | NLM_F_ACK, |_| {})
    })
}

fn rule(source: IpAddr, table: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    let (family, len) = match source {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    (message.header.family, message.header.src_len) = (family, len);
    message.header.action = RuleAction::ToTable;
    message.attributes =
        vec![RuleAttribute::Source(source), RuleAttribute::Table(table), RuleAttribute::Priority(PRIORITY)];
    message
}

fn seen(socket: &Socket, table: u32) -> io::Result<Vec<IpAddr>> {
    let mut sources = Vec::new();
    dump(socket, RouteNetlinkMessage::GetRule(RuleMessage::default()), |message| {
        let RouteNetlinkMessage::NewRule(rule) = message else { return };
        if rule.attributes.contains(&RuleAttribute::Table(table)) {
            sources.extend(rule.attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Source(source) => Some(*source),
                _ => None,
            }));
        }
    })?;
    Ok(sources)
}
