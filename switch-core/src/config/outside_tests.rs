//! What is derived for the node's kernel, and what is refused.

use super::outside::Forward;
use super::{Checked, Model};
use switch_api::{
    Bridge, BridgeAddress, Mac, Name, Owner, PodEnd, Port, PortKind, PortSettings, Prefix, Protocol, Request,
    Vid,
};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn host(addresses: &[&str], settings: PortSettings) -> Port {
    let kind = PortKind::Host {
        device: "switch0".into(),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        routes: Vec::new(),
    };
    Port { settings, ..Port::new(name("host"), name("br"), kind) }
}

fn tap(n: u8, settings: PortSettings) -> Port {
    let mut kind = PortKind::tap(&format!("/run/netns/{n}"));
    if let PortKind::Tap { addresses, .. } = &mut kind {
        *addresses = [format!("10.1.0.{n}/24"), format!("fe80::{n}/64"), format!("fd01::{n}/64")]
            .map(|text| text.parse().unwrap())
            .into();
    }
    Port { settings, ..Port::new(name(&format!("pod{n}")), name("br"), kind) }
}

/// The same pod on an xdp port.
fn cable(n: u8, settings: PortSettings) -> Port {
    let port = tap(n, settings);
    let PortKind::Tap { device, netns: Some(netns), addresses, .. } = port.kind.clone() else {
        unreachable!()
    };
    let end = PodEnd { device, netns, mac: None, addresses, routes: Vec::new() };
    Port { kind: PortKind::xdp_pod(&format!("pod{n}"), end), ..port }
}

fn publishing(texts: &[&str]) -> PortSettings {
    let publish = texts.iter().map(|text| text.parse().unwrap()).collect();
    PortSettings { publish, ..PortSettings::default() }
}

fn masquerading() -> PortSettings {
    PortSettings { masquerade: true, ..PortSettings::default() }
}

fn model(ports: impl IntoIterator<Item = Port>) -> Model {
    let mut model = Model::default().apply(&Request::BridgeAdd(Bridge::new(name("br")))).unwrap();
    let gateway = BridgeAddress {
        bridge: name("br"),
        address: "10.1.0.1/24".parse().unwrap(),
        vid: Vid::DEFAULT,
        owner: Owner::Operator,
    };
    model = model.apply(&Request::AddressAdd(gateway)).unwrap();
    for port in ports {
        model = model.apply(&Request::PortAdd(Box::new(port))).unwrap();
    }
    model
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_host_port_has_networks_and_a_pod_its_addresses() {
    let pod = || tap(2, masquerading());
    assert!(model([pod()]).outside().is_empty(), "without a host port nothing comes to the kernel");
    let quiet = model([pod(), host(&["10.9.0.1/16"], PortSettings::default())]).outside();
    assert_eq!(Vec::from_iter(quiet.sources), prefixes(&["10.1.0.2/32", "fd01::2/128"]));
    let no_masquerade = prefixes(&["10.128.0.0/9"]);
    let whole = model([
        tap(2, PortSettings::default()),
        host(&["10.9.0.1/16"], PortSettings { no_masquerade, ..masquerading() }),
    ]);
    let whole = whole.outside();
    assert_eq!(Vec::from_iter(whole.sources.clone()), prefixes(&["10.1.0.0/24", "10.9.0.0/16"]));
    assert_eq!(Vec::from_iter(whole.direct.clone()), prefixes(&["10.128.0.0/9", "224.0.0.0/4", "ff00::/8"]));
    assert!(whole.has_version(true) && !whole.has_version(false));
    let masquerade_from = prefixes(&["10.1.0.128/25"]);
    let named = model([host(&[], PortSettings { masquerade_from, ..masquerading() })]).outside();
    assert_eq!(Vec::from_iter(named.sources), prefixes(&["10.1.0.128/25"]));
}

#[test]
fn a_published_port_leads_to_one_address_of_each_version() {
    let ports =
        [host(&[], PortSettings::default()), tap(2, publishing(&["8080:80", "udp/192.0.2.1:53:5353"]))];
    let published = Vec::from_iter(model(ports).outside().published);
    let forward = |protocol, at: Option<&str>, port, to: &str, to_port| Forward {
        protocol,
        at: at.map(|text| text.parse().unwrap()),
        port,
        to: to.parse().unwrap(),
        to_port,
    };
    let expected = [
        forward(Protocol::Tcp, None, 8080, "10.1.0.2", 80),
        forward(Protocol::Tcp, None, 8080, "fd01::2", 80),
        forward(Protocol::Udp, Some("192.0.2.1"), 53, "10.1.0.2", 5353),
    ];
    assert_eq!(published, expected);
}

#[test]
fn a_pod_on_an_xdp_port_reaches_the_outside_as_one_on_a_tap_does() {
    let settings = PortSettings { masquerade: true, ..publishing(&["8080:80", "udp/53:53"]) };
    let with = |pod| model([host(&[], PortSettings::default()), pod]).outside();
    assert_eq!(with(cable(2, settings.clone())), with(tap(2, settings.clone())));
    assert!(!with(cable(2, settings)).published.is_empty());
    // Somebody else's device has no address that is known.
    let bare = Port::new(name("x"), name("br"), PortKind::xdp("eth1"));
    let error = Checked::new(model([Port { settings: masquerading(), ..bare }]), 1).unwrap_err();
    assert!(error.message.contains("name what to masquerade"), "{error}");
}

#[test]
fn a_pods_end_is_held_to_what_a_tap_is_held_to() {
    let refused = |ports: Vec<Port>, words: &str| {
        let error = Checked::new(model(ports), 1).unwrap_err();
        assert!(error.message.contains(words), "{words}: {error}");
    };
    let end = |change: fn(&mut PodEnd)| {
        let mut port = cable(2, PortSettings::default());
        if let PortKind::Xdp { pod: Some(end), .. } = &mut port.kind {
            change(end);
        }
        vec![port]
    };
    assert!(Checked::new(model(end(|_| ())), 1).is_ok());
    refused(end(|end| end.netns = "run/netns/2".into()), "give an absolute path");
    refused(end(|end| end.device = "a name that is long".into()), "is no device name");
    refused(end(|end| end.mac = Some(Mac([1, 0, 0, 0, 0, 0]))), "is no station's address");
    refused(end(|end| end.addresses.push("224.0.0.1/4".parse().unwrap())), "is no station's address");
    // A name belongs to one port, in the pod and on the node.
    refused(
        [tap(2, PortSettings::default())].into_iter().chain(end(|_| ()).into_iter().map(renamed)).collect(),
        "cannot be two ports",
    );
    let theirs = Port::new(name("x"), name("br"), PortKind::xdp("pod2"));
    refused([theirs].into_iter().chain(end(|_| ())).collect(), "device pod2 cannot be two ports");
    let follows = PortSettings { mtu_follows: true, ..PortSettings::default() };
    refused(vec![host(&[], follows.clone())], "only a device that the switch makes in a pod");
    assert!(Checked::new(model([cable(2, follows.clone()), tap(3, follows)]), 1).is_ok());
}

/// Another, on the same device with addresses of its own: those cannot be two ports' either.
fn renamed(mut port: Port) -> Port {
    port.kind.addressed_mut().into_iter().for_each(|(addresses, _)| addresses.clear());
    Port { name: name("another"), ..port }
}

#[test]
fn what_contradicts_itself_is_refused_by_name() {
    let refused = |ports: Vec<Port>, words: &str| {
        let error = Checked::new(model(ports), 1).unwrap_err();
        assert!(error.message.contains(words), "{words}: {error}");
    };
    refused(
        vec![tap(2, publishing(&["8080:80"])), tap(3, publishing(&["192.0.2.1:8080:81"]))],
        "port pod3 publishes tcp/192.0.2.1:8080:81, which leads to port pod2 already",
    );
    refused(vec![tap(2, publishing(&["80:1", "80:2"]))], "which leads to port pod2 already");
    refused(vec![tap(2, publishing(&["0:1"]))], "0 is no port");
    refused(vec![host(&[], publishing(&["80:1"]))], "only a pod whose device the switch makes");
    let mut bare = tap(2, publishing(&["[::]:80:1"]));
    if let PortKind::Tap { addresses, .. } = &mut bare.kind {
        addresses.truncate(2);
    }
    refused(vec![bare], "no address of that version");
    refused(
        vec![tap(2, PortSettings { return_flows: true, ..PortSettings::default() })],
        "only a host port leads",
    );
    let memory = Port::new(name("m"), name("br"), PortKind::Memory { source: None });
    refused(vec![Port { settings: masquerading(), ..memory }], "name what to masquerade");
    let masquerade_from = prefixes(&["10.1.0.1/24"]);
    refused(
        vec![host(&[], PortSettings { masquerade_from: masquerade_from.clone(), ..masquerading() })],
        "it is 10.1.0.0/24",
    );
    refused(
        vec![host(&[], PortSettings { masquerade_from, ..PortSettings::default() })],
        "masquerade is off",
    );
    assert!(
        Checked::new(model([tap(2, publishing(&["80:1"])), tap(3, publishing(&["udp/80:1"]))]), 1).is_ok()
    );
}
