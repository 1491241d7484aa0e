//! Criterion benches, one group a room: how each piece fares by itself.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use std::hint::black_box;
use std::num::NonZeroU16;
use std::sync::Arc;
use switch_core::frame::{Area, AreaSize, Pool};
use switch_core::table::fdb::{Fdb, Limits, key};
use switch_core::wire::checksum::Csum;
use switch_core::wire::gro::Train;
use switch_core::wire::gso::{Gso, GsoKind, Segmenter};
use switch_core::wire::transport::Transport;
use switch_core::wire::{checksum, ethernet, vnet};

fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    let frame: Vec<u8> = (0..1514).map(|i| i as u8).collect();
    group.bench_function("ethernet::parse", |bencher| bencher.iter(|| ethernet::parse(black_box(&frame))));
    group.throughput(Throughput::Bytes(1500));
    group.bench_function("checksum::sum 1500", |bencher| {
        bencher.iter(|| checksum::sum(black_box(&frame[14..])))
    });
    let mut place = vec![0; 1500];
    group.bench_function("checksum::copy 1500", |bencher| {
        bencher.iter(|| checksum::copy(black_box(&frame[14..]), black_box(&mut place)))
    });
    group.finish();
}

/// A full superframe of 45 segments: what is said of it, cut, and joined again.
fn superframe(criterion: &mut Criterion) {
    let size = NonZeroU16::new(1448).unwrap_or(NonZeroU16::MIN);
    let gso = Gso { kind: GsoKind::Tcp4, ecn: false, size };
    let payload: Vec<u8> = (0..1448 * 45).map(|i| (i % 251) as u8).collect();
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    let written = builder.tcp(1, 2, 3, 4).ack(5).write(&mut frame, &payload);
    written.unwrap_or_else(|error| panic!("{error}"));
    // Unfinished, as a pod's kernel hands it over.
    let transport = Transport::read(&frame).unwrap_or_else(|error| panic!("{error}"));
    let pseudo = transport.pseudo(&frame).to_be_bytes();
    frame[34 + 16..34 + 18].copy_from_slice(&pseudo);
    let mut csum = transport.partial();
    let segmenter = Segmenter::new(&frame, csum, gso).unwrap_or_else(|error| panic!("{error}"));
    let mut segments = vec![vec![0; 1502]; segmenter.count()];
    let header = vnet::encode(csum, Some(gso), &frame);

    let mut group = criterion.benchmark_group("wire");
    group.bench_function("vnet::decode", |bencher| {
        bencher.iter(|| vnet::decode(black_box(&header), black_box(&frame)))
    });
    group.throughput(Throughput::Elements(45));
    for finish in [false, true] {
        group.bench_function(format!("gso::write, 45 segments, finish {finish}"), |bencher| {
            bencher.iter(|| {
                for (i, segment) in segments.iter_mut().enumerate() {
                    black_box(segmenter.write(i, segment, finish));
                }
            });
        });
    }
    for finish in [false, true] {
        for (i, segment) in segments.iter_mut().enumerate() {
            segmenter.write(i, segment, finish);
        }
        csum = if finish { Csum::Complete } else { segmenter.partial() };
        group.bench_function(format!("gro::push, 45 segments, verified {finish}"), |bencher| {
            bencher.iter(|| {
                let mut first = segments[0].clone();
                let mut train = Train::begin(&first, csum).unwrap_or_else(|| panic!("no train"));
                for segment in &segments[1..] {
                    assert!(train.push(&first, segment, csum));
                }
                train.finish(&mut first)
            });
        });
    }
    group.finish();
}

fn table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    for macs in [100u64, 100_000] {
        let fdb = Fdb::new(131_072, 4, [3, 5]);
        for mac in 1..=macs {
            let key = key(mac, 1);
            fdb.learn(fdb.home(key), key, 0, 0, None, Limits::new(131_072, 1));
        }
        let mut mac = 0;
        group.bench_function(format!("fdb::lookup among {macs}"), |bencher| {
            bencher.iter(|| {
                mac = (mac + 7919) % macs;
                let key = key(mac + 1, 1);
                fdb.lookup(fdb.home(key), key, 0, 300)
            });
        });
    }
    group.finish();
}

fn frame(criterion: &mut Criterion) {
    let (area, frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 256, large: 0 })
        .unwrap_or_else(|error| panic!("{error}"));
    let mut pools = Pool::deal(Arc::new(area), frames, 1);
    let pool = &mut pools[0];
    criterion.bench_function("frame/take and give", |bencher| {
        bencher.iter(|| {
            if let Some(frame) = pool.take() {
                pool.give(black_box(frame));
            }
        });
    });
}

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    let mut bench = switch_bench::pipeline::Bench::new(500);
    group.throughput(Throughput::Elements(6400));
    group.bench_function("100 batches, frames made and taken out", |bencher| {
        bencher.iter_batched(|| (), |()| bench.spin(100), BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(rooms, wire, superframe, table, frame, pipeline);
criterion_main!(rooms);
