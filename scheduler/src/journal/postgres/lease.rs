//! Who leads: a row with a lease by the server's clock. What makes a stale leader harmless is not the lease but that its appends
//! name a holder that is not the one any more.

use std::time::Duration;

use orion_proto::Result;

use super::{Postgres, unreachable};

/// How long, in milliseconds, a scheduler leads after it was last heard of: so long nobody leads after it dies.
pub const LEASE_MS: u64 = 1200;

impl Postgres {
    /// Takes the lead, where nobody has it, or keeps it; whether it has it. `address` is where others reach this scheduler's gRPC.
    ///
    /// # Errors
    /// UNAVAILABLE where the server cannot be asked, within half a lease.
    pub async fn lead(&self, address: &str) -> Result<bool> {
        let lease = format!("{} milliseconds", LEASE_MS);
        let query = sqlx::query_scalar("SELECT orion_lead_1($1, $2, $3::interval)").bind(self.holder.to_vec());
        let (writes, query) = (self.writes.clone(), query.bind(address.to_owned()).bind(lease));
        self.soon(async move { query.fetch_one(&writes).await }).await
    }

    /// Lets another lead at once.
    ///
    /// # Errors
    /// As [`Postgres::lead`].
    pub async fn resign(&self) -> Result<()> {
        let query = sqlx::query("UPDATE orion_leader SET expires = '-infinity' WHERE holder = $1");
        let (writes, query) = (self.writes.clone(), query.bind(self.holder.to_vec()));
        self.soon(async move { query.execute(&writes).await }).await.map(|_| ())
    }

    /// Where the scheduler is that leads, if one does.
    ///
    /// # Errors
    /// As [`Postgres::lead`].
    pub async fn leader(&self) -> Result<Option<String>> {
        let query = sqlx::query_scalar("SELECT address FROM orion_leader WHERE expires > clock_timestamp()");
        let writes = self.writes.clone();
        self.soon(async move { query.fetch_optional(&writes).await }).await
    }

    async fn soon<T: Send + 'static>(
        &self,
        asked: impl Future<Output = std::result::Result<T, sqlx::Error>> + Send + 'static,
    ) -> Result<T> {
        let asked = async {
            let answered = tokio::time::timeout(Duration::from_millis(LEASE_MS / 2), asked).await;
            answered.map_err(|_| unreachable("it did not answer in time"))?.map_err(unreachable)
        };
        self.runtime.run(asked).await
    }
}
