use std::{path::Path, sync::Arc};

use orion_proto::{
    Code, ModelName, Result,
    peer::{self as wire, peer_client::PeerClient},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot};

use super::*;
use crate::{
    artifact::{Artifact, Trust},
    store::{Publication, Quota, Store},
};

/// A node of this process, with a store of its own and a port that the system picked.
struct One {
    _folder: TempDir,
    node: Node,
    address: String,
    stop: Option<oneshot::Sender<()>>,
}

impl One {
    async fn start() -> Self {
        Self::with(|options| options).await
    }

    async fn with(change: impl FnOnce(NodeOptions) -> NodeOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let store = Arc::new(Store::open(folder.path(), Quota::default()).unwrap());
        let options = NodeOptions { address: address.clone(), accepts_uploads: true, ..NodeOptions::default() };
        let node = Node::new(store, change(options));
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(node.clone().tick());
        let serving = node.clone().serve(listener, async { _ = stopped.await });
        tokio::spawn(serving);
        Self { _folder: folder, node, address, stop: Some(stop) }
    }

    fn publish(&self, source: &TempDir) -> Artifact {
        let name = ModelName::new("m").unwrap();
        let base = self.node.store().find("m", None).ok();
        let publication =
            Publication { source: source.path(), name, version: None, base, codec: None, signer: None, is_own: false };
        self.node.store().publish(&publication, &|_, _| {}).unwrap()
    }

    /// Fetches from these nodes.
    async fn pull(&self, version: Option<&str>, from: &[&One]) -> Result<Progress> {
        let addresses: Vec<String> = from.iter().map(|one| one.address.clone()).collect();
        let wanted = Wanted::Named("m".into(), version.map(str::to_owned));
        let artifact = self.node.find(&wanted, &addresses).await?;
        let mut progress = self.node.fetch(artifact, &addresses).await?;
        let ended = progress.wait_for(|progress| progress.outcome.is_some()).await.unwrap().clone();
        ended.outcome.clone().unwrap().map(|()| ended)
    }

    fn has(&self, artifact: &Artifact, source: &TempDir) -> bool {
        let folder = self.node.store().folder(&artifact.root);
        let same = |path: &Path| std::fs::read(folder.join(path)).ok() == std::fs::read(source.path().join(path)).ok();
        artifact.manifest.files.iter().all(|file| same(Path::new(&file.path)))
    }
}

/// A model of so many chunks, in one file of random numbers and one of text.
fn model(seed: u64, chunks: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let numbers = (0..chunks * 131_072).flat_map(|_| (0x3c00 + (next() % 0x180) as u16).to_le_bytes());
    let numbers: Vec<u8> = numbers.collect();
    let shape = vec![chunks, 131_072];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, shape, &numbers).unwrap();
    let file = safetensors::serialize([("weights", view)], None).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
    std::fs::write(folder.path().join("config.json"), "{}\n".repeat(1000)).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_from_one_node_and_from_there_to_the_next() {
    let (first, second, third) = (One::start().await, One::start().await, One::start().await);
    let source = model(1, 8);
    let artifact = first.publish(&source);
    let came = second.pull(None, &[&first]).await.unwrap();
    assert!(second.has(&artifact, &source));
    assert!(came.received < came.bytes * 3 / 4 && came.here == came.bytes, "{came:?}");
    // From there it comes even where the first is gone, and from both.
    drop(first);
    third.pull(None, &[&second]).await.unwrap();
    assert!(third.has(&artifact, &source));
    // What is here is not fetched again.
    let again = third.pull(None, &[&second]).await.unwrap();
    assert_eq!((again.received, again.found), (0, again.bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_receivers_of_one_seed_help_each_other() {
    let seed = One::start().await;
    let source = model(2, 24);
    let artifact = seed.publish(&source);
    let receivers = futures::future::join_all((0..6).map(|_| One::start())).await;
    let from = [&seed];
    let pulls = receivers.iter().map(|one| one.pull(None, &from));
    for came in futures::future::join_all(pulls).await {
        let came = came.unwrap();
        assert_eq!(came.here, came.bytes);
    }
    assert!(receivers.iter().all(|one| one.has(&artifact, &source)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_comes_as_its_difference() {
    let (from, to) = (One::start().await, One::start().await);
    let (old, new) = (model(3, 6), model(3, 6));
    let path = new.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let start = bytes.len() - 6 * 262_144;
    bytes[start..].iter_mut().step_by(10).for_each(|byte| *byte ^= 1);
    std::fs::write(&path, bytes).unwrap();
    let base = from.publish(&old);
    to.pull(None, &[&from]).await.unwrap();
    let next = from.publish(&new);
    let came = to.pull(Some(next.manifest.version.as_str()), &[&from]).await.unwrap();
    assert!(to.has(&next, &new) && to.has(&base, &old));
    assert!(came.received * 5 < came.bytes, "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_handed_to_a_node_that_takes_it() {
    let (from, to) = (One::start().await, One::start().await);
    let source = model(4, 5);
    let artifact = from.publish(&source);
    from.node.push(&artifact.root, &to.address).await.unwrap();
    let mut stored = to.node.store().get(&artifact.root);
    while stored.is_err() {
        tokio::task::yield_now().await;
        stored = to.node.store().get(&artifact.root);
    }
    assert!(to.has(&artifact, &source));
    from.node.push(&artifact.root, &to.address).await.unwrap();
    let closed = One::with(|options| NodeOptions { accepts_uploads: false, ..options }).await;
    let refused = from.node.push(&artifact.root, &closed.address).await.unwrap_err();
    assert_eq!((refused.code, refused.message.contains("takes no uploads")), (Code::PermissionDenied, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_fetched_is_said() {
    let (from, to) = (One::start().await, One::start().await);
    let error = to.pull(None, &[&from]).await.unwrap_err();
    assert!(error.code == Code::NotFound && error.message.contains("model 'm' is not in the store"), "{error:?}");
    let nobody = to.node.find(&Wanted::Named("m".into(), None), &["127.0.0.1:1".into()]).await.unwrap_err();
    assert!(nobody.code == Code::Unavailable && nobody.message.contains("127.0.0.1:1 cannot be reached"), "{nobody:?}");
    let wrong = to.node.find(&Wanted::Named("m".into(), None), &["a b".into()]).await.unwrap_err();
    assert!(wrong.message.contains("must be HOST:PORT"), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_a_token_talk_to_nobody_else() {
    let token = |text: &str| PeerToken::new(text);
    let from = One::with(|options| NodeOptions { token: token("a"), ..options }).await;
    let source = model(5, 1);
    from.publish(&source);
    for (own, words) in [(None, "a token is needed"), (token("b"), "the bearer token is wrong")] {
        let to = One::with(|options| NodeOptions { token: own, ..options }).await;
        let refused = to.pull(None, &[&from]).await.unwrap_err();
        assert!(refused.code == Code::Unauthenticated && refused.message.contains(words), "{refused:?}");
    }
    let to = One::with(|options| NodeOptions { token: token("a"), ..options }).await;
    to.pull(None, &[&from]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_believes_only_signed_models_takes_no_other() {
    use ed25519_dalek::{
        SigningKey,
        pkcs8::{EncodePublicKey, spki::der::pem::LineEnding},
    };
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pub");
    let text = SigningKey::from_bytes(&[7; 32]).verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    std::fs::write(&key, text).unwrap();
    let trust = Trust::from_files([key.as_path()]).unwrap();
    let from = One::start().await;
    from.publish(&model(6, 1));
    let to = One::with(|options| NodeOptions { trust, ..options }).await;
    let refused = to.pull(None, &[&from]).await.unwrap_err();
    assert!(refused.code == Code::PermissionDenied && refused.message.contains("is not signed"), "{refused:?}");
}

impl Drop for One {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_serves_chunks_and_what_is_wrong_in_it_comes_from_a_node() {
    let (from, alone, both) = (One::start().await, One::start().await, One::start().await);
    let (source, bucket) = (model(7, 8), tempfile::tempdir().unwrap());
    let artifact = from.publish(&source);
    let address = bucket.path().display().to_string();
    from.node.push(&artifact.root, &address).await.unwrap();
    let wanted = Wanted::Named("m".into(), None);
    let pull = async |one: &One, addresses: &[String]| {
        let artifact = one.node.find(&wanted, addresses).await?;
        let mut progress = one.node.fetch(artifact, addresses).await?;
        let ended = progress.wait_for(|progress| progress.outcome.is_some()).await.unwrap().clone();
        ended.outcome.clone().unwrap().map(|()| ended)
    };
    let came = pull(&alone, std::slice::from_ref(&address)).await.unwrap();
    assert!(alone.has(&artifact, &source) && came.received < came.bytes * 3 / 4, "{came:?}");

    let pack = bucket.path().join("packs").join(artifact.root.to_hex().as_str());
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let refused = One::start().await;
    let error = pull(&refused, std::slice::from_ref(&address)).await.unwrap_err();
    assert!(error.message.contains(&address), "{error}");
    assert!(refused.node.store().list().is_empty());
    pull(&both, &[address, from.address.clone()]).await.unwrap();
    assert!(both.has(&artifact, &source));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_folder_are_taken_once_and_those_that_have_them_are_asked_first() {
    let (first, second) = (One::start().await, One::start().await);
    let source = model(8, 3);
    let import = |peers: Vec<String>| Import {
        location: crate::origin::Location::parse(source.path().to_str().unwrap()).unwrap(),
        reference: Some("m".parse().unwrap()),
        include: Vec::new(),
        peers,
        accepts_known: true,
    };
    let told = tokio::sync::watch::Sender::new(Progress::default());
    let artifact = first.node.import(&import(Vec::new()), &told).await.unwrap();
    assert!(first.has(&artifact, &source));
    assert_eq!(told.borrow().received, artifact.manifest.bytes());
    let again = first.node.import(&import(Vec::new()), &told).await.unwrap();
    assert_eq!((again.root, told.borrow().received), (artifact.root, 0));
    // Its chunks come encoded from the node.
    second.node.import(&import(vec![first.address.clone()]), &told).await.unwrap();
    assert!(second.has(&artifact, &source) && told.borrow().received < artifact.manifest.bytes() * 3 / 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_relay_a_node_gives_what_it_has_and_takes_nothing() {
    let one = One::start().await;
    one.publish(&model(9, 1));
    // As a scheduler hands it over: a connection that came to no port.
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(one.node.clone().router().serve_with_incoming(tokio_stream::once(Ok::<_, std::io::Error>(far))));
    let near = Arc::new(parking_lot::Mutex::new(Some(hyper_util::rt::TokioIo::new(near))));
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        std::future::ready(near.lock().take().ok_or(std::io::Error::other("once")))
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://relayed");
    let mut client = PeerClient::new(endpoint.connect_with_connector(connector).await.unwrap());
    let listed = client.list(wire::ListRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.artifacts.len(), 1);
    let offer = wire::FromSender { message: Some(wire::from_sender::Message::Begin(wire::Begin::default())) };
    let refused = client.upload(tokio_stream::iter([offer])).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(refused.message().contains("through a relay"), "{refused:?}");
}
