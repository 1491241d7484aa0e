//! The source guard of a port: `--source-macs`, `--source-addresses`.

use std::net::IpAddr;
use switch_api::{Mac, Prefix, SourceGuard};

/// What a port may say of itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The MACs it may send from, like 02:00:00:00:00:01,02:00:00:00:00:02; `off` for any.
    #[arg(long, value_name = "MACS", value_parser = macs)]
    source_macs: Option<Macs>,
    /// The addresses it may send from, and say are its own in ARP and neighbour discovery, like
    /// 10.1.0.5,fd00:1::/64; `off` for any.
    #[arg(long, value_name = "PREFIXES", value_parser = addresses)]
    source_addresses: Option<Addresses>,
}

#[derive(Clone, Debug)]
struct Macs(Vec<Mac>);

#[derive(Clone, Debug)]
struct Addresses(Vec<Prefix>);

fn macs(text: &str) -> Result<Macs, String> {
    let parse = |mac: &str| mac.parse::<Mac>().map_err(|error| error.to_string());
    list(text, parse).map(Macs)
}

fn addresses(text: &str) -> Result<Addresses, String> {
    let parse = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) => Ok(Prefix::host(address)),
        Err(_) => text.parse::<Prefix>().map_err(|error| error.to_string()),
    };
    list(text, parse).map(Addresses)
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    if text == "off" { Ok(Vec::new()) } else { text.split(',').map(parse).collect() }
}

impl Args {
    /// `before` with what was named; none, if nothing is left to guard.
    pub fn over(&self, before: Option<SourceGuard>) -> Option<SourceGuard> {
        let mut guard = before.unwrap_or_default();
        if let Some(macs) = &self.source_macs {
            guard.macs.clone_from(&macs.0);
        }
        if let Some(addresses) = &self.source_addresses {
            guard.addresses.clone_from(&addresses.0);
        }
        (guard != SourceGuard::default()).then_some(guard)
    }
}

/// Lines of `port show`.
pub fn show(guard: Option<&SourceGuard>) -> [(&'static str, String); 2] {
    let any_if_empty = |names: Vec<String>| if names.is_empty() { "any".into() } else { names.join(",") };
    let macs = guard.map(|guard| guard.macs.iter().map(ToString::to_string).collect());
    let addresses = guard.map(|guard| guard.addresses.iter().map(ToString::to_string).collect());
    [
        ("may send from MACs", macs.map_or("any".into(), any_if_empty)),
        ("may send from", addresses.map_or("any".into(), any_if_empty)),
    ]
}
