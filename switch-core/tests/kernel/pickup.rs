//! TCP connections that are older than the daemon: where that is wanted they are taken up in the middle, as far as the policy allows it;
//! else they are dropped by name.

use crate::policy::declare;
use crate::switchd;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use switch_api::{FlowFilter, FlowList, FlowPage, Request};
use switch_lab::scenes::shop;
use switch_lab::world::Echo;
use switch_lab::{Daemon, Net, Node, Pod, uninterrupted, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// What does not arrive within that is sent again twice meanwhile.
const SHORT: Duration = Duration::from_millis(800);

/// A TCP connection, both ends in hand.
struct Talk([TcpStream; 2]);

/// An end of it.
#[derive(Clone, Copy)]
enum End {
    /// Who opened it.
    Near,
    /// Who was asked.
    Far,
}

impl Talk {
    fn open(from: &Net, to: &Net, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let listener = to.inside(move || TcpListener::bind(address).unwrap()).join().unwrap();
        let near = from.inside(move || TcpStream::connect_timeout(&address, LONG).unwrap()).join().unwrap();
        let far = listener.accept().unwrap().0;
        Self([near, far])
    }

    /// Whether what one end says is heard by the other, within so long.
    fn says(&mut self, end: End, patience: Duration) -> bool {
        let [near, far] = &mut self.0;
        let (from, to) = match end {
            End::Near => (near, far),
            End::Far => (far, near),
        };
        from.write_all(b"x").unwrap();
        to.set_read_timeout(Some(patience)).unwrap();
        uninterrupted(|| to.read(&mut [0])).is_ok()
    }
}

/// `web` has two connections to what its policy lets it ask of `db`, and two to what it does not; then the daemon was killed, and is there
/// again.
fn restarted(words: &str) -> (Node, Daemon, Vec<Pod>, [Talk; 2], [Talk; 2]) {
    let options = switchd().keeping_state().with(words);
    let (node, mut daemon, pods) = shop(&options);
    let open = |port: u16| Talk::open(&pods[1].net, &pods[0].net, &format!("10.66.0.1:{port}"));
    let (allowed, forbidden) = ([5432, 5433].map(open), [5434, 5435].map(open));
    let spec = serde_json::json!({
        "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432, "endPort": 5433}]}],
    });
    declare(&daemon, "db", spec);
    daemon.kill();
    let daemon = node.start(&options);
    (node, daemon, pods, allowed, forbidden)
}

/// Ports that flows of TCP lead to, and whether each was picked up.
fn flows(daemon: &Daemon) -> Vec<(u16, bool)> {
    let filter = FlowFilter { protocol: Some(6), ..FlowFilter::default() };
    let (mut flows, mut from) = (Vec::new(), Some(0));
    while let Some(begin) = from {
        let ask = FlowList { filter: filter.clone(), from: begin, ..FlowList::default() };
        let page: FlowPage = daemon.call(&Request::FlowList(ask));
        flows.extend(page.flows.iter().map(|flow| (flow.to.number, flow.picked_up)));
        from = page.next;
    }
    flows.sort_unstable();
    flows
}

#[test]
fn what_the_policy_allows_is_picked_up_and_nothing_else_is() {
    let (_node, daemon, _pods, [mut plain, mut turned], forbidden) = restarted("--flow-pickup");
    assert!(plain.says(End::Near, LONG) && plain.says(End::Far, LONG), "{:?}", daemon.stats().drops);
    // Whoever speaks first is taken for who opened it, and `db` opens nothing.
    assert!(!turned.says(End::Far, SHORT));
    assert!(turned.says(End::Near, LONG) && turned.says(End::Far, LONG), "{:?}", daemon.stats().drops);
    let [mut asks, mut tells] = forbidden;
    let stopped = || [daemon.drops_at("tap1", "policy-egress"), daemon.drops_at("tap2", "policy-ingress")];
    let before = stopped();
    assert!(before[0] > 0 && before[1] == 0, "{:?}", daemon.stats().drops);
    assert!(!asks.says(End::Near, SHORT) && !tells.says(End::Far, SHORT), "{:?}", flows(&daemon));
    assert!(stopped()[0] > before[0] && stopped()[1] > 0, "{:?}", daemon.stats().drops);
    // Nor later, when the other end has its say as well.
    assert!(!asks.says(End::Far, SHORT) && !tells.says(End::Near, SHORT), "{:?}", flows(&daemon));
    assert_eq!(flows(&daemon), [(5432, true), (5433, true)]);
    assert_eq!(daemon.drops("no-flow"), 0, "{:?}", daemon.stats().drops);
    daemon.assert_conserved();
}

#[test]
fn the_middle_of_a_connection_is_no_flow_where_that_is_not_wanted() {
    let (_node, daemon, pods, [mut plain, mut turned], [mut forbidden, _]) = restarted("");
    assert!(!plain.says(End::Near, SHORT), "{:?}", flows(&daemon));
    // A tap that has its daemon again has its carrier by the kernel's clock, and takes nothing until then.
    wait_until("the middle is dropped", LONG, || daemon.drops_at("tap2", "no-flow") > 0);
    assert!(!turned.says(End::Far, SHORT) && !forbidden.says(End::Near, SHORT), "{:?}", flows(&daemon));
    assert_eq!(flows(&daemon), []);
    // What begins now does.
    let mut new = Echo::open(&pods[1].net, &pods[0].net, "10.66.0.1:5432");
    assert!(new.comes_back(1, LONG), "{:?}", daemon.stats().drops);
    assert_eq!(flows(&daemon), [(5432, false)]);
    drop(new);
    daemon.assert_conserved();
}
