//! A flood that no socket could send, and a sink that counts, checks and times: what is between them sets the pace.

use crate::cpu;
use crate::paced::Paced;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use switch_api::Mac;
use switch_core::port::traffic::{client, server, udp_frame};
use switch_lab::{Pod, RawSocket};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flood.o"));

/// Turns of one test run for each second that is counted: more than a core can make, so that it is one long run, and
/// few enough that what is left of them after it is soon over.
const TURNS_PER_SECOND: f64 = 20e6;
/// Before it is counted, unless a load says otherwise.
const WARM_UP: Duration = Duration::from_millis(400);
/// What is still under way when the generator has ended arrives within so long.
const LINGER: Duration = Duration::from_millis(50);
/// Where what sends runs; the worker's is the other one.
const GENERATOR_CORE: core_affinity::CoreId = core_affinity::CoreId { id: 0 };
/// Frames the kernel makes at a time.
const LIVE_BATCH: u32 = 64;
/// The part of a rate that must be made.
const MADE_MIN: f64 = 0.95;
/// Bytes of the longest frame, without its check sequence.
const LONGEST: usize = 1514;
/// `struct plan` of flood.c, in the machine's byte order.
const PLAN_BYTES: usize = 48;
/// Latencies: sixteen for each power of two.
const BUCKETS: u32 = 1024;

/// Places of the map `counts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Made = 0,
    Sunk = 1,
    Wrong = 2,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Pairs of addresses.
    pub flows: u32,
    /// Pairs of stations that they are of.
    pub stations: u32,
    /// Bytes of a frame, without its check sequence; none for the Internet mix.
    pub len: Option<usize>,
    /// Packets a second; 0 is as fast as it goes.
    pub rate_pps: u64,
    /// Whether it is a socket that rests while nothing is due ([`Paced`]): for rates that a socket can send. One that does not takes its core
    /// for itself, and the kernel, which carries its frames to the device on that core, comes too late now and then: 256 wait there, and
    /// the next is lost.
    pub rests: bool,
    /// For packets that are routed: whom they are sent to.
    pub gateway: Option<Mac>,
    /// For how long it is sent before it is counted: the first moments fill what is filled once.
    pub warm_up: Duration,
    /// For how long it is counted.
    pub window: Duration,
}

impl Default for Load {
    /// One flow of small frames, for a second.
    fn default() -> Self {
        let (warm_up, window) = (WARM_UP, Duration::from_secs(1));
        Self {
            flows: 1,
            stations: 1,
            len: Some(60),
            rate_pps: 0,
            rests: false,
            gateway: None,
            warm_up,
            window,
        }
    }
}

impl Load {
    /// So many flows, each of its own pair of stations.
    pub fn of_stations(flows: u32, len: usize, window: Duration) -> Self {
        Self { flows, stations: flows, len: Some(len), window, ..Self::default() }
    }

    fn frame_len(&self) -> usize {
        self.len.unwrap_or(LONGEST)
    }

    /// Bytes of the frame of this number, as flood.c has it.
    pub fn len_of(&self, number: u64) -> usize {
        match (self.len, number % 12) {
            (Some(len), _) => len,
            (None, 6) => LONGEST,
            (None, 1 | 4 | 8 | 11) => 590,
            (None, _) => 60,
        }
    }

    /// As flood.c has it.
    fn plan(&self, device: u32, stop: bool) -> [u8; PLAN_BYTES] {
        let mut plan = [0; PLAN_BYTES];
        plan[..8].copy_from_slice(&self.rate_pps.to_ne_bytes());
        let (imix, routed) = (u32::from(self.len.is_none()), u32::from(self.gateway.is_some()));
        let words =
            [device, self.flows, self.stations, u32::from(stop), self.frame_len() as u32, imix, routed];
        for (place, word) in plan[8..36].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        plan[36..42].copy_from_slice(&self.gateway.map_or([0; 6], |mac| mac.0));
        plan
    }
}

/// Packets a second from `from` to `to`, over `window`; what lies between is the caller's. The sink takes them before
/// its kernel makes packets of them.
pub fn measure(from: &Pod, to: &Pod, flows: u32, window: Duration) -> Result<Flooded, String> {
    Path::open(from, to)?.run(Load::of_stations(flows, 60, window))
}

/// The same with pods as they are: the sink's kernel takes each frame, and refuses it for its address. `veth` says
/// whether the sender's device is one.
pub fn measure_plain(from: &Pod, to: &Pod, veth: bool, load: Load) -> Result<Flooded, String> {
    Path::open_plain(from, to, veth)?.run(load)
}

/// What came of a flood.
#[derive(Clone, Debug, Default)]
pub struct Flooded {
    /// Packets a second that were made.
    pub offered_pps: f64,
    /// Packets a second that arrived.
    pub received_pps: f64,
    /// Packets of the whole run, the moments before the window too.
    pub made: u64,
    /// Those of them that did not arrive.
    pub lost: u64,
    /// Packets that arrived as they should not be, of the sixteenth that is looked at.
    pub wrong: u64,
    /// Seconds that each core was busy for a packet that arrived, in the window.
    pub busy_per_packet: Vec<f64>,
    /// From the generator to the sink, of a sixteenth of the window's packets.
    pub latencies: Latencies,
}

impl Flooded {
    /// This, if so many packets a second were made, or nearly; an error if not: of a few packets none would be lost.
    pub fn made_at(self, rate_pps: f64) -> Result<Self, String> {
        match self.offered_pps >= MADE_MIN * rate_pps {
            true => Ok(self),
            false => Err(format!("{:.0} packets a second were made, not {rate_pps:.0}", self.offered_pps)),
        }
    }
}

/// How often which latency was seen.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// The least latency that so large a part of the packets does not exceed, in µs to a sixteenth; none without packets.
    pub fn us(&self, quantile: f64) -> Option<f64> {
        let all: u64 = self.0.iter().sum();
        let wanted = (all as f64 * quantile).ceil().max(1.0) as u64;
        let mut below = 0;
        let place = self.0.iter().position(|count| {
            below += count;
            below >= wanted
        })?;
        // The upper end of the bucket.
        let (power, part) = (place / 16, place % 16);
        Some(2f64.powi(power as i32) * (17 + part) as f64 / 16.0 / 1000.0)
    }
}

/// A generator's pod and a sink's. Programs stay on their devices until it is dropped.
#[derive(Debug)]
pub struct Path<'a> {
    from: &'a Pod,
    to: &'a Pod,
    sink: Option<Sink>,
    _enabled: Option<Sink>,
}

/// What can be read while a flood goes on.
struct Reading {
    made: u64,
    sunk: u64,
    busy: Vec<f64>,
    latencies: Vec<u64>,
}

impl<'a> Path<'a> {
    /// Between pods on veth; the sink takes frames before its kernel makes packets of them, checks and times them.
    pub fn open(from: &'a Pod, to: &'a Pod) -> Result<Self, String> {
        // A veth sends redirected frames only while it has a program of its own.
        Ok(Self { from, to, sink: Some(Sink::load(to)?), _enabled: Some(Sink::load(from)?) })
    }

    /// Between pods as they are, by what the sink's kernel counts: nothing is checked or timed. `veth` says whether the
    /// sender's device is one.
    pub fn open_plain(from: &'a Pod, to: &'a Pod, veth: bool) -> Result<Self, String> {
        Ok(Self { from, to, sink: None, _enabled: veth.then(|| Sink::load(from)).transpose()? })
    }

    /// Sends what is asked for and says what came of it.
    pub fn run(&mut self, load: Load) -> Result<Flooded, String> {
        let said = |error: aya::maps::MapError| error.to_string();
        if let Some(sink) = &mut self.sink {
            sink.plans.set(0, load.plan(0, false), 0).map_err(said)?;
        }
        let before = (self.sunk()?, self.wrong()?);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let generator = self.generator(load, ready)?;
        let started = is_ready.recv_timeout(Duration::from_secs(10));
        let mut controls = match started {
            Ok(controls) => controls,
            Err(_) => {
                return Err(generator
                    .join()
                    .map_err(|_| "the generator panicked")?
                    .err()
                    .unwrap_or_default());
            }
        };
        std::thread::sleep(load.warm_up);
        let start = Instant::now();
        let first = self.read(&controls)?;
        std::thread::sleep(load.window);
        let last = self.read(&controls)?;
        let seconds = start.elapsed().as_secs_f64();
        controls.stop(&load)?;
        generator.join().map_err(|_| "the generator panicked")??;
        std::thread::sleep(LINGER);
        let (made, received) = (controls.made()?, last.sunk - first.sunk);
        let less = |after: &[u64], before: &[u64]| after.iter().zip(before).map(|(a, b)| a - b).collect();
        Ok(Flooded {
            offered_pps: (last.made - first.made) as f64 / seconds,
            received_pps: received as f64 / seconds,
            made,
            lost: made.saturating_sub(self.sunk()? - before.0),
            wrong: self.wrong()? - before.1,
            busy_per_packet: last
                .busy
                .iter()
                .zip(&first.busy)
                .map(|(a, b)| (a - b) / received as f64)
                .collect(),
            latencies: Latencies(less(&last.latencies, &first.latencies)),
        })
    }

    /// Starts what sends, on a core of its own.
    fn generator(
        &self,
        load: Load,
        ready: Sender<Controls>,
    ) -> Result<JoinHandle<Result<(), String>>, String> {
        if !load.rests {
            return Ok(self.from.net.inside(move || generate(load, &ready)));
        }
        let socket = RawSocket::open(&self.from.net, "eth0").map_err(|error| error.to_string())?;
        Ok(self.from.net.inside(move || {
            core_affinity::set_for_current(GENERATOR_CORE);
            let paced = Arc::new(Paced::default());
            ready.send(Controls::Socket(paced.clone())).map_err(|_| "nobody waits")?;
            paced.send(&socket, &load)
        }))
    }

    fn read(&self, controls: &Controls) -> Result<Reading, String> {
        let latencies = self.sink.as_ref().map(Sink::latencies).transpose()?.unwrap_or_default();
        let (made, sunk) = (controls.made()?, self.sunk()?);
        Ok(Reading { made, sunk, busy: cpu::busy()?, latencies })
    }

    fn sunk(&self) -> Result<u64, String> {
        match &self.sink {
            Some(sink) => total(&sink.counts, Count::Sunk),
            None => self.to.received().map(|(packets, _)| packets),
        }
    }

    fn wrong(&self) -> Result<u64, String> {
        self.sink.as_ref().map_or(Ok(0), |sink| total(&sink.counts, Count::Wrong))
    }
}

type Plans = Array<MapData, [u8; PLAN_BYTES]>;
type PerCpu = PerCpuArray<MapData, u64>;

struct Sink {
    counts: PerCpu,
    latencies: PerCpu,
    plans: Plans,
    _object: Ebpf,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

impl Sink {
    fn load(pod: &Pod) -> Result<Self, String> {
        let loaded = pod.net.inside(|| -> Result<Self, String> {
            let mut object = self::object()?;
            program(&mut object, "sink")?
                .attach("eth0", XdpMode::Driver)
                .map_err(|error| format!("sink: {error}"))?;
            let (counts, latencies) = (per_cpu(&mut object, "counts")?, per_cpu(&mut object, "latencies")?);
            Ok(Self { counts, latencies, plans: plans(&mut object)?, _object: object })
        });
        loaded.join().map_err(|_| "the sink panicked")?
    }

    fn latencies(&self) -> Result<Vec<u64>, String> {
        (0..BUCKETS).map(|place| at(&self.latencies, place)).collect()
    }
}

/// How a generator is told to stop, and what it has made.
enum Controls {
    Program { counts: PerCpu, plans: Box<Plans> },
    Socket(Arc<Paced>),
}

impl Controls {
    fn made(&self) -> Result<u64, String> {
        match self {
            Self::Program { counts, .. } => total(counts, Count::Made),
            Self::Socket(paced) => Ok(paced.made.load(Relaxed)),
        }
    }

    fn stop(&mut self, load: &Load) -> Result<(), String> {
        match self {
            Self::Program { plans, .. } => {
                plans.set(0, load.plan(0, true), 0).map_err(|error| error.to_string())?;
            }
            Self::Socket(paced) => paced.stop.store(true, Relaxed),
        }
        Ok(())
    }
}

fn object() -> Result<Ebpf, String> {
    EbpfLoader::new().load(OBJECT).map_err(|error| format!("flood.o: {error}"))
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, String> {
    let program: &mut Xdp =
        object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or("no such program")?;
    program.load().map_err(|error| format!("{name}: {error}"))?;
    Ok(program)
}

fn per_cpu(object: &mut Ebpf, name: &str) -> Result<PerCpu, String> {
    object.take_map(name).and_then(|map| PerCpuArray::try_from(map).ok()).ok_or_else(|| format!("no {name}"))
}

fn plans(object: &mut Ebpf) -> Result<Plans, String> {
    object.take_map("plans").and_then(|map| Array::try_from(map).ok()).ok_or_else(|| "no plans".into())
}

fn generate(load: Load, ready: &Sender<Controls>) -> Result<(), String> {
    core_affinity::set_for_current(GENERATOR_CORE);
    let mut object = self::object()?;
    let index = switch_core::port::xdp::socket::index("eth0").map_err(|error| error.to_string())?;
    let (counts, mut plans) = (per_cpu(&mut object, "counts")?, plans(&mut object)?);
    plans.set(0, load.plan(index, false), 0).map_err(|error| error.to_string())?;
    let program = program(&mut object, "generate")?;
    ready.send(Controls::Program { counts, plans: Box::new(plans) }).map_err(|_| "nobody waits")?;
    let frame = udp_frame(server(0), client(0), 0, load.frame_len());
    let time = load.window + load.warm_up;
    let options = TestRunOptions {
        data_in: Some(&frame),
        repeat: (TURNS_PER_SECOND * time.as_secs_f64()) as u32,
        attrs: TestRunAttrs::new().xdp_live_frames(LIVE_BATCH),
        ..TestRunOptions::default()
    };
    program.test_run(options).map(drop).map_err(|error| format!("test run: {error}"))
}

fn total(counts: &PerCpu, which: Count) -> Result<u64, String> {
    at(counts, which as u32)
}

fn at(counts: &PerCpu, place: u32) -> Result<u64, String> {
    let values = counts.get(&place, 0).map_err(|error| error.to_string())?;
    Ok(values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_upper_end_of_its_bucket() {
        let mut latencies = Latencies(vec![0; BUCKETS as usize]);
        assert_eq!(latencies.us(0.5), None);
        // 99 of 1024 to 1087 ns, one of 32 768 ns and more.
        (latencies.0[10 * 16], latencies.0[15 * 16]) = (99, 1);
        assert_eq!(latencies.us(0.5), Some(1.088));
        assert_eq!(latencies.us(0.99), Some(1.088));
        assert_eq!(latencies.us(1.0), Some(34.816));
    }
}
