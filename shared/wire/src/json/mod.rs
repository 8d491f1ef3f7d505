//! The public JSON, version 1: questions and events in, answers and problems out.
//!
//! Invariants: size, nesting and number of values of a body are checked in a loop before anything is
//! parsed, so that no input costs more stack or memory than its bytes justify; a question that
//! leaves here is valid and needs no second look; every mistake is reported with a stable code (a
//! page each under `docs/errors/`) and a JSON pointer, several at once. What is refused is 400
//! (413 where it is too large), never 422. Nothing here reads a clock or decides anything.

mod answer;
mod ask;
mod attributes;
pub mod codes;
mod events;
mod filter;
mod problem;
mod query;
mod read;
mod route;
mod time;
mod tree;
mod write;

pub use answer::{
    AnswerView, CACHE_WIDTH, ItemView, MS_WIDTH, ReasonView, Served, Slots, cache_patch, ms_patch,
    render_answer,
};
pub use ask::{
    ParsedAsk, parse_popular_get, parse_rank, parse_recommend, parse_recommend_get, parse_similar,
};
pub use attributes::{
    AttributesPatch, ItemPatch, ParsedItems, attributes_to_json, event_to_json, item_to_json,
    parse_attributes, parse_attributes_patch, parse_item, parse_item_patch, parse_items,
};
pub use events::{EventInput, EventStamp, ParsedEvents, Rejected, parse_events, render_accepted};
pub use problem::{CONTENT_TYPE_JSON, CONTENT_TYPE_PROBLEM, FieldError, Problem, TYPE_BASE};
pub use query::{parse_query, percent_decode};
pub use route::{RouteMatch, match_route, split_target};
pub use time::{format_time, parse_time};
pub use write::{write_float, write_integer, write_string};

/// Largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of arrays and objects in a body.
pub const JSON_DEPTH_MAX: usize = 32;
/// Values in one body, at most: bounds what parsing may allocate.
pub const JSON_VALUES_MAX: usize = 100_000;
/// Mistakes reported at once, at most.
pub const ERRORS_MAX: usize = 16;
/// Items in `exclude`, at most.
pub const EXCLUDE_MAX: usize = 1_000;
/// Names in `fields`, at most.
pub const FIELDS_MAX: usize = 32;
/// Items that `similar` starts from, at most.
pub const SEEDS_MAX: usize = 10;
/// Items that `rank` orders, at most.
pub const RANK_ITEMS_MAX: usize = 500;
/// Values in one condition's list, at most.
pub const FILTER_VALUES_MAX: usize = 1_000;
/// Longest name of a field, attribute or context entry, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest text in `context`, in bytes.
pub const CONTEXT_TEXT_BYTES_MAX: usize = 256;
/// Entries of `context` that a deployment may declare beside the known ones, at most.
pub const CONTEXT_OTHER_MAX: usize = 16;
/// Longest `next` token, in bytes.
pub const NEXT_BYTES_MAX: usize = 64 << 10;
/// Positions in one impression, at most.
pub const POSITIONS_MAX: usize = 200;
/// How far ahead of the PoP's clock an event's `at` may be, in milliseconds.
pub const EVENT_AHEAD_MS_MAX: u64 = 24 * 3_600 * 1_000;
/// Longest text attribute, in bytes.
pub const ATTRIBUTE_TEXT_BYTES_MAX: usize = 16 << 10;
/// Attributes of one item or user, at most.
pub const ATTRIBUTES_MAX: usize = 256;
/// Elements of a list attribute, at most.
pub const ATTRIBUTE_LIST_MAX: usize = 256;
/// Availability windows of one item, at most.
pub const WINDOWS_MAX: usize = 64;
/// Items in one catalogue batch, at most.
pub const ITEMS_MAX: usize = 1_000;
