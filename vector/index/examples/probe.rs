//! Recall and speed of the packed graph on a file of vectors: `probe DIM BASE.f32 QUERIES.f32`.
use skerry_vector_index::Metric;
use skerry_vector_index::graph::{BuildOptions, Packed, Scratch};

/// Seconds that this thread has run.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn read(path: &str) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let dim: usize = args[1].parse().unwrap();
    let (base, queries) = (read(&args[2]), read(&args[3]));
    let env = |name: &str, or: f32| {
        std::env::var(name)
            .ok()
            .and_then(|x| x.parse().ok())
            .unwrap_or(or)
    };
    let options = BuildOptions {
        ef: env("EF", 128.0) as usize,
        chosen: env("CHOSEN", 24.0) as usize,
        alpha: env("ALPHA", 1.1),
        threads: env("THREADS", 1.0) as usize,
        ..Default::default()
    };
    println!(
        "{} {} x {dim} {options:?}",
        skerry_vector_index::kernel_name(),
        base.len() / dim
    );
    let truth_path = format!("{}.truth", args[3]);
    let truth: Vec<u32> = if let Ok(bytes) = std::fs::read(&truth_path) {
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b))
            .collect()
    } else {
        let mut all = Vec::new();
        for q in queries.chunks_exact(dim) {
            let mut scored: Vec<(f32, u32)> = base
                .chunks_exact(dim)
                .zip(0..)
                .map(|(v, at)| (Metric::Dot.score(q, v), at))
                .collect();
            scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            all.extend(scored.iter().take(10).map(|x| x.1));
        }
        std::fs::write(
            &truth_path,
            all.iter()
                .flat_map(|x| x.to_le_bytes())
                .collect::<Vec<u8>>(),
        )
        .unwrap();
        all
    };
    let start = cpu();
    let packed = Packed::build(dim, Metric::Cosine, &base, &options).unwrap();
    println!(
        "build {:.2} s hot {} B/vector nodes {} unreachable {}",
        cpu() - start,
        packed.hot_bytes() / packed.rows(),
        packed.nodes(),
        packed.unreachable()
    );
    let mut scratch = Scratch::default();
    for ef in [10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320] {
        let mut best = f64::MAX;
        let mut hits = 0;
        let scored = scratch.scored;
        for _ in 0..5 {
            let start = cpu();
            hits = 0;
            for (q, truth) in queries.chunks_exact(dim).zip(truth.chunks_exact(10)) {
                let found = packed.search(&mut scratch, q, 10, ef, &base);
                hits += found.iter().filter(|(row, _)| truth.contains(row)).count();
            }
            best = best.min(cpu() - start);
        }
        let n = queries.len() / dim;
        let scored = (scratch.scored - scored) as usize / n / 5;
        println!(
            "ef {ef:4} recall {:.4} scored {scored} qps {:.0}",
            hits as f64 / (n * 10) as f64,
            n as f64 / best
        );
    }
}
