//! What policies stopped, told by name: the first packet of a flow with its rule, and how many more there were that
//! were not told.

use super::daemon::Daemon;
use super::news::{NAT_EXHAUSTED, POLICY_DROP};
use crate::config::gateway::from_bits;
use crate::counter::{DropReason, Event};
use crate::pipeline::refusals::{Refused, Who};
use crate::wire::ip::{ICMP, ICMPV6, SCTP, TCP, UDP};
use std::net::IpAddr;

/// A protocol's name, or its number.
pub(super) fn protocol_name(protocol: u8) -> String {
    match protocol {
        TCP => "tcp".into(),
        UDP => "udp".into(),
        SCTP => "sctp".into(),
        ICMP => "icmp".into(),
        ICMPV6 => "icmpv6".into(),
        other => other.to_string(),
    }
}

/// An address and a port, as a person writes them.
pub(super) fn endpoint(ip: u128, port: u16, has_ports: bool) -> String {
    match (from_bits(ip), has_ports) {
        (ip, false) => ip.to_string(),
        (IpAddr::V4(ip), true) => format!("{ip}:{port}"),
        (IpAddr::V6(ip), true) => format!("[{ip}]:{port}"),
    }
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

impl Daemon {
    /// A flow's first packet was stopped.
    pub(super) fn tell_refused(&mut self, refused: &Refused) {
        let mut parts = vec![("reason", refused.reason.name().to_owned())];
        let what = match refused.who {
            None => "what is neither ARP nor IP, or cannot be read,".to_owned(),
            Some(Who { src, dst, protocol, ports: [from, to] }) => {
                let with_ports = has_ports(protocol);
                let (name, ends) = (protocol_name(protocol), [(src, from), (dst, to)]);
                let [src, dst] = ends.map(|(ip, port)| endpoint(ip, port, with_ports));
                let text = format!("{name} {src} to {dst}");
                parts.extend([("protocol", name), ("src", src), ("dst", dst)]);
                text
            }
        };
        let from = self.port_name(refused.from).to_string();
        let to = refused.to.map(|to| self.port_name(to).to_string());
        let rule = refused.slot.map(|slot| self.model.rule_name(slot)).filter(|rule| !rule.is_empty());
        let way = to.as_ref().map_or_else(String::new, |to| format!(" to port {to}"));
        let decided = rule.as_ref().map_or_else(String::new, |rule| format!(" [{rule}]"));
        let text = format!("{what} from port {from}{way} was stopped: {}{decided}", refused.reason.name());
        parts.push(("from", from));
        parts.extend(to.map(|to| ("to", to)));
        parts.extend(rule.map(|rule| ("rule", rule)));
        let what = if refused.reason == DropReason::NatExhausted { NAT_EXHAUSTED } else { POLICY_DROP };
        self.tell_of(refused.now.ns, what, text, &parts);
    }

    /// How many first packets were stopped and not told since the last look. Once a second.
    pub(super) fn look_for_untold(&mut self) {
        let untold: u64 =
            self.counters.iter().map(|counters| counters.event(Event::PolicyDropUntold).get()).sum();
        let more = untold - std::mem::replace(&mut self.news.untold, untold).min(untold);
        if more > 0 {
            let text = format!("{more} more packets were stopped by policies, the first of their flows");
            self.tell(POLICY_DROP, text, &[("more", more.to_string())]);
        }
    }
}
