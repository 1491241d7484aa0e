//! The cases of `testdata/networkpolicy-cases.json`, for IPv4 and their IPv6 twins. Also run as packets, by the
//! pipeline's tests.

use super::compile::compile;
use super::tests::{Owned, verdict};
use super::{check, plain};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switch_api::{Cidr, IpBlock, Labels, NamedPort, NetworkPolicy, Peer, Protocol, Workload};

#[derive(Debug, Deserialize)]
struct File {
    namespaces: Vec<BTreeMap<String, Labels>>,
    pods: Vec<Vec<PodRow>>,
    cases: Vec<CaseRow>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodRow {
    namespace: String,
    name: String,
    address: Ipv4Addr,
    labels: Labels,
    ports: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct CaseRow {
    description: String,
    steps: Vec<StepRow>,
}

#[derive(Debug, Deserialize)]
struct StepRow {
    namespaces: usize,
    pods: usize,
    policies: Vec<NetworkPolicy>,
    #[serde(default)]
    actions: Vec<Action>,
    expect: BTreeMap<String, String>,
}

/// What was done.
#[derive(Clone, Debug, Deserialize)]
pub(crate) enum Action {
    CreatePolicy {
        #[serde(rename = "Policy")]
        policy: Box<NetworkPolicy>,
    },
    #[serde(alias = "SetNamespaceLabels", rename_all = "PascalCase")]
    CreateNamespace { namespace: String, labels: Labels },
    #[serde(rename_all = "PascalCase")]
    DeleteNamespace { namespace: String },
    #[serde(rename_all = "PascalCase")]
    CreatePod { namespace: String, pod: String, labels: Labels },
    #[serde(rename_all = "PascalCase")]
    SetPodLabels { namespace: String, pod: String, labels: Labels },
    #[serde(rename_all = "PascalCase")]
    DeletePod { namespace: String, pod: String },
}

/// One step: the state, what made it of the one before, and what is expected of each pair for each protocol and port.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is about.
    pub name: String,
    /// Labels.
    pub namespaces: BTreeMap<String, Labels>,
    /// In the order of the verdicts.
    pub pods: Vec<Workload>,
    /// Theirs, behind that of their namespace and a slash.
    pub names: Vec<String>,
    /// In force.
    pub policies: Vec<NetworkPolicy>,
    /// Since the step before; of a case's first step none.
    pub(crate) actions: Vec<Action>,
    /// For each protocol and port, rows first.
    pub expect: Vec<(Protocol, u16, Vec<bool>)>,
}

/// The prefix that makes an IPv6 address of an IPv4 one: the twin of 10.0.0.1 is fd00:4::10.0.0.1.
fn twin(ip: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd00_0004 << 96 | u128::from(ip.to_bits()))
}

fn twin_net(cidr: &mut Cidr) {
    let IpAddr::V4(v4) = cidr.address() else { return };
    // All of IPv4 is all of IPv6.
    let len = if cidr.prefix_len() == 0 { 0 } else { cidr.prefix_len() + 96 };
    let address = if len == 0 { Ipv6Addr::UNSPECIFIED } else { twin(v4) };
    *cidr = format!("{address}/{len}").parse().unwrap();
}

fn twin_policy(policy: &mut NetworkPolicy) {
    let spec = &mut policy.spec;
    let peers = spec.ingress.iter_mut().flat_map(|rule| &mut rule.from);
    let peers = peers.chain(spec.egress.iter_mut().flat_map(|rule| &mut rule.to));
    for Peer { ip_block, .. } in peers {
        let Some(IpBlock { cidr, except }) = ip_block else { continue };
        twin_net(cidr);
        except.iter_mut().for_each(twin_net);
    }
}

fn workload(row: &PodRow, v6: bool) -> Workload {
    let port = |text: &String| {
        let mut words = text.split('/');
        let [protocol, port, name] = std::array::from_fn(|_| words.next().unwrap());
        NamedPort { name: name.into(), port: port.parse().unwrap(), protocol: protocol.parse().unwrap() }
    };
    Workload {
        namespace: row.namespace.clone(),
        labels: row.labels.clone(),
        ports: row.ports.iter().map(port).collect(),
        addresses: vec![if v6 { twin(row.address).into() } else { row.address.into() }],
    }
}

/// Every step of every case, of one family.
pub fn steps(v6: bool) -> Vec<Step> {
    cases(v6).concat()
}

/// Every case, step by step, of one family.
pub fn cases(v6: bool) -> Vec<Vec<Step>> {
    let text = include_str!("../../testdata/networkpolicy-cases.json");
    let file: File = serde_json::from_str(text).unwrap();
    assert_eq!((file.cases.len(), file.cases.iter().map(|case| case.steps.len()).sum::<usize>()), (129, 148));
    let File { namespaces, pods, cases } = file;
    let step = |description: &str, n: usize, row: StepRow| {
        let StepRow { mut policies, mut actions, .. } = row;
        if v6 {
            policies.iter_mut().for_each(twin_policy);
            for action in &mut actions {
                if let Action::CreatePolicy { policy } = action {
                    twin_policy(policy);
                }
            }
        }
        let expect = row.expect.iter().map(|(what, verdicts)| {
            let (protocol, port) = what.split_once('/').unwrap();
            let passes = verdicts.chars().map(|verdict| verdict == '.').collect();
            (protocol.parse().unwrap(), port.parse().unwrap(), passes)
        });
        Step {
            name: format!("{description}, step {n}"),
            namespaces: namespaces[row.namespaces].clone(),
            pods: pods[row.pods].iter().map(|row| workload(row, v6)).collect(),
            names: pods[row.pods].iter().map(|row| format!("{}/{}", row.namespace, row.name)).collect(),
            expect: expect.collect(),
            policies,
            actions,
        }
    };
    let case = |case: CaseRow| {
        let numbered = case.steps.into_iter().enumerate();
        numbered.map(|(n, row)| step(&case.description, n, row)).collect()
    };
    cases.into_iter().map(case).collect()
}

#[test]
fn every_case_is_judged_as_it_should_be() {
    let (mut pairs, mut blocked) = (0, 0);
    for step in steps(false).into_iter().chain(steps(true)) {
        let owned = Owned { namespaces: step.namespaces, policies: step.policies, pods: step.pods };
        for policy in &owned.policies {
            assert_eq!(check::policy(policy), [], "{}", step.name);
        }
        let input = owned.input();
        let compiled = compile(&input).unwrap();
        for (protocol, port, expect) in &step.expect {
            let ends = input.pods.iter().flat_map(|from| input.pods.iter().map(move |to| (from, to)));
            for ((from, to), expect) in ends.zip(expect).filter(|((from, to), _)| from.port != to.port) {
                let (from, to) = (from.addresses[0], to.addresses[0]);
                let is = verdict(&compiled, from, to, Some(*protocol), Some(*port));
                assert_eq!(is, *expect, "{}: {from:x} to {to:x} {protocol}/{port}", step.name);
                let plain = plain::passes(&input, from, to, Some(*protocol), Some(*port));
                assert_eq!(plain, *expect, "{}: the twin, {from:x} to {to:x} {protocol}/{port}", step.name);
                pairs += 1;
                blocked += u32::from(!expect);
            }
        }
    }
    assert!(pairs > 120_000 && blocked > 20_000, "{pairs} pairs, {blocked} blocked");
}
