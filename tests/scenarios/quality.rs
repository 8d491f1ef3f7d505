//! What a client sees over HTTP is what `skerry eval` says, less what exploration costs.

use skerry_scenarios::quality::measure;
use skerry_scenarios::real_data;

/// Most that exploration may cost, as a share of NDCG@10.
const COST_MAX: f64 = 0.07;
/// Least share of what `skerry eval` says that a client finds with exploration off: all of it, but for
/// the answers that a busy machine gives on a lower rung.
const KEPT_MIN: f64 = 0.98;
/// Least share of answers on the top rung: a busy machine may miss a deadline now and then.
const TOP_RUNG_MIN: f64 = 0.97;

#[tokio::test]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn quality_over_http_is_that_of_eval() {
    let Some(data) = real_data("ml-latest-small") else {
        eprintln!(
            "skipped: no MovieLens ratings beside the checkout (../shared/data/ml-latest-small)"
        );
        return;
    };
    let figures = measure(&data).await.unwrap();
    eprintln!("{figures}");
    assert!(figures.users >= 600, "{} users", figures.users);
    assert!(
        figures.top_rung >= TOP_RUNG_MIN,
        "{} on the top rung",
        figures.top_rung
    );
    assert!(
        figures.kept() >= KEPT_MIN,
        "{:.1} % of what eval says",
        figures.kept() * 100.0
    );
    assert!(
        figures.cost() <= COST_MAX,
        "exploration costs {:.1} %",
        figures.cost() * 100.0
    );
}
