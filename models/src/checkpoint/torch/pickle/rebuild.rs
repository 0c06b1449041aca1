//! What the permitted names do when they are called.

use orion_proto::Result;

use super::{
    global::Global,
    machine::{Machine, broken},
    value::{StorageName, TensorPlace, Value},
};

/// More than any tensor has.
const MOST_DIMENSIONS: usize = 64;

impl<'p> Machine<'p> {
    /// `called(*arguments)`.
    pub(super) fn call(&mut self, called: Value<'p>, arguments: Value<'p>) -> Result<Value<'p>> {
        let Value::Global(global) = called else {
            return Err(broken(format!("it calls {}", called.kind())));
        };
        let Value::Tuple(at) = arguments else {
            return Err(broken(format!("it calls with {} instead of a tuple", arguments.kind())));
        };
        let arguments: &[Value<'p>] = self.nodes.sequences.get(at).map_or(&[], Vec::as_slice);
        match (global, arguments) {
            (Global::OrderedDict, []) => Ok(self.new_dict(Vec::new())),
            (Global::OrderedDict, &[Value::List(items)]) => self.dict_of_pairs(items),
            (Global::RebuildTensor, &[Value::Storage(storage), Value::Int(offset), shape, strides, ..]) => {
                self.tensor(storage, offset, shape, strides)
            }
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), ..]) => Ok(tensor),
            (Global::OrderedDict | Global::RebuildTensor | Global::RebuildParameter, _) => {
                let kinds: Vec<&str> = arguments.iter().take(8).map(|argument| argument.kind()).collect();
                Err(broken(format!("it calls {global:?} with ({})", kinds.join(", "))))
            }
            (Global::Storage(element), _) => {
                Err(broken(format!("it makes a storage of {element} that is not in the file")))
            }
        }
    }

    /// The storage of a persistent id: `('storage', type, key, device, elements)`.
    pub(super) fn storage(&mut self, id: Value<'p>) -> Result<Value<'p>> {
        let Value::Tuple(at) = id else {
            return Err(broken(format!("a persistent id is {}, it must be a tuple", id.kind())));
        };
        let parts: &[Value<'p>] = self.nodes.sequences.get(at).map_or(&[], Vec::as_slice);
        let &[
            Value::Text("storage"),
            Value::Global(Global::Storage(element)),
            Value::Text(key),
            _,
            Value::Int(count),
            ..,
        ] = parts
        else {
            return Err(broken("a persistent id is not that of a storage"));
        };
        // Before PyTorch 0.4 one storage could be a part of another.
        if !matches!(parts.get(5..), Some([] | [Value::None])) {
            return Err(broken(format!("storage '{key}' is a part of another, which is not read")));
        }
        let count = usize::try_from(count).map_err(|_| broken(format!("storage '{key}' has {count} elements")))?;
        self.nodes.storages.push(StorageName { key, element, count });
        Ok(Value::Storage(self.nodes.storages.len() - 1))
    }

    fn dict_of_pairs(&mut self, items: usize) -> Result<Value<'p>> {
        let items: &[Value<'p>] = self.nodes.sequences.get(items).map_or(&[], Vec::as_slice);
        let pair = |item: &Value<'p>| match *item {
            Value::Tuple(at) | Value::List(at) => match self.nodes.sequences.get(at).map(Vec::as_slice) {
                Some(&[key, value]) => Some((key, value)),
                _ => None,
            },
            _ => None,
        };
        let pairs: Option<Vec<_>> = items.iter().map(pair).collect();
        let pairs = pairs.ok_or_else(|| broken("it makes a dict of what are not pairs"))?;
        self.count_copied(pairs.len());
        Ok(self.new_dict(pairs))
    }

    fn tensor(&mut self, storage: usize, offset: i64, shape: Value<'p>, strides: Value<'p>) -> Result<Value<'p>> {
        let (shape, strides) = (self.sizes(shape, "shape")?, self.sizes(strides, "strides")?);
        if shape.len() != strides.len() {
            return Err(broken(format!("a tensor has {} sizes and {} strides", shape.len(), strides.len())));
        }
        let offset = usize::try_from(offset).map_err(|_| broken(format!("a tensor has the offset {offset}")))?;
        let storage = *self.nodes.storages.get(storage).ok_or_else(|| broken("a tensor has no storage"))?;
        self.nodes.grew(0, shape.capacity() + strides.capacity(), size_of::<usize>());
        self.nodes.tensors.push(TensorPlace { storage, offset, shape, strides });
        Ok(Value::Tensor(self.nodes.tensors.len() - 1))
    }

    /// A tuple of whole numbers, none below 0.
    fn sizes(&mut self, value: Value<'p>, what: &str) -> Result<Vec<usize>> {
        let Value::Tuple(at) = value else {
            return Err(broken(format!("a tensor's {what} is {}, it must be a tuple", value.kind())));
        };
        let items: &[Value<'p>] = self.nodes.sequences.get(at).map_or(&[], Vec::as_slice);
        if items.len() > MOST_DIMENSIONS {
            return Err(broken(format!("a tensor has {} dimensions, at most {MOST_DIMENSIONS}", items.len())));
        }
        let size = |item: &Value<'p>| match item {
            Value::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        };
        let sizes: Option<Vec<usize>> = items.iter().map(size).collect();
        self.count_copied(items.len());
        sizes.ok_or_else(|| broken(format!("a tensor's {what} is not of whole numbers from 0 up")))
    }
}
