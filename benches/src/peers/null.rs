//! testpmd between ports that give frames out of nothing and take them to nowhere: what moving them costs at the least, and a
//! yardstick between machines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Between two readings of its counters.
const WINDOW: Duration = Duration::from_secs(1);
/// Until it forwards.
const START: Duration = Duration::from_secs(3);
/// Readings; the median counts.
const READINGS: usize = 5;
/// Packets in memory at a time, beside those of a capture.
const BUFFERS: u32 = 16_384;
/// MiB, beside a capture's.
const MEMORY: u32 = 256;
/// Packets of a capture that fit into one: a buffer of 2 176 bytes, what is known of it, and room to place it.
const CAPTURED_A_MIB: u32 = 320;
/// Packets a second of a core of its own, at the least.
const YARDSTICK_LEAST: f64 = crate::vpp::NULL_THERE / 3.0;
/// For all of it.
const LIMIT: Duration = Duration::from_secs(40);

/// Packets a second that it forwards on core 1 from one null port to the other.
pub fn testpmd() -> Result<f64, String> {
    testpmd_between(["net_null0".into(), "net_null1".into()], 0)
}

/// The same as a yardstick between machines: with much less than elsewhere it shares its core with other work, and is none.
pub fn yardstick() -> Result<f64, String> {
    let pps = testpmd()?;
    match pps < YARDSTICK_LEAST {
        true => Err(format!("testpmd between null ports did {:.0} Mpps: its core is not its own", pps / 1e6)),
        false => Ok(pps),
    }
}

/// The same from the first of these devices to the second, as its `--vdev` reads them; the first has so many packets of a capture.
pub fn testpmd_between(devices: [String; 2], captured: u32) -> Result<f64, String> {
    let prefix = format!("--file-prefix=null{}", std::process::id());
    let memory = (MEMORY + captured / CAPTURED_A_MIB).to_string();
    let words = ["--no-pci", "--no-huge", "-m", &memory, "-l", "0,1", "--main-lcore", "0", &prefix];
    let devices = devices.map(|device| format!("--vdev={device}"));
    let buffers = format!("--total-num-mbufs={}", BUFFERS + captured);
    let forwarding = ["--", &buffers, "--forward-mode=io", "--auto-start", "-i"];
    let mut command = Command::new("dpdk-testpmd");
    command.args(words).args(devices).args(forwarding);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|error| format!("the peer dpdk-testpmd is missing ({error})"))?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (Some(mut input), Some(output)) = (input, output) else {
        return Err("testpmd has no terminal".into());
    };
    let reader = std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).collect::<Vec<String>>()
    });
    let said = |error: std::io::Error| format!("testpmd: {error}");
    std::thread::sleep(START);
    for _ in 0..=READINGS {
        writeln!(input, "show port stats 0").map_err(said)?;
        std::thread::sleep(WINDOW);
    }
    writeln!(input, "quit").map_err(said)?;
    drop(input);
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().map_err(said)?.is_none() {
        if Instant::now() > deadline {
            child.kill().map_err(said)?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    rates(&reader.join().map_err(|_| "testpmd's reader panicked")?)
}

/// The median of the rates that it tells, but for the first, which is since it began.
fn rates(lines: &[String]) -> Result<f64, String> {
    let rates: Vec<f64> = lines
        .iter()
        .filter_map(|line| line.trim().strip_prefix("Rx-pps:")?.split_whitespace().next()?.parse().ok())
        .skip(1)
        .filter(|rate| *rate > 0.0)
        .collect();
    if rates.is_empty() { Err("testpmd told no rates".into()) } else { Ok(crate::cycles::median(rates)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    #[test]
    fn rates_are_read_from_what_it_prints() {
        let lines = |rates: &[u64]| {
            rates.iter().map(|rate| format!("  Rx-pps:     {rate}          Rx-bps: 9")).collect::<Vec<_>>()
        };
        assert_eq!(rates(&lines(&[0, 90, 80, 100])).unwrap(), 90.0);
        assert!(rates(&lines(&[90])).is_err());
    }
}
