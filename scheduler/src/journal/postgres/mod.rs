//! The journal of a cluster, in PostgreSQL: several schedulers follow it, and the one that holds the lease appends.

mod apart;
mod append;
mod contents;
mod lease;
mod news;
#[cfg(test)]
pub(crate) mod tests;

use std::{future::Future, str::FromStr, time::Duration};

use bytes::Bytes;
use orion_proto::{
    Code, Error, Result,
    files::File,
    jobs::Job,
    journal::{Record, Snapshot},
};
use prost::Message;
use sqlx::{
    FromRow, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
    query::QueryAs,
};

use self::{
    apart::Apart,
    append::{number, statement},
};
use super::{Address, Batch, Journal, NotAppended, Staging};

pub use lease::LEASE_MS;
pub use news::News;

const SCHEMA: &str = include_str!("schema.sql");
/// Connections of one scheduler: of its writer and its lease, and of those that read, one of which hears. However many read, the
/// lease is held on.
const WRITERS: u32 = 2;
const READERS: u32 = 7;
/// Of each connection: the server lets go of what a client held that is gone without a word, and says of no table that it is there.
const SETTINGS: [(&str, &str); 5] = [
    ("tcp_keepalives_idle", "1"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    ("default_transaction_isolation", "read committed"),
    ("client_min_messages", "warning"),
];
/// Bytes of records that are asked for at once, but for the last: what a slow link carries in time.
const BYTES_AT_ONCE: i64 = 8 << 20;
const READ: &str = "SELECT place, bytes FROM (
    SELECT place, bytes, sum(octet_length(bytes)) OVER (ORDER BY place) - octet_length(bytes) AS before
    FROM (SELECT place, bytes FROM orion_records WHERE place >= $1 ORDER BY place LIMIT $2) AS first
) AS counted WHERE before < $3 ORDER BY place";
const AT: &str = "SELECT place, bytes FROM (
    SELECT place, bytes, sum(octet_length(bytes)) OVER (ORDER BY place) - octet_length(bytes) AS before
    FROM orion_records WHERE place = ANY ($1)
) AS counted WHERE before < $2 ORDER BY place";
/// How long the server may take for an answer. One that is gone answers nothing, and what was asked of it is not known.
const PATIENCE: Duration = Duration::from_secs(10);

/// A journal in PostgreSQL. Its methods block, and must not be called from where a runtime runs tasks.
#[derive(Clone, Debug)]
pub struct Postgres {
    options: PgConnectOptions,
    writes: PgPool,
    reads: PgPool,
    runtime: Apart,
    /// Who appends, where it holds the lead.
    holder: [u8; 16],
}

fn unreachable(error: impl std::fmt::Display) -> Error {
    Error::new(Code::Unavailable, format!("the journal's server: {error}"))
}

fn decode<M: Message + Default>(what: &str, bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|error| Error::new(Code::Internal, format!("the journal is damaged: {what}: {error}")))
}

/// What a URL such as `postgres://user@host/database` names, without connecting.
///
/// # Errors
/// INVALID_ARGUMENT; it does not repeat the URL, which may hold a password.
fn options(url: &str) -> Result<PgConnectOptions> {
    let wrong = || Error::invalid("the journal's URL must be postgres://USER:PASSWORD@HOST:PORT/DATABASE");
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong());
    }
    PgConnectOptions::from_str(url).map_err(|_| wrong())
}

impl Postgres {
    /// The journal of this URL, without connecting yet.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the URL is wrong.
    pub fn new(url: &str) -> Result<Self> {
        let options = options(url)?.application_name("orion").options(SETTINGS);
        let runtime = Apart::new().map_err(|error| Error::new(Code::Unavailable, format!("no threads: {error}")))?;
        Ok(Self::of(options, runtime))
    }

    fn of(options: PgConnectOptions, runtime: Apart) -> Self {
        // A connection belongs to the runtime that it was made in.
        let entered = runtime.handle().enter();
        let pool = |connections| PgPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE);
        let (writes, reads) = (pool(WRITERS), pool(READERS));
        let (writes, reads) = (writes.connect_lazy_with(options.clone()), reads.connect_lazy_with(options.clone()));
        drop(entered);
        Self { options, writes, reads, runtime, holder: rand::random() }
    }

    /// The same journal for who does not hold the lead, over new connections: those that a network swallowed without a word
    /// would be waited for.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self::of(self.options.clone(), self.runtime.clone())
    }

    /// Makes the tables where they are not there.
    ///
    /// # Errors
    /// UNAVAILABLE where the server cannot be reached or refuses.
    pub async fn make_tables(&self) -> Result<()> {
        let journal = self.clone();
        let made = async move { tokio::time::timeout(PATIENCE, journal.try_make_tables()).await };
        let made = async { made.await.map_err(|_| unreachable("it does not answer"))?.map_err(unreachable) };
        self.runtime.run(made).await
    }

    async fn try_make_tables(&self) -> std::result::Result<(), sqlx::Error> {
        let there = sqlx::query_scalar("SELECT to_regproc('orion_append_2') IS NOT NULL");
        if there.fetch_one(&self.writes).await? {
            return Ok(());
        }
        // One message, and so one transaction. Of several that start at once one makes them: making the same table twice at once
        // is an error.
        sqlx::raw_sql(SCHEMA).execute(&self.writes).await.map(|_| ())
    }

    fn wait<T>(
        &self,
        asked: impl Future<Output = std::result::Result<T, sqlx::Error>>,
    ) -> std::result::Result<T, String> {
        let answered = async { tokio::time::timeout(PATIENCE, asked).await };
        match self.runtime.handle().block_on(answered) {
            Ok(answered) => answered.map_err(|error| error.to_string()),
            Err(_) => Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
        }
    }

    fn rows<T>(&self, query: QueryAs<'static, sqlx::Postgres, T, sqlx::postgres::PgArguments>) -> Result<Vec<T>>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow> + 'static,
    {
        self.wait(query.fetch_all(&self.reads)).map_err(unreachable)
    }

    /// Numbers and bytes of those of these rows that are there.
    fn numbered(&self, query: &'static str, rows: &[u64]) -> Result<Vec<(u64, Vec<u8>)>> {
        let rows: Vec<i64> = rows.iter().map(|row| number(*row)).collect();
        let found: Vec<(i64, Vec<u8>)> = self.rows(sqlx::query_as(query).bind(rows))?;
        Ok(found.into_iter().map(|(row, bytes)| (unsigned(row), bytes)).collect())
    }
}

fn record(place: u64, bytes: &[u8]) -> Result<(u64, Record)> {
    Ok((place, decode(&format!("record {place}"), bytes)?))
}

/// A number that the server gave back: none that was given to it is below 0.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl Journal for Postgres {
    fn append(&self, expected: u64, batch: &Batch) -> std::result::Result<(), NotAppended> {
        let asked = statement(&self.holder, expected, batch).fetch_one(&self.writes);
        match self.wait(asked).map_err(NotAppended::Failed)? {
            -1 => Ok(()),
            next => Err(NotAppended::Fenced(unsigned(next))),
        }
    }

    fn snapshot(&self) -> Result<Option<Snapshot>> {
        let rows: Vec<(Vec<u8>,)> = self.rows(sqlx::query_as("SELECT bytes FROM orion_snapshot"))?;
        rows.first().map(|(bytes,)| decode("its snapshot", bytes)).transpose()
    }

    fn end(&self) -> Result<u64> {
        let rows: Vec<(i64,)> = self.rows(sqlx::query_as("SELECT next FROM orion_journal"))?;
        Ok(rows.first().map_or(0, |(next,)| unsigned(*next)))
    }

    fn read(&self, from: u64, most: usize) -> Result<Vec<(u64, Record)>> {
        let rows: Vec<(i64, Vec<u8>)> =
            self.rows(sqlx::query_as(READ).bind(number(from)).bind(number(most as u64)).bind(BYTES_AT_ONCE))?;
        rows.into_iter().map(|(place, bytes)| record(unsigned(place), &bytes)).collect()
    }

    fn at(&self, places: &[u64]) -> Result<Vec<(u64, Record)>> {
        let mut left: Vec<i64> = places.iter().map(|place| number(*place)).collect();
        let mut found = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let rows: Vec<(i64, Vec<u8>)> = self.rows(sqlx::query_as(AT).bind(left.clone()).bind(BYTES_AT_ONCE))?;
            let Some(last) = rows.last().map(|(place, _)| *place) else { break };
            for (place, bytes) in rows {
                found.push(record(unsigned(place), &bytes)?);
            }
            left.retain(|place| *place > last);
        }
        Ok(found)
    }

    fn ended_of(&self, jobs: &[u64]) -> Result<Vec<Job>> {
        let rows = self.numbered("SELECT job, bytes FROM orion_ended WHERE job = ANY ($1)", jobs)?;
        rows.into_iter().map(|(job, bytes)| decode(&format!("job {job}"), &bytes)).collect()
    }

    fn results(&self, jobs: &[u64]) -> Result<Vec<(u64, Bytes)>> {
        let rows = self.numbered("SELECT job, bytes FROM orion_results WHERE job = ANY ($1)", jobs)?;
        Ok(rows.into_iter().map(|(job, bytes)| (job, Bytes::from(bytes))).collect())
    }

    fn file(&self, number: u64) -> Result<Option<File>> {
        let rows = self.numbered("SELECT file, bytes FROM orion_files WHERE file = ANY ($1)", &[number])?;
        rows.first().map(|(file, bytes)| decode(&format!("file {file}"), bytes)).transpose()
    }

    fn stage(&self) -> Result<Box<dyn Staging>> {
        self.begin_content()
    }

    #[cfg(test)]
    fn keepers(&self) -> Result<std::collections::BTreeSet<u64>> {
        let rows: Vec<(i64,)> = self.rows(sqlx::query_as("SELECT keeper FROM orion_keepers"))?;
        Ok(rows.into_iter().map(|(keeper,)| unsigned(keeper)).collect())
    }

    fn content(&self, address: &Address, from: u64, most: usize) -> Result<Bytes> {
        self.read_content(address, from, most)
    }

    fn of_key(&self, key: &str) -> Result<Option<u64>> {
        let query = sqlx::query_as("SELECT job FROM orion_keys WHERE key = $1").bind(key.as_bytes().to_vec());
        let rows: Vec<(i64,)> = self.rows(query)?;
        Ok(rows.first().map(|(job,)| unsigned(*job)))
    }

    fn found(&self, term: &str, before: u64, most: usize) -> Result<Vec<u64>> {
        let query = "SELECT job FROM orion_terms WHERE term = $1 AND job < $2 ORDER BY job DESC LIMIT $3";
        let query = sqlx::query_as(query).bind(term.as_bytes().to_vec()).bind(number(before)).bind(number(most as u64));
        let rows: Vec<(i64,)> = self.rows(query)?;
        Ok(rows.into_iter().map(|(job,)| unsigned(job)).collect())
    }

    fn due(&self, now: u64, most: usize) -> Result<Vec<(u64, u64)>> {
        let query = sqlx::query_as("SELECT due, job FROM orion_due WHERE due <= $1 ORDER BY due, job LIMIT $2");
        let rows: Vec<(i64, i64)> = self.rows(query.bind(number(now)).bind(number(most as u64)))?;
        Ok(rows.into_iter().map(|(due, job)| (unsigned(due), unsigned(job))).collect())
    }
}
