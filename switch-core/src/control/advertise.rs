//! Router advertisements unasked (RFC 4861 §6.2.4): to everybody on a link, three soon after something is new, then at
//! random intervals, and three last ones that say "no router any more" when it ends (§6.2.5). A network that a gateway has
//! lost goes along for a while as one that is not to be used any more. Who asks is answered by the worker that hears it.

use super::daemon::Daemon;
use crate::config::gateway::{Gateway, is_v4};
use crate::config::snapshot::Snapshot;
use crate::host::advert::{AUTONOMOUS_LEN, WITHDRAWN_MAX, Withdrawn};
use crate::pipeline::{ANNOUNCED_MAX, Advertising};
use crate::worker::Command;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Soon after something is new: so many (`MAX_INITIAL_RTR_ADVERTISEMENTS`), so far apart at most
/// (`MAX_INITIAL_RTR_ADVERT_INTERVAL`).
const INITIAL: u8 = 3;
const INITIAL_INTERVAL_S: u32 = 16;
/// When it ends: so many (`MAX_FINAL_RTR_ADVERTISEMENTS`), so far apart (`MIN_DELAY_BETWEEN_RAS`).
const FINAL: u8 = 3;
const FINAL_INTERVAL_S: u32 = 3;
/// So long a link is told of a network it has lost: no longer do hosts keep addresses of it (RFC 4862 §5.5.3 e).
const WITHDRAWN_S: u32 = 7200;
/// Who tells. One is enough, and every node has it.
const WORKER: u16 = 0;

/// A link that hears of us.
#[derive(Debug)]
struct Link {
    gateway: Arc<Gateway>,
    due_s: u32,
    told: u8,
    /// Networks it has lost, and until when that is told.
    lost: Vec<(u128, u32)>,
}

/// A router that is none any more.
#[derive(Debug)]
struct Last {
    fid: u16,
    mac: u64,
    lost: Withdrawn,
    due_s: u32,
    /// Times that it is to be told still.
    left: u8,
}

/// Where the switch is a router that says so, by filtering identifier; and where it was.
#[derive(Debug, Default)]
pub(super) struct Advertised {
    generation: u64,
    links: BTreeMap<u16, Link>,
    lasts: Vec<Last>,
    random: RandomState,
    drawn: u64,
}

impl Advertised {
    /// Notes what is different in a snapshot.
    fn look(&mut self, snapshot: &Snapshot, now_s: u32) {
        if std::mem::replace(&mut self.generation, snapshot.generation) == snapshot.generation {
            return;
        }
        let gateway = |fid: u16| snapshot.fids.get(usize::from(fid))?.gateway.as_ref();
        let advertises = |gateway: &&Arc<Gateway>| gateway.advert.is_some() && gateway.speaks_v6();
        for (fid, link) in std::mem::take(&mut self.links) {
            let lost = link.gateway.lost(gateway(fid).map(|now| &**now));
            match gateway(fid).filter(advertises) {
                Some(now) if now.mac == link.gateway.mac => self.go_on(fid, link, now, lost, now_s),
                _ => self.lasts.push(Last { fid, mac: link.gateway.mac, lost, due_s: now_s, left: FINAL }),
            }
        }
        for (fid, facts) in (0..).zip(snapshot.fids.iter()) {
            let Some(now) = facts.gateway.as_ref() else { continue };
            // What is there again is withdrawn no more.
            let is_lost = |network: &u128| !now.networks().any(|has| has == *network);
            self.lasts
                .iter_mut()
                .filter(|last| last.fid == fid)
                .for_each(|last| last.lost.retain(|lost| is_lost(lost)));
            if advertises(&now) {
                self.lasts.retain(|last| (last.fid, last.mac) != (fid, now.mac));
                let new = || Link { gateway: now.clone(), due_s: now_s, told: 0, lost: Vec::new() };
                self.links.entry(fid).or_insert_with(new);
            }
        }
    }

    /// The same router on the same link, which may have other networks now.
    fn go_on(&mut self, fid: u16, mut link: Link, now: &Arc<Gateway>, lost: Withdrawn, now_s: u32) {
        if link.gateway != *now {
            (link.gateway, link.due_s, link.told) = (now.clone(), now_s, 0);
        }
        link.lost.extend(lost.into_iter().map(|network| (network, now_s.saturating_add(WITHDRAWN_S))));
        link.lost.retain(|(lost, _)| !now.networks().any(|has| has == *lost));
        self.links.insert(fid, link);
    }

    /// Whom to tell what, each link once; no more than a worker takes in one turn.
    fn next(&mut self, now_s: u32) -> Vec<Advertising> {
        let mut due = Vec::new();
        for last in self.lasts.iter_mut().filter(|last| last.due_s <= now_s).take(ANNOUNCED_MAX) {
            (last.left, last.due_s) = (last.left - 1, now_s + FINAL_INTERVAL_S);
            due.push(Advertising { fid: last.fid, last: Some(last.mac), withdrawn: last.lost.clone() });
        }
        self.lasts.retain(|last| last.left > 0);
        let room = ANNOUNCED_MAX - due.len();
        for (fid, link) in self.links.iter_mut().filter(|(_, link)| link.due_s <= now_s).take(room) {
            self.drawn += 1;
            link.told = link.told.saturating_add(1);
            link.lost.retain(|(_, until_s)| *until_s > now_s);
            let most =
                link.gateway.advert.as_ref().map_or(INITIAL_INTERVAL_S, |advert| advert.interval_s.into());
            let most = if link.told < INITIAL { most.min(INITIAL_INTERVAL_S) } else { most };
            // Spread over two thirds of the interval, so that routers do not fall into step.
            let least = (most / 3).max(1);
            let random = self.random.hash_one(self.drawn) % u64::from(most - least + 1);
            link.due_s = now_s + least + random as u32;
            // The newest: of the others hosts have heard longest.
            let withdrawn = link.lost.iter().rev().map(|(network, _)| *network).take(WITHDRAWN_MAX).collect();
            due.push(Advertising { fid: *fid, last: None, withdrawn });
        }
        due
    }

    /// Every link is left; what hosts are told of that.
    fn leave(&mut self) -> Vec<Advertising> {
        let links = std::mem::take(&mut self.links).into_iter();
        let last = |(fid, link): (u16, Link)| Advertising {
            fid,
            last: Some(link.gateway.mac),
            withdrawn: link.gateway.lost(None),
        };
        links.map(last).collect()
    }
}

impl Gateway {
    /// Networks of which hosts make addresses.
    fn networks(&self) -> impl Iterator<Item = u128> {
        let own = self.addresses.iter().filter(|own| !is_v4(own.ip) && own.len == AUTONOMOUS_LEN);
        own.map(|own| own.network())
    }

    /// Networks that hosts made addresses of, as this gateway said, and that it has no more `now`.
    fn lost(&self, now: Option<&Self>) -> Withdrawn {
        let said = self.advert.is_some_and(|advert| advert.autonomous);
        let has = |network: &u128| now.is_some_and(|now| now.networks().any(|has| has == *network));
        self.networks().filter(|network| said && !has(network)).take(WITHDRAWN_MAX).collect()
    }
}

impl Daemon {
    /// Tells links of their router, where it is time. Called once a second.
    pub(super) fn advertise(&mut self, now_s: u32) {
        self.advertised.look(self.publisher.current(), now_s);
        // A worker that takes no commands is told of elsewhere; hosts keep what they know for three intervals.
        for said in self.advertised.next(now_s) {
            _ = self.doors.tell(WORKER, Command::Advertise(Box::new(said)));
        }
    }

    /// The switch goes for good: no link has a router in it any more. That is said once, for nobody waits for the other two
    /// times. A restart says nothing, because hosts would forget their default route while their packets could wait a
    /// second. Whether there is somebody to tell.
    pub(super) fn advertise_last(&mut self) -> bool {
        let all = self.advertised.leave();
        let is_told = !all.is_empty();
        for said in all {
            _ = self.doors.tell(WORKER, Command::Advertise(Box::new(said)));
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
        advertised.look(&snapshot(1, &[0, 7]), 100);
        let told: Vec<u32> = (100..2000).filter(|now_s| advertised.next(*now_s) == [is(1)]).collect();
        let gaps: Vec<u32> = told.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(told[0], 100);
        assert!(gaps[..2].iter().all(|gap| (5..=16).contains(gap)), "{gaps:?}");
        assert!(gaps[2..].iter().all(|gap| (10..=30).contains(gap)), "{gaps:?}");
        assert!(gaps[2..].iter().any(|gap| *gap != gaps[2]), "{gaps:?}");
    }

    fn is(fid: u16) -> Advertising {
        Advertising { fid, ..Advertising::default() }
    }

    fn was(fid: u16, mac: u64) -> Advertising {
        Advertising { fid, last: Some(mac), ..Advertising::default() }
    }

    #[test]
    fn who_ceases_says_so_three_times() {
        let mut advertised = Advertised::default();
        advertised.look(&snapshot(1, &[0, 7, 8]), 100);
        assert_eq!(advertised.next(100), [is(1), is(2)]);
        // One goes, one has another MAC: hosts knew it by the old one, and are told of the new at once. The network is
        // still that of the second.
        advertised.look(&snapshot(2, &[0, 0, 9]), 101);
        let gone = Advertising { withdrawn: Withdrawn::from_iter([0]), ..was(1, 7) };
        assert_eq!(advertised.next(101), [gone.clone(), was(2, 8), is(2)]);
        advertised.look(&snapshot(3, &[0, 0, 9]), 102);
        let told: Vec<(u32, Advertising)> = (102..200)
            .flat_map(|now_s| advertised.next(now_s).into_iter().map(move |said| (now_s, said)))
            .filter(|(_, said)| said.last.is_some())
            .collect();
        let expected = [(104, gone.clone()), (104, was(2, 8)), (107, gone), (107, was(2, 8))];
        assert_eq!(told, expected);
    }

    /// Who is a router again before it has said all is heard as one.
    #[test]
    fn who_comes_back_takes_back_what_it_said() {
        let mut advertised = Advertised::default();
        advertised.look(&snapshot(1, &[7]), 100);
        assert_eq!(advertised.next(100), [is(0)]);
        advertised.look(&snapshot(2, &[0]), 101);
        assert_eq!(advertised.next(101).len(), 1);
        advertised.look(&snapshot(3, &[7]), 102);
        let told: Vec<Advertising> = (102..200).flat_map(|now_s| advertised.next(now_s)).collect();
        assert!(told.iter().all(|said| *said == is(0)) && !told.is_empty(), "{told:?}");
    }

    #[test]
    fn a_network_that_is_lost_is_told_of_for_two_hours_or_until_it_is_back() {
        let net = |n: u128| 0xfd00 << 112 | n << 64;
        let with = |generation, networks: &[u128], autonomous| {
            let snapshot = snapshot(generation, &[7]);
            let mut gateway = (**snapshot.fids[0].gateway.as_ref().unwrap()).clone();
            gateway.addresses = networks.iter().map(|n| Own { ip: net(*n) | 1, len: 64 }).collect();
            gateway.advert.as_mut().unwrap().autonomous = autonomous;
            let fid = FidFacts { gateway: Some(Arc::new(gateway)), ..FidFacts::default() };
            Snapshot { fids: [fid].into(), ..snapshot }
        };
        let mut advertised = Advertised::default();
        advertised.look(&with(1, &[1, 2, 3], true), 100);
        assert_eq!(advertised.next(100), [is(0)]);
        advertised.look(&with(2, &[1], true), 200);
        let lost = |networks: &[u128]| Advertising {
            withdrawn: networks.iter().map(|n| net(*n)).collect(),
            ..is(0)
        };
        assert_eq!(advertised.next(200), [lost(&[3, 2])]);
        advertised.look(&with(3, &[1, 2], true), 300);
        assert_eq!(advertised.next(300), [lost(&[3])]);
        let told: Vec<(u32, Advertising)> = (301..9000)
            .flat_map(|now_s| advertised.next(now_s).into_iter().map(move |said| (now_s, said)))
            .collect();
        let is_lost = |now_s| now_s < 200 + WITHDRAWN_S;
        assert!(told.iter().all(|(now_s, said)| *said == lost(if is_lost(*now_s) { &[3] } else { &[] })));
        // Nobody made addresses of it.
        advertised.look(&with(4, &[1, 2], false), 9000);
        advertised.look(&with(5, &[1], false), 9001);
        assert_eq!(advertised.next(9001), [lost(&[])]);
        assert_eq!(advertised.leave(), [was(0, 7)]);
        advertised.look(&with(6, &[1], true), 9002);
        assert_eq!(
            advertised.leave(),
            [Advertising { withdrawn: Withdrawn::from_iter([net(1)]), ..was(0, 7) }]
        );
    }
}
