//! Who may ask for what: decided by who is at the other end of the socket (`SO_PEERCRED`, unix(7)), not by
//! what a client says of itself.

use super::news::Caller;
use rustix::net::sockopt::socket_peercred;
use std::os::fd::AsFd;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    Admin,
    /// Look, not change.
    Reader,
    /// Nothing.
    Nobody,
}

/// The rules.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Members of this group are admins, as root is.
    pub group: Option<Group>,
    /// Everybody else may look.
    pub readers: bool,
}

/// A group of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub gid: u32,
    /// Its name.
    pub name: String,
}

impl Group {
    /// Looks a group up by name (group(5)).
    pub fn find(name: &str) -> Option<Self> {
        let file = std::fs::read_to_string("/etc/group").ok()?;
        let mut fields = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = fields.find(|fields| fields.first() == Some(&name))?;
        Some(Self { gid: fields.get(2)?.parse().ok()?, name: name.to_owned() })
    }

    /// Whether a user is listed as a member. Read each time, so that a change counts at once.
    fn lists(&self, uid: u32) -> bool {
        let line_of = |path: &str, column: usize, value: &str| {
            let file = std::fs::read_to_string(path).ok()?;
            let mut lines = file.lines();
            lines.find(|line| line.split(':').nth(column) == Some(value)).map(str::to_owned)
        };
        let user = line_of("/etc/passwd", 2, &uid.to_string());
        let user = user.as_deref().and_then(|line| line.split(':').next());
        let group = line_of("/etc/group", 0, &self.name);
        let members = group.as_deref().and_then(|line| line.split(':').nth(3)).unwrap_or_default();
        user.is_some_and(|user| members.split(',').any(|member| member == user))
    }
}

impl Rules {
    /// The rights of whoever is at the other end.
    pub fn rights(&self, socket: impl AsFd) -> Rights {
        match socket_peercred(socket) {
            Ok(peer) => self.rights_of(peer.uid.as_raw(), peer.gid.as_raw()),
            Err(_) => Rights::Nobody,
        }
    }

    /// Who that is.
    pub fn caller(&self, socket: impl AsFd) -> Caller {
        let peer = socket_peercred(socket);
        peer.map_or(Caller::default(), |peer| Caller {
            uid: peer.uid.as_raw(),
            pid: peer.pid.as_raw_nonzero().get() as u32,
        })
    }

    fn rights_of(&self, uid: u32, gid: u32) -> Rights {
        let in_group = self.group.as_ref().is_some_and(|group| group.gid == gid || group.lists(uid));
        match (uid, in_group, self.readers) {
            (0, _, _) | (_, true, _) => Rights::Admin,
            (_, false, true) => Rights::Reader,
            _ => Rights::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_group_are_admins_others_what_the_rules_say() {
        let group = Group::find("daemon").expect("every system has the group daemon");
        let rules = Rules { group: Some(group.clone()), readers: false };
        assert_eq!(rules.rights_of(0, 0), Rights::Admin);
        assert_eq!(rules.rights_of(65_534, group.gid), Rights::Admin);
        assert_eq!(rules.rights_of(65_534, 65_534), Rights::Nobody);
        assert_eq!(Rules { readers: true, ..rules }.rights_of(65_534, 65_534), Rights::Reader);
        assert_eq!(Rules::default().rights_of(1, 1), Rights::Nobody);
    }
}
