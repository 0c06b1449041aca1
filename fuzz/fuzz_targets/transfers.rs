//! Frames between scheduler and worker: what was put together is what came, and a batch or result is read again as written.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use orion_fuzz::Input;
use orion_net::{FromWorker, Inbox, Transfer, decode_batch, decode_from_worker, encode_batch, encode_deltas};
use orion_net::{encode_probe, encode_result};
use orion_proto::{Payload, session::Frame};
use prost::Message;

const MOST_BYTES: u64 = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    if input.byte() % 2 == 0 {
        let length = input.length();
        let (header, payload) = input.0.split_at(length.min(input.0.len()));
        return check(&transfer((Bytes::copy_from_slice(header), vec![payload.to_vec().into()])));
    }
    let Ok(frame) = Frame::decode(input.0) else { return };
    let (mut inbox, mut came, mut gone) = (Inbox::new(MOST_BYTES), 0, 0);
    for piece in frame.pieces {
        let bytes = piece.header.len() + piece.payload.len();
        came += bytes;
        let Ok((done, credit)) = inbox.accept(piece) else { return };
        assert!(credit >= bytes as u64);
        let Some(done) = done else { continue };
        gone += done.header.len() + done.payload.len();
        assert!(gone <= came && !done.header.is_empty());
        assert!(done.header.len().max(done.payload.len()) as u64 <= MOST_BYTES);
        check(&done);
    }
});

fn transfer((header, payloads): (Bytes, Vec<Payload>)) -> Transfer {
    let mut payload = Payload::default();
    payloads.iter().flat_map(Payload::pieces).for_each(|piece| payload.push(piece.clone()));
    Transfer { header, payload }
}

fn check(came: &Transfer) {
    if let Ok(batch) = decode_batch(came.clone()) {
        let written = transfer(encode_batch(&batch));
        assert!(written.payload.len() <= came.payload.len());
        let again = decode_batch(written.clone()).expect("it was just written");
        assert!(written == transfer(encode_batch(&again)), "a batch is written in another way: {batch:?}");
    }
    if let Ok(said) = decode_from_worker(came.clone()) {
        let written = worker_transfer(said);
        assert!(written.payload.len() <= came.payload.len());
        let again = decode_from_worker(written.clone()).expect("it was just written");
        assert!(written == worker_transfer(again), "a result is written in another way: {written:?}");
    }
}

fn worker_transfer(said: FromWorker) -> Transfer {
    transfer(match said {
        FromWorker::Result(result) => encode_result(result),
        FromWorker::Probe(sequence) => (encode_probe(sequence), Vec::new()),
        FromWorker::Deltas(epoch, deltas) => (encode_deltas(epoch, deltas), Vec::new()),
    })
}
