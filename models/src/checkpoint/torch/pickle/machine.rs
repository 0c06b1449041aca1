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

/// Reads the pickle that `bytes` begins with.
///
/// # Errors
/// INVALID_ARGUMENT saying what is wrong with it; the caller names the file.
pub(in crate::checkpoint::torch) fn unpickle(bytes: &[u8]) -> Result<Pickle<'_>> {
    let mut machine = Machine { cursor: Cursor::new(bytes), ..Machine::empty() };
    for _ in 0..MOST_STEPS {
        if let Some(root) = machine.step()? {
            return Ok(Pickle { root, length: machine.cursor.at(), nodes: machine.nodes });
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
    cursor: Cursor<'p>,
    stack: Vec<Value<'p>>,
    /// Where on the stack each mark stands.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'p>>,
    /// Values that were copied, beside one a step.
    copied: usize,
    pub(super) nodes: Nodes<'p>,
}

impl<'p> Machine<'p> {
    fn empty() -> Self {
        Self {
            cursor: Cursor::new(&[]),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
            nodes: Nodes::default(),
        }
    }

    /// One opcode; the root at the last.
    fn step(&mut self) -> Result<Option<Value<'p>>> {
        let at = self.cursor.at();
        let value = match self.cursor.byte()? {
            b'.' => return self.pop().map(Some),
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.cursor.array()?))),
            b'K' => Value::Int(i64::from(self.cursor.byte()?)),
            b'M' => Value::Int(i64::from(self.cursor.u16()?)),
            0x8a => {
                let length = usize::from(self.cursor.byte()?);
                Value::Int(self.cursor.long(length)?)
            }
            code @ (b'X' | 0x8c | 0x8d | b'U' | b'T') => {
                let length = self.length(code)?;
                Value::Text(self.cursor.text(length)?)
            }
            code @ (b'G' | b'B' | b'C' | 0x8e) => {
                let length = self.length(code)?;
                self.cursor.take(length)?;
                Value::Opaque
            }
            b'}' => self.new_dict(Vec::new()),
            b']' => Value::List(self.new_sequence(Vec::new())),
            b')' => Value::Tuple(self.new_sequence(Vec::new())),
            code @ 0x85..=0x87 => self.tuple(usize::from(code) - 0x84)?,
            b't' => {
                let items = self.pop_to_mark()?;
                Value::Tuple(self.new_sequence(items))
            }
            b'h' => {
                let index = u32::from(self.cursor.byte()?);
                self.recall(index)?
            }
            b'j' => {
                let index = self.cursor.u32()?;
                self.recall(index)?
            }
            b'c' => {
                let module = self.cursor.line()?;
                Value::Global(Global::find(module, self.cursor.line()?)?)
            }
            0x93 => self.stack_global()?,
            b'Q' => {
                let id = self.pop()?;
                self.storage(id)?
            }
            b'R' => {
                let arguments = self.pop()?;
                let called = self.pop()?;
                self.call(called, arguments)?
            }
            code => return self.change(code, at).map(|()| None),
        };
        self.stack.push(value);
        Ok(None)
    }

    /// An opcode that pushes nothing.
    fn change(&mut self, code: u8, at: usize) -> Result<()> {
        match code {
            0x80 => match self.cursor.byte()? {
                0..=5 => {}
                protocol => return Err(broken(format!("protocol {protocol} is unknown, it must be 2 to 5"))),
            },
            0x95 => {
                self.cursor.length()?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'q' => {
                let index = u32::from(self.cursor.byte()?);
                self.remember(index)?;
            }
            b'r' => {
                let index = self.cursor.u32()?;
                self.remember(index)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'b' => {
                // A state dict's attributes (`_metadata`): nothing in them is needed.
                self.pop()?;
                match self.top()? {
                    Value::Dict(_) => {}
                    other => {
                        return Err(broken(format!(
                            "it sets attributes of {}, only a dict may have them",
                            other.kind()
                        )));
                    }
                }
            }
            code => return Err(broken(format!("opcode {code:#04x} at byte {at} is not one that a checkpoint needs"))),
        }
        Ok(())
    }

    /// The length that stands after an opcode.
    fn length(&mut self, code: u8) -> Result<usize> {
        match code {
            b'G' => Ok(8),
            0x8c | b'U' | b'C' => self.cursor.byte().map(usize::from),
            0x8d | 0x8e => self.cursor.length(),
            _ => self.cursor.u32().map(|length| length as usize),
        }
    }

    fn top(&self) -> Result<Value<'p>> {
        // What lies below the mark belongs to whoever set it.
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack
            .get(floor..)
            .and_then(<[_]>::last)
            .copied()
            .ok_or_else(|| broken("it takes a value that is not there"))
    }

    fn pop(&mut self) -> Result<Value<'p>> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'p>>> {
        let mark = self.marks.pop().ok_or_else(|| broken("it goes back to a mark that is not there"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn remember(&mut self, index: u32) -> Result<()> {
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&self, index: u32) -> Result<Value<'p>> {
        self.memo.get(&index).copied().ok_or_else(|| broken(format!("it recalls value {index}, which it never kept")))
    }

    pub(super) fn new_sequence(&mut self, items: Vec<Value<'p>>) -> usize {
        self.nodes.sequences.push(items);
        self.nodes.sequences.len() - 1
    }

    pub(super) fn new_dict(&mut self, pairs: Vec<(Value<'p>, Value<'p>)>) -> Value<'p> {
        self.nodes.dicts.push(pairs);
        Value::Dict(self.nodes.dicts.len() - 1)
    }

    /// Counts values that are copied from what was built before.
    pub(super) fn count_copied(&mut self, values: usize) {
        self.copied = self.copied.saturating_add(values);
    }

    fn tuple(&mut self, length: usize) -> Result<Value<'p>> {
        let mut items = vec![Value::None; length];
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        Ok(Value::Tuple(self.new_sequence(items)))
    }

    fn stack_global(&mut self) -> Result<Value<'p>> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (module, name) {
            (Value::Text(module), Value::Text(name)) => Ok(Value::Global(Global::find(module, name)?)),
            _ => Err(broken("it names something by what is not text")),
        }
    }

    fn append(&mut self, mut items: Vec<Value<'p>>) -> Result<()> {
        match self.top()? {
            Value::List(at) => {
                if let Some(list) = self.nodes.sequences.get_mut(at) {
                    list.append(&mut items);
                }
                Ok(())
            }
            other => Err(broken(format!("it appends to {}, not to a list", other.kind()))),
        }
    }

    fn set_items(&mut self, items: &[Value<'p>]) -> Result<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            Value::Dict(at) if rest.is_empty() => {
                if let Some(dict) = self.nodes.dicts.get_mut(at) {
                    dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                }
                Ok(())
            }
            Value::Dict(_) => Err(broken("it sets a key without a value")),
            other => Err(broken(format!("it sets keys of {}, not of a dict", other.kind()))),
        }
    }
}
