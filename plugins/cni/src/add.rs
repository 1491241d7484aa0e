//! ADD: addresses, then a port whose device the daemon makes in the container's namespace. The daemon answers
//! when every worker has the port, so what is printed then works. On any failure what was done is undone, the
//! last step first.

use crate::answer::{Answer, Interface, Ip, Route};
use crate::conf::{Conf, Driver};
use crate::invocation::Invocation;
use crate::refusal::{INVALID_CONFIG, INVALID_ENVIRONMENT, Refusal, TRY_AGAIN_LATER, UNKNOWN_CONTAINER};
use crate::{chain, given, guard, ipam, netns, outside, pending, second, switch, workload};
use serde_json::Value;
use std::io::Read;
use std::net::IpAddr;
use switch_api::{
    ApiError, Cidr, Client, Code, DeviceRoute, Holder, IpNet, Mac, Name, Owner, PodEnd, Port, PortKind,
    PortSettings, PortState, PortStatus, Vlan,
};

/// Does it; what is to be printed.
pub fn run(invocation: &Invocation, conf: &Conf) -> Result<Value, Refusal> {
    conf.refuse_unsupported()?;
    chain::refuse(invocation, conf)?;
    let netns = invocation.netns.clone().unwrap_or_default();
    let seen = look(&netns, &invocation.interface)?;
    let mut client = switch::connect(conf).map_err(switch::down)?;
    let holder = conf.holder(&invocation.container, &invocation.interface);
    pending::make_good(&mut client, conf, Some(&holder))?;
    let _turn = given::turn(conf, &holder);
    let present = switch::find(&mut client, &holder)?;
    // One that a daemon made before it was killed is taken over.
    let is_foreign = seen.as_ref().is_some_and(|seen| !switch::is_interface_of(&seen.alias, &holder));
    if present.is_err() && is_foreign {
        let text = format!("the namespace {netns} has an interface {} already", invocation.interface);
        return Err(
            Refusal::new(INVALID_ENVIRONMENT, text).details("give this network another interface name")
        );
    }
    let is_first = !conf.ipam.needs_interface();
    if (present.is_ok() || given::is_noted(conf, &holder)) && is_first {
        // Most of them refuse who has an address already, be it one of an ADD that was killed, or of before a boot; ours answers the same.
        _ = ipam::release_delegated(invocation, conf);
    }
    let given = match is_first {
        true => ipam::acquire(&mut client, invocation, conf, present.is_err())?,
        false => Answer::default(),
    };
    let present = present.map(|port| (port, seen.is_some()));
    let attached = attach(&mut client, invocation, conf, present, &given).and_then(|port| match is_first {
        true => Ok((port, given)),
        false => address(&mut client, invocation, conf, port),
    });
    let led = attached.and_then(|(port, given)| {
        second::lead(&netns, &invocation.interface, &port.kind)?;
        Ok((port, given))
    });
    match led {
        Ok((port, given)) => Ok(answer(&port, given, conf, &netns).to_json(conf.version)),
        Err(error) => Err(undo(&mut client, invocation, conf, &holder, error)),
    }
}

/// The container's interface, if it has one of that name; refused if the namespace is no container's.
fn look(netns: &str, interface: &str) -> Result<Option<netns::Seen>, Refusal> {
    let far = |error: std::io::Error| {
        Refusal::new(UNKNOWN_CONTAINER, format!("the namespace {netns} cannot be looked into: {error}"))
            .details("is the container still there? Entering its namespace needs CAP_SYS_ADMIN")
    };
    // Its default route would take the node's place; and of `/proc/self` the daemon thinks of itself.
    if netns::is_own(netns).map_err(far)? {
        let text = format!("CNI_NETNS is {netns}: this is the namespace that the runtime itself is in");
        return Err(Refusal::new(INVALID_ENVIRONMENT, text)
            .details("a container on the node's own network needs none: do not attach it"));
    }
    netns::look(netns, interface).map_err(far)
}

/// Addresses for a port that has none yet: whoever gives them was asked by its interface.
fn address(
    client: &mut Client,
    invocation: &Invocation,
    conf: &Conf,
    port: Port,
) -> Result<(Port, Answer), Refusal> {
    let given = ipam::acquire(client, invocation, conf, false)?;
    let mut port = port;
    let mac = port.kind.mac_mut().and_then(|mac| *mac).map_or_else(|| mac_for(&given), Ok)?;
    port.kind = kind(invocation, conf, &port.name, mac, &given)?;
    lead_apart(invocation, &mut port.kind, &given, None)?;
    port.settings.source_guard = guard::of(conf, mac, given.ips.iter().map(|ip| ip.address.addr()));
    switch::address(client, &port)?;
    Ok((port, given))
}

/// The addresses only: another plugin makes the interface.
pub fn addresses_only(invocation: &Invocation, conf: &Conf) -> Result<Value, Refusal> {
    let mut client = switch::connect(conf).map_err(switch::down)?;
    let holder = conf.holder(&invocation.container, &invocation.interface);
    pending::make_good(&mut client, conf, Some(&holder))?;
    Ok(ipam::acquire(&mut client, invocation, conf, false)?.to_json(conf.version))
}

/// The port, up in every worker. `present`: the one there is, and whether its device is too.
fn attach(
    client: &mut Client,
    invocation: &Invocation,
    conf: &Conf,
    present: Result<(PortStatus, bool), Name>,
    given: &Answer,
) -> Result<Port, Refusal> {
    let name = match &present {
        Ok((port, _)) => port.port.name.clone(),
        Err(name) => name.clone(),
    };
    let mut wanted = port(invocation, conf, name, given)?;
    let there = present.as_ref().ok().filter(|(_, has_device)| *has_device);
    lead_apart(invocation, &mut wanted.kind, given, there.map(|(status, _)| &status.port.kind))?;
    wanted.settings.mtu = outside::mtu(conf, client, &wanted)?;
    if let Ok((present, has_device)) = present {
        // A runtime that did not wait for our answer asks again: what is as it should be stays.
        if has_device && is_as_wanted(&present, &wanted) {
            if let Some(workload) =
                workload::missing(present.port.workload.as_ref(), wanted.workload.as_ref())
            {
                switch::label(client, &present.port.name, workload)?;
            }
            return Ok(present.port);
        }
        switch::remove(client, &conf.holder(&invocation.container, &invocation.interface))?;
    }
    if let Err(error) = switch::add(client, &wanted) {
        let holder = conf.holder(&invocation.container, &invocation.interface);
        return made_meanwhile(client, &holder, &wanted, error);
    }
    conf.outside.confirm(client)?;
    Ok(wanted)
}

/// Routes of its own for an interface in a network that the container is in already. One that is there (`present`) keeps those that it has:
/// others may have come behind it since.
fn lead_apart(
    invocation: &Invocation,
    kind: &mut PortKind,
    given: &Answer,
    present: Option<&PortKind>,
) -> Result<(), Refusal> {
    let interface = &invocation.interface;
    let shared: Vec<Ip> = match present {
        Some(present) => {
            let led = second::led(present, interface);
            given.ips.iter().filter(|ip| led.contains(&ip.address.addr())).cloned().collect()
        }
        None => second::shared(invocation.netns.as_deref().unwrap_or_default(), interface, &given.ips)?,
    };
    second::add_routes(kind, interface, &shared);
    Ok(())
}

fn is_as_wanted(present: &PortStatus, wanted: &Port) -> bool {
    present.state == PortState::Up && is_same(&present.port, wanted)
}

/// A port that could not be added. A runtime that did not wait for one ADD runs two at a time: what the other has just made is the
/// answer to both.
fn made_meanwhile(
    client: &mut Client,
    holder: &Holder,
    wanted: &Port,
    error: ApiError,
) -> Result<Port, Refusal> {
    if error.code == Code::Exists
        && let Ok(present) = switch::find(client, holder)?
        && is_as_wanted(&present, wanted)
    {
        return Ok(present.port);
    }
    // The pool does not give it again at once.
    let is_taken = error.code == Code::Exists && error.data.field.as_deref() == Some("addresses");
    let refusal = Refusal::from(error);
    Err(if is_taken { Refusal { code: TRY_AGAIN_LATER, ..refusal } } else { refusal })
}

/// The same but for its MAC address, if that was chosen by chance, and for what policies know of it.
fn is_same(present: &Port, wanted: &Port) -> bool {
    // Labels may have been declared meanwhile.
    let mut wanted = Port { workload: present.workload.clone(), ..wanted.clone() };
    let is_by_chance =
        wanted.kind.pod_addresses().is_some_and(|all| all.iter().all(|cidr| cidr.address().is_ipv6()));
    if let (Some(Some(is)), Some(mac)) =
        (present.kind.clone().mac_mut(), wanted.kind.mac_mut().filter(|_| is_by_chance))
    {
        if let Some(guard) = &mut wanted.settings.source_guard {
            guard.macs = vec![*is];
        }
        *mac = Some(*is);
    }
    if wanted.settings.mtu_follows {
        // The way out may have changed meanwhile, and the port with it.
        wanted.settings.mtu = present.settings.mtu;
    }
    *present == wanted
}

/// The port of an attachment with these addresses.
pub(crate) fn port(
    invocation: &Invocation,
    conf: &Conf,
    name: Name,
    given: &Answer,
) -> Result<Port, Refusal> {
    let holder = conf.holder(&invocation.container, &invocation.interface);
    let asked = invocation.mac.or(conf.mac);
    let mac = asked.map_or_else(|| mac_for(given), Ok)?;
    let kind = kind(invocation, conf, &name, mac, given)?;
    let settings = PortSettings {
        vlan: conf.vlan.map_or_else(Vlan::default, |vid| Vlan::Access { vid }),
        isolated: conf.isolated,
        mtu: conf.mtu,
        limits: conf.limits,
        mtu_follows: conf.mtu.is_none(),
        source_guard: guard::of(conf, mac, given.ips.iter().map(|ip| ip.address.addr())),
        ..conf.outside.settings()
    };
    let labels = switch::all_labels(&holder, invocation, conf);
    Ok(Port {
        name,
        bridge: conf.bridge.clone(),
        kind,
        settings,
        owner: Owner::Cni,
        labels,
        workload: workload::of(invocation, conf),
    })
}

/// What the port is made of.
fn kind(
    invocation: &Invocation,
    conf: &Conf,
    name: &Name,
    mac: Mac,
    given: &Answer,
) -> Result<PortKind, Refusal> {
    let cidr = |net: IpNet| {
        let text = net.to_string();
        let refused = |error| {
            Refusal::new(INVALID_CONFIG, format!("address {text}: {error}"))
                .details("the plugin that gave it, or the pool's ranges, must say another")
        };
        text.parse::<Cidr>().map_err(refused)
    };
    let (device, mac) = (invocation.interface.clone(), Some(mac));
    let addresses = given.ips.iter().map(|ip| cidr(ip.address)).collect::<Result<_, _>>()?;
    let route = |(to, via, more): (IpNet, Option<IpAddr>, Option<&Route>)| {
        let plain = DeviceRoute::new(cidr(to)?, via);
        Ok(more.map_or(plain, |more| DeviceRoute {
            metric: more.priority,
            table: more.table,
            mtu: more.mtu,
            advmss: more.advmss,
            scope: more.scope,
            ..plain
        }))
    };
    let routes = device_routes(given).into_iter().map(route).collect::<Result<_, Refusal>>()?;
    let netns = invocation.netns.clone();
    Ok(match conf.driver {
        Driver::Tap => PortKind::Tap { device, netns, mac, addresses, routes, queues: conf.queues },
        // The node's end has the port's name: nobody else's device is called so.
        Driver::Xdp => PortKind::xdp_pod(
            name.as_str(),
            PodEnd { device, netns: netns.unwrap_or_default(), mac, addresses, routes },
        ),
    })
}

/// Routes as the kernel wants them, where to and by whom: a gateway that is not in a subnet of the interface is reached on the link.
/// With each the one that it was asked as.
fn device_routes(given: &Answer) -> Vec<(IpNet, Option<IpAddr>, Option<&Route>)> {
    let mut routes = Vec::new();
    for route in &given.routes {
        let via = gateway(route, &given.ips);
        let is_far = |via: &IpAddr| {
            let link_local = matches!(via, IpAddr::V6(v6) if v6.is_unicast_link_local());
            !link_local && !given.ips.iter().any(|ip| ip.address.contains(via))
        };
        if let Some(far) = via.filter(is_far).map(IpNet::from)
            && !routes.contains(&(far, None, None))
        {
            routes.push((far, None, None));
        }
        routes.push((route.dst.trunc(), via, Some(route)));
    }
    routes
}

/// A route without a gateway goes by that of the address of its family (specification, "routes").
fn gateway(route: &Route, ips: &[Ip]) -> Option<IpAddr> {
    let same = |ip: &&Ip| ip.address.addr().is_ipv6() == route.dst.addr().is_ipv6();
    route.gw.or_else(|| ips.iter().filter(same).find_map(|ip| ip.gateway))
}

/// A MAC address that follows from the IPv4 address: an address that moves to another container takes it along,
/// and what neighbours remember stays true. Without an IPv4 address it is random. Either is locally administered.
fn mac_for(given: &Answer) -> Result<Mac, Refusal> {
    let v4 = given.ips.iter().find_map(|ip| match ip.address.addr() {
        IpAddr::V4(v4) => Some(v4.octets()),
        IpAddr::V6(_) => None,
    });
    if let Some([a, b, c, d]) = v4 {
        return Ok(Mac([0x0a, 0x58, a, b, c, d]));
    }
    let mut bytes = [0; 6];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(
        |error| {
            Refusal::new(crate::refusal::IO_FAILURE, format!("/dev/urandom: {error}"))
                .details("the interface needs a MAC address: give \"mac\", or see why there is no randomness")
        },
    )?;
    bytes[0] = bytes[0] & 0xfc | 0x02;
    Ok(Mac(bytes))
}

fn answer(port: &Port, given: Answer, conf: &Conf, netns: &str) -> Answer {
    // The node's end of a cable is not told of: plugins after us that look for one (`bandwidth`) would act on a device whose packets
    // the kernel never sees. Without it they say that they cannot.
    let (name, mac) = match &port.kind {
        PortKind::Tap { device, mac, .. } => (device, mac),
        PortKind::Xdp { pod: Some(end), .. } => (&end.device, &end.mac),
        _ => return given,
    };
    let interface = Interface {
        name: name.clone(),
        mac: mac.map(|mac| mac.to_string()),
        mtu: Some(u32::from(port.settings.mtu.unwrap_or(1500))),
        sandbox: Some(netns.to_owned()),
        ..Interface::default()
    };
    let ips = given.ips.into_iter().map(|ip| Ip { interface: Some(0), ..ip }).collect();
    let dns = conf.dns.clone().or(given.dns);
    let ours =
        Answer { interfaces: vec![interface], ips, routes: given.routes, dns, others: Default::default() };
    ours.after(conf.previous.as_ref())
}

/// Takes back port and addresses; what cannot be taken back is said, and GC finds it.
fn undo(
    client: &mut Client,
    invocation: &Invocation,
    conf: &Conf,
    holder: &Holder,
    error: Refusal,
) -> Refusal {
    let mut left = Vec::new();
    let release = |left: &mut Vec<String>| {
        if let Err(error) = ipam::release_delegated(invocation, conf) {
            left.push(format!("addresses are still there ({error})"));
        }
    };
    if conf.ipam.needs_interface() {
        release(&mut left);
    }
    let note = |left: &mut Vec<String>, what: &str, outcome: Result<(), ApiError>| {
        if let Err(error) =
            outcome.or_else(|error| if error.code == Code::NotFound { Ok(()) } else { Err(error) })
        {
            left.push(format!("{what} is still there ({error})"));
        }
    };
    second::forget(invocation.netns.as_deref().unwrap_or_default(), &invocation.interface);
    note(&mut left, "the port", switch::remove(client, holder).map(drop));
    note(&mut left, "the lease", ipam::release(client, holder).map(drop));
    if !conf.ipam.needs_interface() {
        release(&mut left);
    }
    match left.is_empty() {
        true => error.and("nothing of it was left behind"),
        false => error.and(&left.join("; ")).and("DEL or GC removes it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(ips: &[(&str, Option<&str>)], routes: &[(&str, Option<&str>)]) -> Answer {
        let ip = |(address, gateway): &(&str, Option<&str>)| Ip {
            address: address.parse().unwrap(),
            gateway: gateway.map(|it| it.parse().unwrap()),
            interface: None,
        };
        let route = |(dst, gw): &(&str, Option<&str>)| {
            Route::new(dst.parse().unwrap(), gw.map(|it| it.parse().unwrap()))
        };
        Answer {
            ips: ips.iter().map(ip).collect(),
            routes: routes.iter().map(route).collect(),
            ..Answer::default()
        }
    }

    fn shown(given: &Answer) -> Vec<String> {
        let line = |(to, via, _): &(IpNet, Option<IpAddr>, Option<&Route>)| {
            format!("{to} {}", via.map_or("-".into(), |it| it.to_string()))
        };
        device_routes(given).iter().map(line).collect()
    }

    #[test]
    fn a_gateway_outside_the_subnet_is_reached_on_the_link() {
        let near = given(&[("10.1.0.5/24", Some("10.1.0.1"))], &[("0.0.0.0/0", None), ("10.9.0.3/16", None)]);
        assert_eq!(shown(&near), ["0.0.0.0/0 10.1.0.1", "10.9.0.0/16 10.1.0.1"]);
        let far = given(&[("10.1.0.5/32", Some("169.254.1.1"))], &[("0.0.0.0/0", None), ("1.0.0.0/8", None)]);
        assert_eq!(shown(&far), ["169.254.1.1/32 -", "0.0.0.0/0 169.254.1.1", "1.0.0.0/8 169.254.1.1"]);
        let link_local = given(&[("fd00::5/64", None)], &[("::/0", Some("fe80::1"))]);
        assert_eq!(shown(&link_local), ["::/0 fe80::1"]);
    }

    #[test]
    fn a_mac_follows_the_address() {
        let mac = mac_for(&given(&[("fd00::5/64", None), ("10.1.0.5/24", None)], &[])).unwrap();
        assert_eq!(mac.to_string(), "0a:58:0a:01:00:05");
        let random = mac_for(&Answer::default()).unwrap();
        assert!(!random.is_group() && random.0[0] & 2 == 2);
    }
}
