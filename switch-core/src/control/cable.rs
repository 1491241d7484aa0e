//! A pod's cable: a veth pair that the switch makes for an xdp port. One end is the port's device, in the daemon's namespace; the other
//! is made and dressed in the pod's as a TAP is ([`super::tap`]). The pair outlives the daemon and goes with the port.
//!
//! Unlike a TAP a pair is there from the first step on, so what is written on our end says how far it is: nothing yet, being made, or
//! whole, which it is when its port is kept. One that is not whole was left by a daemon that died over it, and is made anew, or goes if
//! nobody has declared its port. In the pod the end has our end's name until it
//! is known as ours, so that no runtime takes it for somebody else's.

use super::home::Home;
use super::links::Link;
use super::rtnl::{Dress, Rtnl};
use super::sysctl;
use super::tap::{self, Entered, Place, inside};
use std::fs::File;
use std::io;
use switch_api::{ApiError, Code, Mac, Name, PodEnd, Port, PortKind};

/// Written behind the alias of a pair whose port is not kept yet.
const UNFINISHED: &str = "unfinished";

/// What our end's name begins with until something is written on it: a kernel cannot do both in one step, and a daemon that is killed
/// meanwhile dies when the kernel has made the pair.
const PROVISIONAL: char = '~';

/// Our end's name at first: no longer than the one it gets.
fn provisional(device: &str) -> String {
    std::iter::once(PROVISIONAL).chain(device.chars().skip(1)).collect()
}

/// What a port's pair is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    port: Name,
    /// Our end.
    device: String,
    mac: Mac,
    mtu: u16,
    end: PodEnd,
    /// The namespace in which the pod's end was made, if it was.
    pub(super) home: Option<Home>,
}

impl Wanted {
    /// Of a port whose pod's end was made in `home`, if it was; none if it has no pair, or no MAC address yet.
    pub(super) fn of(port: &Port, home: Option<&Home>) -> Option<Self> {
        let PortKind::Xdp { device, pod: Some(end), .. } = &port.kind else { return None };
        Some(Self {
            port: port.name.clone(),
            device: device.clone(),
            mac: end.mac?,
            mtu: port.settings.mtu.unwrap_or(tap::MTU_DEFAULT),
            end: (**end).clone(),
            home: home.cloned(),
        })
    }

    /// Where the pod's end is.
    pub fn at(&self) -> Place {
        Place {
            netns: Some(self.end.netns.clone()),
            home: self.home.clone(),
            alias: self.alias(),
            mac: self.mac,
        }
    }

    /// What is written on both ends of a pair that is whole.
    fn alias(&self) -> String {
        format!("switchd {} {}", self.port, self.mac)
    }

    /// And on ours until the port is kept.
    fn unfinished(&self) -> String {
        format!("{} {UNFINISHED}", self.alias())
    }

    /// Our end's MAC address, by which it is known before anything is written on it: the pod's with one bit changed, and locally
    /// administered (IEEE 802-2014 section 8.4).
    fn own_mac(&self) -> Mac {
        let mut mac = self.mac;
        mac.0[0] = (mac.0[0] ^ 0x04) | 0x02;
        mac
    }

    fn is_ours(&self, link: &Link) -> bool {
        let is_fresh = link.alias.is_empty() && link.mac == Some(self.own_mac());
        link.is_veth && (link.alias == self.alias() || link.alias == self.unfinished() || is_fresh)
    }

    /// Does `work` on a thread inside the pod's namespace.
    fn inside<T: Send>(
        &self,
        work: impl FnOnce(Entered<'_>) -> Result<T, ApiError> + Send,
    ) -> Result<T, ApiError> {
        inside(Some(&self.end.netns), self.home.as_ref(), |entered| match entered {
            Some(pod) => work(pod),
            None => Err(self.failed("look", &io::ErrorKind::NotFound.into())),
        })
    }

    fn failed(&self, step: &str, error: &io::Error) -> ApiError {
        let text = format!(
            "the cable {} to {} in {}: {step}: {error}",
            self.device, self.end.device, self.end.netns
        );
        ApiError::new(Code::System, text).field("device").hint("nothing of it was left behind")
    }
}

/// Makes the pair, if it is not there already, and says whether it did, and in `wanted` where. One that it made is not up yet: that is for
/// [`set_up`]. On failure nothing is left of it.
pub fn open(wanted: &mut Wanted) -> Result<bool, ApiError> {
    let rtnl = Rtnl::open().map_err(|error| wanted.failed("netlink", &error))?;
    let there = rtnl.link(&wanted.device).map_err(|error| wanted.failed("netlink", &error))?;
    match there {
        Some(link) if link.is_veth && link.alias == wanted.alias() => {
            wanted.home = wanted.home.take().or_else(|| found(wanted));
            return Ok(false);
        }
        Some(link) if wanted.is_ours(&link) => {
            rtnl.delete(link.index)
                .map_err(|error| wanted.failed("removal of what was left of it", &error))?;
        }
        Some(_) => {
            let text = format!(
                "there is a device named {} that this port did not make; it was left alone",
                wanted.device
            );
            return Err(ApiError::new(Code::Busy, text)
                .field("device")
                .hint(format!("choose another name, or: ip link delete {}", wanted.device)));
        }
        None => {}
    }
    // The connection stays in the daemon's namespace.
    let made = wanted.inside(|pod| {
        make(&rtnl, wanted, pod.file)?;
        Ok(pod.namespace.home().clone())
    });
    wanted.home = Some(made.inspect_err(|_| _ = remove(wanted))?);
    Ok(true)
}

/// Sets both ends of a new pair up, behind the program that is on ours by now: a pod that speaks sooner would be heard by the node's own kernel,
/// past everything that the switch keeps it from. The pod's end is the last, so that it can speak at once.
pub fn set_up(wanted: &Wanted) -> Result<(), ApiError> {
    let own = Rtnl::open().and_then(|rtnl| match rtnl.link(&wanted.device)? {
        Some(link) if wanted.is_ours(&link) => rtnl.set_up(link.index),
        _ => Err(io::ErrorKind::NotFound.into()),
    });
    own.map_err(|error| wanted.failed("set up", &error))?;
    wanted.inside(|_| dress(wanted))
}

/// Where the pod's end is, of a pair of which an older version did not note it.
fn found(wanted: &Wanted) -> Option<Home> {
    let here = wanted.inside(|pod| {
        let index = Rtnl::open().and_then(|rtnl| wanted.at().find(&rtnl));
        index.map_err(|error| wanted.failed("look", &error))?;
        Ok(pod.namespace.home().clone())
    });
    here.ok()
}

/// Has the pod's kernel tell its neighbours of its addresses. Unlike a TAP a veth keeps nothing for a port that is not open yet.
pub fn introduce(wanted: &Wanted) -> Result<(), ApiError> {
    wanted.inside(|_| {
        let told = Rtnl::open().and_then(|rtnl| {
            let link = rtnl.link(&wanted.end.device)?;
            link.map_or(Ok(()), |link| rtnl.set_mac(link.index, wanted.mac))
        });
        told.map_err(|error| wanted.failed("word to its neighbours", &error))
    })
}

/// The calling thread is in the pod's namespace, whose file that is; `rtnl` is of the daemon's.
fn make(rtnl: &Rtnl, wanted: &Wanted, netns: &File) -> Result<(), ApiError> {
    let step = |what: &'static str| move |error: io::Error| wanted.failed(what, &error);
    let mtu = u32::from(wanted.mtu);
    let [own, pods] = [(wanted.own_mac(), wanted.unfinished()), (wanted.mac, wanted.alias())]
        .map(|(mac, alias)| Dress { mac, mtu, alias });
    let at_first = provisional(&wanted.device);
    rtnl.add_veth([&at_first, &wanted.device], &own, &pods, netns)
        .map_err(step("the kernel makes no veth pair"))?;
    let link = rtnl.link(&at_first).map_err(step("netlink"))?;
    let link = link.ok_or_else(|| wanted.failed("look", &io::ErrorKind::NotFound.into()))?;
    let named = rtnl.rename(link.index, &wanted.device, &own.alias);
    named.inspect_err(|_| _ = rtnl.delete(link.index)).map_err(step("name and alias"))?;
    // The node has nothing to say to a pod by its cable.
    rtnl.no_addresses(link.index).map_err(step("no addresses"))?;
    name_end(wanted, &pods)
}

/// The port is kept: the pair is whole, and stays when a daemon dies.
pub fn finish(wanted: &Wanted) -> Result<(), ApiError> {
    let finished = Rtnl::open().and_then(|rtnl| match rtnl.link(&wanted.device)? {
        Some(link) if wanted.is_ours(&link) => rtnl.set_alias(link.index, &wanted.alias()),
        _ => Ok(()),
    });
    finished.map_err(|error| wanted.failed("alias", &error))
}

/// Removes pairs that a daemon died over before their ports were kept: nobody else knows of them. Pairs that are whole are left alone,
/// whosever they are.
pub fn remove_unfinished(is_declared: impl Fn(&str) -> bool) -> io::Result<()> {
    let rtnl = Rtnl::open()?;
    for link in rtnl.links()?.iter().filter(|link| link.is_veth) {
        let words: Vec<&str> = link.alias.split(' ').collect();
        let is_left = match words[..] {
            ["switchd", port, _, UNFINISHED] => !is_declared(port),
            [""] => link.name.starts_with(PROVISIONAL),
            _ => false,
        };
        if is_left {
            rtnl.delete(link.index)?;
            tracing::info!("the cable {} was left unfinished and is gone", link.name);
        }
    }
    Ok(())
}

/// Gives the pod's end its name, on a thread in its namespace.
fn name_end(wanted: &Wanted, dress: &Dress) -> Result<(), ApiError> {
    let step = |what: &'static str| move |error: io::Error| wanted.failed(what, &error);
    let rtnl = Rtnl::open().map_err(step("netlink"))?;
    let link = rtnl.link(&wanted.device).map_err(step("netlink"))?;
    let link = link.ok_or_else(|| wanted.failed("look", &io::ErrorKind::NotFound.into()))?;
    let name = &wanted.end.device;
    if rtnl.link(name).map_err(step("netlink"))?.is_some_and(|other| other.index != link.index) {
        let text = format!(
            "namespace {} has a device named {name} that this port did not make; it was left alone",
            wanted.end.netns
        );
        return Err(ApiError::new(Code::Busy, text)
            .field("device")
            .hint(format!("choose another name, or there: ip link delete {name}")));
    }
    rtnl.rename(link.index, name, &dress.alias).map_err(step("name and alias"))?;
    // Where sysctls cannot be written, in a container say, neighbours ask later and more often.
    if let Err(error) = sysctl::be_neighbourly(name) {
        tracing::warn!("device {name} in {} {}: {error}", wanted.end.netns, sysctl::NOT_NEIGHBOURLY);
    }
    Ok(())
}

/// Sets the pod's end up, with its addresses and routes, on a thread in its namespace.
fn dress(wanted: &Wanted) -> Result<(), ApiError> {
    let step = |what: &'static str| move |error: io::Error| wanted.failed(what, &error);
    let rtnl = Rtnl::open().map_err(step("netlink"))?;
    let index = wanted.at().find(&rtnl).map_err(step("look"))?;
    rtnl.set_up(index).map_err(step("set up"))?;
    for cidr in &wanted.end.addresses {
        let added = rtnl.add_address(index, *cidr);
        added.map_err(|error| wanted.failed(&format!("address {cidr}"), &error).field("addresses"))?;
    }
    for route in &wanted.end.routes {
        let added = rtnl.add_route(index, route);
        added.map_err(|error| wanted.failed(&format!("route to {}", route.to), &error).field("routes"))?;
    }
    Ok(())
}

/// Removes the pair. One that is not there is what we want, and what others made stays.
pub fn remove(wanted: &Wanted) -> Result<(), ApiError> {
    let gone = Rtnl::open().and_then(|rtnl| match rtnl.link(&wanted.device)? {
        Some(link) if wanted.is_ours(&link) => rtnl.delete(link.index),
        _ => Ok(()),
    });
    gone.map_err(|error| wanted.failed("removal", &error))
}

/// Gives both ends another MTU, or Ethernet's. The pod may have renamed its end: it is known by what is written on it, or by its MAC.
pub fn set_mtu(wanted: &Wanted) -> Result<(), ApiError> {
    let failed = |error: io::Error| wanted.failed("MTU", &error).field("settings.mtu");
    let mtu = u32::from(wanted.mtu);
    wanted.inside(|_| {
        let set = Rtnl::open().and_then(|rtnl| {
            let links = rtnl.links()?;
            let is_it =
                |link: &&Link| link.is_veth && (link.alias == wanted.alias() || link.mac == Some(wanted.mac));
            links.iter().find(is_it).map_or(Ok(()), |link| rtnl.set_mtu(link.index, mtu))
        });
        set.map_err(failed)
    })?;
    let own = Rtnl::open().and_then(|rtnl| match rtnl.link(&wanted.device)? {
        Some(link) if wanted.is_ours(&link) => rtnl.set_mtu(link.index, mtu),
        _ => Ok(()),
    });
    own.map_err(failed)
}
