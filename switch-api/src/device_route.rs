//! A route of a device that the switch makes, as the kernel has routes.

use crate::cidr::Cidr;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A route through a device that the switch makes. What is not said is the kernel's to choose (ip-route(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRoute {
    /// Where to: a network.
    pub to: Cidr,
    /// The next hop; none: the destinations are on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Of several routes to one network the one with the lowest counts. None: 0 for IPv4, 1024 for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// The routing table; none: 254, the main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Longest packet that goes this way, in bytes: 68 (1280 for IPv6) to 65535. None: the device's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Largest TCP segment that is announced to peers that way, in bytes: 1 to 65495.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// How far it leads (`rt_scope_t`, rtnetlink(7)), of IPv4 alone: 0 universe, 200 site, 253 link, 254 host. None: 253 without a next
    /// hop, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl DeviceRoute {
    /// All else is the kernel's to choose.
    pub fn new(to: Cidr, via: Option<IpAddr>) -> Self {
        Self { to, via, metric: None, table: None, mtu: None, advmss: None, scope: None }
    }
}

impl std::fmt::Display for DeviceRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { to, via, metric, table, mtu, advmss, scope } = self;
        write!(f, "{to}")?;
        if let Some(via) = via {
            write!(f, " via {via}")?;
        }
        let scope = scope.map(u32::from);
        for (word, value) in
            [("metric", metric), ("table", table), ("mtu", mtu), ("advmss", advmss), ("scope", &scope)]
        {
            if let Some(value) = value {
                write!(f, " {word} {value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_not_written() {
        let plain = r#"{"to":"10.0.0.0/8","via":"10.66.0.1"}"#;
        let route: DeviceRoute = serde_json::from_str(plain).unwrap();
        assert_eq!(route, DeviceRoute::new(route.to, route.via));
        assert_eq!(serde_json::to_string(&route).unwrap(), plain);
        let all = DeviceRoute { metric: Some(7), table: Some(9), mtu: Some(1400), scope: Some(253), ..route };
        assert_eq!(all.to_string(), "10.0.0.0/8 via 10.66.0.1 metric 7 table 9 mtu 1400 scope 253");
    }
}
