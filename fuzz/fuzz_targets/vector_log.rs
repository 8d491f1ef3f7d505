//! Log files of a vector collection: refused, or records that encode to the same bytes again. Each
//! input is tried as it is, and with its checksums made right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use skerry_vector_index::store::fuzzing::{log, reseal};

fuzz_target!(|data: &[u8]| {
    let check = |bytes: &[u8]| {
        if let Err(error) = log(bytes, 1, 2) {
            assert!(!error.to_string().contains("mistake"), "{error}");
        }
    };
    check(data);
    let mut bytes = data.to_vec();
    reseal("wal-1.log", &mut bytes);
    check(&bytes);
});
