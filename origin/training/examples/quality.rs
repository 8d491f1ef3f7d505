//! Quality of every rung on a MovieLens folder: `quality FOLDER [tune] [ranked=300] [key=value ...]`.
//! `tune` holds out each user's second-last positive instead of the last.

mod movielens;

use movielens::{read, steps};
use skerry_decide::score::{EDGE_HISTORY_MAX, HistoryStep, Scratch, dot};
use skerry_origin_ranker::Model;
use skerry_origin_training::eval::{Protocol, Report, Split, evaluate};
use skerry_origin_training::{TrainOptions, train};
use skerry_types::context::RECENT_MAX;
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or("usage: quality FOLDER [tune] [key=value ...]")?;
    let mut options = TrainOptions::default();
    // As the pipeline does.
    let mut ranked = 300;
    let mut protocols = vec![
        ("loo", Protocol::Loo { back: 0 }),
        ("temporal", Protocol::Temporal { share: 0.1 }),
    ];
    for argument in arguments {
        match argument.split_once('=') {
            None if argument == "tune" => protocols = vec![("tune", Protocol::Loo { back: 1 })],
            None if argument == "loo" => protocols.truncate(1),
            None => return Err(format!("unknown argument {argument}").into()),
            Some(("ranked", value)) => ranked = value.parse()?,
            Some((key, value)) => set(&mut options, key, value)?,
        }
    }
    let data = read(Path::new(&folder))?;
    println!("{} items, {} rows", data.items().len(), data.rows().len());
    for (name, protocol) in protocols {
        run(name, &protocol.split(&data), &options, ranked)?;
    }
    Ok(())
}

fn set(options: &mut TrainOptions, key: &str, value: &str) -> Result<(), Box<dyn Error>> {
    match key {
        "seed" => options.seed = value.parse()?,
        "unobserved" => options.als.unobserved = value.parse()?,
        "ridge" => options.als.ridge = value.parse()?,
        "iterations" => options.als.iterations = value.parse()?,
        "followers" => options.followers = value.parse()?,
        "order" => options.blends.full.order = value.parse()?,
        "prior" => options.blends.full.prior = value.parse()?,
        "edge_order" => options.blends.edge.order = value.parse()?,
        "edge_prior" => options.blends.edge.prior = value.parse()?,
        "trend" => options.trend_half_life = value.parse()?,
        "trees" => options.trees = value.parse()?,
        "leaves" => options.leaves = value.parse()?,
        "rate" => options.rate = value.parse()?,
        "tree_ridge" => options.tree_ridge = value.parse()?,
        "rows_min" => options.rows_min = value.parse()?,
        "feature_share" => options.feature_share = value.parse()?,
        "bagging" => options.bagging = value.parse()?,
        "base" => options.base_weight = value.parse()?,
        "softmax" => options.softmax = value.parse()?,
        "folds" => options.folds = value.parse()?,
        "fold_iterations" => options.fold_iterations = value.parse()?,
        "groups" => options.groups_max = value.parse()?,
        "skip" => options.skip_positives = value.parse()?,
        "positives" => options.positives_per_user = value.parse()?,
        "rivals" => options.rivals = value.parse()?,
        "sampled" => options.sampled = value.parse()?,
        _ => return Err(format!("unknown option {key}").into()),
    }
    Ok(())
}

fn now() -> Instant {
    Instant::now()
}

fn run(
    name: &str,
    split: &Split,
    options: &TrainOptions,
    ranked: usize,
) -> Result<(), Box<dyn Error>> {
    let started = now();
    let stages = std::sync::Mutex::new(Vec::new());
    let model = train(&split.train, options, &|stage, share| {
        let seconds = started.elapsed().as_secs_f64();
        if let Ok(mut stages) = stages.lock()
            && (share == 0.0 || (share * 10.0).fract() < 0.01)
        {
            stages.push(format!("{} {share:.1} at {seconds:.1}", stage.as_str()));
        }
    })?;
    if let Ok(stages) = stages.lock() {
        println!("{}", stages.join(", "));
    }
    let seconds = started.elapsed().as_secs_f64();
    let bytes = model.to_bytes();
    println!(
        "{name}: trained in {seconds:.1} s, model {} bytes",
        bytes.len()
    );
    show(
        name,
        "popular",
        &evaluate(split, 1, |_, excluded| {
            let trending = model.trending(model.len());
            let allowed = trending
                .into_iter()
                .map(|(row, _)| row)
                .filter(|row| excluded.binary_search(row).is_err());
            allowed.take(10).collect()
        }),
    );
    show(
        name,
        "base",
        &evaluate(split, 1, |history, excluded| {
            let user = model.fold_in(&steps(history, RECENT_MAX, Some));
            let rows =
                model.candidates_where(&user, &near(&model, user.query(), excluded), 10, |row| {
                    excluded.binary_search(&row).is_err()
                });
            rows.iter().map(|row| row.item).collect()
        }),
    );
    // As a pipeline that leaves out what the user has seen only after ranking.
    show(
        name,
        "full, late",
        &evaluate(split, 1, |history, excluded| {
            let user = model.fold_in(&steps(history, RECENT_MAX, Some));
            let rows = model.candidates(&user, &near(&model, user.query(), &[]), ranked);
            let mut scores = Vec::new();
            model.rank(&user, &rows, &mut scores);
            let mut order: Vec<usize> = (0..rows.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            let allowed = order
                .iter()
                .map(|at| rows[*at].item)
                .filter(|row| excluded.binary_search(row).is_err());
            allowed.take(10).collect()
        }),
    );
    let mut recall = 0;
    let mut cases = split.cases.iter();
    let (mut rank_us, mut fold_us, mut candidate_us) = (Vec::new(), Vec::new(), Vec::new());
    let full = evaluate(split, 1, |history, excluded| {
        let at = now();
        let user = model.fold_in(&steps(history, RECENT_MAX, Some));
        fold_us.push(at.elapsed().as_secs_f64() * 1e6);
        let near = near(&model, user.query(), excluded);
        let at = now();
        let mut rows = model.candidates_where(&user, &near, ranked, |row| {
            excluded.binary_search(&row).is_err()
        });
        candidate_us.push(at.elapsed().as_secs_f64() * 1e6);
        let mut scores = Vec::new();
        let at = now();
        model.rank(&user, &rows, &mut scores);
        rank_us.push(at.elapsed().as_secs_f64() * 1e6);
        let targets = &cases
            .next()
            .map(|case| case.targets.clone())
            .unwrap_or_default();
        recall += usize::from(rows.iter().any(|row| targets.contains(&row.item)));
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        rows.truncate(rows.len());
        order.iter().take(10).map(|at| rows[*at].item).collect()
    });
    show(name, "full", &full);
    println!(
        "{name}: fold-in {:.0} us, candidates {:.0} us, rank {:.0} us (medians); some target among candidates {:.3}",
        median(&mut fold_us),
        median(&mut candidate_us),
        median(&mut rank_us),
        recall as f64 / split.cases.len().max(1) as f64
    );
    if let Some(case) = split.cases.get(split.cases.len() / 2) {
        speed(
            &model,
            &steps(&case.history, RECENT_MAX, Some),
            &case.excluded,
            ranked,
        );
    }
    for capacity in [10_000, 1_000] {
        let (rows, pool) = model.edge_pool(capacity);
        let places: HashMap<u32, u32> = rows.iter().copied().zip(0..).collect();
        let mut scratch = Scratch::default();
        let mut times = Vec::new();
        let report = evaluate(split, 1, |history, excluded| {
            let history = steps(history, EDGE_HISTORY_MAX, |item| places.get(&item).copied());
            let allow = |row: u32| excluded.binary_search(&rows[row as usize]).is_err();
            let at = now();
            let best = pool.rank_where(&history, &mut scratch, 10, allow);
            times.push(at.elapsed().as_secs_f64() * 1e6);
            best.iter().map(|(row, _, _)| rows[*row as usize]).collect()
        });
        show(name, &format!("edge {capacity}"), &report);
        println!(
            "{name}: pool {} bytes, rank {:.0} us (median)",
            pool.to_bytes().len(),
            median(&mut times)
        );
    }
    Ok(())
}

/// Least and median time of each step for one history: the least is what a core of its own would take.
fn speed(model: &Model, history: &[HistoryStep], excluded: &[u32], ranked: usize) {
    let mut times: [Vec<f64>; 5] = Default::default();
    let (mut columns, mut scores) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let mut at = now();
        let mut lap = |step: usize| {
            times[step].push(at.elapsed().as_secs_f64() * 1e6);
            at = now();
        };
        let user = model.fold_in(history);
        lap(0);
        let near = near(model, user.query(), excluded);
        lap(4);
        let rows = model.candidates_where(&user, &near, ranked, |row| {
            excluded.binary_search(&row).is_err()
        });
        lap(1);
        model.features(&user, &rows, &mut columns, &mut scores);
        lap(2);
        model.parts().forest.score(&columns, &mut scores);
        lap(3);
    }
    for (name, times) in ["fold-in", "candidates", "features", "forest"]
        .iter()
        .zip(&mut times)
    {
        let middle = median(times);
        println!(
            "one history of {}: {name} {:.0} us at least, {middle:.0} us median",
            history.len(),
            times[0]
        );
    }
}

fn near(model: &Model, query: Option<&[f32]>, excluded: &[u32]) -> Vec<(u32, f32)> {
    let Some(query) = query.and_then(|query| <&[f32; 64]>::try_from(query).ok()) else {
        return Vec::new();
    };
    let scores = (0u32..)
        .zip(&model.parts().factors)
        .filter(|(row, _)| excluded.binary_search(row).is_err());
    let mut scores: Vec<(u32, f32)> = scores
        .map(|(row, vector)| (row, dot(query, vector)))
        .collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    scores.truncate(200);
    scores
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn show(protocol: &str, rung: &str, report: &Report) {
    println!(
        "{protocol:9} {rung:12} NDCG@10 {:.4} [{:.4}, {:.4}]  HR@10 {:.3}  coverage {:.3}  users {}",
        report.ndcg_at_10,
        report.interval.0,
        report.interval.1,
        report.hr_at_10,
        report.coverage,
        report.users
    );
}
