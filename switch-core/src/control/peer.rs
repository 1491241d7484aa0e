//! Who may ask for what: decided by who is at the other end of the socket (`SO_PEERCRED`, unix(7)), not by
//! what a client says of itself.

use super::news::Caller;
use rustix::net::sockopt::socket_peercred;
use std::os::fd::AsFd;
use switch_api::{ApiError, Code, Name, Owner, Request, Role};

/// What a client may do; none: nothing.
pub type Rights = Option<Role>;

/// Whether a role may ask for this. `owner` knows who declared a port.
pub fn allow(role: Role, request: &Request, owner: impl Fn(&Name) -> Option<Owner>) -> Result<(), ApiError> {
    let refused = |text: &str, hint: &str| Err(ApiError::new(Code::Forbidden, text).hint(hint));
    match role {
        Role::Admin => Ok(()),
        _ if request.is_read_only() => Ok(()),
        Role::Reader => refused(
            "you may look, but not change",
            "use root, or a member of the group given to `switchd --group`",
        ),
        Role::Cni if is_for_containers(request, owner) => Ok(()),
        Role::Cni => refused(
            "the role cni may not do this",
            "it makes, labels and deletes pods' ports, bridges, pools and leases of the CNI plugin's; for all else use root, or a \
             member of the group given to `switchd --group`",
        ),
    }
}

/// What `switch-cni` asks for, of objects that are its own. Ports whose device the switch makes in a pod alone: others take devices
/// or write files.
fn is_for_containers(request: &Request, owner: impl Fn(&Name) -> Option<Owner>) -> bool {
    match request {
        Request::PortAdd(port) => port.owner == Owner::Cni && port.kind.pod_addresses().is_some(),
        // One that is not there is for the daemon to say.
        Request::PortDelete(by) => owner(&by.name).is_none_or(|owner| owner == Owner::Cni),
        Request::PortAddress(set) => owner(&set.name).is_none_or(|owner| owner == Owner::Cni),
        Request::PortLabel(label) => owner(&label.name).is_none_or(|owner| owner == Owner::Cni),
        Request::BridgeAdd(bridge) => bridge.owner == Owner::Cni,
        Request::PoolAdd(pool) => pool.owner == Owner::Cni,
        Request::LeaseAcquire(_) | Request::LeaseRelease(_) => true,
        _ => false,
    }
}

/// The rules.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Members of this group are admins, as root is.
    pub group: Option<Group>,
    /// Members of this group may do what the CNI plugin does.
    pub cni: Option<Group>,
    /// Members of this group may look.
    pub looking: Option<Group>,
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
            Err(_) => None,
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

    /// Whether anybody but root may do anything at all.
    pub fn lets_others_in(&self) -> bool {
        self.readers || [&self.group, &self.cni, &self.looking].iter().any(|group| group.is_some())
    }

    fn rights_of(&self, uid: u32, gid: u32) -> Rights {
        let is_in =
            |group: &Option<Group>| group.as_ref().is_some_and(|group| group.gid == gid || group.lists(uid));
        match () {
            () if uid == 0 || is_in(&self.group) => Some(Role::Admin),
            () if is_in(&self.cni) => Some(Role::Cni),
            () if is_in(&self.looking) || self.readers => Some(Role::Reader),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switch_api::{Bridge, ByName, PodEnd, Port, PortKind, PortLabel, Stop};

    fn group(name: &str) -> Option<Group> {
        Some(Group::find(name).unwrap_or_else(|| panic!("every system has the group {name}")))
    }

    #[test]
    fn the_most_that_any_of_a_users_groups_may() {
        let rules =
            Rules { group: group("daemon"), cni: group("bin"), looking: group("sys"), readers: false };
        let of = |name: &str| rules.rights_of(65_534, group(name).map_or(0, |group| group.gid));
        assert_eq!(rules.rights_of(0, 0), Some(Role::Admin));
        assert_eq!([of("daemon"), of("bin"), of("sys")], [Role::Admin, Role::Cni, Role::Reader].map(Some));
        assert_eq!(of("tty"), None);
        let rules = Rules { readers: true, ..rules };
        assert_eq!(rules.rights_of(65_534, 65_534), Some(Role::Reader));
        assert_eq!(rules.rights_of(65_534, group("bin").map_or(0, |group| group.gid)), Some(Role::Cni));
        assert_eq!(Rules::default().rights_of(1, 1), None);
    }

    #[test]
    fn the_role_cni_touches_what_is_the_plugins_and_nothing_else() {
        let name = |text: &str| -> Name { text.parse().unwrap() };
        let owner = |port: &Name| match port.as_str() {
            "theirs" => Some(Owner::Operator),
            "ours" => Some(Owner::Cni),
            _ => None,
        };
        let may = |role, request: &Request| allow(role, request, owner).is_ok();
        let port =
            |kind, owner| Request::PortAdd(Box::new(Port { owner, ..Port::new(name("p"), name("b"), kind) }));
        let label = |port| Request::PortLabel(PortLabel { name: name(port), workload: None });
        let delete = |port| Request::PortDelete(ByName { name: name(port) });
        let capture = PortKind::Pcap { read: None, write: Some("/tmp/file".into()) };
        let (device, netns, mac) = ("eth0".to_owned(), "/run/netns/a".to_owned(), None);
        let end = PodEnd { device, netns, mac, addresses: Vec::new(), routes: Vec::new() };
        let good = [
            port(PortKind::tap("/run/netns/a"), Owner::Cni),
            port(PortKind::xdp_pod("cni1", end), Owner::Cni),
            Request::BridgeAdd(Bridge { owner: Owner::Cni, ..Bridge::new(name("b")) }),
            delete("ours"),
            delete("nobodys"),
            label("ours"),
        ];
        let bad = [
            port(PortKind::tap("/run/netns/a"), Owner::Operator),
            port(PortKind::xdp("eth0"), Owner::Cni),
            port(capture, Owner::Cni),
            Request::BridgeAdd(Bridge::new(name("b"))),
            Request::BridgeDelete(ByName { name: name("b") }),
            delete("theirs"),
            label("theirs"),
            Request::Stop(Stop::default()),
            Request::FdbFlush(Default::default()),
        ];
        for request in &good {
            assert!(
                may(Role::Cni, request) && may(Role::Admin, request) && !may(Role::Reader, request),
                "{request:?}"
            );
        }
        for request in &bad {
            assert!(
                !may(Role::Cni, request) && may(Role::Admin, request) && !may(Role::Reader, request),
                "{request:?}"
            );
        }
        for role in [Role::Admin, Role::Cni, Role::Reader] {
            assert!(may(role, &Request::Status(Default::default())), "everybody may look");
        }
    }
}
