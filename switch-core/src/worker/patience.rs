//! How long a worker looks for frames in vain before it sleeps.
//!
//! It is told in turns, for what a turn without a frame takes is little: with a few ports a quarter of a microsecond. With a hundred it is five
//! times that, and as many turns would keep the core for as much longer from whoever is to send the next frame. So a turn counts for no more
//! than it takes with a few.
//!
//! Where there are as many workers as cores, whoever polls in vain has the core that the control thread needs: while that has work, and for
//! [`LINGERS_NS`] behind it, patience is short ([`GIVES_WAY_NS`]).

/// Turns in vain before a worker sleeps, unless `switchd --idle-turns` says otherwise: a quarter of a millisecond bridges the gap between two
/// packets of a busy flow.
pub const IDLE_TURNS_DEFAULT: u32 = 1000;
/// What a turn in vain counts for at most: what it takes with three TAP ports on a core of a few GHz.
const IDLE_TURN_NS: u64 = 250;

/// How long the control thread has the core to itself behind a request, nanoseconds: who makes changes one by one has asked for the next one by
/// then, and waits for no worker's patience.
pub const LINGERS_NS: u64 = 1_000_000;

/// Patience while the control thread needs the core, nanoseconds: who has 40 000 packets a second or more sleeps between none of them. With no
/// patience at all 100 000 a second lost a thousandth beside 10 000 changes a second, for who sleeps has to be woken.
const GIVES_WAY_NS: u64 = 25_000;

/// See the module.
#[derive(Debug)]
pub struct Patience {
    turns: u32,
    in_vain: u32,
    since_ns: u64,
}

impl Patience {
    /// So many turns.
    pub fn new(turns: u32) -> Self {
        Self { turns, in_vain: 0, since_ns: 0 }
    }

    /// Whether it is over after a turn that began then and had so many frames. Once it is, it stays so until there are some. `others_ns`: until
    /// then somebody else needs the core.
    pub fn is_over(&mut self, began_ns: u64, frames: usize, others_ns: u64) -> bool {
        if frames > 0 {
            self.renew();
            return false;
        }
        if self.in_vain == 0 {
            self.since_ns = began_ns;
        }
        self.in_vain = self.in_vain.saturating_add(1);
        let mut most_ns = u64::from(self.turns) * IDLE_TURN_NS;
        // Who never sleeps was told so.
        if began_ns < others_ns && self.turns < u32::MAX {
            most_ns = most_ns.min(GIVES_WAY_NS);
        }
        self.in_vain > self.turns || began_ns.saturating_sub(self.since_ns) > most_ns
    }

    /// There were frames.
    pub fn renew(&mut self) {
        self.in_vain = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many turns of such a length it takes.
    fn turns_of(patience: &mut Patience, ns: u64) -> u64 {
        (1..).find(|turn| patience.is_over(7 + turn * ns, 0, 0)).unwrap()
    }

    #[test]
    fn it_is_turns_and_no_longer_than_short_ones_take() {
        for (turns, ns, most) in
            [(0, 10, 1), (1000, 10, 1001), (1000, 250, 1001), (1000, 500, 502), (1000, 1_000_000, 2)]
        {
            let mut patience = Patience::new(turns);
            assert_eq!(turns_of(&mut patience, ns), most, "{turns} of {ns} ns");
            assert!(patience.is_over(1 << 40, 0, 0), "it stays over");
            assert!(!patience.is_over(1 << 40, 1, 0), "a frame ends it");
            assert_eq!(turns_of(&mut patience, ns), most, "and all is as before");
        }
        let mut never = Patience::new(u32::MAX);
        assert!((0..1000).all(|turn| !never.is_over(turn * 1000, 0, u64::MAX)));
    }

    #[test]
    fn who_polls_in_vain_gives_way_and_who_has_frames_does_not() {
        let mut patience = Patience::new(1000);
        let mut over = |ns, frames, others_ns| patience.is_over(ns, frames, others_ns);
        // A packet each 20 µs, and none any more.
        for ns in (0..1000).map(|n| 20_000 * n) {
            assert!(
                !over(ns, 1, u64::MAX) && !over(ns + 10_000, 0, u64::MAX) && !over(ns + 19_999, 0, u64::MAX)
            );
        }
        assert!(!over(20_000_000, 0, u64::MAX) && over(20_025_001, 0, u64::MAX), "it gives way");
        assert!(!over(20_025_001, 0, 20_025_001), "and has all its patience when it need not");
        assert!(over(20_250_001, 0, 0));
    }
}
