//! The daemon, as a plugin needs it: an attachment's port, found by its labels, and what it should be.

use crate::conf::Conf;
use crate::invocation::Invocation;
use crate::refusal::Refusal;
use std::collections::BTreeMap;
use switch_api::{
    ApiError, Bridge, ByName, Client, Code, Done, Holder, Name, Owner, Port, PortAddress, PortLabel,
    PortStatus, Request, Workload,
};

/// Labels that say whose a port is.
const LABELS: [&str; 3] = ["cni/network", "cni/container", "cni/interface"];
/// The note of a container's further names (capability `aliases`): the switch keeps it for whoever answers to them.
const ALIASES_LABEL: &str = "cni/aliases";
/// Names tried for one attachment. Two attachments share one with a probability of 2^-48; the labels tell.
const NAMES_MAX: u64 = 4;

/// The attachment's labels.
pub fn labels(holder: &Holder) -> BTreeMap<String, String> {
    let values = [&holder.network, &holder.container, &holder.interface];
    LABELS.into_iter().map(str::to_owned).zip(values.into_iter().cloned()).collect()
}

/// Whose a port is, if one of ours made it.
pub fn holder_of(port: &Port) -> Option<Holder> {
    let label = |name: &str| port.labels.get(name).cloned();
    let (network, container, interface) = (label(LABELS[0])?, label(LABELS[1])?, label(LABELS[2])?);
    (port.owner == Owner::Cni).then_some(Holder { network, container, interface })
}

/// A name for the attachment's port: 15 characters, the same for ever.
pub fn name(holder: &Holder, attempt: u64) -> Name {
    let text = format!("{}\0{}\0{}\0{attempt}", holder.network, holder.container, holder.interface);
    let name = format!("cni{:012x}", fnv(text.as_bytes()) & 0xffff_ffff_ffff);
    name.parse().unwrap_or_else(|_| unreachable!("hex digits are a name"))
}

/// Whether the daemon made an interface for the attachment: it writes `switchd PORT MAC` on it.
pub fn is_interface_of(alias: &str, holder: &Holder) -> bool {
    let mut words = alias.split(' ');
    let port = words.next().filter(|word| *word == "switchd").and_then(|_| words.next());
    port.is_some_and(|port| (0..NAMES_MAX).any(|attempt| name(holder, attempt).as_str() == port))
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo). Written on disk as part of names, so it may not change: the standard
/// library's hash may.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The attachment's port, and otherwise a name that nobody has.
pub fn find(client: &mut Client, holder: &Holder) -> Result<Result<PortStatus, Name>, ApiError> {
    for attempt in 0..NAMES_MAX {
        let name = name(holder, attempt);
        match client.call::<PortStatus>(&Request::PortGet(ByName { name: name.clone() })) {
            Ok(port) if holder_of(&port.port).as_ref() == Some(holder) => return Ok(Ok(port)),
            Ok(_) => {}
            Err(error) if error.code == Code::NotFound => return Ok(Err(name)),
            Err(error) => return Err(error),
        }
    }
    Err(ApiError::new(Code::Exists, format!("every name for the port of {holder} is taken"))
        .hint("`switch-ctl port list` shows by whom"))
}

/// Removes the attachment's port; whether there was one.
pub fn remove(client: &mut Client, holder: &Holder) -> Result<bool, ApiError> {
    let Ok(port) = find(client, holder)? else { return Ok(false) };
    match client.call::<Done>(&Request::PortDelete(ByName { name: port.port.name })) {
        Err(error) if error.code != Code::NotFound => Err(error),
        _ => Ok(true),
    }
}

/// Names in one note, as many as it holds: none is cut.
fn noted(aliases: &[String]) -> Option<String> {
    let join = |all: String, alias: &String| match all.is_empty() {
        true => alias.clone(),
        false => format!("{all},{alias}"),
    };
    let fits = |all: &String| crate::invocation::short(all) == *all;
    let all = aliases.iter().fold(String::new(), |all, alias| {
        let more = join(all.clone(), alias);
        if fits(&more) { more } else { all }
    });
    (!all.is_empty()).then_some(all)
}

/// Says what a port is to policies.
pub fn label(client: &mut Client, port: &Name, workload: Workload) -> Result<(), ApiError> {
    let label = PortLabel { name: port.clone(), workload: Some(workload) };
    client.call::<Done>(&Request::PortLabel(label)).map(drop)
}

/// Gives a port's device the addresses, routes and source guard that `port` says.
pub fn address(client: &mut Client, port: &Port) -> Result<(), ApiError> {
    let mut kind = port.kind.clone();
    let (addresses, routes) = kind
        .addressed_mut()
        .map_or_else(Default::default, |(addresses, routes)| (addresses.clone(), routes.clone()));
    let name = port.name.clone();
    let set = PortAddress { name, addresses, routes, source_guard: port.settings.source_guard.clone() };
    client.call::<Done>(&Request::PortAddress(set)).map(drop)
}

/// Adds a port; its bridge too, if it is not there.
pub fn add(client: &mut Client, port: &Port) -> Result<(), ApiError> {
    let request = Request::PortAdd(Box::new(port.clone()));
    match client.call::<Done>(&request) {
        Err(error) if error.data.field.as_deref() == Some("bridge") => {}
        outcome => return outcome.map(drop),
    }
    let bridge = serde_json::json!({ "name": port.bridge, "owner": Owner::Cni });
    let bridge: Bridge = serde_json::from_value(bridge)
        .map_err(|error| ApiError::new(Code::Internal, format!("the bridge: {error}")))?;
    match client.call::<Done>(&Request::BridgeAdd(bridge)) {
        // Somebody else's ADD made it meanwhile.
        Err(error) if error.code != Code::Exists => Err(error),
        _ => client.call::<Done>(&request).map(drop),
    }
}

/// A connection, or why there is none.
pub fn connect(conf: &Conf) -> Result<Client, ApiError> {
    Client::connect_as(&conf.socket, conf.timeout, Owner::Cni)
}

/// Whether there is no daemon to talk to, as against one that refuses.
pub fn is_down(error: &ApiError) -> bool {
    matches!(error.code, Code::System | Code::Timeout)
}

/// The same, as the specification has it: it may be there again in a moment.
pub fn down(error: ApiError) -> Refusal {
    let code =
        if is_down(&error) { crate::refusal::TRY_AGAIN_LATER } else { Refusal::from(error.clone()).code };
    Refusal::new(code, error.message).details(error.data.hint.unwrap_or_default())
}

/// The labels of a new port: whose it is, what the runtime knows of its pod, and by which names others may look for it.
pub fn all_labels(holder: &Holder, invocation: &Invocation, conf: &Conf) -> BTreeMap<String, String> {
    let mut all = invocation.labels.clone();
    if let Some(aliases) = noted(&conf.aliases) {
        all.insert(ALIASES_LABEL.to_owned(), aliases);
    }
    all.extend(labels(holder));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holder(network: &str, container: &str, interface: &str) -> Holder {
        Holder { network: network.into(), container: container.into(), interface: interface.into() }
    }

    #[test]
    fn names_stay_the_same_for_ever() {
        // They are on disk: a change would orphan every port of a running node.
        assert_eq!(name(&holder("net", "c1", "eth0"), 0).as_str(), "cni6c803abcd329");
        assert_ne!(name(&holder("a", "bc", "d"), 0), name(&holder("ab", "c", "d"), 0));
    }

    #[test]
    fn an_interface_is_known_by_what_is_written_on_it() {
        let holder = holder("net", "c1", "eth0");
        let mac = "0a:58:0a:01:00:05";
        assert!(is_interface_of(&format!("switchd {} {mac}", name(&holder, 1)), &holder));
        for alias in
            ["", "switchd", "switchd x", &format!("other {}", name(&holder, 0)), "switchd cni000000000000 x"]
        {
            assert!(!is_interface_of(alias, &holder), "{alias}");
        }
    }

    #[test]
    fn names_are_noted_as_long_as_there_is_room_and_none_is_cut() {
        let names = |names: &[&str]| noted(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&[]), None);
        assert_eq!(names(&["db", "a\nb", "store"]).unwrap(), "db,store");
        let long = "x".repeat(200);
        assert_eq!(names(&[&long, &long, "db"]).unwrap(), format!("{long},db"));
    }

    proptest! {
        #[test]
        fn every_attachment_has_a_name(network: String, container: String, interface: String, attempt: u64) {
            prop_assert_eq!(name(&holder(&network, &container, &interface), attempt).as_str().len(), 15);
        }
    }
}
