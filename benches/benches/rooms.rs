//! Criterion benches, one group a room: how each piece fares by itself.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use switch_core::frame::{Area, AreaSize, Pool};
use switch_core::table::fdb::{Fdb, Limits, key};
use switch_core::wire::{checksum, ethernet};

fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    let frame: Vec<u8> = (0..1514).map(|i| i as u8).collect();
    group.bench_function("ethernet::parse", |bencher| bencher.iter(|| ethernet::parse(black_box(&frame))));
    group.throughput(Throughput::Bytes(1500));
    group.bench_function("checksum::sum 1500", |bencher| {
        bencher.iter(|| checksum::sum(black_box(&frame[14..])))
    });
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

criterion_group!(rooms, wire, table, frame, pipeline);
criterion_main!(rooms);
