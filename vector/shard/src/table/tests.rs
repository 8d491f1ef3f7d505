use super::*;
use crate::slots::slot_of;
use proptest::prelude::*;
use skerry_types::TenantId;

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn table(shards: usize) -> ShardTable {
    Draft::first(&vec![vec![node("a"), node("b")]; shards])
        .unwrap()
        .settle(1)
        .unwrap()
}

/// What every table must be: each slot has one shard, which has it in its set.
fn check(table: &ShardTable) {
    let total: u32 = table.shards().iter().map(|shard| shard.slots.len()).sum();
    assert_eq!(total, u32::from(SLOTS));
    for slot in 0..SLOTS {
        let owners = table
            .shards()
            .iter()
            .filter(|shard| shard.slots.contains(Slot(slot)));
        let owners: Vec<ShardId> = owners.map(|shard| shard.id).collect();
        assert_eq!(owners.len(), 1, "slot {slot}");
        assert_eq!(table.owner(Slot(slot)).unwrap().id, owners[0]);
    }
    let stored = ShardTable::decode(&table.encode().unwrap(), table.epoch()).unwrap();
    assert_eq!(&stored, table, "what is stored is what was meant");
}

#[derive(Debug, Clone)]
enum Step {
    Split(usize),
    Move(usize, usize, u16, u16),
    Flip(u64),
    Abort,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..8).prop_map(Step::Split),
        (0usize..8, 0usize..8, 0..SLOTS, 0..SLOTS).prop_map(|(a, b, f, l)| Step::Move(a, b, f, l)),
        (0u64..1_000).prop_map(Step::Flip),
        Just(Step::Abort),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_happens_each_slot_has_one_shard(steps in proptest::collection::vec((step(), 1u64..5), 1..30)) {
        let mut now = table(3);
        let mut born: Vec<ShardId> = now.shards().iter().map(|shard| shard.id).collect();
        for (step, ahead) in steps {
            let id = |at: usize| now.shards()[at % now.shards().len()].id;
            let migration = now.migration().map_or(0, |migration| migration.id);
            let draft = match step {
                Step::Split(at) => now.split(id(at), &[]),
                Step::Move(from, to, first, last) => {
                    let slots = now.shard(id(from)).unwrap().slots.iter().filter(|slot| (first..=last).contains(slot));
                    now.move_slots(id(from), id(to), slots.collect())
                }
                Step::Flip(base) => now.flip(migration, base),
                Step::Abort => now.abort(migration),
            };
            let Ok(draft) = draft else { continue };
            prop_assert!(draft.clone().settle(now.epoch()).is_err(), "an epoch is not used twice");
            let flips = matches!(step, Step::Flip(_));
            let next = draft.settle(now.epoch() + ahead).unwrap();
            check(&next);
            for shard in next.shards() {
                let before = now.shard(shard.id);
                if before.is_none() {
                    prop_assert!(!born.contains(&shard.id), "an id is not used again");
                    born.push(shard.id);
                }
                let changed = before.is_some_and(|before| before.slots != shard.slots);
                prop_assert!(!changed || flips, "slots change hands in a flip alone");
                if let Some(before) = before {
                    let since = if changed { next.epoch() } else { before.since };
                    prop_assert_eq!(shard.since, since);
                    prop_assert!(shard.base_seq >= before.base_seq);
                }
            }
            now = next;
        }
    }

    #[test]
    fn sets_do_as_sets_do(a in proptest::collection::btree_set(0u16..200, 0..80), b in proptest::collection::btree_set(0u16..200, 0..80)) {
        let set = |slots: &std::collections::BTreeSet<u16>| slots.iter().copied().collect::<SlotSet>();
        let (x, y) = (set(&a), set(&b));
        prop_assert_eq!(x.plus(&y), set(&a.union(&b).copied().collect()));
        prop_assert_eq!(x.minus(&y), set(&a.difference(&b).copied().collect()));
        prop_assert_eq!(x.covers(&y), b.is_subset(&a));
        prop_assert_eq!(x.len() as usize, a.len());
        for slot in 0..210 {
            prop_assert_eq!(x.contains(Slot(slot)), a.contains(&slot));
        }
        if !a.is_empty() {
            prop_assert_eq!(x.to_string().parse::<SlotSet>().unwrap(), x.clone());
        }
        prop_assert_eq!(SlotSet::try_from(Vec::from(x.clone())).unwrap(), x);
    }

    #[test]
    fn no_bytes_make_a_wrong_table(at in 0usize..400, byte in any::<u8>()) {
        let mut bytes = table(5).encode().unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(table) = ShardTable::decode(&bytes, 9) {
            check(&table);
        }
    }
}

#[test]
fn an_eleventh_shard_moves_a_ninth_of_a_tenth() {
    let mut now = table(10);
    let before = now.clone();
    let moves = now.shares_for_one_more();
    let mut to = None;
    for (from, slots) in moves {
        let draft = match to {
            None => now.split(from, &[]).unwrap(),
            Some(to) => now.move_slots(from, to, slots.clone()).unwrap(),
        };
        let mut next = draft.settle(now.epoch() + 1).unwrap();
        if to.is_none() {
            // A split takes half: give it up for a new, empty shard, and take the fair share.
            to = Some(next.migration().unwrap().to);
            next.body.migration.as_mut().unwrap().slots = slots;
        }
        let id = next.migration().unwrap().id;
        now = next.flip(id, 0).unwrap().settle(next.epoch() + 1).unwrap();
        check(&now);
    }
    let moved = (0..SLOTS)
        .filter(|slot| before.owner(Slot(*slot)).unwrap().id != now.owner(Slot(*slot)).unwrap().id)
        .count();
    let share = moved as f64 / f64::from(SLOTS);
    println!(
        "10 -> 11 shards: {moved} of {SLOTS} slots move ({:.2} %)",
        share * 100.0
    );
    assert!((0.088..=0.091).contains(&share), "{share}");
    let by_modulo = (0..SLOTS).filter(|slot| slot % 10 != slot % 11).count();
    assert!(
        by_modulo as f64 / f64::from(SLOTS) > 0.9,
        "what slots spare"
    );
    let counts = now.shards().iter().map(|shard| shard.slots.len());
    assert!(counts.clone().max().unwrap() - counts.min().unwrap() <= 10);
}

#[test]
fn what_is_refused_is_named() {
    let now = table(2);
    let (zero, one, nine) = (ShardId(0), ShardId(1), ShardId(9));
    let few = SlotSet::range(0, 9);
    let busy = now.split(zero, &[]).unwrap().settle(5).unwrap();
    let cases = [
        (now.split(nine, &[]), TableError::NoShard(nine)),
        (
            now.move_slots(one, zero, few.clone()),
            TableError::NotOwned(one),
        ),
        (
            now.move_slots(zero, one, SlotSet::default()),
            TableError::NotOwned(zero),
        ),
        (
            now.move_slots(zero, zero, few.clone()),
            TableError::Same(zero),
        ),
        (
            now.move_slots(zero, nine, few.clone()),
            TableError::NoShard(nine),
        ),
        (busy.split(one, &[]), TableError::Busy(5)),
        (busy.move_slots(zero, one, few), TableError::Busy(5)),
        (busy.flip(4, 0), TableError::NoMigration(4)),
        (now.abort(1), TableError::NoMigration(1)),
        (
            now.split(zero, &[node("a"), node("a")]),
            TableError::Replicas(ShardId(2)),
        ),
    ];
    for (got, want) in cases {
        assert_eq!(got.unwrap_err(), want);
    }
    let gone = busy.abort(5).unwrap().settle(6).unwrap();
    assert_eq!(
        gone.shards().len(),
        2,
        "a new shard goes with its migration"
    );
    let again = gone.split(zero, &[]).unwrap().settle(7).unwrap();
    assert_eq!(
        again.migration().unwrap().to,
        ShardId(3),
        "its number does not come back"
    );
}

#[test]
fn a_record_has_the_slot_of_its_tenant_and_id() {
    let tenant = TenantId::new("shop").unwrap();
    assert_eq!(slot_of("shop\u{1f}42"), Slot::of(&tenant, "42"));
    assert_eq!(slot_of("42"), Slot::of(&TenantId::default(), "42"));
}

#[test]
fn replicas_change_by_way_of_both_lists() {
    let names = |text: &str| -> Vec<NodeId> { text.split(' ').map(node).collect() };
    let now = table(2);
    let (zero, one) = (ShardId(0), ShardId(1));
    let begun = now.replace(zero, &names("b c"), 2).unwrap();
    let begun = begun.settle(5).unwrap();
    check(&begun);
    let entry = begun.shard(zero).unwrap();
    assert_eq!(entry.replicas, names("a b c"));
    assert_eq!(entry.since, 1, "no slot has changed hands");
    let placing = begun.placing(zero).unwrap();
    assert_eq!((placing.id, placing.need(), placing.copies()), (5, 2, 2));
    assert_eq!(placing.fresh().collect::<Vec<_>>(), [&node("c")]);
    assert_eq!(begun.shard(one), now.shard(one));

    let done = begun.placed_as(zero, 5).unwrap().settle(6).unwrap();
    check(&done);
    assert_eq!(done.shard(zero).unwrap().replicas, names("b c"));
    assert_eq!(done.placing(zero), None);
    assert_eq!(
        done.encode().unwrap(),
        {
            let mut plain = done.clone();
            plain.epoch = 1;
            plain.encode().unwrap()
        },
        "without a change under way, a table is stored as ever"
    );

    // Another list, and back to the nodes of before: none is dropped before its time.
    let other = begun.replace(zero, &names("d"), 9).unwrap();
    let other = other.settle(7).unwrap();
    check(&other);
    assert_eq!(other.shard(zero).unwrap().replicas, names("a b c d"));
    let placing = other.placing(zero).unwrap();
    assert_eq!(
        (placing.id, placing.held, &placing.from),
        (7, 2, &names("a b"))
    );
    let back = other.put_back(zero).unwrap().settle(8).unwrap();
    check(&back);
    assert_eq!(back.placing(zero).unwrap().to, names("a b"));
    let back = back.placed_as(zero, 8).unwrap().settle(9).unwrap();
    assert_eq!(back.shards(), now.shards());

    let many = names("b c d e f g h");
    let split = now.split(zero, &[]).unwrap().settle(5).unwrap();
    let refused = [
        (
            now.replace(zero, &names("b a"), 2),
            TableError::Replicas(zero),
        ),
        (now.replace(zero, &[], 2), TableError::Replicas(zero)),
        (
            now.replace(zero, &names("c c"), 2),
            TableError::Replicas(zero),
        ),
        (now.replace(zero, &many, 2), TableError::Replicas(zero)),
        (
            now.replace(ShardId(9), &names("c"), 2),
            TableError::NoShard(ShardId(9)),
        ),
        (split.replace(zero, &names("c"), 2), TableError::Busy(5)),
        (
            split.replace(ShardId(2), &names("c"), 2),
            TableError::Busy(5),
        ),
        (begun.split(zero, &[]), TableError::Placing(zero)),
        (
            begun.move_slots(one, zero, SlotSet::range(9_000, 9_001)),
            TableError::Placing(zero),
        ),
        (now.put_back(zero), TableError::NoPlacing(zero)),
        (begun.placed_as(zero, 4), TableError::NoPlacing(zero)),
    ];
    for (got, want) in refused {
        assert_eq!(got.unwrap_err(), want);
    }
    assert!(begun.split(one, &[]).is_ok(), "the other shard may");
}
