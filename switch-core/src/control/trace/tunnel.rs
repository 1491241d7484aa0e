//! What a trace says of tunnels.

use super::{Teller, mac};
use crate::config::gateway::from_bits;
use crate::config::tunnels::Tunnel;
use crate::pipeline::note::Note;
use crate::pipeline::verdict::{Verdict, Why};
use crate::wire::ethernet::{HEADER_LEN, IPV4};
use crate::wire::vxlan;
use switch_api::RouteGet;

impl Teller<'_> {
    /// Out of a tunnel, or into one. From here on another packet is spoken of.
    pub(super) fn tunnelled(&self, note: &Note, before: &Note) -> String {
        let tunnels = &self.snapshot.tunnels;
        if note.verdict == Verdict::Aside(Why::Tunnel)
            && let Some(tunnel) = tunnels.iter().find(|tunnel| tunnel.fid == note.fid)
        {
            let at = before.payload_at() + vxlan::overhead(note.ethertype() == IPV4) - HEADER_LEN;
            self.packet.set(self.packet.get().get(at..).unwrap_or_default());
            self.in_port.set(tunnel.port);
            return format!(
                "out of tunnel {}, VNI {}: comes in once more",
                self.name(tunnel.port),
                tunnel.vni
            );
        }
        match tunnels.iter().find(|tunnel| tunnel.outside == note.fid) {
            Some(tunnel) => {
                self.packet.set(&[]);
                self.into(tunnel, before)
            }
            None => "not for the end of a tunnel".into(),
        }
    }

    fn into(&self, tunnel: &Tunnel, before: &Note) -> String {
        let name = self.name(tunnel.port);
        let Some(remote) = tunnel.remote(before.dst).map(from_bits) else {
            return format!("into tunnel {name}");
        };
        let model = &self.daemon.model;
        let vrfs = model.bridges.values().map(|bridge| &bridge.object.vrf);
        let vrf = vrfs.into_iter().find(|vrf| model.number_of(vrf) == Some(tunnel.vrf)).cloned();
        let get = vrf.map(|vrf| RouteGet { address: remote, vrf });
        let way = get.and_then(|get| self.daemon.explain_route(&get).ok());
        let way = way.map_or(String::new(), |way| format!("; {}: {}", way.what, way.why.join("; ")));
        let (local, vni) = (from_bits(tunnel.local), tunnel.vni);
        format!("into tunnel {name}, VNI {vni}, from {local} to {remote}, where {} is{way}", mac(before.dst))
    }
}
