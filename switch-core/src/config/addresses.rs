//! Gateway addresses and declared neighbours: what may be declared, and what contradicts what.

use super::checked::Problem;
use super::model::{Model, no_such};
use super::{ADDRESSES_MAX, NEIGHBOURS_STATIC_MAX};
use std::net::IpAddr;
use switch_api::{AddressDelete, ApiError, BridgeAddress, Code, NeighDelete, Prefix, StaticNeighbour};

impl Model {
    pub(super) fn add_address(&mut self, address: &BridgeAddress) -> Result<(), ApiError> {
        if !self.bridges.contains_key(&address.bridge) {
            return Err(no_such("bridge", &address.bridge));
        }
        let key = |a: &BridgeAddress| (a.bridge.clone(), a.vid, a.address);
        if self.addresses.iter().any(|present| key(present) == key(address)) {
            let text = format!("bridge {} has the address {} already", address.bridge, address.address);
            return Err(ApiError::new(Code::Exists, text)
                .field("address")
                .hint("`switch-ctl bridge list` shows each bridge's addresses"));
        }
        if self.addresses.len() >= ADDRESSES_MAX {
            return Err(ApiError::full(ADDRESSES_MAX, "gateway addresses", "bridge list"));
        }
        self.addresses.push(address.clone());
        Ok(())
    }

    pub(super) fn delete_address(&mut self, by: &AddressDelete) -> Result<(), ApiError> {
        let before = self.addresses.len();
        self.addresses.retain(|a| (&a.bridge, a.vid, a.address) != (&by.bridge, by.vid, by.address));
        if self.addresses.len() == before {
            let text = format!("bridge {} has no address {} in VLAN {}", by.bridge, by.address, by.vid);
            return Err(ApiError::new(Code::NotFound, text)
                .field("address")
                .hint("`switch-ctl bridge list` shows those there are"));
        }
        Ok(())
    }

    pub(super) fn add_neighbour(&mut self, neighbour: &StaticNeighbour) -> Result<(), ApiError> {
        let StaticNeighbour { address, bridge, vid, .. } = neighbour.clone();
        let by = NeighDelete { address, bridge, vid };
        let present = self
            .neighbours
            .iter()
            .find(|n| (n.address, &n.bridge, n.vid) == (by.address, &by.bridge, by.vid));
        let owner = present.map_or(neighbour.owner, |present| present.owner);
        self.delete_neighbour(&by);
        if self.neighbours.len() >= NEIGHBOURS_STATIC_MAX {
            return Err(ApiError::full(NEIGHBOURS_STATIC_MAX, "declared neighbours", "neigh list"));
        }
        self.neighbours.push(StaticNeighbour { owner, ..neighbour.clone() });
        Ok(())
    }

    pub(super) fn delete_neighbour(&mut self, by: &NeighDelete) {
        self.neighbours.retain(|n| (n.address, &n.bridge, n.vid) != (by.address, &by.bridge, by.vid));
    }
}

/// Every contradiction among addresses and neighbours.
pub(super) fn check(model: &Model, problems: &mut Vec<Problem>) {
    for bridge in model.bridges.values().map(|bridge| &*bridge.object) {
        if let Some(mac) = bridge.mac.filter(|mac| mac.is_group() || mac.is_zero()) {
            let text = format!("bridge {}: {mac} is no station's address", bridge.name);
            problems.push(Problem::new("mac", text).about(bridge));
        }
    }
    for (n, address) in model.addresses.iter().enumerate() {
        if let Err(text) = check_address(address.address) {
            let text = format!("bridge {}: {text}", address.bridge);
            problems.push(Problem::new("address", text).about(address));
        }
        for other in &model.addresses[n + 1..] {
            check_pair(model, address, other, problems);
        }
    }
    for neighbour in &model.neighbours {
        check_neighbour(model, neighbour, problems);
    }
}

fn check_address(prefix: Prefix) -> Result<(), String> {
    let Prefix { address, len } = prefix;
    let special = match address {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0 || v4.octets()[0] >= 224
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.to_ipv4_mapped().is_some()
        }
    };
    if special || address.is_unspecified() {
        return Err(format!("{address} cannot be a gateway: it is not an ordinary unicast address"));
    }
    if len == 0 {
        return Err(format!("{prefix} has no network; give the length of the bridge's own"));
    }
    let spare = prefix.bits() - len >= 2;
    if spare && (address == prefix.network().address || address.is_ipv4() && address == prefix.last()) {
        return Err(format!(
            "{address} is the first or last of {}/{len}, which no station has",
            prefix.network().address
        ));
    }
    Ok(())
}

/// Two addresses of one routing table: the same network only on the same bridge and VLAN.
fn check_pair(model: &Model, one: &BridgeAddress, other: &BridgeAddress, problems: &mut Vec<Problem>) {
    let vrf = |address: &BridgeAddress| model.bridges.get(&address.bridge).map(|bridge| &bridge.object.vrf);
    let same_place = (&one.bridge, one.vid) == (&other.bridge, other.vid);
    if vrf(one) != vrf(other) {
        return;
    }
    let (a, b) = (one.address, other.address);
    if a.address == b.address {
        let text = format!("{} is a gateway of {} already", a.address, one.bridge);
        problems.push(Problem::new("address", text).about(other));
    } else if !same_place && (a.contains(b.address) || b.contains(a.address)) {
        let text = format!(
            "{b} on bridge {} overlaps {a} on bridge {}; put them into different VRFs, or choose another network",
            other.bridge, one.bridge
        );
        problems.push(Problem::new("address", text).about(other));
    }
}

fn check_neighbour(model: &Model, neighbour: &StaticNeighbour, problems: &mut Vec<Problem>) {
    let StaticNeighbour { address, mac, bridge, vid, .. } = neighbour;
    let mut problem = |field, text: String| {
        problems.push(Problem::new(field, format!("neighbour {address}: {text}")).about(neighbour));
    };
    if mac.is_group() || mac.is_zero() {
        problem("mac", format!("{mac} is no station's address"));
    }
    let mut here = model.addresses.iter().filter(|a| (&a.bridge, a.vid) == (bridge, *vid));
    if !here.any(|own| own.address.contains(*address)) {
        problem("address", format!("bridge {bridge} has no gateway in VLAN {vid} whose network it is in"));
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use crate::config::{Checked, Model};
    use switch_api::{Bridge, BridgeAddress, Name, Owner, Request, Vid};

    fn model(addresses: &[(&str, &str, &str)]) -> Result<Checked, switch_api::ApiError> {
        let mut model = Model::default();
        for (bridge, vrf, address) in addresses {
            let bridge: Name = bridge.parse().unwrap();
            if !model.bridges.contains_key(&bridge) {
                let object = Bridge { vrf: vrf.parse().unwrap(), ..Bridge::new(bridge.clone()) };
                model = model.apply(&Request::BridgeAdd(object))?;
            }
            let address = BridgeAddress {
                bridge,
                address: address.parse().unwrap(),
                vid: Vid::DEFAULT,
                owner: Owner::Operator,
            };
            model = model.apply(&Request::AddressAdd(address))?;
        }
        Checked::new(model, 1)
    }

    #[test]
    fn what_cannot_be_a_gateway_is_refused_with_a_sentence() {
        for bad in [
            "127.0.0.1/8",
            "224.0.0.1/24",
            "0.0.0.1/8",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "fe80::1/64",
            "ff02::1/64",
            "::/64",
            "10.0.0.1/0",
        ] {
            let error = model(&[("br0", "main", bad)]).unwrap_err();
            assert_eq!(error.data.field.as_deref(), Some("address"), "{bad}: {error:?}");
        }
        for good in ["10.0.0.1/24", "10.0.0.0/31", "10.0.0.1/32", "fd00::/127", "fd00::1/64"] {
            assert!(model(&[("br0", "main", good)]).is_ok(), "{good}");
        }
    }

    #[test]
    fn networks_overlap_only_in_different_vrfs() {
        let overlap = model(&[("br0", "main", "10.0.0.1/16"), ("br1", "main", "10.0.5.1/24")]).unwrap_err();
        assert!(overlap.message.contains("overlaps"), "{overlap:?}");
        assert!(model(&[("br0", "red", "10.0.0.1/24"), ("br1", "blue", "10.0.0.1/24")]).is_ok());
        assert!(model(&[("br0", "main", "10.0.0.1/24"), ("br0", "main", "10.0.0.2/24")]).is_ok());
        assert!(model(&[("br0", "main", "10.0.0.1/24"), ("br1", "main", "10.0.0.1/24")]).is_err());
    }
}
