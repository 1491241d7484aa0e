//! DEL: whatever is still there goes, and that there is nothing is no error. It succeeds twice, with the
//! namespace gone, without a result of ADD, and with the daemon down.

use crate::conf::Conf;
use crate::invocation::Invocation;
use crate::refusal::Refusal;
use crate::{ipam, pending, switch};

/// Does it.
pub fn run(invocation: &Invocation, conf: &Conf) -> Result<(), Refusal> {
    let holder = conf.holder(&invocation.container, &invocation.interface);
    let deleted = switch::connect(conf).and_then(|mut client| {
        // What waits is not ours to report; the next one that reaches the daemon tries again.
        _ = pending::make_good(&mut client, conf, None);
        pending::delete(&mut client, &holder)
    });
    match deleted {
        Err(error) if switch::is_down(&error) => pending::remember(conf, &holder)?,
        outcome => outcome?,
    }
    if conf.is_ours { ipam::release_delegated(invocation, conf) } else { Ok(()) }
}
