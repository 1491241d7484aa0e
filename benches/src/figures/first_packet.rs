//! [first-packet] Flows whose first packet goes to a neighbour that nobody has asked for yet: what is held while it is
//! asked arrives, in front of what follows. A real daemon, a pod that sends, and a pod with an address for each flow.

use super::{Bench, Figure, Held};
use crate::changes::named;
use crate::iperf::PATIENCE;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;
use switch_lab::cross::Router;
use switch_lab::{Options, wait_until};

/// Flows, each to an address of its own.
const FLOWS: u32 = 1_000;
/// Packets of each, the first one among them.
const PACKETS: u8 = 3;
const PORT: u16 = 7200;
/// Flows that begin together: a neighbour for each is asked for at once. A kernel answers so many and more.
const TOGETHER: usize = 50;
/// After the last packet.
const LINGER: Duration = Duration::from_millis(500);

/// What it is held against.
pub(super) const HELD: Held = Held::at_least("first packets", FLOWS as f64);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let mut node = Router::new(1);
    let daemon = node.start(&Options::new(&bench.switchd).with("--cores 1"));
    // A network with room for the flows, on a bridge of its own.
    daemon.bridge("br1");
    daemon.gateway("br1", "10.200.0.1/16");
    node.pod(&daemon, 2);
    let far = node.node.pod_on(3, 2);
    daemon.attach(&far, "br1", Default::default());
    let lines: Vec<String> =
        (0..FLOWS).map(|flow| format!("addr add {}/16 dev eth0", address(flow))).collect();
    let path = node.node.directory().join("addresses");
    std::fs::write(&path, lines.join("\n")).map_err(|error| error.to_string())?;
    far.net.run(&format!("ip -batch {}", path.display()));
    far.net.ip("route replace default via 10.200.0.1");
    let near = &node.pods[0];
    wait_until("ping of the gateway", PATIENCE, || near.reaches("10.200.0.1"));
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = far.net.inside(move || -> std::io::Result<BTreeMap<Ipv4Addr, Vec<u8>>> {
        let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        _ = ready.send(());
        let (mut arrived, mut datagram) = (BTreeMap::<_, Vec<u8>>::new(), [0; 8]);
        while let Ok((len, _)) = socket.recv_from(&mut datagram) {
            if let [a, b, c, d, number] = datagram[..len] {
                arrived.entry(Ipv4Addr::new(a, b, c, d)).or_default().push(number);
            }
        }
        Ok(arrived)
    });
    is_ready.recv().map_err(|error| error.to_string())?;
    let sent = near.net.inside(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        let flows: Vec<u32> = (0..FLOWS).collect();
        for together in flows.chunks(TOGETHER) {
            for number in 0..PACKETS {
                for flow in together {
                    let to = address(*flow);
                    let [a, b, c, d] = to.octets();
                    socket.send_to(&[a, b, c, d, number], (to, PORT))?;
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(LINGER);
        Ok(())
    });
    sent.join().map_err(|_| "the sender panicked")?.map_err(|error| format!("sender: {error}"))?;
    let arrived =
        server.join().map_err(|_| "the server panicked")?.map_err(|error| format!("server: {error}"))?;
    daemon.assert_conserved();
    let whole: Vec<u8> = (0..PACKETS).collect();
    let first = arrived.values().filter(|numbers| numbers.first() == Some(&0)).count();
    let in_order = arrived.values().filter(|numbers| **numbers == whole).count();
    let detail = format!(
        "of {FLOWS} flows to as many neighbours that were not known, {TOGETHER} at a time, the first packet of so many \
         arrived first; {in_order} of them whole ({PACKETS} packets) and in order; drops: {}",
        named(daemon.stats().drops)
    );
    let figure = Figure::new("first-packet", first as f64, HELD, detail);
    Ok(figure.only_if(in_order == FLOWS as usize))
}

/// The address of a flow.
fn address(flow: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0ac8_1000 + flow)
}
