//! Other addresses and routes for a device that the switch made, in place: whoever learns them only when the device is there
//! (DHCP), and a pod whose addresses change while it runs.

use super::cable;
use super::daemon::{Daemon, PortLife};
use super::home::Home;
use super::rtnl::Rtnl;
use super::tap::{self, inside};
use crate::config::model::no_such;
use serde_json::Value;
use std::io;
use switch_api::{ApiError, Cidr, Code, DeviceRoute, Mac, Name, Port, Request};

/// What a device has.
#[derive(Clone, Debug, Default)]
pub(super) struct Addressing {
    pub(super) addresses: Vec<Cidr>,
    pub(super) routes: Vec<DeviceRoute>,
}

impl Addressing {
    pub(super) fn of(port: &Port) -> Self {
        let mut kind = port.kind.clone();
        let has = kind.addressed_mut().map(|(addresses, routes)| (addresses.clone(), routes.clone()));
        has.map_or_else(Self::default, |(addresses, routes)| Self { addresses, routes })
    }

    /// Takes away what `after` does not have, and adds what it has more. What is so already stays.
    fn become_(&self, after: &Self, rtnl: &Rtnl, index: u32) -> Result<(), (String, io::Error)> {
        let step = |what: String| move |error: io::Error| (what, error);
        for route in self.routes.iter().filter(|route| !after.routes.contains(route)) {
            rtnl.delete_route(index, route).map_err(step(format!("route to {}", route.to)))?;
        }
        for cidr in self.addresses.iter().filter(|cidr| !after.addresses.contains(cidr)) {
            rtnl.delete_address(index, *cidr).map_err(step(format!("address {cidr}")))?;
        }
        for cidr in after.addresses.iter().filter(|cidr| !self.addresses.contains(cidr)) {
            is_there(rtnl.add_address(index, *cidr)).map_err(step(format!("address {cidr}")))?;
        }
        // All of them: the kernel takes routes away with the address that they were by.
        for route in &after.routes {
            is_there(rtnl.add_route(index, route)).map_err(step(format!("route to {}", route.to)))?;
        }
        Ok(())
    }
}

fn is_there(added: io::Result<()>) -> io::Result<()> {
    match added {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        added => added,
    }
}

fn readdress(device: &tap::Place, before: &Addressing, after: &Addressing, mac: Mac) -> Result<(), ApiError> {
    let change = || {
        let rtnl = Rtnl::open().map_err(|error| ("netlink".to_owned(), error))?;
        let index = device.find(&rtnl).map_err(|error| ("look".to_owned(), error))?;
        before.become_(after, &rtnl, index).inspect_err(|_| _ = after.become_(before, &rtnl, index))?;
        // Its neighbours are told of what is new.
        rtnl.set_mac(index, mac).map_err(|error| ("word to its neighbours".to_owned(), error))
    };
    inside(device.netns.as_deref(), device.home.as_ref(), |_| {
        change().map_err(|(step, error)| failed(device, &step, &error))
    })
}

fn failed(device: &tap::Place, step: &str, error: &io::Error) -> ApiError {
    let text = format!("the device in {}: {step}: {error}", device.shown());
    let is_far = matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH));
    let why = if is_far { "; is the gateway in a network of one of the addresses?" } else { "" };
    ApiError::new(Code::System, text)
        .field(if is_far { "routes" } else { "addresses" })
        .hint(format!("it has what it had before{why}"))
}

/// Gives the device of a port that is up the addresses and routes that it `has` in place of those that it `had`. On failure it is put
/// back, as far as that is possible. `home` is where the device is.
pub(super) fn give_addresses(had: &Port, has: &Port, home: Option<&Home>) -> Result<(), ApiError> {
    let (Some(place), Some(Some(mac))) = (place(had, home), had.kind.clone().mac_mut().map(|mac| *mac))
    else {
        return Err(ApiError::new(Code::Internal, "a device without a MAC address"));
    };
    readdress(&place, &Addressing::of(had), &Addressing::of(has), mac)
}

impl Daemon {
    /// Gives a port's device other addresses and routes.
    pub(super) fn address_port(&mut self, request: &Request, name: &Name) -> Result<Value, ApiError> {
        let checked = self.check(request)?;
        let before = self.model.ports.get(name).ok_or_else(|| no_such("port", name))?;
        let (id, had) = (before.id, before.object.clone());
        let has = checked.model().ports[name].object.clone();
        if !matches!(self.ports.get(&id), Some(PortLife::Up(_))) {
            let text = format!("port {name} is down: there is no device to give addresses to");
            return Err(ApiError::new(Code::Busy, text)
                .field("name")
                .hint(format!("`switch-ctl port show {name}` says why")));
        }
        give_addresses(&had, &has, self.homes.get(name))?;
        // With its word to its neighbours a device forgets those that it was told of (net/core/neighbour.c, `neigh_changeaddr`).
        self.put_own_neighbours();
        let generation = self.publisher.generation();
        self.adopt(checked).inspect_err(|_| {
            // What was not kept was not published: the device goes back as well.
            if self.publisher.generation() == generation {
                _ = give_addresses(&has, &had, self.homes.get(name));
            }
        })
    }
}

fn place(port: &Port, home: Option<&Home>) -> Option<tap::Place> {
    tap::Wanted::of(port, home)
        .map(|wanted| wanted.at())
        .or_else(|| cable::Wanted::of(port, home).map(|wanted| wanted.at()))
}
