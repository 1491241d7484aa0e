//! What policies stopped, what rules with `log` decided, and what was dropped for any other reason, told by name: the first packet
//! of a flow with its rule, and how many more there were that were not told.

use super::daemon::Daemon;
use super::news::{ACL_LOG, DROP, NAT_EXHAUSTED, POLICY_DROP};
use crate::config::gateway::from_bits;
use crate::config::snapshot::PortId;
use crate::counter::{DropReason, Event};
use crate::pipeline::drops::Dropped;
use crate::pipeline::refusals::{Logged, Refused, Who};
use crate::wire::ip::{ICMP, ICMPV6, SCTP, TCP, UDP};
use std::net::IpAddr;
use switch_api::Mac;

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

/// In words and in parts, who wanted to speak with whom.
fn told(who: Option<Who>) -> (String, Vec<(&'static str, String)>) {
    let Some(Who { src, dst, protocol, ports: [from, to] }) = who else {
        return ("what is neither ARP nor IP, or cannot be read,".to_owned(), Vec::new());
    };
    let with_ports = has_ports(protocol);
    let (name, ends) = (protocol_name(protocol), [(src, from), (dst, to)]);
    let [src, dst] = ends.map(|(ip, port)| endpoint(ip, port, with_ports));
    (format!("{name} {src} to {dst}"), vec![("protocol", name), ("src", src), ("dst", dst)])
}

impl Daemon {
    /// A flow's first packet was stopped.
    pub(super) fn tell_refused(&mut self, refused: &Refused) {
        let reason = refused.reason.name();
        let rule = refused.slot.map(|slot| self.model.rule_name(slot)).filter(|rule| !rule.is_empty());
        let decided = rule.as_ref().map_or_else(String::new, |rule| format!(" [{rule}]"));
        let (text, mut parts) = self.tell_way(refused.who, refused.from, refused.to);
        let stage = refused.reason.stage().name();
        parts.extend([("reason", reason.to_owned()), ("stage", stage.to_owned())]);
        parts.extend(rule.map(|rule| ("rule", rule)));
        let text = format!("{text} was stopped: {reason}{decided}");
        let what = if refused.reason == DropReason::NatExhausted { NAT_EXHAUSTED } else { POLICY_DROP };
        self.tell_of(refused.now.ns, what, text, &parts);
    }

    /// A flow's first packet was dropped, and no rule said so.
    pub(super) fn tell_dropped(&mut self, dropped: &Dropped) {
        let (mut text, mut parts) = (String::from("a frame too short for its addresses"), Vec::new());
        if let Some(ethernet) = dropped.ethernet {
            let [src, dst] = [ethernet.src, ethernet.dst].map(|mac| Mac::from_u64(mac).to_string());
            text = format!("ethertype {:#06x} from {src} to {dst}", ethernet.ethertype);
            parts.extend([
                ("src_mac", src),
                ("dst_mac", dst),
                ("ethertype", format!("{:#06x}", ethernet.ethertype)),
            ]);
        }
        if dropped.who.is_some() {
            let (who, named) = told(dropped.who);
            text = who;
            parts.extend(named);
        }
        let port = self.port_name(dropped.port).to_string();
        let (reason, stage) = (dropped.reason.name(), dropped.reason.stage().name());
        let text = format!("{text} at port {port} was dropped: {reason} ({stage})");
        parts.extend([("port", port), ("reason", reason.to_owned()), ("stage", stage.to_owned())]);
        self.tell_of(dropped.now.ns, DROP, text, &parts);
    }

    /// A rule that wants it told decided about a flow's first packet.
    pub(super) fn tell_logged(&mut self, logged: &Logged) {
        let rule = self.model.rule_name(logged.ruling.slot);
        if rule.is_empty() {
            // The list is gone meanwhile.
            return;
        }
        let (text, mut parts) = self.tell_way(logged.who, logged.from, logged.to);
        let action = format!("{:?}", logged.ruling.action).to_lowercase();
        let does = if logged.ruling.staged { "staged, would" } else { "does" };
        let text = format!("{text}: rule [{rule}] {does} {action} it");
        parts.extend([("rule", rule), ("action", action)]);
        if logged.ruling.staged {
            parts.push(("staged", "true".to_owned()));
        }
        self.tell_of(logged.now.ns, ACL_LOG, text, &parts);
    }

    /// Who spoke with whom, and by which ports.
    fn tell_way(
        &self,
        who: Option<Who>,
        from: PortId,
        to: Option<PortId>,
    ) -> (String, Vec<(&'static str, String)>) {
        let (what, mut parts) = told(who);
        let from = self.port_name(from).to_string();
        let to = to.map(|to| self.port_name(to).to_string());
        let way = to.as_ref().map_or_else(String::new, |to| format!(" to port {to}"));
        let text = format!("{what} from port {from}{way}");
        parts.push(("from", from));
        parts.extend(to.map(|to| ("to", to)));
        (text, parts)
    }

    /// How many first packets were not told of since the last look. Once a second.
    pub(super) fn look_for_untold(&mut self) {
        let kinds = [
            (Event::PolicyDropUntold, POLICY_DROP, "were stopped by policies, the first of their flows"),
            (Event::AclLogUntold, ACL_LOG, "met a rule that logs, the first of their flows"),
            (Event::DropUntold, DROP, "were dropped, of flows that may have been told of before"),
        ];
        for (n, (event, kind, what)) in kinds.into_iter().enumerate() {
            let untold: u64 = self.counters.iter().map(|counters| counters.event(event).get()).sum();
            let more = untold - std::mem::replace(&mut self.news.untold[n], untold).min(untold);
            if more > 0 {
                self.tell(kind, format!("{more} more packets {what}"), &[("more", more.to_string())]);
            }
        }
    }
}
