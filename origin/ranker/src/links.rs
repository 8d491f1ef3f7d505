//! What follows the last events of one history: a small open-addressing table, since a user's links
//! are a thousand out of a catalogue of any size.

/// What links an item to the history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    pub item: u32,
    /// Weights summed over the last few events, and over more of them with a slower decay.
    pub short: f32,
    pub long: f32,
    /// Weight from the newest event alone, and the largest from any.
    pub newest: f32,
    pub strongest: f32,
    pub count: u16,
    /// The event's item with the largest share of `short`.
    pub because: u32,
    because_share: f32,
}

const FREE: u32 = u32::MAX;
const EMPTY: Link = Link {
    item: FREE,
    short: 0.0,
    long: 0.0,
    newest: 0.0,
    strongest: 0.0,
    count: 0,
    because: 0,
    because_share: -1.0,
};

/// One event's part in a link.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    pub from: u32,
    pub weight: f32,
    pub short: f32,
    pub long: f32,
    pub is_newest: bool,
}

#[derive(Debug, Clone)]
pub struct Links {
    slots: Vec<Link>,
    shift: u32,
    used: usize,
}

impl Links {
    /// For at most `links` different items.
    pub fn with_capacity(links: usize) -> Self {
        let slots = (links * 2).next_power_of_two().max(16);
        Self {
            slots: vec![EMPTY; slots],
            shift: 64 - slots.trailing_zeros(),
            used: 0,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "fewer slots than 2^32")]
    fn start(&self, item: u32) -> usize {
        (u64::from(item).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    /// Adds a share. Beyond the capacity promised, new items are dropped.
    pub fn add(&mut self, item: u32, share: Share) {
        let mask = self.slots.len() - 1;
        let mut at = self.start(item);
        while self.slots[at].item != item {
            if self.slots[at].item == FREE {
                if self.used * 4 > self.slots.len() * 3 {
                    return;
                }
                self.used += 1;
                self.slots[at].item = item;
                break;
            }
            at = (at + 1) & mask;
        }
        let link = &mut self.slots[at];
        link.short += share.weight * share.short;
        link.long += share.weight * share.long;
        link.strongest = link.strongest.max(share.weight);
        link.count += 1;
        if share.is_newest {
            link.newest += share.weight;
        }
        let part = share.weight * share.long;
        if part > link.because_share {
            link.because_share = part;
            link.because = share.from;
        }
    }

    pub fn get(&self, item: u32) -> Option<&Link> {
        let mask = self.slots.len() - 1;
        let mut at = self.start(item);
        loop {
            let link = &self.slots[at];
            if link.item == item && item != FREE {
                return Some(link);
            }
            if link.item == FREE {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    /// In an order that depends on the items alone.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.slots.iter().filter(|link| link.item != FREE)
    }
}
