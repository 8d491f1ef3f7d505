//! Which replicas have every acknowledged write. Pure: the leader feeds it acknowledgements and asks
//! what is confirmed; changes of the set go through coordination first where they take a member out,
//! and are counted here first where they add one.
//!
//! Invariants: a write counts as confirmed when every member has it on disk; where a shard has several
//! replicas the leader alone confirms nothing; a replica joins only when it has all that was
//! confirmed, in this term or before it.

use crate::table::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// A follower that lacks no more records than this may join, and serves searches.
pub const LAG_RECORDS_MAX: u64 = 20_000;

#[derive(Debug)]
pub struct Tracker {
    me: NodeId,
    /// Whether the shard is meant to have this replica alone.
    alone: bool,
    /// Whether a member that has not been heard in this term yet is waited for, as one that lags.
    patient: bool,
    /// Who was connected in this term.
    heard: BTreeSet<NodeId>,
    members: BTreeSet<NodeId>,
    /// What followers that are connected have on disk.
    acked: BTreeMap<NodeId, u64>,
    head: u64,
    confirmed: u64,
    /// Where the leader's log ended when its term began: all of it may have been confirmed before.
    floor: u64,
}

impl Tracker {
    /// At the beginning of a term everything in the leader's log is on its way to be confirmed.
    #[must_use]
    pub fn new(
        me: NodeId,
        members: impl IntoIterator<Item = NodeId>,
        replicas: usize,
        head: u64,
    ) -> Self {
        let mut tracker = Self {
            me: me.clone(),
            alone: replicas <= 1,
            patient: false,
            heard: BTreeSet::new(),
            members: members.into_iter().collect(),
            acked: BTreeMap::new(),
            head,
            confirmed: 0,
            floor: head,
        };
        tracker.members.insert(me);
        tracker.count();
        tracker
    }

    fn others(&self) -> impl Iterator<Item = &NodeId> {
        self.members.iter().filter(|node| **node != self.me)
    }

    fn count(&mut self) {
        let acked = |node: &NodeId| self.acked.get(node).copied().unwrap_or(0);
        let least = match self.others().map(acked).min() {
            Some(least) => least,
            None if self.alone => self.head,
            None => 0,
        };
        self.confirmed = self.confirmed.max(least.min(self.head));
    }

    /// The leader's log has grown.
    pub fn on_head(&mut self, seq: u64) {
        self.head = self.head.max(seq);
        self.count();
    }

    pub fn on_ack(&mut self, node: &NodeId, seq: u64) {
        let acked = self.acked.entry(node.clone()).or_insert(0);
        *acked = (*acked).max(seq);
        self.heard.insert(node.clone());
        self.count();
    }

    /// A follower's stream has ended: it is not known any more what it has.
    pub fn on_gone(&mut self, node: &NodeId) {
        self.acked.remove(node);
    }

    /// The table has changed how many replicas there are, or whether they are being changed.
    pub fn on_replicas(&mut self, replicas: usize, patient: bool) {
        self.alone = replicas <= 1;
        self.patient = patient;
        self.count();
    }

    /// How many of `nodes` are members and connected; this node counts as such.
    #[must_use]
    pub fn present<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> usize {
        let present = |node: &&NodeId| **node == self.me || self.acked.contains_key(*node);
        let members = nodes
            .into_iter()
            .filter(|node| self.members.contains(*node));
        members.filter(present).count()
    }

    /// Whether a follower whose log ends at `seq` is counted as a member and cannot be one: its disk was
    /// lost.
    #[must_use]
    pub fn has_lost(&self, node: &NodeId, seq: u64) -> bool {
        // In a new term it is not known yet what a member has; one with nothing has lost all.
        let lost = seq < self.confirmed || (seq == 0 && self.floor > 0);
        lost && self.members.contains(node)
    }

    /// Up to here every member has the log.
    #[must_use]
    pub const fn confirmed(&self) -> u64 {
        self.confirmed
    }

    #[must_use]
    pub fn members(&self) -> Vec<NodeId> {
        self.members.iter().cloned().collect()
    }

    /// Whether a write could be confirmed at all.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.alone || self.members.len() >= 2
    }

    pub fn set_members(&mut self, members: impl IntoIterator<Item = NodeId>) {
        self.members = members.into_iter().collect();
        self.members.insert(self.me.clone());
        self.count();
    }

    /// Who is no member and could be: connected, and not far behind.
    #[must_use]
    pub fn joiners(&self) -> Vec<NodeId> {
        let has_all = self.confirmed.max(self.floor);
        let near = |seq: u64| seq >= has_all && self.head.saturating_sub(seq) <= LAG_RECORDS_MAX;
        let ready = self
            .acked
            .iter()
            .filter(|(node, seq)| near(**seq) && !self.members.contains(*node));
        ready.map(|(node, _)| node.clone()).collect()
    }

    /// The set without those that lack `seq` (those that are gone alone, where `gone`): none where
    /// nobody would be left beside a leader that is not meant to be alone, for then nothing could be
    /// confirmed, and those who have everything must stay known.
    #[must_use]
    pub fn without_laggards(&self, seq: u64, gone: bool) -> Option<Vec<NodeId>> {
        let lags = |node: &NodeId| match self.acked.get(node) {
            None => !(gone && self.patient) || self.heard.contains(node),
            Some(acked) => !gone && *acked < seq,
        };
        let left: Vec<NodeId> = self
            .members
            .iter()
            .filter(|node| **node == self.me || !lags(node))
            .cloned()
            .collect();
        let least = if self.alone { 1 } else { 2 };
        (left.len() < self.members.len() && left.len() >= least).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn three() -> Tracker {
        Tracker::new(node("a"), [node("b"), node("c")], 3, 10)
    }

    #[test]
    fn a_write_is_confirmed_by_every_member() {
        let mut tracker = three();
        tracker.on_ack(&node("b"), 10);
        assert_eq!(tracker.confirmed(), 0, "c may have nothing");
        tracker.on_ack(&node("c"), 8);
        assert_eq!(tracker.confirmed(), 8);
        tracker.on_ack(&node("b"), 99);
        tracker.on_ack(&node("c"), 99);
        assert_eq!(tracker.confirmed(), 10, "never beyond the leader's own log");
    }

    #[test]
    fn who_lags_goes_unless_nobody_would_be_left() {
        let mut tracker = three();
        tracker.on_ack(&node("b"), 10);
        tracker.on_ack(&node("c"), 4);
        assert_eq!(tracker.without_laggards(10, true), None, "both are there");
        assert_eq!(
            tracker.without_laggards(10, false).unwrap(),
            [node("a"), node("b")]
        );
        tracker.set_members([node("a"), node("b")]);
        assert_eq!(tracker.confirmed(), 10);
        tracker.on_gone(&node("b"));
        tracker.on_head(11);
        assert_eq!(
            tracker.without_laggards(11, true),
            None,
            "b has everything, and stays known"
        );
        assert_eq!(tracker.confirmed(), 10);
        assert_eq!(
            tracker.joiners(),
            [] as [NodeId; 0],
            "c lacks what was confirmed"
        );
        tracker.on_ack(&node("c"), 10);
        assert_eq!(tracker.joiners(), [node("c")]);
    }

    #[test]
    fn a_leader_alone_confirms_only_where_the_table_says_so() {
        let mut tracker = Tracker::new(node("a"), [], 3, 0);
        tracker.on_head(5);
        assert!(!tracker.is_enough());
        assert_eq!(tracker.confirmed(), 0);
        let mut tracker = Tracker::new(node("a"), [], 1, 0);
        tracker.on_head(5);
        assert!(tracker.is_enough());
        assert_eq!(tracker.confirmed(), 5);
    }

    #[test]
    fn a_far_follower_does_not_join() {
        let mut tracker = Tracker::new(node("a"), [], 2, 0);
        tracker.on_head(LAG_RECORDS_MAX + 2);
        tracker.on_ack(&node("b"), 1);
        assert_eq!(tracker.joiners(), [] as [NodeId; 0]);
        tracker.on_ack(&node("b"), 2);
        assert_eq!(tracker.joiners(), [node("b")]);
    }

    #[test]
    fn while_replicas_change_who_was_not_heard_yet_lags_and_is_not_gone() {
        let mut tracker = three();
        tracker.on_replicas(3, true);
        tracker.on_ack(&node("b"), 10);
        assert_eq!(tracker.without_laggards(10, true), None);
        assert_eq!(
            tracker.without_laggards(10, false).unwrap(),
            [node("a"), node("b")]
        );
        tracker.on_ack(&node("c"), 4);
        tracker.on_gone(&node("c"));
        assert!(tracker.without_laggards(10, true).is_some(), "it was here");
        let all = [node("a"), node("b"), node("c"), node("d")];
        assert_eq!(tracker.present(&all), 2);
    }

    #[test]
    fn a_single_replica_goes_on_without_the_one_that_was_to_take_its_place() {
        let mut tracker = Tracker::new(node("a"), [node("b")], 1, 0);
        tracker.on_ack(&node("b"), 0);
        tracker.on_head(5);
        assert_eq!(tracker.confirmed(), 0, "a member confirms");
        tracker.on_gone(&node("b"));
        assert_eq!(tracker.without_laggards(5, true).unwrap(), [node("a")]);
    }

    #[test]
    fn a_member_that_comes_with_less_than_it_confirmed_has_lost_its_disk() {
        let mut tracker = three();
        let b = node("b");
        assert!(tracker.has_lost(&b, 0), "something was there before");
        assert!(!tracker.has_lost(&b, 3), "not everything need be there");
        tracker.on_ack(&b, 10);
        tracker.on_ack(&node("c"), 7);
        assert!(tracker.has_lost(&b, 6) && !tracker.has_lost(&b, 7));
        assert!(!tracker.has_lost(&node("d"), 0), "no member");
    }

    #[test]
    fn who_lacks_what_an_earlier_leader_confirmed_does_not_join() {
        // The other member is away, so that nothing is confirmed in this term yet.
        let mut tracker = Tracker::new(node("a"), [node("b")], 3, 10);
        tracker.on_ack(&node("c"), 9);
        assert_eq!(tracker.confirmed(), 0);
        assert_eq!(tracker.joiners(), [] as [NodeId; 0]);
        tracker.on_ack(&node("c"), 10);
        assert_eq!(tracker.joiners(), [node("c")]);
    }
}
