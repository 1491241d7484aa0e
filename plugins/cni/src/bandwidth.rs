//! The capability `bandwidth`: how fast a container may send and be sent, by the port's own limits. Rates are bits a second
//! and bursts are bits, named as the container sees them: ingress is what it is sent.

use crate::fields::{Fields, Problems};
use switch_api::{LIMIT_MAX, Limit, PortLimits};

const FIELDS: &[&str] = &["ingressRate", "ingressBurst", "egressRate", "egressBurst"];

/// What runtimes pass as a burst when nobody asked for one (`math.MaxInt32`, `math.MaxUint32`). A quarter of a gigabyte at once
/// would be no limit for most; the switch then chooses.
const BURST_UNSAID: u64 = i32::MAX as u64;

/// Reads it from `runtimeConfig`. No rate or one of 0: no limit.
pub fn take(runtime: &mut Fields, problems: &mut Problems) -> PortLimits {
    let path = runtime.path("bandwidth");
    let Some(said) = runtime.object("bandwidth", problems) else { return PortLimits::default() };
    let mut said = said.in_any_case(FIELDS);
    let mut limit = |rate: &str, burst: &str| {
        let rate_bits: u64 = said.take(rate, problems).unwrap_or(0);
        let burst_bits: u64 = said.take(burst, problems).unwrap_or(0);
        if rate_bits == 0 {
            if burst_bits != 0 {
                problems.add(format!("{path}: {burst} without {rate} limits nothing"));
            }
            return None;
        }
        let burst = (1..BURST_UNSAID).contains(&burst_bits).then(|| burst_bits.div_ceil(8));
        Some(Limit { per_s: rate_bits.div_ceil(8).min(LIMIT_MAX), burst })
    };
    let tx_bytes = limit("ingressRate", "ingressBurst");
    let rx_bytes = limit("egressRate", "egressBurst");
    said.none_left(FIELDS, problems);
    PortLimits { rx_bytes, tx_bytes, ..PortLimits::default() }
}

/// What is limited, for people.
pub fn shown(limits: &PortLimits) -> String {
    let each = limits.each().into_iter().filter_map(|(what, limit)| {
        let Limit { per_s, burst } = limit?;
        let burst = burst.map_or_else(String::new, |burst| format!(", {burst} at once"));
        Some(format!("{what} {per_s} a second{burst}"))
    });
    let each: Vec<_> = each.collect();
    if each.is_empty() { "none".into() } else { each.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(bandwidth: Value) -> (PortLimits, Option<String>) {
        let Value::Object(map) = json!({ "bandwidth": bandwidth }) else { unreachable!() };
        let mut problems = Problems::default();
        let limits = take(&mut Fields::new(map), &mut problems);
        (limits, problems.all())
    }

    #[test]
    fn ingress_is_what_the_container_is_sent() {
        let said = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 4001, "egressBurst": 2_147_483_647u32});
        let wanted = PortLimits {
            tx_bytes: Some(Limit { per_s: 1_000_000, burst: Some(100_000) }),
            rx_bytes: Some(Limit { per_s: 501, burst: None }),
            ..PortLimits::default()
        };
        assert_eq!(read(said), (wanted, None));
        for none in [json!(null), json!({}), json!({"ingressRate": 0, "egressRate": null})] {
            assert_eq!(read(none), (PortLimits::default(), None));
        }
        let said =
            json!({"IngressRate": 8_000_000, "IngressBurst": 800_000, "EgressRate": 4001, "EgressBurst": 0});
        assert_eq!(read(said), (wanted, None), "as containerd writes it");
        assert!(read(json!({"ingressRate": u64::MAX})).0.tx_bytes.unwrap().per_s <= LIMIT_MAX);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (said, part) in [
            (json!({"ingressRate": -1}), "ingressRate"),
            (json!({"egressRate": "1M"}), "egressRate"),
            (json!({"egressBurst": 8}), "egressBurst without egressRate"),
            (json!({"rate": 8}), "rate"),
        ] {
            assert!(read(said).1.unwrap().contains(part), "{part}");
        }
    }
}
