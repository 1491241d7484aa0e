//! Tests of the packet memory.

use super::*;

fn small() -> (Area, Vec<Frame>) {
    Area::new(AreaSize { chunk_bytes: 2048, chunks: 8, large: 0 }).unwrap()
}

#[test]
fn a_recorded_chunk_comes_back_once_and_only_to_its_holder() {
    let (area, mut frames) = small();
    let (mut mine, mut other) = (area.holder().unwrap(), area.holder().unwrap());
    let at = area.record(frames.pop().unwrap(), &mut mine) as u64;
    assert_eq!(area.recorded(), 1);
    assert!(area.claim(at, 60, &mut other).is_none(), "another ring names it");
    assert!(area.claim(at, 4000, &mut mine).is_none(), "longer than the chunk");
    assert!(area.claim(at + 8 * 2048, 60, &mut mine).is_none(), "outside the area");
    assert!(area.claim(u64::MAX, 60, &mut mine).is_none(), "far outside the area");
    let frame = area.claim(at, 60, &mut mine).unwrap();
    assert!(area.claim(at, 60, &mut mine).is_none(), "a second time");
    frames.push(frame);
    assert_eq!(area.recorded(), 0);
}

#[test]
fn reclaim_finds_every_frame_of_a_dead_holder() {
    let (area, mut frames) = small();
    let (mut dead, mut alive) = (area.holder().unwrap(), area.holder().unwrap());
    for i in 0..5 {
        let frame = frames.pop().unwrap();
        area.record(frame, if i < 3 { &mut dead } else { &mut alive });
    }
    let retired = dead.0;
    assert_eq!(area.reclaim(dead, |frame| frames.push(frame)), 3);
    assert_eq!((frames.len(), area.recorded()), (6, 2));
    assert_eq!(area.holder().unwrap().0, retired, "a retired number is given out again");
}

#[test]
fn pushes_and_pops_stay_in_the_chunk() {
    let (area, mut frames) = small();
    let frame = &mut frames[0];
    assert!(area.fill(frame, &[7; 60]));
    assert!(!area.fill(&mut area.mint(1, area.tag), &[7; 1793]));
    assert!(frame.push_front(256) && !frame.push_front(1));
    assert_eq!(area.bytes(frame).len(), 316);
    assert!(frame.pop_front(316) && !frame.pop_front(1));
    assert!(area.metadata_mut(frame).is_some());
}

#[test]
fn large_frames_are_beside_the_others_and_in_nobodys_way() {
    let size = AreaSize { chunk_bytes: 2048, chunks: 2, large: 2 };
    let (area, mut frames) = Area::new(size).unwrap();
    assert_eq!((frames.len(), area.frames_total()), (4, 4));
    let longest = LARGE_CHUNK_BYTES as usize - usize::from(super::super::HEADROOM);
    for (n, frame) in frames.iter_mut().enumerate() {
        let len = if n < 2 { area.packet_len_max() } else { longest };
        assert_eq!(frame.is_large(), n >= 2);
        assert!(!area.fill(frame, &vec![0; len + 1]) && area.fill(frame, &vec![n as u8; len]));
        assert!(frame.push_front(256));
        area.bytes_mut(frame).fill(n as u8);
    }
    for (n, frame) in frames.iter().enumerate() {
        assert!(area.bytes(frame).iter().all(|byte| *byte == n as u8));
    }
}

#[test]
#[should_panic(expected = "another area")]
fn a_large_frame_is_in_no_ring() {
    let (area, mut frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 1, large: 1 }).unwrap();
    let mut holder = area.holder().unwrap();
    area.record(frames.pop().unwrap(), &mut holder);
}

#[test]
#[should_panic(expected = "another area")]
fn a_frame_of_another_area_is_refused() {
    let (one, _frames) = small();
    let (_other, mut frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 1, large: 1 }).unwrap();
    one.bytes_mut(&mut frames[1]);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let too_many = (2048, 8, LARGE_CHUNKS_MAX + 1);
    for size in [(1024, 8, 0), (2048, 0, 0), (8192, 8, 0), (2048, CHUNKS_MAX + 1, 0), too_many] {
        let size = AreaSize { chunk_bytes: size.0, chunks: size.1, large: size.2 };
        assert!(matches!(Area::new(size), Err(AreaError::Size(_))), "{size:?}");
    }
}

#[test]
fn a_region_comes_and_goes_with_all_of_its_frames() {
    let size = AreaSize { chunk_bytes: 2048, chunks: 6, large: 1 };
    let (area, large) = Area::reserve(size, 3).unwrap();
    assert_eq!((area.regions(), area.frames_total(), large.len()), (0, 1, 1));
    let (mut first, mut second) = (area.grow(0).unwrap(), area.grow(2).unwrap());
    assert!(area.grow(2).is_err(), "it is mapped already");
    assert!(area.grow(3).is_err(), "there is no such region");
    assert_eq!((area.regions(), area.frames_total()), (2, 13));
    assert!(first.iter().all(|frame| area.region_of(frame) == Some(0)));
    assert!(second.iter().all(|frame| area.region_of(frame) == Some(2)));
    // Frames of different regions do not share a byte.
    let mut all: Vec<_> = first.iter_mut().chain(&mut second).collect();
    for (n, frame) in all.iter_mut().enumerate() {
        assert!(area.fill(frame, &vec![n as u8; area.packet_len_max()]));
    }
    assert!(all.iter().enumerate().all(|(n, frame)| area.bytes(frame).iter().all(|byte| *byte == n as u8)));
    let position = area.position(&second[1]);
    assert_eq!(position - area.origin(2), 2048 + 256, "a descriptor counts from its region");

    let missing = second.pop().unwrap();
    let mut second = area.shrink(2, second).expect_err("one frame is still out");
    second.push(first.pop().unwrap());
    let mut second = area.shrink(2, second).expect_err("one is of another region");
    first.extend(second.pop());
    second.push(missing);
    area.shrink(2, second).unwrap();
    assert_eq!((area.regions(), area.frames_total()), (1, 7));
    let again = area.grow(2).unwrap();
    assert!(again.iter().all(|frame| area.bytes(frame).is_empty()));
    assert_eq!(again.len(), 6);
}

/// Whatever the kernel's pages measure (the tests also run where they are of 16 KiB).
#[test]
fn every_region_begins_with_a_page() {
    for (chunk_bytes, chunks) in [(2048, 1), (2048, 3), (4096, 1), (4096, 5)] {
        let (area, _) = Area::reserve(AreaSize { chunk_bytes, chunks, large: 0 }, 3).unwrap();
        let mut frames: Vec<_> = (0..3).flat_map(|region| area.grow(region).unwrap()).collect();
        for region in 0..3 {
            let at = area.region_base(region).addr().get();
            assert!(
                at.is_multiple_of(rustix::param::page_size()),
                "{chunks} chunks of {chunk_bytes}: {at:#x}"
            );
        }
        for frame in &mut frames {
            let region = area.region_of(frame).unwrap() as u8;
            assert!(area.fill(frame, &[region + 1; 100]));
        }
        // A neighbour that is given back takes nothing with it.
        let middle: Vec<_> = frames.extract_if(.., |frame| area.region_of(frame) == Some(1)).collect();
        area.shrink(1, middle).unwrap();
        for frame in &frames {
            let region = area.region_of(frame).unwrap() as u8;
            assert!(area.bytes(frame).iter().all(|byte| *byte == region + 1), "{chunks} of {chunk_bytes}");
        }
    }
}

#[test]
fn a_region_that_was_given_back_has_no_memory() {
    let size = AreaSize { chunk_bytes: 2048, chunks: 1000, large: 0 };
    let (area, _) = Area::reserve(size, 2).unwrap();
    let mut frames = area.grow(1).unwrap();
    for frame in &mut frames {
        assert!(area.fill(frame, &[1; 60]));
    }
    let resident = |area: &Area| {
        let start = area.region_base(1).as_ptr() as usize;
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        let mut kib = 0;
        for line in smaps.lines() {
            if let Some((from, to)) = line.split_whitespace().next().and_then(|range| range.split_once('-'))
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                within = from <= start && start < to;
            }
            if let Some(rest) = line.strip_prefix("Rss:").filter(|_| within) {
                kib += rest.split_whitespace().next().unwrap().parse::<usize>().unwrap();
            }
        }
        kib
    };
    assert!(resident(&area) >= 2000, "{}", resident(&area));
    area.shrink(1, frames).unwrap();
    assert_eq!(resident(&area), 0);
}
