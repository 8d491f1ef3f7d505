use super::*;
use crate::memory::MemoryStores;
use crate::table::NodeId;
use skerry_types::ids::SLOTS;
use skerry_vector_index::{Merge, Metric, Record, Spec, Stored, Write};

#[test]
fn a_search_finds_the_shards_own_records_and_as_many_as_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec {
        dim: 1,
        metric: Metric::Dot,
        stored: Stored::F32,
        fields: Vec::new(),
    };
    let stores = Arc::new(MemoryStores::new(spec, 10));
    let me = NodeId::new("a").unwrap();
    let replica = Replica::open(ShardId(0), me, dir.path(), stores).unwrap();
    let slots = SlotSet::range(0, SLOTS / 2);
    // What is not the shard's is nearer than all that is.
    let records = (0..400).map(|at| {
        let id: Box<str> = format!("i{at}").into();
        let near = if slots.contains(slot_of(&id)) {
            1.0
        } else {
            2.0
        };
        Write::Upsert(Record {
            vector: vec![near],
            id,
            payload: Default::default(),
        })
    });
    replica.store().write(records.collect()).unwrap();
    let own = (0..400)
        .filter(|at| slots.contains(slot_of(&format!("i{at}"))))
        .count();
    for (k, want) in [(0, 0), (1, 1), (10, 10), (1_000, own)] {
        let query = Query {
            vectors: vec![vec![1.0]],
            merge: Merge::Best,
            k,
            ef: None,
            filter: None,
        };
        let lists = search_own(&replica, &slots, &[query]).unwrap();
        assert_eq!(lists[0].len(), want, "{k} asked for");
        assert!(
            lists[0]
                .iter()
                .all(|found| slots.contains(slot_of(&found.id)))
        );
    }
}
