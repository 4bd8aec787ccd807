//! Links: FIFO streams from node to node that are cut, stall, reset and heal; and, where a run asks for it, datagrams that are
//! lost, doubled and overtaken, which the protocol must bear too.

use crate::rng::Rng;

/// One direction between two nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// Cuts in force.
    pub cuts: u32,
    /// Nothing arrives before.
    pub stalled_until: u64,
    /// When the last message arrives: later ones come after it.
    last: u64,
    /// Rises with each reset; what was on its way before is lost.
    pub connection: u32,
}

/// How all links behave now.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub latency: u64,
    /// In a thousand.
    pub loss: u32,
    pub double: u32,
    /// Messages may overtake each other.
    pub reorder: bool,
}

/// When copies of a message arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    pub first: Option<u64>,
    pub second: Option<u64>,
}

impl Link {
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cuts > 0
    }

    pub fn send(&mut self, now: u64, weather: &Weather, rng: &mut Rng) -> Arrivals {
        if self.is_cut() || rng.chance(weather.loss) {
            return Arrivals::default();
        }
        let mut at = (now + rng.spread(weather.latency)).max(self.stalled_until);
        if !weather.reorder {
            at = at.max(self.last + 1);
            self.last = at;
        }
        let second = rng.chance(weather.double).then(|| at + rng.spread(weather.latency * 4));
        Arrivals { first: Some(at), second }
    }
}
