//! `switch-ctl vrf`.

use crate::output::Output;
use clap::{Args, Subcommand, ValueEnum};
use switch_api::{
    ApiError, ByName, Client, Done, MirrorStatus, Name, Nothing, Prefix, Request, Uplink, Vrf, VrfStatus,
};

/// What can be done with routing tables.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists routing tables, how they leave, and what stands in the way.
    #[command(after_help = "Example:\n  switch-ctl vrf list")]
    List,
    /// Sets a routing table; what is not named stays.
    #[command(after_help = "\
Examples:
  switch-ctl vrf set red --uplink none
  switch-ctl vrf set main --mirror true")]
    Set {
        /// Its name: `main`, or that of `bridge add --vrf`.
        name: Name,
        #[command(flatten)]
        settings: Settings,
    },
    /// Forgets what was set: `main` leads to the kernel again, any other nowhere.
    #[command(after_help = "\
Examples:
  switch-ctl vrf set red --uplink none
  switch-ctl vrf delete red")]
    Delete {
        /// The table.
        name: Name,
    },
}

/// What can be set.
#[derive(Debug, Args)]
pub struct Settings {
    /// Where what it has no route for goes [default: kernel for main, none for others].
    #[arg(long, value_enum)]
    uplink: Option<Way>,
    /// The host port to the kernel [default: the first on a bridge with a gateway address].
    #[arg(long)]
    port: Option<Name>,
    /// The kernel's table that its networks are announced in [default: 254, main].
    #[arg(long, value_name = "NUMBER")]
    kernel_table: Option<u32>,
    /// Read the kernel's table: what it has no route for, or refuses, is refused here; `route list` shows it.
    #[arg(long, value_name = "BOOL")]
    mirror: Option<bool>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    /// By a host port to the node's kernel, which routes on.
    Kernel,
    /// Nowhere: senders are told that there is no route.
    None,
}

impl Settings {
    fn apply(&self, vrf: Vrf) -> Vrf {
        let uplink = self.uplink.map_or(vrf.uplink, |way| match way {
            Way::Kernel => Uplink::Kernel,
            Way::None => Uplink::None,
        });
        Vrf {
            uplink,
            port: self.port.clone().or(vrf.port),
            kernel_table: self.kernel_table.unwrap_or(vrf.kernel_table),
            mirror: self.mirror.unwrap_or(vrf.mirror),
            ..vrf
        }
    }
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let (request, what) = match verb {
        Verb::List => {
            let list: Vec<VrfStatus> = client.call(&Request::VrfList(Nothing {}))?;
            output.answer(&list, |list| show(list, output));
            return Ok(());
        }
        Verb::Set { name, settings } => {
            let list: Vec<VrfStatus> = client.call(&Request::VrfList(Nothing {}))?;
            let present = list.into_iter().map(|status| status.vrf).find(|vrf| vrf.name == *name);
            let vrf = settings.apply(present.unwrap_or_else(|| Vrf::unset(name.clone())));
            (Request::VrfSet(vrf), format!("VRF {name} is set"))
        }
        Verb::Delete { name } => {
            (Request::VrfDelete(ByName { name: name.clone() }), format!("VRF {name} has its defaults"))
        }
    };
    let done: Done = client.call(&request)?;
    output.done(&done, &what);
    Ok(())
}

fn uplink(status: &VrfStatus) -> String {
    let kernel = match status.vrf.uplink {
        Uplink::Kernel => "kernel",
        Uplink::None => "none",
    };
    // What is down goes by the kernel.
    let open = status.uplinks.iter().filter(|uplink| uplink.up);
    let nics = open.map(|uplink| format!("{} ({})", uplink.port, uplink.device));
    std::iter::once(kernel.to_owned()).chain(nics).collect::<Vec<_>>().join(", ")
}

/// How many routes, and whether they may be old ones.
fn mirrored(mirror: MirrorStatus) -> String {
    format!("{} routes{}", mirror.routes, if mirror.unsure { ", unsure" } else { "" })
}

fn show(list: &[VrfStatus], output: &Output) -> String {
    let mut table =
        output.table(&["VRF", "UPLINK", "PORT", "DEVICE", "KERNEL TABLE", "MIRRORED", "OWNER", "ANNOUNCED"]);
    let text = |text: Option<&str>| text.unwrap_or("-").to_owned();
    for status in list {
        let announced: Vec<_> = status.announced.iter().map(Prefix::to_string).collect();
        table.add_row(vec![
            status.vrf.name.to_string(),
            uplink(status),
            text(status.port.as_ref().map(Name::as_str)),
            text(status.device.as_deref()),
            status.vrf.kernel_table.to_string(),
            status.mirrored.map_or_else(|| "-".to_owned(), mirrored),
            status.vrf.owner.to_string(),
            announced.join(" "),
        ]);
    }
    let problems = list.iter().flat_map(|status| {
        status.problems.iter().map(move |problem| format!("\n{}: {problem}", status.vrf.name))
    });
    format!("{table}{}", problems.collect::<String>())
}
