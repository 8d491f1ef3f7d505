use super::*;
use skerry_decide::score::{Blend, EdgePool, FoldIn, PoolRow};
use skerry_types::{ItemId, Metadata, Rights, Surface};
use skerry_wire::codec::Schema;
use skerry_wire::value::{
    BanditBlob, MaskBlob, PoolBlob, PopularBlob, PopularFor, PopularItem, PopularList,
};

const NOW: Millis = 1_000;

fn local() -> LocalKeys {
    LocalKeys {
        pop: Arc::from("p"),
        region: Arc::from("r"),
        keys: vec![],
        sealing_key: [7; 32],
    }
}

fn id(n: usize) -> ItemId {
    ItemId::new(&format!("i{n}")).unwrap()
}

fn pool_of(ids: &[ItemId], rows: usize) -> Vec<u8> {
    let dim = skerry_decide::score::DIM;
    let identity: Vec<f32> = (0..dim * dim)
        .map(|at| f32::from(u8::from(at % (dim + 1) == 0)))
        .collect();
    let row = PoolRow {
        vector: [0.5; 64],
        followers: vec![],
        prior: 0.0,
    };
    let blend = Blend {
        vector: 1.0,
        order: 1.0,
        prior: 0.1,
    };
    let arrays =
        EdgePool::build(FoldIn::new(&identity).unwrap(), blend, &vec![row; rows]).to_bytes();
    let items = ids
        .iter()
        .map(|id| PoolItem {
            id: id.clone(),
            genre: None,
            fields: Metadata::default(),
        })
        .collect();
    let blob = PoolBlob {
        model: Arc::from("m"),
        region: Arc::from("r"),
        made_ms: 1,
        as_of_ms: 1,
        arrays,
        items,
    };
    encode(&blob).unwrap()
}

fn pool(n: usize) -> Vec<u8> {
    pool_of(&(0..n).map(id).collect::<Vec<_>>(), n)
}

fn popular(n: usize, score: f32) -> Vec<u8> {
    let items = (0..n)
        .map(|n| PopularItem {
            id: id(n),
            score,
            fields: Metadata::default(),
        })
        .collect();
    let list = PopularList { as_of_ms: 1, items };
    encode(&PopularBlob {
        lists: vec![PopularFor {
            surface: None,
            locale: None,
            list,
        }],
    })
    .unwrap()
}

fn mask(hashes: &[u64]) -> Vec<u8> {
    let hidden = Rights {
        hidden: true,
        ..Rights::default()
    };
    encode(&MaskBlob {
        entries: hashes
            .iter()
            .map(|hash| (ItemHash(*hash), hidden.clone()))
            .collect(),
    })
    .unwrap()
}

fn header(kind: PushKind, epoch: u64, body: &[u8]) -> PushHeader {
    PushHeader {
        tenant: TenantId::default(),
        kind,
        epoch,
        sha256: Sha256::digest(body).into(),
        bytes: body.len() as u64,
        made_ms: 1,
    }
}

fn push(held: &Held, kind: PushKind, epoch: u64, body: &[u8]) -> &'static str {
    match held.push(
        &header(kind, epoch, body),
        Bytes::copy_from_slice(body),
        NOW,
    ) {
        Ok(()) => "used",
        Err(refused) => refused.code(),
    }
}

#[test]
fn what_is_used_and_what_is_refused() {
    use PushKind::{Bandit, Config, Contexts, Mask, Pool, Popular};
    let held = Held::in_memory(local());
    let twice = [id(0), id(0)];
    let cases: Vec<(&str, PushKind, u64, Vec<u8>, &str)> = vec![
        ("a first, empty pool", Pool, 1, pool(0), "push_empty"),
        ("a first pool", Pool, 2, pool(1_000), "used"),
        ("the same again", Pool, 2, pool(1_000), "used"),
        ("another of that epoch", Pool, 2, pool(999), "push_old"),
        ("an older epoch", Pool, 1, pool(1_000), "push_old"),
        ("empty after full", Pool, 3, pool(0), "push_empty"),
        ("a third lost", Pool, 4, pool(666), "push_size"),
        ("some lost", Pool, 5, pool(701), "used"),
        ("grown", Pool, 6, pool(2_000), "used"),
        (
            "a third lost, and meant",
            Pool,
            6 + FORCED_EPOCH_STEP,
            pool(100),
            "used",
        ),
        (
            "more ids than rows",
            Pool,
            FORCED_EPOCH_STEP * 2,
            pool_of(&[id(0), id(1)], 1),
            "push_inconsistent",
        ),
        (
            "an id twice",
            Pool,
            FORCED_EPOCH_STEP * 3,
            pool_of(&twice, 2),
            "push_inconsistent",
        ),
        (
            "garbage",
            Pool,
            FORCED_EPOCH_STEP * 3,
            vec![0xA5; 100],
            "push_decode",
        ),
        (
            "a cut pool",
            Pool,
            FORCED_EPOCH_STEP * 3,
            pool(100)[..200].to_vec(),
            "push_decode",
        ),
        ("a list", Popular, 1, popular(50, 1.0), "used"),
        (
            "not a number",
            Popular,
            2,
            popular(50, f32::NAN),
            "push_not_finite",
        ),
        (
            "no list",
            Popular,
            2,
            encode(&PopularBlob { lists: vec![] }).unwrap(),
            "push_empty",
        ),
        ("a mask", Mask, 5, mask(&[1, 9]), "used"),
        ("an older mask", Mask, 4, mask(&[]), "push_old"),
        (
            "a mask out of order",
            Mask,
            6,
            mask(&[9, 1]),
            "push_inconsistent",
        ),
        ("an empty mask", Mask, 6, mask(&[]), "used"),
        (
            "no sealing key",
            Config,
            9,
            encode(&plain_config([0; 32])).unwrap(),
            "push_inconsistent",
        ),
        (
            "a configuration",
            Config,
            9,
            encode(&plain_config([1; 32])).unwrap(),
            "used",
        ),
        (
            "no arms",
            Bandit,
            1,
            encode(&BanditBlob::default()).unwrap(),
            "used",
        ),
        (
            "an arm's snapshot that is none",
            Bandit,
            2,
            bandit_of(vec![1, 2, 3]),
            "push_decode",
        ),
        (
            "contexts are not held",
            Contexts,
            1,
            vec![],
            "push_inconsistent",
        ),
    ];
    for (name, kind, epoch, body, want) in cases {
        assert_eq!(push(&held, kind, epoch, &body), want, "{name}");
    }
    let now = held.now();
    assert_eq!(
        now.pool.as_ref().unwrap().items.len(),
        100,
        "the last good one"
    );
    assert_eq!(now.pool.as_ref().unwrap().row("i7"), Some(7));
    assert_eq!(now.pool.as_ref().unwrap().row("i700"), None);
    assert!(now.popular.as_ref().unwrap().list("home", "de").is_some());
    assert_eq!((now.config_epoch, now.mask_epoch), (10, 6));
}

fn bandit_of(snapshot: Vec<u8>) -> Vec<u8> {
    encode(&BanditBlob {
        snapshots: vec![(Surface::default(), snapshot)],
    })
    .unwrap()
}

#[test]
fn a_push_with_another_hash_or_tenant_is_refused() {
    let held = Held::in_memory(local());
    let body = pool(10);
    let mut wrong = header(PushKind::Pool, 1, &body);
    wrong.sha256[0] ^= 1;
    assert_eq!(
        held.push(&wrong, body.clone().into(), NOW),
        Err(Refused::Hash)
    );
    let mut other = header(PushKind::Pool, 1, &body);
    other.tenant = TenantId::new("other").unwrap();
    assert_eq!(held.push(&other, body.into(), NOW), Err(Refused::Tenant));
    assert!(!held.has_pool());
}

#[test]
fn the_last_good_ones_are_there_after_a_restart_and_damage_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("held");
    let held = Held::open(&path, local(), NOW).unwrap();
    assert_eq!(push(&held, PushKind::Pool, 3, &pool(200)), "used");
    assert_eq!(push(&held, PushKind::Mask, 4, &mask(&[7])), "used");
    let held = Held::open(&path, local(), NOW).unwrap();
    assert_eq!(
        held.inventory()
            .iter()
            .map(|(kind, epoch, _)| (*kind, *epoch))
            .collect::<Vec<_>>(),
        [(PushKind::Pool, 3), (PushKind::Mask, 4)]
    );
    assert_eq!(held.now().forbidden(&[6, 7], NOW, ""), [0, 1]);

    let file = file_of(&path, PushKind::Pool);
    let whole = fs::read(&file).unwrap();
    for damage in [0, 3, 4, 40, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[damage] ^= 0x40;
        fs::write(&file, &bytes).unwrap();
        let held = Held::open(&path, local(), NOW).unwrap();
        assert!(
            !held.has_pool() && held.corrupt_files() == 1,
            "byte {damage}"
        );
        assert!(file.with_extension("held.corrupt").exists() && !file.exists());
        assert_eq!(held.now().mask_epoch, 4, "the rest goes on");
    }
    for cut in [0, 3, 10, whole.len() - 1] {
        fs::write(&file, &whole[..cut]).unwrap();
        assert!(
            !Held::open(&path, local(), NOW).unwrap().has_pool(),
            "cut at {cut}"
        );
    }
}

#[test]
fn what_is_seen_to_be_gone_is_gone_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let held = Held::open(dir.path(), local(), NOW).unwrap();
    std::thread::scope(|scope| {
        let seen = scope.spawn(|| {
            (1..=20).for_each(|epoch| {
                while held.now().mask_epoch < epoch {
                    std::hint::spin_loop();
                }
                let bytes = fs::read(file_of(dir.path(), PushKind::Mask)).unwrap();
                let (kept, _) = split_file(&bytes).unwrap();
                assert!(
                    kept.epoch >= epoch,
                    "{epoch} is used, {} is kept",
                    kept.epoch
                );
            });
        });
        for epoch in 1..=20 {
            assert_eq!(push(&held, PushKind::Mask, epoch, &mask(&[epoch])), "used");
        }
        seen.join().unwrap();
    });
}

#[test]
fn this_pops_keys_and_names_are_in_every_configuration() {
    let key = |n| skerry_wire::value::ApiKey {
        sha256: [n; 32],
        class: skerry_wire::value::KeyClass::Secret,
        tenant: TenantId::default(),
    };
    let held = Held::in_memory(LocalKeys {
        keys: vec![key(1)],
        ..local()
    });
    let config = |held: &Held| decode::<ConfigBlob>(&held.now().config).unwrap();
    assert_eq!((config(&held).keys.len(), &*config(&held).pop), (1, "p"));
    let pushed = ConfigBlob {
        keys: vec![key(1), key(2)],
        ..plain_config([3; 32])
    };
    assert_eq!(
        push(&held, PushKind::Config, 1, &encode(&pushed).unwrap()),
        "used"
    );
    let now = config(&held);
    assert_eq!(
        (now.keys.len(), now.sealing_key[0], &*now.region),
        (2, 3, "r")
    );
    assert_ne!(
        held.now().config_epoch,
        1,
        "another epoch than the one before the push"
    );
    assert_eq!(PushHeader::SCHEMA, 103);
}

#[test]
fn key_files_are_read_and_short_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(read_api_keys(dir.path()).unwrap().is_empty());
    fs::write(dir.path().join("api-secret.key"), "0123456789abcdef0123\n").unwrap();
    let keys = read_api_keys(dir.path()).unwrap();
    let digest: [u8; 32] = Sha256::digest(b"0123456789abcdef0123").into();
    assert_eq!((keys.len(), keys[0].sha256), (1, digest));
    fs::write(dir.path().join("api-public.key"), "short\n").unwrap();
    assert_eq!(read_api_keys(dir.path()).unwrap_err().code(), "pop_keys");
}
