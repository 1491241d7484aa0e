//! `cargo xtask package`: the three programs, linked statically so that any Linux of the processor runs them, and a Debian package of
//! them with the unit, the drop-ins, manual pages and completions. `dpkg-deb` makes it: what a package is stays Debian's.

use crate::setup;
use crate::sh::{Result, capture, cargo, root, run, say};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Each program and where Debian looks for it.
const PROGRAMS: &[(&str, &str)] =
    &[("switchd", "usr/sbin"), ("switch-ctl", "usr/bin"), ("switch-cni", "usr/lib/cni")];
/// What goes in as it is.
const FILES: &[(&str, &str)] = &[
    ("deploy/systemd/switchd.service", "usr/lib/systemd/system/switchd.service"),
    ("deploy/udev/79-switch.rules", "usr/lib/udev/rules.d/79-switch.rules"),
    ("deploy/systemd-network/10-switch.link", "usr/lib/systemd/network/10-switch.link"),
    ("deploy/systemd-network/10-switch.network", "usr/lib/systemd/network/10-switch.network"),
    ("deploy/NetworkManager/90-switch.conf", "usr/lib/NetworkManager/conf.d/90-switch.conf"),
    ("deploy/debian/copyright", "usr/share/doc/switchd/copyright"),
    ("README.md", "usr/share/doc/switchd/README.md"),
    ("CHANGELOG.md", "usr/share/doc/switchd/changelog"),
    ("deploy/README.md", "usr/share/doc/switchd/deploy.md"),
    ("docs/CNI.md", "usr/share/doc/switchd/CNI.md"),
    ("docs/API.md", "usr/share/doc/switchd/API.md"),
    ("docs/API-EXAMPLES.md", "usr/share/doc/switchd/API-EXAMPLES.md"),
    ("deploy/grafana/switch.json", "usr/share/doc/switchd/grafana/switch.json"),
    // Not in /etc/cni/net.d: a runtime would call us from there before anybody said so.
    ("deploy/cni/10-switch.conflist", "usr/share/doc/switchd/cni/10-switch.conflist"),
];
/// Everything in it.
const GUIDE: &str = "docs/guide";
/// What dpkg runs.
const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];
/// Each shell, and where it looks for completions.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/switch-ctl"),
    ("zsh", "usr/share/zsh/vendor-completions/_switch-ctl"),
    ("fish", "usr/share/fish/vendor_completions.d/switch-ctl.fish"),
];

/// No dynamic linker, no shared library.
pub const STATIC: &str = "-C target-feature=+crt-static";

/// A processor that packages are made for.
pub struct Processor {
    /// As Debian names it.
    pub debian: &'static str,
    /// As Rust does.
    pub rust: &'static str,
    /// Links for it, elsewhere.
    linker: &'static str,
    /// Runs its programs elsewhere.
    pub emulator: &'static str,
}

const PROCESSORS: &[Processor] = &[
    Processor {
        debian: "amd64",
        rust: "x86_64-unknown-linux-gnu",
        linker: "x86_64-linux-gnu-gcc",
        emulator: "qemu-x86_64-static",
    },
    Processor {
        debian: "arm64",
        rust: "aarch64-unknown-linux-gnu",
        linker: "aarch64-linux-gnu-gcc",
        emulator: "qemu-aarch64-static",
    },
];

/// What a package is made of, and for whom.
pub struct Package<'a> {
    /// Where the programs are.
    pub programs: &'a Path,
    /// Debian's name of the processor.
    pub architecture: &'a str,
    pub version: &'a str,
    /// How dpkg-deb compresses it; see its `-Z`.
    pub compression: &'a str,
    /// Runs the programs, if this machine cannot.
    pub emulator: Option<&'a str>,
}

/// Builds the programs and packs them, for this machine's processor or another.
pub fn release(architecture: Option<&str>) -> Result {
    let here = capture(Command::new("dpkg").arg("--print-architecture"))?;
    let wanted = architecture.unwrap_or(here.trim());
    let processor = Processor::find(wanted)?;
    let emulator = (wanted != here.trim()).then_some(processor.emulator);
    if emulator.is_some() {
        setup::cross()?;
        if !setup::rust_target(processor.rust) {
            let target = processor.rust;
            return Err(format!("Rust's library for {target} is not here: `rustup target add {target}`"));
        }
    }
    say(&format!("the programs, static, for {}", processor.rust));
    let programs = processor.build(emulator.is_some(), "release", &root().join("target"))?;
    let package = Package {
        programs: &programs,
        architecture: wanted,
        version: env!("CARGO_PKG_VERSION"),
        compression: "xz",
        emulator,
    };
    package.must_be_static()?;
    package.must_run()?;
    let file = package.build(&root().join("target/package"))?;
    println!("{}, {} KiB; install it with `apt install {0}`", file.display(), size(&file)? / 1024);
    Ok(())
}

impl Processor {
    /// The one that Debian names so.
    pub fn find(wanted: &str) -> Result<&'static Self> {
        PROCESSORS.iter().find(|processor| processor.debian == wanted).ok_or_else(|| {
            let known: Vec<_> = PROCESSORS.iter().map(|processor| processor.debian).collect();
            format!("no packages are made for {wanted:?}: it is one of {}", known.join(", "))
        })
    }

    /// Builds the programs, static, by a profile of cargo's, below `target`; where they are.
    pub fn build(&self, is_foreign: bool, profile: &str, target: &Path) -> Result<PathBuf> {
        let mut build = cargo("build --quiet --profile");
        // With a target named, what runs while building (macros, build scripts) is built without the flag.
        build.args([profile, "--target", self.rust]).env("RUSTFLAGS", STATIC).env("CARGO_TARGET_DIR", target);
        if is_foreign {
            let name = format!("CARGO_TARGET_{}_LINKER", self.rust.to_uppercase().replace('-', "_"));
            build.env(name, self.linker);
        }
        run(build)?;
        let directory = if profile == "dev" { "debug" } else { profile };
        Ok(target.join(self.rust).join(directory))
    }
}

impl Package<'_> {
    /// One of its programs, to be run here.
    fn run(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        match self.emulator {
            Some(emulator) => {
                let mut command = Command::new(emulator);
                command.arg(path);
                command
            }
            None => Command::new(path),
        }
    }

    /// A program that asks for a dynamic linker names it in a segment of its own.
    pub fn must_be_static(&self) -> Result {
        for (program, _) in PROGRAMS {
            let program = self.programs.join(program);
            let mut readelf = Command::new("readelf");
            let segments = capture(readelf.args(["--program-headers", "--wide"]).arg(&program))?;
            if segments.contains(" INTERP ") {
                return Err(format!("{} is not static: it asks for a dynamic linker", program.display()));
            }
            println!("{}: static, {} KiB", program.display(), size(&program)? / 1024);
        }
        Ok(())
    }

    /// Its programs start on its processor, and say who they are.
    pub fn must_run(&self) -> Result {
        for (program, _) in PROGRAMS {
            let said = capture(self.run(program).arg("--version").stdin(Stdio::null()))?;
            if said.trim() != format!("{program} {}", self.version) {
                return Err(format!("{program} does not say that it is of version {}: {said}", self.version));
            }
        }
        Ok(())
    }

    /// Packs in `place`, which is emptied first; the package's path.
    pub fn build(&self, place: &Path) -> Result<PathBuf> {
        let name = format!("switchd_{}_{}", self.version, self.architecture);
        let tree = place.join(&name);
        _ = fs::remove_dir_all(&tree);
        for (program, directory) in PROGRAMS {
            copy(&self.programs.join(program), &tree.join(directory).join(program), 0o755)?;
        }
        for (from, to) in FILES {
            copy(&root().join(from), &tree.join(to), 0o644)?;
        }
        for entry in fs::read_dir(root().join(GUIDE)).map_err(|error| format!("{GUIDE}: {error}"))? {
            let path = entry.map_err(|error| error.to_string())?.path();
            let name = path.file_name().unwrap_or_default();
            copy(&path, &tree.join("usr/share/doc/switchd/guide").join(name), 0o644)?;
        }
        self.generate(&tree)?;
        self.control(&tree)?;
        let file = place.join(format!("{name}.deb"));
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--root-owner-group", "-Z", self.compression, "--build"]).arg(&tree).arg(&file);
        capture(&mut pack)?;
        Ok(file)
    }

    /// What the command line says of itself: manual pages and completions.
    fn generate(&self, tree: &Path) -> Result {
        let pages = tree.join("usr/share/man/man1");
        directory(&pages)?;
        capture(self.run("switch-ctl").arg("man").arg(&pages))?;
        for program in ["switchd", "switch-cni"] {
            let page = capture(self.run(program).arg("--man").stdin(Stdio::null()))?;
            write(&tree.join(format!("usr/share/man/man8/{program}.8")), &page, 0o644)?;
        }
        for (shell, to) in COMPLETIONS {
            write(&tree.join(to), &capture(self.run("switch-ctl").args(["completion", shell]))?, 0o644)?;
        }
        capture(
            Command::new("gzip").args(["--no-name", "--best", "--recursive"]).arg(tree.join("usr/share/man")),
        )?;
        capture(
            Command::new("gzip")
                .args(["--no-name", "--best"])
                .arg(tree.join("usr/share/doc/switchd/changelog")),
        )
        .map(drop)
    }

    fn control(&self, tree: &Path) -> Result {
        let from = root().join("deploy/debian");
        let used = capture(Command::new("du").args(["--summarize", "--block-size=1024"]).arg(tree))?;
        let template =
            fs::read_to_string(from.join("control")).map_err(|error| format!("control: {error}"))?;
        let control = template
            .replace("VERSION", self.version)
            .replace("ARCHITECTURE", self.architecture)
            .replace("SIZE", used.split_whitespace().next().unwrap_or("0"));
        write(&tree.join("DEBIAN/control"), &control, 0o644)?;
        for script in SCRIPTS {
            copy(&from.join(script), &tree.join("DEBIAN").join(script), 0o755)?;
        }
        Ok(())
    }
}

fn directory(path: &Path) -> Result {
    fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result {
    directory(to.parent().unwrap_or(to))?;
    fs::copy(from, to).map_err(|error| format!("{}: {error}", from.display()))?;
    set_mode(to, mode)
}

fn write(to: &Path, text: &str, mode: u32) -> Result {
    directory(to.parent().unwrap_or(to))?;
    fs::write(to, text).map_err(|error| format!("{}: {error}", to.display()))?;
    set_mode(to, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result {
    let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set.map_err(|error| format!("{}: {error}", path.display()))
}

fn size(file: &Path) -> Result<u64> {
    fs::metadata(file).map(|found| found.len()).map_err(|error| format!("{}: {error}", file.display()))
}
