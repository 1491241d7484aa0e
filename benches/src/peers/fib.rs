//! DPDK's `rte_fib`: DIR-24-8 for IPv4, a trie of bytes for IPv6, each with the widest of its lookup functions. DPDK's own program
//! asks it for our routes and destinations, in bursts of 64, and says how many ticks of the time-stamp counter a lookup took.

use quanta::Clock;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use switch_core::table::lpm::Change;

/// Its program.
const PROGRAM: &str = "dpdk-test-fib";
/// Groups of 256 addresses, or of 256 answers of the trie: more than these tables need.
const GROUPS: &str = "262144";
/// MiB for the table, and for the routes that it was made of.
const MEMORY: &str = "2048";

/// Files for one run; gone when dropped.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Nanoseconds that it takes for one of `destinations` (left-aligned, as in the routes) among `routes`; `Err` says why that is not known.
pub fn lookup_ns(routes: &[Change], destinations: &[u128], is_v6: bool) -> Result<f64, String> {
    let shown = |key: u128| match is_v6 {
        true => Ipv6Addr::from_bits(key).to_string(),
        false => Ipv4Addr::from_bits((key >> 96) as u32).to_string(),
    };
    let files = Files(std::env::temp_dir().join(format!("switch-fib-{}", std::process::id())));
    let [routes_at, ips_at] = ["routes", "destinations"].map(|name| files.0.join(name));
    let (mut table, mut ips) = (String::new(), String::new());
    for route in routes {
        _ = writeln!(table, "{}/{} {}", shown(route.key), route.len, route.value);
    }
    for ip in destinations {
        _ = writeln!(ips, "{}", shown(*ip));
    }
    std::fs::create_dir_all(&files.0)
        .and_then(|()| std::fs::write(&routes_at, table))
        .and_then(|()| std::fs::write(&ips_at, ips))
        .map_err(|error| format!("{}: {error}", files.0.display()))?;
    let prefix = format!("--file-prefix=fib{}", std::process::id());
    let mut command = Command::new(PROGRAM);
    command.args(["--no-pci", "--no-huge", "-m", MEMORY, "--no-telemetry", "-l", "0", &prefix, "--"]);
    command.arg("-f").arg(&routes_at).arg("-t").arg(&ips_at).args(["-g", GROUPS]);
    if is_v6 {
        command.arg("-6");
    }
    let output = command.output().map_err(|error| {
        format!("{PROGRAM}: {error}; install it with `apt-get install --no-install-recommends dpdk-dev`")
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let ticks = said.lines().find_map(|line| line.split_once("AVG FIB lookup")?.1.trim().parse::<f64>().ok());
    let ticks = ticks.ok_or_else(|| {
        let why = String::from_utf8_lossy(&output.stderr);
        format!("{PROGRAM}: {}", why.lines().chain(said.lines()).last().unwrap_or("nothing said"))
    })?;
    // A million of them, so that none is lost to rounding.
    Ok(ticks * Clock::new().delta_as_nanos(0, 1_000_000) as f64 / 1e6)
}
