//! Naps: at low load a worker rests between turns and lets frames gather, instead of asking empty rings all the time.
//!
//! A nap makes frames wait for up to its length, and saves what asking would cost. Whether that is a bargain depends on
//! who sends. A stream comes whether the worker rests or not; a client that waits for each answer before it asks again
//! comes slower by every nap. Nobody says which it is, so it is tried: what comes in a while awake is held against
//! what comes in a while of naps. If as much comes, the worker goes on resting; if far less does, it was waited
//! for, and the worker stays awake for long before it tries again.

/// How long a nap is, unless `switchd --nap-us` says otherwise. At a tenth of what a veth carries nine frames gather in
/// it, and the worst of them is still forwarded within 200 µs (ADR 0030).
pub const NAP_US_DEFAULT: u64 = 90;
/// The longest that may be asked for: a beat waits for the end of a nap. A command and a new snapshot end it.
pub const NAP_US_MAX: u64 = 1000;
/// What is compared: so much time awake, so much of naps. Fifteen naps, or sixty round trips of a quick client.
const WINDOW_NS: u64 = 1_000_000;
/// Frames that a nap must let gather, by what came in the window awake. With one there is nothing to gather.
const GATHERED_MIN: u64 = 2;
/// For how long naps go on before it is looked again what comes without them: one part in a hundred of the time is awake.
const REST_NS: u64 = 100_000_000;
/// For how long the worker stays awake after a trial that made somebody wait: of a quick client's requests three in a thousand
/// meet a nap.
const HOLD_NS: u64 = 100_000_000;
/// Naps in a row in which nothing came, after which they end: the stream has.
const BARREN_MAX: u32 = 4;

/// When a worker naps.
#[derive(Debug)]
pub struct Naps {
    length_ns: u64,
    phase: Phase,
    window: Window,
    began_ns: u64,
    was_empty: bool,
    barren: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// No naps, and none are tried before this time.
    Awake(u64),
    /// Naps, to see whether as much comes as in this window.
    Trial(Window, u64),
    /// Naps until this time.
    Resting(u64),
}

/// What came since when.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since_ns: u64,
    frames: u64,
    /// Time that turns without a frame took.
    empty_ns: u64,
}

impl Naps {
    /// Naps of this length; none if it is zero.
    pub fn new(length_us: u64) -> Self {
        Self {
            length_ns: length_us * 1000,
            phase: Phase::Awake(0),
            window: Window::default(),
            began_ns: 0,
            was_empty: false,
            barren: 0,
        }
    }

    /// How long one is.
    pub fn length(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.length_ns)
    }

    /// Whether to nap after a turn that began then and had so many frames.
    pub fn after_turn(&mut self, began_ns: u64, frames: usize) -> bool {
        if self.length_ns == 0 {
            return false;
        }
        if self.was_empty {
            self.window.empty_ns += began_ns.saturating_sub(self.began_ns);
        }
        self.began_ns = began_ns;
        self.was_empty = frames == 0;
        self.window.frames += frames as u64;
        self.move_on(began_ns);
        let naps = self.was_empty && !matches!(self.phase, Phase::Awake(_));
        self.barren = if naps { self.barren + 1 } else { 0 };
        naps
    }

    fn move_on(&mut self, now_ns: u64) {
        let elapsed_ns = now_ns.saturating_sub(self.window.since_ns);
        let next = match self.phase {
            Phase::Awake(_) | Phase::Trial(..) if elapsed_ns < WINDOW_NS => return,
            Phase::Awake(until)
                if now_ns >= until && self.window.would_gather(elapsed_ns, self.length_ns) =>
            {
                Phase::Trial(self.window, elapsed_ns)
            }
            Phase::Awake(until) => Phase::Awake(until),
            Phase::Trial(awake, awake_ns) if self.window.is_half_of(elapsed_ns, &awake, awake_ns) => {
                Phase::Resting(now_ns + REST_NS)
            }
            Phase::Trial(..) => Phase::Awake(now_ns + HOLD_NS),
            Phase::Resting(until) if now_ns < until && self.barren <= BARREN_MAX => return,
            Phase::Resting(_) => Phase::Awake(0),
        };
        self.phase = next;
        self.window = Window { since_ns: now_ns, ..Window::default() };
    }
}

impl Window {
    /// Whether frames would gather in a nap, and the worker was idle for half of the time: more load needs it awake.
    fn would_gather(&self, elapsed_ns: u64, nap_ns: u64) -> bool {
        self.frames * nap_ns >= GATHERED_MIN * elapsed_ns && self.empty_ns * 2 >= elapsed_ns
    }

    /// Whether at least half as much came, for its time, as in the other window. Less than that cannot be chance with the
    /// frames of a window, and a client for whom a nap is less than the rest of its way is not hurt by one.
    fn is_half_of(&self, elapsed_ns: u64, other: &Self, other_ns: u64) -> bool {
        self.frames * other_ns * 2 >= other.frames * elapsed_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_TURN_NS: u64 = 400;
    const TURN_NS: u64 = 600;
    const FRAME_NS: u64 = 600;
    const NAP_NS: u64 = 120_000;

    /// A worker with naps, and the time.
    struct Worker {
        naps: Naps,
        now_ns: u64,
        asleep_ns: u64,
    }

    impl Worker {
        fn new() -> Self {
            Self { naps: Naps::new(NAP_US_DEFAULT), now_ns: 1 << 40, asleep_ns: 0 }
        }

        /// One turn with so many frames, and the nap after it.
        fn turn(&mut self, frames: usize) {
            let began = self.now_ns;
            self.now_ns += if frames > 0 { TURN_NS + frames as u64 * FRAME_NS } else { EMPTY_TURN_NS };
            if self.naps.after_turn(began, frames) {
                self.now_ns += NAP_NS;
                self.asleep_ns += NAP_NS;
            }
        }
    }

    /// A stream of so many frames a second, at random times, for a second. The share of the time in naps, and
    /// the longest that a frame waited.
    fn stream(rate: f64) -> (f64, u64) {
        let mut dice = 7_u64;
        let mut worker = Worker::new();
        let (start, mut longest) = (worker.now_ns, 0);
        let mut next = start as f64;
        while worker.now_ns < start + 1_000_000_000 {
            let mut frames = 0;
            while next <= worker.now_ns as f64 {
                longest = longest.max(worker.now_ns - next as u64);
                frames += 1;
                // Knuth's constants (MMIX); a Poisson stream's gaps.
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let chance = ((dice >> 33) + 1) as f64 / (1_u64 << 31) as f64;
                next -= chance.ln() * 1e9 / rate;
            }
            worker.turn(frames);
        }
        (worker.asleep_ns as f64 / (worker.now_ns - start) as f64, longest)
    }

    /// Clients that each send a request and wait for its answer, with so much time between the two that is not ours. How
    /// many requests were answered in a second.
    fn clients(count: usize, apart_ns: u64, naps_us: u64) -> u64 {
        let mut worker = Worker::new();
        worker.naps = Naps::new(naps_us);
        let start = worker.now_ns;
        let mut ready = vec![start; count];
        let mut answered = 0;
        while worker.now_ns < start + 1_000_000_000 {
            let now = worker.now_ns;
            let due: Vec<_> = (0..count).filter(|client| ready[*client] <= now).collect();
            worker.turn(due.len());
            answered += due.len() as u64;
            due.into_iter().for_each(|client| ready[client] = now + apart_ns);
        }
        answered
    }

    #[test]
    fn a_stream_is_let_gather_and_nobody_waits_for_longer_than_a_nap() {
        let (asleep, longest) = stream(90_000.0);
        assert!(asleep > 0.85, "asleep for {asleep}");
        assert!(longest <= NAP_NS + 20_000, "a frame waited for {longest} ns");
        let (asleep, _) = stream(25_000.0);
        assert!(asleep > 0.8, "asleep for {asleep}");
    }

    #[test]
    fn under_load_and_for_a_few_frames_the_worker_stays_awake() {
        for rate in [900_000.0, 7_000.0, 100.0] {
            let (asleep, _) = stream(rate);
            assert!(asleep < 0.05, "asleep for {asleep} at {rate}");
        }
    }

    #[test]
    fn who_waits_for_answers_loses_next_to_nothing_by_naps() {
        for count in crate::cases::some([1, 2, 3, 8, 16]) {
            let (with, without) = (clients(count, 12_000, NAP_US_DEFAULT), clients(count, 12_000, 0));
            assert!(with as f64 >= without as f64 * 0.97, "{count} clients: {with} of {without}");
        }
    }

    #[test]
    fn naps_end_with_the_stream() {
        let mut worker = Worker::new();
        let start = worker.now_ns;
        let mut came = 0;
        while worker.now_ns < start + 20_000_000 {
            let frames = (worker.now_ns - start) / 10_000 - came;
            came += frames;
            worker.turn(frames as usize);
        }
        let before = worker.asleep_ns;
        assert!(before > 15_000_000, "it naps while there is a stream: {before} ns");
        (0..1000).for_each(|_| worker.turn(0));
        assert!(worker.asleep_ns - before <= u64::from(BARREN_MAX + 12) * NAP_NS, "still napping");
    }
}
