//! Values as JSON.

use orion_proto::{Error, Result};
use parquet::data_type::{ByteArray, FixedLenByteArray, Int96};
use serde_json::Value;

/// A value as JSON.
pub(super) trait Shown {
    /// Bytes that it has.
    fn bytes(&self) -> usize;

    /// The same without the page that it may be a part of.
    fn owned(&self) -> Self
    where
        Self: Sized;

    /// As JSON.
    fn shown(&self, is_unsigned: bool) -> Result<Value>;
}

macro_rules! shown {
    ($type:ty, |$value:ident, $is_unsigned:ident| $shown:expr) => {
        impl Shown for $type {
            fn bytes(&self) -> usize {
                size_of::<Self>()
            }

            fn owned(&self) -> Self {
                *self
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
shown!(f32, |value, _is_unsigned| finite(short(*value))?);
shown!(f64, |value, _is_unsigned| finite(*value)?);

impl Shown for Int96 {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }

    fn owned(&self) -> Self {
        *self
    }

    fn shown(&self, _: bool) -> Result<Value> {
        Ok(Value::Null)
    }
}

fn finite(value: f64) -> Result<Value> {
    serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| Error::invalid("it is not finite"))
}

/// The number of fewest digits that is this one: as it is it would have some twenty.
fn short(value: f32) -> f64 {
    let short = value.to_string().parse().ok();
    short.filter(|short: &f64| *short as f32 == value).unwrap_or_else(|| f64::from(value))
}

impl Shown for ByteArray {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn owned(&self) -> Self {
        self.data().to_vec().into()
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

    fn owned(&self) -> Self {
        self.data().to_vec().into()
    }

    fn shown(&self, _: bool) -> Result<Value> {
        Ok(Value::Null)
    }
}
