//! Frames and stored values: they come back as they went, their bytes do not change by accident,
//! and bytes of strangers cost no more than they weigh.

#[path = "common/any.rs"]
mod any;
mod common;
#[path = "common/second_decoder.rs"]
mod second_decoder;

use common::golden;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde::Serialize;
use serde::de::DeserializeOwned;
use skerry_types::{Filter, Test, Value};
use skerry_wire::codec::{CodecError, ENCODING, MAGIC, Schema, decode_as, encode_as};
use skerry_wire::frame::{AnswerContext, AnswerFrame, AskFrame, Control};
use skerry_wire::value::ContextSeen;
use skerry_wire::{decode, encode};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Debug;

fn round_trip<T: Schema + Serialize + DeserializeOwned + PartialEq + Debug>(
    value: &T,
) -> Result<(), TestCaseError> {
    let bytes = encode(value).unwrap();
    prop_assert_eq!(&decode::<T>(&bytes).unwrap(), value);
    prop_assert_eq!(
        &bytes[..4],
        &[
            MAGIC,
            ENCODING,
            T::SCHEMA.to_le_bytes()[0],
            T::SCHEMA.to_le_bytes()[1]
        ]
    );
    let longer = [&bytes[..], b"\0"].concat();
    prop_assert!(matches!(decode::<T>(&longer), Err(CodecError::Trailing)));
    for cut in 0..bytes.len() {
        prop_assert!(decode::<T>(&bytes[..cut]).is_err(), "cut at {}", cut);
    }
    Ok(())
}

/// The bytes of one value, always the same one: drawn from the strategy with a fixed seed.
fn sample<S: Strategy>(strategy: &S) -> S::Value {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    strategy.new_tree(&mut runner).unwrap().current()
}

macro_rules! wire_types {
    ($($name:ident,)+) => {
        proptest! {
            #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
            $(
                #[test]
                fn $name(value in any::$name()) {
                    round_trip(&value)?;
                }
            )+
        }

        /// One line a type: its schema number and the bytes of one value.
        #[test]
        fn formats_are_the_golden_ones() {
            let mut lines = String::new();
            $({
                let value = sample(&any::$name());
                let hex: String = encode(&value).unwrap().iter().map(|b| format!("{b:02x}")).collect();
                lines.push_str(&format!("{} {hex}\n", stringify!($name)));
            })+
            golden("binary.hex", lines.trim_end().as_bytes());
        }
    };
}

wire_types! {
    stored_context, stored_decision, event_batch, shown, pool_items, popular_list, pool_blob, popular_blob,
    mask_blob, bandit_blob, config_blob, next_page, rendered_head, control, ask_frame, answer_frame, push_header,
    context_push,
}

#[test]
fn goldens_still_decode() {
    let text = std::fs::read_to_string("tests/golden/binary.hex").unwrap();
    let bytes = |name: &str| -> Vec<u8> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .unwrap();
        (0..line.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap())
            .collect()
    };
    assert_eq!(
        decode::<Control>(&bytes("control")).unwrap(),
        sample(&any::control())
    );
    assert_eq!(
        decode::<AskFrame>(&bytes("ask_frame")).unwrap(),
        sample(&any::ask_frame())
    );
    assert_eq!(
        decode::<AnswerFrame>(&bytes("answer_frame")).unwrap(),
        sample(&any::answer_frame())
    );
}

#[test]
fn headers_are_checked() {
    let good = encode(&Control::Ping { nonce: 7 }).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        decode::<Control>(&bytes).unwrap_err().code()
    };
    let cases = [
        (
            "empty",
            decode::<Control>(&[]).unwrap_err().code(),
            "codec_short",
        ),
        (
            "three bytes",
            decode::<Control>(&good[..3]).unwrap_err().code(),
            "codec_short",
        ),
        ("stranger", with(0, b'{'), "codec_magic"),
        ("later encoding", with(1, 2), "codec_encoding"),
        (
            "another type",
            decode::<AskFrame>(&good).unwrap_err().code(),
            "codec_schema",
        ),
        ("unknown variant", with(4, 200), "codec_body"),
        (
            "no body",
            decode::<Control>(&good[..4]).unwrap_err().code(),
            "codec_body",
        ),
    ];
    for (name, got, want) in cases {
        assert_eq!(got, want, "{name}");
    }
}

// A counting allocator: what one decode asks for at once, by thread.

struct Counting;
thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_length_is_no_reason_to_allocate() {
    let header = |schema: u16| [vec![MAGIC, ENCODING], schema.to_le_bytes().to_vec()].concat();
    // bincode's marker for a u64, then 2^40.
    let huge = [&[253u8][..], &(1u64 << 40).to_le_bytes()].concat();
    let hello = [header(100), vec![0, 1, 1], huge.clone()].concat();
    let events = [header(100), vec![2, 0], huge.clone()].concat();
    let pool = [header(10), huge.clone()].concat();
    let arrays = [header(10), vec![0, 0, 0, 0], huge].concat();
    for (name, bytes) in [
        ("text", hello),
        ("list of events", events),
        ("text in a value", pool),
        ("bytes", arrays),
    ] {
        LARGEST.with(|largest| largest.set(0));
        let failed = match u16::from_le_bytes([bytes[2], bytes[3]]) {
            100 => decode::<Control>(&bytes).is_err(),
            _ => decode::<skerry_wire::value::PoolBlob>(&bytes).is_err(),
        };
        let largest = LARGEST.with(Cell::get);
        // serde reserves at most 1 MiB for a list that announces more.
        assert!(
            failed && largest <= 1 << 20,
            "{name}: {largest} bytes at once"
        );
    }
}

#[test]
fn nesting_of_peers_is_refused() {
    let too_deep = (0..40).fold(Filter::All(vec![]), |inner, _| Filter::Not(Box::new(inner)));
    let bytes = encode_as(900, &too_deep).unwrap();
    assert_eq!(
        decode_as::<Filter>(900, &bytes).unwrap_err().code(),
        "codec_body"
    );
    // 100,000 `not`s: the decoder must not follow them down.
    let count = [&[252u8][..], &100_000u32.to_le_bytes()].concat();
    let bytes = [vec![MAGIC, ENCODING, 132, 3], count, vec![2; 100_000]].concat();
    assert_eq!(
        decode_as::<Filter>(900, &bytes).unwrap_err().code(),
        "codec_body"
    );
    let wide = Filter::All(vec![
        Filter::Field {
            field: "x".into(),
            test: Test::Exists(true)
        };
        33
    ]);
    assert!(decode_as::<Filter>(900, &encode_as(900, &wide).unwrap()).is_err());
    // A list in a list in a list ...
    let bytes = [vec![MAGIC, ENCODING, 132, 3], [5u8, 1].repeat(100_000)].concat();
    assert_eq!(
        decode_as::<Value>(900, &bytes).unwrap_err().code(),
        "codec_body"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A worker's exposure: the head in front of what all answers from one body share.
    #[test]
    fn exposures_round_trip(exposure in any::exposure()) {
        let shown = encode(&exposure.shown).unwrap();
        let bytes = skerry_wire::value::exposure::join(exposure.request_id, exposure.at_ms, exposure.from_cache, &shown);
        for cut in 0..bytes.len() {
            prop_assert!(skerry_wire::value::exposure::read(&bytes[..cut]).is_err());
        }
        let head = skerry_wire::value::exposure::read_head(&bytes).unwrap();
        prop_assert_eq!(
            (head.request_id, head.decision_id, head.at_ms),
            (exposure.request_id, exposure.shown.decision_id, exposure.at_ms)
        );
        prop_assert_eq!(skerry_wire::value::exposure::read(&bytes).unwrap(), exposure);
    }

    /// The first fields of a stored context are read alone, and can be put before another content.
    #[test]
    fn contexts_are_read_and_joined_in_parts(stored in any::stored_context()) {
        let bytes = encode(&stored).unwrap();
        let first = ContextSeen::of(&bytes).unwrap();
        let want = (stored.written_ms, stored.expires_ms, stored.mark);
        prop_assert_eq!((first.head.written_ms, first.head.expires_ms, first.head.mark), want);
        prop_assert_eq!(&first.seen, &stored.context.seen);
        let content = AnswerContext::of(&stored.context).unwrap();
        prop_assert_eq!(content.read().unwrap(), stored.context);
        prop_assert_eq!(&first.head.with(&content.context).unwrap(), &bytes);
        prop_assert!(first.head.with(&bytes).is_err(), "another schema is no content");
    }

    #[test]
    fn filters_survive_the_wire(filter in any::filter()) {
        let bytes = encode_as(900, &filter).unwrap();
        prop_assert_eq!(decode_as::<Filter>(900, &bytes).unwrap(), filter);
    }

    /// Whatever decodes is a value: it encodes again, and that decodes to the same bytes.
    #[test]
    fn strangers_bytes_are_refused_or_understood(
        schema in prop::sample::select(vec![1u16, 2, 3, 4, 11, 12, 15, 100, 101, 102, 103]),
        body in prop::collection::vec(prop_oneof![0u8..6, any_byte()], 0..80),
    ) {
        let bytes = [vec![MAGIC, ENCODING], schema.to_le_bytes().to_vec(), body].concat();
        fn again<T: Schema + Serialize + DeserializeOwned>(bytes: &[u8]) {
            if let Ok(value) = decode::<T>(bytes) {
                let once = encode(&value).unwrap();
                let twice = encode(&decode::<T>(&once).unwrap()).unwrap();
                assert_eq!(once, twice);
            }
        }
        match schema {
            1 => again::<skerry_wire::value::StoredContext>(&bytes),
            2 => again::<skerry_wire::value::StoredDecision>(&bytes),
            3 => again::<skerry_wire::value::EventBatch>(&bytes),
            4 => again::<skerry_wire::value::Shown>(&bytes),
            11 => again::<skerry_wire::value::PopularBlob>(&bytes),
            12 => again::<skerry_wire::value::MaskBlob>(&bytes),
            15 => again::<skerry_wire::value::NextPage>(&bytes),
            100 => again::<Control>(&bytes),
            101 => again::<AskFrame>(&bytes),
            102 => again::<AnswerFrame>(&bytes),
            _ => again::<skerry_wire::frame::PushHeader>(&bytes),
        }
    }
}

fn any_byte() -> impl Strategy<Value = u8> {
    proptest::num::u8::ANY
}

#[test]
fn a_refusal_is_told_from_an_answer_without_decoding() {
    let strategy = any::answer_frame();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut seen = [0; 2];
    for _ in 0..64 {
        let frame = strategy.new_tree(&mut runner).unwrap().current();
        let refusal = skerry_wire::frame::is_refusal(&encode(&frame).unwrap());
        assert_eq!(refusal, frame.outcome.is_err());
        seen[usize::from(refusal)] += 1;
    }
    assert!(
        seen.iter().all(|count| *count > 0),
        "both kinds were drawn: {seen:?}"
    );
}
