//! FRR on one node, as Debian has it: the daemon that writes the kernel's routes, and the one that speaks BGP.

use super::LONG;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use switch_lab::cross::Router;
use switch_lab::wait_until;

/// Where Debian has its daemons.
const LIB: &str = "/usr/lib/frr";

pub struct Frr {
    daemons: Vec<Child>,
    directory: PathBuf,
}

impl Frr {
    /// Beside the switch of `router`, with a session of each version over each of the cables `links` to `other`, which must not
    /// speak BGP before this returns: a route by a link-local next hop that is told to bgpd before zebra told it of its interfaces
    /// is withdrawn, and nobody tells it again.
    pub fn start(router: &Router, other: &Router, links: &[u8]) -> Self {
        let directory = router.node.directory().join("frr");
        std::fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
        write("zebra.conf", "hostname frr\n".to_owned());
        write("bgpd.conf", configuration(router.net, other.net, links));
        // They give up being root.
        let owner = Command::new("chown").args(["-R", "frr:frr"]).arg(&directory).status().unwrap();
        assert!(owner.success());
        let netns = router.node.net.path();
        let mut frr = Self { daemons: Vec::new(), directory };
        frr.daemons.push(spawn(&netns, &frr.directory, "zebra"));
        // bgpd looks for zebra at once, and if it is not there yet only seconds later once more.
        wait_until("zebra", LONG, || frr.directory.join("zserv.api").exists());
        frr.daemons.push(spawn(&netns, &frr.directory, "bgpd"));
        let neighbours = neighbours(other.net, links);
        wait_until("bgpd heard of the interfaces", LONG, || {
            let said = frr.ask("show bgp nexthop");
            neighbours.iter().all(|(_, neighbour)| said.contains(&format!(" {neighbour} valid")))
        });
        frr
    }

    /// What bgpd answers.
    fn ask(&self, words: &str) -> String {
        let mut command = Command::new("vtysh");
        command.arg("--vty_socket").arg(&self.directory).args(["-d", "bgpd", "-c", words]);
        String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
    }

    /// Ends them with SIGKILL: what they wrote stays in the kernel.
    pub fn kill(&mut self) {
        for mut child in self.daemons.drain(..) {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let read = |name: &str| std::fs::read_to_string(self.directory.join(name)).unwrap_or_default();
            eprintln!("FRR said:\n{}{}", read("zebra.log"), read("bgpd.log"));
        }
    }
}

fn spawn(netns: &str, directory: &Path, daemon: &str) -> Child {
    let path = |name: &str| directory.join(name).into_os_string();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={netns}")).arg(format!("{LIB}/{daemon}"));
    for (flag, value) in [
        ("-f", path(&format!("{daemon}.conf"))),
        ("-i", path(&format!("{daemon}.pid"))),
        ("-z", path("zserv.api")),
        ("--vty_socket", path("")),
    ] {
        command.arg(flag).arg(value);
    }
    let log = std::fs::File::create(directory.join(format!("{daemon}.log"))).unwrap();
    // No port for people.
    command.args(["-P", "0", "--log", "stdout"]).stdout(log.try_clone().unwrap()).stderr(log);
    command.stdin(Stdio::null()).spawn().unwrap()
}

/// Of each cable, the other node's addresses and their versions.
fn neighbours(other: u8, links: &[u8]) -> Vec<(&'static str, String)> {
    links
        .iter()
        .flat_map(|link| {
            [("ipv4", format!("10.{link}.0.{other}")), ("ipv6", format!("fd10:{link}::{other}"))]
        })
        .collect()
}

/// Tell what the switch announces (`proto 83`, which FRR takes for one of the kernel's own), and write what the neighbour tells over
/// both cables into the kernel.
fn configuration(own: u8, other: u8, links: &[u8]) -> String {
    let neighbours = neighbours(other, links);
    let mut text =
        format!("router bgp 6450{own}\n bgp router-id 10.255.0.{own}\n no bgp ebgp-requires-policy\n");
    for (_, neighbour) in &neighbours {
        text +=
            &format!(" neighbor {neighbour} remote-as 6450{other}\n neighbor {neighbour} timers connect 1\n");
    }
    for version in ["ipv4", "ipv6"] {
        text += &format!(
            " address-family {version} unicast\n  redistribute kernel route-map pods\n  maximum-paths 4\n"
        );
        for (of, neighbour) in &neighbours {
            let verb = if *of == version { "" } else { "no " };
            text += &format!("  {verb}neighbor {neighbour} activate\n");
        }
        text += " exit-address-family\n";
    }
    // Nothing else of the kernel's.
    text += &format!(
        "ip prefix-list pods permit 10.{own}.0.0/24\nipv6 prefix-list pods permit fd10:{own}::/64\n\
         route-map pods permit 10\n match ip address prefix-list pods\n\
         route-map pods permit 20\n match ipv6 address prefix-list pods\n"
    );
    text
}
