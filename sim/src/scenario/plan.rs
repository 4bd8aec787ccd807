//! A scenario from a seed. Each run draws which fault families exist at all (swarm), how hard it is driven, and on
//! which time scale people talk.

use super::fault::{Fault, Fields, Keep, Kind, Of};
use super::line::Span;
use super::{Node, Population, Quiet, Run, Scenario, Size, Timing};
use crate::clock::{MS, SEC, US};
use crate::rng::Rng;

/// The scenario of a seed, with at least `events` inputs.
#[must_use]
pub fn generate(seed: u64, events: u64) -> Scenario {
    let mut rng = Rng::fork(seed, "plan", 0);
    let think: u64 = *rng.pick(&[20 * MS, 100 * MS, 100 * MS, 500 * MS, 500 * MS, 5 * SEC, 20 * SEC]);
    let population = population(&mut rng, think);
    let devices = u64::from(population.users * population.devices.div_ceil(2));
    // About 25 inputs per action; the run goes on until the events are reached.
    let length = (events / 25 / devices.max(1) * think).clamp(3 * SEC, 3600 * SEC) / MS * MS;
    let mut s = Scenario {
        seed,
        node: node(&mut rng),
        time: timing(&mut rng),
        run: Run {
            length: Span(length),
            events,
            quiet: if rng.chance(400) { Quiet::Long } else { Quiet::Short },
            drift: if rng.chance(300) { rng.between(0, 600) as i64 - 300 } else { 0 },
            restart: false,
        },
        populations: vec![population],
        ..Scenario::default()
    };
    s.faults = faults(&mut Rng::fork(seed, "faults", 0), length, s.node.shards);
    s.run.restart = s.faults.iter().any(|f| f.kind == Kind::Read);
    s
}

fn node(rng: &mut Rng) -> Node {
    let size = |rng: &mut Rng| *rng.pick(&[Size::Zero, Size::Small, Size::Large]);
    Node {
        shards: *rng.pick(&[1, 1, 2, 2, 3, 4, 8]),
        slots: *rng.pick(&[1, 4, 16, 64, 64]),
        overlay: size(rng),
        dedup: size(rng),
        credit: size(rng),
        tokens: rng.chance(100),
        hash: 0,
    }
}

fn timing(rng: &mut Rng) -> Timing {
    Timing {
        net: *rng.pick(&[(200 * US, 5 * MS), (50 * US, 300 * US), (5 * MS, 200 * MS)]),
        mail: *rng.pick(&[(US, 50 * US), (US, 2 * MS), (100 * US, 20 * MS)]),
        load: *rng.pick(&[(20 * US, 2 * MS), (5 * US, 100 * US), (MS, 20 * MS)]),
        sync: *rng.pick(&[(100 * US, 3 * MS), (20 * US, 200 * US), (5 * MS, 80 * MS)]),
        turn: *rng.pick(&[(0, 20 * US), (0, 0), (10 * US, 2 * MS)]),
        inputs: *rng.pick(&[1, 4, 16, 128]),
        chunk: *rng.pick(&[0, 100, 500]),
        lazy: *rng.pick(&[Span(SEC), Span(SEC), Span(100 * MS)]),
    }
}

fn population(rng: &mut Rng, think: u64) -> Population {
    let on = |rng: &mut Rng, share: u32, weight: u32| if rng.chance(share) { weight } else { 0 };
    Population {
        users: rng.pick(&[2, 3, 6, 12, 25]).to_owned(),
        devices: *rng.pick(&[1, 2, 3]),
        peers: *rng.pick(&[1, 2, 4]),
        think: Span(think),
        burst: *rng.pick(if think > 200 * MS { &[1, 3, 3, 40] } else { &[1, 3, 3, 6] }),
        payload: *rng.pick(&[16, 64, 64, 3_000]),
        ack: *rng.pick(&[1000, 950, 700, 0]),
        ping: *rng.pick(&[1000, 900, 500]),
        backoff: Span(*rng.pick(&[10 * MS, 500 * MS, 3 * SEC])),
        send: 100,
        cut: on(rng, 500, 5),
        bye: on(rng, 300, 3),
        idle: on(rng, 400, 4),
        garbage: on(rng, 300, 2),
        freeze: on(rng, 300, 2),
        sync: on(rng, 600, 8),
        token: on(rng, 200, 2),
        again: on(rng, 500, 30),
        conflict: on(rng, 300, 10),
        badkey: on(rng, 300, 10),
        badchannel: on(rng, 300, 10),
        nokey: on(rng, 300, 30),
        plain: on(rng, 300, 30),
        myself: on(rng, 300, 20),
    }
}

fn faults(rng: &mut Rng, length: u64, shards: u8) -> Vec<Fault> {
    let mut faults = Vec::new();
    if rng.chance(120) {
        return faults;
    }
    for kind in Kind::ALL {
        let (share, most) = match kind {
            Kind::Crash => (600, 6),
            Kind::Stall | Kind::Jump => (250, 2),
            Kind::Io | Kind::Full | Kind::Read => (120, 1),
            Kind::Pause | Kind::Slow | Kind::Storm | Kind::Freeze | Kind::Stop => (250, 2),
        };
        if !rng.chance(share) {
            continue;
        }
        for _ in 0..rng.between(1, most) {
            let fields = episode(rng, kind, length, shards);
            // A clock that goes back hurts most when the process starts again soon after.
            if kind == Kind::Jump && fields.by < 0 && rng.chance(500) {
                let at = Span(fields.at.0 + rng.between(0, 300) * MS);
                let down = Span(rng.between(1, 50) * MS);
                faults.push(Fault {
                    kind: Kind::Crash,
                    fields: Fields { at, down, keep: Keep::All, ..Fields::default() },
                });
            }
            faults.push(Fault { kind, fields });
        }
    }
    faults.sort_by_key(|f| (f.fields.at, f.kind));
    faults
}

fn episode(rng: &mut Rng, kind: Kind, length: u64, shards: u8) -> Fields {
    let at = Span(rng.between(length / 20, length) / US * US);
    let ms = |rng: &mut Rng, from: u64, to: u64| Span(rng.between(from, to) * MS);
    let mut f = Fields { at, ..Fields::default() };
    match kind {
        Kind::Crash => {
            f.after = *rng.pick(&[0, 1, 2, 3, 5, 9, 20]);
            f.of = *rng.pick(&[Of::Outputs, Of::Outputs, Of::Persists, Of::Syncs, Of::Acks, Of::Recvs, Of::Mails]);
            f.keep = *rng.pick(&[Keep::Synced, Keep::All, Keep::Some]);
            f.down = ms(rng, 1, 3_000);
        }
        Kind::Stop => f.down = ms(rng, 1, 2_000),
        Kind::Stall => f.span = ms(rng, 50, 14_000),
        Kind::Slow => {
            f.span = ms(rng, 100, 20_000);
            f.by = rng.between(5, 700) as i64;
        }
        Kind::Full | Kind::Io | Kind::Read => f.span = ms(rng, 10, 3_000),
        // Within the run, so that a time is lived twice; or by up to an hour.
        Kind::Jump if rng.chance(500) => f.by = -(rng.between(1, length / MS) as i64),
        Kind::Jump => f.by = rng.between(0, 7_200_000) as i64 - 3_600_000,
        Kind::Pause => {
            f.span = ms(rng, 10, 12_000);
            f.shard = if rng.chance(300) { 255 } else { rng.below(u64::from(shards)) as u8 };
        }
        Kind::Storm => f.share = rng.between(200, 1000) as u32,
        Kind::Freeze => {
            f.span = ms(rng, 100, 30_000);
            f.share = rng.between(50, 500) as u32;
        }
    }
    f
}
