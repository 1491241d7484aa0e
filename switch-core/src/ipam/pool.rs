//! A declared pool, checked and made into spaces: one of each range.

use super::RANGES_MAX;
use super::space::{Interval, Space};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switch_api::{ApiError, Code, IpNet, Pool, PoolRange, Span};

/// A range and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// As declared.
    pub declared: PoolRange,
    /// Its addresses.
    pub space: Space,
}

impl Range {
    /// Whether it is of the IPv6 family.
    pub fn is_ipv6(&self) -> bool {
        self.declared.subnet.addr().is_ipv6()
    }

    /// The number of an address, if the range could give it out.
    pub fn number(&self, address: IpAddr) -> Option<u128> {
        let number = to_number(address);
        (address.is_ipv6() == self.is_ipv6() && self.space.contains(number)).then_some(number)
    }

    /// The address of a number.
    pub fn address(&self, number: u128) -> IpAddr {
        match self.is_ipv6() {
            true => IpAddr::V6(Ipv6Addr::from(number)),
            false => IpAddr::V4(Ipv4Addr::from(number as u32)),
        }
    }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn interval(first: IpAddr, last: IpAddr) -> Interval {
    (to_number(first), to_number(last))
}

/// A pool's ranges, all its addresses free; or everything that is wrong with it.
pub fn ranges_of(pool: &Pool) -> Result<Vec<Range>, ApiError> {
    let mut problems = Vec::new();
    if pool.ranges.is_empty() || pool.ranges.len() > RANGES_MAX {
        problems.push(format!("a pool has 1 to {RANGES_MAX} ranges"));
    }
    let mut ranges: Vec<Range> = Vec::new();
    for declared in pool.ranges.iter().take(RANGES_MAX) {
        match range_of(declared) {
            Ok(range) => ranges.push(range),
            Err(more) => problems.extend(more),
        }
    }
    for (at, range) in ranges.iter().enumerate() {
        let others = &ranges[..at];
        if let Some(other) = others.iter().find(|other| overlap(other, range)) {
            let (one, two) = (&other.declared.subnet, &range.declared.subnet);
            problems.push(format!("the ranges of {one} and {two} overlap"));
        }
    }
    match problems.is_empty() {
        true => Ok(ranges),
        false => {
            Err(ApiError::new(Code::InvalidParams, format!("pool {}: {}", pool.name, problems.join("; ")))
                .field("ranges")
                .hint("nothing was changed; correct the ranges and send them again"))
        }
    }
}

/// Whether two ranges have an address in common.
pub fn overlap(one: &Range, two: &Range) -> bool {
    let bounds = |range: &Range| bounds(&range.declared);
    let ((a, b), (c, d)) = (bounds(one), bounds(two));
    one.is_ipv6() == two.is_ipv6() && a <= d && c <= b
}

/// The lowest and highest number of a range, exclusions not looked at.
fn bounds(range: &PoolRange) -> Interval {
    let (network, broadcast) = (range.subnet.network(), range.subnet.broadcast());
    interval(range.first.unwrap_or(network), range.last.unwrap_or(broadcast))
}

fn range_of(declared: &PoolRange) -> Result<Range, Vec<String>> {
    let subnet = declared.subnet;
    let mut problems = problems_of(declared);
    let excluded: Vec<Interval> =
        declared.exclude.iter().map(|span| interval(span.first(), span.last())).collect();
    let all: Vec<Interval> = excluded.into_iter().chain(never_given(declared)).collect();
    let space = Space::new(bounds(declared), &all);
    if problems.is_empty() && space.figures().0 == 0 {
        problems.push(format!("the range of {subnet} has no address to give out"));
    }
    match problems.is_empty() {
        true => Ok(Range { declared: declared.clone(), space }),
        false => Err(problems),
    }
}

fn problems_of(declared: &PoolRange) -> Vec<String> {
    let subnet = declared.subnet;
    let mut problems = Vec::new();
    if subnet.addr() != subnet.network() {
        problems.push(format!("{subnet} is not a subnet: write {}", subnet.trunc()));
    }
    if is_special(subnet.addr()) {
        problems.push(format!("no host can have an address of {subnet}"));
    }
    let named = [("first", declared.first), ("last", declared.last), ("gateway", declared.gateway)];
    for (field, address) in named.into_iter().filter_map(|(field, address)| Some((field, address?))) {
        // A gateway of another subnet is reached on-link: fe80::1 is a common one.
        let far =
            field == "gateway" && address.is_ipv6() == subnet.addr().is_ipv6() && !address.is_multicast();
        if !far && !subnet.contains(&address) {
            problems.push(format!("{field} {address} is not in {subnet}"));
        }
    }
    let (first, last) = bounds(declared);
    if first > last {
        problems.push(format!("the range of {subnet} ends before it begins"));
    }
    if declared.exclude.len() > RANGES_MAX {
        problems.push(format!("{subnet}: at most {RANGES_MAX} exclusions"));
    }
    let outside = |span: &&Span| !subnet.contains(&span.first()) || !subnet.contains(&span.last());
    if let Some(span) = declared.exclude.iter().find(outside) {
        problems.push(format!("the exclusion {span} is not in {subnet}"));
    }
    problems
}

/// What no range gives out: the subnet's own address (RFC 4291 §2.6.1: every router's), the broadcast
/// address, the gateway. Subnets of one or two addresses have neither of the first two (RFC 3021, RFC 6164).
fn never_given(declared: &PoolRange) -> impl Iterator<Item = Interval> {
    let subnet = declared.subnet;
    let one = |address: IpAddr| interval(address, address);
    let small = subnet.max_prefix_len() - subnet.prefix_len() <= 1;
    let network = (!small).then(|| one(subnet.network()));
    let broadcast = (!small && subnet.addr().is_ipv4()).then(|| one(subnet.broadcast()));
    let gateway = declared.gateway.filter(|gateway| gateway.is_ipv6() == subnet.addr().is_ipv6()).map(one);
    network.into_iter().chain(broadcast).chain(gateway)
}

fn is_special(address: IpAddr) -> bool {
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let zero = matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0);
    address.is_multicast() || address.is_loopback() || address.is_unspecified() || mapped || zero
}

/// An address with the length of its range's subnet.
pub fn with_length(range: &Range, address: IpAddr) -> IpNet {
    // The length is that of a subnet of the same family, so it fits.
    IpNet::new(address, range.declared.subnet.prefix_len()).unwrap_or(IpNet::from(address))
}
