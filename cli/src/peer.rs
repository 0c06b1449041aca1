//! A node among others: whom it believes, whom it lets in, and where it listens.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use orion_net::{
    artifact::Trust,
    transfer::{NodeOptions, PeerToken},
};
use orion_scheduler::api::access::Token;
use tokio::net::TcpListener;

use crate::Failure;

/// Whom a node believes and lets in.
#[derive(Args, Clone, Debug)]
pub(crate) struct PeerAccess {
    #[command(flatten)]
    publishers: Publishers,
    /// File that holds the bearer token that nodes show each other
    #[arg(long, env = "ORION_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl PeerAccess {
    /// Whether others must show a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token_file.is_some()
    }

    /// A node's options, all files read.
    pub(crate) fn options(&self, address: String, accepts_uploads: bool) -> Result<NodeOptions, Failure> {
        let token = self.token_file.as_deref().map(Token::from_file).transpose()?;
        self.publishers.options(address, token.as_ref(), accepts_uploads)
    }
}

/// Whose models a node takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Publishers {
    /// Take only what is signed with one of these keys: openssl pkey -pubout
    #[arg(long, env = "ORION_TRUST", value_name = "FILE[,FILE…]", value_delimiter = ',')]
    trust: Vec<PathBuf>,
}

impl Publishers {
    /// A node's options.
    pub(crate) fn options(
        &self,
        address: String,
        token: Option<&Token>,
        accepts_uploads: bool,
    ) -> Result<NodeOptions, Failure> {
        let trust = Trust::from_files(self.trust.iter().map(PathBuf::as_path))?;
        let token = token.map(|token| {
            PeerToken::new(token.reveal()).ok_or_else(|| Failure::new("the token must be one line of printable ASCII"))
        });
        Ok(NodeOptions { trust, address, token: token.transpose()?, accepts_uploads, ..NodeOptions::default() })
    }
}

/// Listens for other nodes; strangers on other machines are let in only where that was said.
pub(crate) async fn listen(address: SocketAddr, has_token: bool, insecure: bool) -> Result<TcpListener, Failure> {
    if !address.ip().is_loopback() && !has_token && !insecure {
        return Err(Failure::new(format!("{address} lets other machines in, which needs --token-file FILE"))
            .hint("or say --insecure to let anybody in"));
    }
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| Failure::new(format!("{address} cannot be listened on: {error}")))
}

/// The same under an address that others are told of; with it.
pub(crate) async fn listen_to_peers(
    address: SocketAddr,
    has_token: bool,
    insecure: bool,
) -> Result<(TcpListener, String), Failure> {
    if address.ip().is_unspecified() {
        return Err(Failure::new(format!("--peer {address} must be an address of this machine that others reach")));
    }
    let listener = listen(address, has_token, insecure).await?;
    let told = listener.local_addr().unwrap_or(address).to_string();
    Ok((listener, told))
}
