//! Settings of a device that netlink cannot make; in the namespace of the thread that asks.

use std::fs::File;
use std::io::{self, Write};
use switch_api::PortRange;

/// What a pod's device does, by IP version, setting and value (Documentation/networking/ip-sysctl.rst).
const NEIGHBOURLY: [(&str, &str, &[u8]); 4] = [
    // It keeps what it knows of its neighbours while it has no carrier (Linux 5.16). A TAP has none while no daemon serves
    // it: after a restart every pod would ask for every other at once, by broadcast.
    ("ipv4", "arp_evict_nocarrier", b"0"),
    ("ipv6", "ndisc_evict_nocarrier", b"0"),
    // It tells its neighbours of its addresses when it gets a MAC address (`Rtnl::set_mac`). They may still know the address
    // as that of a pod that is gone, and would speak to nobody for half a minute.
    ("ipv4", "arp_notify", b"1"),
    ("ipv6", "ndisc_notify", b"1"),
];

/// What follows where the settings cannot be made.
pub const NOT_NEIGHBOURLY: &str = "forgets its neighbours without a carrier and does not tell them of itself";

/// Makes a device keep its neighbours, and tell them of itself.
pub fn be_neighbourly(device: &str) -> io::Result<()> {
    for (version, setting, value) in NEIGHBOURLY {
        // Not `fs::write`, which truncates as well: the sandbox lets nothing be truncated here.
        let opened =
            File::options().write(true).open(format!("/proc/sys/net/{version}/conf/{device}/{setting}"));
        match opened.and_then(|mut file| file.write_all(value)) {
            // An older kernel; or no IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Ports that the kernel takes for connections of the host's own, both IP versions (`ip_local_port_range`).
pub fn local_ports() -> Option<PortRange> {
    read_range(&std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}

fn read_range(text: &str) -> Option<PortRange> {
    let mut ports = text.split_whitespace().map(|word| word.parse().ok());
    Some(PortRange { first: ports.next()??, last: ports.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_kernel_writes_it() {
        assert_eq!(read_range("32768\t60999\n"), Some(PortRange { first: 32_768, last: 60_999 }));
        assert_eq!((read_range(""), read_range("1 x")), (None, None));
    }
}
