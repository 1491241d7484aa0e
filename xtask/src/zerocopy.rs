//! `cargo xtask zerocopy`: the only zero-copy driver that needs no NIC is virtio-net in an emulated machine. This
//! boots one on a Debian kernel that is new enough, with what `switch-core/tests/zerocopy.rs`, `nic.rs` and `clock.rs` need in its
//! memory disk, and runs these tests in it. So are a NIC whose driver has no XDP (e1000e), and what a kernel makes of NICs:
//! VLANs, bonds, bridges. No hardware virtualization is used: it runs everywhere, slowly.

use crate::setup;
use crate::sh::{Result, root, run, say};
use crate::wire::Wire;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Debian's suite whose kernel has virtio-net with zero-copy (7.2 and later).
const SUITE: &str = "trixie-backports";
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The whole run takes a minute on an idle machine; emulation on a busy one several times that.
const LIMIT_S: &str = "480";
/// In the order in which they are loaded.
const MODULES: &[&str] = &[
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/net/veth",
    "drivers/net/tun",
    "drivers/net/ethernet/intel/e1000e/e1000e",
    "net/llc/llc",
    "net/802/stp",
    "net/802/garp",
    "net/802/mrp",
    "net/8021q/8021q",
    "net/bridge/bridge",
    "net/tls/tls",
    "drivers/net/bonding/bonding",
    "drivers/net/macvlan",
    "drivers/net/vrf",
];
/// What the test calls.
const PROGRAMS: &[&str] = &["ip", "ping", "nsenter", "umount", "setpriv", "sysctl"];
/// Which tests, in their order.
const TESTS: &[&str] = &["zerocopy", "nic", "clock"];
/// The machine's last words, before the test's exit status.
const VERDICT: &str = "zerocopy exit status:";

const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmpfs /run
export PATH=/usr/bin:/usr/sbin:/bin:/sbin MODES=WHICH
/bin/busybox ip link set lo up
for module in MODULES; do /bin/busybox insmod /modules/$module.ko; done
status=0
for test in TESTS; do $test --nocapture --test-threads=1 || status=1; done
echo \"VERDICT $status\"
/bin/busybox poweroff -f
";

/// How much of the tests in there, as they are told.
#[derive(Clone, Copy)]
pub enum Modes {
    /// Everything.
    All,
    /// But for what they say shows the same as something else.
    Most,
}

impl Modes {
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Most => "most",
        }
    }
}

/// Builds, boots, and hands on what the test in there said.
pub fn run_in_machine(modes: Modes) -> Result {
    setup::zerocopy()?;
    let place = root().join("target/zerocopy");
    let kernel = kernel(&place)?;
    let tests = build()?;
    let image = image(&place, &kernel, &tests, modes)?;
    boot(&Wire::lay()?, &kernel.image, &image)
}

/// Fetches the kernel, if that was not done yet.
pub fn fetch() -> Result {
    if !cfg!(target_arch = "x86_64") {
        return Err("the emulated machine is an x86-64 one, and so must be what runs in it".into());
    }
    kernel(&root().join("target/zerocopy")).map(drop)
}

struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    fn module(&self, name: &str) -> PathBuf {
        self.modules.join(format!("kernel/{name}.ko.xz"))
    }

    /// One that was fetched before may lack what is needed now.
    fn has(&self, module: &str) -> bool {
        self.module(module).is_file()
    }
}

/// Fetches the newest kernel of the suite, with package lists of its own: the machine's stay as they are.
fn kernel(place: &Path) -> Result<Kernel> {
    let unpacked = place.join("kernel");
    if let Some(kernel) = find(&unpacked).filter(|kernel| MODULES.iter().all(|module| kernel.has(module))) {
        return Ok(kernel);
    }
    say(&format!("fetching a kernel from {SUITE}"));
    _ = fs::remove_dir_all(&unpacked);
    let apt = place.join("apt");
    for directory in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(directory)).map_err(|error| error.to_string())?;
    }
    let list = format!("deb [signed-by={KEYRING}] {MIRROR} {SUITE} main\n");
    fs::write(apt.join("sources.list"), list).map_err(|error| error.to_string())?;
    let own = |program: &str, words: &str| {
        let mut command = Command::new(program);
        let at = apt.display();
        command.args([
            "-qq".into(),
            format!("-oDir::Etc::sourcelist={at}/sources.list"),
            "-oDir::Etc::sourceparts=-".into(),
            format!("-oDir::State::lists={at}/lists"),
            format!("-oDir::Cache={at}/cache"),
            "-oAPT::Sandbox::User=root".into(),
        ]);
        command.args(words.split(' ')).current_dir(&apt);
        command
    };
    run(own("apt-get", "update"))?;
    let listed = own("apt-cache", "search --names-only ^linux-modules-[0-9.]+[+]deb[0-9]+-amd64$").output();
    let listed = String::from_utf8_lossy(&listed.map_err(|error| error.to_string())?.stdout).into_owned();
    let versions = listed.lines().filter_map(|line| line.split(' ').next()?.strip_prefix("linux-modules-"));
    let newest = versions.max_by_key(|version| numbers(version)).ok_or(format!("{SUITE} has no kernel"))?;
    run(own("apt-get", &format!("download linux-modules-{newest} linux-binary-unsigned-{newest}")))?;
    for entry in fs::read_dir(&apt).map_err(|error| error.to_string())?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = Command::new("dpkg");
            unpack.arg("-x").arg(entry.path()).arg(&unpacked);
            run(unpack)?;
            _ = fs::remove_file(entry.path());
        }
    }
    find(&unpacked).ok_or(format!("the kernel package of {SUITE} looks otherwise than expected"))
}

/// "7.10.2+deb13-amd64" as 7, 10, 2, 13, 64: so that 7.10 comes after 7.9.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn find(unpacked: &Path) -> Option<Kernel> {
    let modules = fs::read_dir(unpacked.join("usr/lib/modules")).ok()?.flatten().next()?.path();
    let image = modules.join("vmlinuz.unsigned");
    image.is_file().then_some(Kernel { image, modules })
}

/// The daemon and the tests; where the tests are.
fn build() -> Result<Vec<PathBuf>> {
    let output = crate::test::tests(TESTS).arg("--no-run").output();
    let said = String::from_utf8_lossy(&output.map_err(|error| error.to_string())?.stderr).into_owned();
    let path = |test: &str| {
        let (_, rest) = said.split_once(&format!("tests/{test}.rs ("))?;
        Some(root().join(rest.split_once(')')?.0))
    };
    let paths: Option<Vec<PathBuf>> = TESTS.iter().copied().map(path).collect();
    paths.ok_or(format!("the tests do not build:\n{said}"))
}

/// The memory disk: every program where it is on this machine, with the libraries it asks for.
fn image(place: &Path, kernel: &Kernel, tests: &[PathBuf], modes: Modes) -> Result<PathBuf> {
    let disk = place.join("root");
    _ = fs::remove_dir_all(&disk);
    for directory in ["proc", "sys", "dev", "run", "tmp", "modules"] {
        fs::create_dir_all(disk.join(directory)).map_err(|error| error.to_string())?;
    }
    copy(Path::new("/bin/busybox"), &disk.join("bin/busybox"))?;
    let switchd = root().join("target/debug/switchd");
    for program in
        PROGRAMS.iter().map(|name| which(name)).chain([Ok(switchd)]).chain(tests.iter().cloned().map(Ok))
    {
        let program = program?;
        copy(&program, &disk.join(program.strip_prefix("/").unwrap_or(&program)))?;
        for library in libraries(&program)? {
            copy(&library, &disk.join(library.strip_prefix("/").unwrap_or(&library)))?;
        }
    }
    for module in MODULES {
        let packed = kernel.module(module);
        let to = disk.join(format!("modules/{}.ko", name_of(module)));
        shell(&format!("xz -dc {} > {}", packed.display(), to.display()), place)?;
    }
    let modules: Vec<&str> = MODULES.iter().map(|module| name_of(module)).collect();
    let init = INIT.replace("MODULES", &modules.join(" ")).replace("VERDICT", VERDICT);
    let tests: Vec<_> = tests.iter().map(|test| test.display().to_string()).collect();
    let init = init.replace("TESTS", &tests.join(" ")).replace("WHICH", modes.name());
    fs::write(disk.join("init"), init).map_err(|error| error.to_string())?;
    shell("chmod +x init", &disk)?;
    shell("find . | /bin/busybox cpio -o -H newc > ../image", &disk)?;
    Ok(place.join("image"))
}

fn name_of(module: &str) -> &str {
    module.rsplit('/').next().unwrap_or(module)
}

fn which(program: &str) -> Result<PathBuf> {
    let places = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|place| Path::new(place).join(program));
    let found = places.into_iter().find(|path| path.is_file());
    found.ok_or(format!("there is no {program}"))
}

/// What the loader would load.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().map_err(|error| format!("ldd: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// Copies a file without its debug information, which would have to be carried into the machine.
fn copy(from: &Path, to: &Path) -> Result {
    let problem = |error: std::io::Error| format!("{}: {error}", from.display());
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).map_err(problem)?;
    }
    fs::copy(from, to).map_err(problem)?;
    _ = Command::new("strip").arg("--strip-debug").arg(to).stderr(Stdio::null()).status();
    Ok(())
}

fn shell(line: &str, at: &Path) -> Result {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(at).stderr(Stdio::null());
    run(command)
}

/// Cables of two devices each, see the tests: what is at the near end of each. The fourth is [`Wire`]'s.
const CABLES: [(u8, &str); 5] = [
    (1, "virtio-net-pci,iommu_platform=on,disable-legacy=on"),
    (2, "virtio-net-pci,iommu_platform=on,disable-legacy=on"),
    (3, "virtio-net-pci"),
    (5, "e1000e"),
    (6, "virtio-net-pci"),
];

fn cables() -> Vec<String> {
    let mut words = Vec::new();
    for (cable, near) in CABLES {
        for (end, kind) in [(0, near), (1, "virtio-net-pci")] {
            let id = format!("c{cable}{end}");
            words.extend(["-netdev".into(), format!("hubport,id={id},hubid={cable}")]);
            let mac = format!("52:54:00:00:0{end}:0{cable}");
            words.extend(["-device".into(), format!("{kind},romfile=,netdev={id},mac={mac}")]);
        }
    }
    words
}

fn boot(wire: &Wire, kernel: &Path, image: &Path) -> Result {
    say("booting the machine");
    let mut command = wire.command("timeout");
    command.args([LIMIT_S, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]);
    command.args(["-m", "1024", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
    command.args(["-append", "console=ttyS0 quiet panic=-1"]).args(cables()).args(wire.words());
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(image).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("qemu-system-x86_64: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // What the firmware said before is of no interest, and moves the cursor about.
    println!("{}", said.find("\nrunning ").map_or(said.as_str(), |at| &said[at..]).trim());
    let verdict = said.lines().find_map(|line| line.trim().strip_prefix(VERDICT)).map(str::trim);
    match verdict {
        Some("0") => Ok(()),
        Some(status) => Err(format!("the test in the machine failed, exit status {status}")),
        None => Err(format!(
            "the machine did not come to the test's end within {LIMIT_S} s: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
