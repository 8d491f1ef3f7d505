use super::*;
use proptest::prelude::*;

fn lines(codes: &[u8]) -> Vec<Line> {
    let (lines, _) = codes.as_chunks::<STRIDE>();
    lines.iter().map(|line| Line(*line)).collect()
}

/// Such as no product of leaves the range, and any, whose products overflow or have few bits left.
fn floats_of_all_sizes() -> impl Strategy<Value = f32> {
    prop_oneof![4 => -1e3f32..1e3, 1 => -1e-20f32..1e-20, 1 => any::<f32>()]
}

proptest! {
    #[test]
    fn all_paths_give_the_same_products(
        lines_of_row in 1usize..=8,
        rows in 1usize..=11,
        seed in any::<u64>(),
        extreme in 0u8..4,
    ) {
        let noise = |at: usize| {
            let x = (seed ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
        };
        let code = |at| match extreme { 0 => 255, 1 => 0, _ => noise(at) };
        let query = |at: usize| match extreme { 0 | 2 => QUERY_MAX, 1 => -QUERY_MAX, _ => (noise(at + 7) as i8) / 2 };
        let table = lines(&(0..rows * lines_of_row * STRIDE).map(code).collect::<Vec<_>>());
        let query = QueryCodes::new((0..lines_of_row * STRIDE).map(query));
        let these: Vec<u32> = (0..rows as u32).rev().chain([0]).collect();
        for path in available() {
            let mut got = vec![0; rows + 1];
            let mut want = got.clone();
            // SAFETY: the rows are those of the table.
            unsafe {
                (path.dots)(table.as_ptr(), lines_of_row, Which::These(&these), &query.lines, query.sum, &mut got);
                (plain::PATH.dots)(table.as_ptr(), lines_of_row, Which::These(&these), &query.lines, query.sum, &mut want);
            }
            prop_assert_eq!(&got, &want, "{}", path.name);
            let (mut got_half, mut want_half) = (query.lines.clone(), query.lines.clone());
            let row = &table[..lines_of_row];
            // SAFETY: as above.
            let sums = unsafe { ((path.halve)(row, &mut got_half), plain::halve(row, &mut want_half)) };
            prop_assert_eq!(sums.0, sums.1, "{}", path.name);
            prop_assert!(got_half.iter().zip(&want_half).all(|(a, b)| a.0 == b.0), "{}", path.name);
            let mut got = vec![0; rows];
            // SAFETY: as above.
            unsafe { (path.dots)(table.as_ptr(), lines_of_row, Which::From(0), &query.lines, query.sum, &mut got) };
            got.reverse();
            prop_assert_eq!(&got[..], &want[..rows], "{}", path.name);
        }
    }

    #[test]
    fn all_paths_give_the_same_sums_of_bits(
        words in 1usize..=17,
        extra in 0usize..3,
        rows in 1usize..=9,
        seed in any::<u64>(),
    ) {
        let noise = |at: usize| {
            let x = (seed ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        let stride = words + extra;
        let table: Vec<u64> = (0..rows * stride).map(noise).collect();
        let planes: Vec<u64> = (0..words * PLANES).map(|at| noise(at + 7_777)).collect();
        // The last is no row.
        let these: Vec<u32> = (0..=rows as u32).rev().collect();
        let want = these.iter().map(|row| {
            let bit = |words: &[u64], at: usize| words[at / 64] >> (at % 64) & 1;
            let each = (0..words * 64).map(|at| {
                let number: u64 = (0..PLANES).map(|plane| bit(&planes[plane * words..], at) << plane).sum();
                let row = table.get(*row as usize * stride..).filter(|row| row.len() >= words);
                number * row.map_or(0, |row| bit(row, at))
            });
            each.sum::<u64>() as i32
        });
        let want: Vec<i32> = want.collect();
        for path in available() {
            let mut got = vec![0; rows + 1];
            // SAFETY: `available` has only what the machine can run.
            unsafe { (path.bit_sums)(&table, stride, Which::These(&these), &planes, &mut got) };
            prop_assert_eq!(&got, &want, "{}", path.name);
            // SAFETY: as above.
            unsafe { (path.bit_sums)(&table, stride, Which::From(0), &planes, &mut got) };
            got.reverse();
            prop_assert_eq!(&got, &want, "{}", path.name);
        }
    }

    #[test]
    fn all_paths_give_the_same_bits(values in prop::collection::vec(floats_of_all_sizes(), 0..400)) {
        let (a, b) = values.split_at(values.len() / 2);
        let (a, b) = (&a[..a.len() / LANES * LANES], &b[..b.len() / LANES * LANES]);
        let (a, b) = (a.as_chunks().0, b.as_chunks().0);
        // Of what is no number, the bits are the machine's business.
        let bits = |lanes: [f32; LANES]| lanes.map(|x| if x.is_nan() { None } else { Some(x.to_bits()) });
        for path in available() {
            // SAFETY: `available` has only what the machine can run.
            let (dot, l2) = unsafe { ((path.dot_f32)(a, b), (path.l2_f32)(a, b)) };
            // SAFETY: plain Rust.
            let (dot_plain, l2_plain) = unsafe { ((plain::PATH.dot_f32)(a, b), (plain::PATH.l2_f32)(a, b)) };
            prop_assert_eq!(bits(dot), bits(dot_plain), "{}", path.name);
            prop_assert_eq!(bits(l2), bits(l2_plain), "{}", path.name);
        }
    }
}

#[test]
fn the_greatest_sums_are_exact_wherever_rows_begin() {
    // The ends of the range, alike and with signs that alternate, which would cancel a lost carry.
    let of_rows: [fn(usize) -> u8; 4] = [|_| 0, |_| 255, |at| 255 * (at as u8 % 2), |at| at as u8];
    let of_query: [fn(usize) -> i8; 3] = [
        |_| QUERY_MAX,
        |_| -QUERY_MAX,
        |at| [-QUERY_MAX, QUERY_MAX][at % 2],
    ];
    for (lines_of_row, rows) in (1..=8).flat_map(|lines| (1..=11).map(move |rows| (lines, rows))) {
        for (code, query) in of_rows
            .iter()
            .flat_map(|row| of_query.iter().map(move |query| (row, query)))
        {
            let width = lines_of_row * STRIDE;
            let codes: Vec<u8> = (0..rows * width).map(|at| code(at + at / width)).collect();
            // No room behind the last row: a sanitizer sees what is read there.
            let table = lines(&codes).into_boxed_slice();
            let in_lines = QueryCodes::new((0..width).map(query));
            let want: Vec<i64> = codes
                .chunks(width)
                .map(|row| {
                    let pairs = row.iter().zip(0..);
                    let products =
                        pairs.map(|(x, at)| (i64::from(*x) - 128) * i64::from(query(at)));
                    products.sum()
                })
                .collect();
            for (path, first) in available()
                .into_iter()
                .flat_map(|path| (0..rows).map(move |first| (path, first)))
            {
                let mut got = vec![i32::MIN; rows - first];
                let from = Which::From(first as u32);
                // SAFETY: the rows from `first` on are those of the table.
                unsafe {
                    (path.dots)(
                        table.as_ptr(),
                        lines_of_row,
                        from,
                        &in_lines.lines,
                        in_lines.sum,
                        &mut got,
                    );
                }
                assert!(
                    got.iter()
                        .map(|x| i64::from(*x))
                        .eq(want[first..].iter().copied()),
                    "{} {lines_of_row} {rows} {first}",
                    path.name
                );
            }
        }
    }
}

#[test]
fn numbers_at_the_edges_are_refused_or_ask_for_nothing() {
    let table = lines(&[7; STRIDE * 3]);
    let (none, one, two) = (
        QueryCodes::new([]),
        QueryCodes::new([1; STRIDE]),
        QueryCodes::new([1; STRIDE * 2]),
    );
    let max = u32::MAX;
    let refused: [(usize, Which<'_>, &QueryCodes, usize); 9] = [
        (1, Which::These(&[max]), &one, 1),
        (1, Which::These(&[0, 1, 2, 3, max]), &one, 5),
        (1, Which::From(max), &one, 1),
        (1, Which::From(3), &one, 1),
        (2, Which::These(&[1]), &two, 1),
        (2, Which::From(0), &two, 2),
        (0, Which::These(&[0]), &none, 1),
        (0, Which::From(0), &none, 1),
        (usize::MAX, Which::From(0), &one, 1),
    ];
    for (at, (lines, which, query, room)) in refused.into_iter().enumerate() {
        let mut out = vec![0; room];
        dots(&table, lines, which, query, &mut out);
        assert!(out.iter().all(|x| *x == i32::MIN), "{at}: {out:?}");
    }
    for (lines, query) in [(0, &none), (1, &one), (1, &two)] {
        for which in [
            Which::These(&[]),
            Which::From(0),
            Which::From(3),
            Which::From(max),
        ] {
            dots(&table, lines, which, query, &mut []);
            dots(&[], lines, which, query, &mut []);
        }
    }
    let mut query = QueryCodes::new([1]);
    query.set_halved(&[]);
    assert_eq!((query.lines.len(), query.sum), (0, 0));
    query.set_halved(&lines(&[0; STRIDE]));
    assert_eq!(
        query.sum,
        -64 * 64,
        "half of the least code is the least of a query"
    );
    query.set([i8::MIN, i8::MAX, i8::MAX]);
    assert_eq!((query.lines.len(), query.sum), (1, 64), "clamped");
}

#[test]
fn what_does_not_fit_is_never_read() {
    let table = lines(&[7; STRIDE * 2]);
    let query = QueryCodes::new([1; STRIDE]);
    let mut out = [0; 2];
    dots(&table, 1, Which::These(&[0, 2]), &query, &mut out);
    assert_eq!(out, [i32::MIN; 2], "a row beyond the table");
    dots(&table, 1, Which::From(1), &query, &mut out);
    assert_eq!(out, [i32::MIN; 2], "rows up to beyond the table");
    dots(&table, 2, Which::These(&[0, 0]), &query, &mut out);
    assert_eq!(out, [i32::MIN; 2], "a query that is too short");
    dots(&table, 1, Which::These(&[0]), &query, &mut out);
    assert_eq!(out, [i32::MIN; 2], "more results than rows");
    dots(&table, 1, Which::From(0), &query, &mut out);
    assert_eq!(out, [(7 - 128) * 64; 2]);
}

#[test]
fn a_halved_row_stands_for_half() {
    let codes: Vec<u8> = (0..STRIDE as u8).map(|at| 96 + at).collect();
    let row = lines(&codes);
    let mut query = QueryCodes::new([]);
    query.set_halved(&row);
    let mut out = [0];
    dots(&row, 1, Which::From(0), &query, &mut out);
    let square: i32 = codes.iter().map(|x| (i32::from(*x) - 128).pow(2)).sum();
    assert!(
        (out[0] * 2 - square).abs() < square / 20,
        "{} {square}",
        out[0]
    );
}

#[test]
fn floats() {
    let a: Vec<f32> = (0..77).map(|x| x as f32).collect();
    let b: Vec<f32> = (0..77).map(|x| 2.0 * x as f32).collect();
    let squares: f32 = a.iter().map(|x| x * x).sum();
    assert_eq!(dot_f32(&a, &b), 2.0 * squares);
    assert_eq!(l2_f32(&a, &b), squares);
    assert_eq!(dot_f32(&[], &[]), 0.0);
}
