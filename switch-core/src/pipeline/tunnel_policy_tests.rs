//! Network policies and tunnels: what goes into one, and what comes out of one, is judged by what is inside.

use super::routing_tests::{OWN, drain, mac};
use super::tunnel_tests::{Around, FAR, NOW, inner, onwards, ready, told};
use crate::port::memory::MemoryPeer;
use crate::rig::Rig;
use serde_json::{Value, json};
use switch_api::{PortLabel, Request, Workload};

/// A node whose pod, behind p0, reaches a far one by a tunnel; the ends of the tunnel, and the packets inside, are of these IP versions.
struct Lab {
    rig: Rig,
    peers: Vec<MemoryPeer>,
    outer_v4: bool,
    inner_v4: bool,
}

impl Lab {
    fn each(test: impl Fn(Self)) {
        for (outer_v4, inner_v4) in [(true, true), (true, false), (false, true), (false, false)] {
            let (mut rig, peers) = ready(outer_v4);
            let workload = Workload {
                namespace: "shop".into(),
                labels: [("app".to_owned(), "db".to_owned())].into(),
                ports: vec![],
                addresses: ["10.0.0.9", "fd00::9"].map(|ip| ip.parse().unwrap()).into(),
            };
            let label = PortLabel { name: "p0".parse().unwrap(), workload: Some(workload) };
            rig.declare(&Request::PortLabel(label)).unwrap();
            test(Self { rig, peers, outer_v4, inner_v4 });
        }
    }

    /// The pod may hear, or ask, only these: by UDP port 9.
    fn isolate(&mut self, direction: &str, who: [&str; 2]) {
        let (rules, peers) = match direction {
            "Ingress" => ("ingress", "from"),
            _ => ("egress", "to"),
        };
        let blocks: Vec<Value> = who.iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}})).collect();
        let rule = json!({peers: blocks, "ports": [{"protocol": "UDP", "port": 9}]});
        let policy = json!({
            "metadata": {"name": "db", "namespace": "shop"},
            "spec": {"podSelector": {}, "policyTypes": [direction], rules: [rule]},
        });
        let policy = serde_json::from_value(policy).unwrap();
        self.rig.declare(&Request::PolicySet(Box::new(policy))).unwrap();
    }

    /// A packet from the pod to the far one, or back, from one port to another.
    fn packet(&self, to_far: bool, ports: [u16; 2]) -> Vec<u8> {
        let mut frame = inner(self.inner_v4, to_far, 0, 64, b"hello");
        let at = 14 + if self.inner_v4 { 20 } else { 40 };
        frame[at..at + 2].copy_from_slice(&ports[0].to_be_bytes());
        frame[at + 2..at + 4].copy_from_slice(&ports[1].to_be_bytes());
        frame
    }

    /// Whether the pod hears what comes out.
    fn comes_out(&mut self, ports: [u16; 2]) -> bool {
        let packet = self.packet(false, ports);
        assert!(self.peers[1].send(Around::back(self.outer_v4).put((mac(7), OWN), &packet)));
        self.rig.settle(NOW);
        self.rig.assert_conserved();
        let heard = drain(&self.peers[0]);
        assert!(heard.is_empty() || heard == [onwards(&packet, mac(0))], "{heard:02x?}");
        !heard.is_empty()
    }

    /// Whether what the pod sends leaves, inside of something.
    fn goes_in(&mut self, ports: [u16; 2]) -> bool {
        let packet = self.packet(true, ports);
        assert!(self.peers[0].send(packet.clone()));
        self.rig.settle(NOW);
        self.rig.assert_conserved();
        let sent = drain(&self.peers[1]);
        let at = if self.outer_v4 { 50 } else { 70 };
        assert!(sent.is_empty() || sent.len() == 1 && sent[0][at..] == onwards(&packet, FAR), "{sent:02x?}");
        !sent.is_empty()
    }
}

/// The far pod, and the ends of the tunnel that it speaks through.
const FAR_POD: [&str; 2] = ["10.2.0.9/32", "fd02::9/128"];
const FAR_END: [&str; 2] = ["10.1.0.0/16", "fd01::/64"];

#[test]
fn a_pod_isolated_for_ingress_hears_nothing_out_of_a_tunnel_but_what_is_allowed() {
    Lab::each(|mut lab| {
        assert!(lab.comes_out([7, 9]) && lab.comes_out([7, 10]));
        lab.isolate("Ingress", FAR_POD);
        assert!(lab.comes_out([8, 9]));
        assert!(!lab.comes_out([8, 10]) && !lab.comes_out([7, 10]), "nor what belonged to a flow before");
        assert_eq!(told(&lab.rig), [("policy-ingress", 2)]);
        // It may ask whom it likes, and is answered.
        assert!(!lab.comes_out([53, 7]), "nobody asked");
        assert!(lab.goes_in([7, 53]) && lab.comes_out([53, 7]));
        // Who brings a packet is not who sent it.
        lab.isolate("Ingress", FAR_END);
        assert!(!lab.comes_out([8, 9]) && !lab.comes_out([11, 9]));
        assert_eq!(told(&lab.rig), [("policy-ingress", 5)]);
        assert!(lab.comes_out([53, 7]));
    });
}

#[test]
fn a_pod_isolated_for_egress_sends_nothing_into_a_tunnel_but_what_is_allowed() {
    Lab::each(|mut lab| {
        assert!(lab.goes_in([7, 9]) && lab.goes_in([7, 10]));
        lab.isolate("Egress", FAR_POD);
        assert!(lab.goes_in([8, 9]));
        assert!(!lab.goes_in([8, 10]) && !lab.goes_in([7, 10]), "nor what belonged to a flow before");
        assert_eq!(told(&lab.rig), [("policy-egress", 2)]);
        // Whoever asks it is answered.
        assert!(!lab.goes_in([53, 7]), "nobody asked");
        assert!(lab.comes_out([7, 53]) && lab.goes_in([53, 7]));
        // Whom a packet is brought by is not whom it is for.
        lab.isolate("Egress", FAR_END);
        assert!(!lab.goes_in([8, 9]) && !lab.goes_in([11, 9]));
        assert_eq!(told(&lab.rig), [("policy-egress", 5)]);
        assert!(lab.goes_in([53, 7]));
    });
}
