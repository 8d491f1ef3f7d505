use super::*;
use skerry_types::Value;

fn item(id: &str, hidden: bool) -> Item {
    let attributes = Attributes::from([("title".into(), Value::text(id))]);
    Item {
        id: ItemId::new(id).unwrap(),
        attributes,
        rights: Rights {
            hidden,
            ..Rights::default()
        },
    }
}

#[test]
fn cards_share_the_text_of_a_genre() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), false).unwrap();
    let catalog = Catalog::open(&state, &TenantId::default()).unwrap();
    let drama = |id| {
        let mut item = item(id, false);
        item.attributes.insert("genre".into(), Value::text("Drama"));
        item
    };
    catalog.put(vec![drama("a")]).unwrap();
    catalog.put(vec![drama("b"), item("c", false)]).unwrap();
    let genre = |id| {
        catalog
            .card(&ItemId::new(id).unwrap())
            .unwrap()
            .genre
            .clone()
    };
    assert_eq!(genre("a").as_deref(), Some("Drama"));
    assert!(Arc::ptr_eq(&genre("a").unwrap(), &genre("b").unwrap()));
    assert_eq!(genre("c"), None);
}

#[test]
fn rights_move_the_mask_and_removed_items_stay_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::default();
    {
        let state = State::open(dir.path(), false).unwrap();
        let catalog = Catalog::open(&state, &tenant).unwrap();
        let epoch = || *catalog.rights_changed.borrow();
        let steps: [(&str, &dyn Fn(), u64, usize); 6] = [
            (
                "free items",
                &|| drop(catalog.put(vec![item("a", false), item("b", false)])),
                0,
                0,
            ),
            ("hidden", &|| drop(catalog.put(vec![item("a", true)])), 1, 1),
            (
                "the same again",
                &|| drop(catalog.put(vec![item("a", true)])),
                1,
                1,
            ),
            (
                "shown again",
                &|| drop(catalog.put(vec![item("a", false)])),
                2,
                0,
            ),
            (
                "removed",
                &|| drop(catalog.remove(&ItemId::new("b").unwrap())),
                3,
                1,
            ),
            (
                "removed again",
                &|| drop(catalog.remove(&ItemId::new("b").unwrap())),
                3,
                1,
            ),
        ];
        for (name, step, want_epoch, want_mask) in steps {
            step();
            assert_eq!(
                (epoch(), catalog.mask().entries.len()),
                (want_epoch, want_mask),
                "{name}"
            );
        }
    }
    let state = State::open(dir.path(), false).unwrap();
    let catalog = Catalog::open(&state, &tenant).unwrap();
    assert_eq!(
        (catalog.len(), catalog.mask().entries.len()),
        (1, 1),
        "both survive a restart"
    );
    catalog.put(vec![item("b", false)]).unwrap();
    assert!(
        catalog.mask().entries.is_empty(),
        "an item that comes back is free"
    );
}

#[test]
fn cards_are_found_by_place_as_they_are_now() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), false).unwrap();
    let catalog = Catalog::open(&state, &TenantId::default()).unwrap();
    let id = |n: usize| ItemId::new(&format!("i{n}")).unwrap();
    // A place may be asked for before its item is there.
    let early = catalog.place(&id(1_000));
    catalog
        .put((0..1_000).map(|n| item(&format!("i{n}"), false)).collect())
        .unwrap();
    let before = catalog.table();
    assert!(before.at(early).is_none());
    catalog
        .put(vec![item("i1000", false), item("i7", true)])
        .unwrap();
    catalog.remove(&id(8)).unwrap();
    let (table, seven) = (catalog.table(), catalog.place(&id(7)));
    assert_eq!(table.at(early).unwrap().id, id(1_000));
    assert!(table.at(seven).unwrap().rights.hidden);
    assert!(
        !before.at(seven).unwrap().rights.hidden,
        "a question keeps its snapshot"
    );
    assert!(table.at(catalog.place(&id(8))).is_none());
    for n in (0..1_000).filter(|n| *n != 8) {
        assert_eq!(
            table.at(catalog.known_place(&id(n)).unwrap()).unwrap().id,
            id(n)
        );
    }
    assert!(catalog.known_place(&id(2_000)).is_none());
}

#[test]
fn cards_carry_what_fits_well_known_fields_first() {
    let long = "x".repeat(400);
    let attributes = Attributes::from([
        ("a".into(), Value::text(&long)),
        ("title".into(), Value::text("T")),
        ("year".into(), Value::Int(1999)),
        ("z".into(), Value::text(&long)),
    ]);
    let names: Vec<_> = card_fields(&attributes).into_keys().collect();
    assert_eq!(
        names,
        ["a".into(), "title".into(), Box::<str>::from("year")]
    );
}
