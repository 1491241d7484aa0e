//! Settings of the node's kernel that pods need to reach the outside: read, made, and put back as they were.
//! Documentation/networking/ip-sysctl.rst says what each does.

use crate::config::outside::Outside;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

const ROOT: &str = "/proc/sys";
const FORWARD_V4: &str = "net/ipv4/ip_forward";
const FORWARD_V6: &str = "net/ipv6/conf/all/forwarding";
const DEVICES_V6: &str = "net/ipv6/conf";
const ACCEPT_ADVERTS: &str = "accept_ra";

/// A setting that we made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Below `/proc/sys`.
    pub path: String,
    /// What it was.
    pub before: String,
    /// What we made it.
    pub value: String,
}

/// What pods need, in the order in which it is made.
pub(super) fn wanted(outside: &Outside) -> Vec<(String, &'static str)> {
    let mut wanted = Vec::new();
    if outside.has_version(true) {
        wanted.push((FORWARD_V4.to_owned(), "1"));
    }
    if outside.has_version(false) {
        wanted.push((FORWARD_V6.to_owned(), "1"));
    }
    // So that the node reaches published ports at 127.0.0.1; the table's chain `guard` keeps others from it.
    if outside.published.iter().any(|forward| forward.to.is_ipv4()) {
        wanted.extend(
            outside.devices.iter().map(|device| (format!("net/ipv4/conf/{device}/route_localnet"), "1")),
        );
    }
    wanted
}

/// Whether something that was made is needed still.
pub(super) fn is_needed(made: &Made, wanted: &[(String, &'static str)]) -> bool {
    let is = |path: &str| wanted.iter().any(|(wanted, _)| wanted == path);
    is(&made.path) || made.path.ends_with(ACCEPT_ADVERTS) && is(FORWARD_V6)
}

/// What has to be made, with what it was, before `path` is given a value. A host that becomes a router takes no more router advertisements
/// unless it is told to (`accept_ra` 2), and loses the default route that it has from them: a node would be gone.
pub(super) fn to_be_made(path: &str, value: &str, is: String) -> io::Result<Vec<Made>> {
    let mut all = Vec::new();
    if path == FORWARD_V6 {
        for device in std::fs::read_dir(Path::new(ROOT).join(DEVICES_V6))?.flatten() {
            let path = format!("{DEVICES_V6}/{}/{ACCEPT_ADVERTS}", device.file_name().to_string_lossy());
            // `all` decides nothing here, and nobody advertises on the loopback.
            let is_device = device.file_name() != "all" && device.file_name() != "lo";
            if is_device && read(&path).is_ok_and(|is| is.as_deref() == Some("1")) {
                all.push(Made { path, before: "1".into(), value: "2".into() });
            }
        }
    }
    all.push(Made { path: path.to_owned(), before: is, value: value.to_owned() });
    Ok(all)
}

/// What a setting is; none if there is none: the device is not there, or IPv6 is not.
pub(super) fn read(path: &str) -> io::Result<Option<String>> {
    match std::fs::read_to_string(Path::new(ROOT).join(path)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a setting.
pub(super) fn write(path: &str, value: &str) -> io::Result<()> {
    // Not `fs::write`, which truncates as well: the sandbox lets nothing be truncated here.
    File::options().write(true).open(Path::new(ROOT).join(path))?.write_all(value.as_bytes())
}

/// Makes a setting what it was, unless somebody has changed it since.
pub(super) fn put_back(made: &Made) -> io::Result<()> {
    match read(&made.path)? {
        Some(is) if is == made.value => write(&made.path, &made.before),
        _ => Ok(()),
    }
}

/// As sysctl(8) calls it.
pub(super) fn name(path: &str) -> String {
    path.replace('/', ".")
}
