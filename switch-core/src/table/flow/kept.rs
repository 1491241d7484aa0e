//! Since when a worker keeps flows of what a port sends and is sent. While it keeps none of either end's, packets of a connection pass unseen,
//! and what is known of its windows grows old: a policy was deleted, and another comes. Such a connection is taken up where it is
//! ([`super::Flows::take_up`]), once.

/// What a worker knows of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// It is not there, or closed: nothing passes.
    Closed,
    /// What it sends and is sent passes unseen.
    Unseen,
    /// All of it is seen, and always was, as far as there can be flows of it.
    Seen,
    /// It is seen again since this second.
    Again(u32),
}

/// See the module.
#[derive(Debug)]
pub struct Kept {
    generation: u64,
    ports: Box<[Port]>,
}

impl Kept {
    /// For ports `0..ports`, none of which is there.
    pub fn new(ports: usize) -> Self {
        Self { generation: 0, ports: vec![Port::Closed; ports].into() }
    }

    /// What holds from now on, if it is another generation: of each port whether flows are kept of it; none: it is closed.
    #[inline(always)]
    pub fn note(&mut self, generation: u64, kept: impl Iterator<Item = Option<bool>>, now_s: u32) {
        if generation != self.generation {
            self.generation = generation;
            self.note_all(kept, now_s);
        }
    }

    #[inline(never)]
    fn note_all(&mut self, kept: impl Iterator<Item = Option<bool>>, now_s: u32) {
        for (port, kept) in self.ports.iter_mut().zip(kept.chain(std::iter::repeat(None))) {
            *port = match (kept, *port) {
                (None, _) => Port::Closed,
                (Some(false), _) => Port::Unseen,
                (Some(true), Port::Unseen) => Port::Again(now_s),
                (Some(true), Port::Closed) => Port::Seen,
                (Some(true), seen) => seen,
            };
        }
    }

    /// The second in which a port began to be seen that had not been; none: there was no such time.
    pub fn again_since(&self, port: u16) -> Option<u32> {
        match self.ports.get(usize::from(port)) {
            Some(Port::Again(since_s)) => Some(*since_s),
            _ => None,
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_seen_again_since_it_was_not() {
        let mut kept = Kept::new(4);
        let mut note = |generation, ports: [Option<bool>; 3], now_s| {
            kept.note(generation, ports.into_iter(), now_s);
            [0, 1, 2, 3, 4].map(|port| kept.again_since(port))
        };
        assert_eq!(note(1, [Some(true), Some(false), None], 5), [None; 5]);
        assert_eq!(note(2, [Some(true), Some(true), Some(true)], 6), [None, Some(6), None, None, None]);
        // It was said already.
        assert_eq!(note(2, [Some(false), Some(false), None], 7), [None, Some(6), None, None, None]);
        assert_eq!(note(3, [Some(false), Some(true), Some(true)], 8), [None, Some(6), None, None, None]);
        assert_eq!(note(4, [Some(true), None, Some(true)], 9), [Some(9), None, None, None, None]);
    }
}
