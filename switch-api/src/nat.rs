//! Network address translation: rules about what the switch routes. A *destination* rule leads what is sent to an address to
//! another one, a *source* rule sends what leaves from another one, and *one-to-one* is both, for a pair of addresses.

use crate::{IpProtocol, Name, Owner, PortRange, Prefix};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::net::IpAddr;

/// A rule. Of a flow the first packet is translated by what the rules say then; all others, both ways, as that one was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// Its name.
    pub name: Name,
    /// The routing table whose packets it is about.
    #[serde(default = "Name::main", skip_serializing_if = "Name::is_main")]
    pub vrf: Name,
    /// What it does.
    #[serde(flatten)]
    pub kind: NatKind,
    /// Who declared it.
    #[serde(default)]
    pub owner: Owner,
}

/// An address. What is said of a rule that cannot be read does not tell where in it, so this tells what.
fn ip<'de, D: Deserializer<'de>>(from: D) -> Result<IpAddr, D::Error> {
    parsed(&String::deserialize(from)?)
}

fn ips<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpAddr>, D::Error> {
    Vec::<String>::deserialize(from)?.iter().map(|text| parsed(text)).collect()
}

fn parsed<E: serde::de::Error>(text: &str) -> Result<IpAddr, E> {
    text.parse()
        .map_err(|_| E::custom(format!("{text:?} is no IP address: write one like 192.0.2.7 or 2001:db8::7")))
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum NatKind {
    /// What leaves gets another source address, and port where it has one, so that its answers come back here.
    Source {
        /// Networks of one of which the source is. Empty: every source.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        from: Vec<Prefix>,
        /// Networks that are reached as one is: what goes there stays as it is.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        except: Vec<Prefix>,
        /// Only what leaves by this bridge.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        out: Option<Name>,
        /// The new source, one of these; a host's flows have the same. Empty: the switch's own address where the packet leaves
        /// (masquerade).
        #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "ips")]
        to: Vec<IpAddr>,
        /// New source ports, and identifiers of pings. Each worker has a part of them of its own.
        #[serde(default = "nat_ports", skip_serializing_if = "is_nat_ports")]
        ports: PortRange,
        /// Of several rules that match, the one with the lower number counts, then the one whose name comes first.
        #[serde(default = "nat_priority", skip_serializing_if = "is_nat_priority")]
        priority: u16,
    },
    /// What is sent to an address goes to another one.
    Destination {
        /// The address that it is sent to.
        #[serde(deserialize_with = "ip")]
        address: IpAddr,
        /// Only this protocol: tcp, udp or sctp. Without it: everything, pings too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<IpProtocol>,
        /// Only this port of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// Where it goes.
        #[serde(deserialize_with = "ip")]
        to: IpAddr,
        /// The port there, if it is another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to_port: Option<u16>,
    },
    /// One address stands for another, both ways and with all its ports.
    OneToOne {
        /// By which it is known.
        #[serde(deserialize_with = "ip")]
        external: IpAddr,
        /// Whose it is.
        #[serde(deserialize_with = "ip")]
        internal: IpAddr,
    },
}

/// Ports of a source rule that names none: those that no service is registered for below (RFC 6335 section 6; RFC 6056 section 3.2
/// has hosts choose from all of them).
pub const NAT_PORTS_DEFAULT: PortRange = PortRange { first: 1024, last: 65_535 };
/// The priority of a source rule that says none.
pub const NAT_PRIORITY_DEFAULT: u16 = 1000;

fn nat_ports() -> PortRange {
    NAT_PORTS_DEFAULT
}

fn is_nat_ports(ports: &PortRange) -> bool {
    *ports == NAT_PORTS_DEFAULT
}

fn nat_priority() -> u16 {
    NAT_PRIORITY_DEFAULT
}

fn is_nat_priority(priority: &u16) -> bool {
    *priority == NAT_PRIORITY_DEFAULT
}

impl NatKind {
    /// Its name, as it is written.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Source { .. } => "source",
            Self::Destination { .. } => "destination",
            Self::OneToOne { .. } => "one-to-one",
        }
    }
}

/// Of words, or that it is empty.
fn list<T: fmt::Display>(words: &[T], empty: &str) -> String {
    match words {
        [] => empty.to_owned(),
        _ => words.iter().map(T::to_string).collect::<Vec<_>>().join(" "),
    }
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Source { from, except, out, to, ports, .. } => {
                write!(f, "from {}", list(from, "anywhere"))?;
                if !except.is_empty() {
                    write!(f, ", not to {}", list(except, ""))?;
                }
                if let Some(out) = out {
                    write!(f, ", by {out}")?;
                }
                write!(f, ": as {} ports {ports}", list(to, "the switch"))
            }
            Self::Destination { address, protocol, port, to, to_port } => {
                write!(f, "to {address}")?;
                if let Some(protocol) = protocol {
                    write!(f, " {protocol}")?;
                }
                if let Some(port) = port {
                    write!(f, " port {port}")?;
                }
                write!(f, ": to {to}")?;
                to_port.map_or(Ok(()), |port| write!(f, " port {port}"))
            }
            Self::OneToOne { external, internal } => write!(f, "{external} is {internal}"),
        }
    }
}

/// One rule in the answer to [`crate::Request::NatList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatStatus {
    /// As declared.
    pub nat: Nat,
    /// Flows that it has translated since it was declared.
    pub flows_made: u64,
    /// First packets that were dropped because none of its ports was free.
    pub exhausted: u64,
    /// Flows that it translates now.
    pub flows: u64,
    /// Of a source rule: the most of its ports that are in use for one address, protocol and peer (address and port).
    pub ports_used: u32,
    /// Ports there are for each: the same port serves as many peers as there are.
    pub ports: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_and_written_as_it_is_meant() {
        let text = r#"{"name":"out","kind":"source","from":["10.1.0.0/16"],"except":["10.0.0.0/8"],"out":"br1","to":["192.0.2.1"],"ports":"2000-2999"}"#;
        let nat: Nat = serde_json::from_str(text).unwrap();
        let said = "from 10.1.0.0/16, not to 10.0.0.0/8, by br1: as 192.0.2.1 ports 2000-2999";
        assert_eq!((nat.kind.to_string().as_str(), nat.kind.name()), (said, "source"));
        assert_eq!(serde_json::from_value::<Nat>(serde_json::to_value(&nat).unwrap()).unwrap(), nat);
        let text = r#"{"name":"web","kind":"destination","address":"192.0.2.1","protocol":"tcp","port":80,"to":"10.1.0.5","to_port":8080}"#;
        let nat: Nat = serde_json::from_str(text).unwrap();
        assert_eq!(nat.kind.to_string(), "to 192.0.2.1 tcp port 80: to 10.1.0.5 port 8080");
        let text = r#"{"name":"one","kind":"one-to-one","external":"192.0.2.1","internal":"10.1.0.5"}"#;
        assert_eq!(serde_json::from_str::<Nat>(text).unwrap().kind.to_string(), "192.0.2.1 is 10.1.0.5");
        for wrong in ["\"ports\":\"9-3\"", "\"addres\":\"10.0.0.1\""] {
            let text = format!("{{\"name\":\"x\",\"kind\":\"source\",{wrong}}}");
            assert!(serde_json::from_str::<Nat>(&text).is_err(), "{wrong}");
        }
    }
}
