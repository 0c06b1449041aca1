//! Models on candle: loading, encoders, batching of tensors.
