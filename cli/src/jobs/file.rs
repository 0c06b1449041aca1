//! Files of calls, and of what came of them.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::Path,
};

use bytes::Bytes;
use orion_proto::files::{self, PutFileRequest, ReadFileRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{Failure, client::Client, progress};

/// Bytes of a piece.
const PIECE: usize = 1 << 20;
/// Pieces that are read ahead.
const AHEAD: usize = 4;
/// What a file of Parquet begins with.
const PARQUET: &[u8] = b"PAR1";

/// Sends a file, or standard input.
pub(super) async fn put(client: &mut Client, path: &Path) -> Result<files::File, Failure> {
    let shown = path.display().to_string();
    let unread = |error: io::Error| Failure::new(format!("'{shown}' cannot be read: {error}"));
    let (reader, length): (Box<dyn Read + Send>, u64) = match path.as_os_str().as_encoded_bytes() {
        b"-" => (Box::new(io::stdin()), 0),
        _ => {
            let file = File::open(path).map_err(unread)?;
            let metadata = file.metadata().map_err(unread)?;
            if metadata.is_dir() {
                return Err(Failure::new(format!("'{shown}' is a folder, it must be a file")));
            }
            let length = metadata.len();
            (Box::new(file), length)
        }
    };
    let bar = progress::bytes(length, format!("sending {shown}"));
    let name =
        path.file_name().filter(|_| shown != "-").unwrap_or("stdin.jsonl".as_ref()).to_string_lossy().into_owned();
    let (sender, receiver) = mpsc::channel(AHEAD);
    let counted = bar.clone();
    let read = tokio::task::spawn_blocking(move || send(reader, name, &sender, |bytes| counted.inc(bytes)));
    let kept = client.files.put(ReceiverStream::new(receiver)).await;
    bar.finish_and_clear();
    // A server that refuses it knows why; one whose file broke off does not.
    if !read.is_finished() {
        return Ok(kept?.into_inner());
    }
    match read.await {
        Ok(read) => read.map_err(unread)?,
        Err(_) => return Err(Failure::new(format!("reading '{shown}' failed unexpectedly"))),
    }
    Ok(kept?.into_inner())
}

fn send(
    mut reader: impl Read,
    name: String,
    pieces: &mpsc::Sender<PutFileRequest>,
    counted: impl Fn(u64),
) -> io::Result<()> {
    let mut next = PutFileRequest { name, purpose: "batch".into(), ..PutFileRequest::default() };
    let mut room = vec![0; PIECE];
    loop {
        let bytes = reader.read(&mut room)?;
        next.piece = Bytes::copy_from_slice(&room[..bytes]);
        next.is_whole = bytes == 0;
        if pieces.blocking_send(std::mem::take(&mut next)).is_err() || bytes == 0 {
            return Ok(());
        }
        counted(bytes as u64);
    }
}

/// Writes a file of the server.
pub(super) async fn read(client: &mut Client, id: String, out: &mut dyn Write) -> Result<(), Failure> {
    let mut pieces = client.files.read(ReadFileRequest { id, from: 0 }).await?.into_inner();
    while let Some(piece) = pieces.message().await? {
        if piece.piece.starts_with(PARQUET) && io::stdout().is_terminal() {
            let text = "it is a table of Parquet, send it to a file: orion jobs result ID > answers.parquet";
            return Err(Failure::new(text));
        }
        out.write_all(&piece.piece).map_err(|error| Failure::new(format!("it cannot be written: {error}")))?;
    }
    Ok(())
}
