//! What each step of a question costs, over all users of a MovieLens folder: `stages FOLDER MODEL
//! [k=300]`. MODEL is read, or trained and written where there is none. The digests are of the rows
//! and of the score bits: builds whose digests agree give the same answers.

mod movielens;

use movielens::{read, steps};
use skerry_origin_ranker::Model;
use skerry_origin_training::{TrainOptions, train};
use skerry_types::context::RECENT_MAX;
use skerry_vector_index::{Index, Metric};
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Instant;

/// As the pipeline does.
const NEAR: usize = 200;
const SHOWN: usize = 60;
/// A step's time is its least over this many rounds.
const ROUNDS: usize = 15;
const NAMES: [&str; 6] = [
    "fold-in",
    "near",
    "candidates",
    "features",
    "forest",
    "because",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: stages FOLDER MODEL [k=300]";
    let (folder, file) = (
        arguments.next().ok_or(usage)?,
        arguments.next().ok_or(usage)?,
    );
    let k: usize = match arguments.next() {
        Some(k) => k.trim_start_matches("k=").parse()?,
        None => 300,
    };
    let data = read(Path::new(&folder))?;
    let model = if let Ok(bytes) = std::fs::read(&file) {
        Model::from_bytes(&bytes)?
    } else {
        let model = train(&data, &TrainOptions::default(), &|_, _| {})?;
        std::fs::write(&file, model.to_bytes())?;
        model
    };
    let (vectors, dim) = model.item_vectors();
    let index = Index::build(dim, Metric::Dot, vectors)?;
    let mut histories = vec![Vec::new(); data.users()];
    for row in data.rows() {
        histories[row.user as usize].push(*row);
    }
    let histories: Vec<_> = histories
        .iter()
        .map(|history| steps(history, RECENT_MAX, Some))
        .filter(|steps| !steps.is_empty())
        .collect();
    let mut least = vec![[f64::MAX; NAMES.len()]; histories.len()];
    let mut digests = [0; 4];
    let (mut columns, mut scores) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut hashers: [DefaultHasher; 4] = Default::default();
        for (history, least) in histories.iter().zip(&mut least) {
            let mut at = now();
            let mut lap = |step: usize| {
                let us = at.elapsed().as_secs_f64() * 1e6;
                least[step] = us.min(least[step]);
                at = now();
            };
            let user = model.fold_in(history);
            lap(0);
            let near = match user.query() {
                Some(query) => index.near(query, NEAR)?,
                None => Vec::new(),
            };
            lap(1);
            let rows = model.candidates(&user, &near, k);
            lap(2);
            model.features(&user, &rows, &mut columns, &mut scores);
            lap(3);
            model.parts().forest.score(&columns, &mut scores);
            lap(4);
            let because: Vec<_> = rows
                .iter()
                .take(SHOWN)
                .map(|row| row.because.or_else(|| model.because(&user, row.item)))
                .collect();
            lap(5);
            near.iter().for_each(|(row, _)| row.hash(&mut hashers[0]));
            rows.iter().for_each(|row| row.item.hash(&mut hashers[1]));
            scores
                .iter()
                .for_each(|score| score.to_bits().hash(&mut hashers[2]));
            because.hash(&mut hashers[3]);
        }
        digests = hashers.map(|hasher| hasher.finish());
    }
    let users = histories.len() as f64;
    let mut all = 0.0;
    for (step, name) in NAMES.iter().enumerate() {
        let us = least.iter().map(|least| least[step]).sum::<f64>() / users;
        all += us;
        println!("{name:12} {us:7.1} us");
    }
    println!(
        "{:12} {all:7.1} us a question, {} users",
        "all",
        histories.len()
    );
    println!(
        "near {:016x} rows {:016x} scores {:016x} because {:016x}",
        digests[0], digests[1], digests[2], digests[3]
    );
    Ok(())
}

fn now() -> Instant {
    Instant::now()
}
