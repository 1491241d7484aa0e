//! Access control lists, seen by real kernels: pods with TAPs, and the node.

use crate::switchd;
use std::time::Duration;
use switch_api::{
    Acl, AclStatus, ByName, Code, Done, NetworkPolicy, Nothing, PolicyAnswer, Request, Trace, TraceReply,
};
use switch_lab::scenes::{datagrams, explain, shop};
use switch_lab::world::Echo;
use switch_lab::{Daemon, RawSocket, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn set(daemon: &Daemon, acl: serde_json::Value) {
    let acl: Acl = serde_json::from_value(acl).unwrap();
    let _: Done = daemon.call(&Request::AclSet(Box::new(acl)));
}

#[test]
fn rules_in_order_beside_policies_with_names_and_counts() {
    let (node, daemon, pods) = shop(&switchd());
    let [db, web, other] = &pods[..] else { panic!() };
    set(
        &daemon,
        serde_json::json!({
            "name": "guard", "applies_to": {"workloads": {"pod_selector": {"matchLabels": {"app": "db"}}}},
            "ingress": [
                {"action": "allow", "protocol": "udp", "source": ["10.66.0.2/32"], "destination_ports": ["5000-5999"]},
                {"action": "pass", "source": ["10.66.0.3/32"]},
                {"action": "deny", "protocol": "udp"},
            ],
        }),
    );
    assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 5432), 10);
    assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 6000), 0);
    // Passed on, and no policy is there; the node is no exception, but for what no rule denies.
    assert_eq!(datagrams(&other.net, &db.net, "10.66.0.1", 6000), 10);
    assert_eq!(datagrams(&node.net, &db.net, "10.66.0.1", 6000), 0);
    assert!(web.reaches("10.66.0.1"), "ICMP is no rule's");
    // What `db` asks is answered, whatever may come in.
    assert_eq!(switch_lab::transfer::tcp(&db.net, &web.net, "10.66.0.2".parse().unwrap(), 300_000), 300_000);
    // A policy closes `db`: the first rule goes before it, the second leaves it to it.
    let policy = serde_json::json!({"metadata": {"name": "closed", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}}});
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    let _: Done = daemon.call(&Request::PolicyAdd(Box::new(policy)));
    assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 5433), 10);
    assert_eq!(datagrams(&other.net, &db.net, "10.66.0.1", 6000), 0);
    let lists: Vec<AclStatus> = daemon.call(&Request::AclList(Nothing {}));
    assert_eq!(lists[0].ports.iter().map(|port| port.as_str()).collect::<Vec<_>>(), ["tap1"]);
    // Flows are counted by the packet that is judged; what is denied, by each.
    let counts: Vec<u64> = lists[0].rules.iter().map(|rule| rule.packets).collect();
    assert!(counts[0] >= 2 && counts[1] >= 1 && counts[2] >= 20, "{lists:?}");
    assert_eq!(daemon.drops("acl-denied"), counts[2]);
    assert!(daemon.stats().policy_drops.iter().any(|rule| rule.rule == "acl guard ingress 3"));
    let by = ByName { name: "guard".parse().unwrap() };
    let _: Done = daemon.call(&Request::AclDelete(by.clone()));
    let error = daemon.client().call::<Done>(&Request::AclDelete(by)).unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 5434), 0, "the policy is left");
    daemon.assert_conserved();
}

/// A first UDP packet from pod 2 to pod 1.
fn frame(macs: [[u8; 6]; 2], port: u16) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(macs[1], macs[0]);
    let builder = builder.ipv4([10, 66, 0, 2], [10, 66, 0, 1], 64).udp(40_000, port);
    let mut frame = Vec::new();
    builder.write(&mut frame, b"hello").unwrap();
    frame
}

fn mac(daemon: &Daemon, port: &str) -> [u8; 6] {
    let config: switch_api::Config = daemon.call(&Request::ConfigExport(Default::default()));
    let port = config.port.into_iter().find(|it| it.name.as_str() == port);
    let mut kind = port.unwrap().kind;
    kind.mac_mut().unwrap().unwrap().0
}

#[test]
fn explained_traced_restarted_and_refused() {
    let options = switchd().keeping_state();
    let (node, mut daemon, pods) = shop(&options);
    set(
        &daemon,
        serde_json::json!({
            "name": "web", "tier": "after", "priority": 7, "applies_to": {"ports": ["tap2"]},
            "egress": [
                {"action": "allow", "protocol": "udp", "destination_ports": [53]},
                {"action": "allow", "protocol": "udp", "destination_ports": [54], "staged": true},
                {"action": "deny", "protocol": "udp"},
            ],
        }),
    );
    let check = |daemon: &Daemon| {
        let passes = explain(daemon, "tap2", "tap1", 53);
        assert!(passes.passes && passes.egress.rule.as_deref() == Some("acl web egress 1"), "{passes:?}");
        let stops = explain(daemon, "10.66.0.2", "10.66.0.1", 54);
        assert!(!stops.passes && stops.egress.rule.as_deref() == Some("acl web egress 3"), "{stops:?}");
        assert!(stops.egress.why.contains("staged, and would allow it: acl web egress 2"), "{stops:?}");
        assert!(explain(daemon, "tap1", "tap2", 54).passes);
    };
    check(&daemon);
    let macs = [mac(&daemon, "tap1"), mac(&daemon, "tap2")];
    let trace = |port: u16| -> TraceReply {
        let in_port = "tap2".parse().unwrap();
        daemon.call(&Request::Trace(Trace { in_port, frame: switch_api::Hex(frame(macs, port)) }))
    };
    let (stops, passes) = (trace(54), trace(53));
    assert_eq!(stops.drops[0].rule.as_deref(), Some("acl web egress 3"), "{stops:?}");
    assert!(stops.outcome.contains("acl-denied [acl web egress 3]"), "{}", stops.outcome);
    let admit = passes.steps.iter().find(|step| step.stage == "admit").unwrap();
    assert!(admit.why.contains("[acl web egress 1]"), "{admit:?}");
    let before: Vec<AclStatus> = daemon.call(&Request::AclList(Nothing {}));
    assert!(before[0].rules.iter().all(|rule| rule.packets == 0), "a trace counts nothing: {before:?}");

    daemon.kill();
    let daemon = node.start(&options);
    check(&daemon);
    assert_eq!(datagrams(&pods[1].net, &pods[0].net, "10.66.0.1", 54), 0);
    wait_until("the allowed ones arrive", LONG, || {
        datagrams(&pods[1].net, &pods[0].net, "10.66.0.1", 53) == 10
    });
    let config: switch_api::Config = daemon.call(&Request::ConfigExport(Default::default()));
    assert_eq!((config.acl.len(), &config.acl[0]), (1, &before[0].acl));
    let bad = serde_json::json!({"name": "x", "applies_to": {"all": true}, "ingress": [{"action": "deny", "destination_ports": [1]}]});
    let bad: Acl = serde_json::from_value(bad).unwrap();
    let error = daemon.client().call::<Done>(&Request::AclSet(Box::new(bad))).unwrap_err();
    assert_eq!(error.data.field.as_deref(), Some("ingress[0].destination_ports"));
}

/// A connection that goes on as long as the list allows it.
#[test]
fn a_connection_stops_with_its_list_and_goes_on_with_it() {
    let (_node, daemon, pods) = shop(&switchd());
    let [db, web, _] = &pods[..] else { panic!() };
    let list = |action: &str| {
        set(
            &daemon,
            serde_json::json!({
                "name": "db", "applies_to": {"ports": ["tap1"]},
                "ingress": [{"action": action, "protocol": "tcp", "destination_ports": [5432]}, {"action": "deny", "protocol": "tcp"}],
                "egress": [{"action": "deny"}],
            }),
        );
    };
    list("allow");
    let mut connection = Echo::open(&web.net, &db.net, "10.66.0.1:5432");
    // It may send nothing of its own, and yet it answers.
    assert!(connection.comes_back(1, LONG));
    list("deny");
    assert!(!connection.comes_back(2, Duration::from_secs(1)), "it went on although it is no longer allowed");
    list("allow");
    assert!(connection.comes_back(3, LONG), "it does not go on although it is allowed again");
    drop(connection);
    daemon.assert_conserved();
}

/// What becomes of a connection that is tried, and how soon it is known.
fn tried(pod: &switch_lab::Pod, to: &str) -> std::io::ErrorKind {
    let to: std::net::SocketAddr = to.parse().unwrap();
    let try_it = move || std::net::TcpStream::connect_timeout(&to, LONG).unwrap_err().kind();
    pod.net.inside(try_it).join().unwrap()
}

/// What a datagram's sender hears of it.
fn heard(pod: &switch_lab::Pod, to: &str) -> Option<i32> {
    let to: std::net::SocketAddr = to.parse().unwrap();
    let ask = move || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = std::net::UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.connect(to).unwrap();
        socket.send(b"hello").unwrap();
        socket.recv(&mut [0; 8]).unwrap_err().raw_os_error()
    };
    pod.net.inside(ask).join().unwrap()
}

/// A pod that is rejected knows it at once, over IPv4 and IPv6, on a bridge and over a gateway; one that is denied waits in vain.
#[test]
fn who_is_rejected_hears_it_at_once() {
    use std::io::{ErrorKind, Read, Write};
    let (_node, daemon, pods) = switch_lab::scenes::routed(&switchd(), &[1, 2]);
    let [one, other] = &pods[..] else { panic!() };
    let (_shop, bridged_daemon, shop_pods) = shop(&switchd());
    let reject = serde_json::json!({
        "name": "closed", "applies_to": {"all": true},
        "egress": [{"action": "reject", "protocol": "tcp"}, {"action": "reject", "protocol": "udp"}],
    });
    set(&daemon, reject.clone());
    set(&bridged_daemon, reject);
    for to in ["10.2.0.2", "fd10:2::2"] {
        let at = |port: u16| std::net::SocketAddr::new(to.parse().unwrap(), port).to_string();
        assert_eq!(tried(one, &at(80)), ErrorKind::ConnectionRefused, "{to}");
        let wanted = if to.contains(':') { libc::EACCES } else { libc::EHOSTUNREACH };
        assert_eq!(heard(one, &at(9)), Some(wanted), "{to}");
        assert!(one.reaches(to), "nothing else is rejected");
    }
    let web = &shop_pods[1];
    assert_eq!(tried(web, "10.66.0.1:80"), ErrorKind::ConnectionRefused);
    assert_eq!(heard(web, "10.66.0.1:9"), Some(libc::EHOSTUNREACH));
    assert_eq!(daemon.drops("acl-rejected"), 4);
    assert!(
        daemon
            .stats()
            .policy_drops
            .iter()
            .any(|rule| rule.rule == "acl closed egress 1" && rule.packets == 2)
    );
    // A connection that stands ends at once as well, at both ends.
    let _: Done = daemon.call(&Request::AclDelete(ByName { name: "closed".parse().unwrap() }));
    let listens = other.net.inside(|| std::net::TcpListener::bind("10.2.0.2:81").unwrap()).join().unwrap();
    let connect = || std::net::TcpStream::connect("10.2.0.2:81").unwrap();
    let stream = one.net.inside(connect).join().unwrap();
    let (mut end, _) = listens.accept().unwrap();
    set(
        &daemon,
        serde_json::json!({
            "name": "closed", "applies_to": {"all": true}, "ingress": [{"action": "reject", "protocol": "tcp"}],
        }),
    );
    end.write_all(b"late").unwrap();
    end.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(end.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(stream);
    daemon.assert_conserved();
    bridged_daemon.assert_conserved();
}

/// What a list that changes would cut is said before it is applied: pairs of workloads, and flows there are.
#[test]
fn a_diff_judges_by_lists_as_well() {
    let (_node, daemon, pods) = shop(&switchd());
    let [db, web, _] = &pods[..] else { panic!() };
    let list = |action: &str| {
        serde_json::json!({
            "name": "db", "applies_to": {"ports": ["tap1"]},
            "ingress": [{"action": action, "protocol": "udp", "destination_ports": [5432]}],
        })
    };
    set(&daemon, list("allow"));
    assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 5432), 10);
    let mut config: switch_api::Config = daemon.call(&Request::ConfigExport(Default::default()));
    let diff = |config: &switch_api::Config| -> switch_api::PolicyDiffAnswer {
        let asked = switch_api::PolicyDiff { config: Some(Box::new(config.clone())), ..Default::default() };
        daemon.call(&Request::PolicyDiff(Box::new(asked)))
    };
    let same = diff(&config);
    assert!(same.pairs.is_empty() && same.flows_cut == 0 && same.flows_judged > 0, "{same:?}");
    config.acl = vec![serde_json::from_value(list("deny")).unwrap()];
    let answer = diff(&config);
    let from_web = |pair: &&switch_api::PairChange| {
        let port = |end: &switch_api::DiffEnd| end.port.as_ref().map(|port| port.to_string());
        port(&pair.from).as_deref() == Some("tap2") && port(&pair.to).as_deref() == Some("tap1")
    };
    let pair = answer.pairs.iter().find(from_web).unwrap();
    assert_eq!((pair.effect, pair.rule.as_deref()), (switch_api::Effect::Cut, Some("acl db ingress 1")));
    assert_eq!((pair.ports.len(), pair.ports[0].first, pair.ports[0].last), (1, 5432, 5432));
    assert!(
        answer.flows_cut >= 1 && answer.flows[0].rule.as_deref() == Some("acl db ingress 1"),
        "{answer:?}"
    );
    assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 5432), 10, "nothing was changed");
}

/// GRE, pings and datagrams from `web` to `db`: what `policy explain` says of a first packet is what becomes of it, by lists and by policies.
#[test]
fn what_has_no_ports_is_explained_as_it_is_judged() {
    const GRE: u8 = 47;
    const OSPF: u8 = 89;
    let (_node, daemon, pods) = shop(&switchd());
    let [db, web, _] = &pods[..] else { panic!() };
    let sockets = [&web.net, &db.net].map(|net| RawSocket::open(net, "eth0").unwrap());
    let macs = [web, db].map(|pod| pod.mac().0);
    let arrives = |protocol: u8| {
        let packet =
            etherparse::PacketBuilder::ethernet2(macs[0], macs[1]).ipv4([10, 66, 0, 2], [10, 66, 0, 1], 64);
        let mut frame = Vec::new();
        packet.write(&mut frame, etherparse::IpNumber(protocol), &[0; 40]).unwrap();
        sockets[0].send(&frame);
        let is_it = |seen: &[u8]| {
            seen.get(..34).is_some_and(|head| head[..12] == frame[..12] && head[23] == protocol)
        };
        sockets[1].recv(Duration::from_millis(300), is_it).is_some()
    };
    let explained = |protocol: &str| {
        let asked = serde_json::json!({"from": "tap2", "to": "tap1", "protocol": protocol});
        let asked = serde_json::from_value(asked).unwrap();
        let answer: PolicyAnswer = daemon.call(&Request::PolicyExplain(asked));
        (answer.passes, answer.ingress.rule)
    };
    let both = |protocol: u8| (explained(&protocol.to_string()).0, arrives(protocol));
    assert_eq!([GRE, OSPF].map(both), [(true, true); 2]);
    set(
        &daemon,
        serde_json::json!({
            "name": "guard", "applies_to": {"ports": ["tap1"]},
            "ingress": [{"action": "deny", "protocol": GRE.to_string()}],
        }),
    );
    assert_eq!([GRE, OSPF].map(both), [(false, false), (true, true)]);
    assert_eq!(explained("47"), (false, Some("acl guard ingress 1".into())));
    assert_eq!((explained("icmp").0, web.reaches("10.66.0.1")), (true, true));
    // No policy can allow by port what has none.
    let policy = serde_json::json!({"metadata": {"name": "closed", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"ports": [{"port": 80}]}]}});
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    let _: Done = daemon.call(&Request::PolicyAdd(Box::new(policy)));
    assert_eq!([GRE, OSPF].map(both), [(false, false); 2]);
    assert_eq!((explained("icmp").0, web.reaches("10.66.0.1")), (false, false));
    for (wrong, field) in [
        (serde_json::json!({"protocol": "icmpv6"}), "protocol"),
        (serde_json::json!({"protocol": "47", "port": 80}), "port"),
        (serde_json::json!({"protocol": "tcp"}), "port"),
        (serde_json::json!({"protocol": "89", "source_port": 80}), "source_port"),
        (serde_json::json!({"protocol": "89", "icmp": "8"}), "icmp"),
    ] {
        let mut asked = serde_json::json!({"from": "10.66.0.2", "to": "10.66.0.1"});
        asked.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let asked = Request::PolicyExplain(serde_json::from_value(asked).unwrap());
        let error = daemon.client().call::<PolicyAnswer>(&asked).unwrap_err();
        assert_eq!((error.code, error.data.field.as_deref()), (Code::InvalidParams, Some(field)));
    }
    daemon.assert_conserved();
}
