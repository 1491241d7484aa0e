//! A flood that no socket could send, and a sink that only counts: what is between them sets the pace.

use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use std::time::{Duration, Instant};
use switch_core::port::traffic::{client, server, udp_frame};
use switch_lab::Pod;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flood.o"));

/// Frames of one test run for each second that is counted: more than a core can make, so that it is one long run, and
/// few enough that what is left of them after it is soon dropped.
const FRAMES_PER_SECOND: f64 = 20e6;
/// Before it is counted: the first moments fill what is filled once.
const WARM_UP: Duration = Duration::from_millis(400);
/// Frames the kernel makes at a time.
const LIVE_BATCH: u32 = 64;

/// Whose packets are counted, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Made = 0,
    Sunk = 1,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Pairs of stations.
    pub flows: u32,
    /// Bytes of a frame, without its check sequence.
    pub len: usize,
    /// For how long it is counted.
    pub window: Duration,
}

/// Packets a second from `from` to `to`, over `window`; what lies between is the caller's. The sink takes them before
/// its kernel makes packets of them.
pub fn measure(from: &Pod, to: &Pod, flows: u32, window: Duration) -> Result<Flooded, String> {
    let sink = load_sink(to)?;
    // A veth sends redirected frames only while it has a program of its own.
    let _enabled = load_sink(from)?;
    during(from, Load { flows, len: 60, window }, || total(&sink.counts, Count::Sunk))
}

/// The same with pods as they are: the sink's kernel takes each frame, and refuses it for its address. `veth` says
/// whether the sender's device is one.
pub fn measure_plain(from: &Pod, to: &Pod, veth: bool, load: Load) -> Result<Flooded, String> {
    let _enabled = veth.then(|| load_sink(from)).transpose()?;
    during(from, load, || to.received().map(|(packets, _)| packets))
}

fn during(from: &Pod, load: Load, sunk: impl Fn() -> Result<u64, String>) -> Result<Flooded, String> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let generator = from.net.inside(move || generate(load, &ready));
    let control =
        is_ready.recv_timeout(Duration::from_secs(10)).map_err(|_| "the generator did not start")?;
    let (made, mut stop) = control;
    std::thread::sleep(WARM_UP);
    let start = Instant::now();
    let (made_before, sunk_before) = (total(&made, Count::Made)?, sunk()?);
    std::thread::sleep(load.window);
    let (made_after, sunk_after) = (total(&made, Count::Made)?, sunk()?);
    let seconds = start.elapsed().as_secs_f64();
    stop.set(2, 1, 0).map_err(|error| error.to_string())?;
    generator.join().map_err(|_| "the generator panicked")??;
    Ok(Flooded {
        offered_pps: (made_after - made_before) as f64 / seconds,
        received_pps: (sunk_after - sunk_before) as f64 / seconds,
    })
}

/// What came of a flood.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Packets a second that were made.
    pub offered_pps: f64,
    /// Packets a second that arrived.
    pub received_pps: f64,
}

struct Sink {
    counts: PerCpuArray<MapData, u64>,
    _object: Ebpf,
}

type Controls = (PerCpuArray<MapData, u64>, Array<MapData, u32>);

fn object() -> Result<Ebpf, String> {
    EbpfLoader::new().load(OBJECT).map_err(|error| format!("flood.o: {error}"))
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, String> {
    let program: &mut Xdp =
        object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or("no such program")?;
    program.load().map_err(|error| format!("{name}: {error}"))?;
    Ok(program)
}

fn counts(object: &mut Ebpf) -> Result<PerCpuArray<MapData, u64>, String> {
    object
        .take_map("counts")
        .and_then(|map| PerCpuArray::try_from(map).ok())
        .ok_or_else(|| "no counts".into())
}

fn load_sink(pod: &Pod) -> Result<Sink, String> {
    let loaded = pod.net.inside(|| -> Result<Sink, String> {
        let mut object = self::object()?;
        program(&mut object, "sink")?
            .attach("eth0", XdpMode::Driver)
            .map_err(|error| format!("sink: {error}"))?;
        Ok(Sink { counts: counts(&mut object)?, _object: object })
    });
    loaded.join().map_err(|_| "the sink panicked")?
}

fn generate(load: Load, ready: &std::sync::mpsc::Sender<Controls>) -> Result<(), String> {
    core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
    let mut object = self::object()?;
    let index = switch_core::port::xdp::socket::index("eth0").map_err(|error| error.to_string())?;
    let control = object.take_map("control").and_then(|map| Array::<_, u32>::try_from(map).ok());
    let mut control = control.ok_or("no control")?;
    control
        .set(0, index, 0)
        .and_then(|()| control.set(1, load.flows, 0))
        .map_err(|error| error.to_string())?;
    let counts = counts(&mut object)?;
    let program = program(&mut object, "generate")?;
    ready.send((counts, control)).map_err(|_| "nobody waits")?;
    let frame = udp_frame(server(0), client(0), 0, load.len);
    let options = TestRunOptions {
        data_in: Some(&frame),
        repeat: (FRAMES_PER_SECOND * (load.window + WARM_UP).as_secs_f64()) as u32,
        attrs: TestRunAttrs::new().xdp_live_frames(LIVE_BATCH),
        ..TestRunOptions::default()
    };
    program.test_run(options).map(drop).map_err(|error| format!("test run: {error}"))
}

fn total(counts: &PerCpuArray<MapData, u64>, which: Count) -> Result<u64, String> {
    let values = counts.get(&(which as u32), 0).map_err(|error| error.to_string())?;
    Ok(values.iter().sum())
}
