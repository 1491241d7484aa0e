//! Ports of the node that lead to pods.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A port of the node that leads to a pod. Other machines, the node and its pods reach it; the pod sees the other machine's
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The transport.
    #[serde(default)]
    pub protocol: crate::Protocol,
    /// The node's address; none, `0.0.0.0` or `::`: any of its addresses, of that version if one is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The node's port.
    pub host_port: u16,
    /// The pod's port.
    pub port: u16,
}

impl Publish {
    /// The node's address, if one is meant.
    pub fn one_address(&self) -> Option<IpAddr> {
        self.address.filter(|address| !address.is_unspecified())
    }

    /// Whether it is about this IP version.
    pub fn is_for(&self, v4: bool) -> bool {
        self.address.is_none_or(|address| address.is_ipv4() == v4)
    }

    /// Whether a packet can be meant by both.
    pub fn collides(&self, other: &Self) -> bool {
        let versions = [true, false].into_iter().any(|v4| self.is_for(v4) && other.is_for(v4));
        let addresses = match (self.one_address(), other.one_address()) {
            (Some(one), Some(another)) => one == another,
            _ => versions,
        };
        (self.protocol, self.host_port) == (other.protocol, other.host_port) && addresses
    }
}

/// `tcp/8080:80`, `udp/192.0.2.1:53:5353`, `tcp/[2001:db8::1]:8080:80`.
impl std::fmt::Display for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}/", self.protocol.to_string().to_lowercase())?;
        match self.address {
            Some(IpAddr::V6(v6)) => write!(f, "[{v6}]:")?,
            Some(IpAddr::V4(v4)) => write!(f, "{v4}:")?,
            None => {}
        }
        write!(f, "{}:{}", self.host_port, self.port)
    }
}

impl std::str::FromStr for Publish {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(64).collect();
        let malformed = || {
            format!(
                "{shown:?} publishes nothing: write [PROTOCOL/][ADDRESS:]HOSTPORT:PORT, like tcp/8080:80 or udp/192.0.2.1:53:53"
            )
        };
        let (protocol, rest) = text.split_once('/').unwrap_or(("tcp", text));
        let protocol = protocol.parse().map_err(|_| malformed())?;
        let (rest, port) = rest.rsplit_once(':').ok_or_else(malformed)?;
        let (address, host_port) = match rest.rsplit_once(':') {
            Some((address, host_port)) => (Some(address), host_port),
            None => (None, rest),
        };
        let bare = |address: &str| address.trim_start_matches('[').trim_end_matches(']').parse();
        let address = address.map(bare).transpose().map_err(|_| malformed())?;
        let port_of = |text: &str| text.parse().map_err(|_| malformed());
        Ok(Self { protocol, address, host_port: port_of(host_port)?, port: port_of(port)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_published_has_a_text() {
        for text in ["tcp/8080:80", "udp/192.0.2.1:53:5353", "sctp/[2001:db8::1]:1:2", "tcp/[::]:1:2"] {
            assert_eq!(text.parse::<Publish>().unwrap().to_string(), text);
        }
        assert_eq!("8080:80".parse::<Publish>(), "tcp/8080:80".parse());
        for bad in ["", "80", "icmp/1:2", "tcp/x:1:2", "tcp/1:70000", "tcp/1.2.3.4:1"] {
            assert!(bad.parse::<Publish>().is_err(), "{bad}");
        }
    }

    #[test]
    fn two_that_a_packet_can_mean_collide() {
        let collide = |one: &str, other: &str| {
            let (one, other): (Publish, Publish) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.collides(&other), other.collides(&one));
            one.collides(&other)
        };
        assert!(collide("80:1", "80:2") && collide("80:1", "192.0.2.1:80:1") && collide("80:1", "[::]:80:1"));
        assert!(!collide("80:1", "81:1") && !collide("80:1", "udp/80:1"));
        assert!(!collide("0.0.0.0:80:1", "[::]:80:1") && !collide("192.0.2.1:80:1", "192.0.2.2:80:1"));
        assert!(!collide("0.0.0.0:80:1", "[2001:db8::1]:80:1"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<Publish>();
        }
    }
}
