//! What the sink makes of packets that carry a sequence number and the time they were sent: how many are lost, repeated and
//! reordered, and how long they were under way.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Where sequence number and time are: behind Ethernet, IPv4 and UDP.
const SEQUENCE_AT: usize = 42;
const TIME_AT: usize = SEQUENCE_AT + 8;

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived, each counted once.
    pub received: u64,
    /// Packets that did not.
    pub lost: u64,
    /// Packets that arrived after a later one of theirs.
    pub reordered: u64,
    /// Packets that arrived once more.
    pub repeated: u64,
    /// Packets a second at the sink, by its own clock.
    pub rate_pps: f64,
    /// Latency, µs.
    pub p50_us: f64,
    /// Latency, µs.
    pub p99_us: f64,
    /// Latency, µs.
    pub max_us: f64,
}

/// Writes a packet's number and time into it, a frame of [`switch_core::port::traffic::udp_frame`].
pub fn stamp(frame: &mut [u8], sequence: u64, now_ns: u64) {
    frame[SEQUENCE_AT..TIME_AT].copy_from_slice(&sequence.to_be_bytes());
    frame[TIME_AT..TIME_AT + 8].copy_from_slice(&now_ns.to_be_bytes());
}

/// What the sink keeps.
#[derive(Debug)]
pub struct Sink {
    latency: Histogram<u64>,
    /// A bit for each sequence number: whether it arrived.
    seen: Vec<u64>,
    next: u64,
    received: u64,
    reordered: u64,
    repeated: u64,
    first_ns: Option<u64>,
    last_ns: u64,
}

impl Sink {
    /// Of nothing yet.
    pub fn new() -> Result<Self, String> {
        let latency = Histogram::new(3).map_err(|error| error.to_string())?;
        Ok(Self {
            latency,
            seen: Vec::new(),
            next: 0,
            received: 0,
            reordered: 0,
            repeated: 0,
            first_ns: None,
            last_ns: 0,
        })
    }

    /// Takes note of a frame that arrived `now_ns` after the start; numbers below `sent` were sent until then. What is not ours
    /// is passed over.
    pub fn hear(&mut self, frame: &[u8], sent: u64, now_ns: u64) {
        let word = |at: usize| frame.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        // Ours: IPv4, UDP, our ports.
        if frame.get(12..14) != Some(&[8, 0]) || frame.get(34..38) != Some(&[0x30, 0x39, 0x30, 0x39]) {
            return;
        }
        let (Some(sequence), Some(sent_ns)) = (word(SEQUENCE_AT), word(TIME_AT)) else { return };
        if sequence >= sent {
            return;
        }
        if !self.is_first(sequence) {
            self.repeated += 1;
            return;
        }
        self.first_ns.get_or_insert(now_ns);
        self.last_ns = now_ns;
        self.received += 1;
        if sequence < self.next {
            self.reordered += 1;
        }
        self.next = self.next.max(sequence + 1);
        // A latency beyond what the histogram grows to is a minute and more: not worth an error.
        _ = self.latency.record(now_ns.saturating_sub(sent_ns));
    }

    /// Whether this number was not seen before; now it was.
    fn is_first(&mut self, sequence: u64) -> bool {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        let before = self.seen[word];
        self.seen[word] |= bit;
        before & bit == 0
    }

    /// What came of `sent` packets.
    pub fn report(&self, sent: u64) -> Report {
        let seconds = (self.last_ns - self.first_ns.unwrap_or(self.last_ns)) as f64 / 1e9;
        let us = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1000.0;
        Report {
            sent,
            received: self.received,
            lost: sent.saturating_sub(self.received),
            reordered: self.reordered,
            repeated: self.repeated,
            rate_pps: if seconds > 0.0 { self.received as f64 / seconds } else { 0.0 },
            p50_us: us(0.5),
            p99_us: us(0.99),
            max_us: self.latency.max() as f64 / 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;
    use switch_core::port::traffic::{client, server, udp_frame};

    fn packet(sequence: u64, sent_ns: u64) -> Vec<u8> {
        let mut frame = udp_frame(server(0), client(0), 0, 60);
        stamp(&mut frame, sequence, sent_ns);
        frame
    }

    /// Hears these numbers of `sent`, a microsecond apart.
    fn hear(numbers: impl IntoIterator<Item = u64>, sent: u64) -> Report {
        let mut sink = Sink::new().unwrap();
        for (n, number) in numbers.into_iter().enumerate() {
            sink.hear(&packet(number, 0), sent, 1000 * (n as u64 + 1));
        }
        sink.report(sent)
    }

    #[test]
    fn loss_reorder_and_repetition_are_told_apart() {
        let counts = |report: Report| (report.received, report.lost, report.reordered, report.repeated);
        assert_eq!(counts(hear(0..1000, 1000)), (1000, 0, 0, 0));
        assert_eq!(counts(hear([], 10)), (0, 10, 0, 0));
        // The first, one in the middle, and the last.
        assert_eq!(counts(hear((1..999).filter(|n| *n != 500), 1000)), (997, 3, 0, 0));
        // Two that change places are one out of order; one that comes last is one as well, whatever it let pass.
        assert_eq!(counts(hear([0, 2, 1, 3], 4)), (4, 0, 1, 0));
        assert_eq!(counts(hear([1, 2, 3, 0], 4)), (4, 0, 1, 0));
        assert_eq!(counts(hear([3, 2, 1, 0], 4)), (4, 0, 3, 0));
        // Late, and missing.
        assert_eq!(counts(hear([0, 3, 1, 5], 6)), (4, 2, 1, 0));
        // One that comes twice does not stand for one that never came.
        assert_eq!(counts(hear([0, 1, 1, 3], 4)), (3, 1, 0, 1));
        assert_eq!(counts(hear([63, 64, 63, 64, 65], 66)), (3, 63, 0, 2));
    }

    #[test]
    fn latencies_are_those_of_the_packets() {
        let mut sink = Sink::new().unwrap();
        // 1 to 1000 µs, each once, in no order.
        for n in 0..1000u64 {
            let us = 1 + n * 7 % 1000;
            sink.hear(&packet(n, 5_000_000), 1000, 5_000_000 + us * 1000);
        }
        let report = sink.report(1000);
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted / 500.0;
        assert!(
            near(report.p50_us, 500.0) && near(report.p99_us, 990.0) && near(report.max_us, 1000.0),
            "{report:?}"
        );
        // A thousand packets within so long.
        let report = hear(0..1001, 1001);
        assert!(near(report.rate_pps, 1_001_000.0), "{report:?}");
    }

    #[test]
    fn what_is_not_ours_is_passed_over() {
        let mut sink = Sink::new().unwrap();
        let (mut arp, mut other_port) = (packet(1, 0), packet(1, 0));
        arp[13] = 6;
        other_port[37] = 1;
        for frame in [&arp[..], &other_port, &packet(1, 0)[..50], &[], &packet(9, 0), &packet(u64::MAX, 0)] {
            sink.hear(frame, 9, 1000);
        }
        assert_eq!(sink.report(9).received, 0);
    }
}
