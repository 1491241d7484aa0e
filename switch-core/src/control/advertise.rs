//! Router advertisements unasked (RFC 4861 §6.2.4): to everybody on a link, three soon after something is new, then at
//! random intervals, and a last one that says "no router any more" when it ends. Who asks is answered by the worker
//! that hears it.

use super::daemon::Daemon;
use crate::config::gateway::Gateway;
use crate::config::snapshot::Snapshot;
use crate::pipeline::ANNOUNCED_MAX;
use crate::worker::Command;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Soon after something is new: so many (`MAX_INITIAL_RTR_ADVERTISEMENTS`), so far apart at most
/// (`MAX_INITIAL_RTR_ADVERT_INTERVAL`).
const INITIAL: u8 = 3;
const INITIAL_INTERVAL_S: u32 = 16;
/// Who tells. One is enough, and every node has it.
const WORKER: u16 = 0;

/// A link that hears of us.
#[derive(Debug)]
struct Link {
    gateway: Arc<Gateway>,
    due_s: u32,
    told: u8,
}

/// Where the switch is a router that says so, by filtering identifier.
#[derive(Debug, Default)]
pub(super) struct Advertised {
    generation: u64,
    links: BTreeMap<u16, Link>,
    random: RandomState,
    drawn: u64,
}

impl Advertised {
    /// Notes what is different in a snapshot. Where the switch ceases to be a router: link and MAC.
    fn look(&mut self, snapshot: &Snapshot, now_s: u32) -> Vec<(u16, u64)> {
        if std::mem::replace(&mut self.generation, snapshot.generation) == snapshot.generation {
            return Vec::new();
        }
        let gateways = (0..).zip(snapshot.fids.iter()).filter_map(|(fid, facts)| {
            let gateway = facts.gateway.as_ref()?;
            (gateway.advert.is_some() && gateway.speaks_v6()).then(|| (fid, gateway.clone()))
        });
        let gateways: BTreeMap<u16, Arc<Gateway>> = gateways.collect();
        let goes =
            |fid: &u16, link: &Link| gateways.get(fid).is_none_or(|gateway| gateway.mac != link.gateway.mac);
        let gone = self.links.iter().filter(|(fid, link)| goes(fid, link));
        let gone = gone.map(|(fid, link)| (*fid, link.gateway.mac)).collect();
        self.links.retain(|fid, _| gateways.contains_key(fid));
        for (fid, gateway) in gateways {
            if self.links.get(&fid).is_none_or(|link| link.gateway != gateway) {
                self.links.insert(fid, Link { gateway, due_s: now_s, told: 0 });
            }
        }
        gone
    }

    /// Whose turn it is, each once; no more than a worker takes in one turn.
    fn next(&mut self, now_s: u32) -> Vec<u16> {
        let mut due = Vec::new();
        for (fid, link) in self.links.iter_mut().filter(|(_, link)| link.due_s <= now_s).take(ANNOUNCED_MAX) {
            self.drawn += 1;
            link.told = link.told.saturating_add(1);
            let most =
                link.gateway.advert.as_ref().map_or(INITIAL_INTERVAL_S, |advert| advert.interval_s.into());
            let most = if link.told < INITIAL { most.min(INITIAL_INTERVAL_S) } else { most };
            // Spread over two thirds of the interval, so that routers do not fall into step.
            let least = (most / 3).max(1);
            let random = self.random.hash_one(self.drawn) % u64::from(most - least + 1);
            link.due_s = now_s + least + random as u32;
            due.push(*fid);
        }
        due
    }
}

impl Daemon {
    /// Tells links of their router, where it is time. Called once a second.
    pub(super) fn advertise(&mut self, now_s: u32) {
        // A worker that takes no commands is told of elsewhere; hosts keep what they know for three intervals.
        for (fid, mac) in self.advertised.look(self.publisher.current(), now_s) {
            _ = self.doors.tell(WORKER, Command::Advertise(fid, Some(mac)));
        }
        for fid in self.advertised.next(now_s) {
            _ = self.doors.tell(WORKER, Command::Advertise(fid, None));
        }
    }

    /// The switch goes for good: no link has a router in it any more. A restart says nothing, because hosts would forget
    /// their default route while their packets could wait a second. Whether there is somebody to tell.
    pub(super) fn advertise_last(&mut self) -> bool {
        let links = std::mem::take(&mut self.advertised.links);
        let is_told = !links.is_empty();
        for (fid, link) in links {
            _ = self.doors.tell(WORKER, Command::Advertise(fid, Some(link.gateway.mac)));
        }
        is_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::gateway::Own;
    use crate::config::snapshot::FidFacts;
    use switch_api::RouterAdvert;

    fn snapshot(generation: u64, macs: &[u64]) -> Snapshot {
        let advert = Some(RouterAdvert { interval_s: 30, ..RouterAdvert::default() });
        let own = Own { ip: 1, len: 64 };
        let gateway =
            |mac: &u64| Gateway { mac: *mac, addresses: [own].into(), advert, ..Gateway::default() };
        let fid = |mac: &u64| FidFacts {
            gateway: (*mac != 0).then(|| Arc::new(gateway(mac))),
            ..FidFacts::default()
        };
        Snapshot { generation, fids: macs.iter().map(fid).collect(), ..Snapshot::empty() }
    }

    #[test]
    fn links_are_told_soon_and_then_at_intervals_that_differ() {
        let mut advertised = Advertised::default();
        assert!(advertised.look(&snapshot(1, &[0, 7]), 100).is_empty());
        let told: Vec<u32> = (100..2000).filter(|now_s| advertised.next(*now_s) == [1]).collect();
        let gaps: Vec<u32> = told.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(told[0], 100);
        assert!(gaps[..2].iter().all(|gap| (5..=16).contains(gap)), "{gaps:?}");
        assert!(gaps[2..].iter().all(|gap| (10..=30).contains(gap)), "{gaps:?}");
        assert!(gaps[2..].iter().any(|gap| *gap != gaps[2]), "{gaps:?}");
    }

    #[test]
    fn who_ceases_says_so_once() {
        let mut advertised = Advertised::default();
        advertised.look(&snapshot(1, &[0, 7, 8]), 100);
        assert_eq!(advertised.next(100), [1, 2]);
        // One goes, one has another MAC: hosts knew it by the old one, and are told of the new at once.
        assert_eq!(advertised.look(&snapshot(2, &[0, 0, 9]), 101), [(1, 7), (2, 8)]);
        assert_eq!(advertised.next(101), [2]);
        assert!(advertised.look(&snapshot(3, &[0, 0, 9]), 102).is_empty());
        assert!(advertised.next(102).is_empty());
    }
}
