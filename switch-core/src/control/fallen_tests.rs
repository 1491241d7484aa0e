//! What workers report late, or of ports that are no more: without workers, whose part the tests play.

use crate::config::publish;
use crate::control::budget::{Budget, Sizes};
use crate::control::daemon::{Daemon, PortLife};
use crate::control::doors::Doors;
use crate::counter::{Counters, LaneLoad};
use crate::frame::{Area, AreaSize};
use crate::pipeline::hold::Luggage;
use crate::pipeline::{TableSizes, Tables};
use crate::port::traffic::TrafficPort;
use crate::worker::{Command, Mail, Report};
use std::sync::Arc;
use std::time::Instant;
use switch_api::{Port, PortKind};

const PORT: u16 = 7;

/// With one worker that does nothing.
fn daemon() -> Daemon {
    let (area, _) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 64, large: 1 }).unwrap();
    let mail: Arc<[Mail]> = Arc::new([Mail::new().unwrap()]);
    let sizes = Sizes {
        ceiling: 64 << 20,
        tables: 0,
        large: 0,
        region: area.region_bytes() as u64,
        region_frames: 64,
        regions_max: 1,
        workers: 1,
    };
    let doors = Doors::new(Err("none".into()), Arc::new(area), mail, Budget::new(sizes).unwrap());
    let sizes = TableSizes { fdb_entries: 64, neighbours: 64, flows: 64, flow_pickup: false };
    let tables = Arc::new(Tables::new(sizes, [1, 2]));
    let counters = vec![Arc::new(Counters::new(8))];
    let (publisher, _) = publish::channel(0);
    Daemon::new(doors, publisher, tables, counters, Vec::new(), Default::default(), 64, 3)
}

fn port() -> Port {
    let name = |text: &str| text.parse().unwrap();
    Port::new(name("p"), name("br0"), PortKind::Memory { source: None })
}

/// Opens a port of this number, and gives its lane's load.
fn open(daemon: &mut Daemon) -> Arc<LaneLoad> {
    let door = daemon.doors.open(PORT, &port(), None, Instant::now()).unwrap();
    let load = door.loads[0].clone();
    daemon.ports.insert(PORT, PortLife::Up(Box::new(door)));
    load
}

fn report(daemon: &mut Daemon, report: Report) {
    daemon.doors.mail[0].reports.push(report).unwrap();
    daemon.read_reports();
}

/// What the worker was told, as the last thing.
fn last_command(daemon: &Daemon) -> Option<Command> {
    std::iter::from_fn(|| daemon.doors.mail[0].commands.pop()).last()
}

#[test]
fn a_lane_that_died_says_nothing_of_the_port_that_has_its_number_now() {
    let mut daemon = daemon();
    let before = open(&mut daemon);
    let now = open(&mut daemon);
    report(&mut daemon, Report::Died(PORT, before.clone(), libc::EBADFD));
    assert!(matches!(daemon.ports[&PORT], PortLife::Up(_)), "another port fell");
    assert!(daemon.is_lane_of(PORT, &now) && !daemon.is_lane_of(PORT, &before));
    assert!(!daemon.is_lane_of(PORT + 1, &now));
}

#[test]
fn a_lane_that_comes_late_is_closed_and_its_frames_go_to_its_worker() {
    let mut daemon = daemon();
    open(&mut daemon);
    assert_eq!(daemon.doors.load, [1]);
    let lane = Box::new(TrafficPort::new(None));
    report(&mut daemon, Report::LaneOut(PORT, 0, Some(lane)));
    assert!(matches!(last_command(&daemon), Some(Command::TakeIn(_))));
    assert_eq!(daemon.doors.load, [0]);
}

/// A lane that was to move and whose port was closed meanwhile would stay with the worker for ever.
#[test]
fn a_lane_that_was_to_move_goes_back_only_to_an_open_port() {
    let mut daemon = daemon();
    let before = open(&mut daemon);
    let now = open(&mut daemon);
    for (load, is_open) in [(before, false), (now, true)] {
        let lane = Some((Box::new(TrafficPort::new(None)) as Box<dyn crate::port::Port>, load));
        _ = last_command(&daemon);
        report(&mut daemon, Report::Packed { from: 0, port: PORT, queue: 0, lane, luggage: Luggage::new() });
        let told: Vec<_> = std::iter::from_fn(|| daemon.doors.mail[0].commands.pop()).collect();
        let [first, Command::Unpack(_)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(matches!(first, Command::AddLane(..)), is_open, "{first:?}");
        assert_eq!(matches!(first, Command::TakeIn(_)), !is_open, "{first:?}");
    }
}

#[test]
fn what_finds_no_room_in_a_workers_box_is_told_later_and_nothing_before_it() {
    let mut daemon = daemon();
    let box_of = |daemon: &Daemon| daemon.doors.mail[0].commands.len();
    while daemon.doors.tell(0, Command::Announce(1)).is_ok() {}
    let full = box_of(&daemon);
    let lane = Box::new(TrafficPort::new(None));
    report(&mut daemon, Report::LaneOut(PORT, 0, Some(lane)));
    assert_eq!(box_of(&daemon), full);
    // Whoever wants a port is refused before anything of it is there.
    let port = port();
    let refused = daemon.doors.open(PORT + 1, &port, None, Instant::now()).unwrap_err();
    assert!(refused.message.contains("takes no commands"), "{refused:?}");
    // There is room for one: who is told next would overtake it.
    daemon.doors.mail[0].commands.pop().unwrap();
    assert!(daemon.doors.tell(0, Command::Announce(2)).is_err());
    assert!(matches!(last_command(&daemon), Some(Command::TakeIn(_))));
}
