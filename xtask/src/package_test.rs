//! The Debian package is installed, used, upgraded, removed and purged, on this system under an overlay.

use crate::package::Package;
use crate::sh::{Result, capture, root};
use std::fs;
use std::process::Command;

/// What is done with it.
const SCRIPT: &str = "xtask/src/package_test.sh";

/// Packs the programs that the tests were built with, not the static ones: what is tried is the package.
pub fn run() -> Result {
    let place = root().join("target/package-test");
    let architecture = capture(Command::new("dpkg").arg("--print-architecture"))?;
    let programs = root().join("target/debug");
    let pack = |version| {
        Package {
            programs: &programs,
            architecture: architecture.trim(),
            version,
            compression: "none",
            emulator: None,
        }
        .build(&place)
    };
    let (first, second) = (pack("0.1.0")?, pack("0.1.1")?);
    let empty = place.join("system");
    fs::create_dir_all(&empty).map_err(|error| format!("{}: {error}", empty.display()))?;
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh"]);
    inside.args([&root().join(SCRIPT), &empty, &first, &second]);
    print!("{}", capture(&mut inside)?);
    Ok(())
}
