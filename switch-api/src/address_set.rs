//! Address sets: named networks and addresses that rules of access control lists share. Rules name the set; its members come and
//! go one by one, and no rule is touched.

use crate::{Name, Owner, Prefix};
use serde::{Deserialize, Deserializer, Serialize};
use std::net::IpAddr;

/// Most members of one set: the larger public lists of addresses to block have tens of thousands.
pub const ADDRESS_SET_MEMBERS_MAX: usize = 100_000;
/// Most members in one answer: some hundred KiB of text.
pub const ADDRESS_SET_PAGE_MAX: u32 = 16_384;

/// A set of networks and addresses, of both IP versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressSet {
    /// Its name.
    pub name: Name,
    /// All its members: networks, or addresses, which are networks of one. One may lie in another. None: they are no part of what is
    /// declared here, and come and go by [`crate::Request::AddressSetUpdate`] alone; those that are there stay.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "members")]
    pub members: Option<Vec<Prefix>>,
    /// Who declared it.
    #[serde(default)]
    pub owner: Owner,
}

/// Members that come to a set, and members that go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressSetUpdate {
    /// The set.
    pub name: Name,
    /// To be members from now on; one that is already stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "some_members")]
    pub add: Vec<Prefix>,
    /// To be none; what is none stays none. An address goes by the member that it is, not out of a network that it lies in.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "some_members")]
    pub remove: Vec<Prefix>,
}

/// Answer to [`crate::Request::AddressSetUpdate`] and [`crate::Request::AddressSetSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressSetDone {
    /// The generation in force.
    pub generation: u64,
    /// Members that came.
    pub added: usize,
    /// Members that went.
    pub removed: usize,
    /// Members there are.
    pub members: usize,
}

/// See [`crate::Request::AddressSetMembers`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressSetMembers {
    /// The set.
    pub name: Name,
    /// Only those behind this one, in the order of the answer: the last of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Prefix>,
    /// At most so many; 0: [`ADDRESS_SET_PAGE_MAX`], which is the most as well.
    #[serde(default)]
    pub limit: u32,
}

/// One set in the answer to [`crate::Request::AddressSetList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressSetStatus {
    /// Its name.
    pub name: Name,
    /// Who declared it.
    pub owner: Owner,
    /// Its members are part of what is declared: files have them.
    pub declared: bool,
    /// Members of IPv4.
    pub ipv4: usize,
    /// Members of IPv6.
    pub ipv6: usize,
    /// Access control lists with rules that name it.
    pub used_by: Vec<Name>,
}

/// Reads a member: a network, or an address.
pub fn parse_member(text: &str) -> Result<Prefix, String> {
    let address = || text.parse::<IpAddr>().ok().map(Prefix::host);
    text.parse().ok().or_else(address).ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        format!(
            "{text:?} is no member of a set: write ADDRESS or ADDRESS/LENGTH, like 192.0.2.7 or 2001:db8::/32"
        )
    })
}

/// A member as it is read.
struct Member(Prefix);

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        parse_member(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

fn some_members<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Prefix>, D::Error> {
    Ok(Vec::<Member>::deserialize(from)?.into_iter().map(|Member(prefix)| prefix).collect())
}

fn members<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Prefix>>, D::Error> {
    some_members(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_networks_or_addresses_and_absent_is_not_empty() {
        let set = |text: &str| serde_json::from_str::<AddressSet>(text);
        let read = set(r#"{"name": "a", "members": ["192.0.2.7", "10.0.0.0/8", "2001:db8::1"]}"#).unwrap();
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(written["members"], serde_json::json!(["192.0.2.7/32", "10.0.0.0/8", "2001:db8::1/128"]));
        assert_eq!(serde_json::from_value::<AddressSet>(written).unwrap(), read);
        assert_eq!(set(r#"{"name": "a"}"#).unwrap().members, None);
        assert_eq!(set(r#"{"name": "a", "members": []}"#).unwrap().members, Some(vec![]));
        let error = set(r#"{"name": "a", "members": ["10.0.0.0/33"]}"#).unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/33"), "{error}");
    }
}
