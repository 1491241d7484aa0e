//! A flood that no socket could send, and a sink that only counts: what is between them sets the pace.

use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use std::time::{Duration, Instant};
use switch_core::port::traffic::{client, server, udp_frame};
use switch_lab::Pod;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flood.o"));

/// Frames of one test run: more than fit into a measurement here, so that it is one long run, and few enough
/// that what is left of them after it is dropped in seconds.
const REPEAT: u32 = 60_000_000;
/// Frames the kernel makes at a time.
const LIVE_BATCH: u32 = 64;

/// Whose packets are counted, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Made = 0,
    Sunk = 1,
}

/// Packets a second from `from` to `to`, over `window`; what lies between is the caller's.
pub fn measure(from: &Pod, to: &Pod, flows: u32, window: Duration) -> Result<Flooded, String> {
    let sink = load_sink(to)?;
    // A veth sends redirected frames only while it has a program of its own.
    let _enabled = load_sink(from)?;
    let (ready, is_ready) = std::sync::mpsc::channel();
    let generator = from.net.inside(move || generate(flows, &ready));
    let control =
        is_ready.recv_timeout(Duration::from_secs(10)).map_err(|_| "the generator did not start")?;
    let (made, mut stop) = control;
    // The first moments fill what is filled once.
    std::thread::sleep(Duration::from_millis(400));
    let start = Instant::now();
    let (made_before, sunk_before) = (total(&made, Count::Made)?, total(&sink.counts, Count::Sunk)?);
    std::thread::sleep(window);
    let (made_after, sunk_after) = (total(&made, Count::Made)?, total(&sink.counts, Count::Sunk)?);
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

fn load() -> Result<Ebpf, String> {
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
        let mut object = load()?;
        program(&mut object, "sink")?
            .attach("eth0", XdpMode::Driver)
            .map_err(|error| format!("sink: {error}"))?;
        Ok(Sink { counts: counts(&mut object)?, _object: object })
    });
    loaded.join().map_err(|_| "the sink panicked")?
}

fn generate(flows: u32, ready: &std::sync::mpsc::Sender<Controls>) -> Result<(), String> {
    core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
    let mut object = load()?;
    let index = switch_core::port::xdp::socket::index("eth0").map_err(|error| error.to_string())?;
    let control = object.take_map("control").and_then(|map| Array::<_, u32>::try_from(map).ok());
    let mut control = control.ok_or("no control")?;
    control.set(0, index, 0).and_then(|()| control.set(1, flows, 0)).map_err(|error| error.to_string())?;
    let counts = counts(&mut object)?;
    let program = program(&mut object, "generate")?;
    ready.send((counts, control)).map_err(|_| "nobody waits")?;
    let frame = udp_frame(server(0), client(0), 0, 60);
    let options = TestRunOptions {
        data_in: Some(&frame),
        repeat: REPEAT,
        attrs: TestRunAttrs::new().xdp_live_frames(LIVE_BATCH),
        ..TestRunOptions::default()
    };
    program.test_run(options).map(drop).map_err(|error| format!("test run: {error}"))
}

fn total(counts: &PerCpuArray<MapData, u64>, which: Count) -> Result<u64, String> {
    let values = counts.get(&(which as u32), 0).map_err(|error| error.to_string())?;
    Ok(values.iter().sum())
}
