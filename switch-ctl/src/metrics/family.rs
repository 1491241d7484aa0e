//! Metrics, their names and samples, and their text by `prometheus-client`: it knows the suffixes, the units and what is to be
//! escaped.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// A label and its value.
type Label = (&'static str, String);

/// One metric: its samples differ by labels.
#[derive(Debug)]
pub struct Family {
    /// Without what its unit and kind add (`_bytes`, `_total`, `_info`).
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    unit: Option<Unit>,
    samples: Vec<(Vec<Label>, Value)>,
}

#[derive(Clone, Debug)]
enum Value {
    Count(u64),
    Level(f64),
    /// The sum, and how many there are up to each bound and above the one before.
    Distribution(f64, Vec<(f64, u64)>),
    Info,
}

impl Family {
    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Self {
        Self { name, help, kind, unit: None, samples: Vec::new() }
    }

    /// What only grows while the daemon lives.
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Counter)
    }

    /// What goes up and down.
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Gauge)
    }

    /// How often something took how long.
    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Histogram)
    }

    /// What is said in labels alone.
    pub fn info(name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Self {
        let mut family = Self::new(name, help, MetricType::Info);
        family.samples.push((owned(labels), Value::Info));
        family
    }

    /// In this unit; its name says so.
    pub fn unit(mut self, unit: Unit) -> Self {
        self.unit = Some(unit);
        self
    }

    /// A counter's sample.
    pub fn count(&mut self, labels: &[(&'static str, &str)], value: u64) {
        self.samples.push((owned(labels), Value::Count(value)));
    }

    /// A gauge's sample.
    pub fn level(&mut self, labels: &[(&'static str, &str)], value: f64) {
        self.samples.push((owned(labels), Value::Level(value)));
    }

    /// A histogram's sample: the sum, and how many there are up to each bound and above the one before; the last is infinity.
    pub fn distribution(&mut self, labels: &[(&'static str, &str)], sum: f64, within: Vec<(f64, u64)>) {
        self.samples.push((owned(labels), Value::Distribution(sum, within)));
    }

    /// With this one sample more.
    pub fn at(mut self, labels: &[(&'static str, &str)], value: u64) -> Self {
        match self.kind {
            MetricType::Counter => self.count(labels, value),
            _ => self.level(labels, value as f64),
        }
        self
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<Label> {
    labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
}

/// How they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// OpenMetrics 1.0.
    Openmetrics,
    /// Prometheus text 0.0.4, which node_exporter's textfile collector reads.
    Prometheus,
}

impl Format {
    /// Its name in HTTP.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Openmetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// All of them, in their order.
pub fn text(families: Vec<Family>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    match format {
        Format::Openmetrics => text::encode(&mut text, &registry)?,
        Format::Prometheus => prometheus_text::encode(&mut text, &registry)?,
    }
    Ok(text)
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for Family { name, help, kind, unit, samples } in &self.0 {
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for (labels, value) in samples {
                match value {
                    Value::Info => metric.encode_info(labels)?,
                    value if labels.is_empty() => encode(&mut metric, value)?,
                    value => encode(&mut metric.encode_family(labels)?, value)?,
                }
            }
        }
        Ok(())
    }
}

fn encode(encoder: &mut MetricEncoder, value: &Value) -> fmt::Result {
    match value {
        Value::Count(count) => encoder.encode_counter::<NoLabelSet, _, u64>(count, None),
        Value::Level(level) => encoder.encode_gauge(level),
        Value::Distribution(sum, within) => {
            let count = within.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<NoLabelSet>(*sum, count, within, None)
        }
        Value::Info => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_kind_and_unit_and_labels_are_escaped() {
        let mut drops = Family::counter("switch_drops", "Frames dropped");
        drops.count(&[("reason", "a \"b\" \\ c")], 3);
        let memory = Family::gauge("switch_memory", "Memory").unit(Unit::Bytes).at(&[], 5);
        let build = Family::info("switch_build", "What it is", &[("version", "1")]);
        let mut took = Family::histogram("switch_took", "Time").unit(Unit::Seconds);
        took.distribution(&[("a", "b")], 2.5, vec![(0.5, 2), (f64::INFINITY, 1)]);
        let expected = "\
# HELP switch_drops Frames dropped
# TYPE switch_drops counter
switch_drops_total{reason=\"a \\\"b\\\" \\\\ c\"} 3
# HELP switch_memory_bytes Memory
# TYPE switch_memory_bytes gauge
# UNIT switch_memory_bytes bytes
switch_memory_bytes 5.0
# HELP switch_build What it is
# TYPE switch_build info
switch_build_info{version=\"1\"} 1
# HELP switch_took_seconds Time
# TYPE switch_took_seconds histogram
# UNIT switch_took_seconds seconds
switch_took_seconds_sum{a=\"b\"} 2.5
switch_took_seconds_count{a=\"b\"} 3
switch_took_seconds_bucket{le=\"0.5\",a=\"b\"} 2
switch_took_seconds_bucket{le=\"+Inf\",a=\"b\"} 3
# EOF
";
        assert_eq!(text(vec![drops, memory, build, took], Format::Openmetrics).unwrap(), expected);
    }
}
