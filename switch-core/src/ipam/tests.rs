//! The book against a dull twin, and what it refuses.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use switch_api::{Code, Holder, Lease, LeaseAcquire, LeaseFilter, Name, Pool, PoolRange};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn range(subnet: &str) -> PoolRange {
    PoolRange::of(subnet.parse().unwrap())
}

fn pool(text: &str, subnets: &[&str]) -> Pool {
    Pool { name: name(text), ranges: subnets.iter().map(|it| range(it)).collect(), owner: Default::default() }
}

fn holder(n: usize) -> Holder {
    Holder { network: "net".into(), container: format!("c{n}"), interface: "eth0".into() }
}

fn wanted(n: usize, addresses: &[&str]) -> LeaseAcquire {
    let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
    LeaseAcquire { pool: name("p"), holder: holder(n), addresses, with_port: false }
}

fn book(subnets: &[&str]) -> Book {
    Book::new(Kept { pools: vec![pool("p", subnets)], ..Kept::default() }, "boot-1".into(), 0).unwrap()
}

/// Plans and applies.
fn acquire(book: &mut Book, wanted: &LeaseAcquire, now_s: u32) -> Result<Lease, switch_api::ApiError> {
    acquire_beside(book, wanted, now_s, &[])
}

/// The same where others have addresses.
fn acquire_beside(
    book: &mut Book,
    wanted: &LeaseAcquire,
    now_s: u32,
    others: &[&str],
) -> Result<Lease, switch_api::ApiError> {
    book.expire(now_s);
    let whose = |ip: IpAddr| others.contains(&&*ip.to_string()).then(|| "another's".to_owned());
    let (lease, change) = book.plan_acquire(wanted, switch_api::Owner::Cni, now_s, &whose)?;
    change.into_iter().for_each(|change| book.apply(change, now_s));
    Ok(lease)
}

fn release(book: &mut Book, n: usize, now_s: u32) {
    let leases = book.plan_release(&LeaseFilter::of(&holder(n))).unwrap();
    book.apply(Change::Released(leases), now_s);
}

fn addresses(lease: &Lease) -> Vec<IpAddr> {
    lease.addresses.iter().map(|has| has.address.addr()).collect()
}

#[test]
fn a_holder_gets_one_address_of_each_family_and_keeps_it() {
    let mut declared = pool("p", &["10.1.0.0/29", "fd00:1::/64"]);
    declared.ranges[0].gateway = Some("10.1.0.1".parse().unwrap());
    declared.ranges[0].exclude = vec!["10.1.0.2".parse().unwrap()];
    let kept = Kept { pools: vec![declared], ..Kept::default() };
    let mut book = Book::new(kept, "boot-1".into(), 0).unwrap();
    let lease = acquire(&mut book, &wanted(1, &[]), 0).unwrap();
    let shown: Vec<_> = lease.addresses.iter().map(|has| has.address.to_string()).collect();
    assert_eq!(shown, ["10.1.0.3/29", "fd00:1::1/64"]);
    assert_eq!(lease.addresses[0].gateway, Some("10.1.0.1".parse().unwrap()));
    assert_eq!(acquire(&mut book, &wanted(1, &[]), 9).unwrap(), lease);
    let refused = acquire(&mut book, &wanted(1, &["10.1.0.4"]), 9).unwrap_err();
    assert_eq!(refused.code, Code::Exists);
    let figures = book.families(&name("p"));
    assert_eq!((figures[0].total, figures[0].leased, figures[0].free), (4, 1, 3));
    assert_eq!((figures[1].leased, figures[1].free), (1, u64::MAX - 1), "a /64 has more than a word counts");
}

/// What others have without a lease is passed over, refused by name, and no reason to say that the pool is used up by leases.
#[test]
fn what_others_have_is_not_given_out() {
    let (mut book, others) = (book(&["10.1.0.0/29"]), ["10.1.0.1", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
    let named = acquire_beside(&mut book, &wanted(1, &["10.1.0.4"]), 0, &others).unwrap_err();
    assert_eq!((named.code, &*named.message), (Code::Busy, "10.1.0.4 is another's"));
    for (n, ip) in [(1, "10.1.0.2"), (2, "10.1.0.3")] {
        let lease = acquire_beside(&mut book, &wanted(n, &[]), 0, &others).unwrap();
        assert_eq!(addresses(&lease), [ip.parse::<IpAddr>().unwrap()]);
    }
    let full = acquire_beside(&mut book, &wanted(3, &[]), 0, &others).unwrap_err();
    assert_eq!(full.code, Code::Limit);
    assert!(full.message.ends_with("the node's and gateways'"), "{full:?}");
    assert!(acquire_beside(&mut book, &wanted(3, &[]), 0, &others[1..]).is_ok());
}

#[test]
fn exhaustion_is_refused_with_the_figures() {
    let mut book = book(&["10.1.0.0/29"]);
    for n in 0..6 {
        acquire(&mut book, &wanted(n, &[]), 0).unwrap();
    }
    release(&mut book, 3, 10);
    let refused = acquire(&mut book, &wanted(9, &[]), 10).unwrap_err();
    assert_eq!(refused.code, Code::Limit);
    for part in ["of 6,", "5 are leased", "1 were released"] {
        assert!(refused.message.contains(part), "{refused}");
    }
    assert!(
        acquire(&mut book, &wanted(9, &[]), 10 + HOLD_MIN_S).is_ok(),
        "a rested address is better than none"
    );
}

#[test]
fn a_released_address_goes_to_the_end_of_the_queue() {
    let mut book = book(&["10.1.0.0/28"]);
    let first = addresses(&acquire(&mut book, &wanted(0, &[]), 0).unwrap());
    release(&mut book, 0, 0);
    for n in 1..14 {
        assert_ne!(addresses(&acquire(&mut book, &wanted(n, &[]), 1).unwrap()), first);
    }
    // Who asks for it by name gets it: a container that comes back.
    let first: Vec<_> = first.iter().map(ToString::to_string).collect();
    assert!(acquire(&mut book, &wanted(99, &[&first[0]]), 1).is_ok());
}

#[test]
fn addresses_by_name_are_theirs_or_refused() {
    let mut book = book(&["10.1.0.0/24", "fd00:1::/64"]);
    let lease = acquire(&mut book, &wanted(1, &["10.1.0.7", "10.1.0.7", "10.1.0.9"]), 0).unwrap();
    let shown: Vec<_> = addresses(&lease).iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.1.0.7", "10.1.0.9", "fd00:1::1"]);
    let refused = acquire(&mut book, &wanted(2, &["10.1.0.9"]), 0).unwrap_err();
    assert_eq!(refused.code, Code::Busy);
    assert!(refused.message.contains("c1/eth0"), "{refused}");
    for bad in ["10.1.0.0", "10.1.0.255", "10.2.0.1", "::1"] {
        assert_eq!(acquire(&mut book, &wanted(3, &[bad]), 0).unwrap_err().code, Code::InvalidParams, "{bad}");
    }
    assert_eq!(book.leases(&LeaseFilter::default()).len(), 1, "a refusal took something");
}

#[test]
fn pools_that_cannot_be_are_refused_with_all_that_is_wrong() {
    let mut bad = pool("p", &["10.1.0.5/24", "127.0.0.0/8", "10.1.0.0/24"]);
    bad.ranges[2].gateway = Some("fd00::1".parse().unwrap());
    bad.ranges[2].first = Some("10.9.0.0".parse().unwrap());
    let refused = Book::default().plan_pool(&bad, false).unwrap_err();
    for part in ["write 10.1.0.0/24", "127.0.0.0/8", "gateway fd00::1", "first 10.9.0.0", "before it begins"]
    {
        assert!(refused.message.contains(part), "{part}: {refused}");
    }
    for subnets in [&[][..], &["10.0.0.0/8", "10.1.0.0/16"], &["224.0.0.0/24"], &["::/128"]] {
        assert!(Book::default().plan_pool(&pool("p", subnets), false).is_err(), "{subnets:?}");
    }
    let book = book(&["10.1.0.0/24"]);
    assert_eq!(book.plan_pool(&pool("p", &["10.2.0.0/24"]), false).unwrap_err().code, Code::Exists);
    assert_eq!(book.plan_pool(&pool("q", &["10.2.0.0/24"]), true).unwrap_err().code, Code::NotFound);
    let overlap = book.plan_pool(&pool("q", &["10.1.0.128/25"]), false).unwrap_err();
    assert!(overlap.message.contains("overlaps pool p"), "{overlap}");
}

#[test]
fn a_pool_does_not_shrink_below_its_leases() {
    let mut book = book(&["10.1.0.0/24"]);
    acquire(&mut book, &wanted(1, &["10.1.0.200"]), 0).unwrap();
    let mut smaller = pool("p", &["10.1.0.0/24"]);
    smaller.ranges[0].last = Some("10.1.0.99".parse().unwrap());
    let refused = book.plan_pool(&smaller, true).unwrap_err();
    assert_eq!(refused.code, Code::Busy);
    assert!(refused.message.contains("10.1.0.200"), "{refused}");
    assert_eq!(book.plan_pool_gone(&name("p")).unwrap_err().code, Code::Busy);
    smaller.ranges[0].last = Some("10.1.0.210".parse().unwrap());
    let change = book.plan_pool(&smaller, true).unwrap();
    book.apply(change, 0);
    let refused = acquire(&mut book, &wanted(2, &["10.1.0.200"]), 0).unwrap_err();
    assert_eq!(refused.code, Code::Busy, "the lease was lost with the old ranges");
}

#[test]
fn leases_outlive_a_boot_and_are_told_apart() {
    let mut before = book(&["10.1.0.0/24"]);
    let lease = acquire(&mut before, &wanted(1, &[]), 0).unwrap();
    let kept = Kept { pools: vec![pool("p", &["10.1.0.0/24"])], leases: vec![lease.clone()], held: vec![] };
    let mut after = Book::new(kept, "boot-2".into(), 0).unwrap();
    let stale = LeaseFilter { earlier_boot: true, ..LeaseFilter::default() };
    assert_eq!(after.leases(&stale).len(), 1);
    assert_eq!(after.pools()[0].leases_of_earlier_boots, 1);
    let again = acquire(&mut after, &wanted(1, &[]), 0).unwrap();
    assert_eq!((again.boot_id.as_str(), addresses(&again)), ("boot-2", addresses(&lease)));
    assert!(after.leases(&stale).is_empty());
    assert!(after.plan_release(&LeaseFilter::default()).is_err(), "a filter that names nothing releases all");
}

#[test]
fn kept_leases_that_contradict_are_not_taken() {
    let mut one = book(&["10.1.0.0/24"]);
    let lease = acquire(&mut one, &wanted(1, &[]), 0).unwrap();
    let twin = Lease { holder: holder(2), ..lease.clone() };
    let pools = vec![pool("p", &["10.1.0.0/24"])];
    let kept = Kept { pools, leases: vec![lease.clone(), twin], held: vec![] };
    assert!(Book::new(kept, String::new(), 0).is_err());
    assert!(Book::new(Kept { leases: vec![lease], ..Kept::default() }, String::new(), 0).is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Acquire(usize),
    Named(usize, u8),
    Release(usize),
    Pass(u32),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..24).prop_map(Step::Acquire),
        1 => (0usize..24, 0u8..32).prop_map(|(n, last)| Step::Named(n, last)),
        3 => (0usize..24).prop_map(Step::Release),
        2 => (0u32..30).prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    /// The twin knows only who has what and when it came back.
    #[test]
    fn nothing_is_given_twice_and_nothing_is_lost(steps in prop::collection::vec(step(), 0..120)) {
        let declared = pool("p", &["10.1.0.0/29", "10.1.0.16/29", "fd00:1::/124"]);
        let mut kept = Kept { pools: vec![declared], ..Kept::default() };
        let mut book = Book::new(kept.clone(), "boot".into(), 0).unwrap();
        let mut twin: BTreeMap<usize, Vec<IpAddr>> = BTreeMap::new();
        let mut released: BTreeMap<IpAddr, u32> = BTreeMap::new();
        let mut now_s = 0;
        for step in steps {
            match step {
                Step::Acquire(n) | Step::Named(n, _) => {
                    let named = match step { Step::Named(_, last) => vec![format!("10.1.0.{last}")], _ => vec![] };
                    let named: Vec<&str> = named.iter().map(String::as_str).collect();
                    let had = twin.get(&n).cloned();
                    match acquire(&mut book, &wanted(n, &named), now_s) {
                        Ok(lease) => {
                            let got = addresses(&lease);
                            prop_assert_eq!(got.len(), 2);
                            if let Some(had) = had {
                                prop_assert_eq!(&had, &got);
                            } else if named.is_empty() {
                                let rested = |it: &IpAddr| released.get(it).is_none_or(|at| now_s - at >= HOLD_MIN_S);
                                prop_assert!(got.iter().all(rested), "given out again at once");
                            }
                            twin.insert(n, got);
                        }
                        Err(error) => if named.is_empty() {
                            let out = twin.len() == 12 || released.values().any(|at| now_s - at < HOLD_MIN_S);
                            prop_assert!(error.code == Code::Limit && out, "{error}");
                        },
                    }
                }
                Step::Release(n) => {
                    release(&mut book, n, now_s);
                    for address in twin.remove(&n).unwrap_or_default() {
                        released.insert(address, now_s);
                    }
                }
                Step::Pass(seconds) => now_s += seconds,
                Step::Crash => {
                    kept.leases = book.leases(&LeaseFilter::default()).into_iter().map(|it| it.lease).collect();
                    let young = released.iter().filter(|(_, at)| now_s - **at < HOLD_S);
                    kept.held = young.map(|(address, _)| (name("p"), *address)).collect();
                    book = Book::new(kept.clone(), "boot".into(), now_s).unwrap();
                    for (_, address) in &kept.held {
                        released.insert(*address, now_s);
                    }
                }
            }
            let mut all = BTreeSet::new();
            for (n, addresses) in &twin {
                prop_assert!(addresses.iter().all(|address| all.insert(*address)), "given twice");
                let held = book.leases(&LeaseFilter::of(&holder(*n)));
                prop_assert!(held.len() == 1 && self::addresses(&held[0].lease) == *addresses, "lost");
            }
            prop_assert_eq!(book.leases(&LeaseFilter::default()).len(), twin.len());
        }
    }
}
