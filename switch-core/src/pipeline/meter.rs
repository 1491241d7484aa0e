//! Rate limits: two token buckets a port and direction, one in packets and one in bytes. Private to a worker, which has
//! its [`Share`] of the limit.
//!
//! What finds one packet and one byte in the buckets passes whole, and is paid for by those behind it. So within
//! any time `t` no more passes than `burst + rate × t`, and one superframe (64 KiB).

use super::Now;
use super::bucket::{Bucket, NS};
use crate::config::rates::{Pace, Rate, Share};
use crate::config::snapshot::PortId;

#[derive(Clone, Copy, Debug, Default)]
struct Buckets {
    packets: Bucket,
    bytes: Bucket,
}

/// All of a worker.
#[derive(Debug, Default)]
pub struct Meters {
    rx: Box<[Buckets]>,
    tx: Box<[Buckets]>,
}

/// What one direction of a port has left at this moment.
#[derive(Debug)]
pub struct Meter<'a> {
    packets: Option<&'a mut Bucket>,
    bytes: Option<&'a mut Bucket>,
}

impl Meters {
    /// For ports `0..ports`.
    pub fn new(ports: usize) -> Self {
        let buckets = || vec![Buckets::default(); ports].into();
        Self { rx: buckets(), tx: buckets() }
    }

    /// Of what comes in by `port`.
    pub fn rx(&mut self, port: PortId, pace: &Pace, share: Share, now: Now) -> Meter<'_> {
        self.rx[usize::from(port)].meter(pace, share, now)
    }

    /// Of what leaves by `port`.
    pub fn tx(&mut self, port: PortId, pace: &Pace, share: Share, now: Now) -> Meter<'_> {
        self.tx[usize::from(port)].meter(pace, share, now)
    }
}

impl Buckets {
    fn meter(&mut self, pace: &Pace, share: Share, now: Now) -> Meter<'_> {
        let Self { packets, bytes } = self;
        Meter {
            packets: pace.packets.map(|rate| filled(packets, rate, share, now)),
            bytes: pace.bytes.map(|rate| filled(bytes, rate, share, now)),
        }
    }
}

fn filled(bucket: &mut Bucket, rate: Rate, share: Share, now: Now) -> &mut Bucket {
    let Share { own, of } = share;
    // At least one whole packet or byte fits, or a small share would be none at all.
    let full = (i128::from(rate.burst) * NS * i128::from(own) / i128::from(of)).max(NS);
    bucket.fill(rate.per_s, (own, of), full, now);
    bucket
}

impl Meter<'_> {
    /// Whether a frame that stands for so many segments, with so many bytes on the wire, may pass. What may not takes nothing.
    #[inline]
    pub fn admit(&mut self, segments: u64, bytes: u64) -> bool {
        let has_any = |bucket: &Option<&mut Bucket>| bucket.as_ref().is_none_or(|bucket| bucket.has_any());
        if !has_any(&self.packets) || !has_any(&self.bytes) {
            return false;
        }
        if let Some(bucket) = &mut self.packets {
            bucket.take(segments);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    /// The rule of the module's head, with a list of all that passed.
    fn is_within(passed: &[(u64, u64)], rate: Rate, largest: u64) -> bool {
        (0..passed.len()).all(|from| {
            let mut sum = 0u128;
            passed[from..].iter().all(|(ns, n)| {
                sum += u128::from(*n);
                let elapsed = u128::from(ns - passed[from].0);
                sum <= u128::from(rate.burst + largest) + elapsed * u128::from(rate.per_s) / u128::from(S) + 1
            })
        })
    }

    proptest! {
        /// From whichever packet on one looks, no more passed than the burst, the rate and one superframe.
        #[test]
        fn no_stretch_of_time_has_more(per_s in 1u64..2_000_000, burst in 1u64..100_000, packets_per_s in 1u64..5000,
                                       sent in proptest::collection::vec((0u64..2_000_000, 1u64..45, 60u64..1500), 1..300)) {
            let pace = Pace {
                packets: Some(Rate { per_s: packets_per_s, burst: 10 }),
                bytes: Some(Rate { per_s, burst }),
            };
            let mut meters = Meters::new(1);
            let (mut ns, mut packets, mut bytes) = (1000 * S, Vec::new(), Vec::new());
            for (gap, segments, len) in sent {
                ns += gap;
                if meters.rx(0, &pace, Share::WHOLE, Now { ns }).admit(segments, segments * len) {
                    packets.push((ns, segments));
                    bytes.push((ns, segments * len));
                }
            }
            prop_assert!(is_within(&bytes, pace.bytes.unwrap(), 45 * 1500));
            prop_assert!(is_within(&packets, pace.packets.unwrap(), 45));
        }

        /// A sender that never rests gets what the limit is, whatever the frames.
        #[test]
        fn a_sender_gets_its_rate(per_s in 100_000u64..10_000_000, len in 60u64..65_000) {
            let pace = Pace { packets: None, bytes: Some(Rate { per_s, burst: 65_536 }) };
            let mut meters = Meters::new(1);
            let offered = (0..100_000u64).map(|n| Now { ns: 1000 * S + n * 100_000 });
            let passed = offered.filter(|now| meters.tx(0, &pace, Share::WHOLE, *now).admit(1, len)).count() as u64;
            // Ten seconds, and one offer every 100 µs is at most that much.
            let most = (10 * per_s + 65_536).min(len * 100_000);
            prop_assert!(passed * len <= most + len && (passed + 1) * len + per_s / 10_000 >= most.min(10 * per_s));
        }
    }

    #[test]
    fn workers_together_stay_within_the_limit() {
        let pace = Pace { packets: Some(Rate { per_s: 300, burst: 30 }), bytes: None };
        let shares = [Share { own: 2, of: 3 }, Share { own: 1, of: 3 }];
        let passed = shares.map(|share| {
            let mut meters = Meters::new(1);
            let mut admit =
                |n: u64| meters.rx(0, &pace, share, Now { ns: 1000 * S + n * 1_000_000 }).admit(1, 60);
            (0..10_000).filter(|n| admit(*n)).count()
        });
        assert!((2015..=2025).contains(&passed[0]) && (1005..=1015).contains(&passed[1]), "{passed:?}");
    }

    #[test]
    fn what_may_not_pass_takes_nothing() {
        let pace = Pace {
            packets: Some(Rate { per_s: 1000, burst: 2 }),
            bytes: Some(Rate { per_s: 1, burst: 100 }),
        };
        let mut meters = Meters::new(2);
        let at = |ms: u64| Now { ns: 1000 * S + ms * 1_000_000 };
        assert!(meters.rx(0, &pace, Share::WHOLE, at(0)).admit(1, 1000));
        // The bytes are in debt for a quarter of an hour: the packets that are refused meanwhile cost none.
        assert!((1..100).all(|ms| !meters.rx(0, &pace, Share::WHOLE, at(ms)).admit(1, 60)));
        let bytes_free = Pace { bytes: None, ..pace };
        assert!(meters.rx(0, &bytes_free, Share::WHOLE, at(100)).admit(1, 60));
        assert!(meters.tx(0, &pace, Share::WHOLE, at(0)).admit(1, 60), "the other direction");
        assert!(meters.rx(1, &pace, Share::WHOLE, at(0)).admit(1, 60), "another port");
    }
}
