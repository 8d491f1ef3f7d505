use super::*;
use proptest::prelude::*;

#[test]
fn gathered_ids_are_the_same_on_one_text() {
    let ids = ["7", "Ünïcode ✓", "a-long-id", "7"].map(|id| ItemId::new(id).unwrap());
    let gathered = ItemId::gather(ids.iter());
    assert_eq!(gathered, ids);
    let hashes = |ids: &[ItemId]| ids.iter().map(ItemId::hash).collect::<Vec<_>>();
    assert_eq!(hashes(&gathered), hashes(&ids));
    let again = ItemId::gather(gathered.iter().skip(1));
    assert_eq!(again, ids[1..], "parts of a text are gathered too");
    assert!(again.iter().all(|id| Arc::ptr_eq(&id.text, &again[0].text)));
    assert!(ItemId::gather(std::iter::empty()).is_empty());
}

#[test]
fn ids_are_checked_once() {
    let cases = [
        ("", Err("id_empty")),
        ("u1", Ok(())),
        ("Ünïcode ✓", Ok(())),
        ("a\u{0}b", Err("id_control_character")),
        ("a\nb", Err("id_control_character")),
    ];
    for (text, want) in cases {
        assert_eq!(
            UserId::new(text).map(|_| ()).map_err(IdError::code),
            want,
            "{text:?}"
        );
    }
    assert_eq!(
        ItemId::new(&"x".repeat(257)).map_err(IdError::code),
        Err("id_too_long")
    );
    assert!(ItemId::new(&"x".repeat(256)).is_ok());
    for (text, ok) in [
        ("home", true),
        ("a_b-9", true),
        ("", false),
        ("Home", false),
        ("a b", false),
    ] {
        assert_eq!(Surface::new(text).is_ok(), ok, "{text:?}");
    }
}

#[test]
fn a_part_of_a_text_is_the_id_that_it_spells() {
    let text: std::sync::Arc<str> = "318Üx\n".into();
    // From, to, and the id or why there is none.
    let cases = [
        (0, 3, Ok("318")),
        (1, 2, Ok("1")),
        (3, 6, Ok("Üx")),
        (0, 4, Err("id_outside")),
        (4, 6, Err("id_outside")),
        (2, 1, Err("id_outside")),
        (3, 8, Err("id_outside")),
        (usize::MAX, usize::MAX, Err("id_outside")),
        (3, 3, Err("id_empty")),
        (5, 7, Err("id_control_character")),
    ];
    for (from, to, want) in cases {
        let got = ItemId::part(&text, from, to);
        assert_eq!(
            got.as_ref().map(ItemId::as_str).map_err(|e| e.code()),
            want,
            "{from}..{to}"
        );
        if let (Ok(part), Ok(want)) = (got, want) {
            let whole = ItemId::new(want).unwrap();
            assert_eq!((&part, part.hash()), (&whole, whole.hash()), "{from}..{to}");
        }
    }
}

/// Golden: another implementation of xxh3-64 must give these (see docs/formats.md).
#[test]
fn slots_have_golden_values() {
    let tenant = TenantId::default();
    let got: Vec<u16> = ["1", "318", "u1", "Ünïcode"]
        .iter()
        .map(|id| Slot::of(&tenant, id).0)
        .collect();
    assert_eq!(got, GOLDEN_SLOTS, "slots must never move");
}
const GOLDEN_SLOTS: [u16; 4] = [12836, 3572, 3072, 6774];

proptest! {
    #[test]
    fn uuids_round_trip(ms in 0u64..1 << 48, random: u128) {
        let id = Uid::v7(ms, random);
        prop_assert_eq!(id.millis(), ms);
        let text = id.to_string();
        prop_assert_eq!(&text[14..15], "7");
        prop_assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"));
        prop_assert_eq!(text.parse::<Uid>(), Ok(id));
    }

    #[test]
    fn slots_stay_in_range(id in "\\PC{1,40}") {
        prop_assert!(Slot::of(&TenantId::default(), &id).0 < SLOTS);
    }
}
