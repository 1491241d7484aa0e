//! DEL: whatever is still there goes, and that there is nothing is no error. It succeeds twice, with the
//! namespace gone, without a result of ADD, and with the daemon down.

use crate::conf::Conf;
use crate::invocation::Invocation;
use crate::refusal::{IO_FAILURE, Refusal};
use crate::{given, ipam, netns, pending, second, switch};
use switch_api::Holder;

/// Does it.
pub fn run(invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    let holder = conf.holder(&invocation.container, &invocation.interface);
    let _turn = given::turn(conf, &holder);
    // By the interface, as long as it is there. What cannot be said so is said again below.
    if conf.is_ours && conf.ipam.needs_interface() {
        _ = ipam::release_delegated(invocation, conf);
    }
    // Before it is gone: by way of `/proc/PID` the path may lead to another container by now, whose rules are its own.
    let is_there = conf.is_ours && has_interface(invocation, &holder);
    let mut kind = None;
    let deleted = switch::connect(conf).and_then(|mut client| {
        kind = switch::find(&mut client, &holder).ok().and_then(Result::ok).map(|port| port.port.kind);
        // What waits is not ours to report; the next one that reaches the daemon tries again.
        _ = pending::make_good(&mut client, conf, None);
        pending::delete(&mut client, &holder)
    });
    match deleted {
        Err(error) if switch::is_down(&error) => pending::remember(conf, &holder)?,
        outcome => outcome?,
    }
    if !conf.is_ours {
        return Ok(());
    }
    match (&invocation.netns, &kind) {
        (Some(path), _) if is_there => second::forget(path, &invocation.interface),
        (_, Some(kind)) => second::forget_port(&invocation.interface, kind),
        _ => {}
    }
    remove_interface(invocation, &holder)?;
    ipam::release_delegated(invocation, conf)
}

/// Whether the attachment's interface is in the namespace.
fn has_interface(invocation: &Invocation, holder: &Holder) -> bool {
    let Some(path) = &invocation.netns else { return false };
    let seen = netns::look(path, &invocation.interface).ok().flatten();
    seen.is_some_and(|seen| switch::is_interface_of(&seen.alias, holder))
}

/// What the daemon could not remove: it is down, or knows nothing of it any more. What others made stays.
fn remove_interface(invocation: &Invocation, holder: &Holder) -> Result<(), Refusal> {
    let Some(path) = &invocation.netns else { return Ok(()) };
    // A namespace that cannot be looked into is gone, or as good as.
    let Ok(seen) = netns::look(path, &invocation.interface) else { return Ok(()) };
    let ours = seen.filter(|seen| switch::is_interface_of(&seen.alias, holder));
    // A daemon that was killed over a veth pair leaves an end that has the port's name and nothing written on it.
    let half_made = || netns::look(path, switch::name(holder, 0).as_str()).ok().flatten();
    let Some(seen) = ours.or_else(half_made) else { return Ok(()) };
    netns::remove(path, seen.index).map_err(|error| {
        let text = format!("interface {} in {path} could not be removed: {error}", invocation.interface);
        Refusal::new(IO_FAILURE, text).details("it needs CAP_NET_ADMIN in that namespace")
    })
}
