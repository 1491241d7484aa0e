//! A device under test with a pod at either end, ready for the flood.

use super::task::Traffic;
use crate::flood::Path;
use std::any::Any;
use std::time::Duration;
use switch_api::Mac;
use switch_core::port::traffic::{client, server, udp_frame};
use switch_lab::{Daemon, Pod, RawSocket};

/// No faster than the slowest of them learns.
const BETWEEN_STATIONS: Duration = Duration::from_micros(50);

/// Two pods and what is between them.
pub struct Rig {
    /// What goes before the pods do: processes, namespaces.
    pub between: Box<dyn Any>,
    /// Who sends, and who receives.
    pub pods: [Pod; 2],
    /// Whom routed packets are sent to.
    pub gateway: Option<Mac>,
    /// How the pods are attached.
    pub cable: Cable,
}

/// How a pod is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// By veth: the sink takes frames before its kernel does.
    Veth,
    /// By a TAP: the sink's kernel counts.
    Tap,
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Rig of {:?}", self.pods)
    }
}

impl Rig {
    /// Generator and sink.
    pub fn path(&self) -> Result<Path<'_>, String> {
        let [from, to] = &self.pods;
        match self.cable {
            Cable::Veth => Path::open(from, to),
            Cable::Tap => Path::open_plain(from, to, false),
        }
    }

    /// The far stations say where they are.
    pub fn announce(&self) -> Result<(), String> {
        let socket = RawSocket::open(&self.pods[1].net, "eth0").map_err(|error| error.to_string())?;
        for flow in 0..Traffic::stations_max() {
            socket.send(&udp_frame(client(flow), server(flow), flow, 60));
            std::thread::sleep(BETWEEN_STATIONS);
        }
        Ok(())
    }

    /// The daemon, if the switch is what is between.
    pub fn daemon(&self) -> Option<&Daemon> {
        self.between.downcast_ref::<super::switch::Between>().map(|between| &between.daemon)
    }
}

/// The MAC by which a pod reaches its gateway, which it has just spoken with.
pub fn gateway_of(pod: &Pod, address: &str) -> Result<Mac, String> {
    let said = pod.net.ip(&format!("neigh show {address}"));
    let word = said.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
    word.and_then(|word| word.parse().ok()).ok_or_else(|| format!("{address} has no MAC: {said:?}"))
}
