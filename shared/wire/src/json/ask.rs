//! Questions: `recommend`, `similar`, `rank`, `popular`.

use super::filter::read_filter;
use super::query::{percent_decode, read_query};
use super::read::{Mistakes, Path, get, shown, unknown};
use super::tree::{Entry, Node, parse};
use super::{
    CONTEXT_OTHER_MAX, CONTEXT_TEXT_BYTES_MAX, EXCLUDE_MAX, FIELDS_MAX, NAME_BYTES_MAX,
    NEXT_BYTES_MAX, Problem, RANK_ITEMS_MAX, SEEDS_MAX, codes,
};
use skerry_types::{
    Ask, Budget, Count, Country, ItemId, RequestContext, Route, Rung, SessionId, Surface, TenantId,
    UserId,
};

/// A question, and where the caller wants to go on in an earlier list. What the sealed token means
/// is not known here.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedAsk {
    pub ask: Ask,
    pub next: Option<String>,
}

impl ParsedAsk {
    fn new(tenant: &TenantId, route: Route) -> Self {
        let ask = Ask {
            tenant: tenant.clone(),
            route,
            ..Ask::default()
        };
        Self { ask, next: None }
    }
}

/// What all questions with a body have in common.
const COMMON: [&str; 7] = [
    "user",
    "surface",
    "context",
    "fields",
    "budget_ms",
    "lowest_rung",
    "explain",
];
const RECOMMEND: [&str; 11] = with_common(["n", "exclude", "filter", "next"]);
const SIMILAR: [&str; 13] = with_common(["item", "items", "n", "exclude", "filter", "next"]);
const RANK: [&str; 8] = with_common(["items"]);

const fn with_common<const A: usize, const N: usize>(own: [&'static str; A]) -> [&'static str; N] {
    let mut all = [""; N];
    let mut at = 0;
    while at < N {
        #[expect(
            clippy::indexing_slicing,
            reason = "evaluated when compiling: a wrong length does not build"
        )]
        {
            all[at] = if at < A { own[at] } else { COMMON[at - A] };
        }
        at += 1;
    }
    all
}

/// `POST /v1/recommend`
pub fn parse_recommend(body: &[u8], tenant: &TenantId) -> Result<ParsedAsk, Problem> {
    let root = parse(body)?;
    let mut mistakes = Mistakes::default();
    let mut parsed = ParsedAsk::new(tenant, Route::Recommend);
    read_body(&root, &RECOMMEND, &mut parsed, &mut mistakes);
    mistakes.finish(parsed)
}

/// `POST /v1/similar`
pub fn parse_similar(body: &[u8], tenant: &TenantId) -> Result<ParsedAsk, Problem> {
    let root = parse(body)?;
    let mut mistakes = Mistakes::default();
    let mut parsed = ParsedAsk::new(tenant, Route::Recommend);
    let Some(entries) = read_body(&root, &SIMILAR, &mut parsed, &mut mistakes) else {
        return mistakes.finish(parsed);
    };
    let seeds = match (get(entries, "item"), get(entries, "items")) {
        (Some(item), None) => mistakes
            .id_node(item, &Path::ROOT.key("item"), ItemId::new)
            .map(|id| vec![id]),
        (None, Some(items)) => {
            mistakes.id_list(items, &Path::ROOT.key("items"), 1..=SEEDS_MAX, ItemId::new)
        }
        (None, None) => {
            mistakes.note(&Path::ROOT.key("item"), codes::MISSING_FIELD, || {
                "item (or items) is missing".to_owned()
            });
            None
        }
        (Some(_), Some(_)) => {
            let detail = || "item and items exclude each other".to_owned();
            mistakes.note(&Path::ROOT.key("items"), codes::CONFLICTING_FIELDS, detail);
            None
        }
    };
    parsed.ask.route = Route::Similar {
        seeds: seeds.unwrap_or_default(),
    };
    mistakes.finish(parsed)
}

/// `POST /v1/rank`; the answer has all of the items, so that there is no `n`.
pub fn parse_rank(body: &[u8], tenant: &TenantId) -> Result<ParsedAsk, Problem> {
    let root = parse(body)?;
    let mut mistakes = Mistakes::default();
    let mut parsed = ParsedAsk::new(tenant, Route::Recommend);
    let Some(entries) = read_body(&root, &RANK, &mut parsed, &mut mistakes) else {
        return mistakes.finish(parsed);
    };
    let path = Path::ROOT.key("items");
    let items = match get(entries, "items") {
        Some(items) => mistakes.id_list(items, &path, 1..=RANK_ITEMS_MAX, ItemId::new),
        None => {
            mistakes.note(&path, codes::MISSING_FIELD, || {
                "items is missing".to_owned()
            });
            None
        }
    };
    parsed.ask.route = Route::Rank {
        items: items.unwrap_or_default(),
    };
    mistakes.finish(parsed)
}

/// `GET /v1/recommend/{user_id}`; both parts as they stand in the request.
pub fn parse_recommend_get(
    user_id: &str,
    query: &str,
    tenant: &TenantId,
) -> Result<ParsedAsk, Problem> {
    const KNOWN: [&str; 8] = [
        "surface",
        "n",
        "exclude",
        "fields",
        "lowest_rung",
        "budget_ms",
        "explain",
        "next",
    ];
    let mut mistakes = Mistakes::default();
    let mut parsed = ParsedAsk::new(tenant, Route::Recommend);
    let path = Path::segment("user_id");
    match percent_decode(user_id, false) {
        Some(text) => parsed.ask.user = mistakes.id(&text, &path, UserId::new),
        None => {
            let what = "percent-encoded UTF-8 (% and two hex digits)";
            mistakes.must(&path, codes::PERCENT_ENCODING_INVALID, what);
        }
    }
    let [
        surface,
        n,
        exclude,
        fields,
        lowest_rung,
        budget_ms,
        explain,
        next,
    ] = read_query(query, &KNOWN, &mut mistakes);
    let ask = &mut parsed.ask;
    query_surface(surface.as_deref(), ask, &mut mistakes);
    query_count(n.as_deref(), ask, &mut mistakes);
    query_exclude(exclude.as_deref(), ask, &mut mistakes);
    query_fields(fields.as_deref(), ask, &mut mistakes);
    query_explain(explain.as_deref(), ask, &mut mistakes);
    if let Some(text) = lowest_rung {
        ask.lowest_rung = rung(&text, &Path::parameter("lowest_rung"), &mut mistakes);
    }
    if let Some(text) = budget_ms {
        let (least, most) = (*Budget::RANGE_MS.start(), *Budget::RANGE_MS.end());
        if let Some(ms) = number(
            &text,
            &Path::parameter("budget_ms"),
            least,
            most,
            &mut mistakes,
        ) {
            ask.budget_ms = ms;
        }
    }
    if let Some(token) = next.filter(|token| !token.is_empty()) {
        parsed.next = next_token(&token, &Path::parameter("next"), &mut mistakes);
    }
    mistakes.finish(parsed)
}

/// `GET /v1/popular`
pub fn parse_popular_get(query: &str, tenant: &TenantId) -> Result<ParsedAsk, Problem> {
    const KNOWN: [&str; 5] = ["surface", "n", "exclude", "fields", "explain"];
    let mut mistakes = Mistakes::default();
    let mut parsed = ParsedAsk::new(tenant, Route::Popular);
    let [surface, n, exclude, fields, explain] = read_query(query, &KNOWN, &mut mistakes);
    let ask = &mut parsed.ask;
    query_surface(surface.as_deref(), ask, &mut mistakes);
    query_count(n.as_deref(), ask, &mut mistakes);
    query_exclude(exclude.as_deref(), ask, &mut mistakes);
    query_fields(fields.as_deref(), ask, &mut mistakes);
    query_explain(explain.as_deref(), ask, &mut mistakes);
    mistakes.finish(parsed)
}

// Parameters.

fn query_surface(text: Option<&str>, ask: &mut Ask, mistakes: &mut Mistakes) {
    if let Some(surface) =
        text.and_then(|text| mistakes.id(text, &Path::parameter("surface"), Surface::new))
    {
        ask.surface = surface;
    }
}

fn query_count(text: Option<&str>, ask: &mut Ask, mistakes: &mut Mistakes) {
    let Some(text) = text else { return };
    let n = number(
        text,
        &Path::parameter("n"),
        1,
        u32::from(Count::MAX),
        mistakes,
    );
    if let Some(n) = n.and_then(|n| Count::new(u64::from(n))) {
        ask.n = n;
    }
}

fn query_exclude(text: Option<&str>, ask: &mut Ask, mistakes: &mut Mistakes) {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return;
    };
    let path = Path::parameter("exclude");
    if text.split(',').nth(EXCLUDE_MAX).is_some() {
        mistakes.must(
            &path,
            codes::TOO_MANY,
            &format!("at most {EXCLUDE_MAX} ids"),
        );
        return;
    }
    for id in text.split(',') {
        ask.exclude.extend(mistakes.id(id, &path, ItemId::new));
    }
}

fn query_fields(text: Option<&str>, ask: &mut Ask, mistakes: &mut Mistakes) {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return;
    };
    let path = Path::parameter("fields");
    if text.split(',').nth(FIELDS_MAX).is_some() {
        mistakes.must(
            &path,
            codes::TOO_MANY,
            &format!("at most {FIELDS_MAX} names"),
        );
        return;
    }
    for name in text.split(',') {
        ask.fields
            .extend(mistakes.plain(name, &path, NAME_BYTES_MAX).map(Box::from));
    }
}

fn query_explain(text: Option<&str>, ask: &mut Ask, mistakes: &mut Mistakes) {
    match text {
        None => {}
        Some("true" | "1") => ask.explain = true,
        Some("false" | "0") => ask.explain = false,
        Some(_) => mistakes.must(
            &Path::parameter("explain"),
            codes::WRONG_TYPE,
            "true or false",
        ),
    }
}

/// Decimal digits only, in a range.
fn number(
    text: &str,
    path: &Path<'_>,
    least: u32,
    most: u32,
    mistakes: &mut Mistakes,
) -> Option<u32> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(text.strip_prefix('-').unwrap_or(text)) {
        mistakes.must(
            path,
            codes::WRONG_TYPE,
            &format!("a whole number from {least} to {most}"),
        );
        return None;
    }
    let value = text
        .parse()
        .ok()
        .filter(|value| (least..=most).contains(value));
    if value.is_none() {
        mistakes.must(
            path,
            codes::OUT_OF_RANGE,
            &format!("a whole number from {least} to {most}"),
        );
    }
    value
}

// Bodies.

/// Reads everything that questions share; the entries, for what only one of them has.
fn read_body<'n, 'a>(
    root: &'n Node<'a>,
    known: &[&str],
    parsed: &mut ParsedAsk,
    mistakes: &mut Mistakes,
) -> Option<&'n [Entry<'a>]> {
    let entries = mistakes.object(root, &Path::ROOT)?;
    mistakes.known(entries, &Path::ROOT, known);
    let ask = &mut parsed.ask;
    for (name, node) in entries {
        // Names that this question does not know have been noted above.
        if !known.contains(&name.as_ref()) {
            continue;
        }
        let path = Path::ROOT.key(name);
        match name.as_ref() {
            "user" => read_user(node, &path, ask, mistakes),
            "surface" => {
                ask.surface = mistakes
                    .id_node(node, &path, Surface::new)
                    .unwrap_or_default()
            }
            "n" => {
                let n = mistakes.whole(node, &path, 1..=u64::from(Count::MAX));
                ask.n = n.and_then(Count::new).unwrap_or_default();
            }
            "context" => read_context(node, &path, &mut ask.context, mistakes),
            "exclude" => {
                ask.exclude = mistakes
                    .id_list(node, &path, 0..=EXCLUDE_MAX, ItemId::new)
                    .unwrap_or_default();
            }
            "filter" => ask.filter = read_filter(node, &path, mistakes),
            "fields" => read_fields(node, &path, ask, mistakes),
            "budget_ms" => {
                let (least, most) = (
                    u64::from(*Budget::RANGE_MS.start()),
                    u64::from(*Budget::RANGE_MS.end()),
                );
                let ms = mistakes
                    .whole(node, &path, least..=most)
                    .and_then(|ms| u32::try_from(ms).ok());
                ask.budget_ms = ms.unwrap_or(Budget::DEFAULT_MS);
            }
            "lowest_rung" => {
                ask.lowest_rung = mistakes
                    .text(node, &path)
                    .and_then(|text| rung(text, &path, mistakes));
            }
            "explain" => ask.explain = mistakes.boolean(node, &path).unwrap_or_default(),
            "next" => {
                parsed.next = mistakes
                    .text(node, &path)
                    .and_then(|text| next_token(text, &path, mistakes));
            }
            _ => {}
        }
    }
    Some(entries)
}

fn read_user(node: &Node<'_>, path: &Path<'_>, ask: &mut Ask, mistakes: &mut Mistakes) {
    let Some(entries) = mistakes.object(node, path) else {
        return;
    };
    mistakes.known(entries, path, &["id", "session"]);
    if let Some(id) = get(entries, "id") {
        ask.user = mistakes.id_node(id, &path.key("id"), UserId::new);
    }
    if let Some(session) = get(entries, "session") {
        ask.session = mistakes.id_node(session, &path.key("session"), SessionId::new);
    }
}

fn read_context(
    node: &Node<'_>,
    path: &Path<'_>,
    context: &mut RequestContext,
    mistakes: &mut Mistakes,
) {
    let Some(entries) = mistakes.object(node, path) else {
        return;
    };
    const KNOWN: [&str; 4] = ["device", "country", "locale", "tz"];
    if entries.len() > CONTEXT_OTHER_MAX + KNOWN.len() {
        mistakes.must(
            path,
            codes::TOO_MANY,
            &format!("{} entries at most", CONTEXT_OTHER_MAX + KNOWN.len()),
        );
        return;
    }
    for (at, (name, node)) in entries.iter().enumerate() {
        let path = path.key(name);
        if entries.iter().take(at).any(|(earlier, _)| earlier == name) {
            mistakes.note(&path, codes::DUPLICATE_FIELD, || {
                format!("{} is given twice", shown(name))
            });
            continue;
        }
        let Some(text) = mistakes.text(node, &path) else {
            continue;
        };
        if name == "country" {
            context.country = Country::parse(text);
            if context.country.is_none() {
                mistakes.must(&path, codes::COUNTRY_INVALID, "two letters (ISO 3166-1)");
            }
            continue;
        }
        let Some(text) = mistakes.plain(text, &path, CONTEXT_TEXT_BYTES_MAX) else {
            continue;
        };
        match name.as_ref() {
            "device" => context.device = Some(text.into()),
            "locale" => context.locale = Some(text.into()),
            "tz" => context.tz = Some(text.into()),
            other => {
                if mistakes.plain(other, &path, NAME_BYTES_MAX).is_some() {
                    context.other.insert(other.into(), text.into());
                }
            }
        }
    }
}

fn read_fields(node: &Node<'_>, path: &Path<'_>, ask: &mut Ask, mistakes: &mut Mistakes) {
    let Some(list) = mistakes.list(node, path, 0..=FIELDS_MAX) else {
        return;
    };
    for (at, node) in list.iter().enumerate() {
        let path = path.index(at);
        let name = mistakes
            .text(node, &path)
            .and_then(|name| mistakes.plain(name, &path, NAME_BYTES_MAX));
        ask.fields.extend(name.map(Box::from));
    }
}

fn rung(text: &str, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Rung> {
    let rung = Rung::parse(text);
    if rung.is_none() {
        let known: Vec<&str> = Rung::ALL.iter().map(|rung| rung.as_str()).collect();
        mistakes.note(path, codes::RUNG_UNKNOWN, || unknown("rung", text, &known));
    }
    rung
}

fn next_token(text: &str, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<String> {
    let ok =
        (1..=NEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !ok {
        mistakes.must(
            path,
            codes::NEXT_INVALID,
            "the next of an earlier answer, unchanged",
        );
    }
    ok.then(|| text.to_owned())
}
