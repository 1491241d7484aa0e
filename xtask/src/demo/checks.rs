//! What must be true of what the demo shows, so that it fails when traffic does not pass: a picture of a broken switch is no demo.

use crate::sh::Result;
use switch_api::{FdbEntry, Mac, PortState, PortStatus, Stats, Vlan};

/// Of a hundred datagrams that are asked one after another so many are answered at least: the machine may have other work, the
/// switch loses none.
const ANSWERED_PERCENT: usize = 99;

/// `ping` has had an answer to each of its questions.
pub(super) fn all_answered(said: &str) -> Result {
    match said.lines().find(|line| line.contains("packet loss")) {
        Some(line) if line.contains(", 0% packet loss") => Ok(()),
        Some(line) => Err(format!("answers were lost: {line}")),
        None => Err(format!("ping does not say what it lost: {said}")),
    }
}

/// Of so many datagrams enough were answered.
pub(super) fn enough_answered(answered: usize, asked: usize) -> Result {
    match answered * 100 >= asked * ANSWERED_PERCENT {
        true => Ok(()),
        false => Err(format!("UDP: {answered} of {asked} datagrams were answered")),
    }
}

/// Everybody who has spoken is in the MAC table, behind a port of its own.
pub(super) fn all_learned(table: &[FdbEntry], stations: &[(Mac, &str)]) -> Result {
    for (mac, port) in stations {
        match table.iter().find(|entry| entry.mac == *mac) {
            Some(entry) if entry.port.as_str() == *port => {}
            Some(entry) => return Err(format!("{mac} was learned behind {}, not behind {port}", entry.port)),
            None => return Err(format!("{mac}, which is behind {port}, is not in the MAC table")),
        }
    }
    Ok(())
}

/// Every port is up, was sent by and has sent, but for one that is alone in its VLAN, to which nothing goes; the first that is otherwise
/// is named.
pub(super) fn all_carried(ports: &[PortStatus]) -> Result {
    for status in ports {
        let (name, counters) = (&status.port.name, &status.counters);
        if status.state != PortState::Up {
            return Err(format!(
                "port {name} is {:?}: {}",
                status.state,
                status.reason.as_deref().unwrap_or("")
            ));
        }
        let is_alone = status.port.settings.vlan != Vlan::default();
        if counters.rx_packets == 0 || (counters.tx_packets == 0) != is_alone {
            return Err(format!(
                "port {name} counts {} frames in, {} out",
                counters.rx_packets, counters.tx_packets
            ));
        }
    }
    Ok(())
}

/// The stages that every frame goes through have been timed.
pub(super) fn stages_timed(stats: &Stats) -> Result {
    for wanted in ["recv", "parse", "guard", "learn", "forward", "egress", "emit"] {
        let stage = stats.stages.iter().find(|cost| cost.stage == wanted);
        if stage.is_none_or(|cost| cost.packets == 0 || cost.cycles_per_packet <= 0.0) {
            return Err(format!("stage {wanted} has no cycles: {stage:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use switch_api::{Port, PortCounters, PortKind, StageCost, Vid};

    #[test]
    fn an_answer_that_is_missing_is_a_failure() {
        let said =
            |lost: &str| format!("5 packets transmitted, 4 received, {lost}% packet loss, time 204ms\n");
        assert!(all_answered(&said("0")).is_ok());
        assert!(all_answered(&said("20")).is_err() && all_answered(&said("100")).is_err());
        assert!(all_answered("ping: no such host").is_err());
        assert!(enough_answered(1980, 2000).is_ok() && enough_answered(1979, 2000).is_err());
        assert!(enough_answered(0, 2000).is_err());
    }

    #[test]
    fn a_station_that_is_missing_or_elsewhere_is_a_failure() {
        let (here, other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let entry = FdbEntry {
            mac: here,
            vid: Vid::DEFAULT,
            bridge: "br0".parse().unwrap(),
            port: "pod1".parse().unwrap(),
            is_static: false,
            age_s: 0,
            dst: None,
            owner: None,
        };
        let table = [entry];
        assert!(all_learned(&table, &[(here, "pod1")]).is_ok());
        assert!(all_learned(&table, &[(here, "pod2")]).is_err());
        assert!(all_learned(&table, &[(here, "pod1"), (other, "pod2")]).is_err());
    }

    fn status(rx_packets: u64, tx_packets: u64, state: PortState) -> PortStatus {
        PortStatus {
            port: Port::new(
                "pod1".parse().unwrap(),
                "br0".parse().unwrap(),
                PortKind::Memory { source: None },
            ),
            state,
            reason: None,
            mode: None,
            mode_reason: None,
            workers: vec![0],
            mtu: 1500,
            memory_bytes: 0,
            memory: Default::default(),
            learned: 1,
            counters: PortCounters { rx_packets, tx_packets, ..PortCounters::default() },
        }
    }

    #[test]
    fn a_port_that_carries_nothing_is_a_failure() {
        assert!(all_carried(&[status(1, 1, PortState::Up)]).is_ok());
        for broken in
            [status(0, 1, PortState::Up), status(1, 0, PortState::Up), status(1, 1, PortState::Down)]
        {
            assert!(all_carried(&[status(1, 1, PortState::Up), broken]).is_err());
        }
        for (received, is_right) in [(0, true), (1, false)] {
            let mut alone = status(1, received, PortState::Up);
            alone.port.settings.vlan = Vlan::Access { vid: 20.try_into().unwrap() };
            assert_eq!(all_carried(&[alone]).is_ok(), is_right);
        }
    }

    #[test]
    fn a_stage_without_cycles_is_a_failure() {
        let names = ["recv", "parse", "guard", "learn", "forward", "egress", "emit"];
        let cost = |stage: &str, packets| StageCost {
            stage: stage.to_owned(),
            cycles_per_packet: 7.0,
            packets,
            vectors: 1,
        };
        let mut stats = Stats { stages: names.map(|name| cost(name, 64)).into(), ..Stats::default() };
        assert!(stages_timed(&stats).is_ok());
        stats.stages[3] = cost("learn", 0);
        assert!(stages_timed(&stats).is_err());
        stats.stages.truncate(6);
        assert!(stages_timed(&stats).is_err());
    }
}
