//! `switch-ctl port label`: what a port is to policies.

use crate::output::Output;
use clap::Args;
use std::net::IpAddr;
use switch_api::{
    ApiError, ByName, Client, Code, Done, Labels, Name, NamedPort, PortLabel, PortStatus, Request, Workload,
};

/// What changes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl port label web app=web --namespace shop
  switch-ctl port label db app=db --namespace shop --named-port sql=5432
  switch-ctl port label lab --none")]
pub struct Label {
    /// The port.
    name: Name,
    /// Labels: KEY=VALUE sets one, KEY- takes it away.
    #[arg(value_parser = parse_change)]
    labels: Vec<(String, Option<String>)>,
    /// Its namespace; needed the first time.
    #[arg(long, short)]
    namespace: Option<String>,
    /// A port of it that policies may call by name, like http=80 or dns=UDP/53. Given once or more: all of them.
    #[arg(long = "named-port", value_name = "NAME=[PROTOCOL/]PORT", value_parser = parse_named)]
    ports: Vec<NamedPort>,
    /// An address of it, if its device was not made with it. Given once or more: all of them.
    #[arg(long = "address")]
    addresses: Vec<IpAddr>,
    /// It is no workload any more: no policy selects it.
    #[arg(long, conflicts_with_all = ["labels", "namespace", "ports", "addresses"])]
    none: bool,
}

/// `KEY=VALUE`.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is no label: write KEY=VALUE"))?;
    Ok((key.into(), value.into()))
}

fn parse_change(text: &str) -> Result<(String, Option<String>), String> {
    match text.strip_suffix('-').filter(|key| !key.contains('=')) {
        Some(key) => Ok((key.into(), None)),
        None => parse_label(text).map(|(key, value)| (key, Some(value))),
    }
}

fn parse_named(text: &str) -> Result<NamedPort, String> {
    let malformed =
        || format!("{text:?} is no named port: write NAME=PORT or NAME=PROTOCOL/PORT, like dns=UDP/53");
    let (name, port) = text.split_once('=').ok_or_else(malformed)?;
    let (protocol, port) = port.split_once('/').unwrap_or(("TCP", port));
    let port = port.parse().map_err(|_| malformed())?;
    Ok(NamedPort { name: name.into(), port, protocol: protocol.parse()? })
}

/// Labels in a line.
pub fn shown(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

impl Label {
    fn over(&self, before: Option<Workload>) -> Result<Option<Workload>, ApiError> {
        if self.none {
            return Ok(None);
        }
        let mut workload = match (before, &self.namespace) {
            (Some(before), _) => before,
            (None, Some(namespace)) => Workload {
                namespace: namespace.clone(),
                labels: Labels::new(),
                ports: Vec::new(),
                addresses: Vec::new(),
            },
            (None, None) => {
                let text = format!("port {} is no workload yet: say in which namespace it is", self.name);
                return Err(ApiError::new(Code::InvalidParams, text)
                    .field("namespace")
                    .hint("--namespace NAME"));
            }
        };
        workload.namespace = self.namespace.clone().unwrap_or(workload.namespace);
        for (key, value) in &self.labels {
            match value {
                Some(value) => _ = workload.labels.insert(key.clone(), value.clone()),
                None => _ = workload.labels.remove(key),
            }
        }
        if !self.ports.is_empty() {
            workload.ports.clone_from(&self.ports);
        }
        if !self.addresses.is_empty() {
            workload.addresses.clone_from(&self.addresses);
        }
        Ok(Some(workload))
    }
}

pub fn run(label: &Label, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let status: PortStatus = client.call(&Request::PortGet(ByName { name: label.name.clone() }))?;
    let workload = label.over(status.port.workload)?;
    let what = match &workload {
        Some(workload) => {
            format!("port {} is of namespace {}: {}", label.name, workload.namespace, shown(&workload.labels))
        }
        None => format!("port {} is no workload", label.name),
    };
    let done: Done = client.call(&Request::PortLabel(PortLabel { name: label.name.clone(), workload }))?;
    output.done(&done, &what);
    Ok(())
}
