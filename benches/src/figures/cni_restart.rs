//! [cni-restart] The daemon stops and starts, and is killed and starts, under 100 containers that a runtime attached: they keep their
//! devices, their addresses and their TCP connections, and the one that is cut off longest counts.

use super::{Bench, Figure, Held};
use crate::containers::{self, Runtime};
use crate::outage::{self, PROBE_MS, Probes, RESTARTS, Stream, ms};
use std::time::Duration;
use switch_api::PortSettings;
use switch_lab::{Net, Node, Options, Pod, wait_until};

const PODS: usize = 100;
const BAR_MS: f64 = 500.0;
/// Between two chunks of one connection, of which there are half as many as pods: what two cores carry beside the probes.
const CHUNK: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("ms", BAR_MS);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let options = Options::new(&bench.switchd).keeping_state();
    let daemon = node.start(&options);
    daemon.bridge("br0");
    containers::host_port(&daemon, PortSettings::default())?;
    let runtime = Runtime::new(bench, &node, &daemon, "");
    let attach = |n: usize| {
        let net = Net::new(&format!("r{n}"));
        let ip = runtime.add(&net)?;
        Ok::<_, String>(Pod { net, device: "eth0".into(), ip })
    };
    let prober = attach(0)?;
    let pods = (1..=PODS).map(attach).collect::<Result<Vec<_>, _>>()?;
    for pod in &pods {
        wait_until("a pod answers", LONG, || prober.reaches(&pod.ip));
    }
    let before: Vec<String> = pods.iter().map(dress).collect();
    let streams: Vec<Stream> =
        pods.chunks_exact(2).map(|pair| Stream::start(&pair[0], &pair[1], CHUNK)).collect();
    let probes = Probes::start(&prober, &pods, &[]);
    let (mut daemon, outages) = outage::restart(daemon, &node, &options, &probes, None);
    let (sent, answered) = probes.stop();
    let (wanted, kept) =
        (streams.len(), streams.into_iter().map(Stream::stop).filter(|chunks| *chunks > 0).count());
    let after: Vec<String> = pods.iter().map(dress).collect();
    let pairs = || after.iter().zip(&before);
    let same = pairs().filter(|(now, was)| now == was).count();
    if let Some((now, was)) = pairs().find(|(now, was)| now != was) {
        return Err(format!("a pod has\n{now}\ninstead of\n{was}"));
    }
    daemon.assert_conserved();
    let (ports, leases) = containers::count(&daemon);
    daemon.stop(true);
    let detail = format!(
        "worst of {PODS} tap pods, {RESTARTS} times each way: stopped and started {:.0} ms, killed and started {:.0} ms (bar {BAR_MS} both); \
         the daemon serves after {:.0} ms; a probe every {PROBE_MS} ms a pod ({sent} sent, {answered} answered); {same} of {PODS} have the \
         device, number, MAC, addresses and routes they had; {kept} of {wanted} TCP connections went on, every chunk in order; \
         {ports} ports and {leases} leases are kept",
        ms(outages.stopped),
        ms(outages.killed),
        ms(outages.serving)
    );
    let holds = same == PODS && kept == wanted && (ports, leases) == (PODS + 1, PODS + 1);
    Ok(Figure::new("cni-restart", outages.worst_ms(), HELD, detail).only_if(holds))
}

/// A pod's device with its number, addresses and routes, as `ip` tells them; what is learned is not in it, and not that a device without
/// a reader had no carrier for a while.
fn dress(pod: &Pod) -> String {
    let questions = ["-o link show dev eth0", "-o addr show dev eth0", "route show", "-6 route show"];
    let told = questions.map(|words| pod.net.ip(words)).concat();
    let told: Vec<&str> = told.lines().filter(|line| !line.contains("fe80::")).collect();
    told.join("\n").replace("state UNKNOWN", "state UP")
}
