//! The names that a pickle may use.

use orion_proto::Result;

use super::machine::broken;
use crate::checkpoint::Element;

/// What a permitted name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint::torch) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

const PERMITTED: [(&str, &str, Global); 13] = [
    ("collections", "OrderedDict", Global::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Global::RebuildParameter),
    ("torch", "BoolStorage", Global::Storage(Element::Bool)),
    ("torch", "ByteStorage", Global::Storage(Element::U8)),
    ("torch", "CharStorage", Global::Storage(Element::I8)),
    ("torch", "ShortStorage", Global::Storage(Element::I16)),
    ("torch", "IntStorage", Global::Storage(Element::I32)),
    ("torch", "LongStorage", Global::Storage(Element::I64)),
    ("torch", "HalfStorage", Global::Storage(Element::F16)),
    ("torch", "BFloat16Storage", Global::Storage(Element::Bf16)),
    ("torch", "FloatStorage", Global::Storage(Element::F32)),
    ("torch", "DoubleStorage", Global::Storage(Element::F64)),
];

impl Global {
    /// The permitted name, or a refusal that says it.
    pub(super) fn find(module: &str, name: &str) -> Result<Self> {
        let found = PERMITTED.iter().find(|row| row.0 == module && row.1 == name);
        found.map(|row| row.2).ok_or_else(|| {
            let shown: String = format!("{module}.{name}").chars().take(128).collect();
            broken(format!("it names '{shown}'; only tensors and plain containers are built, nothing of a file is run"))
        })
    }
}
