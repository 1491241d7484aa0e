//! How a container reaches the outside of the node and is reached: `ipMasq`, `noMasquerade`, the capability `portMappings`. The daemon
//! has the node's kernel do it.

use crate::conf::Conf;
use crate::fields::{Fields, Problems};
use crate::refusal::{Refusal, SWITCH_REFUSED};
use serde_json::{Map, Value};
use std::net::IpAddr;
use switch_api::{
    Client, Nothing, Port, PortSettings, Prefix, Protocol, Publish, Request, Status, VrfStatus,
};

/// Networks in `noMasquerade`, and ports of one container: what the daemon takes for a port.
const LIST_MAX: usize = 64;
const MAPPING: &[&str] = &["hostPort", "containerPort", "protocol", "hostIP"];

/// What the network's configuration and the runtime say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    masquerade: bool,
    no_masquerade: Vec<Prefix>,
    publish: Vec<Publish>,
}

impl Outside {
    /// The network's part.
    pub fn take(&mut self, fields: &mut Fields, problems: &mut Problems) {
        self.masquerade = fields.take("ipMasq", problems).unwrap_or(true);
        self.no_masquerade = fields.take("noMasquerade", problems).unwrap_or_default();
        if self.no_masquerade.len() > LIST_MAX {
            problems.add(format!("noMasquerade: {LIST_MAX} at most"));
        }
        if let Some(prefix) = self.no_masquerade.iter().find(|prefix| prefix.network() != **prefix) {
            problems
                .add(format!("noMasquerade: {prefix} names a host in a network: it is {}", prefix.network()));
        }
    }

    /// The runtime's, for one container. More is refused than the daemon would say, with the fields' own names.
    pub fn take_mappings(&mut self, fields: &mut Fields, problems: &mut Problems) {
        let path = fields.path("portMappings");
        let mappings: Vec<Map<String, Value>> = fields.take("portMappings", problems).unwrap_or_default();
        if mappings.len() > LIST_MAX {
            problems.add(format!("{path}: {LIST_MAX} at most"));
        }
        for mapping in mappings {
            let mut mapping = Fields::new(mapping).in_any_case(MAPPING);
            let before = self.publish.len();
            let protocol = mapping.parse::<Protocol>("protocol", problems).unwrap_or_default();
            let host = mapping.take::<String>("hostIP", problems).filter(|text| !text.is_empty());
            let address = host.map(|text| text.parse::<IpAddr>()).transpose();
            let address = address.unwrap_or_else(|_| {
                problems.add(format!("{path}: hostIP is no address"));
                None
            });
            let mut port = |field: &str| mapping.need::<u16>(field, problems).unwrap_or(0);
            let publish =
                Publish { protocol, address, host_port: port("hostPort"), port: port("containerPort") };
            if publish.host_port == 0 || publish.port == 0 {
                problems.add(format!("{path}: hostPort and containerPort are 1 to 65535"));
            }
            mapping.none_left(MAPPING, problems);
            if !self.publish[..before].contains(&publish) {
                self.publish.push(publish);
            }
        }
        // CHECK compares, and a runtime may change the order.
        self.publish.sort();
    }

    /// Of the settings of a container's port, those that are about this.
    pub fn settings(&self) -> PortSettings {
        PortSettings {
            masquerade: self.masquerade,
            no_masquerade: self.no_masquerade.clone(),
            publish: self.publish.clone(),
            ..PortSettings::default()
        }
    }

    /// Where a port differs from it.
    pub fn differences(&self, is: &PortSettings) -> Vec<String> {
        let shown = |list: &[Publish]| match list {
            [] => "nothing".into(),
            list => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        let mut differences = Vec::new();
        if is.publish != self.publish {
            differences.push(format!("it publishes {}, not {}", shown(&is.publish), shown(&self.publish)));
        }
        if (is.masquerade, &is.no_masquerade) != (self.masquerade, &self.no_masquerade) {
            differences.push("what is masqueraded is not what the network says".into());
        }
        differences
    }

    /// Refuses published ports that nobody would reach.
    pub fn confirm(&self, client: &mut Client) -> Result<(), Refusal> {
        if self.publish.is_empty() {
            return Ok(());
        }
        let status: Status = client.call(&Request::Status(Default::default()))?;
        let outside = status.outside.unwrap_or_default();
        if outside.published == 0 {
            // What comes by an uplink the switch leads itself, with the kernel beside it or without.
            let vrfs: Vec<VrfStatus> = client.call(&Request::VrfList(Nothing {}))?;
            if vrfs.iter().any(|vrf| !vrf.uplinks.is_empty()) {
                return Ok(());
            }
            let text = "the node has no way to the switch, so its ports lead nowhere";
            return Err(Refusal::new(SWITCH_REFUSED, text)
                .details("`switch-ctl port add host NAME --bridge BRIDGE --address ADDRESS` makes one"));
        }
        match outside.problem {
            Some(problem) => {
                Err(Refusal::new(SWITCH_REFUSED, format!("ports cannot be published: {problem}"))
                    .details("`switch-ctl status` says when it is well again"))
            }
            None => Ok(()),
        }
    }
}

/// The MTU of a container's interface: the network's, or what fits through the node's way out. The daemon has the interface follow that.
pub fn mtu(conf: &Conf, client: &mut Client, port: &Port) -> Result<Option<u16>, Refusal> {
    if conf.mtu.is_some() {
        return Ok(conf.mtu);
    }
    let status: Status = client.call(&Request::Status(Default::default()))?;
    Ok(status.pod_mtu.map(|mtu| port.mtu_that_follows(mtu, status.xdp_mtu_max)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Outside, String> {
        let (mut outside, mut problems) = (Outside::default(), Problems::default());
        let Value::Object(map) = value else { return Err("no object".into()) };
        let mut fields = Fields::new(map);
        outside.take(&mut fields, &mut problems);
        outside.take_mappings(&mut fields, &mut problems);
        problems.all().map_or(Ok(outside), Err)
    }

    #[test]
    fn mappings_are_published_ports() {
        let said = json!({"noMasquerade": ["10.0.0.0/8"], "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
            {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "192.0.2.1"},
            {"hostPort": 8080, "containerPort": 80},
            {"HostPort": 53, "ContainerPort": 5353, "Protocol": "udp", "HostIP": "192.0.2.1"},
        ]});
        let outside = read(said).unwrap();
        let published: Vec<_> = outside.publish.iter().map(ToString::to_string).collect();
        assert_eq!(
            published,
            ["tcp/8080:80", "udp/192.0.2.1:53:5353"],
            "two are said twice, one as containerd writes it"
        );
        assert!(outside.masquerade && outside.settings().no_masquerade.len() == 1);
        assert!(!read(json!({"ipMasq": false})).unwrap().masquerade);
        let other = PortSettings::default();
        assert_eq!(outside.differences(&other).len(), 2);
        assert!(outside.differences(&outside.settings()).is_empty());
    }

    #[test]
    fn what_is_no_mapping_is_refused_with_its_field() {
        for (mapping, words) in [
            (json!({"containerPort": 80}), "hostPort is missing"),
            (json!({"hostPort": 0, "containerPort": 80}), "1 to 65535"),
            (json!({"hostPort": 70000, "containerPort": 80}), "hostPort:"),
            (json!({"hostPort": 1, "containerPort": 80, "protocol": "icmp"}), "protocol:"),
            (json!({"hostPort": 1, "containerPort": 80, "hostIP": "here"}), "hostIP"),
            (json!({"hostPort": 1, "containerPort": 80, "host": 1}), "host is not known here"),
        ] {
            let error = read(json!({"portMappings": [mapping]})).unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
        assert!(read(json!({"noMasquerade": ["10.0.0.1/8"]})).unwrap_err().contains("10.0.0.0/8"));
    }
}
