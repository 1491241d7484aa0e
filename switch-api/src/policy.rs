//! Network policies as Kubernetes has them (`networking.k8s.io/v1`), the identity of the workloads that they are
//! about, and what is answered about both. Every field of a policy that is not known here is refused by name:
//! a policy that is half understood is a hole.

use crate::name::Malformed;
use crate::{Cidr, IpProtocol, Name, Owner};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The label that every namespace has by itself; its value is the namespace's name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Labels.
pub type Labels = BTreeMap<String, String>;

/// What a port is to policies: a pod, in the words of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Its ports that have a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NamedPort>,
    /// Its addresses. None given: those its device was made with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// A port of a workload that policies may call by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// Of which protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A protocol that policies know ports of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// All.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|known| known.to_string().eq_ignore_ascii_case(text));
        known.ok_or_else(|| format!("{text:?} is no protocol that policies know ports of: TCP, UDP or SCTP"))
    }
}

/// See [`crate::Request::PortLabel`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortLabel {
    /// The port.
    pub name: Name,
    /// What it is from now on; none: no workload, so that no policy selects it.
    pub workload: Option<Workload>,
}

/// A namespace's labels. One that nobody declared has [`NAMESPACE_NAME_LABEL`] alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels; [`NAMESPACE_NAME_LABEL`] need not be among them.
    #[serde(default)]
    pub labels: Labels,
    /// Who gave them.
    #[serde(default, skip_serializing_if = "Owner::is_operator")]
    pub owner: Owner,
}

/// A namespace by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByNamespace {
    /// The name.
    pub name: String,
}

/// A network policy, in the form in which Kubernetes has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicy {
    /// `networking.k8s.io/v1`.
    #[serde(default)]
    pub api_version: ApiVersion,
    /// `NetworkPolicy`.
    #[serde(default)]
    pub kind: Kind,
    /// Its name and namespace.
    pub metadata: Metadata,
    /// What it says.
    #[serde(default)]
    pub spec: PolicySpec,
    /// What Kubernetes notes on it; not read.
    #[serde(default, skip_serializing)]
    pub status: Unread,
    /// Who declared it.
    #[serde(default)]
    pub owner: Owner,
}

/// The only version there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiVersion {
    /// The only one.
    #[default]
    #[serde(rename = "networking.k8s.io/v1")]
    V1,
}

/// The only kind there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The only one.
    #[default]
    NetworkPolicy,
}

/// What is taken and not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread;

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(from).map(|_| Self)
    }
}

/// Name and namespace. What else Kubernetes notes in a policy's metadata is taken and not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The policy's name, unique in its namespace.
    pub name: String,
    /// Its namespace: it selects workloads there.
    #[serde(default = "default_namespace")]
    pub namespace: String,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// What a policy says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySpec {
    /// Which workloads of its namespace it is for; empty: all.
    #[serde(deserialize_with = "or_default")]
    pub pod_selector: LabelSelector,
    /// Which directions it isolates. None given: ingress, and egress if it has rules for it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<PolicyType>,
    /// What may come in.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// What may go out.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
}

/// Kubernetes writes `null` for what is not there.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// A direction, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PolicyType {
    /// What comes in.
    Ingress,
    /// What goes out.
    Egress,
}

impl PolicySpec {
    /// Whether workloads that it selects are isolated in a direction.
    pub fn isolates(&self, direction: PolicyType) -> bool {
        match (self.policy_types.is_empty(), direction) {
            (false, _) => self.policy_types.contains(&direction),
            (true, PolicyType::Ingress) => true,
            (true, PolicyType::Egress) => !self.egress.is_empty(),
        }
    }
}

/// What may come in: from any of these, to any of these ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressRule {
    /// From whom; empty: from anybody.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Peer>,
    /// To which ports; empty: to all, and by any protocol.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
}

/// What may go out: to any of these, to any of these ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressRule {
    /// To whom; empty: to anybody.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Peer>,
    /// To which ports; empty: to all, and by any protocol.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
}

/// Whom a rule is about: workloads by their labels, or addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// Workloads with these labels; of the policy's namespace unless `namespaceSelector` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Workloads of namespaces with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses; excludes the other two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// Addresses of a network, but for those of some networks in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    /// The network.
    pub cidr: Cidr,
    /// Networks in it that are not meant.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Cidr>,
}

/// Ports of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyPort {
    /// The protocol; TCP unless said otherwise.
    #[serde(deserialize_with = "or_default")]
    pub protocol: Protocol,
    /// The port, by number or by the name that the destination has for it; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRef>,
    /// The last of a range that begins with `port`, which is then a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
}

/// A port by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// Its number.
    Number(u16),
    /// Its name; the destination says what number that is.
    Name(String),
}

/// Labels that are wanted; all of it must hold. Empty: anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels with these values.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    /// What else must hold.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// One requirement on labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelExpression {
    /// The label.
    pub key: String,
    /// What is wanted of it.
    pub operator: LabelOperator,
    /// Its values, for `In` and `NotIn`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What is wanted of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LabelOperator {
    /// It is there and has one of the values.
    In,
    /// It is not there, or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// A policy by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByPolicy {
    /// The name.
    pub name: String,
    /// The namespace.
    #[serde(default = "default_namespace")]
    pub namespace: String,
}

/// Which policies are meant; what is absent does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyFilter {
    /// Only those of this namespace.
    pub namespace: Option<String>,
}

/// One policy in the answer to [`crate::Request::PolicyList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// As declared.
    pub policy: NetworkPolicy,
    /// The ports that it selects.
    pub ports: Vec<Name>,
    /// What its rules decided since it was declared.
    pub rules: Vec<RuleCount>,
}

/// What one rule decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCount {
    /// The rule, as drops and explanations name it: `NAMESPACE/NAME ingress 1`, or `… ingress default`
    /// for what the policy isolates from and no rule allows.
    pub rule: String,
    /// Packets it passed or, the default, dropped. Of a flow that is tracked, those that were judged: the first.
    pub packets: u64,
}

/// See [`crate::Request::PolicyExplain`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyExplain {
    /// From: an address, or the name of a port.
    pub from: EndpointRef,
    /// To: an address, or the name of a port.
    pub to: EndpointRef,
    /// The protocol; none: ICMP, or ICMPv6, as the ends are.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "as_older_daemons_read")]
    pub protocol: Option<IpProtocol>,
    /// The destination port, of TCP, UDP and SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The source port, which only access control lists ask for; none: [`EXPLAIN_SOURCE_PORT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The ICMP message, which only access control lists ask for; none: an echo request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<crate::IcmpKind>,
}

/// Daemons that know no others have read these in upper case alone.
fn as_older_daemons_read<S: serde::Serializer>(
    protocol: &Option<IpProtocol>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match protocol {
        Some(protocol) if protocol.has_ports() => {
            serializer.collect_str(&protocol.to_string().to_uppercase())
        }
        protocol => protocol.serialize(serializer),
    }
}

/// The source port of who is asked about without one: the first of those that clients choose (RFC 6335 §6).
pub const EXPLAIN_SOURCE_PORT: u16 = 49_152;

/// An end of a connection: an address, or the port of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EndpointRef {
    /// An address.
    Address(IpAddr),
    /// A port by its name.
    Port(Name),
}

impl FromStr for EndpointRef {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        text.parse().map(Self::Address).or_else(|_| text.parse().map(Self::Port))
    }
}

/// The answer to [`crate::Request::PolicyExplain`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyAnswer {
    /// Whether a first packet would pass.
    pub passes: bool,
    /// The addresses that were judged.
    pub from: IpAddr,
    /// See `from`.
    pub to: IpAddr,
    /// What the sender's policies say.
    pub egress: Judgement,
    /// What the receiver's policies say.
    pub ingress: Judgement,
}

/// What the policies of one end say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Whether they let it pass.
    pub passes: bool,
    /// The rule that decides, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let read =
            |text: &str| serde_json::from_str::<NetworkPolicy>(text).map_err(|error| error.to_string());
        let rest = r#""metadata":{"name":"a","uid":"x","labels":{}}"#;
        assert!(
            read(&format!(r#"{{{rest},"spec":{{"ingress":null,"podSelector":{{}}}},"status":{{}}}}"#))
                .is_ok()
        );
        for (bad, word) in [
            (r#""spec":{"podSelektor":{}}"#, "podSelektor"),
            (r#""spec":{"ingress":[{"to":[]}]}"#, "to"),
            (r#""spec":{"policyTypes":["Inwards"]}"#, "Inwards"),
            (r#""spec":{"ingress":[{"ports":[{"protocol":"ICMP"}]}]}"#, "ICMP"),
            (r#""kind":"Deployment""#, "Deployment"),
            (r#""apiVersion":"v2""#, "v2"),
            (r#""spec":{"podSelector":{"matchExpressions":[{"key":"a","operator":"Like"}]}}"#, "Like"),
        ] {
            let error = read(&format!("{{{rest},{bad}}}")).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn directions_default_as_kubernetes_has_it() {
        let spec = |text: &str| serde_json::from_str::<PolicySpec>(text).unwrap();
        let both = |spec: PolicySpec| (spec.isolates(PolicyType::Ingress), spec.isolates(PolicyType::Egress));
        assert_eq!(both(spec("{}")), (true, false));
        assert_eq!(both(spec(r#"{"egress":[{}]}"#)), (true, true));
        assert_eq!(both(spec(r#"{"policyTypes":["Egress"]}"#)), (false, true));
        assert_eq!(both(spec(r#"{"policyTypes":["Ingress"],"egress":[{}]}"#)), (true, false));
    }
}
