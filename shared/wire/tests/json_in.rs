//! Which questions the public JSON takes and refuses.

#[path = "common/refused.rs"]
mod refused;

use refused::seen;
use skerry_types::{Count, Country, Filter, ItemId, Route, Rung, TenantId, Test, Value};
use skerry_wire::json::{
    BODY_BYTES_MAX, ERRORS_MAX, ParsedAsk, Problem, RouteMatch, match_route, parse_events,
    parse_popular_get, parse_rank, parse_recommend, parse_recommend_get, parse_similar,
    percent_decode,
};

const NOW: u64 = 1_795_176_000_000;

fn recommend(body: &str) -> Result<ParsedAsk, Problem> {
    parse_recommend(body.as_bytes(), &TenantId::default())
}

fn get(user: &str, query: &str) -> Result<ParsedAsk, Problem> {
    parse_recommend_get(user, query, &TenantId::default())
}

fn ids(list: &[&str]) -> Vec<ItemId> {
    list.iter().map(|id| ItemId::new(id).unwrap()).collect()
}

#[test]
fn the_contract_example_is_understood() {
    let parsed = recommend(include_str!("golden/recommend.request.json")).unwrap();
    let ask = parsed.ask;
    assert_eq!(ask.route, Route::Recommend);
    assert_eq!(ask.user.as_ref().map(|id| id.as_str()), Some("u1"));
    assert_eq!(ask.session.as_ref().map(|id| id.as_str()), Some("s1"));
    assert_eq!(
        (ask.surface.as_str(), ask.n.get(), ask.budget_ms),
        ("home", 10, 80)
    );
    assert_eq!(ask.context.device.as_deref(), Some("tv"));
    assert_eq!(ask.context.country, Country::parse("DE"));
    assert_eq!(
        (ask.context.locale.as_deref(), ask.context.tz.as_deref()),
        (Some("de-DE"), Some("Europe/Berlin"))
    );
    assert_eq!(ask.exclude, ids(&["318"]));
    assert_eq!(ask.fields, ["title".into(), "year".into()]);
    assert_eq!(
        (ask.lowest_rung, ask.explain, parsed.next),
        (Some(Rung::Cached), true, None)
    );
    let genre = Filter::Field {
        field: "genre".into(),
        test: Test::In(vec![Value::text("Drama")]),
    };
    let year = Filter::Field {
        field: "year".into(),
        test: Test::Gte(Value::Int(1990)),
    };
    assert_eq!(ask.filter, Some(Filter::All(vec![genre, year])));
}

#[test]
fn defaults_of_an_empty_question() {
    let ask = recommend("{}").unwrap().ask;
    assert_eq!(
        (ask.user, ask.session, ask.n, ask.budget_ms),
        (None, None, Count::default(), 150)
    );
    assert_eq!(
        (
            ask.surface.as_str(),
            ask.filter,
            ask.lowest_rung,
            ask.explain
        ),
        ("home", None, None, false)
    );
}

#[test]
fn get_mirrors_post() {
    let query = "surface=player-end&n=3&exclude=a,b%20c&fields=title,year&lowest_rung=edge&budget_ms=80&explain=true";
    let from_get = get("Gr%C3%BC%C3%9Fe", query).unwrap();
    let from_post = recommend(
        r#"{"user":{"id":"Grüße"},"surface":"player-end","n":3,"exclude":["a","b c"],"fields":["title","year"],
            "lowest_rung":"edge","budget_ms":80,"explain":true}"#,
    );
    assert_eq!(Ok(from_get), from_post);
    assert_eq!(get("u1", "").unwrap().ask.n, Count::default());
    assert_eq!(get("u1", "next=abc").unwrap().next.as_deref(), Some("abc"));
    assert_eq!(
        get("a+b", "exclude=a+b").map(|p| (p.ask.user.unwrap().to_string(), p.ask.exclude)),
        Ok(("a+b".into(), ids(&["a b"])))
    );
}

#[test]
fn other_routes() {
    let tenant = TenantId::default();
    let seeds = |body: &str| parse_similar(body.as_bytes(), &tenant).map(|parsed| parsed.ask.route);
    assert_eq!(
        seeds(r#"{"item":"318"}"#),
        Ok(Route::Similar {
            seeds: ids(&["318"])
        })
    );
    assert_eq!(
        seeds(r#"{"items":["1","2"],"n":5}"#),
        Ok(Route::Similar {
            seeds: ids(&["1", "2"])
        })
    );
    let rank = parse_rank(br#"{"user":{"id":"u1"},"items":["3","1"]}"#, &tenant).unwrap();
    assert_eq!(
        rank.ask.route,
        Route::Rank {
            items: ids(&["3", "1"])
        }
    );
    let popular = parse_popular_get("surface=kids&n=7", &tenant).unwrap();
    assert_eq!(
        (
            popular.ask.route,
            popular.ask.surface.as_str(),
            popular.ask.n.get()
        ),
        (Route::Popular, "kids", 7)
    );

    let many = |n: usize| format!("{{\"items\":[{}]}}", vec!["\"x\""; n].join(","));
    let cases = [
        ("no seed", seen(seeds("{}")), "/item missing_field"),
        (
            "two kinds of seeds",
            seen(seeds(r#"{"item":"1","items":["2"]}"#)),
            "/items conflicting_fields",
        ),
        (
            "no seeds",
            seen(seeds(r#"{"items":[]}"#)),
            "/items out_of_range",
        ),
        ("11 seeds", seen(seeds(&many(11))), "/items too_many"),
        (
            "501 items",
            seen(parse_rank(many(501).as_bytes(), &tenant)),
            "/items too_many",
        ),
        (
            "n when ranking",
            seen(parse_rank(br#"{"items":["1"],"n":3}"#, &tenant)),
            "/n unknown_field",
        ),
        (
            "popular with a filter",
            seen(parse_popular_get("filter=x", &tenant)),
            "?filter unknown_parameter",
        ),
    ];
    for (name, (status, _, errors), want) in cases {
        assert_eq!((status, errors), (400, vec![want.to_owned()]), "{name}");
    }
    assert!(parse_rank(many(500).as_bytes(), &tenant).is_ok());
}

#[test]
fn wrong_fields_are_named() {
    let cases = [
        (r#"{"n":0}"#, "/n out_of_range"),
        (r#"{"n":-1}"#, "/n out_of_range"),
        (r#"{"n":201}"#, "/n out_of_range"),
        (r#"{"n":1000000000}"#, "/n out_of_range"),
        (r#"{"n":1e9}"#, "/n out_of_range"),
        (r#"{"n":99999999999999999999999999}"#, "/n out_of_range"),
        (r#"{"n":1.5}"#, "/n wrong_type"),
        (r#"{"n":"10"}"#, "/n wrong_type"),
        (r#"{"n":null}"#, "/n wrong_type"),
        (r#"{"n":10,"n":10}"#, "/n duplicate_field"),
        (r#"{"nn":1}"#, "/nn unknown_field"),
        (r#"{"a/b~c":1}"#, "/a~1b~0c unknown_field"),
        (r#"{"user":"u1"}"#, "/user wrong_type"),
        (r#"{"user":{"id":""}}"#, "/user/id id_empty"),
        (
            r#"{"user":{"id":"a\u0000"}}"#,
            "/user/id id_control_character",
        ),
        (r#"{"user":{"id":7}}"#, "/user/id wrong_type"),
        (r#"{"user":{"name":"x"}}"#, "/user/name unknown_field"),
        (r#"{"surface":"Home"}"#, "/surface surface_invalid"),
        (r#"{"budget_ms":4}"#, "/budget_ms out_of_range"),
        (r#"{"budget_ms":5001}"#, "/budget_ms out_of_range"),
        (r#"{"lowest_rung":"best"}"#, "/lowest_rung rung_unknown"),
        (r#"{"explain":"yes"}"#, "/explain wrong_type"),
        (r#"{"exclude":["a",""]}"#, "/exclude/1 id_empty"),
        (r#"{"fields":[""]}"#, "/fields/0 text_invalid"),
        (
            r#"{"context":{"country":"DEU"}}"#,
            "/context/country country_invalid",
        ),
        (r#"{"context":{"tz":5}}"#, "/context/tz wrong_type"),
        (
            r#"{"context":{"x":"1","x":"2"}}"#,
            "/context/x duplicate_field",
        ),
        (r#"{"next":""}"#, "/next next_invalid"),
        (r#"{"filter":[]}"#, "/filter wrong_type"),
        (r#"{"filter":{"year":1999}}"#, "/filter/year wrong_type"),
        (r#"{"filter":{"year":{}}}"#, "/filter/year missing_field"),
        (
            r#"{"filter":{"year":{"greater":1}}}"#,
            "/filter/year/greater unknown_field",
        ),
        (
            r#"{"filter":{"year":{"gt":true}}}"#,
            "/filter/year/gt wrong_type",
        ),
        (
            r#"{"filter":{"year":{"eq":[1]}}}"#,
            "/filter/year/eq wrong_type",
        ),
        (
            r#"{"filter":{"year":{"gt":1,"gt":2}}}"#,
            "/filter/year/gt duplicate_field",
        ),
        (r#"{"filter":{"or":[]}}"#, "/filter/or out_of_range"),
        (r#"{"filter":{"not":{}}}"#, "/filter/not missing_field"),
        ("[]", " wrong_type"),
        ("7", " wrong_type"),
    ];
    for (body, want) in cases {
        assert_eq!(
            seen(recommend(body)),
            (400, "invalid_request".into(), vec![want.into()]),
            "{body}"
        );
    }
    for (query, want) in [
        ("n=0", "?n out_of_range"),
        ("n=-3", "?n out_of_range"),
        ("n=1000000000", "?n out_of_range"),
        ("n=99999999999999999999", "?n out_of_range"),
        ("n=ten", "?n wrong_type"),
        ("n=", "?n wrong_type"),
        ("n=%31%30&n=10", "?n duplicate_parameter"),
        ("n=%3", "?n percent_encoding_invalid"),
        ("surface=%ff", "?surface percent_encoding_invalid"),
        ("surfce=home", "?surfce unknown_parameter"),
        ("explain=maybe", "?explain wrong_type"),
        ("budget_ms=3", "?budget_ms out_of_range"),
        ("lowest_rung=top", "?lowest_rung rung_unknown"),
        ("exclude=a,,b", "?exclude id_empty"),
    ] {
        assert_eq!(
            seen(get("u1", query)),
            (400, "invalid_request".into(), vec![want.into()]),
            "{query}"
        );
    }
    for (user, want) in [
        ("", "{user_id} id_empty"),
        ("%00", "{user_id} id_control_character"),
        ("%ff%fe", "{user_id} percent_encoding_invalid"),
        ("%zz", "{user_id} percent_encoding_invalid"),
        ("100%", "{user_id} percent_encoding_invalid"),
        (&"x".repeat(257), "{user_id} id_too_long"),
    ] {
        assert_eq!(seen(get(user, "")).2, vec![want.to_owned()], "{user}");
    }
}

#[test]
fn unknown_names_come_with_the_nearest_known_one() {
    let detail = |result: Result<ParsedAsk, Problem>| result.unwrap_err().detail;
    assert_eq!(
        detail(recommend(r#"{"surfce":"home"}"#)),
        r#"unknown field "surfce"; the nearest known one is "surface""#
    );
    assert_eq!(
        detail(get("u", "feilds=x")),
        r#"unknown parameter "feilds"; the nearest known one is "fields""#
    );
    assert_eq!(
        detail(recommend(r#"{"lowest_rung":"chached"}"#)),
        r#"unknown rung "chached"; the nearest known one is "cached""#
    );
}

#[test]
fn several_mistakes_are_reported_at_once_and_bounded() {
    let (_, _, errors) = seen(recommend(
        r#"{"n":0,"surface":"X","user":{"id":""},"explain":1}"#,
    ));
    assert_eq!(errors.len(), 4);
    let body = format!(
        "{{{}}}",
        (0..500)
            .map(|i| format!("\"k{i}\":1"))
            .collect::<Vec<_>>()
            .join(",")
    );
    assert_eq!(seen(recommend(&body)).2.len(), ERRORS_MAX);
    assert_eq!(
        seen(parse_events(
            format!("[{}]", vec!["1"; 500].join(",")).as_bytes(),
            NOW
        ))
        .2
        .len(),
        ERRORS_MAX
    );
}

#[test]
fn bodies_that_are_no_questions() {
    let brackets = "[".repeat(100_000);
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let (too_large, many) = (
        vec![b' '; BODY_BYTES_MAX + 1],
        format!("[{}1]", "1,".repeat(200_000)),
    );
    let cases: [(&str, &[u8], u16, &str); 14] = [
        ("empty", b"", 400, "invalid_json"),
        ("blank", b" \n", 400, "invalid_json"),
        ("cut off", br#"{"n":"#, 400, "invalid_json"),
        ("trailing bytes", b"{} x", 400, "invalid_json"),
        ("two values", b"{}{}", 400, "invalid_json"),
        ("NaN", br#"{"n":NaN}"#, 400, "invalid_json"),
        (
            "a number beyond floats",
            br#"{"n":1e999}"#,
            400,
            "invalid_json",
        ),
        (
            "lone surrogate",
            br#"{"surface":"\ud800"}"#,
            400,
            "invalid_json",
        ),
        ("not UTF-8", b"{\"surface\":\"\xff\"}", 400, "invalid_utf8"),
        (
            "100,000 brackets",
            brackets.as_bytes(),
            400,
            "json_too_deep",
        ),
        ("33 deep", &deep(33).into_bytes(), 400, "json_too_deep"),
        ("32 deep", &deep(32).into_bytes(), 400, "invalid_request"),
        (
            "too many values",
            many.as_bytes(),
            400,
            "json_too_many_values",
        ),
        ("too large", &too_large, 413, "body_too_large"),
    ];
    for (name, body, status, code) in cases {
        let (got_status, got_code, _) = seen(parse_recommend(body, &TenantId::default()));
        assert_eq!((got_status, got_code.as_str()), (status, code), "{name}");
    }
    // Brackets inside strings are text.
    assert!(
        recommend(&format!(
            "{{\"context\":{{\"x\":\"{}\\\"\"}}}}",
            "[".repeat(100)
        ))
        .is_ok()
    );
    let detail = parse_recommend(b"{\"surface\":\"\xff\"}", &TenantId::default())
        .unwrap_err()
        .detail;
    assert_eq!(detail, "the body is not UTF-8 at byte 12");
}

#[test]
fn filters_are_bounded() {
    let nested = |levels: usize| {
        let inner = r#"{"year":{"eq":1}}"#.to_owned();
        let filter = (0..levels).fold(inner, |filter, _| format!("{{\"not\":{filter}}}"));
        recommend(&format!("{{\"filter\":{filter}}}"))
    };
    assert!(nested(8).is_ok());
    assert_eq!(
        seen(nested(9)).2[0].split(' ').nth(1),
        Some("filter_too_deep")
    );
    assert_eq!(seen(nested(40)).1, "json_too_deep");
    let wide = |conditions: usize| {
        let each: Vec<String> = (0..conditions)
            .map(|i| format!("\"f{i}\":{{\"eq\":{i}}}"))
            .collect();
        recommend(&format!("{{\"filter\":{{{}}}}}", each.join(",")))
    };
    assert!(wide(32).is_ok());
    assert_eq!(
        seen(wide(33)).2[0].split(' ').nth(1),
        Some("filter_too_large")
    );
    assert_eq!(recommend(r#"{"filter":{}}"#).unwrap().ask.filter, None);
    let both =
        recommend(r#"{"filter":{"or":[{"a":{"gt":1,"lt":3}},{"b":{"exists":true}}]}}"#).unwrap();
    let field = |name: &str, test| Filter::Field {
        field: name.into(),
        test,
    };
    let a = Filter::All(vec![
        field("a", Test::Gt(Value::Int(1))),
        field("a", Test::Lt(Value::Int(3))),
    ]);
    assert_eq!(
        both.ask.filter,
        Some(Filter::Any(vec![a, field("b", Test::Exists(true))]))
    );
}

#[test]
fn routes() {
    let cases = [
        ("POST", "/v1/recommend", RouteMatch::Recommend),
        (
            "GET",
            "/v1/recommend/u%201",
            RouteMatch::RecommendGet { user: "u%201" },
        ),
        ("HEAD", "/v1/popular", RouteMatch::Popular),
        (
            "GET",
            "/v1/recommend",
            RouteMatch::WrongMethod { allow: "POST" },
        ),
        (
            "DELETE",
            "/v1/recommend/u1",
            RouteMatch::WrongMethod { allow: "GET, HEAD" },
        ),
        ("GET", "/v1/recommend/a/b", RouteMatch::NotFound),
        ("GET", "/v2/recommend", RouteMatch::NotFound),
        ("GET", "", RouteMatch::NotFound),
    ];
    for (method, path, want) in cases {
        assert_eq!(match_route(method, path), want, "{method} {path}");
    }
    assert_eq!(match_route("GET", "/x").problem("/x").unwrap().status, 404);
    let wrong = match_route("GET", "/v1/events")
        .problem("/v1/events")
        .unwrap();
    assert_eq!((wrong.status, wrong.allow), (405, Some("POST")));
}

proptest::proptest! {
    /// Whatever is encoded comes back, by the rules of the path and those of the query.
    #[test]
    fn percent_encoding_round_trips(text in "\\PC{0,20}", plus: bool) {
        let encoded: String = text.bytes().map(|b| format!("%{b:02X}")).collect();
        proptest::prop_assert_eq!(percent_decode(&encoded, plus).unwrap(), text.as_str());
    }

    /// No text makes the parsers panic, and nothing is refused without a code and a status.
    #[test]
    fn any_text_is_answered(text in r#"[\[\]{}",:0-9a-z\\ .e+-]{0,60}"#, query in "[a-z=&%+,0-9]{0,40}") {
        let tenant = TenantId::default();
        let _ = parse_events(text.as_bytes(), NOW);
        for result in [recommend(&text), parse_similar(text.as_bytes(), &tenant), get(&text, &query)] {
            if let Err(problem) = result {
                proptest::prop_assert_eq!(problem.status, 400);
                proptest::prop_assert!(!problem.code.is_empty());
            }
        }
    }
}
