//! Training at size: `scale [USERS ITEMS EVENTS]` (40,000 x 55,000 x 350,000). Prints time and peak
//! memory.

#[path = "../tests/world/mod.rs"]
mod world;

use skerry_origin_training::{TrainOptions, train};
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let sizes: Result<Vec<usize>, _> = std::env::args().skip(1).map(|size| size.parse()).collect();
    let sizes = sizes?;
    let [users, items, events] = sizes[..] else {
        return size(40_000, 55_000, 350_000);
    };
    size(users, items, events)
}

fn size(users: usize, items: usize, events: usize) -> Result<(), Box<dyn Error>> {
    let data = world::interactions(u32::try_from(users)?, u32::try_from(items)?, events, 1);
    let started = Instant::now();
    let model = train(&data, &TrainOptions::default(), &|stage, share| {
        if share == 0.0 {
            println!(
                "{} at {:.1} s",
                stage.as_str(),
                started.elapsed().as_secs_f64()
            );
        }
    })?;
    println!(
        "{users} users, {items} items, {} events: {:.1} s",
        data.rows().len(),
        started.elapsed().as_secs_f64()
    );
    println!(
        "model {} bytes, pool {} bytes",
        model.to_bytes().len(),
        model.edge_pool(10_000).1.to_bytes().len()
    );
    let status = std::fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .filter(|line| line.starts_with("VmHWM"))
        .for_each(|line| println!("{line}"));
    Ok(())
}
