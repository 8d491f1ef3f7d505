use super::*;
use proptest::prelude::*;
use skerry_types::{ItemId, Surface, TenantId, Uid};
use std::path::Path;

const DAY: u64 = BUCKET_MS;
const NOW: u64 = 20_000 * DAY + 5_000;

fn item(at: u64) -> ItemId {
    ItemId::new(&format!("i{at}")).unwrap()
}

fn exposure(decision: u128, arm: u64, at_ms: u64) -> Exposure {
    let (tenant, surface) = (TenantId::default(), Surface::default());
    Exposure {
        tenant,
        surface,
        decision: Uid(decision),
        arm: item(arm),
        at_ms,
    }
}

fn reward(decision: u128, arm: u64, reward: f64, at_ms: u64) -> Reward {
    Reward {
        tenant: TenantId::default(),
        decision: Uid(decision),
        arm: item(arm),
        reward,
        at_ms,
    }
}

fn open(path: &Path, region: &str) -> Ledger {
    Ledger::open(path, region).unwrap()
}

/// (exposures, rewards) of an arm, with the prior taken off again.
fn counts(ledger: &Ledger, arm: u64, now_ms: u64) -> (f32, f32) {
    let at = |arms: &[ItemId]| {
        ledger
            .params(&TenantId::default(), &Surface::default(), arms, now_ms)
            .arms
    };
    let arms = at(&[item(arm), item(999)]);
    let wins = arms[0].alpha - arms[1].alpha;
    (
        (wins + arms[0].beta - arms[1].beta).round(),
        (wins * 1000.0).round() / 1000.0,
    )
}

#[test]
fn each_report_counts_once_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let ledger = open(folder.path(), "eu");
        assert_eq!(
            ledger.record_exposure(&exposure(1, 1, NOW)).unwrap(),
            Recorded::Counted
        );
        assert_eq!(
            ledger.record_exposure(&exposure(1, 1, NOW + 9)).unwrap(),
            Recorded::Duplicate
        );
        assert_eq!(
            ledger.record_exposure(&exposure(1, 2, NOW)).unwrap(),
            Recorded::Counted,
            "another arm"
        );
        assert_eq!(
            ledger.record_reward(&reward(1, 1, 1.0, NOW)).unwrap(),
            Recorded::Counted
        );
        assert_eq!(
            ledger.record_reward(&reward(1, 1, 1.0, NOW)).unwrap(),
            Recorded::Duplicate
        );
        assert_eq!(
            ledger.record_reward(&reward(2, 1, 1.0, NOW)).unwrap(),
            Recorded::Unknown,
            "never shown"
        );
        ledger.sync().unwrap();
    }
    let ledger = open(folder.path(), "eu");
    assert_eq!(
        ledger.record_reward(&reward(1, 1, 1.0, NOW)).unwrap(),
        Recorded::Duplicate
    );
    assert_eq!(
        ledger.record_exposure(&exposure(1, 1, NOW)).unwrap(),
        Recorded::Duplicate
    );
    assert_eq!(
        (counts(&ledger, 1, NOW), counts(&ledger, 2, NOW)),
        ((1.0, 1.0), (1.0, 0.0))
    );
    assert_eq!(
        ledger.record_reward(&reward(1, 2, 0.25, NOW)).unwrap(),
        Recorded::Counted
    );
    assert_eq!(counts(&ledger, 2, NOW), (1.0, 0.25));
}

#[test]
fn late_rewards_land_in_their_bucket_and_old_buckets_go() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), "eu");
    ledger.record_exposure(&exposure(1, 1, NOW)).unwrap();
    assert_eq!(
        ledger
            .record_reward(&reward(1, 1, 1.0, NOW + 3 * DAY))
            .unwrap(),
        Recorded::Counted
    );
    let last_day = NOW + 29 * DAY;
    assert_eq!(counts(&ledger, 1, last_day), (1.0, 1.0));
    assert_eq!(
        counts(&ledger, 1, last_day + DAY),
        (0.0, 0.0),
        "the reward goes with its exposure"
    );
    assert_eq!(
        ledger.sweep(last_day).unwrap(),
        Swept {
            cells: 0,
            pending: 1
        }
    );
    assert_eq!(
        ledger.sweep(last_day + DAY).unwrap(),
        Swept {
            cells: 1,
            pending: 0
        }
    );
    drop(ledger);
    let ledger = open(folder.path(), "eu");
    assert_eq!(counts(&ledger, 1, last_day), (0.0, 0.0));
    assert_eq!(
        ledger.record_reward(&reward(1, 1, 1.0, NOW)).unwrap(),
        Recorded::Unknown
    );
}

#[test]
fn an_expired_exposure_takes_no_reward_even_before_the_sweep() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), "eu");
    ledger.record_exposure(&exposure(1, 1, NOW)).unwrap();
    let late = NOW + PENDING_MS_MAX + DAY;
    assert_eq!(
        ledger.record_reward(&reward(1, 1, 1.0, late)).unwrap(),
        Recorded::Unknown
    );
}

#[test]
fn the_better_arm_wins_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), "eu");
    for round in 0..2_000u64 {
        let (arm, good) = (round % 4, if round % 4 == 2 { 5 } else { 20 });
        ledger
            .record_exposure(&exposure(u128::from(round), arm, NOW))
            .unwrap();
        if round / 4 % good == 0 {
            ledger
                .record_reward(&reward(u128::from(round), arm, 1.0, NOW))
                .unwrap();
        }
    }
    let arms: Vec<ItemId> = (0..4).map(item).collect();
    let snapshot = ledger.snapshot(&TenantId::default(), &Surface::default(), &arms, NOW);
    assert!(snapshot.arms[2].win > 0.97, "{snapshot:?}");
    let elsewhere = ledger.snapshot(
        &TenantId::new("other").unwrap(),
        &Surface::default(),
        &arms,
        NOW,
    );
    assert!(
        (elsewhere.arms[2].win - 0.25).abs() < 1e-9,
        "tenants share nothing"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever is recorded where, and however often and in whatever order cells are exchanged: both
    /// regions end with the same parameters, to the bit.
    #[test]
    fn replicas_are_equal_after_an_exchange(
        steps in proptest::collection::vec((any::<bool>(), 0u128..40, 0u64..4, 0u64..3, 0f64..1.0), 1..120), turns in 1usize..4,
    ) {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ledgers = [open(left.path(), "eu"), open(right.path(), "us")];
        let exchange = |from: &Ledger, to: &Ledger, reverse: bool| {
            let mut cells = from.changed_since(0);
            if reverse { cells.reverse(); }
            for cell in cells { to.merge(cell).unwrap(); }
        };
        for (at, (here, decision, arm, day, value)) in steps.iter().enumerate() {
            let ledger = &ledgers[usize::from(*here)];
            ledger.record_exposure(&exposure(*decision, *arm, NOW + day * DAY)).unwrap();
            if at % 2 == 0 {
                ledger.record_reward(&reward(*decision, *arm, *value, NOW + day * DAY)).unwrap();
            }
            if at % 17 == 0 { exchange(&ledgers[0], &ledgers[1], true); }
        }
        for turn in 0..turns {
            exchange(&ledgers[0], &ledgers[1], turn % 2 == 0);
            exchange(&ledgers[1], &ledgers[0], turn % 2 == 1);
        }
        let arms: Vec<ItemId> = (0..4).map(item).collect();
        let params = |at: usize| ledgers[at].params(&TenantId::default(), &Surface::default(), &arms, NOW + 2 * DAY).arms;
        prop_assert_eq!(params(0), params(1));
    }
}

#[test]
fn damage_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), "eu")
        .record_exposure(&exposure(1, 1, NOW))
        .unwrap();
    let format = folder.path().join("FORMAT");
    std::fs::write(&format, "2\n").unwrap();
    let refused = Ledger::open(folder.path(), "eu").err().unwrap();
    assert_eq!(refused.code(), "bandit_newer");
    std::fs::write(&format, "\u{0}\u{1}").unwrap();
    let refused = Ledger::open(folder.path(), "eu").err().unwrap();
    assert_eq!(refused.code(), "bandit_corrupt");
    assert!(refused.to_string().contains("FORMAT"), "{refused}");
}

/// Files of the store, garbled one at a time: an error or an earlier state, never a panic.
#[test]
fn garbled_files_never_panic() {
    let made = tempfile::tempdir().unwrap();
    {
        let ledger = open(made.path(), "eu");
        for decision in 0..200 {
            ledger.record_exposure(&exposure(decision, 1, NOW)).unwrap();
        }
        ledger.sync().unwrap();
    }
    let mut files = Vec::new();
    list(made.path(), &mut files);
    let mut refused = 0;
    for file in &files {
        let relative = file.strip_prefix(made.path()).unwrap();
        for how in 0..3 {
            let copy = tempfile::tempdir().unwrap();
            for file in &files {
                let to = copy.path().join(file.strip_prefix(made.path()).unwrap());
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(file, to).unwrap();
            }
            let target = copy.path().join(relative);
            let mut bytes = std::fs::read(&target).unwrap();
            match how {
                0 => bytes.truncate(bytes.len() / 2),
                1 => bytes.iter_mut().for_each(|byte| *byte = 0xa5),
                _ => {
                    let middle = bytes.len() / 3;
                    bytes
                        .iter_mut()
                        .skip(middle)
                        .take(8)
                        .for_each(|byte| *byte ^= 0xff);
                }
            }
            std::fs::write(&target, bytes).unwrap();
            match Ledger::open(copy.path(), "eu") {
                Ok(ledger) => {
                    drop(ledger.params(&TenantId::default(), &Surface::default(), &[item(1)], NOW))
                }
                Err(error) => {
                    refused += 1;
                    assert!(
                        error.to_string().contains(copy.path().to_str().unwrap()),
                        "{error}"
                    );
                }
            }
        }
    }
    assert!(refused > 0);
}

fn list(folder: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, out)
        } else {
            out.push(path)
        }
    }
}
