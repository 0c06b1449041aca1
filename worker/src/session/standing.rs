//! Which of several schedulers leads: a worker of one that does not, such as one that is cut off from the journal, looks for it.

use std::time::Duration;

use futures::future::join_all;
use orion_proto::session::{StandingRequest, session_client::SessionClient};
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use super::{JoinOptions, connection::authorised};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Completes with the place of a scheduler that leads, once the one at this place does not.
pub(super) async fn led_elsewhere(options: &JoinOptions, own: usize) -> usize {
    let clients: Vec<_> = options.addresses.iter().map(|address| client(address)).collect();
    loop {
        tokio::time::sleep(LOOK).await;
        if clients.len() < 2 || leads(options, clients[own].as_ref()).await != Some(false) {
            continue;
        }
        let all = join_all(clients.iter().map(|client| leads(options, client.as_ref()))).await;
        if let Some(other) = all.iter().position(|leads| *leads == Some(true)) {
            return other;
        }
    }
}

/// It connects when it is asked.
fn client(address: &str) -> Option<SessionClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    Some(SessionClient::new(endpoint.connect_timeout(PATIENCE).connect_lazy()))
}

/// None where it does not say.
async fn leads(options: &JoinOptions, client: Option<&SessionClient<Channel>>) -> Option<bool> {
    let request = authorised(Request::new(StandingRequest {}), options).ok()?;
    let mut client = client?.clone();
    let answer = tokio::time::timeout(PATIENCE, client.standing(request)).await.ok()?.ok()?;
    Some(answer.into_inner().leads)
}
