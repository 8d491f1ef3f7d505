use crate::eval::{Case, Protocol, measure};
use crate::gbdt::{self, Binned, Task, TreeOptions};
use crate::order::OrderCounts;
use crate::priors::PriorSums;
use crate::{AlsOptions, Interactions, Row, als};
use skerry_decide::score::dot;
use skerry_origin_ranker::{Followers, Forest};
use skerry_types::{Attributes, ItemId, Taste};

fn data(items: usize, rows: &[(u32, u32, u64, Taste)]) -> Interactions {
    let items = (0..items).map(|item| (ItemId::new(&item.to_string()).unwrap(), Attributes::new()));
    let row = |(user, item, at_ms, taste): &(u32, u32, u64, Taste)| Row {
        user: *user,
        item: *item,
        at_ms: *at_ms,
        taste: *taste,
        value: Some(if *taste == Taste::Positive { 5.0 } else { 2.0 }),
    };
    Interactions::new(items.collect(), rows.iter().map(row).collect()).unwrap()
}

#[test]
fn followers_count_by_distance_and_direction() {
    let data = data(
        4,
        &[
            (0, 0, 1, Taste::Positive),
            (0, 1, 2, Taste::Neutral),
            (0, 2, 3, Taste::Positive),
        ],
    );
    let order = OrderCounts::new(&data, &data.histories());
    let of = |followers: &Followers, item| -> Vec<u32> { followers.of(item).0.to_vec() };
    let all = order.followers(9);
    assert_eq!(of(&all, 0), [2], "0 -> 2 at distance two; 1 was not liked");
    assert_eq!(
        of(&all, 1),
        [2, 0],
        "2 follows 1; 0 came before it, at half weight"
    );
    assert_eq!(of(&all, 2), [0]);
    assert!(of(&all, 3).is_empty());
    let damp = 2.0f32.powf(0.3);
    for (item, want) in [(0, [0.7].as_slice()), (1, &[1.0, 0.5]), (2, &[0.35])] {
        for (got, want) in all.of(item).1.iter().zip(want) {
            assert!((got - want / 6.0 / damp).abs() < 1e-6, "{item}");
        }
    }
    assert_eq!(of(&order.followers(1), 1), [2], "the strongest stay");
}

/// Taking a user's last event out of the counts is the same as counting without it.
#[test]
fn a_withheld_event_leaves_no_trace() {
    let like = |user, item, at| {
        (
            user,
            item,
            at,
            if (user + item) % 3 == 0 {
                Taste::Neutral
            } else {
                Taste::Positive
            },
        )
    };
    let mut rows: Vec<_> = (0..12)
        .flat_map(|user| (0..9).map(move |at| like(user, (user * 5 + at * 7) % 30, u64::from(at))))
        .collect();
    rows.sort_by_key(|row| row.2);
    let last = (3, 11, 9, Taste::Positive);
    let without = data(30, &rows);
    rows.push(last);
    let with = data(30, &rows);
    let histories = with.histories();
    let before: Vec<u32> = histories[3]
        .iter()
        .rev()
        .skip(1)
        .map(|row| with.rows()[*row as usize].item)
        .collect();
    let (order, truth) = (
        OrderCounts::new(&with, &histories),
        OrderCounts::new(&without, &without.histories()),
    );
    let links = order.without(11, &before, &order.followers(100), 100);
    let followers = truth.followers(100);
    for item in &before {
        let (rows, weights) = followers.of(*item);
        let want = rows.iter().position(|row| *row == 11).map(|at| weights[at]);
        let got = links.iter().find(|link| link.0 == *item).map(|link| link.1);
        match (want, got) {
            (Some(want), Some(got)) => {
                assert!((want - got).abs() < 1e-6, "{item}: {want} against {got}")
            }
            (want, got) => assert_eq!(want, got, "{item}"),
        }
    }
    assert!(links.len() > 1, "the case says something");
    let place = with.rows().len() - 1;
    let prior = PriorSums::new(&with, 0.5).without(place, &with.rows()[place]);
    let want = PriorSums::new(&without, 0.5).prior(11);
    assert!((prior.popularity - want.popularity).abs() < 1e-6);
}

#[test]
fn factors_find_clusters_and_fold_in_new_users() {
    let positives: Vec<(u32, u32, f32)> = (0..40u32)
        .flat_map(|user| {
            (0..10u32)
                .filter(move |item| (user * 3 + item) % 4 != 0)
                .map(move |item| (user, item * 2 + user % 2, 1.0))
        })
        .collect();
    let options = AlsOptions {
        unobserved: 0.1,
        ridge: 1.0,
        iterations: 6,
    };
    let factors = als::factorise(40, 20, &positives, &options, 4, &|_| ()).unwrap();
    let user = factors
        .fold
        .fold([(&factors.items[0], 1.0), (&factors.items[4], 1.0)].into_iter())
        .unwrap();
    let score = |item: usize| dot(&user, &factors.items[item]);
    let (same, other) = ((2..20).step_by(2).map(score), (1..20).step_by(2).map(score));
    let (least, most) = (
        same.fold(f32::MAX, f32::min),
        other.fold(f32::MIN, f32::max),
    );
    assert!(least > most + 0.2, "{least} against {most}");
}

#[test]
fn a_tree_finds_the_step_and_scores_as_the_forest_does() {
    let rows = 600u32;
    let columns: Vec<Vec<f32>> = vec![
        (0..rows).map(|row| (row * 37 % 101) as f32).collect(),
        (0..rows).map(|row| row as f32 / 100.0).collect(),
    ];
    // Least squares: the gradient is score - target, and the target steps at row 300.
    let gradients: Vec<f32> = (0..rows)
        .map(|row| if row < 300 { 1.0 } else { -3.0 })
        .collect();
    let data = Binned::new(&columns);
    let options = TreeOptions {
        leaves: 4,
        rows_min: 5,
        ridge: 0.0,
        rate: 1.0,
    };
    let task = Task {
        gradients: &gradients,
        hessians: &vec![1.0; rows as usize],
        features: &[true; 2],
    };
    let tree = gbdt::grow(&data, (0..rows).collect(), &task, &options);
    assert_eq!(tree.nodes[0].feature, 1);
    assert!(
        (tree.nodes[0].threshold - 3.0).abs() < 0.2,
        "{}",
        tree.nodes[0].threshold
    );
    let mut scores = vec![0.0f32; rows as usize];
    gbdt::add_to(&tree, &data, &mut scores);
    assert!(scores[..290].iter().all(|score| (score + 1.0).abs() < 0.2));
    assert!(scores[310..].iter().all(|score| (score - 3.0).abs() < 0.2));
    let forest = Forest::new(vec![tree], 2, 1.0).unwrap();
    let mut served = vec![0.0f32; rows as usize];
    forest.score(&columns.concat(), &mut served);
    assert_eq!(served, scores);
}

#[test]
fn leave_last_out_is_strict_about_time() {
    let rows = [
        (0, 0, 1, Taste::Positive),
        (0, 1, 2, Taste::Positive),
        (0, 2, 3, Taste::Neutral),
        (0, 3, 4, Taste::Positive),
        (0, 4, 5, Taste::Negative),
        (1, 4, 6, Taste::Neutral),
    ];
    let data = data(5, &rows);
    let split = Protocol::Loo { back: 0 }.split(&data);
    let items = |case: &Case| case.history.iter().map(|row| row.item).collect::<Vec<_>>();
    assert_eq!(split.cases.len(), 1, "a user without a positive is no case");
    let case = &split.cases[0];
    assert_eq!(
        (items(case), &case.excluded[..], &case.targets[..]),
        (vec![0, 1, 2], &[0, 1, 2, 4][..], &[3][..])
    );
    assert_eq!(split.train.rows().len(), 5);
    let tune = Protocol::Loo { back: 1 }.split(&data);
    let case = &tune.cases[0];
    assert_eq!(
        (items(case), &case.excluded[..], &case.targets[..]),
        (vec![0], &[0, 2, 4][..], &[1][..])
    );
    assert_eq!(tune.train.rows().len(), 4, "the last positive is gone, too");

    let late = Protocol::Temporal { share: 0.5 }.split(&data);
    assert_eq!(late.train.rows().len(), 3);
    assert_eq!(
        (items(&late.cases[0]), &late.cases[0].targets[..]),
        (vec![0, 1, 2], &[3][..])
    );
    assert_eq!(late.cases.len(), 1, "user 1 was not known before");
}

#[test]
fn measures_by_hand() {
    let case = |targets: &[u32]| Case {
        user: 0,
        history: vec![],
        excluded: vec![],
        targets: targets.to_vec(),
    };
    let cases = [case(&[7]), case(&[7]), case(&[7, 8]), case(&[9])];
    let beyond: Vec<u32> = (20..30).chain([9]).collect();
    let lists = [vec![7], vec![1, 2, 7], vec![8, 1, 7], beyond];
    let report = measure(&cases, &lists, 100, 1);
    let second = (1.0 + 0.5) / (1.0 + 1.0 / 3f64.log2());
    assert!((report.ndcg_at_10 - (1.0 + 0.5 + second) / 4.0).abs() < 1e-12);
    assert_eq!(
        (report.users, report.hr_at_10, report.coverage),
        (4, 0.75, 0.14)
    );
    assert_eq!(
        measure(&cases, &lists, 100, 1),
        report,
        "the interval is seeded"
    );
    assert!(measure(&[], &[], 0, 1).ndcg_at_10 == 0.0);
}
