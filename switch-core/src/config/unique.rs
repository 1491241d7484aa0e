//! An IP address is one station's: two ports of one bridge and VLAN whose devices are given the same would answer for each other, now
//! one and now the other. It is asked when a port is added, addressed or moved to another VLAN; what an older version let
//! be stays as it is.

use super::Model;
use switch_api::{ApiError, Cidr, Code, Name, Port, PortKind, Vid, Vlan};

impl Model {
    /// Refuses the addresses of a port of this model that another one in its bridge and VLAN has.
    pub(super) fn check_unique(&self, name: &Name) -> Result<(), ApiError> {
        let Some(port) = self.ports.get(name).map(|port| &*port.object) else { return Ok(()) };
        let addresses = addresses(port);
        if addresses.is_empty() {
            return Ok(());
        }
        let others =
            self.ports_of(&port.bridge).map(|other| &*other.object).filter(|other| other.name != *name);
        for other in others.filter(|other| untagged(other) == untagged(port)) {
            let has = |cidr: &&Cidr| addresses_have(other, cidr);
            if let Some(cidr) = addresses.iter().find(has) {
                let (address, other) = (cidr.address(), &other.name);
                let text = format!("the address {address} is port {other}'s, in the same bridge and VLAN");
                return Err(ApiError::new(Code::Exists, text).field("addresses").hint(format!(
                    "give another address; `switch-ctl port show {other}` says whose it is, and if that is gone, `switch-ctl port delete {other}` frees it"
                )));
            }
        }
        Ok(())
    }
}

fn addresses_have(port: &Port, cidr: &Cidr) -> bool {
    addresses(port).iter().any(|has| has.address() == cidr.address())
}

/// What the device of a port is given: the switch knows of no others.
fn addresses(port: &Port) -> &[Cidr] {
    match &port.kind {
        PortKind::Host { addresses, .. } => addresses,
        kind => kind.pod_addresses().unwrap_or_default(),
    }
}

/// The VLAN in which the device itself speaks.
fn untagged(port: &Port) -> Option<Vid> {
    match &port.settings.vlan {
        Vlan::Access { vid } => Some(*vid),
        Vlan::Trunk { native, .. } => *native,
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use switch_api::{Bridge, ByName, PortAddress, PortSet, PortSettings, Request};

    fn vlan(vid: u16) -> PortSettings {
        PortSettings {
            vlan: Vlan::Access { vid: u32::from(vid).try_into().unwrap() },
            ..PortSettings::default()
        }
    }

    fn port(name: &str, bridge: &str, vid: u16, address: &str) -> Request {
        let mut kind = PortKind::tap("/run/netns/a");
        if let PortKind::Tap { addresses, .. } = &mut kind {
            addresses.push(address.parse().unwrap());
        }
        let port = Port::new(name.parse().unwrap(), bridge.parse().unwrap(), kind);
        Request::PortAdd(Box::new(Port { settings: vlan(vid), ..port }))
    }

    fn after(requests: &[Request]) -> Result<Model, ApiError> {
        let start = ["br0", "br1"].map(|name| Request::BridgeAdd(Bridge::new(name.parse().unwrap())));
        start.iter().chain(requests).try_fold(Model::default(), |model, request| model.apply(request))
    }

    #[test]
    fn an_address_is_one_ports_in_a_bridge_and_vlan() {
        let first = || port("a", "br0", 1, "10.1.0.2/24");
        let error = after(&[first(), port("b", "br0", 1, "10.1.0.2/16")]).unwrap_err();
        assert_eq!((error.code, error.data.field.as_deref()), (Code::Exists, Some("addresses")));
        assert!(error.message.contains("10.1.0.2 is port a's"), "{error:?}");
        assert!(error.data.hint.unwrap().contains("switch-ctl port delete a"));
        for other in
            [("b", "br0", 1, "10.1.0.3/24"), ("b", "br0", 2, "10.1.0.2/24"), ("b", "br1", 1, "10.1.0.2/24")]
        {
            assert!(after(&[first(), port(other.0, other.1, other.2, other.3)]).is_ok(), "{other:?}");
        }
        let gone = Request::PortDelete(ByName { name: "a".parse().unwrap() });
        assert!(after(&[first(), gone, port("b", "br0", 1, "10.1.0.2/24")]).is_ok());
    }

    #[test]
    fn neither_another_address_nor_another_vlan_leads_there() {
        let both = [port("a", "br0", 1, "10.1.0.2/24"), port("b", "br0", 2, "10.1.0.2/24")];
        let set = |settings| Request::PortSet(PortSet { name: "b".parse().unwrap(), settings });
        assert!(after(&[both[0].clone(), both[1].clone(), set(vlan(3))]).is_ok());
        assert_eq!(after(&[both[0].clone(), both[1].clone(), set(vlan(1))]).unwrap_err().code, Code::Exists);
        let address = |text: &str| {
            Request::PortAddress(PortAddress {
                name: "b".parse().unwrap(),
                addresses: vec![text.parse().unwrap()],
                routes: Vec::new(),
                source_guard: None,
            })
        };
        let apart = [both[0].clone(), port("b", "br0", 1, "10.1.0.3/24")];
        let to = |text| after(&[apart[0].clone(), apart[1].clone(), address(text)]);
        assert!(to("10.1.0.4/24").is_ok() && to("10.1.0.3/24").is_ok());
        assert_eq!(to("10.1.0.2/24").unwrap_err().code, Code::Exists);
    }
}
