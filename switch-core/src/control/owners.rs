//! Nobody touches what another made without saying so: who asks, as whom, and the refusal.

use super::daemon::Daemon;
use super::news::Caller;
use switch_api::{ApiError, Code, LeaseFilter, ObjectRef, Owner, Problem, Request, Role};

/// Objects named in a refusal's sentence; it lists all of them beside it.
const NAMED_MAX: usize = 4;
/// The plugin's program. One of a version that does not say in `hello` as whom it asks is known by it.
const CNI_PROGRAM: &str = "switch-cni";

/// Who asks, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// What it may do.
    pub role: Role,
    /// Who it is.
    pub caller: Caller,
    /// As whom it asks: whose objects it changes without another word.
    pub owner: Owner,
    /// Whose objects this request may touch as well, by its own words.
    pub override_owner: Option<Owner>,
}

impl Asker {
    /// Of somebody who has just connected.
    pub fn new(role: Role, caller: Caller) -> Self {
        let is_plugin = role == Role::Cni || caller.program() == CNI_PROGRAM;
        let owner = if is_plugin { Owner::Cni } else { Owner::Operator };
        Self { role, caller, owner, override_owner: None }
    }

    /// As whom it may ask, if it says so in `hello`.
    pub(super) fn allow_as(&self, owner: Owner) -> Result<(), ApiError> {
        let is_allowed = match self.role {
            Role::Admin => owner != Owner::Routes,
            Role::Cni => owner == Owner::Cni,
            Role::Reader => true,
        };
        if is_allowed {
            return Ok(());
        }
        let text = format!("you cannot ask as {}", owner.in_words());
        Err(ApiError::new(Code::Forbidden, text).field("owner").hint("say as whom you ask, or leave it out"))
    }
}

impl Daemon {
    /// Refuses what would touch another owner's. Whose is touched all the same, because the asker said so: none if nobody's is.
    pub(super) fn respect_owners(&self, request: &Request, asker: &Asker) -> Result<Option<Owner>, ApiError> {
        if request.is_read_only() {
            return Ok(None);
        }
        if asker.override_owner.is_some() && asker.role != Role::Admin {
            return Err(ApiError::new(Code::Forbidden, "only an admin may override owners")
                .field("override_owner")
                .hint("use root, or a member of the group given to `switchd --group`"));
        }
        let mut others = self.model.others(request, asker.owner);
        self.others_of_book(request, asker.owner, &mut others);
        others.extend(whole_configuration(request).filter(|(_, owner)| *owner != asker.owner));
        let overridden = asker.override_owner.filter(|_| !others.is_empty());
        others.retain(|(_, owner)| Some(*owner) != overridden);
        if others.is_empty() { Ok(overridden) } else { Err(refusal(&others)) }
    }

    /// Pools and leases.
    fn others_of_book(&self, request: &Request, asker: Owner, others: &mut Vec<(ObjectRef, Owner)>) {
        let mut touch = |object: ObjectRef, owner: Owner| {
            if owner != asker {
                others.push((object, owner));
            }
        };
        let mut leases = |filter: &LeaseFilter| {
            let mut meant = self.book.fitting(filter).cloned().collect();
            self.narrow_to_leaks(filter, &mut meant);
            meant.iter().for_each(|lease| touch(ObjectRef::of(lease), lease.owner));
        };
        match request {
            Request::LeaseAcquire(wanted) => {
                leases(&LeaseFilter { pool: Some(wanted.pool.clone()), ..LeaseFilter::of(&wanted.holder) });
            }
            Request::LeaseRelease(filter) if *filter != LeaseFilter::default() => leases(filter),
            Request::PoolSet(pool) => {
                self.book
                    .pool(&pool.name)
                    .into_iter()
                    .for_each(|pool| touch(ObjectRef::of(pool), pool.owner));
            }
            Request::PoolDelete(by) => {
                self.book.pool(&by.name).into_iter().for_each(|pool| touch(ObjectRef::of(pool), pool.owner));
            }
            _ => {}
        }
    }
}

/// What changes all that an owner declared is about that owner's objects, whichever.
fn whole_configuration(request: &Request) -> impl Iterator<Item = (ObjectRef, Owner)> {
    let owner = match request {
        Request::ConfigApply(apply) => Some(apply.owner),
        Request::ConfigConfirm(_) | Request::ConfigRollback(_) => Some(Owner::Operator),
        _ => None,
    };
    let all = |owner: Owner| (ObjectRef { noun: "configuration".into(), key: format!("of {owner}") }, owner);
    owner.map(all).into_iter()
}

fn hint(owner: Owner) -> String {
    match owner {
        Owner::Routes => "it is a route of the kernel, which alone can take it away: `ip route del`".into(),
        owner => format!(
            "leave it to {}, or say that you mean it: `--override-owner {owner}` (in the API `override_owner`)",
            owner.in_words()
        ),
    }
}

fn refusal(others: &[(ObjectRef, Owner)]) -> ApiError {
    let named = others.iter().take(NAMED_MAX);
    let named = named.map(|(object, owner)| format!("{object} belongs to {}", owner.in_words()));
    let mut text = named.collect::<Vec<_>>().join("; ");
    if others.len() > NAMED_MAX {
        text += &format!("; and {} more are others'", others.len() - NAMED_MAX);
    }
    let owner = others.first().map(|(_, owner)| *owner).unwrap_or_default();
    let mut error = ApiError::new(Code::Forbidden, text + "; nothing was changed").hint(hint(owner));
    error.data.owner = Some(owner);
    let problem = |(object, owner): &(ObjectRef, Owner)| Problem {
        object: Some(object.clone()),
        field: None,
        message: format!("{object} belongs to {}", owner.in_words()),
        hint: Some(hint(*owner)),
    };
    error.data.problems = others.iter().map(problem).collect();
    error
}
