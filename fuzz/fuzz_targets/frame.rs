//! Frames and stored values: strangers' bytes are refused, or they are a value that encodes and
//! decodes to itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use skerry_wire::codec::{Schema, schema_of};
use skerry_wire::frame::{AnswerFrame, AskFrame, ContextPush, Control, PushHeader};
use skerry_wire::value::{
    BanditBlob, ConfigBlob, EventBatch, MaskBlob, NextPage, PoolBlob, PoolItems, PopularBlob,
    PopularList, RenderedHead, Shown, StoredContext, StoredDecision,
};
use skerry_wire::{decode, encode};

/// Compared as bytes: values may hold NaN.
fn check<T: Schema + Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = decode::<T>(bytes) else {
        return;
    };
    let once = encode(&value).expect("what decodes encodes");
    let again = decode::<T>(&once).expect("what encodes decodes");
    assert_eq!(once, encode(&again).expect("and encodes again"));
}

fuzz_target!(|data: &[u8]| {
    let _ = skerry_wire::value::exposure::read(data);
    let Ok(schema) = schema_of(data) else { return };
    match schema {
        StoredContext::SCHEMA => check::<StoredContext>(data),
        StoredDecision::SCHEMA => check::<StoredDecision>(data),
        EventBatch::SCHEMA => check::<EventBatch>(data),
        Shown::SCHEMA => check::<Shown>(data),
        PoolItems::SCHEMA => check::<PoolItems>(data),
        PopularList::SCHEMA => check::<PopularList>(data),
        PoolBlob::SCHEMA => check::<PoolBlob>(data),
        PopularBlob::SCHEMA => check::<PopularBlob>(data),
        MaskBlob::SCHEMA => check::<MaskBlob>(data),
        BanditBlob::SCHEMA => check::<BanditBlob>(data),
        ConfigBlob::SCHEMA => check::<ConfigBlob>(data),
        NextPage::SCHEMA => check::<NextPage>(data),
        RenderedHead::SCHEMA => check::<RenderedHead>(data),
        Control::SCHEMA => check::<Control>(data),
        AskFrame::SCHEMA => check::<AskFrame>(data),
        AnswerFrame::SCHEMA => check::<AnswerFrame>(data),
        PushHeader::SCHEMA => check::<PushHeader>(data),
        ContextPush::SCHEMA => check::<ContextPush>(data),
        _ => {}
    }
});
