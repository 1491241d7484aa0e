//! The same packets through the switch and through Linux: what comes out must be the same, or there is a reason that stands
//! in [`explained::REASONS`]. `ROUTING_PACKETS` (default 1 500) and `ROUTING_SEED` ask for more and for others.

pub(crate) mod dice;
mod explained;
mod packets;
mod seen;
mod topology;
mod worlds;

use dice::Dice;
use seen::Case;
use std::collections::BTreeMap;
use std::path::Path;
use topology::Topology;
use worlds::{Linux, Switch, exchange};

/// Packets through one topology: it costs a namespace.
const PACKETS_A_TOPOLOGY: usize = 500;

/// Both worlds, and what they did differently, with the reason if there is one.
struct Both<'a> {
    topology: &'a Topology,
    switch: Switch,
    linux: Linux,
}

impl<'a> Both<'a> {
    fn new(topology: &'a Topology) -> Self {
        Self { topology, switch: Switch::new(topology), linux: Linux::new(topology) }
    }

    /// None if both did the same; else the reason why not, or what each did.
    fn compare(&mut self, link: usize, frame: &[u8]) -> Option<Result<&'static str, String>> {
        let case = Case::new(self.topology, link, frame);
        let switch = case.see(exchange(&mut self.switch, self.topology, link, frame));
        let linux = case.see(exchange(&mut self.linux, self.topology, link, frame));
        if switch == linux {
            return None;
        }
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        let told = format!("{case}\n  switch {switch:?}\n  Linux  {linux:?}\npacket {link} {hex}");
        Some(explained::reason(&case, &switch, &linux).ok_or(told))
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn the_switch_routes_as_linux_does() {
    let (packets, seed) = (number("ROUTING_PACKETS", 1500) as usize, number("ROUTING_SEED", 1));
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let mut strange = Vec::new();
    for (n, part) in (0..packets).step_by(PACKETS_A_TOPOLOGY).enumerate() {
        let mut dice = Dice(seed.wrapping_mul(1_000_003) + n as u64);
        let topology = Topology::random(&mut dice);
        let mut both = Both::new(&topology);
        for _ in part..packets.min(part + PACKETS_A_TOPOLOGY) {
            let link = dice.below(topology.links.len() as u64) as usize;
            let frame = packets::frame(&mut dice, &topology, link);
            match both.compare(link, &frame) {
                None => *reasons.entry("the same").or_default() += 1,
                Some(Ok(reason)) => *reasons.entry(reason).or_default() += 1,
                Some(Err(told)) => strange.push(format!("{topology}# {told}")),
            }
        }
    }
    for (reason, count) in &reasons {
        println!("{count:>7}  {reason}");
    }
    let few: Vec<&str> =
        strange.iter().take(number("ROUTING_SHOWN", 5) as usize).map(String::as_str).collect();
    assert!(
        strange.is_empty(),
        "{} packets went another way than through Linux. Mend that, or write the reason into explained.rs; keep the case as \
         tests/regressions/linux/NAME:\n{}",
        strange.len(),
        few.join("\n\n")
    );
}

/// Times that Linux is asked.
const TRIES: usize = 3;

/// What was found before.
#[test]
fn finds_stay_mended() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions/linux");
    let mut files: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    for file in files {
        let (topology, packets) = Topology::read(&std::fs::read_to_string(&file).unwrap());
        let differs = || {
            let mut both = Both::new(&topology);
            packets.iter().find_map(|(link, frame)| both.compare(*link, frame))
        };
        // A kernel that is behind with its work has not said anything yet, and seems to say nothing. It is asked anew.
        let told: Vec<_> = std::iter::repeat_with(differs).take(TRIES).map_while(|told| told).collect();
        assert!(told.len() < TRIES, "{}: {:?}", file.display(), told[0]);
    }
}
