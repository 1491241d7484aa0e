//! How long a worker looks for frames in vain before it sleeps.
//!
//! It is told in turns, for what a turn without a frame takes is little: with a few ports a quarter of a microsecond. With a hundred it is five
//! times that, and as many turns would keep the core for as much longer from whoever is to send the next frame. So a turn counts for no more
//! than it takes with a few.
//!
//! Where there are as many workers as cores, whoever polls in vain has the core that the control thread needs: while that has work, and for
//! [`LINGERS_NS`] behind it, a turn in vain is enough.

/// Turns in vain before a worker sleeps, unless `switchd --idle-turns` says otherwise: a quarter of a millisecond bridges the gap between two
/// packets of a busy flow.
pub const IDLE_TURNS_DEFAULT: u32 = 1000;
/// What a turn in vain counts for at most: what it takes with three TAP ports on a core of a few GHz.
const IDLE_TURN_NS: u64 = 250;

/// How long the control thread has the core to itself behind a request, nanoseconds: who makes changes one by one has asked for the next one by
/// then, and waits for no worker's patience.
pub const LINGERS_NS: u64 = 1_000_000;

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
        if began_ns < others_ns {
            return true;
        }
        if self.in_vain == 0 {
            self.since_ns = began_ns;
        }
        self.in_vain = self.in_vain.saturating_add(1);
        let most_ns = u64::from(self.turns) * IDLE_TURN_NS;
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
        assert!((0..1000).all(|turn| !never.is_over(turn * 1000, 0, 0)));
    }

    #[test]
    fn who_polls_in_vain_gives_way_and_who_has_frames_does_not() {
        let mut patience = Patience::new(1000);
        assert!(!patience.is_over(10, 1, u64::MAX) && patience.is_over(20, 0, u64::MAX));
        assert!(patience.is_over(30, 0, 31) && !patience.is_over(31, 0, 31), "and has all its patience then");
        assert_eq!(turns_of(&mut patience, 10), 1000, "one was had");
    }
}
