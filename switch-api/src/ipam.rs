//! Addresses: pools of them, and who holds which.

use crate::{Name, Owner};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Addresses that are given out. A holder gets one of each family that the pool has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name, unique among pools.
    pub name: Name,
    /// Where they come from; those of one family are used in this order.
    pub ranges: Vec<PoolRange>,
    /// Who declared it.
    #[serde(default)]
    pub owner: Owner,
}

/// A part of a subnet. The subnet's own address, an IPv4 subnet's broadcast address and the gateway are
/// never given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolRange {
    /// The subnet; its length becomes that of every address.
    pub subnet: IpNet,
    /// The lowest address; none: the subnet's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<IpAddr>,
    /// The highest address; none: the subnet's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<IpAddr>,
    /// The router the holders are told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// What is not given out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Span>,
}

impl PoolRange {
    /// All of a subnet, without a gateway.
    pub fn of(subnet: IpNet) -> Self {
        Self { subnet, first: None, last: None, gateway: None, exclude: Vec::new() }
    }
}

/// Addresses `first..=last` of one family: `10.1.0.1`, `10.1.0.1-10.1.0.9` or `10.1.0.0/28` as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no span of addresses: write one address, FIRST-LAST, or ADDRESS/LENGTH")]
pub struct NoSpan(String);

impl Span {
    /// From the lowest to the highest; none if they are of different families or the wrong way round.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// The lowest.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest.
    pub fn last(&self) -> IpAddr {
        self.last
    }
}

impl FromStr for Span {
    type Err = NoSpan;
    fn from_str(text: &str) -> Result<Self, NoSpan> {
        let no = || NoSpan(text.chars().take(crate::name::NAME_LEN_MAX).collect());
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| no());
        if let Some((first, last)) = text.split_once('-') {
            return Self::new(address(first)?, address(last)?).ok_or_else(no);
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self { first: net.network(), last: net.broadcast() });
        }
        address(text).map(|only| Self { first: only, last: only })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// Who holds addresses: one interface of one container on one network. With CNI these are `name`,
/// `CNI_CONTAINERID` and `CNI_IFNAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The network.
    pub network: String,
    /// The container.
    pub container: String,
    /// The interface in it.
    pub interface: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{} of network {}", self.container, self.interface, self.network)
    }
}

/// Addresses somebody holds until they are released. Nothing else ends a lease: a container may sleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The pool they are from.
    pub pool: Name,
    /// Who holds them.
    pub holder: Holder,
    /// They.
    pub addresses: Vec<LeasedAddress>,
    /// The boot of the machine (`/proc/sys/kernel/random/boot_id`) in which they were asked for last.
    /// Containers do not survive a boot, their leases do until somebody releases them.
    pub boot_id: String,
    /// Who acquired it. One that was acquired before leases had owners is the CNI plugin's: nobody else asked for any.
    #[serde(default = "cni", skip_serializing_if = "is_cni")]
    pub owner: Owner,
}

fn cni() -> Owner {
    Owner::Cni
}

fn is_cni(owner: &Owner) -> bool {
    *owner == Owner::Cni
}

/// One address of a [`Lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeasedAddress {
    /// The address, with the length of its subnet.
    pub address: IpNet,
    /// The subnet's router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// See [`crate::Request::LeaseAcquire`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseAcquire {
    /// From which pool.
    pub pool: Name,
    /// For whom. Asking again for the same holder answers with the lease it has.
    pub holder: Holder,
    /// These and no others of their family; a family of which none is named gets any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// A port with these addresses is asked for next: the lease need not be on disk before that is, and is lost with a daemon that
    /// dies in between.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_port: bool,
}

/// Which leases are meant; what is absent does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseFilter {
    /// Only of this pool.
    pub pool: Option<Name>,
    /// Only of this network.
    pub network: Option<String>,
    /// Only of this container.
    pub container: Option<String>,
    /// Only of interfaces of this name.
    pub interface: Option<String>,
    /// Only the one with this address.
    pub address: Option<IpAddr>,
    /// Only those from before the machine's last boot: their containers are gone.
    pub earlier_boot: bool,
    /// Only those of addresses that no port has, acquired more than ten seconds ago: what was attached is gone, or was never
    /// attached to this switch.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_port: bool,
}

impl LeaseFilter {
    /// Those of one holder, in whatever pool.
    pub fn of(holder: &Holder) -> Self {
        Self {
            network: Some(holder.network.clone()),
            container: Some(holder.container.clone()),
            interface: Some(holder.interface.clone()),
            ..Self::default()
        }
    }

    /// Whether a lease is meant, as far as it says so itself: not whether a port has its address. `boot_id` is this boot's.
    pub fn fits(&self, lease: &Lease, boot_id: &str) -> bool {
        let same = |wanted: &Option<String>, is: &String| wanted.as_ref().is_none_or(|wanted| wanted == is);
        self.pool.as_ref().is_none_or(|pool| *pool == lease.pool)
            && same(&self.network, &lease.holder.network)
            && same(&self.container, &lease.holder.container)
            && same(&self.interface, &lease.holder.interface)
            && self.address.is_none_or(|it| lease.addresses.iter().any(|has| has.address.addr() == it))
            && (!self.earlier_boot || lease.boot_id != boot_id)
    }
}

/// One pool in the answer to [`crate::Request::PoolList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// As declared.
    pub pool: Pool,
    /// How full it is, a family each.
    pub families: Vec<FamilyStatus>,
    /// Leases from before the machine's last boot.
    pub leases_of_earlier_boots: u64,
}

/// How full one family of a pool is. A count beyond 64 bits is given as the highest there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyStatus {
    /// IPv6; otherwise IPv4.
    pub is_ipv6: bool,
    /// Addresses that can be given out at all.
    pub total: u64,
    /// Given out.
    pub leased: u64,
    /// Released a moment ago and not given out again yet.
    pub held: u64,
    /// Can be given out now.
    pub free: u64,
}

/// One lease in the answer to [`crate::Request::LeaseList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The lease.
    pub lease: Lease,
    /// It is from before the machine's last boot.
    pub earlier_boot: bool,
    /// The port whose device has its address; none: no port has.
    #[serde(default)]
    pub port: Option<Name>,
}

/// Answer to [`crate::Request::LeaseRelease`]: what was released; empty if there was nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The leases that were.
    pub leases: Vec<Lease>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_in_three_ways() {
        for (text, shown) in [
            ("10.1.0.1", "10.1.0.1"),
            ("10.1.0.1-10.1.0.9", "10.1.0.1-10.1.0.9"),
            ("10.1.0.0/30", "10.1.0.0-10.1.0.3"),
            ("fd00::/127", "fd00::-fd00::1"),
        ] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), shown);
        }
        for bad in ["", "10.1.0.9-10.1.0.1", "10.1.0.1-fd00::1", "10.1.0.0/33", "x", "-"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }
}
