//! Which of a pickle's values are the model's tensors, and their names.

use std::collections::HashSet;

use orion_proto::{Error, Result};

use super::pickle::{Pickle, TensorPlace, Value};

/// What training scripts call the weights that lie beside an optimizer's state.
const KNOWN: [&str; 4] = ["model_state_dict", "state_dict", "model", "module"];
/// Containers in containers, so deep.
const DEEPEST: usize = 16;
/// Bytes of all names together: keys that many paths share could make them of any length.
const MOST_NAME_BYTES: usize = 16 << 20;

/// The tensors that were chosen.
#[derive(Debug)]
pub(super) struct Chosen<'p> {
    /// In the file's order, each with its name.
    pub(super) tensors: Vec<(String, &'p TensorPlace<'p>)>,
    /// The key below which they lie; none where the root holds them.
    pub(super) key: Option<String>,
    /// Keys beside it that hold tensors too.
    pub(super) left_out: Vec<String>,
}

/// The tensors below `key`; where none is named, all, if the root holds some itself, else those below the one key that is
/// known to hold weights or is the only one that holds tensors.
///
/// # Errors
/// INVALID_ARGUMENT where there are none, or where it must be said which.
pub(super) fn choose<'p>(pickle: &'p Pickle<'p>, key: Option<&str>) -> Result<Chosen<'p>> {
    let Value::Dict(_) = pickle.root else {
        return Err(Error::invalid(format!("it holds {} where a dict of tensors must be", pickle.root.kind())));
    };
    let root = pickle.dict(pickle.root);
    if key.is_none() && root.iter().any(|pair| matches!(pair.1, Value::Tensor(_))) {
        let tensors = Flattening::new(pickle).tensors(pickle.root)?;
        return Ok(Chosen { tensors, key: None, left_out: Vec::new() });
    }
    let mut flattening = Flattening::new(pickle);
    let mut holders = Vec::new();
    for &(name, value) in root {
        let tensors = flattening.tensors(value)?;
        if let (Value::Text(name), false) = (name, tensors.is_empty()) {
            holders.push((name, tensors));
        }
    }
    let listed = || holders.iter().map(|holder| format!("'{}'", holder.0)).take(16).collect::<Vec<_>>().join(", ");
    let is_there = |name: &str| holders.iter().position(|holder| holder.0 == name);
    let chosen = match (key, &holders[..]) {
        (_, []) => return Err(Error::invalid("it holds no tensors")),
        (Some(key), _) => is_there(key).ok_or_else(|| format!("no tensors are below key '{key}', they are below")),
        (None, [_]) => Ok(0),
        (None, _) => KNOWN.iter().find_map(|known| is_there(known)).ok_or_else(|| "name one of its keys".to_owned()),
    };
    let chosen = chosen.map_err(|reason| Error::invalid(format!("{reason}: {}", listed())))?;
    let (key, tensors) = holders.swap_remove(chosen);
    let left_out = holders.iter().map(|holder| holder.0.to_owned()).collect();
    Ok(Chosen { tensors, key: Some(key.to_owned()), left_out })
}

/// Walks containers, each once, whatever refers to it: one that holds itself ends there, and so does one that doubles.
struct Flattening<'p> {
    pickle: &'p Pickle<'p>,
    seen: HashSet<(bool, usize)>,
    name_bytes: usize,
}

impl<'p> Flattening<'p> {
    fn new(pickle: &'p Pickle<'p>) -> Self {
        Self { pickle, seen: HashSet::new(), name_bytes: 0 }
    }

    /// The tensors in a value, named by the keys to it, joined with full stops. What is no tensor is left out.
    fn tensors(&mut self, root: Value<'p>) -> Result<Vec<(String, &'p TensorPlace<'p>)>> {
        let (mut found, mut names) = (Vec::new(), HashSet::new());
        let mut open = vec![(String::new(), root, 0)];
        while let Some((name, value, depth)) = open.pop() {
            if let Value::Tensor(at) = value {
                if !names.insert(name.clone()) {
                    return Err(Error::invalid(format!("tensor '{name}' is there twice")));
                }
                found.extend(self.pickle.tensor(at).map(|place| (name, place)));
                continue;
            }
            if depth == DEEPEST {
                return Err(Error::invalid(format!("'{name}' is more than {DEEPEST} containers deep")));
            }
            for (key, child) in self.children(value).into_iter().rev() {
                let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                self.name_bytes += name.len();
                if self.name_bytes > MOST_NAME_BYTES {
                    return Err(Error::invalid(format!("its tensors' names take more than {MOST_NAME_BYTES} bytes")));
                }
                open.push((name, child, depth + 1));
            }
        }
        Ok(found)
    }

    /// The tensors and containers in a container that was not seen before.
    fn children(&mut self, value: Value<'p>) -> Vec<(String, Value<'p>)> {
        let holds =
            |child: &Value<'p>| matches!(child, Value::Tensor(_) | Value::Dict(_) | Value::List(_) | Value::Tuple(_));
        match value {
            Value::Dict(at) if self.seen.insert((true, at)) => {
                let pairs = self.pickle.dict(value).iter().filter(|pair| holds(&pair.1));
                let named = pairs.filter_map(|&(key, child)| match key {
                    Value::Text(key) => Some((key.to_owned(), child)),
                    Value::Int(key) => Some((key.to_string(), child)),
                    _ => None,
                });
                named.collect()
            }
            Value::List(at) | Value::Tuple(at) if self.seen.insert((false, at)) => {
                let items = self.pickle.sequence(value).iter().enumerate();
                items.filter(|item| holds(item.1)).map(|(index, &child)| (index.to_string(), child)).collect()
            }
            _ => Vec::new(),
        }
    }
}
