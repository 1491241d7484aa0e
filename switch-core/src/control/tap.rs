//! TAP devices: made and dressed inside the namespace they serve, found there again after a restart, watched,
//! and removed.
//!
//! A descriptor of a TAP belongs to the namespace of the thread that opened it, so everything is done by a
//! short-lived thread that enters the namespace. Opening by name alone would be wrong twice: the pod may have
//! renamed its device, and a name that nobody has makes a new device. What is ours is known by what we wrote on
//! it and by its MAC address, and which device a descriptor got is checked by the device's index. All devices of
//! a namespace are looked through only if none of the port's name is ours: a pod may have very many.
//!
//! Nothing has to be undone step by step: a device is not persistent before all of it is right, and until then
//! it goes with its descriptor.

use super::home::Home;
use super::links::{self, Link, LinkEvent};
use super::rtnl::{self, Dress, Rtnl};
use super::sysctl;
use crate::port::tap::device::{Descriptor, Offloads};
use crate::port::tap::steering;
use crate::sandbox::keeper;
use netlink_sys::Socket;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use switch_api::{ApiError, Cidr, Code, DeviceRoute, Mac, Name, Port, PortKind};

/// A device's MTU unless the port's settings say otherwise: Ethernet's.
pub(in crate::control) const MTU_DEFAULT: u16 = 1500;
/// A pod may rename its device while we attach to it; so often we look again.
const ATTACH_ATTEMPTS: u32 = 5;
/// Bytes of news about devices that a pod can make wait for us: some ten changes. Beyond it they are lost, and
/// we ask once instead; so a pod that changes its devices all the time costs no more than one that does so
/// now and then.
const NEWS_BYTES: usize = 32 << 10;

/// What a tap or host port is to have.
#[derive(Clone, Debug)]
pub struct Wanted {
    port: Name,
    device: String,
    netns: Option<String>,
    /// The namespace in which it was made, if it was.
    home: Option<Home>,
    mac: Mac,
    mtu: u16,
    addresses: Vec<Cidr>,
    routes: Vec<DeviceRoute>,
    queues: u16,
}

/// A device that the switch serves.
#[derive(Debug)]
pub struct Tap {
    namespace: Option<Namespace>,
    descriptors: Vec<Arc<Descriptor>>,
    news: Socket,
    link: Link,
    /// What it hands over unfinished.
    pub offloads: Offloads,
}

/// What became of a device since it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing that matters.
    None,
    /// It has another MTU.
    Mtu(u32),
    /// It cannot be served any more; the reason.
    Fallen(String),
}

/// A namespace by its path, and which one that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    path: String,
    id: (u64, u64),
    home: Home,
}

/// A namespace that may be entered.
struct Opened<'a> {
    path: &'a str,
    file: File,
    metadata: Metadata,
}

/// The namespace that a thread is in.
pub(super) struct Entered<'a> {
    pub namespace: Namespace,
    pub file: &'a File,
}

impl Wanted {
    /// Of a port whose device was made in `home`, if it was; none if it is of another kind, or has no MAC address yet.
    pub(super) fn of(port: &Port, home: Option<&Home>) -> Option<Self> {
        let (device, netns, mac, addresses, routes, queues) = match &port.kind {
            PortKind::Tap { device, netns, mac, addresses, routes, queues } => {
                (device, netns.clone(), *mac, addresses, routes, *queues)
            }
            PortKind::Host { device, mac, addresses, routes } => (device, None, *mac, addresses, routes, 1),
            _ => return None,
        };
        Some(Self {
            port: port.name.clone(),
            device: device.clone(),
            netns,
            home: home.cloned(),
            mac: mac?,
            mtu: port.settings.mtu.unwrap_or(MTU_DEFAULT),
            addresses: addresses.clone(),
            routes: routes.clone(),
            queues,
        })
    }

    /// Where the device is.
    pub(super) fn at(&self) -> Place {
        Place { netns: self.netns.clone(), home: self.home.clone(), alias: self.alias(), mac: self.mac }
    }

    /// What is written on the device.
    fn alias(&self) -> String {
        format!("switchd {} {}", self.port, self.mac)
    }

    /// A pod may change one of the two without becoming a stranger.
    fn is_ours(&self, link: &Link) -> bool {
        link.is_tun && (link.alias == self.alias() || link.mac == Some(self.mac))
    }

    fn place(&self) -> String {
        shown(self.netns.as_deref())
    }

    fn several_queues(&self) -> bool {
        self.queues > 1
    }
}

/// Where a device that the switch made is, and how it is known there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its namespace; none: the daemon's.
    pub netns: Option<String>,
    /// Which that is, if it is known.
    pub home: Option<Home>,
    /// What is written on it.
    pub alias: String,
    /// Its MAC address. A pod may change one of the two.
    pub mac: Mac,
}

impl Place {
    /// Its number; `rtnl` is of its namespace.
    pub fn find(&self, rtnl: &Rtnl) -> io::Result<u32> {
        let links = rtnl.links()?;
        let alike = |link: &&Link| link.alias == self.alias || link.mac == Some(self.mac);
        links.iter().find(alike).map(|link| link.index).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// For a person.
    pub fn shown(&self) -> String {
        shown(self.netns.as_deref())
    }
}

fn shown(netns: Option<&str>) -> String {
    netns.map_or("the daemon's namespace".into(), |path| format!("namespace {path}"))
}

fn is_down(device: &str, place: &str) -> String {
    format!("device {device} in {place} is down")
}

/// A MAC address for a new port: locally administered (IEEE 802-2014 §8.4), the rest random, so that no two
/// nodes choose the same.
pub fn random_mac() -> io::Result<Mac> {
    use std::io::Read;
    let mut bytes = [0; 6];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    bytes[0] = bytes[0] & 0xfc | 0x02;
    Ok(Mac(bytes))
}

/// Attaches to the port's device, or makes it.
pub fn open(wanted: &Wanted) -> Result<Tap, ApiError> {
    inside(wanted.netns.as_deref(), wanted.home.as_ref(), |entered| {
        let netlink = |error: io::Error| failed(wanted, "netlink", &error);
        let rtnl = Rtnl::open().map_err(netlink)?;
        let news = watch().map_err(netlink)?;
        let (descriptors, index) = match find(&rtnl, wanted)? {
            Some(link) => (adopt(&rtnl, wanted, &link)?, link.index),
            None => make(&rtnl, wanted)?,
        };
        let link = rtnl.link_at(index).map_err(netlink)?;
        let link = link.ok_or_else(|| failed(wanted, "look", &io::ErrorKind::NotFound.into()))?;
        let offloads = descriptors[0].offload_all().map_err(|error| failed(wanted, "offloads", &error))?;
        let descriptors = descriptors.into_iter().map(Arc::new).collect();
        Ok(Tap { namespace: entered.map(|entered| entered.namespace), descriptors, news, link, offloads })
    })
}

/// Removes the device of a port that is not open. One that is not there is what we want.
pub fn remove(wanted: &Wanted) -> Result<(), ApiError> {
    inside(wanted.netns.as_deref(), wanted.home.as_ref(), |_| {
        let netlink = |error: io::Error| failed(wanted, "netlink", &error);
        let rtnl = Rtnl::open().map_err(netlink)?;
        let named = rtnl.link(&wanted.device).map_err(netlink)?;
        let Some(link) = ours(&rtnl, wanted, named.as_ref()).map_err(netlink)? else { return Ok(()) };
        let descriptor = attach(&rtnl, wanted, &link)?;
        descriptor.set_persistent(false).map_err(|error| failed(wanted, "removal", &error))
    })
}

/// Does `work` on a thread of its own: inside the namespace, if one is named, and in the daemon's otherwise. The calling thread stays where
/// it is. In a namespace that is not a port's whose device was made in `home` nothing is done.
pub(super) fn inside<T: Send>(
    netns: Option<&str>,
    home: Option<&Home>,
    work: impl FnOnce(Option<Entered<'_>>) -> Result<T, ApiError> + Send,
) -> Result<T, ApiError> {
    let opened = netns.map(Opened::new).transpose()?;
    // Before the thread is in another.
    let own = Home::own();
    let worked = std::thread::scope(|scope| {
        let work = || work(opened.as_ref().map(|opened| opened.enter(home, own)).transpose()?);
        let thread = std::thread::Builder::new().spawn_scoped(scope, work);
        thread.map(|thread| thread.join())
    });
    let worked = worked.map_err(|error| {
        ApiError::new(Code::System, format!("no thread could be started for the namespace: {error}"))
            .hint("the node, or the daemon's control group, has no room for another one: see `TasksMax=` and `pids.max`; try again")
    })?;
    worked.unwrap_or_else(|_| Err(ApiError::new(Code::Internal, "the thread in the namespace panicked")))
}

impl<'a> Opened<'a> {
    fn new(path: &'a str) -> Result<Self, ApiError> {
        let opened = keeper::open_namespace(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| {
            let code = if error.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::System };
            ApiError::new(code, format!("the namespace {path} cannot be opened: {error}"))
                .field("netns")
                .hint("give a path like /run/netns/NAME or /proc/PID/ns/net, as the daemon sees it")
        })?;
        Ok(Self { path, file, metadata })
    }

    /// Moves the calling thread into it, and looks where that is: this it can do only there.
    fn enter(&self, home: Option<&Home>, own: Option<&Home>) -> Result<Entered<'_>, ApiError> {
        let moved = move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network));
        moved.map_err(|error| {
            ApiError::new(Code::System, format!("the namespace cannot be entered: {error}"))
                .field("netns")
                .hint("is it a network namespace? Entering one needs CAP_SYS_ADMIN: run as root")
        })?;
        let found = Home::here(&self.metadata).map_err(|error| {
            ApiError::new(Code::System, format!("which namespace {} is cannot be seen: {error}", self.path))
                .field("netns")
                .hint("see the daemon's log; it may have too many files open")
        })?;
        found.suits(self.path, home, own)?;
        let id = (self.metadata.dev(), self.metadata.ino());
        let namespace = Namespace { path: self.path.to_owned(), id, home: found };
        Ok(Entered { namespace, file: &self.file })
    }
}

/// The port's device, if it is there and can be served; none if it has to be made.
fn find(rtnl: &Rtnl, wanted: &Wanted) -> Result<Option<Link>, ApiError> {
    let netlink = |error: io::Error| failed(wanted, "netlink", &error);
    let (name, place) = (&wanted.device, wanted.place());
    let named = rtnl.link(name).map_err(netlink)?;
    match ours(rtnl, wanted, named.as_ref()).map_err(netlink)? {
        Some(link) if !link.is_up => Err(ApiError::new(Code::System, is_down(&link.name, &place))
            .field("device")
            .hint(format!("there: ip link set {} up", link.name))),
        Some(link) => Ok(Some(link)),
        None if named.is_some() => {
            let text =
                format!("{place} has a device named {name} that this port did not make; it was left alone");
            Err(ApiError::new(Code::Busy, text)
                .field("device")
                .hint(format!("choose another name with --device, or there: ip link delete {name}")))
        }
        None => Ok(None),
    }
}

/// The device that is ours: mostly that of the port's name, `named`. Otherwise the pod may have renamed it, and it is looked for among all.
fn ours(rtnl: &Rtnl, wanted: &Wanted, named: Option<&Link>) -> io::Result<Option<Link>> {
    match named.filter(|link| wanted.is_ours(link)) {
        Some(link) => Ok(Some(link.clone())),
        None => Ok(rtnl.links()?.into_iter().find(|link| wanted.is_ours(link))),
    }
}

/// The descriptors of a device that outlived an earlier daemon. What the pod changed on it stays.
fn adopt(rtnl: &Rtnl, wanted: &Wanted, link: &Link) -> Result<Vec<Descriptor>, ApiError> {
    let descriptors =
        (0..wanted.queues).map(|_| attach(rtnl, wanted, link)).collect::<Result<Vec<_>, _>>()?;
    // The device has kept an earlier daemon's, unless the pod took it away.
    steer(wanted, &descriptors)?;
    Ok(descriptors)
}

/// A flow's frames come by one queue, whatever queue its answers are written by.
fn steer(wanted: &Wanted, descriptors: &[Descriptor]) -> Result<(), ApiError> {
    if !wanted.several_queues() {
        return Ok(());
    }
    steering::steer(&descriptors[0], wanted.queues).map_err(|error| no_steering(wanted, &error))
}

/// One descriptor of just this device.
fn attach(rtnl: &Rtnl, wanted: &Wanted, link: &Link) -> Result<Descriptor, ApiError> {
    let netlink = |error: io::Error| failed(wanted, "netlink", &error);
    for _ in 0..ATTACH_ATTEMPTS {
        let Some(now) = rtnl.link_at(link.index).map_err(netlink)? else { break };
        let attached = Descriptor::attach(&now.name, wanted.several_queues());
        let descriptor = attached.map_err(|error| refused(wanted, &now.name, &error))?;
        let name = descriptor.name().map_err(netlink)?;
        if rtnl.link(&name).map_err(netlink)?.is_some_and(|got| got.index == link.index) {
            return Ok(descriptor);
        }
        // It was renamed in between, and a new device was made under its old name: it goes here.
    }
    let text =
        format!("device {} in {} was deleted or renamed while we attached to it", link.name, wanted.place());
    Err(ApiError::new(Code::Busy, text).field("device").hint("it will be tried again"))
}

/// A new device, all of it right. Anything that fails drops the descriptors, and the device with them; so does a daemon that dies before
/// its port is kept ([`Doors::fresh_taps`](super::doors::Doors)).
fn make(rtnl: &Rtnl, wanted: &Wanted) -> Result<(Vec<Descriptor>, u32), ApiError> {
    let name = &wanted.device;
    let first = Descriptor::create(name, wanted.several_queues());
    let first = first.map_err(|error| refused(wanted, name, &error))?;
    let step = |what: &'static str| move |error: io::Error| failed(wanted, what, &error);
    let link = rtnl.link(name).map_err(step("netlink"))?;
    let link = link.ok_or_else(|| failed(wanted, "look", &io::ErrorKind::NotFound.into()))?;
    let mut descriptors = vec![first];
    for _ in 1..wanted.queues {
        descriptors.push(attach(rtnl, wanted, &link)?);
    }
    steer(wanted, &descriptors)?;
    let dress = Dress { mac: wanted.mac, mtu: u32::from(wanted.mtu), alias: wanted.alias() };
    rtnl.dress(link.index, &dress).map_err(step("address, MTU and alias"))?;
    // Where sysctls cannot be written, in a container say, neighbours ask later and more often.
    if let Err(error) = sysctl::be_neighbourly(name) {
        tracing::warn!("device {name} in {} {}: {error}", wanted.place(), sysctl::NOT_NEIGHBOURLY);
    }
    rtnl.set_up(link.index).map_err(step("set up"))?;
    for cidr in &wanted.addresses {
        let added = rtnl.add_address(link.index, *cidr);
        added.map_err(|error| failed(wanted, &format!("address {cidr}"), &error).field("addresses"))?;
    }
    for route in &wanted.routes {
        let added = rtnl.add_route(link.index, route);
        added.map_err(|error| failed(wanted, &format!("route to {}", route.to), &error).field("routes"))?;
    }
    // What the kernel says of it waits in the device until the port is open.
    rtnl.set_mac(link.index, wanted.mac).map_err(step("word to its neighbours"))?;
    Ok((descriptors, link.index))
}

fn watch() -> io::Result<Socket> {
    let socket = links::watch()?;
    socket.set_rx_buf_sz(NEWS_BYTES as libc::c_int)?;
    Ok(socket)
}

fn failed(wanted: &Wanted, step: &str, error: &io::Error) -> ApiError {
    let text = format!("device {} in {}: {step}: {error}", wanted.device, wanted.place());
    ApiError::new(Code::System, text).field("device").hint("nothing of it was left behind")
}

/// Without it the frames of a flow would lie in two queues now and then and overtake each other.
fn no_steering(wanted: &Wanted, error: &io::Error) -> ApiError {
    let text = format!(
        "device {} in {} cannot have several queues: no program chooses between them: {error}",
        wanted.device,
        wanted.place()
    );
    let hint = "it needs Linux 4.16 and the right to load BPF programs: run as root, or give one queue";
    ApiError::new(Code::Unsupported, text).field("queues").hint(hint)
}

fn refused(wanted: &Wanted, name: &str, error: &io::Error) -> ApiError {
    let text = format!("device {name} in {}: the kernel refuses a TAP: {error}", wanted.place());
    let (code, hint) = match error.raw_os_error() {
        Some(libc::EBUSY) => (Code::Busy, "another program, or another switchd, has this device open"),
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => {
            (Code::Unsupported, "load the module: modprobe tun; in a container, pass /dev/net/tun to switchd")
        }
        Some(libc::EPERM | libc::EACCES) => {
            (Code::System, "it needs CAP_NET_ADMIN in that namespace: run as root")
        }
        Some(libc::EINVAL) => {
            (Code::Busy, "there is a device of this name that is no TAP, or has other queues")
        }
        _ => (Code::System, "see the kernel's log"),
    };
    ApiError::new(code, text).field("device").hint(hint)
}

impl Tap {
    /// One descriptor a queue.
    pub fn descriptors(&self) -> &[Arc<Descriptor>] {
        &self.descriptors
    }

    /// The device as it was last seen.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The namespace that it is in, if one was named.
    pub(super) fn home(&self) -> Option<&Home> {
        self.namespace.as_ref().map(Namespace::home)
    }

    /// Lets the device go with its last descriptor: the lanes' must be closed already.
    pub fn remove(self) -> io::Result<()> {
        self.descriptors[0].set_persistent(false)
    }

    /// Gives the device another MTU, or Ethernet's.
    pub fn set_mtu(&mut self, wanted: &Wanted) -> Result<(), ApiError> {
        let index = self.link.index;
        inside(wanted.netns.as_deref(), self.home(), |_| {
            let set = Rtnl::open().and_then(|rtnl| rtnl.set_mtu(index, u32::from(wanted.mtu)));
            set.map_err(|error| failed(wanted, "MTU", &error).field("settings.mtu"))
        })?;
        self.link.mtu = u32::from(wanted.mtu);
        Ok(())
    }

    /// Has the kernel say how the device is, and what it lost: the next look reads it.
    pub fn ask(&self) {
        // Should it not be possible, what was seen last is as good as it gets.
        _ = rtnl::ask_for(&self.news, self.link.index);
    }

    /// What happened to the device since the last look. Once a second, and bounded: see [`NEWS_BYTES`].
    pub fn look(&mut self) -> News {
        if let Some(namespace) = self.namespace.as_ref().filter(|namespace| !namespace.is_there()) {
            return News::Fallen(format!("its namespace {} is gone", namespace.path));
        }
        let mtu = self.link.mtu;
        for event in links::events(&self.news) {
            match event {
                LinkEvent::There(link) if link.index == self.link.index => self.link = link,
                LinkEvent::Gone(index) if index == self.link.index => {
                    return News::Fallen("its device was deleted, or moved to another namespace".into());
                }
                LinkEvent::Lost => {
                    self.ask();
                }
                LinkEvent::There(_) | LinkEvent::Gone(_) => {}
            }
        }
        if !self.link.is_up {
            let place = shown(self.namespace.as_ref().map(|namespace| namespace.path.as_str()));
            return News::Fallen(is_down(&self.link.name, &place));
        }
        if self.link.mtu == mtu { News::None } else { News::Mtu(self.link.mtu) }
    }
}

impl Namespace {
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Whether its path still leads to it. Our descriptors keep it alive, so it has to be let go of when
    /// nobody else can get to it.
    fn is_there(&self) -> bool {
        // To look is not to open: only in strangers' folders and processes it takes the keeper.
        let asked = |_| keeper::open_namespace(&self.path).and_then(|file| file.metadata());
        let now = std::fs::metadata(&self.path).or_else(asked);
        now.is_ok_and(|now| (now.dev(), now.ino()) == self.id)
    }
}
