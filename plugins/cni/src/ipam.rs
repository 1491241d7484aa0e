//! Addresses: from the daemon's pool, or from another plugin. Also what happens when another plugin asks us
//! for addresses: the same pool, and a result without an interface.

use crate::answer::{Answer, Ip, Route};
use crate::conf::{Conf, Ipam};
use crate::invocation::Invocation;
use crate::refusal::{INVALID_CONFIG, Refusal, UNKNOWN_CONTAINER};
use crate::{delegate, given, netns};
use switch_api::{
    ApiError, Client, Code, Done, Holder, IpNet, Lease, LeaseAcquire, LeaseFilter, LeaseStatus, Name, Owner,
    Pool, PoolRange, Released, Request,
};

/// Addresses for the attachment. Asked again, it answers the same. `with_port`: a port with them is asked for next.
pub fn acquire(
    client: &mut Client,
    invocation: &Invocation,
    conf: &Conf,
    with_port: bool,
) -> Result<Answer, Refusal> {
    match &conf.ipam {
        Ipam::None if conf.ips.is_empty() && invocation.ips.is_empty() => Ok(Answer::default()),
        Ipam::None => Err(Refusal::new(
            INVALID_CONFIG,
            "addresses were asked for, but there is no \"ipam\" to give them",
        )
        .details("name a pool in \"ipam\"")),
        Ipam::Pool { pool, ranges, routes } => {
            let addresses = conf.ips.iter().chain(&invocation.ips).copied().collect();
            let holder = conf.holder(&invocation.container, &invocation.interface);
            let wanted = LeaseAcquire { pool: pool.clone(), holder, addresses, with_port };
            let has = if routes.is_none() && conf.is_ours { defaults(invocation)? } else { [false; 2] };
            let lease = lease(client, &wanted, ranges)?;
            Ok(answer(&lease, routes.as_deref(), has))
        }
        Ipam::Delegate(kind) => {
            given::note(conf, &conf.holder(&invocation.container, &invocation.interface))?;
            let given = delegate::run(kind, "ADD", invocation, conf).and_then(|said| {
                Answer::read(said.unwrap_or_default(), &format!("what the plugin {kind} printed"))
            });
            if given.is_err() && with_port {
                // As the specification wants it ("Delegated plugin execution"), and so that ADD can be asked again.
                _ = release_delegated(invocation, conf);
            }
            given
        }
    }
}

/// A lease; a pool that is not there is made, if the configuration says of what.
fn lease(client: &mut Client, wanted: &LeaseAcquire, ranges: &[PoolRange]) -> Result<Lease, ApiError> {
    let request = Request::LeaseAcquire(wanted.clone());
    match client.call(&request) {
        Err(error) if error.code == Code::NotFound && !ranges.is_empty() => {}
        // A daemon of an older version, to which everything is on disk at once.
        Err(error) if error.code == Code::InvalidParams && wanted.with_port => {
            return lease(client, &LeaseAcquire { with_port: false, ..wanted.clone() }, ranges);
        }
        outcome => return outcome,
    }
    let pool = Pool { name: wanted.pool.clone(), ranges: ranges.to_vec(), owner: Owner::Cni };
    match client.call::<Done>(&Request::PoolAdd(pool)) {
        // Somebody else's ADD made it meanwhile.
        Err(error) if error.code != Code::Exists => Err(error),
        _ => client.call(&request),
    }
}

/// Default routes of either family that the container has from another network already: it keeps them.
fn defaults(invocation: &Invocation) -> Result<[bool; 2], Refusal> {
    let netns = invocation.netns.as_deref().unwrap_or_default();
    netns::default_routes_besides(netns, &invocation.interface).map_err(|error| {
        Refusal::new(UNKNOWN_CONTAINER, format!("the namespace {netns} cannot be looked into: {error}"))
            .details("the container is gone, or CNI_NETNS is not its namespace")
    })
}

/// `has_default`: families of which the container has a default route by another interface.
fn answer(lease: &Lease, routes: Option<&[Route]>, has_default: [bool; 2]) -> Answer {
    let ip =
        |has: &switch_api::LeasedAddress| Ip { address: has.address, gateway: has.gateway, interface: None };
    let ips: Vec<Ip> = lease.addresses.iter().map(ip).collect();
    let routes = routes.map_or_else(|| default_routes(&ips, has_default), <[Route]>::to_vec);
    Answer { ips, routes, ..Answer::default() }
}

/// The default route of each family that has a gateway, and no such route yet.
fn default_routes(ips: &[Ip], has_default: [bool; 2]) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    let is_due = |ip: &&Ip| ip.gateway.is_some() && !has_default[usize::from(ip.address.addr().is_ipv6())];
    for ip in ips.iter().filter(is_due) {
        let dst = IpNet::new_assert(
            if ip.address.addr().is_ipv6() { [0u16; 8].into() } else { [0u8; 4].into() },
            0,
        );
        if !routes.iter().any(|route| route.dst == dst) {
            routes.push(Route::new(dst, ip.gateway));
        }
    }
    routes
}

/// Gives back what the attachment has from the daemon; nothing is no error.
pub fn release(client: &mut Client, holder: &Holder) -> Result<Released, ApiError> {
    client.call(&Request::LeaseRelease(LeaseFilter::of(holder)))
}

/// Lets the other plugin give back what it gave, if there is one.
pub fn release_delegated(invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    let Ipam::Delegate(kind) = &conf.ipam else { return Ok(()) };
    delegate::run(kind, "DEL", invocation, conf)?;
    given::forget(conf, &conf.holder(&invocation.container, &invocation.interface));
    Ok(())
}

/// The same for an attachment that nobody asks about any more. What is not there is no error.
pub fn collect_delegated(invocation: &Invocation, conf: &Conf, holder: &Holder) -> Result<(), Refusal> {
    let Ipam::Delegate(kind) = &conf.ipam else { return Ok(()) };
    delegate::release(kind, invocation, conf, holder)?;
    given::forget(conf, holder);
    Ok(())
}

/// What differs between the lease and the addresses that were given.
pub fn check(
    client: &mut Client,
    invocation: &Invocation,
    conf: &Conf,
    ips: &[Ip],
) -> Result<Vec<String>, Refusal> {
    match &conf.ipam {
        Ipam::None => Ok(Vec::new()),
        Ipam::Delegate(kind) => delegate::run(kind, "CHECK", invocation, conf).map(|_| Vec::new()),
        Ipam::Pool { pool, .. } => {
            check_lease(client, &conf.holder(&invocation.container, &invocation.interface), pool, ips)
        }
    }
}

fn check_lease(
    client: &mut Client,
    holder: &Holder,
    pool: &Name,
    ips: &[Ip],
) -> Result<Vec<String>, Refusal> {
    let filter = LeaseFilter { pool: Some(pool.clone()), ..LeaseFilter::of(holder) };
    let leases: Vec<LeaseStatus> = client.call(&Request::LeaseList(filter))?;
    let Some(LeaseStatus { lease, .. }) = leases.first() else {
        return Ok(vec![format!("pool {pool} has no lease for it")]);
    };
    let mut differences = Vec::new();
    for ip in ips.iter().filter(|ip| !lease.addresses.iter().any(|has| has.address == ip.address)) {
        differences.push(format!("the lease does not have {}", ip.address));
    }
    for has in lease.addresses.iter().filter(|has| !ips.iter().any(|ip| ip.address == has.address)) {
        differences.push(format!("the lease has {}, the result does not", has.address));
    }
    Ok(differences)
}
