//! The stack machine that a pickle is written for.

use std::collections::HashMap;

use orion_proto::{Error, Result};

use super::{
    cursor::Cursor,
    global::Global,
    value::{Nodes, StorageName, TensorPlace, Value},
};

/// Opcodes, and values copied by one: what bounds the stack, the memo and all that is built. A checkpoint has about 20 for
/// each tensor.
const MOST_STEPS: usize = 1 << 21;
/// Memory that the values of any pickle may take beside as much as its file has: a file of a few tensors has less than they take.
const HELD_AT_LEAST: usize = 4 << 20;

/// A pickle that was read to its end.
#[derive(Debug)]
pub(in crate::checkpoint::torch) struct Pickle<'p> {
    /// What it describes.
    pub(in crate::checkpoint::torch) root: Value<'p>,
    /// Its bytes; others may follow.
    pub(in crate::checkpoint::torch) length: usize,
    nodes: Nodes<'p>,
}

impl<'p> Pickle<'p> {
    /// The values of a list or tuple.
    pub(in crate::checkpoint::torch) fn sequence(&self, value: Value<'p>) -> &[Value<'p>] {
        match value {
            Value::Tuple(at) | Value::List(at) => self.nodes.sequences.get(at).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }

    /// The pairs of a dict, in its order.
    pub(in crate::checkpoint::torch) fn dict(&self, value: Value<'p>) -> &[(Value<'p>, Value<'p>)] {
        match value {
            Value::Dict(at) => self.nodes.dicts.get(at).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }

    /// The tensor of that number.
    pub(in crate::checkpoint::torch) fn tensor(&self, at: usize) -> Option<&TensorPlace<'p>> {
        self.nodes.tensors.get(at)
    }

    /// Every storage that it names.
    pub(in crate::checkpoint::torch) fn storages(&self) -> &[StorageName<'p>] {
        &self.nodes.storages
    }
}

/// Reads the pickle that `bytes` begins with, in a file of `file_bytes`, which bound the memory that its values may take.
///
/// # Errors
/// INVALID_ARGUMENT saying what is wrong with it; the caller names the file.
pub(in crate::checkpoint::torch) fn unpickle(bytes: &[u8], file_bytes: usize) -> Result<Pickle<'_>> {
    let most_held = file_bytes.saturating_add(HELD_AT_LEAST);
    let mut machine = Machine::new(bytes);
    for _ in 0..MOST_STEPS {
        if let Some(root) = machine.step()? {
            return Ok(Pickle { root, length: machine.cursor.at(), nodes: machine.nodes });
        }
        let held = machine.held();
        if held > most_held {
            let at = machine.cursor.at();
            return Err(broken(format!(
                "up to byte {at} its values take {held} bytes in memory, at most {most_held} do"
            )));
        }
        if machine.copied > MOST_STEPS {
            break;
        }
    }
    Err(broken(format!("it has more than {MOST_STEPS} steps")))
}

/// A pickle that is not what PyTorch writes.
pub(super) fn broken(reason: impl std::fmt::Display) -> Error {
    Error::invalid(format!("its pickle cannot be read: {reason}"))
}

pub(super) struct Machine<'p> {
    pub(super) cursor: Cursor<'p>,
    pub(super) stack: Vec<Value<'p>>,
    /// Where on the stack each mark stands.
    pub(super) marks: Vec<usize>,
    pub(super) memo: HashMap<u32, Value<'p>>,
    /// Values that were copied, beside one a step.
    copied: usize,
    pub(super) nodes: Nodes<'p>,
}

impl<'p> Machine<'p> {
    fn new(bytes: &'p [u8]) -> Self {
        Self {
            cursor: Cursor::new(bytes),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
            nodes: Nodes::default(),
        }
    }

    /// Bytes of memory that were taken.
    fn held(&self) -> usize {
        // A hash table keeps at least an eighth of its places free, and a byte for each.
        let memo = self.memo.capacity() / 7 * 8 * (size_of::<(u32, Value<'p>)>() + 1);
        let stack = self.stack.capacity() * size_of::<Value<'p>>() + self.marks.capacity() * size_of::<usize>();
        memo + stack + self.nodes.held()
    }

    pub(super) fn top(&self) -> Result<Value<'p>> {
        // What lies below the mark belongs to whoever set it.
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack
            .get(floor..)
            .and_then(<[_]>::last)
            .copied()
            .ok_or_else(|| broken("it takes a value that is not there"))
    }

    pub(super) fn pop(&mut self) -> Result<Value<'p>> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    pub(super) fn pop_to_mark(&mut self) -> Result<Vec<Value<'p>>> {
        let mark = self.marks.pop().ok_or_else(|| broken("it goes back to a mark that is not there"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    pub(super) fn remember(&mut self, index: u32) -> Result<()> {
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }

    pub(super) fn recall(&self, index: u32) -> Result<Value<'p>> {
        self.memo.get(&index).copied().ok_or_else(|| broken(format!("it recalls value {index}, which it never kept")))
    }

    pub(super) fn new_sequence(&mut self, items: Vec<Value<'p>>) -> usize {
        self.nodes.grew(0, items.capacity(), size_of::<Value<'p>>());
        self.nodes.sequences.push(items);
        self.nodes.sequences.len() - 1
    }

    pub(super) fn new_dict(&mut self, pairs: Vec<(Value<'p>, Value<'p>)>) -> Value<'p> {
        self.nodes.grew(0, pairs.capacity(), size_of::<(Value<'p>, Value<'p>)>());
        self.nodes.dicts.push(pairs);
        Value::Dict(self.nodes.dicts.len() - 1)
    }

    /// Counts values that are copied from what was built before.
    pub(super) fn count_copied(&mut self, values: usize) {
        self.copied = self.copied.saturating_add(values);
    }

    pub(super) fn tuple(&mut self, length: usize) -> Result<Value<'p>> {
        let mut items = vec![Value::None; length];
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        Ok(Value::Tuple(self.new_sequence(items)))
    }

    pub(super) fn stack_global(&mut self) -> Result<Value<'p>> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (module, name) {
            (Value::Text(module), Value::Text(name)) => Ok(Value::Global(Global::find(module, name)?)),
            _ => Err(broken("it names something by what is not text")),
        }
    }

    pub(super) fn append(&mut self, mut items: Vec<Value<'p>>) -> Result<()> {
        match self.top()? {
            Value::List(at) => {
                if let Some(list) = self.nodes.sequences.get_mut(at) {
                    let before = list.capacity();
                    list.append(&mut items);
                    let after = list.capacity();
                    self.nodes.grew(before, after, size_of::<Value<'p>>());
                }
                Ok(())
            }
            other => Err(broken(format!("it appends to {}, not to a list", other.kind()))),
        }
    }

    pub(super) fn set_items(&mut self, items: &[Value<'p>]) -> Result<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            Value::Dict(at) if rest.is_empty() => {
                if let Some(dict) = self.nodes.dicts.get_mut(at) {
                    let before = dict.capacity();
                    dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                    let after = dict.capacity();
                    self.nodes.grew(before, after, size_of::<(Value<'p>, Value<'p>)>());
                }
                Ok(())
            }
            Value::Dict(_) => Err(broken("it sets a key without a value")),
            other => Err(broken(format!("it sets keys of {}, not of a dict", other.kind()))),
        }
    }
}
