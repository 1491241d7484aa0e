//! The network's configuration: what runtimes get, what the node needs for it, and whether the plugin can do it.

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use switch_api::chain::needs_veth;
use switch_api::{ApiError, Cidr, Code, Name};

/// As deploy/cni has it.
const DEFAULT: &str = include_str!("../../../deploy/cni/10-switch.conflist");
/// The version in which the plugin can be asked for its status.
const STATUS_VERSION: &str = "1.1.0";

/// A list of plugins of which ours is the first.
#[derive(Debug)]
pub struct Conflist {
    /// As it is written.
    pub text: String,
    /// The network's name.
    pub network: String,
    /// The bridge that containers are on.
    pub bridge: Name,
    /// The containers' gateways, which are the node's own addresses.
    pub gateways: Vec<Cidr>,
    plugin: Value,
}

fn wrong(text: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidParams, text)
        .field("conflist")
        .hint("deploy/cni has examples, docs/CNI.md every field")
}

impl Conflist {
    /// From a file, or the one that comes with the switch.
    pub fn read(path: Option<&Path>) -> Result<Self, ApiError> {
        let text = match path {
            None => DEFAULT.to_owned(),
            Some(path) => {
                std::fs::read_to_string(path).map_err(|error| crate::files::refused(path, &error))?
            }
        };
        Self::parse(text)
    }

    fn parse(text: String) -> Result<Self, ApiError> {
        let conf: Value =
            serde_json::from_str(&text).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
        let network = conf["name"].as_str().ok_or_else(|| wrong("the network has no name"))?.to_owned();
        let plugin = &conf["plugins"][0];
        if plugin["type"] != super::PLUGIN {
            return Err(wrong(format!("the first of its plugins is not {}", super::PLUGIN)));
        }
        if let Some((kind, instead)) = needs_veth(&conf) {
            let text =
                format!("the plugin {kind} does not work behind {}: it needs a veth pair", super::PLUGIN);
            return Err(wrong(text).hint(instead));
        }
        let bridge = plugin["bridge"].as_str().unwrap_or("cni0");
        let bridge = bridge.parse().map_err(|error| wrong(format!("bridge: {error}")))?;
        let ranges = plugin["ipam"]["ranges"].as_array().into_iter().flatten();
        let gateways = ranges.filter_map(gateway).collect::<Result<_, _>>()?;
        let mut plugin = plugin.clone();
        plugin["name"] = conf["name"].clone();
        plugin["cniVersion"] = STATUS_VERSION.into();
        Ok(Self { network, bridge, gateways, plugin, text })
    }

    /// Asks the installed plugin whether ADD would work.
    pub fn ask_status(&self, plugin: &Path) -> Result<(), ApiError> {
        let failed = |error: std::io::Error| {
            ApiError::new(Code::System, format!("{}: {error}", plugin.display()))
                .hint("the network was not put in place: no runtime uses it")
        };
        let mut child = Command::new(plugin)
            .env("CNI_COMMAND", "STATUS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.plugin.to_string().as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let text = said["msg"].as_str().unwrap_or("it ended without a word");
        let text = format!("the plugin says that no container could be attached: {text}");
        let hint = said["details"].as_str().unwrap_or_default();
        Err(ApiError::new(Code::System, text).hint(format!("{hint}; the network was not put in place")))
    }
}

/// A range's gateway with the length of its subnet.
fn gateway(range: &Value) -> Option<Result<Cidr, ApiError>> {
    let (gateway, subnet) = (range["gateway"].as_str()?, range["subnet"].as_str()?);
    let length = subnet.rsplit('/').next().unwrap_or_default();
    let cidr = format!("{gateway}/{length}").parse();
    Some(cidr.map_err(|error| wrong(format!("the gateway {gateway} of {subnet}: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use switch_api::chain::NEEDS_VETH;

    #[test]
    fn what_comes_with_the_switch_is_right_and_what_is_wrong_is_said() {
        let conflist = Conflist::read(None).unwrap();
        let gateways: Vec<_> = conflist.gateways.iter().map(ToString::to_string).collect();
        assert_eq!((conflist.bridge.as_str(), gateways.join(" ")), ("br0", "10.88.0.1/16 fd88::1/64".into()));
        for (text, part) in [
            ("{", "not JSON"),
            (r#"{"plugins":[]}"#, "no name"),
            (r#"{"name":"n","plugins":[{"type":"bridge"}]}"#, "not switch-cni"),
            (r#"{"name":"n","plugins":[{"type":"switch-cni","bridge":"a b"}]}"#, "bridge"),
            (r#"{"name":"n","plugins":[{"type":"switch-cni"},{"type":"firewall"}]}"#, "firewall"),
            (
                r#"{"name":"n","plugins":[{"type":"switch-cni","ipam":{"ranges":[{"subnet":"10.1.0.0/x","gateway":"10.1.0.1"}]}}]}"#,
                "gateway",
            ),
        ] {
            let error = Conflist::parse(text.into()).unwrap_err();
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
    }

    #[test]
    fn chains_that_need_a_veth_are_refused_with_what_to_use_instead() {
        for (kind, instead) in NEEDS_VETH {
            let list = format!(r#"{{"name":"n","plugins":[{{"type":"switch-cni"}},{{"type":"{kind}"}}]}}"#);
            let error = Conflist::parse(list).unwrap_err();
            let hint = error.data.hint.unwrap_or_default();
            assert!(error.message.contains(kind) && hint.contains(instead), "{}; {hint}", error.message);
        }
        assert!(NEEDS_VETH.iter().any(|(kind, _)| *kind == "bandwidth"));
    }
}
