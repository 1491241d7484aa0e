//! Network policies and what ports are to them: what may be declared, and the tables made of it. They are made anew
//! only when something changes that they are made of.

use super::acls::PlacedAcl;
use super::checked::Problem;
use super::model::{Model, no_such};
use super::nats::SLOTS_OF_NAT;
use crate::acl;
use crate::policy::compile::compile_after;
use crate::policy::{self, Compiled, Input, POLICIES_MAX, Placed, Pod, RULES_MAX, Slot, slots_of, to_bits};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use switch_api::{
    ApiError, ByPolicy, Code, Namespace, NetworkPolicy, Owner, Port, PortKind, PortLabel, Request, Workload,
};

/// Namespace and name of a policy.
pub type PolicyKey = (String, String);
/// What is named where no rule decided and the port's default verdict did.
pub(crate) const DEFAULT_VERDICT: &str = "default verdict";
/// Most namespaces with labels: a cluster's, not a node's.
pub(crate) const NAMESPACES_MAX: usize = 16_384;

/// A policy, and where its rules are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedPolicy {
    /// Its first slot; as long as the policy lives its own.
    pub slot: Slot,
    /// As declared.
    pub policy: Arc<NetworkPolicy>,
}

/// Compiled policies. They follow from the rest of the model, and are equal where it is.
#[derive(Clone, Debug, Default)]
pub struct Policing(pub Arc<Compiled>);

impl PartialEq for Policing {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Policing {}

impl Deref for Policing {
    type Target = Compiled;
    fn deref(&self) -> &Compiled {
        &self.0
    }
}

/// Whether policies have to be compiled anew after a change.
pub(super) fn concerns(request: &Request) -> bool {
    match request {
        Request::PortAdd(port) => port.workload.is_some() || matches!(port.kind, PortKind::Host { .. }),
        Request::PortDelete(_)
        | Request::PortAddress(_)
        | Request::PortLabel(_)
        | Request::NamespaceSet(_)
        | Request::NamespaceDelete(_)
        | Request::PolicyAdd(_)
        | Request::PolicySet(_)
        | Request::PolicyDelete(_)
        | Request::BridgeDelete(_)
        | Request::AddressAdd(_)
        | Request::AddressDelete(_) => true,
        _ => false,
    }
}

/// The key of a policy.
pub fn key_of(policy: &NetworkPolicy) -> PolicyKey {
    (policy.metadata.namespace.clone(), policy.metadata.name.clone())
}

pub(super) fn refusal(problems: Vec<policy::check::Problem>) -> Result<(), ApiError> {
    let Some((field, _)) = problems.first() else { return Ok(()) };
    let field = field.clone();
    let texts: Vec<_> = problems.into_iter().map(|(field, text)| format!("{field}: {text}")).collect();
    Err(ApiError::new(Code::InvalidParams, texts.join("; "))
        .field(field)
        .hint("nothing was changed; correct it and send it again"))
}

/// Refuses what no port can be.
pub(super) fn check_workload(workload: Option<&Workload>, kind: &PortKind) -> Result<(), ApiError> {
    let Some(workload) = workload else { return Ok(()) };
    if matches!(kind, PortKind::Host { .. }) {
        let text = "the node's own port is no workload: no policy keeps the node from its pods";
        return Err(ApiError::new(Code::InvalidParams, text)
            .field("workload")
            .hint("leave the workload out; an access control list can name the port"));
    }
    refusal(policy::check::workload(workload))
}

fn no_policy(by: &ByPolicy) -> ApiError {
    let text = format!("there is no policy named {} in namespace {}", by.name, by.namespace);
    ApiError::new(Code::NotFound, text)
        .field("name")
        .hint("`switch-ctl policy list` shows those there are, of every namespace")
}

/// A workload's addresses: declared, or those its device was made with.
pub fn addresses_of(port: &Port) -> Vec<IpAddr> {
    match (&port.workload, &port.kind) {
        (Some(workload), _) if !workload.addresses.is_empty() => workload.addresses.clone(),
        (_, PortKind::Host { addresses, .. }) => addresses.iter().map(|cidr| cidr.address()).collect(),
        (_, kind) => kind.pod_addresses().unwrap_or_default().iter().map(|cidr| cidr.address()).collect(),
    }
}

impl Model {
    pub(super) fn label_port(&mut self, label: &PortLabel) -> Result<(), ApiError> {
        let port = self.ports.get_mut(&label.name).ok_or_else(|| no_such("port", &label.name))?;
        check_workload(label.workload.as_ref(), &port.object.kind)?;
        Arc::make_mut(&mut port.object).workload = label.workload.clone();
        Ok(())
    }

    pub(super) fn set_namespace(&mut self, namespace: &Namespace) -> Result<(), ApiError> {
        let mut problems = Vec::new();
        problems.extend(policy::check::namespace(&namespace.name).map(|text| ("name".to_owned(), text)));
        policy::check::labels("labels", &namespace.labels, &mut problems);
        let own = namespace.labels.get(switch_api::NAMESPACE_NAME_LABEL);
        if own.is_some_and(|own| *own != namespace.name) {
            let text = format!("{} is the namespace's name, always", switch_api::NAMESPACE_NAME_LABEL);
            problems.push(("labels".into(), text));
        }
        refusal(problems)?;
        if self.namespaces.len() >= NAMESPACES_MAX && !self.namespaces.contains_key(&namespace.name) {
            return Err(ApiError::full(NAMESPACES_MAX, "namespaces with labels", "namespace list"));
        }
        if !self.namespaces.contains_key(&namespace.name) && namespace.owner != Owner::Operator {
            self.namespace_owners.insert(namespace.name.clone(), namespace.owner);
        }
        self.namespaces.insert(namespace.name.clone(), namespace.labels.clone());
        Ok(())
    }

    pub(super) fn delete_namespace(&mut self, name: &str) -> Result<(), ApiError> {
        if self.namespaces.remove(name).is_some() {
            self.namespace_owners.remove(name);
            return Ok(());
        }
        let text =
            format!("no labels were given to a namespace {:?}", name.chars().take(63).collect::<String>());
        Err(ApiError::new(Code::NotFound, text)
            .field("name")
            .hint("`switch-ctl namespace list` shows those that have any"))
    }

    /// Namespaces that have labels.
    pub fn declared_namespaces(&self) -> Vec<Namespace> {
        let owner = |name| self.namespace_owners.get(name).copied().unwrap_or_default();
        let all = self.namespaces.iter();
        all.map(|(name, labels)| Namespace { name: name.clone(), labels: labels.clone(), owner: owner(name) })
            .collect()
    }

    pub(super) fn add_policy(&mut self, policy: &NetworkPolicy) -> Result<(), ApiError> {
        let key = key_of(policy);
        if self.policies.contains_key(&key) {
            let text = format!("there is a policy named {} in namespace {} already", key.1, key.0);
            return Err(ApiError::new(Code::Exists, text)
                .field("metadata.name")
                .hint("`switch-ctl policy set FILE` replaces it"));
        }
        refusal(policy::check::policy(policy))?;
        if self.policies.len() >= POLICIES_MAX {
            return Err(ApiError::full(POLICIES_MAX, "policies", "policy list"));
        }
        let slot = self.free_slots(slots_of(policy))?;
        self.policies.insert(key, PlacedPolicy { slot, policy: Arc::new(policy.clone()) });
        Ok(())
    }

    pub(super) fn set_policy(&mut self, policy: &NetworkPolicy) -> Result<(), ApiError> {
        let Some(before) = self.policies.remove(&key_of(policy)) else { return self.add_policy(policy) };
        self.add_policy(&NetworkPolicy { owner: before.policy.owner, ..policy.clone() })?;
        // One of the same shape goes on counting where it counted.
        if slots_of(&before.policy) == slots_of(policy)
            && let Some(placed) = self.policies.get_mut(&key_of(policy))
        {
            placed.slot = before.slot;
        }
        Ok(())
    }

    pub(super) fn delete_policy(&mut self, by: &ByPolicy) -> Result<(), ApiError> {
        let key = (by.namespace.clone(), by.name.clone());
        self.policies.remove(&key).map(drop).ok_or_else(|| no_policy(by))
    }

    /// The model after so many policies went and came, compiled once. What became of it may be asked, and is not
    /// checked against all else.
    pub fn with_policies(&self, set: &[NetworkPolicy], delete: &[ByPolicy]) -> Result<Self, ApiError> {
        let mut next = self.clone();
        delete.iter().try_for_each(|by| next.delete_policy(by))?;
        set.iter().try_for_each(|policy| next.set_policy(policy))?;
        next.compile_policies()?;
        Ok(next)
    }

    /// The first of so many slots that are nobody's.
    pub(super) fn free_slots(&self, wanted: u32) -> Result<Slot, ApiError> {
        let policies = self.policies.values().map(|placed| (placed.slot, slots_of(&placed.policy)));
        let acls = self.acls.values().map(|placed| (placed.slot, acl::slots_of(&placed.acl)));
        let nats = self.nats.values().map(|placed| (placed.slot, SLOTS_OF_NAT));
        let used: BTreeMap<Slot, u32> = policies.chain(acls).chain(nats).collect();
        let mut free = 0;
        for (slot, len) in used {
            if slot - free >= wanted {
                break;
            }
            free = slot + len;
        }
        if (free + wanted) as usize > RULES_MAX {
            let text = format!(
                "no more than {RULES_MAX} rules are possible, two more of each policy among them, and those of access control lists"
            );
            return Err(ApiError::new(Code::Limit, text).hint(
                "nothing was changed; sets of addresses and ports make one rule of many, and `switch-ctl policy stats` shows which decide",
            ));
        }
        Ok(free)
    }

    /// The node's own addresses: the switch's, and those of its host ports.
    fn nodes(&self) -> impl Iterator<Item = IpAddr> {
        let host = self.ports.values().map(|port| &*port.object);
        let host = host.filter(|port| matches!(port.kind, PortKind::Host { .. })).flat_map(addresses_of);
        host.chain(self.addresses.iter().map(|own| own.address.address))
    }

    pub(super) fn compile_policies(&mut self) -> Result<(), ApiError> {
        let pods = self.ports.values().filter_map(|port| {
            let workload = port.object.workload.as_ref()?;
            let addresses = addresses_of(&port.object).into_iter().map(to_bits).collect();
            Some(Pod { port: port.id, workload, addresses })
        });
        let policies = self.policies.values();
        let input = Input {
            policies: policies.map(|it| Placed { policy: &it.policy, slot: it.slot }).collect(),
            pods: pods.collect(),
            namespaces: &self.namespaces,
            node: self.nodes().map(to_bits).collect(),
        };
        let compiled = compile_after(&input, &self.policing).map_err(|error| {
            ApiError::new(Code::Limit, error.to_string()).hint(
                "nothing was changed; use fewer rules, or fewer different blocks and ports in one policy",
            )
        })?;
        self.policing = Policing(Arc::new(compiled));
        Ok(())
    }

    /// The name of a rule, of a policy or of an access control list, by its slot.
    pub fn rule_name(&self, slot: Slot) -> String {
        if slot == acl::DEFAULT {
            return DEFAULT_VERDICT.into();
        }
        let has =
            |placed: &&PlacedPolicy| (placed.slot..placed.slot + slots_of(&placed.policy)).contains(&slot);
        if let Some(placed) = self.policies.values().find(has) {
            return policy::rule_name(&placed.policy, slot - placed.slot);
        }
        let has =
            |placed: &&PlacedAcl| (placed.slot..placed.slot + acl::slots_of(&placed.acl)).contains(&slot);
        if let Some(placed) = self.nats.values().find(|it| (it.slot..it.slot + SLOTS_OF_NAT).contains(&slot))
        {
            return format!("nat {}", placed.nat.name);
        }
        let placed = self.acls.values().find(has);
        placed.map_or_else(String::new, |placed| acl::rule_name(&placed.acl, slot - placed.slot))
    }
}

/// Every contradiction among workloads: an address is one's.
pub(super) fn check(model: &Model, problems: &mut Vec<Problem>) {
    let mut owners = BTreeMap::new();
    let node: Vec<IpAddr> = model.addresses.iter().map(|own| own.address.address).collect();
    for port in model.ports.values().map(|port| &*port.object).filter(|port| port.workload.is_some()) {
        for ip in addresses_of(port) {
            if let Some(other) = owners.insert(ip, &port.name) {
                let text = format!("{ip} cannot be of two workloads: {other} and {}", port.name);
                problems.push(Problem::new("workload.addresses", text).about(port));
            }
            if node.contains(&ip) {
                let text = format!("{ip} of workload {} is the switch's own", port.name);
                problems.push(Problem::new("workload.addresses", text).about(port));
            }
        }
    }
}
