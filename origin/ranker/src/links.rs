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

/// One event's part in a link.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    pub from: u32,
    pub weight: f32,
    pub short: f32,
    pub long: f32,
    pub is_newest: bool,
}

/// Where items are in a list: places, open-addressed by item.
#[derive(Debug, Clone)]
struct Places {
    slots: Vec<u32>,
    shift: u32,
}

const FREE: u32 = u32::MAX;

impl Places {
    /// For at most `items` different items: then half of the slots stay free, and probing ends.
    fn with_capacity(items: usize) -> Self {
        let slots = (items * 2).next_power_of_two().max(16);
        Self {
            slots: vec![FREE; slots],
            shift: 64 - slots.trailing_zeros(),
        }
    }

    fn capacity(&self) -> usize {
        self.slots.len() / 2
    }

    /// The slot that holds the item's place, or the free one where it would go.
    #[expect(clippy::cast_possible_truncation, reason = "fewer slots than 2^32")]
    #[inline]
    fn slot(&self, item: u32, item_at: impl Fn(u32) -> u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (u64::from(item).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize;
        while self.slots[at] != FREE && item_at(self.slots[at]) != item {
            at = (at + 1) & mask;
        }
        at
    }
}

/// The links of one history.
#[derive(Debug, Clone)]
pub struct Links {
    places: Places,
    links: Vec<Link>,
}

impl Links {
    /// For at most `links` different items.
    pub fn with_capacity(links: usize) -> Self {
        Self {
            places: Places::with_capacity(links),
            links: Vec::with_capacity(links),
        }
    }

    /// Adds a share. Beyond the capacity promised, new items are dropped.
    #[expect(clippy::cast_possible_truncation, reason = "fewer links than slots")]
    pub fn add(&mut self, item: u32, share: Share) {
        let slot = self.places.slot(item, |at| self.links[at as usize].item);
        let at = self.places.slots[slot];
        let part = share.weight * share.long;
        if at == FREE {
            if self.links.len() < self.places.capacity() {
                self.places.slots[slot] = self.links.len() as u32;
                self.links.push(Link {
                    item,
                    short: share.weight * share.short,
                    long: part,
                    newest: if share.is_newest { share.weight } else { 0.0 },
                    strongest: share.weight,
                    count: 1,
                    because: share.from,
                    because_share: part,
                });
            }
            return;
        }
        let link = &mut self.links[at as usize];
        link.short += share.weight * share.short;
        link.long += part;
        link.strongest = link.strongest.max(share.weight);
        link.count += 1;
        if share.is_newest {
            link.newest += share.weight;
        }
        if part > link.because_share {
            link.because_share = part;
            link.because = share.from;
        }
    }

    #[inline]
    pub fn get(&self, item: u32) -> Option<&Link> {
        let slot = self.places.slot(item, |at| self.links[at as usize].item);
        self.links.get(self.places.slots[slot] as usize)
    }

    /// In the order in which they were first added.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    /// In the order of their slots: what sums over the links are defined in.
    pub fn iter_slots(&self) -> impl Iterator<Item = &Link> {
        // Without a branch: which slots are free cannot be foretold.
        let mut order = vec![0; self.places.slots.len()];
        let mut used = 0;
        for at in &self.places.slots {
            order[used] = *at;
            used += usize::from(*at != FREE);
        }
        order.truncate(used);
        order.into_iter().map(|at| &self.links[at as usize])
    }

    pub fn len(&self) -> usize {
        self.links.len()
    }
}

/// A set of rows.
#[derive(Debug)]
pub struct RowSet {
    places: Places,
}

impl RowSet {
    /// For at most `rows` different rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            places: Places::with_capacity(rows),
        }
    }

    /// Whether the row is new. [`FREE`] is no row of any model, and never new.
    #[inline]
    pub fn insert(&mut self, row: u32) -> bool {
        let slot = self.places.slot(row, |row| row);
        let is_new = self.places.slots[slot] != row;
        self.places.slots[slot] = row;
        is_new
    }

    #[inline]
    pub fn has(&self, row: u32) -> bool {
        self.places.slots[self.places.slot(row, |row| row)] == row
    }
}
