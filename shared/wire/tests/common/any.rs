//! Any value of each type that travels or is stored, small: the domain's here, frames and values beside.

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use skerry_types::{
    Ask, Attributes, Candidate, Cause, Count, Country, Decision, Event, EventKind, Filter, Hlc,
    ItemHash, ItemId, ItemRef, Reason, ReasonKind, RecentEvent, RequestContext, Rights, Route,
    Rung, Source, Surface, TenantId, Test, Uid, UserContext, Value, Warning, WarningCode, Window,
};
use std::sync::Arc;

#[path = "any_wire.rs"]
mod wire;
pub use wire::*;

fn id<T>() -> impl Strategy<Value = T>
where
    T: std::str::FromStr + std::fmt::Debug,
    T::Err: std::fmt::Debug,
{
    "[a-zß0-9]{1,6}".prop_map(|text| text.parse().unwrap())
}

fn surface() -> impl Strategy<Value = Surface> {
    "[a-z]{1,6}".prop_map(|text| Surface::new(&text).unwrap())
}

fn arc() -> impl Strategy<Value = Arc<str>> {
    "\\PC{0,6}".prop_map(Arc::from)
}

fn boxed() -> impl Strategy<Value = Box<str>> {
    "\\PC{0,6}".prop_map(String::into_boxed_str)
}

fn uid() -> impl Strategy<Value = Uid> {
    any::<u128>().prop_map(Uid)
}

fn number() -> impl Strategy<Value = f32> {
    any::<i32>().prop_map(|n| n as f32 / 8.0)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn rung() -> impl Strategy<Value = Rung> {
    select(Rung::ALL)
}

fn cause() -> impl Strategy<Value = Option<Cause>> {
    of(select(Cause::ALL))
}

fn source() -> impl Strategy<Value = Source> {
    select(Source::ALL)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        number().prop_map(|n| Value::Float(f64::from(n))),
        boxed().prop_map(Value::Text),
    ]
}

pub fn value() -> impl Strategy<Value = Value> {
    prop_oneof![3 => scalar(), 1 => vec(scalar(), 0..4).prop_map(Value::List)]
}

pub fn attributes() -> impl Strategy<Value = Attributes> {
    btree_map(boxed(), value(), 0..3)
}

pub fn filter() -> impl Strategy<Value = Filter> {
    let test = prop_oneof![
        value().prop_map(Test::Eq),
        vec(scalar(), 0..3).prop_map(Test::In),
        vec(scalar(), 0..3).prop_map(Test::NotIn),
        value().prop_map(Test::Gt),
        value().prop_map(Test::Gte),
        value().prop_map(Test::Lt),
        value().prop_map(Test::Lte),
        any::<bool>().prop_map(Test::Exists),
    ];
    let leaf = (boxed(), test).prop_map(|(field, test)| Filter::Field { field, test });
    leaf.prop_recursive(8, 24, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Filter::All),
            vec(inner.clone(), 0..3).prop_map(Filter::Any),
            inner.prop_map(|one| Filter::Not(Box::new(one))),
        ]
    })
}

fn kind() -> impl Strategy<Value = EventKind> {
    let names = [
        "view",
        "click",
        "like",
        "dislike",
        "add_to_cart",
        "purchase",
        "rating",
        "impression",
        "my.own",
    ];
    select(names.to_vec()).prop_map(|name| EventKind::parse(name).unwrap())
}

fn hlc() -> impl Strategy<Value = Hlc> {
    (any::<u64>(), any::<u32>()).prop_map(|(ms, count)| Hlc { ms, count })
}

pub fn event() -> impl Strategy<Value = Event> {
    let who = (id(), id(), of(id()), of(id()), of(id()), of(surface()));
    let what = (
        kind(),
        of(number()),
        any::<u64>(),
        any::<u64>(),
        of(uid()),
        vec(any::<u16>(), 0..3),
    );
    (who, what, hlc(), arc(), arc()).prop_map(|(who, what, hlc, region, pop)| {
        let (tenant, id, user, session, item, surface) = who;
        let (kind, value, at_ms, accepted_ms, request_id, positions) = what;
        Event {
            tenant,
            id,
            kind,
            user,
            session,
            item,
            value,
            at_ms,
            accepted_ms,
            surface,
            request_id,
            positions,
            hlc,
            region,
            pop,
        }
    })
}

fn reason() -> impl Strategy<Value = Reason> {
    let item = (id::<ItemId>(), arc()).prop_map(|(id, title)| ItemRef { id, title });
    (select(ReasonKind::ALL), of(item), of(arc())).prop_map(|(kind, item, detail)| Reason {
        kind,
        item,
        detail,
    })
}

fn candidate() -> impl Strategy<Value = Candidate> {
    (id(), number(), source(), number(), reason(), attributes()).prop_map(
        |(id, score, source, propensity, reason, fields)| Candidate {
            id,
            score,
            source,
            propensity,
            reason,
            fields: skerry_wire::value::metadata::of(&fields),
        },
    )
}

pub fn decision() -> impl Strategy<Value = Decision> {
    let warning =
        (select(WarningCode::ALL), boxed()).prop_map(|(code, detail)| Warning { code, detail });
    let lists = (vec(candidate(), 0..3), vec(warning, 0..2));
    (
        uid(),
        rung(),
        cause(),
        any::<(u64, u64, u64, u64)>(),
        arc(),
        arc(),
        lists,
    )
        .prop_map(
            |(
                id,
                rung,
                cause,
                (made_ms, as_of_ms, seed, snapshot),
                model,
                region,
                (candidates, warnings),
            )| Decision {
                id,
                rung,
                cause,
                made_ms,
                as_of_ms,
                model,
                region,
                seed,
                snapshot,
                candidates,
                warnings,
            },
        )
}

pub fn context() -> impl Strategy<Value = UserContext> {
    let recent = (id(), id(), kind(), of(number()), any::<u64>(), any::<u64>()).prop_map(
        |(id, item, kind, value, at_ms, accepted_ms)| RecentEvent {
            id,
            item,
            kind,
            value,
            at_ms,
            accepted_ms,
        },
    );
    (
        vec(recent, 0..3),
        vec(any::<u64>().prop_map(ItemHash), 0..3),
        vec(number(), 0..4),
        any::<u64>(),
    )
        .prop_map(|(recent, seen, vector, as_of_ms)| UserContext {
            recent,
            seen,
            vector,
            as_of_ms,
        })
}

fn route() -> impl Strategy<Value = Route> {
    prop_oneof![
        Just(Route::Recommend),
        vec(id(), 1..3).prop_map(|seeds| Route::Similar { seeds }),
        vec(id(), 1..3).prop_map(|items| Route::Rank { items }),
        Just(Route::Popular),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let place = (
        of(boxed()),
        of(Just(Country(*b"DE"))),
        of(boxed()),
        of(boxed()),
        btree_map(boxed(), boxed(), 0..2),
    );
    let place = place.prop_map(|(device, country, locale, tz, other)| RequestContext {
        device,
        country,
        locale,
        tz,
        other,
    });
    let who = (id::<TenantId>(), route(), of(id()), of(id()), surface());
    let lists = (vec(id(), 0..3), of(filter()), vec(boxed(), 0..3));
    (
        who,
        1u64..201,
        place,
        lists,
        any::<u32>(),
        of(rung()),
        any::<bool>(),
    )
        .prop_map(
            |(
                (tenant, route, user, session, surface),
                n,
                context,
                (exclude, filter, fields),
                budget_ms,
                lowest_rung,
                explain,
            )| Ask {
                tenant,
                route,
                user,
                session,
                surface,
                n: Count::new(n).unwrap(),
                context,
                exclude,
                filter,
                fields,
                budget_ms,
                lowest_rung,
                explain,
            },
        )
}
