//! The daemon: wiring only.

use clap::{CommandFactory, Parser};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use switch_api::{ApiError, Support};
use switch_core::config::mirrored::MIRRORED_MAX;
use switch_core::config::{FDB_ENTRIES_DEFAULT, NEIGHBOURS_DEFAULT, PORTS_MAX, publish};
use switch_core::control::bpffs;
use switch_core::control::budget::{Budget, MEMORY_DEFAULT_TEXT, Sizes};
use switch_core::control::daemon::Daemon;
use switch_core::control::doors::Doors;
use switch_core::control::journal;
use switch_core::control::log::{Format, Log};
use switch_core::control::mirror::{Mirror, NEWS_BYTES};
use switch_core::control::peer::{Group, Rules};
use switch_core::control::persist::Store;
use switch_core::control::pins::Pins;
use switch_core::control::server::Server;
use switch_core::control::uplinks::Uplinks;
use switch_core::counter::Counters;
use switch_core::frame::area::{AreaError, CHUNKS_MAX, LARGE_CHUNK_BYTES, REGIONS_MAX};
use switch_core::frame::{Area, AreaSize, Frame, Pool};
use switch_core::pipeline::{EXACT_BYTES, Pipeline, Private, TableSizes, Tables, WAYS_BYTES};
use switch_core::port::xdp::open::Engine;
use switch_core::sandbox::{self, Folders, keeper};
use switch_core::table::flow::FLOWS_DEFAULT;
use switch_core::worker::naps::{NAP_US_DEFAULT, NAP_US_MAX};
use switch_core::worker::patience::IDLE_TURNS_DEFAULT;
use switch_core::worker::prompt::{self, NICE_DEFAULT};
use switch_core::worker::thread::Notify;
use switch_core::worker::{Mail, Start, Turn, start};

/// Frames of a region unless --frames says otherwise: 2 MiB, a huge page if there are some, and room for what a
/// dozen idle AF_XDP ports park. Each AF_XDP socket costs the kernel about 144 bytes a frame of its region, so more
/// frames make every such port dearer.
const FRAMES_DEFAULT: u32 = 1024;

/// Large frames a worker: one batch of the shortest trains of segments, none of which waits longer than a turn.
/// 4.3 MiB, of which only what was written into costs memory.
const LARGE_FRAMES: u32 = 64;

/// A daemon that cannot start is started again by its supervisor as quickly as one that crashed, for ever: without a pause a night of that
/// would push all else out of the node's log. A person who tries it waits as long for the answer.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// Lines that can be pasted; `switch-ctl/tests/help.rs` does.
const EXAMPLES: &str = "\
Examples:
  mkdir -p /run/switchd && switchd
  mkdir -p /run/switchd /var/lib/switchd && \\
    switchd --state /var/lib/switchd/state
  mkdir -p /run/first && switchd --socket /run/first/two.sock --memory 256M";

/// A userspace switch for container edge nodes: AF_XDP ports, pinned workers, one snapshot.
#[derive(Debug, Parser)]
#[command(name = "switchd", version, after_help = EXAMPLES)]
struct Options {
    /// Where to listen for switch-ctl and switch-cni.
    #[arg(long, default_value = switch_api::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Where to keep what is declared, so that a restart finds it. Without it nothing is kept.
    #[arg(long)]
    state: Option<PathBuf>,
    /// A file of what the operator declares, as `switch-ctl export` writes it: applied at start, over what --state kept.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to mount the bpffs that pins XDP links [default: `bpf` beside the socket].
    #[arg(long)]
    bpffs: Option<PathBuf>,
    /// Cores to run workers on, like 1,2,3. The default is one worker on the last core.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    /// The most memory to use, like 64M or 1G: tables, packet memory, ports' rings and what the kernel keeps for
    /// ports. A port that would pass it is refused. Packet memory is mapped in regions as ports come, and given
    /// back as they go.
    #[arg(long, value_parser = size, default_value = MEMORY_DEFAULT_TEXT)]
    memory: u64,
    /// Frames of a region of packet memory, all workers together. An xdp port has frames of one region; more frames
    /// a region make it dearer.
    #[arg(long, default_value_t = FRAMES_DEFAULT)]
    frames: u32,
    /// Bytes of a frame: 2048, or 4096 for an MTU above 1774.
    #[arg(long, default_value_t = 2048)]
    frame_size: u32,
    /// MACs the table holds.
    #[arg(long, default_value_t = FDB_ENTRIES_DEFAULT)]
    fdb_entries: usize,
    /// Neighbours (ARP, neighbour discovery) the table holds.
    #[arg(long, default_value_t = NEIGHBOURS_DEFAULT)]
    neighbours: usize,
    /// Flows the table holds: 117 bytes each, once it is there.
    #[arg(long, default_value_t = FLOWS_DEFAULT)]
    flows: usize,
    /// A TCP flow may begin in the middle, as after a restart of the switch. It is judged as if the end that
    /// speaks first had opened it.
    #[arg(long)]
    flow_pickup: bool,
    /// Bytes of news about the kernel's routes that may wait; what is more is an overrun, after which all is asked anew.
    #[arg(long, default_value_t = NEWS_BYTES)]
    mirror_buffer: usize,
    /// Routes of the kernel that are mirrored at most: some 100 bytes each. About those beyond it the kernel decides.
    #[arg(long, default_value_t = MIRRORED_MAX)]
    mirror_routes: usize,
    /// Turns without a frame before a worker sleeps, each of at most 250 ns: with many ports they are fewer. 0: at once.
    #[arg(long, default_value_t = IDLE_TURNS_DEFAULT)]
    idle_turns: u32,
    /// Microseconds that a worker rests between turns at low load, so that frames gather and asking costs less. Only while as
    /// many come as without. 0: never, as quick as can be at the price of a core.
    #[arg(long, default_value_t = NAP_US_DEFAULT, value_parser = clap::value_parser!(u64).range(..=NAP_US_MAX))]
    nap_us: u64,

    /// How workers stand with other programs that want their cores, -20 to 0 as in nice(1). At -10 a worker gets nine tenths of its
    /// core when it needs them, and its frames do not wait for others; at 0 it is one among equals, and a burst may
    /// find no room while another's slice lasts
    #[arg(long, default_value_t = NICE_DEFAULT, allow_negative_numbers = true, value_parser = clap::value_parser!(i8).range(-20..=0))]
    nice: i8,
    /// Whether lanes move from busy workers to others by themselves: `auto` looks every second and moves what has been plainly
    /// uneven for ten; `off` waits for `switch-ctl worker rebalance`.
    #[arg(long, value_enum, default_value_t = Rebalance::Off)]
    rebalance: Rebalance,
    /// Members of this group may change things, as root may.
    #[arg(long)]
    group: Option<String>,
    /// Members of this group may attach and detach containers, as switch-cni does, and look.
    #[arg(long)]
    cni_group: Option<String>,
    /// Members of this group may look (but not change).
    #[arg(long)]
    reader_group: Option<String>,
    /// Let every user look (but not change).
    #[arg(long)]
    readers: bool,
    /// A further folder in which pcap ports may read and write. May be given more than once.
    #[arg(long)]
    files: Vec<PathBuf>,
    /// How the log on standard error is written. How much is said is the environment variable SWITCHD_LOG (`info` without it), and
    /// `switch-ctl log level` while it runs.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Keep every right the process was started with: for debuggers, and to tell a refusal of the sandbox from others.
    #[arg(long)]
    no_sandbox: bool,
    /// Print the manual page.
    #[arg(long, hide = true)]
    man: bool,
    /// Be the keeper of this bpffs; see `sandbox::keeper`.
    #[arg(long, hide = true)]
    keeper: Option<PathBuf>,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Who moves lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Rebalance {
    /// The switch by itself.
    Auto,
    /// Nobody, unless asked.
    Off,
}

impl Options {
    fn tables(&self) -> TableSizes {
        let Self { fdb_entries, neighbours, flows, flow_pickup, .. } = *self;
        TableSizes { fdb_entries, neighbours, flows, flow_pickup }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let log = Log::start(match options.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    });
    if let Some(bpffs) = &options.keeper {
        return keeper::keep(bpffs).into();
    }
    if options.man {
        let page = clap_mangen::Man::new(Options::command()).section("8");
        return page.render(&mut std::io::stdout()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    match run(options, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = error.downcast_ref::<ApiError>().and_then(|error| error.data.hint.as_deref());
            let text = format!("{error}{}", hint.map_or(String::new(), |hint| format!("; {hint}")));
            match journal::is_behind_stderr() {
                // It takes each line for itself, and a file's problems are told in several.
                true => text.lines().for_each(|line| eprintln!("<3>{line}")),
                false => eprintln!("switchd: {text}"),
            }
            if std::env::var_os("NOTIFY_SOCKET").is_some() {
                std::thread::sleep(REFUSED_PAUSE);
            }
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options, log: Log) -> Result<(), Box<dyn std::error::Error>> {
    let group = |name: &Option<String>| {
        let named = name.as_deref().map(|name| {
            let missing = || format!("there is no group named {name}; `groupadd --system {name}`");
            Group::find(name).ok_or_else(missing)
        });
        named.transpose()
    };
    raise_descriptor_limit();
    // Read before the sandbox, in which only the daemon's own folders are there.
    let config = options.config.as_deref().map(read_file).transpose()?;
    let rules = Rules {
        group: group(&options.group)?,
        cni: group(&options.cni_group)?,
        looking: group(&options.reader_group)?,
        readers: options.readers,
    };
    let looks_up_users = rules.lets_others_in();
    let mut server = Server::bind(&options.socket, rules)?;
    let cores = choose_cores(&options.cores)?;
    let (area, frames) = first_region(&options, cores.len())?;
    let pools = Pool::deal(area.clone(), frames, cores.len());

    let bpffs = options.bpffs.clone().unwrap_or_else(|| options.socket.with_file_name("bpf"));
    let engine = start_engine(&area, &bpffs);
    let pins = engine.as_ref().ok().and_then(|_| share(&bpffs));
    start_keeper(&bpffs);
    // Workers inherit it; in the sandbox the right to take it is gone.
    let (place, no_place) = prompt::take_place(options.nice);
    let sandbox = give_up(&options, &bpffs, looks_up_users);
    let mail: Arc<[Mail]> = cores.iter().map(|_| Mail::new()).collect::<Result<_, _>>()?;
    let seed = random()?;
    let tables = Arc::new(Tables::new(options.tables(), [seed[0], seed[1]]));
    let counters: Vec<_> = cores.iter().map(|_| Arc::new(Counters::new(PORTS_MAX))).collect();
    let of_workers = counters.iter().map(|counters| counters.bytes() + WAYS_BYTES + EXACT_BYTES);
    let tables_bytes = tables.bytes() + of_workers.sum::<usize>();
    let budget = Budget::new(Sizes {
        ceiling: options.memory,
        tables: tables_bytes as u64,
        large: u64::from(area.size().large) * u64::from(LARGE_CHUNK_BYTES),
        region: area.region_bytes() as u64,
        region_frames: area.size().chunks,
        regions_max: area.regions_max(),
        workers: cores.len(),
    })?;
    let (publisher, readers) = publish::channel(cores.len());
    let control = std::thread::current();
    publisher.when_taken(move || control.unpark());
    let clock = quanta::Clock::new();
    let mut workers = Vec::new();
    for (id, ((pool, reader), core)) in pools.into_iter().zip(readers).zip(&cores).enumerate() {
        let counters = counters[id].clone();
        let mut private = Private::new(counters.clone(), seed[2], &tables);
        private.worker = (id as u16, cores.len() as u16);
        let pipeline = Pipeline::new(private);
        let (tables, boxes) = (tables.clone(), mail.clone());
        let turn = Turn::new(id as u16, reader, tables, boxes, pool, pipeline, clock.clone());
        let (bell, control) = (server.bell(), std::thread::current());
        workers.push(start(Start {
            turn,
            mail: mail.clone(),
            counters,
            beats: engine.as_ref().ok().map(|engine| engine.beats().clone()),
            core: *core,
            idle_turns: options.idle_turns,
            nap_us: options.nap_us,
            notify: Notify(Box::new(move || {
                // A bell that cannot be rung costs a second: the next tick reads the reports.
                _ = bell.wake();
                // It may wait for one of them.
                control.unpark();
            })),
        })?);
    }

    for (what, error) in no_place.into_iter().chain(place.again()) {
        tracing::warn!("the kernel refuses workers {what}: {error}; a nice value takes CAP_SYS_NICE");
    }

    let (store, declared) = match &options.state {
        Some(path) => Store::open(path)?,
        None => Default::default(),
    };
    let mut daemon = Daemon::new(
        Doors::new(engine, area, mail, budget),
        publisher,
        tables,
        counters,
        workers,
        store,
        options.fdb_entries as u32,
        seed[2],
    );
    daemon.auto_rebalance = options.rebalance == Rebalance::Auto;
    daemon.sandbox = Some(sandbox);
    daemon.log = Some(log);
    daemon.mirror = start_mirror(&server, &options);
    daemon.uplinks = start_uplinks(&server);
    daemon.restore(declared, node_seed(&options.socket))?;
    if let (Some(path), Some(text)) = (&options.config, &config) {
        apply_file(path, text, &mut daemon)?;
    }
    pins.iter().for_each(|pins| daemon.clear_pins(pins));
    tracing::info!(socket = %options.socket.display(), workers = cores.len(), "serving");
    let detach = server.run(&mut daemon);
    daemon.shut_down(detach);
    drop(daemon);
    let remove = || {
        if !bpffs::is_mounted(&bpffs) {
            bpffs::clear(&bpffs)?;
        }
        keeper::remove_bpffs()
    };
    if detach && let Err(error) = remove() {
        tracing::warn!("the bpffs at {} stays: {error}", bpffs.display());
    }
    Ok(())
}

/// Does for the daemon what it may not do in the sandbox.
fn start_keeper(bpffs: &std::path::Path) {
    if let Err(error) = keeper::start(bpffs) {
        tracing::warn!(
            "no keeper: the bpffs stays at the end, and namespaces below /proc cannot be opened: {error}"
        );
    }
}

/// Everything that is not needed from here on; before the first worker, which inherits it.
fn give_up(options: &Options, bpffs: &std::path::Path, users: bool) -> Support {
    if options.no_sandbox {
        tracing::warn!("--no-sandbox: the daemon keeps every right it was started with");
        return Support { ok: false, detail: "--no-sandbox".into() };
    }
    let mut folders = Folders { own: options.files.clone(), users };
    folders.of(&options.socket);
    folders.own.push(bpffs.to_owned());
    if let Some(state) = &options.state {
        folders.of(state);
    }
    let sandbox = sandbox::enter(&folders);
    tracing::info!(ok = sandbox.ok, "sandbox: {}", sandbox.detail);
    sandbox
}

fn read_file(path: &std::path::Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("--config {}: {error}", path.display()))
}

/// Makes what is declared be what the file says; else every problem of it, with its place.
fn apply_file(path: &std::path::Path, text: &str, daemon: &mut Daemon) -> Result<(), String> {
    use switch_api::file::{File, render};
    let name = path.display().to_string();
    let refused = |complaints: &[_]| {
        let shown = render(&name, text, complaints, false);
        format!("--config {name} was not applied\n\n{shown}")
    };
    let file = File::read(text).map_err(|complaints| refused(&complaints))?;
    let (config, source) = (file.config.clone(), Some(name.clone()));
    let apply = switch_api::ConfigApply { config, source, ..Default::default() };
    daemon.apply_at_start(&apply).map_err(|error| match error.data.problems.is_empty() {
        true => format!("--config {name}: {error}"),
        false => refused(&file.complaints(&error.data.problems)),
    })
}

/// Packet memory with its first region, and addresses for as many as the ceiling lets there be.
fn first_region(options: &Options, workers: usize) -> Result<(Arc<Area>, Vec<Frame>), AreaError> {
    let size = AreaSize {
        chunk_bytes: options.frame_size,
        chunks: options.frames,
        large: LARGE_FRAMES * workers as u32,
    };
    let region = u64::from(options.frames.max(1)) * u64::from(options.frame_size.max(1));
    let regions = (options.memory / region).min(u64::from(CHUNKS_MAX / size.stride().min(CHUNKS_MAX)));
    let regions = regions.clamp(1, u64::from(REGIONS_MAX)) as u16;
    let (area, large) = Area::reserve(size, regions)?;
    let mut frames = area.grow(0)?;
    frames.extend(large);
    Ok((Arc::new(area), frames))
}

/// A number of bytes, with a unit of 1024 or without.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write it like 64M, 1G or 67108864");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// The mirror of the kernel's routes. Without it everything else works.
fn start_mirror(server: &Server, options: &Options) -> Option<Mirror> {
    let started = Mirror::new(options.mirror_buffer, options.mirror_routes);
    let started = started.and_then(|mut mirror| server.watch(&mut mirror).map(|()| mirror));
    started.inspect_err(|error| tracing::warn!("the kernel's routes cannot be mirrored: {error}")).ok()
}

/// What is seen of shared NICs. Without it there is no uplink but the kernel.
fn start_uplinks(server: &Server) -> Uplinks {
    let started = Uplinks::new();
    let started = started.and_then(|mut uplinks| server.watch_uplinks(&mut uplinks).map(|()| uplinks));
    started.unwrap_or_else(|error| {
        tracing::warn!("neighbours on uplinks are followed once a second only: {error}");
        Uplinks::default()
    })
}

/// A tap port takes two descriptors, and the usual soft limit of 1024 is there for programs that use select(2).
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without it there is room for fewer ports, and the refusal says so.
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// AF_XDP, or why there is none. The daemon runs all the same: other ports need none of this.
fn start_engine(area: &Arc<Area>, bpffs: &std::path::Path) -> Result<Engine, String> {
    let engine = bpffs::ensure(bpffs)
        .map_err(|error| {
            format!("no bpffs at {}: {error}; mounting it needs CAP_SYS_ADMIN, run as root", bpffs.display())
        })
        .and_then(|()| Engine::start(area.clone(), bpffs));
    if let Err(reason) = &engine {
        tracing::warn!("xdp ports will be refused: {reason}");
    }
    engine
}

/// The folder of the pins, which other daemons may have as well.
fn share(bpffs: &std::path::Path) -> Option<Pins> {
    let opened = Pins::open(bpffs);
    opened.inspect_err(|error| tracing::warn!("nobody looks for programs of no port: {error}")).ok()
}

/// The cores asked for; without any, the last one, because interrupts and other programs like the first.
fn choose_cores(wanted: &[usize]) -> Result<Vec<Option<core_affinity::CoreId>>, String> {
    let present = core_affinity::get_core_ids().unwrap_or_default();
    if wanted.is_empty() {
        return Ok(vec![present.last().copied()]);
    }
    let find = |id: &usize| {
        let found = present.iter().find(|core| core.id == *id).copied();
        let ids: Vec<_> = present.iter().map(|core| core.id.to_string()).collect();
        found.map(Some).ok_or_else(|| format!("there is no core {id}, only {}", ids.join(" ")))
    };
    wanted.iter().map(find).collect()
}

/// What makes derived MACs this node's own and the same after every restart: the machine, and which daemon
/// on it. Machines cloned with their identity give `bridge add --mac`.
fn node_seed(socket: &std::path::Path) -> u64 {
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let bytes = machine.iter().chain(socket.as_os_str().as_encoded_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Seeds that nobody else knows.
fn random() -> std::io::Result<[u64; 3]> {
    use std::io::Read;
    let mut bytes = [0; 24];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let word = |i: usize| bytes[i * 8..][..8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    Ok([word(0), word(1), word(2)])
}
