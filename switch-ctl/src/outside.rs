//! How a port's pods reach the outside and are reached: `--masquerade`, `--publish` and their like.

use crate::port::Switch;
use std::str::FromStr;
use switch_api::{PortSettings, Prefix, Publish};

/// What the node's kernel does for a port.
#[derive(Debug, clap::Args)]
pub struct Outside {
    /// Let the node's kernel give what comes from this port, and leaves the node by another device, the node's address: a host
    /// port's networks and those of the gateways, a tap port's own addresses. Forwarding is switched on.
    #[arg(long)]
    masquerade: Option<Switch>,
    /// Masquerade these networks instead, like 10.1.0.0/16,fd01::/48; `off` for the port's own.
    #[arg(long, value_name = "PREFIXES", value_parser = list::<Prefix>)]
    masquerade_from: Option<List<Prefix>>,
    /// Masquerade nothing towards these networks, whatever port it comes from: other nodes' pods, for example; `off` for none.
    #[arg(long, value_name = "PREFIXES", value_parser = list::<Prefix>)]
    no_masquerade: Option<List<Prefix>>,
    /// Ports of the node that lead to this port's addresses, like tcp/8080:80,udp/192.0.2.1:53:5353 (the node's first); `off` for
    /// none. A tap port's only.
    #[arg(long, value_name = "PORTS", value_parser = list::<Publish>)]
    publish: Option<List<Publish>>,
    /// Send answers to flows that entered by this port back by it, so that a kernel that translates addresses (kube-proxy) sees both
    /// directions. A host port's only; flows of all ports are kept for it.
    #[arg(long)]
    return_flows: Option<Switch>,
}

#[derive(Clone, Debug)]
struct List<T>(Vec<T>);

fn list<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<List<T>, String> {
    if text == "off" {
        return Ok(List(Vec::new()));
    }
    let parse = |text: &str| text.parse().map_err(|error: T::Err| error.to_string());
    text.split(',').map(parse).collect::<Result<_, _>>().map(List)
}

impl Outside {
    /// `before` with what was named.
    pub fn over(&self, before: PortSettings) -> PortSettings {
        fn or<T: Clone>(named: &Option<List<T>>, before: Vec<T>) -> Vec<T> {
            named.as_ref().map_or(before, |list| list.0.clone())
        }
        PortSettings {
            masquerade: self.masquerade.map_or(before.masquerade, bool::from),
            masquerade_from: or(&self.masquerade_from, before.masquerade_from),
            no_masquerade: or(&self.no_masquerade, before.no_masquerade),
            publish: or(&self.publish, before.publish),
            return_flows: self.return_flows.map_or(before.return_flows, bool::from),
            ..before
        }
    }
}

/// Lines of `port show`.
pub fn show(settings: &PortSettings) -> [(&'static str, String); 4] {
    fn shown<T: ToString>(list: &[T]) -> String {
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
    let masqueraded = match (settings.masquerade, settings.masquerade_from.as_slice()) {
        (false, _) => "nothing".into(),
        (true, []) => "what is its own".into(),
        (true, named) => shown(named),
    };
    [
        ("masqueraded", masqueraded),
        ("not masqueraded towards", shown(&settings.no_masquerade)),
        ("published", shown(&settings.publish)),
        ("answers return by it", if settings.return_flows { "yes".into() } else { String::new() }),
    ]
}
