//! What a pickle builds.

use super::global::Global;
use crate::checkpoint::Element;

/// A value on the machine's stack. Containers are numbers in [`Nodes`], so that one may be changed through any of its
/// copies, as in Python, and a container that holds itself needs no care.
#[derive(Clone, Copy, Debug)]
pub(in crate::checkpoint::torch) enum Value<'p> {
    None,
    Bool(bool),
    Int(i64),
    /// A float or bytes, which nothing here reads.
    Opaque,
    Text(&'p str),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

/// Which storage of the file, as its persistent id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint::torch) struct StorageName<'p> {
    /// Its name in the file.
    pub(in crate::checkpoint::torch) key: &'p str,
    pub(in crate::checkpoint::torch) element: Element,
    /// Its elements.
    pub(in crate::checkpoint::torch) count: usize,
}

/// A tensor in a storage, as the pickle says and nobody has checked.
#[derive(Clone, Debug)]
pub(in crate::checkpoint::torch) struct TensorPlace<'p> {
    pub(in crate::checkpoint::torch) storage: StorageName<'p>,
    /// Elements from the storage's begin.
    pub(in crate::checkpoint::torch) offset: usize,
    pub(in crate::checkpoint::torch) shape: Vec<usize>,
    pub(in crate::checkpoint::torch) strides: Vec<usize>,
}

/// Everything that a pickle has built, by number.
#[derive(Debug, Default)]
pub(super) struct Nodes<'p> {
    /// Tuples and lists.
    pub(super) sequences: Vec<Vec<Value<'p>>>,
    pub(super) dicts: Vec<Vec<(Value<'p>, Value<'p>)>>,
    pub(super) storages: Vec<StorageName<'p>>,
    pub(super) tensors: Vec<TensorPlace<'p>>,
    /// Bytes of memory that the containers' and tensors' own lists take.
    inner: usize,
}

/// What an allocation takes beside its bytes.
const ALLOCATION: usize = 16;

impl Nodes<'_> {
    /// Counts a list of items of `size` bytes whose room went from `before` items to `after`.
    pub(super) fn grew(&mut self, before: usize, after: usize, size: usize) {
        let first = if before == 0 && after > 0 { ALLOCATION } else { 0 };
        self.inner += (after - before) * size + first;
    }

    /// Bytes of memory that were taken.
    pub(super) fn held(&self) -> usize {
        fn list<T>(list: &Vec<T>) -> usize {
            list.capacity() * size_of::<T>()
        }
        self.inner + list(&self.sequences) + list(&self.dicts) + list(&self.storages) + list(&self.tensors)
    }
}

impl Value<'_> {
    /// What it is, for errors.
    pub(in crate::checkpoint::torch) fn kind(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a whole number",
            Self::Opaque => "a float or bytes",
            Self::Text(_) => "text",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a name",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}
