//! STATUS: whether an ADD would work now.

use crate::conf::{Conf, Ipam};
use crate::invocation::Invocation;
use crate::refusal::{DELEGATE_FAILED, NOT_AVAILABLE, NOT_CONNECTED, Refusal};
use crate::{chain, delegate, pending, switch};
use switch_api::{Client, Name, PoolRange, PoolStatus, Request, Role, Status};

/// Looks. Without the daemon the containers that are attached are not connected either: its workers carry
/// their frames.
pub fn run(invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    if conf.is_ours {
        chain::refuse(invocation, conf).map_err(|refusal| Refusal { code: NOT_AVAILABLE, ..refusal })?;
    }
    let not_connected = |error: switch_api::ApiError| {
        Refusal::new(NOT_CONNECTED, error.message).details(error.data.hint.unwrap_or_default())
    };
    let mut client = switch::connect(conf).map_err(not_connected)?;
    let status: Status = client.call(&Request::Status(Default::default())).map_err(not_connected)?;
    let hello = client.hello();
    if !hello.admin && hello.role != Some(Role::Cni) {
        return Err(Refusal::new(NOT_AVAILABLE, "switchd lets us look, but not change anything").details(
            "run the container runtime as root, or as a member of a group given to `switchd --cni-group` or `--group`",
        ));
    }
    if status.workers == 0 {
        return Err(Refusal::new(NOT_CONNECTED, "switchd has no workers")
            .details("start it anew; `switch-ctl worker list` shows its workers"));
    }
    pending::make_good(&mut client, conf, None)?;
    match &conf.ipam {
        Ipam::None => Ok(()),
        Ipam::Pool { pool, ranges, .. } => pool_is_good(&mut client, pool, ranges),
        Ipam::Delegate(kind) => has_addresses(kind, invocation, conf),
    }
}

/// What another plugin says of its addresses. One of before CNI 1.1.0 is not asked, only looked for: it knows no such question.
fn has_addresses(kind: &str, invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    delegate::run_if_known(kind, "STATUS", invocation, conf).map_err(|refusal| match refusal.code {
        DELEGATE_FAILED => Refusal { code: NOT_AVAILABLE, ..refusal },
        _ => refusal,
    })
}

fn pool_is_good(client: &mut Client, name: &Name, ranges: &[PoolRange]) -> Result<(), Refusal> {
    let pools: Vec<PoolStatus> = client.call(&Request::PoolList(Default::default()))?;
    let Some(status) = pools.iter().find(|status| status.pool.name == *name) else {
        // The first ADD makes it, if the configuration says of what.
        return match ranges.is_empty() {
            false => Ok(()),
            true => Err(Refusal::new(NOT_AVAILABLE, format!("there is no pool named {name}"))
                .details(format!("`switch-ctl ipam pool add {name} --range SUBNET` makes it"))),
        };
    };
    // What is held a moment is as good as free: it will be, before a runtime asks again.
    let Some(full) = status.families.iter().find(|family| family.free == 0 && family.held == 0) else {
        return Ok(());
    };
    let family = if full.is_ipv6 { "IPv6" } else { "IPv4" };
    Err(Refusal::new(
        NOT_AVAILABLE,
        format!("pool {name} has no {family} address left: all {} are leased", full.total),
    )
    .details("give the pool another range, or release leases of containers that are gone"))
}
