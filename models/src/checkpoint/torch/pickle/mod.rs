//! A pickle reader that can build tensors and the plain values around them, and nothing else.
//!
//! A pickle is a program: it may name any function of Python's and call it. Here the few names that PyTorch's checkpoints
//! need are built in, any other is refused by its name, and nothing of the file is ever run. The opcodes are those of
//! CPython's `pickletools`, protocols 2 to 5.

mod cursor;
mod global;
mod machine;
mod opcode;
mod rebuild;
mod value;

pub(super) use machine::{Pickle, unpickle};
pub(super) use value::{StorageName, TensorPlace, Value};
