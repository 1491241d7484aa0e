//! Address sets: what may be declared, and lists that follow their members. A change of members costs what it changes, however many
//! members and rules there are beside it: the model, what is kept, the tables and the snapshot share all else.

use super::acls::Listed;
use super::model::{Model, no_such};
use super::snapshot::Snapshot;
use crate::acl::sets::{Difference, MEMBERS_MAX, MemberChange, SETS_MAX, Set, Sets};
use std::collections::HashSet;
use std::sync::Arc;
use switch_api::{
    ADDRESS_SET_MEMBERS_MAX, Acl, AddressSet, AddressSetUpdate, ApiError, Code, Name, Owner, Prefix, Request,
};

/// Whether a request is about address sets, and so about nothing else.
pub fn concerns(request: &Request) -> bool {
    matches!(request, Request::AddressSetSet(_) | Request::AddressSetUpdate(_) | Request::AddressSetDelete(_))
}

/// Sets after a change, and lists that follow it: nothing that stands in the way.
#[derive(Clone, Debug)]
pub struct CheckedSets {
    /// All of them.
    pub sets: Sets,
    /// Where they differ from those before.
    pub difference: Difference,
    /// The lists; none: no rule names the set.
    pub listed: Option<Listed>,
}

impl CheckedSets {
    /// The sets of `model` after `request`: all of it or, with an error, nothing.
    pub fn after(model: &Model, request: &Request) -> Result<Self, ApiError> {
        let mut sets = model.sets.clone();
        let difference = match request {
            Request::AddressSetSet(set) => declare(&mut sets, set)?,
            Request::AddressSetUpdate(update) => change(&mut sets, update)?,
            Request::AddressSetDelete(by) => delete(model, &mut sets, &by.name)?,
            _ => Difference::default(),
        };
        if sets.member_count() > MEMBERS_MAX {
            let text = format!(
                "all address sets together would have {} members, and {MEMBERS_MAX} is the most",
                sets.member_count()
            );
            return Err(ApiError::new(Code::Limit, text)
                .hint("nothing was changed; `switch-ctl address-set list` shows how many each has"));
        }
        let is_named = |change: &MemberChange| model.listed.names(&change.set);
        let listed = match difference.members.iter().any(is_named) {
            true => Some(model.lists_after(&difference.members, &sets)?),
            false => None,
        };
        Ok(Self { sets, difference, listed })
    }
}

/// A set in place of the one of its name.
fn declare(sets: &mut Sets, set: &AddressSet) -> Result<Difference, ApiError> {
    let before = sets.get(&set.name).cloned();
    if before.is_none() && sets.len() >= SETS_MAX {
        return Err(ApiError::full(SETS_MAX, "address sets", "address-set list"));
    }
    // It stays its owner's.
    let owner = before.as_ref().map_or(set.owner, |before| before.owner);
    let declared = set.members.is_some();
    let mut next = match (&set.members, &before) {
        (None, Some(before)) => before.clone(),
        (Some(members), _) => {
            let mut next = Set::default();
            check("members", members, &set.name)?;
            members.iter().for_each(|member| _ = next.put(*member, true));
            next
        }
        (None, None) => Set::default(),
    };
    (next.owner, next.declared) = (owner, declared);
    let mut difference = Difference::default();
    difference.add(&set.name, before.as_ref(), Some(&next));
    sets.insert(set.name.clone(), next);
    Ok(difference)
}

/// Members that come and go.
fn change(sets: &mut Sets, update: &AddressSetUpdate) -> Result<Difference, ApiError> {
    let name = &update.name;
    let Some(mut set) = sets.get(name).cloned() else { return Err(no_such_set(name)) };
    check("add", &update.add, name)?;
    check("remove", &update.remove, name)?;
    let goes: HashSet<&Prefix> = update.remove.iter().collect();
    if let Some(n) = update.add.iter().position(|member| goes.contains(member)) {
        let text = format!("{} cannot come to set {name} and go at once", update.add[n]);
        return Err(ApiError::new(Code::InvalidParams, text)
            .field(format!("add[{n}]"))
            .hint("nothing was changed; name it in one of the two"));
    }
    let mut difference = Difference::default();
    for (list, is) in [(&update.remove, false), (&update.add, true)] {
        let changed = list.iter().filter(|member| set.put(**member, is));
        let change = |member: &Prefix| MemberChange { set: name.clone(), member: *member, is };
        difference.members.extend(changed.map(change));
    }
    if set.len() > ADDRESS_SET_MEMBERS_MAX {
        return Err(too_many(name, set.len()).field("add"));
    }
    sets.insert(name.clone(), set);
    Ok(difference)
}

fn delete(model: &Model, sets: &mut Sets, name: &Name) -> Result<Difference, ApiError> {
    let users: Vec<&str> = model.lists_naming(name).map(|acl| acl.name.as_str()).collect();
    if !users.is_empty() {
        let text = format!("address set {name} is named by rules of {}", users.join(", "));
        return Err(ApiError::new(Code::Busy, text)
            .field("name")
            .hint("change those access control lists first"));
    }
    let gone = sets.remove(name).ok_or_else(|| no_such_set(name))?;
    let mut difference = Difference::default();
    difference.add(name, Some(&gone), None);
    Ok(difference)
}

/// Networks that are networks, and not too many.
fn check(field: &str, members: &[Prefix], name: &Name) -> Result<(), ApiError> {
    if members.len() > ADDRESS_SET_MEMBERS_MAX {
        return Err(too_many(name, members.len()).field(field));
    }
    let strange = members.iter().position(|member| member.network() != *member);
    strange.map_or(Ok(()), |n| {
        let (member, network) = (members[n], members[n].network());
        let text = format!("{member} is no network: bits behind its prefix are set");
        Err(ApiError::new(Code::InvalidParams, text)
            .field(format!("{field}[{n}]"))
            .hint(format!("nothing was changed; write {network}")))
    })
}

fn too_many(name: &Name, len: usize) -> ApiError {
    let text =
        format!("address set {name} would have {len} members, and {ADDRESS_SET_MEMBERS_MAX} is the most");
    ApiError::new(Code::Limit, text).hint("nothing was changed; use networks for addresses side by side, or several sets: a rule may name more than one")
}

/// The refusal for a set that is not there.
pub fn no_such_set(name: &Name) -> ApiError {
    no_such("address set", name).hint(
        "`switch-ctl address-set list` shows those there are; `switch-ctl address-set create NAME` makes one",
    )
}

fn plain(name: &Name, set: &Set) -> AddressSet {
    AddressSet { name: name.clone(), members: None, owner: set.owner }
}

impl Model {
    /// Lists with rules that name a set.
    pub fn lists_naming<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Acl> {
        let names = move |acl: &&Acl| {
            acl.ingress.iter().chain(&acl.egress).any(|rule| rule.sets().any(|set| set == name))
        };
        self.acls.values().map(|placed| &*placed.acl).filter(names)
    }

    /// Sets that `owner` declared, with their members where these are part of that.
    pub(super) fn declared_sets(&self, owner: Owner) -> Vec<AddressSet> {
        let own = self.sets.iter().filter(|(_, set)| set.owner == owner);
        own.map(|(name, set)| set.declaration(name)).collect()
    }

    /// All sets, without their members.
    pub(super) fn plain_sets(&self) -> Vec<AddressSet> {
        self.sets.iter().map(|(name, set)| plain(name, set)).collect()
    }

    /// A set without its members.
    pub(super) fn plain_set(&self, name: &Name) -> Option<AddressSet> {
        self.sets.get(name).map(|set| plain(name, set))
    }

    /// Refuses rules that name sets that are not there.
    pub(super) fn check_sets_of(&self, acl: &Acl) -> Result<(), ApiError> {
        for (direction, rules) in [("ingress", &acl.ingress), ("egress", &acl.egress)] {
            for (n, rule) in rules.iter().enumerate() {
                let sides =
                    [("source_sets", &rule.source_sets), ("destination_sets", &rule.destination_sets)];
                for (field, sets) in sides {
                    if let Some(absent) = sets.iter().find(|set| self.sets.get(set).is_none()) {
                        return Err(no_such_set(absent).field(format!("{direction}[{n}].{field}")));
                    }
                }
            }
        }
        Ok(())
    }

    fn lists_after(&self, changes: &[MemberChange], sets: &Sets) -> Result<Listed, ApiError> {
        // What is too much for tables that grow, and may have chains that no port has any more, is asked of tables made anew.
        match self.listed.changed(changes, sets) {
            Ok(Some(changed)) => Ok(Listed(Arc::new(changed))),
            Ok(None) | Err(_) => self.compiled_acls(sets),
        }
    }
}

/// `before` with lists that follow members of sets, where nothing else is different from what it was compiled of.
pub fn compile_sets(model: &Model, before: &Snapshot, generation: u64) -> Snapshot {
    let mut ports = before.ports.to_vec();
    for port in model.ports.values() {
        if let Some(facts) = ports.get_mut(usize::from(port.id)) {
            (facts.acl, facts.epoch) = (model.listed.subject(port.id), model.epoch_of(port.id));
        }
    }
    Snapshot { generation, ports: ports.into(), listed: model.listed.0.clone(), ..before.clone() }
}
