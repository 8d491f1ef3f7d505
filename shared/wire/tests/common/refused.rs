//! What a refusal says, in a form to compare.

use skerry_wire::json::Problem;

/// Status, code, and pointer and code of each mistake.
pub fn seen<T: std::fmt::Debug>(result: Result<T, Problem>) -> (u16, String, Vec<String>) {
    let problem = result.expect_err("must be refused");
    let errors = problem
        .errors
        .iter()
        .map(|e| format!("{} {}", e.pointer, e.code))
        .collect();
    (problem.status, problem.code.to_owned(), errors)
}
