//! Results: one form within, and each version's form on the wire (specification, "Success").

use crate::refusal::{DECODING_FAILURE, Refusal};
use crate::version::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use switch_api::IpNet;

/// What an ADD brought about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Interfaces, in the container and outside.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes in the container.
    pub routes: Vec<Route>,
    /// Names: passed on as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Value>,
    /// What other versions and plugins have beside.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU; since 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The namespace it is in; absent or empty for the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// What other versions and plugins have beside.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ip {
    /// The address, with the length of its subnet.
    pub address: IpNet,
    /// The subnet's router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Which of the interfaces has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// By whom; absent: the gateway of the address of its family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Longest packet that goes this way; this and the next since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Largest TCP segment that peers are told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Of several routes to one network the lowest counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// How far it leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
    /// What other versions and plugins have beside.
    #[serde(default, flatten)]
    pub others: Map<String, Value>,
}

impl Route {
    /// To somewhere, all else left to the kernel.
    pub fn new(dst: IpNet, gw: Option<IpAddr>) -> Self {
        let others = Map::default();
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None, others }
    }
}

impl Answer {
    /// What another plugin printed, or the runtime kept.
    pub fn read(value: Value, what: &str) -> Result<Self, Refusal> {
        let mut answer: Self = serde_json::from_value(value).map_err(|error| {
            Refusal::new(DECODING_FAILURE, format!("{what} is no CNI result: {error}"))
                .details("results of CNI 0.3.1 and later are understood")
        })?;
        answer.others.remove("cniVersion");
        let count = answer.interfaces.len();
        if let Some(ip) = answer.ips.iter().find(|ip| ip.interface.is_some_and(|at| at >= count && count > 0))
        {
            let text = format!("{what} gives {} to no interface", ip.address);
            return Err(Refusal::new(DECODING_FAILURE, text)
                .details("\"interface\" is the number of one of the result's interfaces, from 0 on"));
        }
        Ok(answer)
    }

    /// As a version writes it.
    pub fn to_json(&self, version: Version) -> Value {
        let mut value = json!(self);
        value["cniVersion"] = version.as_str().into();
        if version < Version::V1_1_0 {
            for interface in value["interfaces"].as_array_mut().into_iter().flatten() {
                interface.as_object_mut().map(|interface| interface.remove("mtu"));
            }
        }
        if version < Version::V1_0_0 {
            for (ip, json) in self.ips.iter().zip(value["ips"].as_array_mut().into_iter().flatten()) {
                json["version"] = if ip.address.addr().is_ipv6() { "6" } else { "4" }.into();
            }
        }
        value
    }

    /// What is to be printed if others were there before us: theirs, and then ours.
    pub fn after(self, previous: Option<&Answer>) -> Self {
        let Some(mut all) = previous.cloned() else { return self };
        let shift = all.interfaces.len();
        all.interfaces.extend(self.interfaces);
        all.ips
            .extend(self.ips.into_iter().map(|ip| Ip { interface: ip.interface.map(|at| at + shift), ..ip }));
        all.routes.extend(self.routes);
        all.dns = self.dns.or(all.dns);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Answer {
        Answer {
            interfaces: vec![Interface { name: "eth0".into(), mtu: Some(1500), ..Interface::default() }],
            ips: vec![Ip { address: "fd00::2/64".parse().unwrap(), gateway: None, interface: Some(0) }],
            ..Answer::default()
        }
    }

    #[test]
    fn each_version_has_its_form_and_is_read_again() {
        for version in Version::ALL {
            let written = sample().to_json(version);
            assert_eq!(written["cniVersion"], version.as_str());
            assert_eq!(written["ips"][0]["version"] == "6", version < Version::V1_0_0, "{written}");
            assert_eq!(written["interfaces"][0]["mtu"] == 1500, version == Version::V1_1_0, "{written}");
            let read = Answer::read(written, "it").unwrap();
            assert_eq!(read.ips, sample().ips);
        }
        assert!(Answer::read(json!({"ips": [{"address": "x"}]}), "it").is_err());
        assert!(Answer::read(json!([]), "it").is_err());
    }

    #[test]
    fn what_others_made_comes_first_and_stays_as_it_was() {
        let first =
            json!({"cniVersion": "1.0.0", "interfaces": [{"name": "a", "x": 1}], "ips": [], "y": [2]});
        let all = sample().after(Some(&Answer::read(first, "it").unwrap())).to_json(Version::V1_0_0);
        assert_eq!((all["interfaces"][0]["x"].as_u64(), all["y"][0].as_u64()), (Some(1), Some(2)));
        assert_eq!(
            (all["interfaces"][1]["name"].as_str(), all["ips"][0]["interface"].as_u64()),
            (Some("eth0"), Some(1))
        );
    }
}
