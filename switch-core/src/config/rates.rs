//! How fast a port may send and be sent, as the pipeline reads it.

use arrayvec::ArrayVec;
use switch_api::{LIMIT_MAX, PortLimits};

/// A rate, and what may come at once above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// A second.
    pub per_s: u64,
    /// At once.
    pub burst: u64,
}

/// The limits of one direction; at least one of the two is there, unless nothing is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Of packets; a superframe counts as its segments.
    pub packets: Option<Rate>,
    /// Of bytes on the wire, from the destination MAC on, without FCS.
    pub bytes: Option<Rate>,
}

impl Pace {
    /// Whether nothing is limited.
    #[inline(always)]
    pub fn is_none(&self) -> bool {
        self.packets.is_none() && self.bytes.is_none()
    }
}

/// The limits of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of what comes in by it.
    pub rx: Pace,
    /// Of what leaves by it.
    pub tx: Pace,
}

impl Rates {
    /// As declared; none if nothing is limited.
    pub fn new(limits: &PortLimits) -> Option<Self> {
        let packets = |limit: switch_api::Limit| Rate { per_s: limit.per_s, burst: limit.burst_packets() };
        let bytes = |limit: switch_api::Limit| Rate { per_s: limit.per_s, burst: limit.burst_bytes() };
        let rx = Pace { packets: limits.rx_packets.map(packets), bytes: limits.rx_bytes.map(bytes) };
        let tx = Pace { packets: limits.tx_packets.map(packets), bytes: limits.tx_bytes.map(bytes) };
        limits.each().iter().any(|(_, limit)| limit.is_some()).then_some(Self { rx, tx })
    }
}

/// A worker's part of a port's limit: as many of all its lanes as it serves. So the workers together never let more
/// through than the port may, without telling each other anything; what one does not use, another does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Lanes of this worker; 1 or more.
    pub own: u32,
    /// Of so many.
    pub of: u32,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { own: 1, of: 1 };

    /// That of `worker` in a port with `lanes`. One that serves none, because a lane is moving, counts as if it had one.
    pub fn of<const N: usize>(lanes: &ArrayVec<u16, N>, worker: u16) -> Self {
        if lanes.len() <= 1 {
            return Self::WHOLE;
        }
        let own = lanes.iter().filter(|lane| **lane == worker).count().max(1);
        Self { own: own as u32, of: lanes.len() as u32 }
    }
}

/// Tells what is wrong with limits.
pub(super) fn check(limits: &PortLimits, mut problem: impl FnMut(String)) {
    if limits.connections == Some(0) {
        problem("connections: 1 or more; leave the limit out for none, and let a rule of an access control list deny all".into());
    }
    let is_possible = |n: u64| (1..=LIMIT_MAX).contains(&n);
    for (field, limit) in limits.each() {
        let Some(limit) = limit else { continue };
        if !is_possible(limit.per_s) || !limit.burst.is_none_or(is_possible) {
            problem(format!(
                "{field}: a rate and a burst are 1 to {LIMIT_MAX}; leave the limit out for none"
            ));
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use switch_api::Limit;

    #[test]
    fn what_is_not_said_of_a_burst_has_room_for_a_superframe() {
        let limit = |per_s, burst| Some(Limit { per_s, burst });
        let limits = PortLimits {
            rx_bytes: limit(1000, None),
            tx_packets: limit(10_000, Some(3)),
            ..Default::default()
        };
        let rates = Rates::new(&limits).unwrap();
        assert_eq!(rates.rx, Pace { packets: None, bytes: Some(Rate { per_s: 1000, burst: 65_536 }) });
        assert_eq!(rates.tx, Pace { packets: Some(Rate { per_s: 10_000, burst: 3 }), bytes: None });
        assert_eq!(Rates::new(&PortLimits::default()), None);
        assert_eq!(limit(10_000_000, None).unwrap().burst_bytes(), 2_500_000);
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        let lanes: ArrayVec<u16, 8> = [0, 1, 1, 2].into_iter().collect();
        let shares: Vec<_> = (0..3).map(|worker| Share::of(&lanes, worker)).collect();
        assert_eq!(shares.iter().map(|share| share.own).sum::<u32>(), 4);
        assert!(shares.iter().all(|share| share.of == 4));
        assert_eq!(Share::of(&ArrayVec::<u16, 8>::new(), 0), Share::WHOLE);
    }

    #[test]
    fn impossible_rates_are_named() {
        let none = Some(Limit { per_s: 0, burst: None });
        let mut said = Vec::new();
        check(&PortLimits { tx_bytes: none, ..Default::default() }, |text| said.push(text));
        assert!(said.len() == 1 && said[0].starts_with("tx_bytes"));
    }
}
