//! Rules by the thousand, the same for the switch and its peers: blocks of addresses that traffic may come from.

use serde_json::{Value, json};
use std::net::Ipv4Addr;
use switch_api::NetworkPolicy;

/// Where all traffic comes from, and how long its prefix is.
const FROM: (u32, u32) = (0x0a00_0000, 8);
/// Rules of a policy: what fits into a request many times over.
const RULES_A_POLICY: usize = 500;
/// The generator's.
pub const PORT: u16 = 12345;

/// So many neighbouring blocks, the first of which have the traffic's addresses.
pub fn blocks(count: u32) -> Vec<String> {
    let len = FROM.1 + count.max(1).next_power_of_two().trailing_zeros();
    let block = |n: u32| format!("{}/{len}", Ipv4Addr::from_bits(FROM.0 + (n << (32 - len))));
    (0..count).map(block).collect()
}

/// Policies of so many rules, each of which admits UDP from a block to every pod of the namespace `default`.
pub fn policies(count: u32) -> Result<Vec<NetworkPolicy>, String> {
    policies_of(&blocks(count))
}

/// The same, for traffic from one network, which the last of the rules is about.
pub fn policies_last(count: u32, network: &str) -> Result<Vec<NetworkPolicy>, String> {
    let mut blocks = blocks(count);
    blocks.pop();
    blocks.push(network.into());
    policies_of(&blocks)
}

fn policies_of(blocks: &[String]) -> Result<Vec<NetworkPolicy>, String> {
    let policy = |(number, blocks): (usize, &[String])| {
        let rule = |cidr: &String| -> Value {
            json!({ "from": [{ "ipBlock": { "cidr": cidr } }], "ports": [{ "protocol": "UDP", "port": PORT }] })
        };
        let ingress: Vec<Value> = blocks.iter().map(rule).collect();
        let policy = json!({
            "metadata": { "name": format!("p{number}") },
            "spec": { "policyTypes": ["Ingress"], "ingress": ingress },
        });
        serde_json::from_value(policy).map_err(|error| error.to_string())
    };
    blocks.chunks(RULES_A_POLICY).enumerate().map(policy).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    #[test]
    fn blocks_are_as_many_as_asked_for_and_do_not_overlap() {
        assert_eq!(blocks(1), ["10.0.0.0/8"]);
        assert_eq!(blocks(10)[..2], ["10.0.0.0/12", "10.16.0.0/12"]);
        let many = blocks(10_000);
        assert_eq!(
            (many.len(), many[1].as_str(), many[9_999].as_str()),
            (10_000, "10.0.4.0/22", "10.156.60.0/22")
        );
        let policies = policies(1_001).unwrap();
        assert_eq!(policies.len(), 3);
    }
}
