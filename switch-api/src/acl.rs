//! Access control lists: ordered rules about what ports send and are sent, before or after network policies. The words
//! that rules are made of, [`IpProtocol`], [`PortRange`] and [`IcmpKind`], are read as numbers or as text.

use crate::policy::{LabelSelector, RuleCount};
use crate::{FragmentMatch, MacMask, Name, Owner, Prefix, TcpFlags, VlanRange};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// An access control list. For each direction of a port the lists of the tier `before` are asked first, by priority
/// and then by name, and of each the rules in their order: the first that matches decides. Then network policies are
/// asked; if none isolates the port in that direction, the lists of the tier `after`. What nobody decides has the port's default
/// verdict ([`crate::DefaultVerdicts`]): it passes, unless told otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    /// Its name.
    pub name: Name,
    /// Whether it is asked before network policies or after them.
    #[serde(default)]
    pub tier: AclTier,
    /// The lower one is asked first; of two that are the same the one whose name comes first.
    #[serde(default = "default_priority")]
    pub priority: u16,
    /// The ports that it is for.
    pub applies_to: AclPorts,
    /// All its rules that allow are `stateless`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stateless: bool,
    /// Rules about what ports are sent: what goes to the station behind them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<AclRule>,
    /// Rules about what ports send: what comes from the station behind them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<AclRule>,
    /// Who declared it.
    #[serde(default)]
    pub owner: Owner,
}

/// The priority of a list that says none: in the middle of what people count in hundreds.
pub const ACL_PRIORITY_DEFAULT: u16 = 1000;

fn default_priority() -> u16 {
    ACL_PRIORITY_DEFAULT
}

/// When a list is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AclTier {
    /// Before network policies, whatever they say: an administrator's word.
    #[default]
    Before,
    /// Where no network policy isolates the port in that direction: what holds otherwise.
    After,
}

impl fmt::Display for AclTier {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// Ports that a list is for: those that are meant by any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AclPorts {
    /// These. One that is not there is no error: the list is for it as soon as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Name>,
    /// Workloads with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workloads: Option<AclWorkloads>,
    /// Every port there is, those that lead out of the node among them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// Workloads by their labels; both must hold, and an empty selector means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AclWorkloads {
    /// Labels of their namespace.
    pub namespace_selector: LabelSelector,
    /// Their own labels.
    pub pod_selector: LabelSelector,
}

/// A rule: what it is about, all of it, and what becomes of that. What is empty does not narrow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclRule {
    /// What becomes of what it is about.
    pub action: AclAction,
    /// The protocol. None: any, and also what is not IP, unless the rule names addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<IpProtocol>,
    /// Networks of one of which the source is, if it is in none of `source_sets`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<Prefix>,
    /// Address sets of one of which the source is, if it is in none of `source`. One without members is about nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_sets: Vec<Name>,
    /// Networks of one of which the destination is, if it is in none of `destination_sets`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination: Vec<Prefix>,
    /// Address sets of one of which the destination is, if it is in none of `destination`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination_sets: Vec<Name>,
    /// Source ports; only with TCP, UDP or SCTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ports: Vec<PortRange>,
    /// Port sets of one of which the source port is, if it is in none of `source_ports`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_port_sets: Vec<Name>,
    /// Destination ports; only with TCP, UDP or SCTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination_ports: Vec<PortRange>,
    /// Port sets of one of which the destination port is, if it is in none of `destination_ports`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination_port_sets: Vec<Name>,
    /// Types, and codes, of messages; only with ICMP or ICMPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icmp: Vec<IcmpKind>,
    /// TCP flags, like `syn,!ack`; only with TCP. Of a flow they are its first packet's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<TcpFlags>,
    /// Fragments, or whole packets. Fragments of a flow that is known are asked about as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragment: Option<FragmentMatch>,
    /// Source MACs, all with the same mask, as the frame comes in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_mac: Vec<MacMask>,
    /// Destination MACs, all with the same mask, as the frame comes in: of what is routed, the gateway's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination_mac: Vec<MacMask>,
    /// VLANs in one of which the frame comes in, with a tag or without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlan: Vec<VlanRange>,
    /// It only rehearses: what it would have decided is counted, and decided as if it were not there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged: bool,
    /// No flow is kept of what it allows: each packet is judged by itself, and answers pass only where a rule allows them. Only with
    /// `allow`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stateless: bool,
    /// The event `acl-log` tells of what it decides: of a flow the first packet, so many a second, the rest counted. What is denied is
    /// told of anyway (`policy-drop`); of a staged rule, that it would have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log: bool,
}

impl AclRule {
    /// One that is about everything.
    pub fn all(action: AclAction) -> Self {
        Self {
            action,
            protocol: None,
            source: Vec::new(),
            source_sets: Vec::new(),
            destination: Vec::new(),
            destination_sets: Vec::new(),
            source_ports: Vec::new(),
            source_port_sets: Vec::new(),
            destination_ports: Vec::new(),
            destination_port_sets: Vec::new(),
            icmp: Vec::new(),
            tcp_flags: None,
            fragment: None,
            source_mac: Vec::new(),
            destination_mac: Vec::new(),
            vlan: Vec::new(),
            staged: false,
            stateless: false,
            log: false,
        }
    }

    /// Port sets that it names.
    pub fn port_sets(&self) -> impl Iterator<Item = &Name> {
        self.source_port_sets.iter().chain(&self.destination_port_sets)
    }

    /// Address sets that it names.
    pub fn sets(&self) -> impl Iterator<Item = &Name> {
        self.source_sets.iter().chain(&self.destination_sets)
    }
}

/// What becomes of what a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AclAction {
    /// It passes, whatever comes after. The other end's lists and policies are asked all the same.
    Allow,
    /// It is dropped.
    Deny,
    /// It is dropped, and its sender is told: TCP by a reset, all else by an ICMP error (administratively prohibited). Who is told
    /// nothing tries again and waits.
    Reject,
    /// This tier says nothing of it: what comes after decides.
    Pass,
}

impl AclAction {
    /// Whether what it is about goes no further.
    pub fn stops(self) -> bool {
        matches!(self, Self::Deny | Self::Reject)
    }
}

/// A protocol above IP: by its name where it has a common one, else by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// RFC 792.
    pub const ICMP: Self = Self(1);
    /// RFC 9293.
    pub const TCP: Self = Self(6);
    /// RFC 768.
    pub const UDP: Self = Self(17);
    /// RFC 4443.
    pub const ICMPV6: Self = Self(58);
    /// RFC 9260.
    pub const SCTP: Self = Self(132);

    const NAMES: [(Self, &'static str); 5] = [
        (Self::ICMP, "icmp"),
        (Self::TCP, "tcp"),
        (Self::UDP, "udp"),
        (Self::ICMPV6, "icmpv6"),
        (Self::SCTP, "sctp"),
    ];

    /// Whether its packets have ports.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }

    /// Whether its packets have a type and a code.
    pub fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match Self::NAMES.iter().find(|(protocol, _)| protocol == self) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl FromStr for IpProtocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        let numbered = || number::<u8>(text).map(Self);
        named.map(|(protocol, _)| *protocol).or_else(numbered).ok_or_else(|| {
            format!("{} is no protocol: tcp, udp, sctp, icmp, icmpv6 or a number up to 255", quoted(text))
        })
    }
}

/// Ports from one to another, that one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest; not below `first`.
    pub last: u16,
}

impl PortRange {
    /// Whether a port is among them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.first == self.last {
            true => f.pad(&self.first.to_string()),
            false => f.pad(&format!("{}-{}", self.first, self.last)),
        }
    }
}

impl FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = number(first).zip(number(last)).map(|(first, last)| Self { first, last });
        range
            .filter(|range| range.first <= range.last)
            .ok_or_else(|| format!("{} is no port or range of ports: write 80, or 8000-8080", quoted(text)))
    }
}

/// A type of ICMP messages, and a code of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IcmpKind {
    /// The type.
    pub kind: u8,
    /// The code; none: all of the type.
    pub code: Option<u8>,
}

impl fmt::Display for IcmpKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.code {
            None => f.pad(&self.kind.to_string()),
            Some(code) => f.pad(&format!("{}/{code}", self.kind)),
        }
    }
}

impl FromStr for IcmpKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let malformed =
            || format!("{} is no ICMP type: write TYPE, or TYPE/CODE, like 8 or 3/4", quoted(text));
        let (kind, code) = match text.split_once('/') {
            None => (text, None),
            Some((kind, code)) => (kind, Some(number(code).ok_or_else(malformed)?)),
        };
        Ok(Self { kind: number(kind).ok_or_else(malformed)?, code })
    }
}

/// A number without a sign or blanks.
pub(crate) fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

/// Text, or the number that it would be.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number or a text")]
enum Word {
    Number(u64),
    Text(String),
}

/// Read as a number or as text, written as a number where it is one.
macro_rules! as_word {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let text = self.to_string();
                match number::<u16>(&text) {
                    Some(number) => to.serialize_u16(number),
                    None => to.serialize_str(&text),
                }
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = match Word::deserialize(from)? {
                    Word::Number(number) => number.to_string(),
                    Word::Text(text) => text,
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_word!(IpProtocol, PortRange, IcmpKind, VlanRange);

/// One list in the answer to [`crate::Request::AclList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclStatus {
    /// As declared.
    pub acl: Acl,
    /// The ports that it is for, of those there are.
    pub ports: Vec<Name>,
    /// What its rules decided since it was declared: `acl NAME ingress 1`. Of a flow that is those packets that were
    /// judged: the first.
    pub rules: Vec<RuleCount>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: serde_json::Value) -> Result<AclRule, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_and_names_are_read_and_written_the_same() {
        let json = serde_json::json!({
            "action": "deny", "protocol": "TCP", "source": ["10.0.0.0/8"],
            "destination_ports": [80, "443", "8000-8080"],
        });
        let read = rule(json).unwrap();
        assert_eq!(read.protocol, Some(IpProtocol::TCP));
        assert_eq!(read.destination_ports[1], PortRange { first: 443, last: 443 });
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(written["destination_ports"], serde_json::json!([80, 443, "8000-8080"]));
        assert_eq!(rule(written).unwrap(), read);
        let icmp = rule(serde_json::json!({"action": "pass", "protocol": 1, "icmp": [8, "3/4"]})).unwrap();
        assert_eq!(icmp.icmp[1], IcmpKind { kind: 3, code: Some(4) });
        assert_eq!(serde_json::to_value(&icmp).unwrap()["protocol"], "icmp");
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (bad, word) in [
            (serde_json::json!({"action": "drop"}), "drop"),
            (serde_json::json!({"action": "deny", "protocol": "tpc"}), "tpc"),
            (serde_json::json!({"action": "deny", "protocol": 256}), "256"),
            (serde_json::json!({"action": "deny", "destination_ports": ["80-79"]}), "80-79"),
            (serde_json::json!({"action": "deny", "destination_ports": ["+80"]}), "+80"),
            (serde_json::json!({"action": "deny", "icmp": ["8/"]}), "8/"),
            (serde_json::json!({"action": "deny", "dst": []}), "dst"),
            (serde_json::json!({"action": "deny", "source": ["10.0.0.1"]}), "10.0.0.1"),
        ] {
            let error = rule(bad).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
