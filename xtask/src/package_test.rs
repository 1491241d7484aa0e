//! The Debian package is installed, used, upgraded, removed and purged, on this system under an overlay.

use crate::package::{Package, Processor};
use crate::sh::{Result, capture, root};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// What a package for another processor has to have in it.
const IN_IT: &[&str] = &[
    "usr/sbin/switchd",
    "usr/bin/switch-ctl",
    "usr/lib/cni/switch-cni",
    "usr/share/man/man8/switchd.8.gz",
    "usr/share/man/man8/switch-cni.8.gz",
    "usr/share/man/man1/switch-ctl-port-add-tap.1.gz",
    "usr/share/bash-completion/completions/switch-ctl",
    "usr/lib/systemd/system/switchd.service",
];
/// Where packages for this system are made.
const PLACE: &str = "target/package-test";
/// What is done with it.
const SCRIPT: &str = "xtask/src/package_test.sh";

/// See the module.
pub fn run() -> Result {
    let (first, second) = packages()?;
    let empty = root().join(PLACE).join("system");
    fs::create_dir_all(&empty).map_err(|error| format!("{}: {error}", empty.display()))?;
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh"]);
    inside.args([&root().join(SCRIPT), &empty, first, second]);
    print!("{}", capture(&mut inside)?);
    Ok(())
}

/// A package and a later one, made once: of the programs that the tests were built with, not the static ones. What is tried
/// is the package.
pub fn packages() -> Result<(&'static PathBuf, &'static PathBuf)> {
    static MADE: OnceLock<Result<(PathBuf, PathBuf)>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        // The programs belong to these tests; where the others ran, they are there.
        let mut build = crate::test::tests(&["kernel", "cli", "verbs"]);
        build.args(["--no-run", "--quiet"]);
        crate::sh::run(build)?;
        let place = root().join(PLACE);
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
        Ok((pack("0.1.0")?, pack("0.1.1")?))
    });
    made.as_ref().map(|(first, second)| (first, second)).map_err(Clone::clone)
}

/// The package for arm64: its programs are static and start in an emulator, and it has what it should. Built as tests are; with
/// `--release` it is `cargo xtask package --architecture arm64`.
pub fn foreign() -> Result {
    let processor = Processor::find("arm64")?;
    let target = root().join("target/emulated");
    let programs = processor.build(true, "dev", &target)?;
    let package = Package {
        programs: &programs,
        architecture: processor.debian,
        version: env!("CARGO_PKG_VERSION"),
        compression: "none",
        emulator: Some(processor.emulator),
    };
    package.must_be_static()?;
    package.must_run()?;
    let file = package.build(&target.join("package"))?;
    let told = capture(Command::new("dpkg-deb").arg("--info").arg(&file))?;
    if !told.contains("Architecture: arm64") {
        return Err(format!("it is for another processor:\n{told}"));
    }
    let listed = capture(Command::new("dpkg-deb").arg("--contents").arg(&file))?;
    match IN_IT.iter().find(|path| !listed.lines().any(|line| line.ends_with(&format!("./{path}")))) {
        Some(missing) => Err(format!("{missing} is not in it:\n{listed}")),
        None => Ok(()),
    }
}
