//! GoBGP on a node, as Debian has it: it speaks BGP and leaves the kernel to others. Debian's 3.10 cannot read what Debian's zebra (FRR
//! 8.4) says of devices, and ends; so a few lines here do what programs around GoBGP do (kube-router's routes are written so): they
//! tell it what the switch announced, and write what it has heard.

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use switch_lab::cross::Router;

pub struct GoBgp<'a> {
    child: Child,
    router: &'a Router,
    directory: PathBuf,
}

impl<'a> GoBgp<'a> {
    /// Beside the switch of `router`, with a session of each version over each of the cables `links` to `other`.
    pub fn start(router: &'a Router, other: &Router, links: &[u8]) -> Self {
        let directory = router.node.directory().join("gobgp");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("gobgpd.toml"), configuration(router.net, other.net, links)).unwrap();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut command = router.node.net.command("gobgpd");
        command.args(["--log-plain", "-f"]).arg(directory.join("gobgpd.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { child: command.spawn().unwrap(), router, directory }
    }

    /// What its command line answers; nothing while it starts.
    fn ask(&self, words: &[&str]) -> String {
        let mut command: Command = self.router.node.net.command("timeout");
        command.args(["5", "gobgp", "global", "rib"]).args(words);
        String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
    }

    /// Tells it of the networks that the switch announced (`proto 83`), and writes what it heard from neighbours, over all their ways,
    /// as `proto bgp`.
    pub fn follow(&self) {
        for (version, flag) in [("ipv4", "-4"), ("ipv6", "-6")] {
            let known: Value = serde_json::from_str(&self.ask(&["-a", version, "-j"])).unwrap_or(Value::Null);
            let here = self.router.node.net.ip(&format!("{flag} route show proto 83"));
            let announced =
                here.lines().filter_map(|line| line.split_whitespace().find(|word| word.contains('/')));
            for prefix in announced.filter(|prefix| known.get(prefix).is_none()) {
                self.ask(&["add", "-a", version, prefix]);
            }
            let heard: Vec<(&str, Vec<&str>)> = known
                .as_object()
                .into_iter()
                .flatten()
                .map(|(prefix, paths)| (prefix.as_str(), next_hops(paths)))
                .filter(|(_, hops)| !hops.is_empty())
                .collect();
            for (prefix, hops) in &heard {
                let hops: String = hops.iter().map(|hop| format!(" nexthop via {hop}")).collect();
                // Refused while one of them is over a cable that failed: till its session ends, too.
                let line = format!("ip {flag} route replace {prefix} proto bgp{hops}");
                _ = self.router.node.net.try_run(&line);
            }
            let written = self.router.node.net.ip(&format!("{flag} route show proto bgp"));
            for prefix in
                written.lines().filter_map(|line| line.split_whitespace().find(|word| word.contains('/')))
            {
                if !heard.iter().any(|(heard, _)| *heard == prefix) {
                    _ = self.router.node.net.try_run(&format!("ip {flag} route del {prefix} proto bgp"));
                }
            }
        }
    }
}

/// Next hops of the paths that neighbours told.
fn next_hops(paths: &Value) -> Vec<&str> {
    let told = paths.as_array().into_iter().flatten().filter(|path| path.get("neighbor-ip").is_some());
    let attributes = told.filter_map(|path| path["attrs"].as_array()).flatten();
    attributes.filter_map(|attribute| attribute["nexthop"].as_str()).collect()
}

impl Drop for GoBgp<'_> {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            eprintln!("GoBGP said:\n{said}");
        }
    }
}

/// Nobody tells it of cables: it finds out within three seconds, the shortest there is (RFC 4271 §4.2).
fn configuration(own: u8, other: u8, links: &[u8]) -> String {
    let mut text = format!("[global.config]\nas = 6450{own}\nrouter-id = \"10.255.0.{own}\"\n");
    for link in links {
        for (version, address) in
            [("ipv4", format!("10.{link}.0.{other}")), ("ipv6", format!("fd10:{link}::{other}"))]
        {
            text += &format!(
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = 6450{other}\n\
                 [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\nhold-time = 3\nkeepalive-interval = 1\n\
                 [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{version}-unicast\"\n"
            );
        }
    }
    text
}
