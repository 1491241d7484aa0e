//! Contradictions, found all at once. Only a [`Checked`] model can be compiled, so whoever compiles
//! trusts every number and every reference.

use super::model::{Model, vids_of};
use super::nexthops::{MTU_MIN_V4, MTU_MIN_V6};
use super::shared::Nics;
use std::collections::BTreeMap;
use std::sync::Arc;
use switch_api::{
    ApiError, Cidr, Code, DeviceRoute, IPV6_MTU_MIN, Mac, Object, ObjectRef, Port, PortKind, RouterAdvert,
    StaticMac, Take, Vid, Vlan,
};

/// Rules in an XDP program's match table; it is walked for every frame, in the kernel.
pub const RULES_MAX: usize = 16;
/// Queues of one port, and entries of its program's socket map.
pub const QUEUES_MAX: u16 = 64;
/// Workers there can be: more cores than an edge node has.
pub const WORKERS_MAX: u16 = 64;
/// Smallest and largest MTU: RFC 791 asks for 68; a chunk of 4096 bytes carries no more than this.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 68..=3_800;
/// The same for devices that we make: what the kernel allows a TAP. A large frame carries it.
pub(crate) const OWN_MTU_RANGE: std::ops::RangeInclusive<u16> = 68..=65_521;
/// Queues of a TAP: more than the cores of an edge node that could serve them.
pub const TAP_QUEUES_MAX: u16 = 16;
/// Addresses a device is made with: a pod has one of each IP version and a few of its own.
pub(crate) const ADDRESSES_MAX: usize = 16;
/// Routes a device is made with: beyond a handful, a default route serves.
pub(crate) const ROUTES_MAX: usize = 64;
/// What the kernel takes (`ip_metrics_convert`, net/ipv4/metrics.c): a packet of 65 535 bytes without its headers.
pub(crate) const ADVMSS_MAX: u32 = 65_495;

/// Contradictions that a refusal tells: what a person reads. A gateway that goes may be one for every route.
const PROBLEMS_TOLD: usize = 16;
/// Contradictions that it lists, for a program that shows each at its place in a file.
const PROBLEMS_LISTED: usize = 256;
/// Labels of a port: what names a pod, and as many again.
pub(crate) const LABELS_MAX: usize = 16;

/// A model without contradictions.
#[derive(Clone, Debug)]
pub struct Checked(Model);

impl Checked {
    /// Checks. `workers` is how many there are.
    pub fn new(model: Model, workers: u16) -> Result<Self, ApiError> {
        Self::check(model, workers, true)
    }

    /// The same for what became of `before`, which has no contradictions: routes are looked at only if what they
    /// refer to is different.
    pub fn after(before: &Model, model: Model, workers: u16) -> Result<Self, ApiError> {
        let routes = !model.fits_routes_of(before);
        Self::check(model, workers, routes)
    }

    fn check(model: Model, workers: u16, routes: bool) -> Result<Self, ApiError> {
        let mut problems = Vec::new();
        for bridge in model.bridges.values() {
            if !(10..=1_000_000).contains(&bridge.object.ageing_s) {
                let text = "ageing is 10 to 1000000 seconds (IEEE 802.1Q table 8-3)";
                problems.push(Problem::new("ageing_s", text).about(&*bridge.object));
            }
            if let Some(advert) = &bridge.object.router_advert {
                problems.extend(check_advert(advert).map(|problem| problem.about(&*bridge.object)));
            }
        }
        for port in model.ports.values() {
            check_port(&model, &port.object, workers, &mut problems);
        }
        check_devices(&model, &mut problems);
        for entry in &model.static_macs {
            check_static(&model, entry, &mut problems);
        }
        super::addresses::check(&model, &mut problems);
        if routes {
            super::nexthops::check(&model, &mut problems);
        }
        super::uplink::check(&model, &mut problems);
        super::shared::check(&model, &mut problems);
        super::tunnels::check(&model, &mut problems);
        super::outside::check(&model, &mut problems);
        super::policies::check(&model, &mut problems);
        super::nats::check(&model, &mut problems);
        match problems.len() {
            0 => Ok(Self(model)),
            _ => Err(refusal(problems)),
        }
    }

    /// The same with what is seen of NICs now, which no declared object depends on.
    #[must_use]
    pub fn seeing(mut self, nics: Arc<Nics>) -> Self {
        self.0.nics = nics;
        self
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.0
    }

    /// The model, which goes into force.
    pub fn into_model(self) -> Model {
        self.0
    }
}

#[derive(Debug)]
pub(super) struct Problem {
    pub(super) field: &'static str,
    text: String,
    object: Option<ObjectRef>,
}

impl Problem {
    pub(super) fn new(field: &'static str, text: impl Into<String>) -> Self {
        Self { field, text: text.into(), object: None }
    }

    /// The same, about one object.
    pub(super) fn about<T: Object>(self, object: &T) -> Self {
        Self { object: Some(ObjectRef::of(object)), ..self }
    }
}

pub(super) fn refusal(problems: Vec<Problem>) -> ApiError {
    let field = problems[0].field;
    let each = problems.iter().take(PROBLEMS_LISTED).map(|problem| switch_api::Problem {
        object: problem.object.clone(),
        field: Some(problem.field.to_owned()),
        message: problem.text.clone(),
        hint: None,
    });
    let each: Vec<_> = each.collect();
    let more = problems.len().saturating_sub(PROBLEMS_TOLD);
    let mut texts: Vec<_> = problems.into_iter().take(PROBLEMS_TOLD).map(|problem| problem.text).collect();
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    let mut error = ApiError::new(Code::InvalidParams, texts.join("; "))
        .field(field)
        .hint("nothing was changed; correct the request and send it again");
    error.data.problems = each;
    error
}

fn check_advert(advert: &RouterAdvert) -> Option<Problem> {
    let lifetime_s = advert.lifetime_s();
    if !(4..=1800).contains(&advert.interval_s) {
        let text = "router advertisements are 4 to 1800 seconds apart (RFC 4861 section 6.2.1)";
        Some(Problem::new("router_advert.interval_s", text))
    } else if lifetime_s != 0 && !(advert.interval_s..=9000).contains(&lifetime_s) {
        let text = "a router's lifetime is 0, or from the interval of its advertisements to 9000 seconds (RFC 4861 section 6.2.1)";
        Some(Problem::new("router_advert.lifetime_s", text))
    } else {
        None
    }
}

fn check_port(model: &Model, port: &Port, workers: u16, problems: &mut Vec<Problem>) {
    let name = &port.name;
    let mut problem =
        |field, text: String| problems.push(Problem::new(field, format!("port {name}: {text}")).about(port));
    if !model.bridges.contains_key(&port.bridge) {
        problem("bridge", format!("there is no bridge named {}; add it first", port.bridge));
    }
    if let Vlan::Trunk { vids, .. } = &port.settings.vlan {
        if let Some(range) = vids.iter().find(|range| range.first > range.last) {
            problem("settings.vlan.vids", format!("{}-{} runs backwards", range.first, range.last));
        }
        if vids_of(&port.settings.vlan).next().is_none() {
            problem("settings.vlan.vids", "a trunk needs at least one VLAN".into());
        }
    }
    let named = [
        ("settings.worker", port.settings.worker.as_slice()),
        ("settings.queue_workers", &port.settings.queue_workers),
    ];
    for (field, named) in named {
        if let Some(worker) = named.iter().find(|worker| **worker >= workers) {
            problem(field, format!("there is no worker {worker}, only 0 to {}", workers - 1));
        }
    }
    if port.settings.worker.is_some() && !port.settings.queue_workers.is_empty() {
        problem(
            "settings.queue_workers",
            "one worker for all queues is named as well: leave out one of the two".into(),
        );
    }
    if port.settings.queue_workers.len() > usize::from(QUEUES_MAX) {
        problem("settings.queue_workers", format!("more than {QUEUES_MAX} queues are not served"));
    }
    let mtu_range = if has_own_device(&port.kind) { OWN_MTU_RANGE } else { MTU_RANGE };
    if let Some(mtu) = port.settings.mtu.filter(|mtu| !mtu_range.contains(mtu)) {
        problem("settings.mtu", format!("an MTU of {mtu} is not possible, use 68 to {}", mtu_range.end()));
    }
    if port.settings.mtu_follows && port.kind.pod_addresses().is_none() {
        problem("settings.mtu_follows", "only a device that the switch makes in a pod follows".into());
    }
    if let Some(guard) = &port.settings.source_guard {
        super::source_guard::check(guard, |text| problem("settings.source_guard", text));
    }
    super::rates::check(&port.settings.limits, |text| problem("settings.limits", text));
    let bad = |text: &String, len_max| text.len() > len_max || text.chars().any(char::is_control);
    if port.labels.len() > LABELS_MAX
        || port.labels.iter().any(|(key, value)| bad(key, 63) || bad(value, 256))
    {
        problem(
            "labels",
            format!("at most {LABELS_MAX} labels, of 63 and 256 bytes, without control characters"),
        );
    }
    match &port.kind {
        PortKind::Xdp { device, queues, ring_size, take, dead_after_ms, pod, .. } => {
            check_name(device, &mut problem);
            if let Some(end) = pod {
                check_name(&end.device, &mut problem);
                check_netns(&end.netns, &mut problem);
                check_dress(end.mac, &end.addresses, &end.routes, port.settings.mtu, &mut problem);
            }
            if *queues > QUEUES_MAX {
                problem("queues", format!("at most {QUEUES_MAX} queues"));
            }
            if !ring_size.is_power_of_two() || !(64..=8192).contains(ring_size) {
                problem(
                    "ring_size",
                    format!("{ring_size} is no ring size: use a power of two from 64 to 8192"),
                );
            }
            if !(10..=60_000).contains(dead_after_ms) {
                problem("dead_after_ms", "use 10 to 60000 milliseconds".into());
            }
            if let Take::Matching { rules } = take {
                if rules.is_empty() || rules.len() > RULES_MAX {
                    problem("take.rules", format!("give 1 to {RULES_MAX} rules"));
                }
                for rule in rules {
                    if let Err(text) = super::snapshot::parse_rule(rule) {
                        problem("take.rules", text);
                    }
                }
            }
        }
        PortKind::Tap { device, netns, mac, addresses, routes, queues } => {
            check_name(device, &mut problem);
            if let Some(path) = netns {
                check_netns(path, &mut problem);
            }
            if !(1..=TAP_QUEUES_MAX).contains(queues) {
                problem("queues", format!("use 1 to {TAP_QUEUES_MAX} queues"));
            }
            check_dress(*mac, addresses, routes, port.settings.mtu, &mut problem);
        }
        PortKind::Host { device, mac, addresses, routes } => {
            check_name(device, &mut problem);
            check_dress(*mac, addresses, routes, port.settings.mtu, &mut problem);
        }
        PortKind::Memory { source: Some(source) } => {
            if !(1..=1_000_000).contains(&source.flows) || !(60..=1514).contains(&source.frame_len) {
                problem("source", "1 to 1000000 flows of frames of 60 to 1514 bytes".into());
            }
        }
        PortKind::Pcap { read: None, write: None } => {
            problem("read", "a pcap port reads a capture, writes one, or both".into());
        }
        // Of tunnels there is more to be said than of one port.
        PortKind::Memory { .. } | PortKind::Pcap { .. } | PortKind::Vxlan { .. } => {}
    }
}

fn has_own_device(kind: &PortKind) -> bool {
    kind.pod_addresses().is_some() || matches!(kind, PortKind::Host { .. })
}

fn check_netns(path: &str, problem: &mut impl FnMut(&'static str, String)) {
    if !path.starts_with('/') || path.contains('\0') {
        problem("netns", "give an absolute path, like /run/netns/NAME".into());
    }
}

fn check_name(device: &str, problem: &mut impl FnMut(&'static str, String)) {
    // IFNAMSIZ (linux/if.h) counts the final zero.
    if device.is_empty() || device.len() > 15 || device.contains(['/', ' ', ':', '%', '\0']) {
        let text = format!("{device:?} is no device name: 1 to 15 characters, no slash, space, colon or %");
        problem("device", text);
    }
}

/// What a device of our own is made with.
fn check_dress(
    mac: Option<Mac>,
    addresses: &[Cidr],
    routes: &[DeviceRoute],
    mtu: Option<u16>,
    problem: &mut impl FnMut(&'static str, String),
) {
    if let Some(mac) = mac.filter(|mac| mac.is_group() || mac.is_zero()) {
        problem("mac", format!("{mac} is no station's address"));
    }
    if addresses.len() > ADDRESSES_MAX {
        problem("addresses", format!("at most {ADDRESSES_MAX} addresses"));
    }
    for (i, cidr) in addresses.iter().enumerate() {
        if cidr.address().is_unspecified() || cidr.address().is_multicast() {
            problem("addresses", format!("{cidr} is no station's address"));
        }
        if addresses[..i].contains(cidr) {
            problem("addresses", format!("{cidr} is there twice"));
        }
    }
    if mtu.is_some_and(|mtu| mtu < IPV6_MTU_MIN) && addresses.iter().any(|cidr| cidr.address().is_ipv6()) {
        problem("settings.mtu", format!("IPv6 wants an MTU of at least {IPV6_MTU_MIN} (RFC 8200 §5)"));
    }
    if routes.len() > ROUTES_MAX {
        problem("routes", format!("at most {ROUTES_MAX} routes"));
    }
    for route in routes {
        if !route.to.is_network() {
            problem("routes", format!("{} names a host in a network: leave its host bits 0", route.to));
        }
        if route.via.is_some_and(|via| via.is_ipv4() != route.to.address().is_ipv4()) {
            problem("routes", format!("the next hop to {} is of the other IP version", route.to));
        }
        let mtu_min = if route.to.address().is_ipv6() { MTU_MIN_V6 } else { MTU_MIN_V4 };
        if let Some(mtu) = route.mtu.filter(|mtu| !(u32::from(mtu_min)..=65_535).contains(mtu)) {
            problem("routes", format!("an MTU of {mtu} to {}: use {mtu_min} to 65535", route.to));
        }
        if route.table == Some(0) {
            problem("routes", format!("table 0, of the route to {}, is none: use 1 or more", route.to));
        }
        if let Some(advmss) = route.advmss.filter(|advmss| !(1..=ADVMSS_MAX).contains(advmss)) {
            problem("routes", format!("segments of {advmss} bytes to {}: use 1 to {ADVMSS_MAX}", route.to));
        }
    }
}

/// A device belongs to one port; names count in each namespace by themselves.
fn check_devices(model: &Model, problems: &mut Vec<Problem>) {
    let mut owners = BTreeMap::new();
    for port in model.ports.values() {
        for place in places(&port.object.kind) {
            if let Some(other) = owners.insert(place, &port.object.name) {
                let text =
                    format!("device {} cannot be two ports: {other} and {}", place.1, port.object.name);
                problems.push(Problem::new("device", text).about(&*port.object));
            }
        }
    }
}

/// Where a port has its devices, and their names.
pub fn places(kind: &PortKind) -> impl Iterator<Item = (Option<&String>, &String)> {
    let (own, pods) = match kind {
        PortKind::Xdp { device, pod, .. } => {
            (Some((None, device)), pod.as_ref().map(|end| (Some(&end.netns), &end.device)))
        }
        PortKind::Host { device, .. } => (Some((None, device)), None),
        PortKind::Tap { device, netns, .. } => (Some((netns.as_ref(), device)), None),
        PortKind::Memory { .. } | PortKind::Pcap { .. } | PortKind::Vxlan { .. } => (None, None),
    };
    own.into_iter().chain(pods)
}

fn check_static(model: &Model, entry: &StaticMac, problems: &mut Vec<Problem>) {
    let mac = entry.mac;
    let mut problem = |field, text: String| problems.push(Problem::new(field, text).about(entry));
    if mac.is_group() || mac.is_zero() {
        problem("mac", format!("{mac} is no station's address"));
    }
    let Some(port) = model.ports.get(&entry.port).map(|port| &*port.object) else {
        return problem("port", format!("static MAC {mac}: there is no port named {}", entry.port));
    };
    if port.bridge != entry.bridge {
        problem("port", format!("static MAC {mac}: port {} is on bridge {}", entry.port, port.bridge));
    }
    if !is_member(&port.settings.vlan, entry.vid) {
        problem("vid", format!("static MAC {mac}: port {} is not in VLAN {}", entry.port, entry.vid));
    }
}

fn is_member(vlan: &Vlan, vid: Vid) -> bool {
    vids_of(vlan).any(|member| member == vid)
}
