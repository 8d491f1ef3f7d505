//! Any frame and any stored value.

use super::*;
use skerry_wire::frame::{
    Answer, AnswerContext, AnswerFrame, AskFrame, ContextPush, Control, Hello, Line, PushHeader,
    PushKind, Refusal, RefusalCode, RegionState, Stage, Welcome,
};
use skerry_wire::value::{
    ApiKey, BanditBlob, ConfigBlob, EventBatch, ExposedItem, Exposure, ExposureBytes, KeyClass,
    MaskBlob, NextItem, NextPage, NextReason, PoolBlob, PoolItem, PoolItems, PopularBlob,
    PopularFor, PopularItem, PopularList, RenderedHead, Shown, StoredContext, StoredDecision,
    metadata,
};

pub fn ask_frame() -> impl Strategy<Value = AskFrame> {
    (
        uid(),
        ask(),
        any::<u32>(),
        any::<u64>(),
        vec(event(), 0..2),
        any::<u64>(),
    )
        .prop_map(
            |(request_id, ask, left_ms, seed, pending, known_context)| AskFrame {
                request_id,
                ask,
                left_ms,
                seed,
                pending,
                known_context,
            },
        )
}

fn state() -> impl Strategy<Value = RegionState> {
    (
        arc(),
        any::<(u64, u64)>(),
        any::<(u32, u32)>(),
        any::<u8>(),
        any::<(u32, u32)>(),
    )
        .prop_map(
            |(
                region,
                (epoch, seq),
                (capabilities, configured),
                admit_pct,
                (event_lag_ms, ttl_ms),
            )| RegionState {
                region,
                epoch,
                seq,
                capabilities,
                configured,
                admit_pct,
                event_lag_ms,
                ttl_ms,
            },
        )
}

pub fn answer_frame() -> impl Strategy<Value = AnswerFrame> {
    let codes = [
        RefusalCode::Overloaded,
        RefusalCode::Deadline,
        RefusalCode::Draining,
        RefusalCode::NotReady,
        RefusalCode::Bad,
        RefusalCode::Internal,
    ];
    let refusal = (select(codes.to_vec()), boxed(), any::<u32>()).prop_map(
        |(code, detail, retry_after_ms)| Refusal {
            code,
            detail,
            retry_after_ms,
        },
    );
    let context = context().prop_map(|context| AnswerContext::of(&context).unwrap());
    let answer = (stored_decision(), any::<u64>(), of(context)).prop_map(
        |(decision, newest_ms, context)| Answer {
            decision: skerry_wire::encode(&decision).unwrap(),
            newest_ms,
            context,
        },
    );
    let outcome = prop_oneof![answer.prop_map(Ok), refusal.prop_map(Err)];
    (
        outcome,
        state(),
        vec((select(&Stage::ALL[..]), any::<u32>()), 0..4),
    )
        .prop_map(|(outcome, state, stages)| AnswerFrame {
            outcome,
            state,
            stages,
        })
}

fn push_kind() -> impl Strategy<Value = PushKind> {
    prop_oneof![select(&PushKind::HELD[..]), Just(PushKind::Contexts)]
}

pub fn control() -> impl Strategy<Value = Control> {
    let held = || vec((push_kind(), any::<u64>(), any::<[u8; 32]>()), 0..3);
    prop_oneof![
        (any::<(u16, u16)>(), arc(), arc(), held(), any::<u64>()).prop_map(
            |(protocol, pop, region, held, invalidated)| {
                Control::Hello(Hello {
                    protocol,
                    pop,
                    region,
                    held,
                    invalidated,
                })
            }
        ),
        (any::<u16>(), arc(), held()).prop_map(|(protocol, region, current)| Control::Welcome(
            Welcome {
                protocol,
                region,
                current
            }
        )),
        (any::<u64>(), vec(event(), 0..3))
            .prop_map(|(seq, events)| Control::Events { seq, events }),
        any::<u64>().prop_map(|seq| Control::Ack { seq }),
        vec(vec(any::<u8>(), 0..64).prop_map(ExposureBytes), 0..2)
            .prop_map(|exposures| Control::Exposures { exposures }),
        any::<u64>().prop_map(|nonce| Control::Ping { nonce }),
        any::<u64>().prop_map(|nonce| Control::Pong { nonce }),
        state().prop_map(Control::Region),
        (any::<u64>(), vec(boxed(), 0..3))
            .prop_map(|(seq, tags)| Control::Invalidate { seq, tags }),
        any::<u32>().prop_map(|within_ms| Control::Drain { within_ms }),
        (any::<(u16, u16)>(), arc())
            .prop_map(|(protocol, pop)| Control::Line(Line { protocol, pop })),
    ]
}

pub fn push_header() -> impl Strategy<Value = PushHeader> {
    (
        id(),
        push_kind(),
        any::<(u64, u64, u64)>(),
        any::<[u8; 32]>(),
    )
        .prop_map(
            |(tenant, kind, (epoch, bytes, made_ms), sha256)| PushHeader {
                tenant,
                kind,
                epoch,
                sha256,
                bytes,
                made_ms,
            },
        )
}

pub fn context_push() -> impl Strategy<Value = ContextPush> {
    (vec((id(), context()), 0..3), vec(id(), 0..3))
        .prop_map(|(contexts, erased)| ContextPush { contexts, erased })
}

pub fn stored_context() -> impl Strategy<Value = StoredContext> {
    (any::<(u64, u64, u64)>(), context()).prop_map(|((written_ms, expires_ms, mark), context)| {
        StoredContext {
            written_ms,
            expires_ms,
            mark,
            context,
        }
    })
}

pub fn stored_decision() -> impl Strategy<Value = StoredDecision> {
    decision().prop_map(|decision| StoredDecision { decision })
}

pub fn event_batch() -> impl Strategy<Value = EventBatch> {
    vec(event(), 0..3).prop_map(|events| EventBatch { events })
}

pub fn shown() -> impl Strategy<Value = Shown> {
    let item = (id(), number(), source(), number()).prop_map(|(id, score, source, propensity)| {
        ExposedItem {
            id,
            score,
            source,
            propensity,
        }
    });
    let who = (id(), uid(), surface(), of(boxed()));
    (
        who,
        any::<(u64, u64)>(),
        rung(),
        cause(),
        arc(),
        arc(),
        vec(item, 0..3),
    )
        .prop_map(
            |(
                (tenant, decision_id, surface, subject),
                (snapshot, seed),
                rung,
                cause,
                pop,
                model,
                items,
            )| Shown {
                tenant,
                decision_id,
                rung,
                cause,
                surface,
                subject,
                pop,
                snapshot,
                seed,
                model,
                items,
            },
        )
}

pub fn exposure() -> impl Strategy<Value = Exposure> {
    (uid(), any::<(u64, bool)>(), shown()).prop_map(|(request_id, (at_ms, from_cache), shown)| {
        Exposure {
            request_id,
            at_ms,
            from_cache,
            shown,
        }
    })
}

fn pool_item() -> impl Strategy<Value = PoolItem> {
    (id(), of(arc()), attributes()).prop_map(|(id, genre, fields)| PoolItem {
        id,
        genre,
        fields: metadata::of(&fields),
    })
}

pub fn pool_items() -> impl Strategy<Value = PoolItems> {
    vec(pool_item(), 0..3).prop_map(|items| PoolItems { items })
}

pub fn popular_list() -> impl Strategy<Value = PopularList> {
    let item = (id(), number(), attributes()).prop_map(|(id, score, fields)| PopularItem {
        id,
        score,
        fields: metadata::of(&fields),
    });
    (any::<u64>(), vec(item, 0..3)).prop_map(|(as_of_ms, items)| PopularList { as_of_ms, items })
}

pub fn pool_blob() -> impl Strategy<Value = PoolBlob> {
    (
        arc(),
        arc(),
        any::<(u64, u64)>(),
        bytes(),
        vec(pool_item(), 0..3),
    )
        .prop_map(
            |(model, region, (made_ms, as_of_ms), arrays, items)| PoolBlob {
                model,
                region,
                made_ms,
                as_of_ms,
                arrays,
                items,
            },
        )
}

pub fn popular_blob() -> impl Strategy<Value = PopularBlob> {
    let one = (of(surface()), of(boxed()), popular_list()).prop_map(|(surface, locale, list)| {
        PopularFor {
            surface,
            locale,
            list,
        }
    });
    vec(one, 0..3).prop_map(|lists| PopularBlob { lists })
}

pub fn mask_blob() -> impl Strategy<Value = MaskBlob> {
    let window = (
        of(any::<u64>()),
        of(any::<u64>()),
        vec(any::<[u8; 2]>().prop_map(Country), 0..3),
    )
        .prop_map(|(from_ms, until_ms, countries)| Window {
            from_ms,
            until_ms,
            countries,
        });
    let rights = (any::<bool>(), vec(window, 0..3), of(any::<u8>())).prop_map(
        |(hidden, available, maturity)| Rights {
            hidden,
            available,
            maturity,
        },
    );
    vec((any::<u64>().prop_map(ItemHash), rights), 0..3).prop_map(|entries| MaskBlob { entries })
}

pub fn bandit_blob() -> impl Strategy<Value = BanditBlob> {
    vec((surface(), bytes()), 0..3).prop_map(|snapshots| BanditBlob { snapshots })
}

pub fn config_blob() -> impl Strategy<Value = ConfigBlob> {
    let classes = [KeyClass::Public, KeyClass::Secret, KeyClass::Pop];
    let key =
        (any::<[u8; 32]>(), select(classes.to_vec()), id()).prop_map(|(sha256, class, tenant)| {
            ApiKey {
                sha256,
                class,
                tenant,
            }
        });
    (
        any::<[u8; 32]>(),
        vec(surface(), 0..3),
        of(any::<bool>()),
        vec(key, 0..3),
        any::<(u32, u32)>(),
        arc(),
        arc(),
    )
        .prop_map(
            |(
                sealing_key,
                surfaces,
                public_names_users,
                keys,
                (fresh_active_ms, fresh_idle_ms),
                pop,
                region,
            )| ConfigBlob {
                pop,
                region,
                sealing_key,
                surfaces,
                public_names_users,
                keys,
                fresh_active_ms,
                fresh_idle_ms,
            },
        )
}

pub fn next_page() -> impl Strategy<Value = NextPage> {
    let next_reason = (reason(), of(any::<u16>())).prop_map(|(reason, because)| NextReason {
        kind: reason.kind,
        because,
        detail: reason.detail,
    });
    let item = (id(), number(), source(), number(), of(next_reason)).prop_map(
        |(id, score, source, propensity, reason)| NextItem {
            id,
            score,
            source,
            propensity,
            reason,
        },
    );
    let who = (id(), of(boxed()), surface(), uid(), arc());
    let numbers = any::<(u64, u64, u64, u64, u16, bool)>();
    (
        who,
        numbers,
        rung(),
        cause(),
        vec(boxed(), 0..3),
        (vec(id(), 0..3), vec(item, 0..3)),
    )
        .prop_map(
            |(
                (tenant, subject, surface, decision_id, model),
                (expires_ms, as_of_ms, seed, snapshot, shown, explain),
                rung,
                cause,
                fields,
                (because, rest),
            )| {
                NextPage {
                    tenant,
                    subject,
                    surface,
                    expires_ms,
                    decision_id,
                    rung,
                    cause,
                    as_of_ms,
                    model,
                    seed,
                    snapshot,
                    shown,
                    explain,
                    fields,
                    because,
                    rest,
                }
            },
        )
}

pub fn rendered_head() -> impl Strategy<Value = RenderedHead> {
    (uid(), any::<(u64, u64, u64)>(), rung(), cause(), bytes()).prop_map(
        |(decision_id, (made_ms, as_of_ms, expires_ms), rung, cause, shown)| RenderedHead {
            decision_id,
            made_ms,
            as_of_ms,
            expires_ms,
            rung,
            cause,
            shown,
        },
    )
}
