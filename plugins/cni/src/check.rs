//! CHECK: interface, addresses, routes, port and lease against the result of ADD. Every difference is named.

use crate::answer::{Answer, Ip, Route};
use crate::conf::{Conf, Driver};
use crate::invocation::Invocation;
use crate::netns::SeenRoute;
use crate::refusal::{DIFFERENT, INVALID_CONFIG, Refusal};
use crate::{bandwidth, guard, ipam, netns, second, switch, workload};
use switch_api::{Mac, PortKind, PortState, PortStatus, Vlan};

/// Compares.
pub fn run(invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    let Some(result) = &conf.previous else {
        return Err(Refusal::new(INVALID_CONFIG, "prevResult is missing")
            .details("CHECK compares with what ADD answered; the runtime passes it"));
    };
    let netns = invocation.netns.as_deref().unwrap_or_default();
    let mut client = switch::connect(conf).map_err(switch::down)?;
    let holder = conf.holder(&invocation.container, &invocation.interface);
    let found = switch::find(&mut client, &holder)?;
    let mtu = conf.mtu.map(u32::from).or(found.as_ref().ok().map(followed));
    let mut differences = interface(netns, &invocation.interface, mtu, result);
    let ours: Vec<Ip> = of_interface(result, &invocation.interface).cloned().collect();
    match found {
        Ok(status) => {
            differences.extend(port(&status, invocation, conf, &ours));
            differences.extend(second::missing(netns, &invocation.interface, &status.port.kind));
        }
        Err(_) => differences.push(format!("the switch has no port for {holder}")),
    }
    differences.extend(ipam::check(&mut client, invocation, conf, &ours)?);
    report(differences)
}

/// For another plugin, which checks the interface itself.
pub fn addresses_only(invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    let mut client = switch::connect(conf).map_err(switch::down)?;
    // The result is the other plugin's, which may have added addresses of its own: only ours are looked at.
    let lease = ipam::check(&mut client, invocation, conf, &[])?;
    report(lease.into_iter().filter(|text| text.contains("has no lease")).collect())
}

fn report(differences: Vec<String>) -> Result<(), Refusal> {
    match differences.is_empty() {
        true => Ok(()),
        false => Err(Refusal::new(DIFFERENT, differences.join("; "))
            .details("delete the container and make it again, or put back what was changed")),
    }
}

/// Addresses of our interface.
fn of_interface<'a>(result: &'a Answer, name: &'a str) -> impl Iterator<Item = &'a Ip> {
    let is_ours = move |at: usize| {
        result
            .interfaces
            .get(at)
            .is_none_or(|it| it.name == name && it.sandbox.as_ref().is_some_and(|it| !it.is_empty()))
    };
    result.ips.iter().filter(move |ip| ip.interface.is_none_or(is_ours))
}

/// The MTU that a container's interface has by now: it follows the node's way out.
fn followed(status: &PortStatus) -> u32 {
    u32::from(status.port.settings.mtu.unwrap_or(1500))
}

fn interface(netns: &str, name: &str, mtu: Option<u32>, result: &Answer) -> Vec<String> {
    let seen = match netns::look(netns, name) {
        Ok(Some(seen)) => seen,
        Ok(None) => return vec![format!("the namespace has no interface {name}")],
        Err(error) => return vec![format!("the namespace {netns} cannot be looked into: {error}")],
    };
    let mut differences = Vec::new();
    if !seen.is_up {
        differences.push(format!("interface {name} is down"));
    }
    let said = result.interfaces.iter().find(|it| it.name == name && it.sandbox.is_some());
    let mac = said.and_then(|it| it.mac.as_ref()?.parse::<Mac>().ok());
    if let Some(mac) = mac.filter(|mac| seen.mac != Some(*mac)) {
        let is = seen.mac.map_or_else(String::new, |mac| mac.to_string());
        differences.push(format!("interface {name} has the MAC address {is}, not {mac}"));
    }
    if let Some(mtu) = mtu.filter(|mtu| *mtu != seen.mtu) {
        differences.push(format!("interface {name} has an MTU of {}, not {mtu}", seen.mtu));
    }
    for ip in of_interface(result, name).filter(|ip| !seen.addresses.contains(&ip.address)) {
        differences.push(format!("interface {name} does not have the address {}", ip.address));
    }
    for route in &result.routes {
        if !seen.routes.iter().any(|seen| is_route(seen, route)) {
            differences.push(format!("interface {name} does not have the route to {}", shown(route)));
        }
    }
    differences
}

/// Whether what is said of a route is so.
fn is_route(seen: &SeenRoute, route: &Route) -> bool {
    let is = |said: Option<u32>, seen: Option<u32>| said.is_none_or(|said| Some(said) == seen);
    seen.to == route.dst.trunc()
        && route.gw.is_none_or(|gw| seen.via == Some(gw))
        && is(route.priority, Some(seen.metric))
        && is(route.table, Some(seen.table))
        && is(route.mtu, seen.mtu)
        && is(route.advmss, seen.advmss)
}

fn shown(route: &Route) -> String {
    let said = |word: &str, value: Option<String>| value.map(|value| format!(" {word} {value}"));
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    let parts = [
        said("via", route.gw.map(|gw| gw.to_string())),
        said("metric", number(route.priority)),
        said("table", number(route.table)),
        said("mtu", number(route.mtu)),
        said("advmss", number(route.advmss)),
    ];
    parts.into_iter().flatten().fold(route.dst.to_string(), |text, part| text + &part)
}

fn port(status: &PortStatus, invocation: &Invocation, conf: &Conf, ips: &[Ip]) -> Vec<String> {
    let netns = invocation.netns.as_deref().unwrap_or_default();
    let name = &status.port.name;
    let mut differences = Vec::new();
    if status.state != PortState::Up {
        let why = status.reason.clone().unwrap_or_default();
        differences.push(format!("port {name} is not up: {why}"));
    }
    if status.port.bridge != conf.bridge {
        differences.push(format!("port {name} is on bridge {}, not {}", status.port.bridge, conf.bridge));
    }
    let settings = &status.port.settings;
    let vlan = conf.vlan.map_or_else(Vlan::default, |vid| Vlan::Access { vid });
    if settings.vlan != vlan {
        differences.push(format!("port {name} is in {}, not in {}", vlan_of(&settings.vlan), vlan_of(&vlan)));
    }
    if settings.isolated != conf.isolated {
        let is = if settings.isolated { "isolated, and should not be" } else { "not isolated" };
        differences.push(format!("port {name} is {is}"));
    }
    let outside = conf.outside.differences(settings);
    differences.extend(outside.into_iter().map(|text| format!("port {name}: {text}")));
    let limits = &status.port.settings.limits;
    if *limits != conf.limits {
        let (is, due) = (bandwidth::shown(limits), bandwidth::shown(&conf.limits));
        differences.push(format!("port {name} has other rate limits: {is}; due: {due}"));
    }
    let (driver, serves, mac) = match &status.port.kind {
        PortKind::Tap { netns, mac, .. } => (Some(Driver::Tap), netns.as_deref().unwrap_or_default(), *mac),
        PortKind::Xdp { pod: Some(end), .. } => (Some(Driver::Xdp), end.netns.as_str(), end.mac),
        _ => (None, netns, None),
    };
    if driver != Some(conf.driver) {
        let due = if conf.driver == Driver::Tap { "tap" } else { "xdp" };
        differences.push(format!("port {name} is of another driver than {due}"));
    }
    if serves != netns {
        differences.push(format!("port {name} serves the namespace {serves}"));
    }
    if let Some(mac) = mac {
        let (is, due) = (
            status.port.settings.source_guard.as_ref(),
            guard::of(conf, mac, ips.iter().map(|ip| ip.address.addr())),
        );
        if is != due.as_ref() {
            differences.push(format!(
                "port {name} has another source guard: {}; due: {}",
                guard::shown(is),
                guard::shown(due.as_ref())
            ));
        }
    }
    let wanted = workload::of(invocation, conf);
    if let Some(due) = workload::missing(status.port.workload.as_ref(), wanted.as_ref()) {
        let labels: Vec<_> = due.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let due = format!("namespace {}, labels {}", due.namespace, labels.join(","));
        differences.push(format!("port {name} is not to policies what it should be: {due}"));
    }
    differences
}

fn vlan_of(vlan: &Vlan) -> String {
    match vlan {
        Vlan::Access { vid } => format!("VLAN {vid}"),
        Vlan::Trunk { .. } => "several VLANs".into(),
    }
}
