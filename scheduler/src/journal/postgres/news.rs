//! The server's hint that something was appended.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::Postgres;

const CHANNEL: &str = "orion_journal";
/// How long asking for it may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Hears of appends. One that hears nothing any more is as good as none: who follows looks now and then.
pub struct News(Option<PgListener>);

impl Postgres {
    /// Hears of appends from now on, where the server lets it.
    pub async fn news(&self) -> News {
        let listening = async {
            let mut listener = PgListener::connect_with(&self.reads).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        // Whoever follows does not wait for a hint.
        let heard = tokio::time::timeout(PATIENCE, listening).await;
        News(heard.ok().and_then(|heard| heard.inspect_err(|error| tracing::debug!(%error, "journal_not_heard")).ok()))
    }
}

impl News {
    /// Returns when something was appended; never where it hears nothing any more.
    pub async fn next(&mut self) {
        match &mut self.0 {
            // A connection that was lost is made anew by it; what was missed meanwhile is found by looking.
            Some(listener) => match listener.recv().await {
                // What came meanwhile is one piece of news.
                Ok(_) => while listener.next_buffered().is_some() {},
                Err(_) => self.0 = None,
            },
            None => std::future::pending().await,
        }
    }
}
