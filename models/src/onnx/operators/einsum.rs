//! Sums of products over named dimensions: pairs of inputs, one after the other, as products of matrices.

use candle_core::Tensor;

use super::{
    super::fault::{Outcome, refused},
    call::Call,
    product::product,
};

/// The letters of each input's dimensions and of the output's.
pub(in crate::onnx) struct Equation {
    pub(in crate::onnx) inputs: Vec<Vec<char>>,
    pub(in crate::onnx) output: Vec<char>,
}

impl Equation {
    /// From its text, such as `bij,bjk->bik`. Without an arrow the output has the letters that stand once, in order.
    ///
    /// # Errors
    /// A letter twice in one place, an output's letter that no input has, an ellipsis.
    pub(in crate::onnx) fn read(text: &str) -> Result<Self, String> {
        let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let (left, right) = text.split_once("->").map_or((text.as_str(), None), |(left, right)| (left, Some(right)));
        let inputs: Vec<Vec<char>> = left.split(',').map(|term| term.chars().collect()).collect();
        let output: Vec<char> = match right {
            Some(right) => right.chars().collect(),
            None => {
                let mut once: Vec<char> = left.chars().filter(|letter| left.matches(*letter).count() == 1).collect();
                once.retain(|letter| *letter != ',');
                once.sort_unstable();
                once
            }
        };
        let known = |letter: &char| inputs.iter().any(|input| input.contains(letter));
        let plain = |term: &Vec<char>| {
            term.iter().enumerate().all(|(at, letter)| letter.is_ascii_alphabetic() && !term[..at].contains(letter))
        };
        match inputs.iter().chain([&output]).all(plain) && output.iter().all(known) {
            true => Ok(Self { inputs, output }),
            false => Err(format!(
                "equation '{text}' is not served: each term must hold letters, each once, and the output's letters must be \
                 an input's"
            )),
        }
    }

    /// Letters that inputs from `from` on, or the output, still need.
    fn needed(&self, from: usize) -> Vec<char> {
        self.inputs[from.min(self.inputs.len())..].iter().flatten().chain(&self.output).copied().collect()
    }
}

/// A tensor whose dimensions have letters.
struct Lettered {
    tensor: Tensor,
    letters: Vec<char>,
}

impl Lettered {
    fn size(&self, letter: char) -> Option<usize> {
        self.letters.iter().position(|known| *known == letter).map(|at| self.tensor.dims()[at])
    }

    /// Its dimensions in this order.
    fn ordered(&self, letters: &[char]) -> Outcome<Tensor> {
        let order = letters.iter().filter_map(|letter| self.letters.iter().position(|known| known == letter));
        Ok(self.tensor.permute(order.collect::<Vec<_>>())?)
    }

    /// Without the letters that nobody needs, which are summed over.
    fn keeping(self, needed: &[char]) -> Outcome<Self> {
        let gone = |letter: &char| !needed.contains(letter);
        let axes: Vec<usize> = (0..self.letters.len()).filter(|&at| gone(&self.letters[at])).collect();
        let letters = self.letters.iter().copied().filter(|letter| !gone(letter)).collect();
        Ok(Self { tensor: if axes.is_empty() { self.tensor } else { self.tensor.sum(axes)? }, letters })
    }
}

/// The product of two, summed over the letters that only they have.
fn pair(call: &Call<'_>, left: Lettered, right: Lettered, later: &[char]) -> Outcome<Lettered> {
    let both = |letter: &&char| right.letters.contains(letter);
    let shared: Vec<char> = left.letters.iter().filter(both).copied().collect();
    for &letter in &shared {
        if left.size(letter) != right.size(letter) {
            return Err(refused!(
                "dimension '{letter}' has {:?} elements here and {:?} there",
                left.size(letter),
                right.size(letter)
            ));
        }
    }
    let of = |letters: &[char], keep: &dyn Fn(&char) -> bool| {
        letters.iter().copied().filter(|l| keep(l)).collect::<Vec<_>>()
    };
    let batch = of(&shared, &|letter| later.contains(letter));
    let inner = of(&shared, &|letter| !later.contains(letter));
    let (rows, columns) = (of(&left.letters, &|l| !shared.contains(l)), of(&right.letters, &|l| !shared.contains(l)));
    let volume = |side: &Lettered, letters: &[char]| letters.iter().filter_map(|&l| side.size(l)).product::<usize>();
    let (count, depth) = (volume(&left, &batch), volume(&left, &inner));
    let (height, width) = (volume(&left, &rows), volume(&right, &columns));
    let a = left.ordered(&[batch.as_slice(), &rows, &inner].concat())?.reshape((count, height, depth))?;
    let b = right.ordered(&[batch.as_slice(), &inner, &columns].concat())?.reshape((count, depth, width))?;
    let letters = [batch, rows, columns].concat();
    let dims: Vec<usize> = letters.iter().filter_map(|&l| left.size(l).or_else(|| right.size(l))).collect();
    Ok(Lettered { tensor: product(call, &a, &b)?.reshape(dims)?, letters })
}

/// Refuses an equation that is not served.
pub(super) fn check(node: &super::super::graph::Node) -> Result<(), String> {
    Equation::read(node.attributes.text("equation", "")?).map(drop)
}

pub(super) fn einsum(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let equation = Equation::read(call.attributes().text("equation", "")?)?;
    let lettered = |index: usize| -> Outcome<Lettered> {
        let (tensor, letters) = (call.float(index)?, equation.inputs[index].clone());
        match tensor.rank() == letters.len() {
            true => Ok(Lettered { tensor: tensor.clone(), letters }),
            false => Err(refused!("its input {index} has shape {:?} for {} letters", tensor.dims(), letters.len())),
        }
    };
    if call.inputs.len() != equation.inputs.len() {
        return Err(refused!("it has {} inputs for {} terms", call.inputs.len(), equation.inputs.len()));
    }
    let mut total = lettered(0)?.keeping(&equation.needed(1))?;
    for index in 1..call.inputs.len() {
        let later = equation.needed(index + 1);
        let needed: Vec<char> = later.iter().chain(&total.letters).copied().collect();
        total = pair(call, total, lettered(index)?.keeping(&needed)?, &later)?.keeping(&later)?;
    }
    Ok(vec![total.ordered(&equation.output)?])
}
