//! What is asked of a device, and the loads it is asked under.

use crate::flood::Load;
use std::time::Duration;
use switch_api::Mac;

/// What a device does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Known unicast on one bridge.
    Bridge,
    /// From one network to another by a route: a hop less, other MACs.
    Route,
    /// The same, stateful, admitted by one of so many rules.
    Police(u32),
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Bridge, Self::Route, Self::Police(10), Self::Police(1_000), Self::Police(10_000)];

    /// In a word or four.
    pub fn name(self) -> String {
        match self {
            Self::Bridge => "L2".into(),
            Self::Route => "L3".into(),
            Self::Police(rules) => format!("L3 + policy, {rules} rules"),
        }
    }
}

/// Bytes of frames on the wire, their check sequence left out of the larger ones, as they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 64 with the check sequence.
    Small,
    /// 512.
    Middle,
    /// 1 514.
    Full,
    /// The Internet mix: seven of 64, four of 594, one of 1 518 with the check sequence.
    Imix,
}

impl Size {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Small, Self::Middle, Self::Full, Self::Imix];

    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "64",
            Self::Middle => "512",
            Self::Full => "1514",
            Self::Imix => "IMIX",
        }
    }

    /// Bytes of the frame without its check sequence.
    fn len(self) -> Option<usize> {
        match self {
            Self::Small => Some(60),
            Self::Middle => Some(508),
            Self::Full => Some(1514),
            Self::Imix => None,
        }
    }
}

/// More pairs of stations than this a bridge need not know: Open vSwitch knows 8 192 stations as it is delivered.
const STATIONS_MAX: u32 = 1_000;

/// A size and a number of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Of frames.
    pub size: Size,
    /// Pairs of addresses.
    pub flows: u32,
}

impl Traffic {
    /// What all others are held against: small frames, a thousand flows.
    pub const MAIN: Self = Self { size: Size::Small, flows: 1_000 };

    /// In words.
    pub fn name(self) -> String {
        format!("{} B, {} flows", self.size.name(), self.flows)
    }

    /// As the generator sends it, as fast as it goes.
    pub fn load(self, gateway: Option<Mac>, window: Duration) -> Load {
        let stations = if gateway.is_some() { 1 } else { self.flows.min(STATIONS_MAX) };
        Load { flows: self.flows, stations, len: self.size.len(), gateway, window, ..Load::default() }
    }

    /// Pairs of stations at most.
    pub fn stations_max() -> u32 {
        STATIONS_MAX
    }
}
