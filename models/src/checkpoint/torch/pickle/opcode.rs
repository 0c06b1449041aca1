//! The opcodes, by what they do.

use orion_proto::Result;

use super::{
    global::Global,
    machine::{Machine, broken},
    value::Value,
};

impl<'p> Machine<'p> {
    /// Carries out the next opcode; at the last, gives the root.
    pub(super) fn step(&mut self) -> Result<Option<Value<'p>>> {
        let at = self.cursor.at();
        let code = self.cursor.byte()?;
        if code == b'.' {
            return self.pop().map(Some);
        }
        let value = match self.literal(code)? {
            Some(value) => Some(value),
            None => self.built(code)?,
        };
        match value {
            Some(value) => self.stack.push(value),
            None if self.change(code)? => {}
            None => return Err(broken(format!("opcode {code:#04x} at byte {at} is not one that a checkpoint needs"))),
        }
        Ok(None)
    }

    /// The value that stands in the pickle behind the opcode.
    fn literal(&mut self, code: u8) -> Result<Option<Value<'p>>> {
        Ok(Some(match code {
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
            b'X' | 0x8c | 0x8d | b'U' | b'T' => {
                let length = self.length(code)?;
                Value::Text(self.cursor.text(length)?)
            }
            b'G' | b'B' | b'C' | 0x8e => {
                let length = self.length(code)?;
                self.cursor.take(length)?;
                Value::Opaque
            }
            b'c' => {
                let module = self.cursor.line()?;
                Value::Global(Global::find(module, self.cursor.line()?)?)
            }
            _ => return Ok(None),
        }))
    }

    /// The length that stands behind an opcode.
    fn length(&mut self, code: u8) -> Result<usize> {
        match code {
            b'G' => Ok(8),
            0x8c | b'U' | b'C' => self.cursor.byte().map(usize::from),
            0x8d | 0x8e => self.cursor.length(),
            _ => self.cursor.u32().map(|length| length as usize),
        }
    }

    /// The value that the opcode makes, of values on the stack or of none.
    fn built(&mut self, code: u8) -> Result<Option<Value<'p>>> {
        Ok(Some(match code {
            b'}' => self.new_dict(Vec::new()),
            b']' => Value::List(self.new_sequence(Vec::new())),
            b')' => Value::Tuple(self.new_sequence(Vec::new())),
            0x85..=0x87 => self.tuple(usize::from(code) - 0x84)?,
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
            _ => return Ok(None),
        }))
    }

    /// An opcode that pushes nothing; whether it is one.
    fn change(&mut self, code: u8) -> Result<bool> {
        match code {
            0x80 => match self.cursor.byte()? {
                0..=5 => {}
                protocol => return Err(broken(format!("protocol {protocol} is unknown, it must be 2 to 5"))),
            },
            // A frame's length: it only helps to read ahead.
            0x95 => {
                self.cursor.length()?;
            }
            // It would call what it names, which a refusal is to say.
            b'i' => {
                let module = self.cursor.line()?;
                Global::find(module, self.cursor.line()?)?;
                return Ok(false);
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
            b'b' => self.set_attributes()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A state dict's attributes (`_metadata`): nothing in them is needed.
    fn set_attributes(&mut self) -> Result<()> {
        self.pop()?;
        match self.top()? {
            Value::Dict(_) => Ok(()),
            other => Err(broken(format!("it sets attributes of {}, only a dict may have them", other.kind()))),
        }
    }
}
