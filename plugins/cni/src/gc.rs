//! GC: every port and lease of this network that no living attachment has goes, and so does what another plugin has given one.

use crate::conf::{Attachment, Conf, Ipam};
use crate::invocation::Invocation;
use crate::refusal::{INVALID_CONFIG, Refusal};
use crate::{delegate, given, ipam, pending, second, switch};
use std::collections::BTreeMap;
use switch_api::{Client, Holder, LeaseFilter, LeaseStatus, PortKind, PortStatus, Request};

/// Does it. What cannot be removed is said at the end; the rest is gone all the same.
pub fn run(invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    let Some(valid) = &conf.valid else {
        return Err(Refusal::new(INVALID_CONFIG, "cni.dev/valid-attachments is missing")
            .details("without it every attachment would count as gone"));
    };
    let mut client = switch::connect(conf).map_err(switch::down)?;
    pending::make_good(&mut client, conf, None)?;
    let mut failed = Vec::new();
    for (holder, kind) in garbage(&mut client, conf, valid)? {
        if let Some(kind) = kind {
            second::forget_port(&holder.interface, &kind);
        }
        failed.extend(collect(&mut client, invocation, conf, &holder).err());
    }
    given::sweep(conf);
    if let Ipam::Delegate(kind) = &conf.ipam
        && let Err(error) = delegate::run_if_known(kind, "GC", invocation, conf)
    {
        failed.push(error.to_string());
    }
    match failed.first() {
        None => Ok(()),
        Some(_) => Err(Refusal::new(crate::refusal::SWITCH_REFUSED, "some of it could not be removed")
            .details(failed.join("; "))),
    }
}

/// One attachment goes: the port before its addresses, which nobody may have while it does; but whoever asks by the interface lets go of them
/// before that.
fn collect(client: &mut Client, invocation: &Invocation, conf: &Conf, holder: &Holder) -> Result<(), String> {
    let _turn = given::turn(conf, holder);
    let why = |error: &dyn std::fmt::Display| format!("{holder}: {error}");
    let released = || ipam::collect_delegated(invocation, conf, holder).map_err(|error| why(&error));
    let first = if conf.ipam.needs_interface() { released() } else { Ok(()) };
    pending::delete(client, holder).map_err(|error| why(&error))?;
    if conf.ipam.needs_interface() { first } else { released() }
}

/// Attachments of this network that the switch, or whoever gave them addresses, knows and the runtime does not; and what their ports are.
fn garbage(
    client: &mut Client,
    conf: &Conf,
    valid: &[Attachment],
) -> Result<BTreeMap<Holder, Option<PortKind>>, Refusal> {
    let ports: Vec<PortStatus> = client.call(&Request::PortList(Default::default()))?;
    let filter = LeaseFilter { network: Some(conf.network.clone()), ..LeaseFilter::default() };
    let leases: Vec<LeaseStatus> = client.call(&Request::LeaseList(filter))?;
    let without = leases.into_iter().map(|status| status.lease.holder).chain(given::noted(conf)?);
    let owner = |port: &PortStatus| Some((switch::holder_of(&port.port)?, Some(port.port.kind.clone())));
    // What a port tells counts.
    let all = without.map(|holder| (holder, None)).chain(ports.iter().filter_map(owner));
    let lives = |holder: &Holder| {
        valid.iter().any(|it| (&it.container, &it.interface) == (&holder.container, &holder.interface))
    };
    Ok(all.filter(|(holder, _)| holder.network == conf.network && !lives(holder)).collect())
}
