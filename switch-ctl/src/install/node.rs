//! The daemon's side: the node's own port among the containers, and nothing of it in the end.

use super::conflist::Conflist;
use super::manifest::Manifest;
use super::places::Root;
use std::path::Path;
use std::time::{Duration, Instant};
use switch_api::{
    ApiError, Bridge, ByName, Client, Code, Done, HOST_DEVICE_DEFAULT, Name, Owner, Port, PortKind,
    PortSettings, PortStatus, Request, Stop,
};

/// What the node's port is called.
const PORT: &str = "node";
/// How often a daemon that starts is looked for, and one that ends.
const LOOK: Duration = Duration::from_millis(50);
/// Ports named in a refusal.
const NAMED: usize = 5;

/// The daemon, once it serves.
pub fn wait(socket: &Path, timeout: Duration) -> Result<Client, ApiError> {
    let start = Instant::now();
    loop {
        match Client::connect_as(socket, timeout, Owner::Cni) {
            Ok(client) => return Ok(client),
            Err(error) if start.elapsed() >= timeout => {
                return Err(error.hint(
                    "no switchd serves: start it, and install again; runtimes do not use the network before that",
                ));
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// The daemon, if it serves.
pub fn connect(socket: &Path, timeout: Duration) -> Option<Client> {
    Client::connect_as(socket, timeout, Owner::Cni).ok()
}

fn ports(client: &mut Client) -> Result<Vec<PortStatus>, ApiError> {
    client.call(&Request::PortList(Default::default()))
}

/// Declares the bridge, and the node's port on it with the containers' gateways, where there is none. Both are the plugin's
/// (`owner`), so that an operator's files leave them alone.
pub fn prepare(
    client: &mut Client,
    conflist: &Conflist,
    root: &Root,
    manifest: &mut Manifest,
    settings: PortSettings,
) -> Result<(), ApiError> {
    let bridge = Bridge { owner: Owner::Cni, ..Bridge::new(conflist.bridge.clone()) };
    match client.call::<Done>(&Request::BridgeAdd(bridge)) {
        Err(error) if error.code != Code::Exists => return Err(error),
        _ => {}
    }
    let is_node = |status: &PortStatus| matches!(status.port.kind, PortKind::Host { .. });
    let present = ports(client)?;
    if conflist.gateways.is_empty()
        || present.iter().any(|status| is_node(status) && status.port.bridge == conflist.bridge)
    {
        return Ok(());
    }
    let name: Name =
        PORT.parse().map_err(|error| ApiError::new(Code::Internal, format!("{PORT}: {error}")))?;
    let kind = PortKind::Host {
        device: HOST_DEVICE_DEFAULT.into(),
        mac: None,
        addresses: conflist.gateways.clone(),
        routes: Vec::new(),
    };
    manifest.port = Some(PORT.into());
    manifest.save(root)?;
    let port = Port { owner: Owner::Cni, settings, ..Port::new(name, conflist.bridge.clone(), kind) };
    client.call::<Done>(&Request::PortAdd(Box::new(port))).map(drop)
}

/// Refuses while anything but our own port is declared.
pub fn refuse_in_use(client: &mut Client, manifest: &Manifest) -> Result<(), ApiError> {
    let ports = ports(client)?;
    let is_ours = |status: &&PortStatus| manifest.port.as_deref() == Some(status.port.name.as_str());
    let others: Vec<_> = ports.iter().filter(|status| !is_ours(status)).map(shown).collect();
    if others.is_empty() {
        return Ok(());
    }
    let named = others.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let text = format!(
        "{} ports would lose their network: {named}{}",
        others.len(),
        match others.len() > NAMED {
            true => ", …",
            false => "",
        }
    );
    Err(ApiError::new(Code::Busy, text)
        .hint("drain the node and delete the ports first, or say --force; nothing was changed"))
}

fn shown(status: &PortStatus) -> String {
    match status.port.labels.get("k8s/pod") {
        Some(pod) => format!("{} (pod {pod})", status.port.name),
        None => status.port.name.to_string(),
    }
}

/// Deletes every port, with its device, so that a daemon that starts once more makes none; then ends the daemon, with
/// everything that it put anywhere.
pub fn clear(client: &mut Client, socket: &Path, timeout: Duration) -> Result<(), ApiError> {
    for status in ports(client)? {
        // Others' too: what was refused while there were any was said to be meant.
        client.override_owner(Some(status.port.owner));
        match client.call::<Done>(&Request::PortDelete(ByName { name: status.port.name })) {
            Err(error) if error.code != Code::NotFound => return Err(error),
            _ => {}
        }
    }
    client.override_owner(None);
    let _: Done = client.call(&Request::Stop(Stop { detach: true }))?;
    let start = Instant::now();
    while connect(socket, timeout).is_some() {
        if start.elapsed() >= timeout {
            return Err(
                ApiError::new(Code::Timeout, "switchd does not end").hint("stop it, and uninstall again")
            );
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
