use super::*;
use std::cell::RefCell;

#[derive(Default)]
pub struct Kept {
    pub items: RefCell<Vec<Item>>,
    pub events: RefCell<Vec<Event>>,
}

impl Sink for Kept {
    fn items(&self, items: Vec<Item>) -> Result<(), Error> {
        self.items.borrow_mut().extend(items);
        Ok(())
    }
    fn events(&self, events: Vec<Event>) -> Result<(), Error> {
        self.events.borrow_mut().extend(events);
        Ok(())
    }
    fn progress(&self, _: u64) {}
}

fn import(files: &[(&str, &[u8])]) -> (Kept, Result<Summary, Error>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let stamp = Stamp {
        tenant: TenantId::default(),
        now: 2_000_000_000_000,
        region: "r".into(),
    };
    let kept = Kept::default();
    let summary = read(dir.path(), &stamp, &kept);
    (kept, summary)
}

type Found<'a> = (&'a str, u64, Option<&'a str>, &'a str);

/// File, line, column and code.
pub fn errors(summary: &Summary) -> Vec<Found<'_>> {
    let errors = summary.errors.iter();
    errors
        .map(|error| {
            let column = error.column.as_deref();
            (error.file.as_str(), error.line, column, error.code)
        })
        .collect()
}

#[test]
fn movielens_rows_are_taken_or_named_by_line() {
    let (kept, summary) = import(&[
        ("movies.csv", b"movieId,title,genres\n1,Toy Story (1995),Animation|Comedy\n,No id (1999),Drama\n3,\"Matrix, The (1999)\",(no genres listed)\n4,short\n5,\xff\xfe,Drama\n"),
        ("ratings.csv", b"userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,good,964981247\n2,3,3.5,soon\n2,1,5.0,964981248\n"),
        ("tags.csv", b"userId,movieId,tag,timestamp\n2,1,Pixar,1\n3,1,pixar,1\n3,1,fun,1\n"),
        ("links.csv", b"movieId,imdbId,tmdbId\n1,0114709,862\n"),
    ]);
    let summary = summary.unwrap();
    let want = [
        ("movies.csv", 3, Some("movieId"), "id_empty"),
        ("movies.csv", 5, None, "row_length"),
        ("movies.csv", 6, None, "invalid_utf8"),
        ("ratings.csv", 3, Some("rating"), "value_invalid"),
        ("ratings.csv", 4, Some("timestamp"), "time_invalid"),
    ];
    assert_eq!(errors(&summary), want);
    let items = kept.items.into_inner();
    assert_eq!(items.len(), 2);
    assert_eq!(
        (items[0].title(), items[1].title()),
        ("Toy Story", "The Matrix")
    );
    let tags = skerry_types::Value::List(vec![
        skerry_types::Value::text("pixar"),
        skerry_types::Value::text("fun"),
    ]);
    assert_eq!(items[0].attributes.get("tags"), Some(&tags));
    assert_eq!(
        items[0]
            .attributes
            .get("imdb_id")
            .and_then(|id| id.as_str()),
        Some("0114709")
    );
    assert!(!items[1].attributes.contains_key("genre"));
    let events = kept.events.into_inner();
    let ids: Vec<_> = events
        .iter()
        .map(|event| (event.id.as_str(), event.at_ms, event.value))
        .collect();
    assert_eq!(
        ids,
        [
            ("ml:1:1", 964_982_703_000, Some(4.0)),
            ("ml:2:1", 964_981_248_000, Some(5.0))
        ]
    );
    assert_eq!(
        summary.rows,
        summary.items + summary.events + summary.errors_total + 4,
        "tags and links are rows too"
    );
}

#[test]
fn lines_and_tables_are_the_public_json() {
    let (kept, summary) = import(&[
        ("items.jsonl", b"{\"id\":\"a\",\"attributes\":{\"title\":\"A\"},\"hidden\":true}\n\n{\"id\":\"b\",\"colour\":1}\nnot json\n"),
        ("events.jsonl", b"{\"type\":\"like\",\"user\":\"u\",\"item\":\"a\"}\n{\"type\":\"like\",\"user\":\"u\"}\n"),
        ("events-2.csv", b"user,item,type,value,at\nu,b,,4.5,964982703\nu,c,view,,2001-01-01T00:00:00Z\n,c,view,,\n"),
        ("items-2.csv", b"id,title,year,genre,hidden,maturity\nc,C,1999,Drama|War,,16\nd,D,soon,,maybe,\n"),
    ]);
    let summary = summary.unwrap();
    let want = [
        ("items-2.csv", 3, Some("hidden"), "wrong_type"),
        ("items.jsonl", 3, Some("colour"), "unknown_field"),
        ("items.jsonl", 4, None, "invalid_json"),
        ("events-2.csv", 4, Some("user"), "missing_field"),
        ("events.jsonl", 2, Some("item"), "missing_field"),
    ];
    assert_eq!(errors(&summary), want);
    let items: Vec<_> = kept
        .items
        .into_inner()
        .into_iter()
        .map(|item| {
            (
                item.id.to_string(),
                item.rights.hidden,
                item.rights.maturity,
            )
        })
        .collect();
    assert_eq!(
        items,
        [
            ("c".to_owned(), false, Some(16)),
            ("a".to_owned(), true, None)
        ]
    );
    let events = kept.events.into_inner();
    assert_eq!(
        events
            .iter()
            .map(|event| event.kind.as_str())
            .collect::<Vec<_>>(),
        ["rating", "view", "like"]
    );
    assert!(
        events
            .iter()
            .all(|event| event.id.as_str().starts_with("import:")),
        "rows without id get a stable one"
    );
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let stamp = Stamp {
        tenant: TenantId::default(),
        now: 1,
        region: "r".into(),
    };
    std::fs::write(dir.path().join("x.feather"), b"ARROW1").unwrap();
    for path in [
        dir.path().join("nothing"),
        dir.path().join("x.feather"),
        dir.path().to_owned(),
    ] {
        let error = read(&path, &stamp, &Kept::default()).unwrap_err();
        assert_eq!(error.code(), "import");
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }
}

/// A folder is not imported in part.
#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_that_is_not_built_in_is_refused_with_the_remedy() {
    let (kept, summary) = import(&[
        ("items.jsonl", b"{\"id\":\"a\"}\n"),
        ("more.parquet", b"PAR1"),
    ]);
    let error = summary.unwrap_err();
    assert_eq!(error.code(), "not_built_in");
    let text = error.to_string();
    assert!(
        text.contains("more.parquet") && text.contains("--features parquet"),
        "{text}"
    );
    assert!(kept.items.into_inner().is_empty());
}

#[test]
fn the_digest_follows_the_content() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("items.jsonl"), b"{\"id\":\"a\"}\n").unwrap();
    let before = digest(dir.path()).unwrap();
    assert_eq!(digest(dir.path()).unwrap(), before);
    std::fs::write(dir.path().join("items.jsonl"), b"{\"id\":\"b\"}\n").unwrap();
    assert_ne!(digest(dir.path()).unwrap(), before);
}
