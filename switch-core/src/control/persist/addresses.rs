//! Pools, leases and addresses that are held back: a row each.

use super::{HELD, LEASES, POOLS, text};
use crate::ipam::Change;
use redb::WriteTransaction;
use std::net::IpAddr;
use switch_api::{Lease, Name};

/// Writes a change, and forgets held addresses that are free again.
pub(super) fn write(
    transaction: &WriteTransaction,
    change: &Change,
    freed: &[(Name, IpAddr)],
) -> Result<(), redb::Error> {
    let (mut pools, mut leases) = (transaction.open_table(POOLS)?, transaction.open_table(LEASES)?);
    let mut held = transaction.open_table(HELD)?;
    for row in freed {
        held.remove(text(row).as_str())?;
    }
    match change {
        Change::Pool(pool) => _ = pools.insert(pool.name.as_str(), text(pool).as_bytes())?,
        Change::PoolGone(name) => {
            pools.remove(name.as_str())?;
            held.retain(|_, row| {
                serde_json::from_slice(row).is_ok_and(|(of, _): (Name, IpAddr)| of != *name)
            })?;
        }
        Change::Lease(lease) => {
            leases.insert(key(lease).as_str(), text(lease).as_bytes())?;
            for has in &lease.addresses {
                held.remove(text(&(&lease.pool, has.address.addr())).as_str())?;
            }
        }
        Change::Released(gone) => {
            for lease in gone {
                leases.remove(key(lease).as_str())?;
                for has in &lease.addresses {
                    let row = text(&(&lease.pool, has.address.addr()));
                    held.insert(row.as_str(), row.as_bytes())?;
                }
            }
        }
    }
    Ok(())
}

fn key(lease: &Lease) -> String {
    text(&(&lease.pool, &lease.holder))
}
