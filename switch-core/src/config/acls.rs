//! Access control lists: what may be declared, and the tables made of it. They are made anew only when something changes
//! that they are made of: lists, or, as long as there are any, ports and their labels.

use super::model::{Model, no_such};
use super::policies::refusal;
use crate::acl::compile::{TooMuch, compile};
use crate::acl::sets::Sets;
use crate::acl::{self, ACLS_MAX, Candidate, Compiled, Input, Placed, slots_of};
use crate::policy::Slot;
use crate::table::atomic::mix;
use std::ops::Deref;
use std::sync::Arc;
use switch_api::{Acl, ApiError, Code, Name, Request};

/// A list, and where its rules are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedAcl {
    /// Its first slot; as long as the list lives its own.
    pub slot: Slot,
    /// As declared.
    pub acl: Arc<Acl>,
    /// The same with the ports of the sets that its rules name.
    pub resolved: Arc<Acl>,
}

/// Compiled lists. They follow from the rest of the model, and are equal where it is.
#[derive(Clone, Debug, Default)]
pub struct Listed(pub Arc<Compiled>);

impl PartialEq for Listed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Listed {}

impl Deref for Listed {
    type Target = Compiled;
    fn deref(&self) -> &Compiled {
        &self.0
    }
}

pub(super) fn too_much(error: TooMuch) -> ApiError {
    ApiError::new(Code::Limit, error.to_string()).hint(
        "nothing was changed; use fewer rules, or fewer that name both a source and a destination of their own",
    )
}

impl Model {
    /// Compiles lists after a change, as far as it concerns them. A port that comes, goes or is labelled changes whose they are, and
    /// nearly always nothing else.
    pub(super) fn follow_acls(&mut self, request: &Request) -> Result<(), ApiError> {
        match request {
            Request::AclSet(_) | Request::AclDelete(_) => self.compile_acls(),
            Request::PortSetSet(set) if self.lists_with_ports(&set.name).next().is_some() => {
                self.compile_acls()
            }
            Request::PortAdd(_)
            | Request::PortSet(_)
            | Request::PortDelete(_)
            | Request::PortLabel(_)
            | Request::NamespaceSet(_)
            | Request::NamespaceDelete(_)
                if !self.acls.is_empty() || !self.listed.is_idle() || self.denies() =>
            {
                let regrouped = self.listed.regrouped(&self.acl_input());
                match regrouped {
                    Some(listed) => self.listed = Listed(Arc::new(listed)),
                    None => self.compile_acls()?,
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether some port's default verdict is that not everything passes.
    fn denies(&self) -> bool {
        self.ports.values().any(|port| !port.object.settings.default_verdict.is_allow())
    }

    pub(super) fn set_acl(&mut self, acl: &Acl) -> Result<(), ApiError> {
        refusal(acl::check::acl(acl))?;
        self.check_sets_of(acl)?;
        let before = self.acls.remove(&acl.name);
        if self.acls.len() >= ACLS_MAX {
            return Err(ApiError::full(ACLS_MAX, "access control lists", "acl list"));
        }
        // It stays its owner's.
        let owner = before.as_ref().map_or(acl.owner, |before| before.acl.owner);
        // One of the same shape goes on counting where it counted.
        let shape = |acl: &Acl| (acl.ingress.len(), acl.egress.len());
        let slot = match before.filter(|before| shape(&before.acl) == shape(acl)) {
            Some(before) => before.slot,
            None => self.free_slots(slots_of(acl))?,
        };
        let acl = Arc::new(Acl { owner, ..acl.clone() });
        let resolved = self.resolved(&acl)?;
        self.acls.insert(acl.name.clone(), PlacedAcl { slot, acl, resolved });
        Ok(())
    }

    pub(super) fn delete_acl(&mut self, name: &Name) -> Result<(), ApiError> {
        self.acls.remove(name).map(drop).ok_or_else(|| no_such("acl", name))
    }

    pub(super) fn compile_acls(&mut self) -> Result<(), ApiError> {
        self.listed = self.compiled_acls(&self.sets)?;
        Ok(())
    }

    /// The lists, were these the address sets.
    pub(super) fn compiled_acls(&self, sets: &Sets) -> Result<Listed, ApiError> {
        let compiled = compile(&Input { sets, ..self.acl_input() }).map_err(too_much)?;
        Ok(Listed(Arc::new(compiled)))
    }

    fn acl_input(&self) -> Input<'_> {
        let ports = self.ports.values().map(|port| {
            let (name, workload) = (&port.object.name, port.object.workload.as_ref());
            Candidate { port: port.id, name, workload, defaults: port.object.settings.default_verdict }
        });
        Input {
            acls: self.acls.values().map(|it| Placed { acl: &it.resolved, slot: it.slot }).collect(),
            ports: ports.collect(),
            namespaces: &self.namespaces,
            sets: &self.sets,
        }
    }

    /// The ports that a list is for.
    pub fn ports_of_acl<'a>(&'a self, acl: &'a Acl) -> impl Iterator<Item = &'a Name> {
        let input = self.acl_input();
        let ports = input.ports.into_iter();
        ports.filter(|port| acl::applies(acl, port, &self.namespaces)).map(|port| port.name)
    }

    /// What a flow between two ports is admitted by, as far as this end goes: see [`super::snapshot::PortFacts::epoch`]. What is said of one
    /// port is another number than the same said of another: else it could move from one end of a flow to the other and their sum would stand,
    /// and a flow to one workload would be one to any other of which the same is said, or to the next one that is given the port's number.
    pub fn epoch_of(&self, port: u16) -> u64 {
        let subject = self.policing.subject(port);
        let policies = subject.map_or(0, |subject| subject.epoch);
        match policies ^ self.listed.subject(port).epoch.rotate_left(31) {
            // Nothing is said of it, and it is nobody's: what leaves by one uplink and is answered by another is not asked about again.
            0 if !subject.is_some_and(|subject| subject.is_workload) => 0,
            said => {
                let own = subject.map_or(&[][..], |subject| &*subject.own);
                let words = own.iter().flat_map(|ip| [(*ip >> 64) as u64, *ip as u64]);
                words.fold(mix(said ^ mix(u64::from(port))), |all, word| mix(all ^ word))
            }
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RULES_MAX;
    use switch_api::{AclAction, AclPorts, AclRule, Bridge, IpProtocol, Port, PortKind, PortRange, Workload};

    /// So many rules about what is sent to ports, and about what they send.
    fn list(ingress: usize, egress: usize) -> Request {
        let rule = |n: usize| {
            let port = 1 + (n / 250) as u16;
            AclRule {
                protocol: Some(IpProtocol::UDP),
                source: vec![format!("172.16.{}.0/24", n % 250).parse().unwrap()],
                destination_ports: vec![PortRange { first: port, last: port }],
                ..AclRule::all(AclAction::Deny)
            }
        };
        let applies_to = serde_json::json!({"workloads": {"pod_selector": {"matchLabels": {"app": "db"}}}});
        Request::AclSet(Box::new(Acl {
            name: "big".parse().unwrap(),
            tier: Default::default(),
            priority: 0,
            applies_to: serde_json::from_value::<AclPorts>(applies_to).unwrap(),
            stateless: false,
            ingress: (0..ingress).map(rule).collect(),
            egress: (0..egress).map(rule).collect(),
            owner: Default::default(),
        }))
    }

    fn add(model: &Model, n: usize, app: &str) -> Model {
        let name = |text: String| -> Name { text.parse().unwrap() };
        let workload = Workload {
            namespace: "shop".into(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            ports: vec![],
            addresses: vec![],
        };
        let port = Port::new(name(format!("p{n}")), name("br".into()), PortKind::Memory { source: None });
        model.apply(&Request::PortAdd(Box::new(Port { workload: Some(workload), ..port }))).unwrap()
    }

    /// A hundred thousand rules in one request, about one direction or both, are compiled, once: ports that come, also under labels that no
    /// rule names, and go share the tables. What would take too much, and more than there are numbers for, is refused with the figure.
    #[test]
    fn a_hundred_thousand_rules_in_one_request() {
        let bridge = Request::BridgeAdd(Bridge::new("br".parse().unwrap()));
        let model = add(&Model::default().apply(&bridge).unwrap(), 0, "db");
        assert!(model.apply(&list(100_000, 0)).unwrap().listed.subject(0).is_listed());
        let model = model.apply(&list(50_000, 50_000)).unwrap();
        let of = |model: &Model, n: u16| model.listed.subject(n);
        assert!(of(&model, 0).is_listed());
        let more = add(&add(&model, 1, "db"), 2, "nobody-names-it");
        assert_eq!((of(&more, 1), of(&more, 2).is_listed()), (of(&model, 0), false));
        assert_eq!(more.listed.bytes, model.listed.bytes);
        let gone =
            more.apply(&Request::PortDelete(switch_api::ByName { name: "p0".parse().unwrap() })).unwrap();
        assert!(!of(&gone, 0).is_listed() && of(&gone, 1) == of(&model, 0));
        let mut own = list(40_000, 0);
        if let Request::AclSet(acl) = &mut own {
            let network =
                |n: u32| format!("{}/32", std::net::Ipv4Addr::from((10 << 24) + n)).parse().unwrap();
            acl.ingress.iter_mut().zip(0..).for_each(|(rule, n)| rule.source = vec![network(n)]);
        }
        for (request, figure) in [(own, "32767 is the most"), (list(RULES_MAX, 1), &*RULES_MAX.to_string())] {
            let refused = model.apply(&request).unwrap_err();
            assert_eq!(refused.code, Code::Limit);
            assert!(refused.message.contains(figure), "{refused}");
        }
    }
}
