//! The switch's command line: one file a noun, everything through `switch-api`.

mod acl;
mod address_set;
mod bridge;
mod bundle;
mod capture;
mod config;
mod daemon;
mod events;
mod fdb;
mod files;
mod filter;
mod flow;
mod guard;
mod install;
mod ipam;
mod label;
mod limit;
mod live;
mod log;
mod metrics;
mod mistyped;
mod namespace;
mod nat;
mod neigh;
mod one_kind;
mod output;
mod outside;
mod policy;
mod port;
mod port_set;
mod readdress;
mod route;
mod stats;
mod tap;
mod top;
mod trace;
mod tunnel;
mod uplink;
mod verdict;
mod vrf;
mod worker;

use clap::{CommandFactory, Parser, Subcommand};
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use switch_api::{ApiError, Client, Owner};

/// Talks to switchd: ports, bridges, stations, flows, routes, neighbours, policies, workers, counters.
///
/// Exit codes: 0 done; 1 the switch or the system failed; 2 the request is wrong; 3 not allowed; 4 not
/// found; 5 exists already; 6 busy; 7 a limit; 8 not supported here; 9 no answer in time; 10 versions
/// differ.
#[derive(Debug, Parser)]
#[command(
    name = "switch-ctl",
    version,
    after_help = "\
Examples:
  switch-ctl status
  switch-ctl port list
  switch-ctl port add tap --help    # each help has examples to paste"
)]
struct Options {
    /// The daemon's socket.
    #[arg(long, global = true, env = "SWITCHD_SOCKET", default_value = switch_api::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print JSON, one document, as the API has it.
    #[arg(long, global = true)]
    json: bool,
    /// Seconds to wait for an answer.
    #[arg(long, global = true, default_value_t = 30)]
    timeout: u64,
    /// Change also what this owner made: `operator`, `cni`, `agent` or `routes`. It is told as an event.
    #[arg(long, global = true, value_name = "OWNER")]
    override_owner: Option<Owner>,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Ports: the doors of the switch.
    #[command(subcommand)]
    Port(port::Verb),
    /// Bridges: ports that exchange frames.
    #[command(subcommand)]
    Bridge(bridge::Verb),
    /// Stations: which MAC is behind which port.
    #[command(subcommand)]
    Fdb(fdb::Verb),
    /// Flows: who speaks with whom, where that is kept.
    #[command(subcommand)]
    Flow(flow::Verb),
    /// Addresses: pools, and who has which.
    #[command(subcommand)]
    Ipam(ipam::Verb),
    /// Neighbours: which station has which address.
    #[command(subcommand)]
    Neigh(neigh::Verb),
    /// Routes: how to reach networks that are not a bridge's own.
    #[command(subcommand)]
    Route(route::Verb),
    /// Routing tables: where they lead, and which of the kernel's they go with.
    #[command(subcommand)]
    Vrf(vrf::Verb),
    /// Tunnels: ports whose cable is a route.
    #[command(subcommand)]
    Tunnel(tunnel::Verb),
    /// Network policies: who may speak with whom.
    #[command(subcommand)]
    Policy(policy::Verb),
    /// Access control lists: ordered rules, before and after network policies.
    #[command(subcommand)]
    Acl(acl::Verb),
    /// Port sets: ports that rules of access control lists share. (`port set` is another command.)
    #[command(subcommand, name = "port-group")]
    PortSet(port_set::Verb),
    /// Address sets: networks and addresses that rules of access control lists share.
    #[command(subcommand)]
    AddressSet(address_set::Verb),
    /// Network address translation: other addresses for what is routed.
    #[command(subcommand)]
    Nat(nat::Verb),
    /// Namespaces: labels that policies select them by.
    #[command(subcommand)]
    Namespace(namespace::Verb),
    /// Workers: who does it, on which core.
    #[command(subcommand)]
    Worker(worker::Verb),
    /// Print all that the operator declared, as a file for `apply`.
    #[command(after_help = "Example:\n  switch-ctl export > switch.toml")]
    Export,
    /// Compare what is declared with a file: what `apply` would change.
    Diff(config::Diff),
    /// Make what the operator declares be what a file says: all of it or nothing.
    ///
    /// What is not in the file goes, but for what others declared (the CNI plugin, an agent): that is never touched.
    Apply(config::Apply),
    /// Keep what was applied with --confirm-within.
    #[command(after_help = "\
Examples:
  (switch-ctl export; printf '\\n[[bridge]]\\nname = \"br1\"\\n') > switch.toml
  switch-ctl apply switch.toml --confirm-within 60s
  switch-ctl confirm")]
    Confirm,
    /// List what was applied, to go back to.
    #[command(after_help = "Example:\n  switch-ctl history")]
    History,
    /// Go back to what was declared before.
    Rollback(config::Rollback),
    /// Live frames, onto the terminal or into pcapng.
    Capture(Box<capture::Capture>),
    /// What happens, as it happens.
    Events(events::Events),
    /// Counters and levels as OpenMetrics, for Prometheus: once, or over HTTP.
    ///
    /// Without --listen it is printed once. With it, `GET /metrics` is answered until Ctrl-C, and the daemon is asked anew each
    /// time; while the daemon is away the answer is 503 and says why. There is neither encryption nor a password: listen on
    /// loopback or a Unix socket, and let a proxy do the rest.
    Metrics(metrics::Metrics),
    /// The switch, live: ports with rates, drops, workers.
    Top(top::Top),
    /// What would become of a frame now, stage by stage, and why.
    Trace(Box<trace::Trace>),
    /// Counters, drop reasons, frames, cycles per stage.
    Stats(stats::Stats),
    /// What the daemon is and how it is.
    #[command(after_help = "Example:\n  switch-ctl status")]
    Status,
    /// Gather what is needed to find a fault from afar, in one archive.
    SupportBundle(bundle::Bundle),
    /// What the daemon says in its log, and how much.
    #[command(subcommand)]
    Log(log::Verb),
    /// Stop the daemon.
    Stop(daemon::Stop),
    /// Make the switch the network of this node's containers.
    ///
    /// Puts programs and the systemd unit in place, starts the daemon, gives the node its port, and last writes the network's
    /// configuration to where kubeadm's and k3s's runtimes look. Refused while another network's configuration is there. Done again, it
    /// changes what has changed.
    Install(install::Install),
    /// Take away all that `install` made, and all that the daemon made.
    ///
    /// Refused while containers are attached.
    Uninstall(install::Uninstall),
    /// Print the completion script of a shell.
    #[command(after_help = "\
Examples:
  source <(switch-ctl completion bash)
  switch-ctl completion zsh > _switch-ctl")]
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory.
    #[command(hide = true)]
    Man {
        /// Where.
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let options = Options::try_parse().unwrap_or_else(|error| {
        mistyped::explain(error, &Options::command(), std::env::args().skip(1)).exit()
    });
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error, options.json);
            ExitCode::from(error.code.exit_code())
        }
    }
}

fn run(options: &Options) -> Result<(), ApiError> {
    match &options.noun {
        Noun::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Options::command(), "switch-ctl", &mut script);
            output::print_raw(&script);
            return Ok(());
        }
        Noun::Man { directory } => return write_man_pages(directory),
        // It goes on while the daemon is away, and connects by itself.
        Noun::Metrics(metrics) => {
            return metrics::run(
                metrics,
                &options.socket,
                Duration::from_secs(options.timeout),
                options.json,
            );
        }
        // It works without the daemon.
        Noun::SupportBundle(bundle) => {
            let output = Output::new(options.json);
            return bundle::run(bundle, &options.socket, Duration::from_secs(options.timeout), &output);
        }
        // The daemon is started in the course of it.
        Noun::Install(asked) => {
            let output = Output::new(options.json);
            return install::install(asked, &options.socket, Duration::from_secs(options.timeout), &output);
        }
        Noun::Uninstall(asked) => {
            let output = Output::new(options.json);
            return install::uninstall(asked, &options.socket, Duration::from_secs(options.timeout), &output);
        }
        _ => {}
    }
    let mut client = Client::connect(&options.socket, Duration::from_secs(options.timeout))?;
    client.override_owner(options.override_owner);
    let output = Output::new(options.json);
    match &options.noun {
        Noun::Port(verb) => port::run(verb, &mut client, &output),
        Noun::Bridge(verb) => bridge::run(verb, &mut client, &output),
        Noun::Fdb(verb) => fdb::run(verb, &mut client, &output),
        Noun::Flow(verb) => flow::run(verb, &mut client, &output),
        Noun::Ipam(verb) => ipam::run(verb, &mut client, &output),
        Noun::Neigh(verb) => neigh::run(verb, &mut client, &output),
        Noun::Route(verb) => route::run(verb, &mut client, &output),
        Noun::Vrf(verb) => vrf::run(verb, &mut client, &output),
        Noun::Tunnel(verb) => tunnel::run(verb, &mut client, &output),
        Noun::Policy(verb) => policy::run(verb, &mut client, &output),
        Noun::Acl(verb) => acl::run(verb, &mut client, &output),
        Noun::PortSet(verb) => port_set::run(verb, &mut client, &output),
        Noun::AddressSet(verb) => address_set::run(verb, &mut client, &output),
        Noun::Nat(verb) => nat::run(verb, &mut client, &output),
        Noun::Namespace(verb) => namespace::run(verb, &mut client, &output),
        Noun::Worker(verb) => worker::run(verb, &mut client, &output),
        Noun::Export => config::export(&mut client, &output),
        Noun::Diff(diff) => config::diff(diff, &mut client, &output),
        Noun::Apply(apply) => config::apply(apply, &mut client, &output),
        Noun::Confirm => config::confirm(&mut client, &output),
        Noun::History => config::history(&mut client, &output),
        Noun::Rollback(rollback) => config::rollback(rollback, &mut client, &output),
        Noun::Capture(capture) => capture::run(capture, &mut client, &output),
        Noun::Events(events) => events::run(events, &mut client, &output),
        Noun::Top(top) => top::run(top, &mut client, &output),
        Noun::Trace(trace) => trace::run(trace, &mut client, &output),
        Noun::Stats(stats) => stats::run(stats, &mut client, &output),
        Noun::Status => daemon::status(&mut client, &output),
        Noun::Log(verb) => log::run(verb, &mut client, &output),
        Noun::Stop(stop) => daemon::stop(stop, &mut client, &output),
        Noun::Completion { .. }
        | Noun::Man { .. }
        | Noun::Metrics(_)
        | Noun::SupportBundle(_)
        | Noun::Install(_)
        | Noun::Uninstall(_) => Ok(()),
    }
}

fn write_man_pages(directory: &std::path::Path) -> Result<(), ApiError> {
    clap_mangen::generate_to(Options::command(), directory).map_err(|error| files::refused(directory, &error))
}
