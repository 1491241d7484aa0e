//! Settings of a device that netlink cannot make; in the namespace of the thread that asks.

use std::fs::File;
use std::io::{self, Write};

/// Makes a device keep what it knows of its neighbours while it has no carrier (Linux 5.16:
/// Documentation/networking/ip-sysctl.rst). A TAP has none while no daemon serves it: after a restart every pod would ask for
/// every other at once, by broadcast.
pub fn keep_neighbours(device: &str) -> io::Result<()> {
    let settings = [("ipv4", "arp_evict_nocarrier"), ("ipv6", "ndisc_evict_nocarrier")];
    for (version, setting) in settings {
        // Not `fs::write`, which truncates as well: the sandbox lets nothing be truncated here.
        let opened =
            File::options().write(true).open(format!("/proc/sys/net/{version}/conf/{device}/{setting}"));
        match opened.and_then(|mut file| file.write_all(b"0")) {
            // An older kernel; or no IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}
