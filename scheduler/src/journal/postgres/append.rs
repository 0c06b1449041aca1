//! A batch as the arrays that the server's function takes.

use std::collections::BTreeMap;

use orion_proto::journal::record::Event;
use prost::Message;
use sqlx::{Postgres as Sql, postgres::PgArguments, query::QueryScalar};

use crate::journal::{Batch, contents::Place};

const APPEND: &str = "SELECT orion_append_2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29)";

/// A number as the server has it; none of ours is as large as its largest.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Rows of two columns as two arrays.
fn columns<A, B>(rows: impl IntoIterator<Item = (A, B)>) -> (Vec<A>, Vec<B>) {
    rows.into_iter().unzip()
}

/// The statement that appends this batch at this place, for whom holds the lead so.
pub(super) fn statement(holder: &[u8], expected: u64, batch: &Batch) -> QueryScalar<'static, Sql, i64, PgArguments> {
    let is_submission = |event: &Option<Event>| matches!(event, Some(Event::Submitted(_)));
    let (records, submissions) =
        columns(batch.records.iter().map(|record| (record.encode_to_vec(), is_submission(&record.event))));
    // The last of each counts, and the server takes each once.
    let ended: BTreeMap<i64, Vec<u8>> = batch.ended.iter().map(|job| (number(job.id), job.encode_to_vec())).collect();
    let (ended_jobs, ended) = columns(ended);
    let results: BTreeMap<i64, Vec<u8>> =
        batch.results.iter().map(|(job, bytes)| (number(*job), bytes.to_vec())).collect();
    let (result_jobs, results) = columns(results);
    let term = |(term, job): &(String, u64)| (term.clone().into_bytes(), number(*job));
    let of_forgotten = batch.forgotten.iter().flat_map(|gone| gone.terms.iter().map(|term| (term.clone(), gone.job)));
    let of_forgotten: Vec<(String, u64)> = of_forgotten.collect();
    let (no_terms, no_term_jobs) = columns(batch.no_terms.iter().chain(&of_forgotten).map(term));
    let (terms, term_jobs) = columns(batch.terms.iter().map(term));
    let keys: BTreeMap<Vec<u8>, i64> = batch.keys.iter().map(term).collect();
    let (keys, key_jobs) = columns(keys);
    let pair = |(due, job): &(u64, u64)| (number(*due), number(*job));
    let (due, due_jobs) = columns(batch.forget.iter().map(pair));
    let (not_due, not_due_jobs) = columns(batch.not_due.iter().map(pair));
    let forgotten: Vec<i64> = batch.forgotten.iter().map(|gone| number(gone.job)).collect();
    let forgotten_keys: Vec<Vec<u8>> = batch.forgotten.iter().map(|gone| gone.key.clone().into_bytes()).collect();
    let (staged, staged_addresses) = columns(batch.staged.iter().filter_map(|staged| match staged.place {
        Place::Rows(key) => Some((key.to_vec(), staged.address.to_vec())),
        _ => None,
    }));
    let (kept, keepers) = columns(batch.keepers.iter().map(|(address, keeper)| (address.to_vec(), number(*keeper))));
    let (file_numbers, files) = columns(batch.files.iter().map(|(file, kept)| (number(*file), kept.encode_to_vec())));
    let unneeded = batch.forgotten.iter().flat_map(|gone| &gone.contents).map(|address| address.to_vec());
    let unneeded: Vec<Vec<u8>> = unneeded.collect();
    let snapshot = batch.snapshot.as_ref();
    sqlx::query_scalar(APPEND)
        .bind(holder.to_vec())
        .bind(number(expected))
        .bind(records)
        .bind(submissions)
        .bind(ended_jobs)
        .bind(ended)
        .bind(result_jobs)
        .bind(results)
        .bind(no_terms)
        .bind(no_term_jobs)
        .bind(terms)
        .bind(term_jobs)
        .bind(keys)
        .bind(key_jobs)
        .bind(due)
        .bind(due_jobs)
        .bind(not_due)
        .bind(not_due_jobs)
        .bind(forgotten)
        .bind(forgotten_keys)
        .bind(snapshot.map_or(0, |snapshot| number(snapshot.next)))
        .bind(snapshot.map(Message::encode_to_vec))
        .bind(staged)
        .bind(staged_addresses)
        .bind(kept)
        .bind(keepers)
        .bind(file_numbers)
        .bind(files)
        .bind(unneeded)
}
