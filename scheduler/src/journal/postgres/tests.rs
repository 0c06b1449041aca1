//! A database of its own for each test, on the server that `scripts/with-postgres` starts.

use super::*;

/// An empty journal; none where there is no server, which is said.
pub(crate) async fn empty() -> Option<Postgres> {
    let Ok(server) = std::env::var("ORION_TEST_POSTGRES") else {
        println!("skipped: no PostgreSQL, run it in scripts/with-postgres");
        return None;
    };
    let name = format!("test_{:016x}", rand::random::<u64>());
    let pool = PgPool::connect(&server).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
    let (start, _) = server.rsplit_once('/').unwrap();
    let journal = Postgres::new(&format!("{start}/{name}")).unwrap();
    journal.make_tables().await.unwrap();
    Some(journal)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_at_a_time_and_another_when_it_is_gone() {
    let Some(first) = empty().await else { return };
    let second = first.anew();
    assert_eq!(first.leader().await.unwrap(), None);
    assert!(first.lead("one:1").await.unwrap());
    assert!(first.lead("one:1").await.unwrap());
    assert!(!second.lead("two:2").await.unwrap());
    assert_eq!(second.leader().await.unwrap().as_deref(), Some("one:1"));
    second.resign().await.unwrap();
    assert!(!second.lead("two:2").await.unwrap(), "another's resignation counted");
    first.resign().await.unwrap();
    assert!(second.lead("two:2").await.unwrap());
    assert!(!first.lead("one:1").await.unwrap());
    // A lease that nobody holds on ends by itself.
    while !first.lead("one:1").await.unwrap() {
        tokio::task::yield_now().await;
    }
    assert_eq!(first.leader().await.unwrap().as_deref(), Some("one:1"));
}

/// From the moment that another leads: also before it has appended anything, which would move the place.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_lead_appends_nothing() {
    let Some(first) = empty().await else { return };
    let second = first.anew();
    let batch = |epoch| Batch {
        records: vec![Record { unix_ms: 1, event: Some(orion_proto::journal::record::Event::Epoch(epoch)) }],
        ..Batch::default()
    };
    let append = |journal: &Postgres, expected, epoch| {
        let (journal, batch) = (journal.clone(), batch(epoch));
        tokio::task::spawn_blocking(move || journal.append(expected, &batch))
    };
    assert!(matches!(append(&first, 0, 1).await.unwrap(), Err(NotAppended::Fenced(0))), "nobody led");
    assert!(first.lead("one:1").await.unwrap());
    append(&first, 0, 1).await.unwrap().unwrap();
    assert!(matches!(append(&first, 0, 2).await.unwrap(), Err(NotAppended::Fenced(1))), "not where it ends");
    first.resign().await.unwrap();
    assert!(second.lead("two:2").await.unwrap());
    assert!(matches!(append(&first, 1, 2).await.unwrap(), Err(NotAppended::Fenced(1))), "another led");
    append(&second, 1, 2).await.unwrap().unwrap();
}

/// Large records are read some at a time, small ones together, and none is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_any_size_are_all_read() {
    let Some(journal) = empty().await else { return };
    assert!(journal.lead("one:1").await.unwrap());
    let record = |n: u64| {
        let bytes = if n % 10 == 3 { 3 << 20 } else { 10 };
        let spec = orion_proto::jobs::JobSpec { idempotency_key: "k".repeat(bytes), ..Default::default() };
        let submitted = orion_proto::journal::Submitted { spec: Some(spec), ..Default::default() };
        Record { unix_ms: n, event: Some(orion_proto::journal::record::Event::Submitted(submitted)) }
    };
    let batch = Batch { records: (0..40).map(record).collect(), ..Batch::default() };
    let read = tokio::task::spawn_blocking(move || {
        journal.append(0, &batch).unwrap();
        let mut read = Vec::new();
        while let Some(some) = Some(journal.read(read.len() as u64, 100).unwrap()).filter(|some| !some.is_empty()) {
            assert!(some.iter().filter(|(place, _)| place % 10 == 3).count() <= 3, "more than it may be at once");
            read.extend(some.into_iter().map(|(place, record)| (place, record.unix_ms)));
        }
        let some = journal.at(&[33, 3, 99, 7, 13, 23]).unwrap();
        (read, some.into_iter().map(|(place, _)| place).collect::<Vec<_>>(), journal.end().unwrap())
    });
    let (read, mut some, end) = read.await.unwrap();
    some.sort_unstable();
    assert_eq!(read, (0..40).map(|n| (n, n)).collect::<Vec<_>>());
    assert_eq!((some, end), (vec![3, 7, 13, 23, 33], 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_start_at_once_each_finds_its_tables() {
    let Some(journal) = empty().await else { return };
    let made = (0..8).map(|_| journal.anew()).map(|journal| async move { journal.make_tables().await });
    futures::future::try_join_all(made).await.unwrap();
}

#[test]
fn a_wrong_url_is_refused_without_repeating_it() {
    let error = options("mysql://me:secret@host/x").unwrap_err();
    assert!(error.message.contains("postgres://USER") && !error.message.contains("secret"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_conforms() {
    let Some(journal) = empty().await else { return };
    assert!(journal.lead("here").await.unwrap());
    tokio::task::spawn_blocking(move || crate::journal::contents::tests::conforms(&journal)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_hears_of_appends() {
    let Some(first) = empty().await else { return };
    let mut news = first.anew().news().await;
    assert!(first.lead("one:1").await.unwrap());
    for epoch in 1..4 {
        let records = vec![Record { unix_ms: 1, event: Some(orion_proto::journal::record::Event::Epoch(epoch)) }];
        let (journal, batch) = (first.clone(), Batch { records, ..Batch::default() });
        tokio::task::spawn_blocking(move || journal.append(epoch - 1, &batch)).await.unwrap().unwrap();
        news.next().await;
    }
}
