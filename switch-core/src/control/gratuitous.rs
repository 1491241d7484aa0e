//! The switch tells its neighbours of itself unasked: when a gateway's address or MAC is new, and after a start. Whoever
//! remembers an older station would speak to nobody until it asks again (ARP announcements, RFC 5227 §2.3;
//! unsolicited advertisements, RFC 4861 §7.2.6).

use super::daemon::Daemon;
use crate::config::gateway::{Gateway, Own};
use crate::config::snapshot::Snapshot;
use crate::pipeline::ANNOUNCED_MAX;
use crate::worker::Command;
use std::collections::{BTreeMap, VecDeque};

/// How often each is told, a tick apart (`ANNOUNCE_NUM` of RFC 5227): one may be lost.
const TIMES: u8 = 2;
/// Who tells. One is enough, and every node has it.
const WORKER: u16 = 0;

/// MAC, own addresses, and those of translation that it answers for.
type Known = (u64, Box<[Own]>, Box<[u128]>);

/// What was told of each gateway.
#[derive(Debug, Default)]
pub(super) struct Announced {
    generation: u64,
    /// By filtering identifier.
    told: BTreeMap<u16, Known>,
    /// Still to be told, and how often.
    due: VecDeque<(u16, u8)>,
}

impl Announced {
    /// Notes which gateways of a snapshot are not as they were told.
    fn look(&mut self, snapshot: &Snapshot) {
        if std::mem::replace(&mut self.generation, snapshot.generation) == snapshot.generation {
            return;
        }
        let gateways =
            (0..).zip(snapshot.fids.iter()).filter_map(|(fid, facts)| Some((fid, facts.gateway.as_deref()?)));
        let gateways = gateways.filter_map(|(fid, gateway)| Some((fid, known(gateway)?)));
        let gateways: BTreeMap<u16, Known> = gateways.collect();
        self.told.retain(|fid, _| gateways.contains_key(fid));
        for (fid, gateway) in gateways {
            if self.told.get(&fid) != Some(&gateway) {
                self.told.insert(fid, gateway);
                self.due.retain(|(due, _)| *due != fid);
                self.due.push_back((fid, TIMES));
            }
        }
    }

    /// Whose turn it is, each once; no more than a worker takes in one turn.
    fn next(&mut self) -> Vec<u16> {
        let count = self.due.len().min(ANNOUNCED_MAX);
        let now: Vec<_> = self.due.drain(..count).collect();
        self.due.extend(now.iter().filter(|(_, left)| *left > 1).map(|(fid, left)| (*fid, left - 1)));
        now.into_iter().map(|(fid, _)| fid).collect()
    }
}

/// What there is to tell of a gateway. Of its own addresses the kernel tells itself.
fn known(gateway: &Gateway) -> Option<Known> {
    let own = if gateway.is_kernels { Box::default() } else { gateway.addresses.clone() };
    let is_something = !own.is_empty() || !gateway.stands_for.is_empty();
    is_something.then(|| (gateway.mac, own, gateway.stands_for.clone()))
}

impl Daemon {
    /// Tells what is new of the gateways. Called once a second.
    pub(super) fn announce_gateways(&mut self) {
        self.announced.look(self.publisher.current());
        for fid in self.announced.next() {
            // A worker that takes no commands is told of elsewhere, and a neighbour will ask.
            _ = self.doors.tell(WORKER, Command::Announce(fid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::snapshot::FidFacts;
    use std::sync::Arc;

    fn snapshot(generation: u64, macs: &[u64]) -> Snapshot {
        let own = Own { ip: 1, len: 64 };
        let gateway = |mac: &u64| Gateway { mac: *mac, addresses: [own].into(), ..Gateway::default() };
        let fid = |mac: &u64| FidFacts {
            gateway: (*mac != 0).then(|| Arc::new(gateway(mac))),
            ..FidFacts::default()
        };
        Snapshot { generation, fids: macs.iter().map(fid).collect(), ..Snapshot::empty() }
    }

    #[test]
    fn what_is_new_is_told_twice_and_nothing_else() {
        let mut announced = Announced::default();
        announced.look(&snapshot(1, &[0, 7, 8]));
        assert_eq!(announced.next(), [1, 2]);
        announced.look(&snapshot(1, &[0, 7, 8]));
        assert_eq!(announced.next(), [1, 2]);
        // Of the same nothing more; of one that has another MAC, twice again.
        announced.look(&snapshot(2, &[0, 7, 9]));
        assert_eq!((announced.next(), announced.next(), announced.next()), (vec![2], vec![2], vec![]));
        // One that went and came again is new.
        announced.look(&snapshot(3, &[0, 0, 9]));
        announced.look(&snapshot(4, &[0, 7, 9]));
        assert_eq!(announced.next(), [1]);
    }

    #[test]
    fn nothing_is_told_in_the_kernels_place() {
        let mut announced = Announced::default();
        let mut shared = snapshot(1, &[7]);
        let own = Own { ip: 1, len: 64 };
        let kernels = Gateway { mac: 7, addresses: [own].into(), is_kernels: true, ..Gateway::default() };
        shared.fids = [FidFacts { gateway: Some(Arc::new(kernels)), ..FidFacts::default() }].into();
        announced.look(&shared);
        assert_eq!(announced.next(), [] as [u16; 0]);
        // But of an address of translation there.
        let stands =
            |ips: &[u128]| Gateway { stands_for: ips.into(), is_kernels: true, ..Gateway::default() };
        for (generation, ips) in [(2, &[9][..]), (3, &[9, 10])] {
            let gateway = Some(Arc::new(stands(ips)));
            shared.generation = generation;
            shared.fids = [FidFacts { gateway, ..FidFacts::default() }].into();
            announced.look(&shared);
            assert_eq!((announced.next(), announced.next(), announced.next()), (vec![0], vec![0], vec![]));
        }
    }

    #[test]
    fn no_more_at_once_than_a_worker_takes() {
        let mut announced = Announced::default();
        announced.look(&snapshot(1, &[5; ANNOUNCED_MAX + 3]));
        let mut told = vec![0; ANNOUNCED_MAX + 3];
        for _ in 0..4 {
            let now = announced.next();
            assert!(now.len() <= ANNOUNCED_MAX);
            now.into_iter().for_each(|fid| told[usize::from(fid)] += 1);
        }
        assert!(told.iter().all(|times| *times == TIMES), "{told:?}");
    }
}
