//! What the daemon gives up once its socket and its bpffs are there, before the first worker runs: every capability it
//! does not need, every file outside its folders, every system call it does not make. What it must keep, and why, is in
//! [`capabilities::KEPT`], [`files`] and [`calls`]; deploy/README.md tells it to operators.
//!
//! All of it belongs to threads and is inherited: it is put on the main thread while there is no other. What a kernel
//! lacks is said, in the log and by `switch-ctl status`, and is no reason not to run.
//!
//! Two things cannot be done from inside and are left to [`keeper`], a process of its own: to remove the bpffs at the end, and
//! to open namespaces.

pub mod calls;
pub mod capabilities;
pub mod files;
pub mod keeper;

pub use files::Folders;
use switch_api::Support;

/// Gives up what is not needed; what was given up.
pub fn enter(folders: &Folders) -> Support {
    let steps = [
        ("capabilities", capabilities::drop_others().map_err(|error| error.to_string())),
        ("files", files::restrict(folders)),
        ("system calls", calls::restrict()),
    ];
    let ok = steps.iter().all(|(_, outcome)| outcome.is_ok());
    let said: Vec<_> = steps
        .iter()
        .map(|(what, outcome)| match outcome {
            Ok(done) => format!("{what}: {done}"),
            Err(reason) => {
                tracing::warn!("{what} are not restricted: {reason}");
                format!("{what}: not restricted, {reason}")
            }
        })
        .collect();
    Support { ok, detail: said.join("; ") }
}
