//! The answer of ModelInfer, written straight from the pieces in which its tensors lie.
//!
//! The generated type would want each tensor contiguous: one more copy. On the wire this is the same message.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use crate::{Payload, inference::ModelInferResponseHead};

const RAW_OUTPUT_CONTENTS: u32 = 6;

/// `inference.ModelInferResponse`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelInferResponse {
    /// Every field but the tensors' bytes.
    pub head: ModelInferResponseHead,
    /// Field 6, one a tensor.
    pub raw_output_contents: Vec<Payload>,
}

impl Message for ModelInferResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.head.encode_raw(buf);
        for payload in &self.raw_output_contents {
            encode_key(RAW_OUTPUT_CONTENTS, WireType::LengthDelimited, buf);
            encode_varint(payload.len() as u64, buf);
            payload.pieces().iter().for_each(|piece| buf.put_slice(piece));
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != RAW_OUTPUT_CONTENTS {
            return self.head.merge_field(tag, wire_type, buf, ctx);
        }
        let mut bytes = Bytes::new();
        prost::encoding::bytes::merge(wire_type, &mut bytes, buf, ctx)?;
        self.raw_output_contents.push(Payload::from(bytes));
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        let raw =
            |payload: &Payload| key_len(RAW_OUTPUT_CONTENTS) + encoded_len_varint(payload.len() as u64) + payload.len();
        self.head.encoded_len() + self.raw_output_contents.iter().map(raw).sum::<usize>()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::InferOutputTensor;

    #[test]
    fn pieces_come_back_as_one_tensor() {
        let mut payload = Payload::from(Bytes::from_static(b"abc"));
        payload.push(Bytes::from_static(b"defg"));
        let sent = ModelInferResponse {
            head: ModelInferResponseHead {
                model_name: "m".into(),
                id: "7".into(),
                outputs: vec![InferOutputTensor { name: "y".into(), shape: vec![7], ..Default::default() }],
                ..Default::default()
            },
            raw_output_contents: vec![payload, Payload::default()],
        };
        let bytes = sent.encode_to_vec();
        assert_eq!(bytes.len(), sent.encoded_len());
        assert_eq!(ModelInferResponse::decode(bytes.as_slice()).ok(), Some(sent));
    }
}
