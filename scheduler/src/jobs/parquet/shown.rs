//! Values as JSON.

use orion_proto::{Error, Result};
use parquet::data_type::{ByteArray, FixedLenByteArray, Int96};
use serde_json::Value;

/// A value as JSON.
pub(super) trait Shown {
    /// Bytes that it has.
    fn bytes(&self) -> usize;

    /// Null where no JSON is of it.
    fn shown(&self, is_unsigned: bool) -> Result<Value>;
}

macro_rules! shown {
    ($type:ty, |$value:ident, $is_unsigned:ident| $shown:expr) => {
        impl Shown for $type {
            fn bytes(&self) -> usize {
                size_of::<Self>()
            }

            fn shown(&self, $is_unsigned: bool) -> Result<Value> {
                let $value = self;
                Ok($shown)
            }
        }
    };
}

shown!(bool, |value, _is_unsigned| (*value).into());
shown!(i32, |value, is_unsigned| if is_unsigned { value.cast_unsigned().into() } else { (*value).into() });
shown!(i64, |value, is_unsigned| if is_unsigned { value.cast_unsigned().into() } else { (*value).into() });
shown!(f32, |value, _is_unsigned| short(*value).into());
shown!(f64, |value, _is_unsigned| (*value).into());
shown!(Int96, |_value, _is_unsigned| Value::Null);

/// The number of fewest digits that is this one: as it is it would have some twenty.
fn short(value: f32) -> f64 {
    let short = value.to_string().parse().ok();
    short.filter(|short: &f64| *short as f32 == value).unwrap_or_else(|| f64::from(value))
}

impl Shown for ByteArray {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn shown(&self, _: bool) -> Result<Value> {
        let text = std::str::from_utf8(self.data()).map_err(|_| Error::invalid("it is no UTF-8 text"))?;
        Ok(text.into())
    }
}

impl Shown for FixedLenByteArray {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn shown(&self, _: bool) -> Result<Value> {
        Ok(Value::Null)
    }
}
