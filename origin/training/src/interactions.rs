//! What training and evaluation read: items, and what users did with them, in order.

use crate::TrainError;
use skerry_types::{Attributes, ItemId, Taste};

/// Items, users or rows, at most: rows are counted in 32 bits.
pub const COUNT_MAX: usize = 1 << 28;

/// One event on an item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    pub user: u32,
    pub item: u32,
    pub at_ms: u64,
    pub taste: Taste,
    pub value: Option<f32>,
}

/// Items and rows. Rows are in the order of time; rows of one time are in the order in which they count.
#[derive(Debug, Clone, Default)]
pub struct Interactions {
    items: Vec<(ItemId, Attributes)>,
    users: u32,
    rows: Vec<Row>,
}

impl Interactions {
    /// # Errors
    /// [`TrainError::UnknownItem`] for a row on an item that is not given, [`TrainError::TooMany`],
    /// [`TrainError::OutOfOrder`] for rows that go back in time.
    pub fn new(items: Vec<(ItemId, Attributes)>, rows: Vec<Row>) -> Result<Self, TrainError> {
        if items.len() > COUNT_MAX || rows.len() > COUNT_MAX {
            return Err(TrainError::TooMany);
        }
        if let Some(row) = rows.iter().find(|row| row.item as usize >= items.len()) {
            return Err(TrainError::UnknownItem { item: row.item });
        }
        if rows.iter().any(|row| row.user as usize >= COUNT_MAX) {
            return Err(TrainError::TooMany);
        }
        if rows.windows(2).any(|pair| pair[0].at_ms > pair[1].at_ms) {
            return Err(TrainError::OutOfOrder);
        }
        let users = rows.iter().map(|row| row.user + 1).max().unwrap_or(0);
        Ok(Self { items, users, rows })
    }

    #[must_use]
    pub fn items(&self) -> &[(ItemId, Attributes)] {
        &self.items
    }

    /// One more than the largest user.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users as usize
    }

    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The same items with the rows for which `keep` holds.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(usize, &Row) -> bool) -> Self {
        let rows = self
            .rows
            .iter()
            .enumerate()
            .filter(|(at, row)| keep(*at, row))
            .map(|(_, row)| *row)
            .collect();
        Self {
            items: self.items.clone(),
            users: self.users,
            rows,
        }
    }

    /// Each user's rows in order, as indices into [`Interactions::rows`].
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "COUNT_MAX fits")]
    pub fn histories(&self) -> Vec<Vec<u32>> {
        let mut histories = vec![Vec::new(); self.users()];
        for (at, row) in self.rows.iter().enumerate() {
            histories[row.user as usize].push(at as u32);
        }
        histories
    }
}
