//! `switch-ctl ipam`.

use crate::output::{Output, thousands};
use clap::{Args, Subcommand};
use comfy_table::Cell;
use std::net::IpAddr;
use switch_api::{
    ApiError, ByName, Client, Code, Done, IpNet, Lease, LeaseFilter, LeaseStatus, Name, Nothing, Owner, Pool,
    PoolRange, PoolStatus, Released, Request, Span,
};

/// What can be done with addresses.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Pools: where addresses come from.
    #[command(subcommand)]
    Pool(PoolVerb),
    /// Leases: who has which address.
    #[command(subcommand)]
    Lease(LeaseVerb),
}

/// What can be done with pools.
#[derive(Debug, Subcommand)]
pub enum PoolVerb {
    /// Lists pools and how full they are.
    #[command(after_help = "Example:\n  switch-ctl ipam pool list")]
    List,
    /// Adds a pool.
    #[command(after_help = "\
Examples:
  switch-ctl ipam pool add pods --range 10.88.0.0/24,gateway=10.88.0.1
  switch-ctl ipam pool add dual --range fd89::/64 \\
    --range 10.89.0.0/24,exclude=10.89.0.2-10.89.0.9")]
    Add(PoolArgs),
    /// Replaces the ranges of a pool. Refused if a lease would lie outside.
    #[command(after_help = "\
Examples:
  switch-ctl ipam pool add pods --range 10.88.0.0/24
  switch-ctl ipam pool set pods --range 10.88.0.0/23")]
    Set(PoolArgs),
    /// Removes a pool without leases.
    #[command(after_help = "\
Examples:
  switch-ctl ipam pool add pods --range 10.88.0.0/24
  switch-ctl ipam pool delete pods")]
    Delete {
        /// The pool.
        name: Name,
    },
}

/// A pool.
#[derive(Debug, Args)]
pub struct PoolArgs {
    /// Its name.
    name: Name,
    /// A range, as often as there are ranges: `SUBNET[,first=A][,last=A][,gateway=A][,exclude=A|A-B|A/N]...`,
    /// for example `10.1.0.0/24,gateway=10.1.0.1,exclude=10.1.0.2-10.1.0.9`.
    #[arg(long = "range", required = true, value_parser = parse_range)]
    ranges: Vec<PoolRange>,
}

/// What can be done with leases.
#[derive(Debug, Subcommand)]
pub enum LeaseVerb {
    /// Lists leases, and which port has each.
    #[command(after_help = "\
Examples:
  switch-ctl ipam lease list
  switch-ctl ipam lease list --without-port
  switch-ctl ipam lease list --address 10.88.0.2")]
    List(Filter),
    /// Releases leases: those of containers that are gone. What has one still uses its address.
    #[command(after_help = "\
Examples:
  switch-ctl ipam lease release --earlier-boot
  switch-ctl ipam lease release --without-port --override-owner cni")]
    Release(Filter),
}

/// Which leases; for `list`, without any, all.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only of this pool.
    #[arg(long)]
    pool: Option<Name>,
    /// Only of this network.
    #[arg(long)]
    network: Option<String>,
    /// Only of this container.
    #[arg(long)]
    container: Option<String>,
    /// Only of interfaces of this name.
    #[arg(long)]
    interface: Option<String>,
    /// Only the one with this address.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Only those from before the machine's last boot: their containers are gone.
    #[arg(long)]
    earlier_boot: bool,
    /// Only those of addresses that no port has: an attachment was killed midway, or its end was not told. Those of the last ten
    /// seconds are left out, whose ports may be to come. Where another plugin asks switch-cni for addresses, leases have no port.
    #[arg(long)]
    without_port: bool,
}

impl Filter {
    fn to_api(&self) -> LeaseFilter {
        LeaseFilter {
            pool: self.pool.clone(),
            network: self.network.clone(),
            container: self.container.clone(),
            interface: self.interface.clone(),
            address: self.address,
            earlier_boot: self.earlier_boot,
            without_port: self.without_port,
        }
    }
}

fn parse_range(text: &str) -> Result<PoolRange, String> {
    let mut parts = text.split(',');
    let subnet = parts.next().unwrap_or_default();
    let no_subnet = |_| format!("{subnet:?} is no subnet: write it like 10.1.0.0/24 or fd00:1::/64");
    let mut range = PoolRange::of(subnet.parse::<IpNet>().map_err(no_subnet)?);
    for part in parts {
        let (word, value) = part.split_once('=').unwrap_or((part, ""));
        let address = || value.parse::<IpAddr>().map_err(|_| format!("{value:?} is no address"));
        match word {
            "first" => range.first = Some(address()?),
            "last" => range.last = Some(address()?),
            "gateway" => range.gateway = Some(address()?),
            "exclude" => range.exclude.push(value.parse::<Span>().map_err(|error| error.to_string())?),
            _ => return Err(format!("{word:?} is not known here: use first, last, gateway or exclude")),
        }
    }
    Ok(range)
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    match verb {
        Verb::Pool(verb) => pool(verb, client, output),
        Verb::Lease(LeaseVerb::List(filter)) => {
            let leases: Vec<LeaseStatus> = client.call(&Request::LeaseList(filter.to_api()))?;
            output.answer(&leases, |leases| list_leases(leases, output));
            Ok(())
        }
        Verb::Lease(LeaseVerb::Release(filter)) => {
            let released: Released = client.call(&Request::LeaseRelease(filter.to_api()))?;
            if released.leases.is_empty() {
                return Err(ApiError::new(Code::NotFound, "no lease fits")
                    .hint("`switch-ctl ipam lease list` shows those there are"));
            }
            output.answer(&released, |released| {
                let line = |lease: &Lease| format!("released {} of {}", addresses(lease), lease.holder);
                released.leases.iter().map(line).collect::<Vec<_>>().join("\n")
            });
            Ok(())
        }
    }
}

fn pool(verb: &PoolVerb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let declared = |args: &PoolArgs| Pool {
        name: args.name.clone(),
        ranges: args.ranges.clone(),
        owner: Owner::Operator,
    };
    let (request, what) = match verb {
        PoolVerb::List => {
            let pools: Vec<PoolStatus> = client.call(&Request::PoolList(Nothing {}))?;
            output.answer(&pools, |pools| list_pools(pools, output));
            return Ok(());
        }
        PoolVerb::Add(args) => (Request::PoolAdd(declared(args)), format!("pool {} is there", args.name)),
        PoolVerb::Set(args) => (Request::PoolSet(declared(args)), format!("pool {} is changed", args.name)),
        PoolVerb::Delete { name } => {
            (Request::PoolDelete(ByName { name: name.clone() }), format!("pool {name} is gone"))
        }
    };
    let done: Done = client.call(&request)?;
    output.done(&done, &what);
    Ok(())
}

fn list_pools(pools: &[PoolStatus], output: &Output) -> String {
    if pools.is_empty() {
        return "no address pools: `switch-ctl ipam pool add` makes one, or the CNI plugin does".into();
    }
    let mut table =
        output.table(&["POOL", "OWNER", "FAMILY", "ADDRESSES", "LEASED", "HELD", "FREE", "SUBNETS"]);
    for status in pools {
        for family in &status.families {
            let of_family = |range: &&PoolRange| range.subnet.addr().is_ipv6() == family.is_ipv6;
            let subnets = status.pool.ranges.iter().filter(of_family).map(|range| range.subnet.to_string());
            let numbers = [family.total, family.leased, family.held].map(|count| Cell::new(thousands(count)));
            let mut row = vec![status.pool.name.to_string().into(), status.pool.owner.to_string().into()];
            row.push(if family.is_ipv6 { "IPv6" } else { "IPv4" }.into());
            row.extend(numbers);
            row.push(output.verdict(&thousands(family.free), family.free > 0));
            row.push(subnets.collect::<Vec<_>>().join(" ").into());
            table.add_row(row);
        }
    }
    let stale: u64 = pools.iter().map(|status| status.leases_of_earlier_boots).sum();
    match stale {
        0 => table.to_string(),
        _ => format!(
            "{table}\n\n{stale} leases are from before the last boot: `switch-ctl ipam lease list --earlier-boot`"
        ),
    }
}

fn list_leases(leases: &[LeaseStatus], output: &Output) -> String {
    if leases.is_empty() {
        return "no leases".into();
    }
    let mut table =
        output.table(&["ADDRESSES", "POOL", "NETWORK", "CONTAINER", "INTERFACE", "PORT", "OWNER", "BOOT"]);
    for LeaseStatus { lease, earlier_boot, port } in leases {
        let holder = &lease.holder;
        let mut row: Vec<Cell> = vec![addresses(lease).into(), lease.pool.to_string().into()];
        row.extend([&holder.network, &holder.container, &holder.interface].map(Cell::new));
        row.push(match port {
            Some(port) => port.to_string().into(),
            None => output.verdict("none", false),
        });
        row.push(lease.owner.to_string().into());
        row.push(output.verdict(if *earlier_boot { "earlier" } else { "this" }, !earlier_boot));
        table.add_row(row);
    }
    table.to_string()
}

fn addresses(lease: &Lease) -> String {
    lease.addresses.iter().map(|has| has.address.to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_in_a_line() {
        let range =
            parse_range("10.1.0.0/24,gateway=10.1.0.1,first=10.1.0.9,exclude=10.1.0.20-10.1.0.30").unwrap();
        assert_eq!(range.gateway, Some("10.1.0.1".parse().unwrap()));
        assert_eq!(range.first, Some("10.1.0.9".parse().unwrap()));
        assert_eq!(range.exclude[0].to_string(), "10.1.0.20-10.1.0.30");
        for bad in ["", "10.1.0.0", "10.1.0.0/24,gateway", "10.1.0.0/24,gw=10.1.0.1", "10.1.0.0/24,exclude=x"]
        {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }
}
