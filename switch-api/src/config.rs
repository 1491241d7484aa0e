//! All that one owner declares, as a file says it and as it is applied: the objects of the commands, by kind. What a file is
//! read from is in [`crate::file`].

use crate::{
    Acl, AddressSet, Bridge, BridgeAddress, Lease, Name, Namespace, Nat, NetworkPolicy, Owner, Pool, Port,
    PortRangeSet, Route, StaticMac, StaticNeighbour, Vid, Vrf,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an owner declares, all of it: what is not here is not to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bridges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bridge: Vec<Bridge>,
    /// Settings of routing tables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vrf: Vec<Vrf>,
    /// Gateway addresses of bridges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<BridgeAddress>,
    /// Ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port: Vec<Port>,
    /// Static MACs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fdb: Vec<StaticMac>,
    /// Declared neighbours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub neigh: Vec<StaticNeighbour>,
    /// Declared routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<Route>,
    /// Labels of namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespace: Vec<Namespace>,
    /// Network policies, as Kubernetes has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<NetworkPolicy>,
    /// Port sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_set: Vec<PortRangeSet>,
    /// Address sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub address_set: Vec<AddressSet>,
    /// Access control lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<Acl>,
    /// Network address translation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nat: Vec<Nat>,
}

/// What all that can be declared have in common.
pub trait Object: Serialize + Clone + PartialEq {
    /// Its kind, as commands and files call it.
    const NOUN: &'static str;
    /// What tells it from others of its kind, as a person reads it.
    fn key(&self) -> String;
    /// Whose it is.
    fn owner(&self) -> Owner;
    /// Makes it somebody's.
    fn set_owner(&mut self, owner: Owner);
}

macro_rules! owned {
    () => {
        fn owner(&self) -> Owner {
            self.owner
        }
        fn set_owner(&mut self, owner: Owner) {
            self.owner = owner;
        }
    };
}

impl Object for Pool {
    const NOUN: &'static str = "pool";
    fn key(&self) -> String {
        self.name.to_string()
    }
    owned!();
}

impl Object for Lease {
    const NOUN: &'static str = "lease";
    fn key(&self) -> String {
        format!("of {} from {}", self.holder, self.pool)
    }
    owned!();
}

impl Object for Bridge {
    const NOUN: &'static str = "bridge";
    fn key(&self) -> String {
        self.name.to_string()
    }
    owned!();
}

impl Object for Vrf {
    const NOUN: &'static str = "vrf";
    fn key(&self) -> String {
        self.name.to_string()
    }
    owned!();
}

impl Object for BridgeAddress {
    const NOUN: &'static str = "address";
    fn key(&self) -> String {
        format!("{}{}", self.address, on(&self.bridge, self.vid))
    }
    owned!();
}

impl Object for Port {
    const NOUN: &'static str = "port";
    fn key(&self) -> String {
        self.name.to_string()
    }
    owned!();
}

impl Object for StaticMac {
    const NOUN: &'static str = "fdb";
    fn key(&self) -> String {
        format!("{}{}", self.mac, on(&self.bridge, self.vid))
    }
    owned!();
}

impl Object for StaticNeighbour {
    const NOUN: &'static str = "neigh";
    fn key(&self) -> String {
        format!("{}{}", self.address, on(&self.bridge, self.vid))
    }
    owned!();
}

impl Object for Route {
    const NOUN: &'static str = "route";
    fn key(&self) -> String {
        let metric = if self.metric == 0 { String::new() } else { format!(" metric {}", self.metric) };
        let vrf = if self.vrf.is_main() { String::new() } else { format!(" vrf {}", self.vrf) };
        format!("{}{metric}{vrf}", self.prefix)
    }
    owned!();
}

impl Object for Namespace {
    const NOUN: &'static str = "namespace";
    fn key(&self) -> String {
        self.name.clone()
    }
    owned!();
}

impl Object for NetworkPolicy {
    const NOUN: &'static str = "policy";
    fn key(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }
    owned!();
}

impl Object for Nat {
    const NOUN: &'static str = "nat";
    fn key(&self) -> String {
        self.name.to_string()
    }
    owned!();
}

impl Object for PortRangeSet {
    const NOUN: &'static str = "port_set";
    fn key(&self) -> String {
        self.name.to_string()
    }
    owned!();
}

impl Object for AddressSet {
    const NOUN: &'static str = "address_set";
    fn key(&self) -> String {
        self.name.to_string()
    }
    owned!();
}

impl Object for Acl {
    const NOUN: &'static str = "acl";
    fn key(&self) -> String {
        self.name.to_string()
    }
    owned!();
}

fn on(bridge: &Name, vid: Vid) -> String {
    let vlan = if vid == Vid::DEFAULT { String::new() } else { format!(" vlan {vid}") };
    format!(" on {bridge}{vlan}")
}

impl Config {
    /// Keys of the objects of a kind, in their order.
    pub fn keys(&self, noun: &str) -> Vec<String> {
        fn of<T: Object>(noun: &str, list: &[T], keys: &mut Vec<String>) {
            if T::NOUN == noun {
                keys.extend(list.iter().map(T::key));
            }
        }
        let mut keys = Vec::new();
        of(noun, &self.bridge, &mut keys);
        of(noun, &self.vrf, &mut keys);
        of(noun, &self.address, &mut keys);
        of(noun, &self.port, &mut keys);
        of(noun, &self.fdb, &mut keys);
        of(noun, &self.neigh, &mut keys);
        of(noun, &self.route, &mut keys);
        of(noun, &self.namespace, &mut keys);
        of(noun, &self.policy, &mut keys);
        of(noun, &self.port_set, &mut keys);
        of(noun, &self.address_set, &mut keys);
        of(noun, &self.acl, &mut keys);
        of(noun, &self.nat, &mut keys);
        keys
    }
}

/// One object, by its kind and what tells it from others of that kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The kind: `bridge`, `vrf`, `address`, `port`, `fdb`, `neigh`, `route`, `namespace`, `policy`, `port_set`, `address_set`, `acl`, `nat`.
    pub noun: String,
    /// Its name, or what it has instead: `10.1.0.1/24 on br0`.
    pub key: String,
}

impl ObjectRef {
    /// Of an object.
    pub fn of<T: Object>(object: &T) -> Self {
        Self { noun: T::NOUN.to_owned(), key: object.key() }
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} {}", self.noun, self.key)
    }
}

/// One of several things that are wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What it is about, if it is about one object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// Its field, as a path (`settings.mtu`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// See [`crate::Request::ConfigApply`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigApply {
    /// All that is to be there of this owner's.
    pub config: Config,
    /// Whose it is; what others declared is not touched.
    #[serde(default)]
    pub owner: Owner,
    /// Only say what would be changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Seconds after which it is undone unless it was confirmed: 1 to [`CONFIRM_WITHIN_S_MAX`]. None: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_s: Option<u32>,
    /// Where it comes from, for the history: a file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Longest time that a change may wait to be confirmed: a day.
pub const CONFIRM_WITHIN_S_MAX: u32 = 86_400;

/// See [`crate::Request::ConfigExport`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigExport {
    /// Whose objects.
    #[serde(default)]
    pub owner: Owner,
}

/// See [`crate::Request::ConfigRollback`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigRollback {
    /// To what it was then, by the number in the history. None: what waits to be confirmed is undone now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Only say what would be changed.
    #[serde(default)]
    pub dry_run: bool,
    /// As for [`ConfigApply`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_s: Option<u32>,
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It comes.
    Add,
    /// It is changed where it stands; traffic goes on.
    Change,
    /// It goes and comes again: what changes cannot be changed where it stands. A port's traffic is interrupted.
    Replace,
    /// It goes.
    Delete,
}

/// A field that is another afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Its path.
    pub field: String,
    /// What it was; null: nothing.
    pub before: Value,
    /// What it is.
    pub after: Value,
}

/// What becomes of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What.
    pub action: Action,
    /// Of which.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// Where it differs, if it was there and still is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// Answer to [`crate::Request::ConfigApply`] and [`crate::Request::ConfigRollback`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigApplied {
    /// The generation in force.
    pub generation: u64,
    /// What was changed, or would be.
    pub changes: Vec<Change>,
    /// Its number in the history; none if nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Seconds that are left to confirm it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_s: Option<u64>,
}

/// One line of the history: what was declared from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// What `rollback` calls it.
    pub number: u64,
    /// Since when, in seconds since 1970.
    pub time_s: u64,
    /// How it came: `apply switch.toml`, `rollback 3`, `commands`.
    pub what: String,
    /// Whose command it was.
    pub uid: u32,
    /// Objects that it changed.
    pub changes: usize,
    /// Objects declared then.
    pub objects: usize,
    /// Seconds that are left to confirm it; none: it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_s: Option<u64>,
}
