use super::*;
use crate::tests::world::event as like;
use skerry_origin_events::{Log, Mode};
use skerry_types::EventKind;
use std::sync::Arc;

const K: usize = 10;

struct World {
    _dir: tempfile::TempDir,
    state: State,
    log: Log,
    trends: Arc<Trends>,
}

fn tenant() -> TenantId {
    TenantId::default()
}

fn open_in(dir: tempfile::TempDir, surfaces: &[Surface]) -> World {
    let state = State::open(dir.path(), false).unwrap();
    let reader = Log::reader_of(&state.db).unwrap();
    let trends = Trends::open(&state, &reader, &tenant(), surfaces, Kinds::default()).unwrap();
    let trends = Arc::new(trends);
    let log = Log::open(&state.db, vec![Arc::clone(&trends) as Arc<dyn Consumer>]).unwrap();
    World {
        _dir: dir,
        state,
        log,
        trends,
    }
}

impl World {
    fn open(surfaces: &[Surface]) -> Self {
        open_in(tempfile::tempdir().unwrap(), surfaces)
    }

    fn restart(self, surfaces: &[Surface]) -> Self {
        self.log.close();
        let Self {
            _dir: dir,
            state,
            log,
            trends,
        } = self;
        drop((state, log, trends));
        open_in(dir, surfaces)
    }

    /// `count` likes of an item, the first with this number.
    fn likes(&self, first: usize, count: usize, item: &str, surface: Option<&Surface>) {
        let events = (first..first + count).map(|n| {
            let mut event = like(&format!("e{n}"), "u", item, n as u64);
            event.surface = surface.cloned();
            event
        });
        let events = events.collect();
        self.log.append(events, Mode::Once, 1).unwrap();
    }

    /// Lists over a model that knows a, b, c with these trends.
    fn lists(&self) -> Vec<Ranked> {
        let trend = |item: &ItemId| match item.as_str() {
            "a" => 10.0,
            "b" => 5.0,
            "c" => 1.0,
            _ => 0.0,
        };
        let best = ["a", "b", "c"].map(|id| ItemId::new(id).unwrap());
        let base = Base {
            as_of_ms: 7,
            best: best.iter().map(|id| (id.clone(), trend(id))).collect(),
            trend: &trend,
        };
        self.trends
            .lists(&base, K, |item| item.as_str() != "unknown")
    }

    fn ids(&self, at: usize) -> Vec<String> {
        let lists = self.lists();
        lists[at]
            .items
            .iter()
            .map(|(id, _)| id.to_string())
            .collect()
    }
}

#[test]
fn events_since_training_add_to_the_model_and_old_ones_fade() {
    let world = World::open(&[]);
    let follow = |seq| world.trends.follow(world.log.reader(), seq, 8.0).unwrap();
    follow(0);
    assert_eq!(world.ids(0), ["a", "b", "c"]);
    assert_eq!(world.lists()[0].as_of_ms, 7);

    world.likes(0, 7, "new", None);
    assert_eq!(world.ids(0)[0], "new", "7 fresh ones against 10 faded ones");
    assert_eq!(world.lists()[0].as_of_ms, 7);
    world.likes(100, 1, "unknown", None);
    assert!(!world.ids(0).contains(&"unknown".to_owned()));
    assert_eq!(world.lists()[0].as_of_ms, 100);

    // Many half-lives later only the latest counts, and no number has overflowed.
    world.likes(1_000, 8_000, "late", None);
    let list = &world.lists()[0].items;
    assert_eq!(list[0].0.as_str(), "late");
    assert!(list[1].1 < 1e-6 && list.iter().all(|(_, score)| score.is_finite()));

    // A model that learned all of it starts from zero.
    let seq = world.log.reader().last_seq().unwrap();
    follow(seq);
    assert_eq!(world.ids(0), ["a", "b", "c"]);
    world.likes(20_000, 30, "c", None);
    assert_eq!(world.ids(0)[0], "c");
}

#[test]
fn what_is_no_sign_of_liking_moves_nothing() {
    let world = World::open(&[]);
    world.trends.follow(world.log.reader(), 0, 100.0).unwrap();
    let mut n = 0;
    let mut append = |change: &dyn Fn(&mut Event)| {
        n += 1;
        let mut event = like(&format!("n{n}"), "u", "c", 50);
        change(&mut event);
        world.log.append(vec![event], Mode::Upsert, 1).unwrap();
    };
    append(&|event| event.kind = EventKind::View);
    append(&|event| event.kind = EventKind::Dislike);
    append(&|event| event.kind = EventKind::Impression);
    append(&|event| event.kind = EventKind::Custom("finished".into()));
    append(&|event| (event.kind, event.value) = (EventKind::Rating, Some(3.0)));
    append(&|event| event.pop = IMPORTED.into());
    append(&|event| event.item = None);
    assert!(!world.trends.take_due(10_000, 0));
    assert_eq!(world.lists()[0].as_of_ms, 7);
    append(&|event| event.kind = EventKind::Click);
    assert!(world.trends.take_due(10_000, 0));
}

#[test]
fn lists_are_due_at_most_so_often_and_only_when_something_counted() {
    let world = World::open(&[]);
    world.trends.follow(world.log.reader(), 0, 100.0).unwrap();
    let due = |now| world.trends.take_due(now, 30_000);
    assert!(!due(1_000_000), "nothing happened");
    world.likes(0, 1, "c", None);
    assert!(due(1_000_001), "after a quiet time at once");
    assert!(!due(1_100_000), "nothing since");
    world.likes(1, 1, "c", None);
    assert!(due(1_100_000));
    world.likes(2, 1, "c", None);
    let cases = [
        (1_100_001, false),
        (1_129_999, false),
        (1_130_000, true),
        (1_190_000, false),
    ];
    for (now, want) in cases {
        assert_eq!(due(now), want, "{now}");
    }
    world.likes(3, 1, "c", None);
    assert!(due(5), "a clock that went back");
}

#[test]
fn a_surface_has_its_own_list_once_something_happened_there() {
    let [player, shop, other] = ["player", "shop", "other"].map(|name| Surface::new(name).unwrap());
    let surfaces = [player.clone(), shop];
    let world = World::open(&surfaces);
    world.trends.follow(world.log.reader(), 0, 1e6).unwrap();
    world.likes(0, 3, "b", Some(&other));
    assert_eq!(world.lists().len(), 1, "a surface that is not configured");
    world.likes(10, 400, "c", Some(&player));
    world.likes(500, 600, "a", None);
    let lists = world.lists();
    assert_eq!(lists.len(), 2);
    assert_eq!(lists[1].surface, Some(player));
    assert_eq!(world.ids(0)[..2], ["a", "c"]);
    assert_eq!(world.ids(1)[..2], ["c", "a"], "what happened there first");

    // Training does not make a surface forget.
    let seq = world.log.reader().last_seq().unwrap();
    world.trends.follow(world.log.reader(), seq, 1e6).unwrap();
    assert_eq!(world.ids(0)[0], "a");
    assert_eq!(world.ids(1)[0], "c");
}

#[test]
fn a_restart_finds_the_same_lists() {
    let surfaces = ["player", "shop"].map(|name| Surface::new(name).unwrap());
    let mut world = World::open(&surfaces);
    let seq = 100;
    // Past the first checkpoint, and some more.
    for round in 0..26 {
        let items = ["a", "b", "c", "d", "e"];
        let surface = surfaces.get(round % 3);
        world.likes(round * 1_000, 1_000, items[round % 5], surface);
    }
    world.log.flush().unwrap();
    assert!(world.state.get(NAME).unwrap().is_some(), "counts are kept");
    world.likes(50_000, 5, "d", surfaces.first());
    world
        .trends
        .follow(world.log.reader(), seq, 5_000.0)
        .unwrap();
    let before = world.lists();
    assert_eq!(before.len(), 3);
    world = world.restart(&surfaces);
    world
        .trends
        .follow(world.log.reader(), seq, 5_000.0)
        .unwrap();
    assert_eq!(world.lists(), before, "from the counts that were kept");
    world.state.put(NAME, b"damaged").unwrap();
    world = world.restart(&surfaces);
    world
        .trends
        .follow(world.log.reader(), seq, 5_000.0)
        .unwrap();
    assert_eq!(world.lists(), before, "from the log alone");
    world = world.restart(&surfaces[..1]);
    world
        .trends
        .follow(world.log.reader(), seq, 5_000.0)
        .unwrap();
    assert_eq!(world.lists()[..], before[..2], "one surface less");
}

#[test]
fn memory_is_bounded_and_the_heaviest_stay() {
    let mut fold = Fold::new(1e9, 0);
    let kinds = Kinds::default();
    let mut seq = 0;
    let mut note = |fold: &mut Fold, item: &str| {
        seq += 1;
        fold.note(seq, &like("e", "u", item, 1), &kinds);
    };
    for _ in 0..3 {
        note(&mut fold, "favourite");
    }
    for n in 0..3 * ITEMS_MAX {
        note(&mut fold, &format!("i{n}"));
        assert!(fold.weights.len() <= ITEMS_MAX);
    }
    assert!(fold.count(&ItemId::new("favourite").unwrap()) > 2.9);
}
