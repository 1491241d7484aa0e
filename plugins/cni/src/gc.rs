//! GC: every port and lease of this network that no living attachment has goes.

use crate::conf::{Attachment, Conf, Ipam};
use crate::invocation::Invocation;
use crate::refusal::{INVALID_CONFIG, Refusal};
use crate::{delegate, pending, switch};
use std::collections::BTreeSet;
use switch_api::{Client, Holder, LeaseFilter, LeaseStatus, PortStatus, Request};

/// Does it. What cannot be removed is said at the end; the rest is gone all the same.
pub fn run(invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    let Some(valid) = &conf.valid else {
        return Err(Refusal::new(INVALID_CONFIG, "cni.dev/valid-attachments is missing")
            .details("without it every attachment would count as gone"));
    };
    let mut client = switch::connect(conf).map_err(switch::down)?;
    pending::make_good(&mut client, conf, None)?;
    let mut failed = Vec::new();
    for holder in garbage(&mut client, conf, valid)? {
        if let Err(error) = pending::delete(&mut client, &holder) {
            failed.push(format!("{holder}: {error}"));
        }
    }
    if let Ipam::Delegate(kind) = &conf.ipam
        && let Err(error) = delegate::run(kind, "GC", invocation, conf)
    {
        failed.push(error.to_string());
    }
    match failed.first() {
        None => Ok(()),
        Some(_) => Err(Refusal::new(crate::refusal::SWITCH_REFUSED, "some of it could not be removed")
            .details(failed.join("; "))),
    }
}

fn garbage(client: &mut Client, conf: &Conf, valid: &[Attachment]) -> Result<BTreeSet<Holder>, Refusal> {
    let ports: Vec<PortStatus> = client.call(&Request::PortList(Default::default()))?;
    let filter = LeaseFilter { network: Some(conf.network.clone()), ..LeaseFilter::default() };
    let leases: Vec<LeaseStatus> = client.call(&Request::LeaseList(filter))?;
    let owners = ports.iter().filter_map(|port| switch::holder_of(&port.port));
    let all = owners.chain(leases.into_iter().map(|status| status.lease.holder));
    let lives = |holder: &Holder| {
        valid.iter().any(|it| (&it.container, &it.interface) == (&holder.container, &holder.interface))
    };
    Ok(all.filter(|holder| holder.network == conf.network && !lives(holder)).collect())
}
