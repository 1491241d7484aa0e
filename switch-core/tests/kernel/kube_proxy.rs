//! Beside kube-proxy as it is: a pod asks a service, whose address the node's kernel translates to that of a pod here, of one on another node, or of
//! the pod itself, and gets its answer. The rules are those that kube-proxy writes, in its modes `nftables` and `iptables`, the latter by
//! either of the programs that a node may have (`iptables-nft`, `iptables-legacy`).

use crate::outside::{masquerading, node_beside_switch, node_on_bridge, pod, prefixes, publishing, settle};
use crate::switchd;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;
use switch_api::PortSettings;
use switch_lab::world::{Service, ask_tcp, ask_udp, is_refused, world};
use switch_lab::{Net, Node, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// Who writes the rules.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Nftables,
    /// And by which of the two programs.
    Iptables(&'static str),
}

/// Services of one IP version, all at port 53, by UDP and by TCP: the address of each, and the pods behind it. The first is at a port of the node
/// as well.
struct Services {
    is_ipv6: bool,
    all: [(&'static str, &'static [&'static str]); 5],
    /// Where pods are.
    pods: &'static str,
    node: &'static str,
}

/// Behind them, in their order: `b` here, `world` elsewhere, the asking `a` itself, the first two by chance, nobody.
const V4: Services = Services {
    is_ipv6: false,
    all: [
        ("10.96.0.10", &["10.66.0.3"]),
        ("10.96.0.11", &["198.51.100.2"]),
        ("10.96.0.12", &["10.66.0.2"]),
        ("10.96.0.13", &["10.66.0.3", "198.51.100.2"]),
        ("10.96.0.14", &[]),
    ],
    pods: "10.66.0.0/24",
    node: "198.51.100.1",
};
const V6: Services = Services {
    is_ipv6: true,
    all: [
        ("fd96::10", &["fd66::3"]),
        ("fd96::11", &["2001:db8::2"]),
        ("fd96::12", &["fd66::2"]),
        ("fd96::13", &["fd66::3", "2001:db8::2"]),
        ("fd96::14", &[]),
    ],
    pods: "fd66::/64",
    node: "2001:db8::1",
};
const NODE_PORT: u16 = 30053;
const PROTOCOLS: [&str; 2] = ["udp", "tcp"];

impl Services {
    fn at(&self, address: &str, port: u16) -> String {
        if self.is_ipv6 { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    }

    /// Where the `n`th is asked.
    fn nth(&self, n: usize) -> String {
        self.at(self.all[n].0, 53)
    }

    fn install(&self, node: &Net, mode: Mode) {
        let (program, rules) = match mode {
            Mode::Nftables => ("nft -f".into(), self.nftables()),
            Mode::Iptables(which) => {
                let family = if self.is_ipv6 { "ip6tables" } else { "iptables" };
                (format!("{family}-{which}-restore -w 10 --noflush"), self.iptables())
            }
        };
        let path = std::env::temp_dir().join(format!("{}-{}.rules", node.name(), self.is_ipv6));
        std::fs::write(&path, rules).unwrap();
        node.run(&format!("{program} {}", path.display()));
        std::fs::remove_file(path).unwrap();
    }

    /// As `proxier.go` of `pkg/proxy/iptables` writes it.
    fn iptables(&self) -> String {
        let mut chains = BTreeSet::from(
            ["SERVICES", "NODEPORTS", "POSTROUTING", "MARK-MASQ"].map(|name| format!("KUBE-{name}")),
        );
        let (mut nat, mut filter) = (String::new(), String::new());
        for (n, (address, pods)) in self.all.iter().enumerate() {
            for l4 in PROTOCOLS {
                let to = format!("-m {l4} -p {l4} -d {address} --dport 53");
                if pods.is_empty() {
                    let comment = format!("-m comment --comment \"default/s{n}:dns has no endpoints\"");
                    writeln!(filter, "-A KUBE-SERVICES {comment} {to} -j REJECT").unwrap();
                    continue;
                }
                let service = format!("KUBE-SVC-{n}{l4}");
                let comment = format!("-m comment --comment \"default/s{n}:dns cluster IP\"");
                writeln!(nat, "-A KUBE-SERVICES {comment} {to} -j {service}").unwrap();
                writeln!(nat, "-A {service} {to} ! -s {} -j KUBE-MARK-MASQ", self.pods).unwrap();
                for (m, pod) in pods.iter().enumerate() {
                    let endpoint = format!("KUBE-SEP-{n}{m}{l4}");
                    let chance = match pods.len() - m {
                        1 => String::new(),
                        left => format!("-m statistic --mode random --probability {:.10}", 1.0 / left as f64),
                    };
                    writeln!(nat, "-A {service} {chance} -j {endpoint}").unwrap();
                    writeln!(nat, "-A {endpoint} -s {pod} -j KUBE-MARK-MASQ").unwrap();
                    let pod = self.at(pod, 53);
                    writeln!(nat, "-A {endpoint} -m {l4} -p {l4} -j DNAT --to-destination {pod}").unwrap();
                    chains.insert(endpoint);
                }
                if n == 0 {
                    let outside = format!("KUBE-EXT-{n}{l4}");
                    writeln!(nat, "-A KUBE-NODEPORTS -m {l4} -p {l4} --dport {NODE_PORT} -j {outside}")
                        .unwrap();
                    writeln!(nat, "-A {outside} -j KUBE-MARK-MASQ\n-A {outside} -j {service}").unwrap();
                    chains.insert(outside);
                }
                chains.insert(service);
            }
        }
        // A kubelet's, of IPv4 alone.
        let kubelet = match self.is_ipv6 {
            true => "",
            false => {
                ":KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n-A OUTPUT -j KUBE-FIREWALL\n\
                 -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" \
                 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n"
            }
        };
        let chains: String = chains.iter().map(|chain| format!(":{chain} - [0:0]\n")).collect();
        format!(
            "*filter\n{kubelet}:KUBE-SERVICES - [0:0]\n:KUBE-FORWARD - [0:0]\n\
             -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
             -A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
             -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
             -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             {filter}COMMIT\n\
             *nat\n{chains}\
             -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
             -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
             -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
             -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully\n\
             -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
             {nat}\
             -A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
             COMMIT\n"
        )
    }

    /// As `proxier.go` of `pkg/proxy/nftables` writes it.
    fn nftables(&self) -> String {
        let (family, kind) = if self.is_ipv6 { ("ip6", "ipv6_addr") } else { ("ip", "ipv4_addr") };
        let (mut chains, mut elements) = (String::new(), String::new());
        let table = format!("{family} kube-proxy");
        for (n, (address, pods)) in self.all.iter().enumerate() {
            writeln!(elements, "add element {table} cluster-ips {{ {address} }}").unwrap();
            for l4 in PROTOCOLS {
                let (map, goes) = match pods.is_empty() {
                    true => ("no-endpoint-services", "goto reject-chain".to_owned()),
                    false => ("service-ips", format!("goto service-{n}{l4}")),
                };
                writeln!(elements, "add element {table} {map} {{ {address} . {l4} . 53 : {goes} }}").unwrap();
                if pods.is_empty() {
                    continue;
                }
                let mut ways = Vec::new();
                for (m, pod) in pods.iter().enumerate() {
                    writeln!(
                        chains,
                        "chain endpoint-{n}{m}{l4} {{ {family} saddr {pod} jump mark-for-masquerade ; meta l4proto {l4} dnat to {} ; }}",
                        self.at(pod, 53)
                    )
                    .unwrap();
                    ways.push(format!("{m} : goto endpoint-{n}{m}{l4}"));
                }
                writeln!(
                    chains,
                    "chain service-{n}{l4} {{ {family} daddr {address} {l4} dport 53 {family} saddr != {} jump mark-for-masquerade ; \
                     numgen random mod {} vmap {{ {} }} ; }}",
                    self.pods,
                    pods.len(),
                    ways.join(", ")
                )
                .unwrap();
                if n == 0 {
                    writeln!(
                        chains,
                        "chain external-{n}{l4} {{ jump mark-for-masquerade ; goto service-{n}{l4} ; }}"
                    )
                    .unwrap();
                    let goes = format!("{l4} . {NODE_PORT} : goto external-{n}{l4}");
                    writeln!(elements, "add element {table} service-nodeports {{ {goes} }}").unwrap();
                }
            }
        }
        let to = format!("{family} daddr . meta l4proto . th dport");
        format!(
            "table {table} {{\n\
             map service-ips {{ type {kind} . inet_proto . inet_service : verdict ; }}\n\
             map no-endpoint-services {{ type {kind} . inet_proto . inet_service : verdict ; }}\n\
             map service-nodeports {{ type inet_proto . inet_service : verdict ; }}\n\
             set cluster-ips {{ type {kind} ; }}\n\
             set nodeport-ips {{ type {kind} ; elements = {{ {node} }} ; }}\n\
             chain mark-for-masquerade {{ mark set mark or 0x4000 ; }}\n\
             chain masquerading {{ mark and 0x4000 == 0 return ; mark set mark xor 0x4000 ; masquerade fully-random ; }}\n\
             chain reject-chain {{ reject ; }}\n\
             {chains}\
             chain services {{ {to} vmap @service-ips ; {family} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports ; }}\n\
             chain service-endpoints-check {{ {to} vmap @no-endpoint-services ; }}\n\
             chain cluster-ips-check {{ {family} daddr @cluster-ips reject ; }}\n\
             chain nat-prerouting {{ type nat hook prerouting priority dstnat ; jump services ; }}\n\
             chain nat-output {{ type nat hook output priority -100 ; jump services ; }}\n\
             chain nat-postrouting {{ type nat hook postrouting priority srcnat ; jump masquerading ; }}\n\
             chain filter-forward {{ type filter hook forward priority filter ; ct state new jump service-endpoints-check ; ct state new jump cluster-ips-check ; }}\n\
             chain filter-output {{ type filter hook output priority filter ; ct state new jump service-endpoints-check ; ct state new jump cluster-ips-check ; }}\n\
             }}\n{elements}",
            node = self.node
        )
    }
}

/// A pod that asks a service gets its answer, whoever is behind it: DNS by UDP and TCP among them. `gateway`: the switch routes for the pods;
/// otherwise the node does.
fn services_answer(mode: Mode, gateway: bool) {
    let node = Node::new();
    let world = world(&node.net);
    // Without a way out a kernel refuses addresses of services that nobody has translated before it asks kube-proxy's rules.
    node.net.ip("route add default via 198.51.100.2");
    node.net.ip("-6 route add default via 2001:db8::2");
    world.ip("route add 10.66.0.0/24 via 198.51.100.1");
    world.ip("route add fd66::/64 via 2001:db8::1");
    let daemon = node.start(&switchd());
    let settings = PortSettings {
        return_flows: true,
        no_masquerade: prefixes("198.51.100.0/24 2001:db8::/64"),
        ..masquerading()
    };
    match gateway {
        true => node_beside_switch(&daemon, settings),
        false => node_on_bridge(&daemon, settings),
    }
    let a = pod(&node, &daemon, 2, PortSettings::default());
    let b = pod(&node, &daemon, 3, publishing("8053:53 udp/8053:53"));
    let _services =
        [Service::new(&a.net, 53, "a"), Service::new(&b.net, 53, "b"), Service::new(&world, 53, "world")];
    settle(&[&node.net, &world, &a.net, &b.net]);
    for (services, own) in [(V4, "10.66.0.2"), (V6, "fd66::2")] {
        services.install(&node.net, mode);
        let asks = |net: &Net, to: &str| [ask_tcp(net, to), ask_udp(net, to)].map(Option::unwrap_or_default);
        for _ in 0..3 {
            for (n, who) in ["b", "world"].into_iter().enumerate() {
                let said = format!("{who} {own}");
                assert_eq!(asks(&a.net, &services.nth(n)), [said.clone(), said], "{}", services.nth(n));
            }
            let answers = asks(&a.net, &services.nth(2));
            let by_node = |said: &String| said.starts_with("a ") && !said.ends_with(own);
            assert!(answers.iter().all(by_node), "itself: {answers:?}");
        }
        // Of two the one or the other, and both in time: of 32 none is the one with a chance of 2^-31.
        let said: BTreeSet<String> = (0..16).flat_map(|_| asks(&a.net, &services.nth(3))).collect();
        assert_eq!(said, BTreeSet::from(["b", "world"].map(|who| format!("{who} {own}"))));
        // What a kernel refuses is limited with the redirects that it would have sent before.
        wait_until("a service without pods is refused", LONG, || is_refused(&a.net, &services.nth(4)));
        // The node itself, and who asks the node from another machine, whom it stands in for.
        for said in asks(&node.net, &services.nth(0)) {
            assert!(said.starts_with("b "), "{said:?}");
        }
        for said in asks(&world, &services.at(services.node, NODE_PORT)) {
            assert!(said.starts_with("b ") && !said.ends_with("::2") && !said.ends_with(".2"), "{said:?}");
        }
    }
    // Ports that the switch publishes answer beside all that, by 127.0.0.1 too, from which a kubelet keeps others away.
    for (to, client) in [("198.51.100.1:8053", "198.51.100.2"), ("[2001:db8::1]:8053", "2001:db8::2")] {
        let said = Some(format!("b {client}"));
        assert_eq!((ask_tcp(&world, to), ask_udp(&world, to)), (said.clone(), said), "{to}");
    }
    for (to, own) in
        [("198.51.100.1:8053", ["10.66.0.2", "10.66.0.3"]), ("[2001:db8::1]:8053", ["fd66::2", "fd66::3"])]
    {
        let [by_another, by_itself] = [&a, &b].map(|pod| [ask_tcp(&pod.net, to), ask_udp(&pod.net, to)]);
        assert_eq!(
            by_another,
            [(); 2].map(|()| Some(format!("b {}", own[0]))),
            "{to}: a pod is seen as itself"
        );
        let by_node = |said: &Option<String>| {
            said.as_ref().is_some_and(|said| said.starts_with("b ") && !said.ends_with(own[1]))
        };
        assert!(by_itself.iter().all(by_node), "{to}: {by_itself:?}");
    }
    for to in ["127.0.0.1:8053", "198.51.100.1:8053"] {
        for said in [ask_tcp(&node.net, to), ask_udp(&node.net, to)] {
            assert!(said.as_ref().is_some_and(|said| said.starts_with("b ")), "{to}: {said:?}");
        }
    }
    // What is not translated goes its direct way, as ever.
    // Meanwhile kernels may say something to everybody, the node among them; what goes by the node is more, each time.
    wait_until("it goes past the node", LONG, || {
        let before = daemon.port("host").counters.tx_packets;
        assert_eq!(ask_tcp(&a.net, "10.66.0.3:53"), Some("b 10.66.0.2".into()));
        daemon.port("host").counters.tx_packets - before < 3
    });
    assert!(a.net.run("ping -n -c 2 -i 0.2 -W 5 10.66.0.3").contains("2 received"));
    daemon.assert_conserved();
}

#[test]
fn services_of_nftables_answer_where_the_node_is_the_pods_router() {
    services_answer(Mode::Nftables, false);
}

#[test]
fn services_of_nftables_answer_where_the_switch_is_the_pods_router() {
    services_answer(Mode::Nftables, true);
}

#[test]
fn services_of_iptables_answer_where_the_node_is_the_pods_router() {
    services_answer(Mode::Iptables("nft"), false);
}

#[test]
fn services_of_iptables_answer_where_the_switch_is_the_pods_router() {
    services_answer(Mode::Iptables("nft"), true);
}

#[test]
fn services_of_iptables_of_before_nftables_answer() {
    services_answer(Mode::Iptables("legacy"), false);
    services_answer(Mode::Iptables("legacy"), true);
}
