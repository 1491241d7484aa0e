//! Port sets: what may be declared, and rules with the ports that their sets have. A set that changes is a change of every list that
//! names it.

use super::model::{Model, no_such};
use super::policies::refusal;
use crate::acl::RULE_ITEMS_MAX;
use std::sync::Arc;
use switch_api::{Acl, AclRule, ApiError, Code, Name, PortRange, PortRangeSet};

/// Most sets: a person's names for services.
pub const PORT_SETS_MAX: usize = 1024;

impl Model {
    pub(super) fn set_ports(&mut self, set: &PortRangeSet) -> Result<(), ApiError> {
        refusal(problems(set))?;
        let before = self.port_sets.get(&set.name);
        if before.is_none() && self.port_sets.len() >= PORT_SETS_MAX {
            return Err(ApiError::full(PORT_SETS_MAX, "port sets", "port-group list"));
        }
        // It stays its owner's.
        let owner = before.map_or(set.owner, |before| before.owner);
        self.port_sets.insert(set.name.clone(), PortRangeSet { owner, ..set.clone() });
        self.resolve_lists()
    }

    pub(super) fn delete_ports(&mut self, name: &Name) -> Result<(), ApiError> {
        let users: Vec<&str> = self.lists_with_ports(name).map(|acl| acl.name.as_str()).collect();
        if !users.is_empty() {
            let text = format!("port set {name} is named by rules of {}", users.join(", "));
            return Err(ApiError::new(Code::Busy, text)
                .field("name")
                .hint("change those access control lists first"));
        }
        self.port_sets.remove(name).map(drop).ok_or_else(|| no_such_ports(name))
    }

    /// Lists with rules that name a port set.
    pub fn lists_with_ports<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Acl> {
        let names = move |acl: &&Acl| rules(acl).any(|rule| rule.port_sets().any(|set| set == name));
        self.acls.values().map(|placed| &*placed.acl).filter(names)
    }

    /// A list with the ports of the sets that its rules name, the same one if they name none.
    pub(super) fn resolved(&self, acl: &Arc<Acl>) -> Result<Arc<Acl>, ApiError> {
        if rules(acl).all(|rule| rule.port_sets().next().is_none()) {
            return Ok(acl.clone());
        }
        let mut resolved = (**acl).clone();
        for (direction, rules) in [("ingress", &mut resolved.ingress), ("egress", &mut resolved.egress)] {
            for (n, rule) in rules.iter_mut().enumerate() {
                let sides = [
                    ("source_port_sets", &rule.source_port_sets, &mut rule.source_ports),
                    ("destination_port_sets", &rule.destination_port_sets, &mut rule.destination_ports),
                ];
                for (field, sets, ports) in sides {
                    for name in sets {
                        let absent = || no_such_ports(name).field(format!("{direction}[{n}].{field}"));
                        ports.extend_from_slice(&self.port_sets.get(name).ok_or_else(absent)?.ports);
                    }
                }
            }
        }
        Ok(Arc::new(resolved))
    }

    fn resolve_lists(&mut self) -> Result<(), ApiError> {
        let lists: Vec<(Name, Arc<Acl>)> =
            self.acls.iter().map(|(name, placed)| (name.clone(), placed.acl.clone())).collect();
        for (name, acl) in lists {
            let resolved = self.resolved(&acl)?;
            self.acls.get_mut(&name).into_iter().for_each(|placed| placed.resolved = resolved.clone());
        }
        Ok(())
    }
}

fn rules(acl: &Acl) -> impl Iterator<Item = &AclRule> {
    acl.ingress.iter().chain(&acl.egress)
}

fn problems(set: &PortRangeSet) -> Vec<(String, String)> {
    let backwards = |range: &&PortRange| range.first > range.last;
    let backwards = set.ports.iter().find(backwards).map(|range| format!("{range} runs backwards"));
    let wrong = match set.ports.len() {
        0 => Some("a set without ports is about nothing: give it some, like [80, \"8000-8080\"]".to_owned()),
        len if len > RULE_ITEMS_MAX => {
            Some(format!("a set has at most {RULE_ITEMS_MAX} ports or ranges, not {len}"))
        }
        _ => backwards,
    };
    wrong.into_iter().map(|text| ("ports".to_owned(), text)).collect()
}

fn no_such_ports(name: &Name) -> ApiError {
    no_such("port set", name).hint("`switch-ctl port-group list` shows those there are")
}
