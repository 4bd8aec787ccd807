//! How fast the simulator is, on one core.

use crate::heap::Heap;
use crate::run::run;
use crate::scenario::plan;
use crate::world::Mode;
use std::time::Instant;
use wukong_core::Shard;

/// Prints three speeds: the heap alone, machines without oracles, everything.
pub fn speed(seeds: u64, events: u64) {
    let began = Instant::now();
    let mut heap: Heap<[u64; 12]> = Heap::default();
    (0..1_000).for_each(|i| heap.add(i, [i; 12]));
    let n = 10_000_000;
    for i in 0..n {
        let Some((at, event)) = heap.take() else { break };
        heap.add(at + (i * 7_919) % 1_000 + 1, event);
    }
    println!("heap alone            {:>10.0} events/s", n as f64 / began.elapsed().as_secs_f64());
    for (name, oracles) in [("without oracles", false), ("all oracles", true)] {
        let began = Instant::now();
        let (mut inputs, mut heap, mut simulated) = (0, 0, 0);
        for seed in 0..seeds {
            let o = run::<Shard>(plan::generate(seed, events), Mode { oracles, ..Mode::default() });
            inputs += o.handled;
            heap += o.popped;
            simulated += o.simulated;
        }
        let took = began.elapsed().as_secs_f64();
        println!(
            "{name:<21} {:>10.0} inputs/s  {:>10.0} heap events/s  {:>8.0} : 1 of real time  {:.1} seeds/s",
            f64::from(u32::try_from(inputs).unwrap_or(u32::MAX)) / took,
            heap as f64 / took,
            simulated as f64 / 1e9 / took,
            seeds as f64 / took
        );
    }
}
