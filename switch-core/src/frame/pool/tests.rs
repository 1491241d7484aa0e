//! Tests of the pool.

use super::*;
use crate::frame::AreaSize;

fn pools(n: usize) -> Vec<Pool> {
    let (area, frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 100, large: 6 }).unwrap();
    Pool::deal(Arc::new(area), frames, n)
}

#[test]
fn frames_that_crossed_over_come_home() {
    let mut pools = pools(2);
    let [a, b] = &mut pools[..] else { unreachable!() };
    // One-way traffic: everything a takes ends at b, ten times a's size.
    for _ in 0..500 {
        let frame = a.take().expect("one-way traffic drained the sender");
        a.note_given(1);
        b.note_taken(1);
        b.give(frame);
        b.service();
        a.service();
        assert_eq!((a.balance(0, 0), b.balance(0, 0)), (0, 0));
    }
    assert_eq!((a.free(), b.free()), (50, 50));
}

#[test]
fn large_frames_cross_over_and_come_home_too() {
    let mut pools = pools(2);
    let [a, b] = &mut pools[..] else { unreachable!() };
    assert_eq!((a.free_large(), b.free_large()), (3, 3));
    let (small, large) = (a.take_for(1792).unwrap(), a.take_for(1793).unwrap());
    assert_eq!((small.is_large(), large.is_large()), (false, true));
    a.note_given(2);
    b.note_taken(2);
    b.give(small);
    b.give(large);
    b.service();
    a.service();
    assert_eq!((a.free(), a.free_large(), b.free(), b.free_large()), (50, 3, 50, 3));
    assert_eq!((a.balance(0, 0), b.balance(0, 0)), (0, 0));
    assert!((0..3).all(|_| a.take_large().map(|frame| b.give(frame)).is_some()) && a.take_large().is_none());
}

#[test]
fn an_owed_queue_that_is_full_loses_nothing() {
    let (area, frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 20_000, large: 0 }).unwrap();
    let mut pools = Pool::deal(Arc::new(area), frames, 2);
    let [a, b] = &mut pools[..] else { unreachable!() };
    let mut crossed = 0;
    while let Some(frame) = a.take() {
        crossed += 1;
        b.give(frame);
    }
    a.note_given(crossed);
    b.note_taken(crossed);
    assert_eq!(b.balance(0, 0), 0);
    for _ in 0..3 {
        a.service();
        b.service();
    }
    assert_eq!((a.balance(0, 0), b.balance(0, 0)), (0, 0));
}

/// Pools over an area that can have four regions of 100 chunks and has the first.
fn growing(n: usize) -> (Arc<Area>, Vec<Pool>) {
    let (area, mut frames) = Area::reserve(AreaSize { chunk_bytes: 2048, chunks: 100, large: 0 }, 4).unwrap();
    frames.extend(area.grow(0).unwrap());
    let area = Arc::new(area);
    let pools = Pool::deal(area.clone(), frames, n);
    (area, pools)
}

fn grow(area: &Area, pools: &mut [Pool], region: u16) {
    let dealt = Pool::deal_region(area, area.grow(region).unwrap(), pools.len());
    pools.iter_mut().zip(dealt).for_each(|(pool, frames)| pool.grow(region, frames));
}

fn room() -> Vec<Frame> {
    Vec::with_capacity(100)
}

#[test]
fn frames_of_all_regions_are_taken_and_those_of_one_on_demand() {
    let (area, mut pools) = growing(1);
    grow(&area, &mut pools, 2);
    let pool = &mut pools[0];
    assert_eq!((pool.free(), pool.free_of(0), pool.free_of(1), pool.free_of(2)), (200, 100, 0, 100));
    let of_two = pool.take_of(2).unwrap();
    assert_eq!(area.region_of(&of_two), Some(2));
    let taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!((taken.len(), pool.free()), (199, 0), "no region is left out");
    assert!(pool.take_of(0).is_none() && pool.take_of(2).is_none());
    taken.into_iter().chain([of_two]).for_each(|frame| pool.give(frame));
    assert_eq!((pool.free_of(0), pool.free_of(2), pool.balance(0, 0)), (100, 100, 0));
}

#[test]
fn a_region_is_emptied_when_its_last_frame_has_come_home() {
    let (area, mut pools) = growing(2);
    grow(&area, &mut pools, 1);
    let [a, b] = &mut pools[..] else { unreachable!() };
    // a has one of its own under way, b one of a's.
    let (own, crossing) = (a.take_of(1).unwrap(), a.take_of(1).unwrap());
    a.note_given(1);
    b.note_taken(1);
    a.empty(1, room());
    b.empty(1, room());
    assert!(a.take_of(1).is_none(), "no frame of it is taken any more");
    assert!(a.emptied().is_none());
    let (_, of_b) = b.emptied().expect("all of b's are there");
    assert!(b.emptied().is_none(), "once");
    b.give(crossing);
    b.service();
    a.service();
    assert!(a.emptied().is_none());
    assert_eq!((a.balance(0, 1), b.balance(0, 0)), (0, 0));
    a.give(own);
    let (region, mut frames) = a.emptied().expect("all are home");
    frames.extend(of_b);
    assert_eq!((region, frames.len(), a.balance(0, 0), b.balance(0, 0)), (1, 100, 0, 0));
    area.shrink(1, frames).unwrap();
}

#[test]
fn a_region_is_wanted_again_while_it_is_emptied() {
    let (area, mut pools) = growing(1);
    grow(&area, &mut pools, 3);
    let pool = &mut pools[0];
    let out = pool.take_of(3).unwrap();
    pool.empty(3, room());
    assert_eq!((pool.free(), pool.leaving()), (100, 99));
    pool.grow(3, room());
    pool.give(out);
    assert_eq!((pool.free(), pool.leaving(), pool.free_of(3), pool.balance(0, 0)), (200, 0, 100, 0));
    assert!(pool.emptied().is_none());
}

mod whatever_happens {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Act {
        Take(usize),
        TakeOf(usize, u16),
        Give(usize, usize),
        Service(usize),
        Grow(u16),
        Empty(u16),
        Revive,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            6 => (0..3usize).prop_map(Act::Take),
            3 => (0..3usize, 0..4u16).prop_map(|(pool, region)| Act::TakeOf(pool, region)),
            8 => (0..3usize, any::<usize>()).prop_map(|(pool, which)| Act::Give(pool, which)),
            3 => (0..3usize).prop_map(Act::Service),
            1 => (1..4u16).prop_map(Act::Grow),
            1 => (0..4u16).prop_map(Act::Empty),
            1 => Just(Act::Revive),
        ];
        proptest::collection::vec(act, 1..600)
    }

    /// The pools, the frames that are under way, and which pool's books they are in.
    struct World {
        area: Arc<Area>,
        pools: Vec<Pool>,
        under_way: Vec<(usize, Frame)>,
        emptying: Option<(u16, Vec<Frame>)>,
        mapped: [bool; 4],
    }

    impl World {
        fn service(&mut self, n: usize) {
            self.pools[n].service();
            if let Some((_, frames)) = self.pools[n].emptied()
                && let Some((region, gathered)) = &mut self.emptying
            {
                gathered.extend(frames);
                if gathered.len() == 100 {
                    self.area.shrink(*region, std::mem::take(gathered)).unwrap();
                    self.mapped[usize::from(*region)] = false;
                    self.emptying = None;
                }
            }
        }

        fn act(&mut self, act: Act) {
            match act {
                Act::Take(n) => self.under_way.extend(self.pools[n].take().map(|frame| (n, frame))),
                Act::TakeOf(n, region) => {
                    self.under_way.extend(self.pools[n].take_of(region).map(|frame| (n, frame)));
                }
                Act::Give(to, which) if !self.under_way.is_empty() => {
                    let (from, frame) = self.under_way.swap_remove(which % self.under_way.len());
                    self.pools[from].note_given(1);
                    self.pools[to].note_taken(1);
                    self.pools[to].give(frame);
                }
                Act::Give(..) => {}
                Act::Service(n) => self.service(n),
                Act::Grow(region) if !self.mapped[usize::from(region)] => {
                    grow(&self.area, &mut self.pools, region);
                    self.mapped[usize::from(region)] = true;
                }
                Act::Grow(_) => {}
                Act::Empty(region) => {
                    let others = (0..4).any(|n| n != usize::from(region) && self.mapped[n]);
                    if self.mapped[usize::from(region)] && others && self.emptying.is_none() {
                        self.pools.iter_mut().for_each(|pool| pool.empty(region, room()));
                        self.emptying = Some((region, Vec::new()));
                    }
                }
                Act::Revive => {
                    if let Some((region, gathered)) = self.emptying.take() {
                        let dealt = Pool::deal_region(&self.area, gathered, self.pools.len());
                        let pools = self.pools.iter_mut().zip(dealt);
                        pools.for_each(|(pool, frames)| pool.grow(region, frames));
                    }
                }
            }
        }

        fn is_conserved(&self) -> bool {
            let books = self.pools.iter().enumerate().all(|(n, pool)| {
                pool.balance(0, self.under_way.iter().filter(|(owner, _)| *owner == n).count()) == 0
            });
            let expected: i64 = self.pools.iter().map(Pool::expected).sum();
            let gathered = self.emptying.as_ref().map_or(0, |(_, frames)| frames.len());
            let between: usize = self.pools[0].arrivals.iter().map(|queue| queue.len()).sum();
            // Batches between pools are in nobody's books; what is in them shows when they are empty.
            books && (between > 0 || expected + gathered as i64 == i64::from(self.area.frames_total()))
        }
    }

    proptest! {
        /// Frames under way, regions that come, go and are wanted again, in any order: none is lost or doubled,
        /// none of a region that goes is taken, and in the end every region but one can be given back.
        #[test]
        fn no_frame_is_lost(acts in acts()) {
            let (area, pools) = growing(3);
            let mapped = [true, false, false, false];
            let mut world = World { area, pools, under_way: Vec::new(), emptying: None, mapped };
            for act in acts {
                world.act(act.clone());
                prop_assert!(world.is_conserved(), "after {act:?}");
                if let Some((region, _)) = &world.emptying {
                    prop_assert!(world.pools.iter().all(|pool| pool.free_of(*region) == 0), "{act:?}");
                }
            }
            while !world.under_way.is_empty() {
                world.act(Act::Give(0, 0));
            }
            for region in 0..4 {
                world.act(Act::Revive);
                (0..9).for_each(|n| world.service(n % 3));
                world.act(Act::Empty(region));
                (0..9).for_each(|n| world.service(n % 3));
            }
            prop_assert_eq!(world.area.regions(), 1);
            prop_assert_eq!(world.area.frames_total(), 100);
            prop_assert_eq!(world.pools.iter().map(Pool::free).sum::<usize>(), 100);
            prop_assert!(world.is_conserved());
        }
    }
}
