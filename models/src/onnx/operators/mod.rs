//! The operators that graphs are made of: ONNX's own, of versions 7 to 25, by name.
//!
//! Each checks its inputs before it gives them to the tensor library, whose kernels believe what they are told.

use candle_core::Tensor;

use super::{fault::Outcome, graph::Node};

mod arithmetic;
mod call;
mod convolution;
mod dense;
mod einsum;
mod elementwise;
mod gather;
mod host;
mod make;
mod normalization;
mod pad;
mod planes;
mod pool;
mod product;
mod random;
mod recurrent;
mod reduction;
mod resize;
mod shape;
mod slice;
mod window;

pub(super) use call::{Call, axis, broadcast_dims, floats as floats_of, ints as ints_of, is_float};
pub(super) use convolution::{ADDED, Transposed};
pub(super) use einsum::Equation;
pub(super) use elementwise::holds;
pub(super) use gather::gathered;
pub(super) use pad::{pad_dims, padded_sides};
pub(super) use product::product_dims;
pub(super) use reduction::{reduced_axes, reduced_dims};
pub(super) use resize::{Resize, resized_dims};
pub(super) use shape::{flattened, permutation, reshaped, sizes, squeezed, tiled, told, unsqueezed};
pub(super) use slice::{cut_dims, cuts, joined, parts};
pub(super) use window::Window;

/// How an operator is run.
pub(super) enum Kernel {
    /// Outputs from inputs.
    Compute(fn(&Call<'_>) -> Outcome<Vec<Tensor>>),
    /// One of two bodies.
    If,
    /// A body again and again.
    Loop,
}

/// One operator.
pub(super) struct Operator {
    pub(super) name: &'static str,
    /// Inputs that it needs.
    least_inputs: usize,
    pub(super) kernel: Kernel,
}

use Kernel::Compute;

macro_rules! operators {
    ($($name:literal $inputs:literal $kernel:expr;)*) => {
        &[$(Operator { name: $name, least_inputs: $inputs, kernel: $kernel }),*]
    };
}

impl Operator {
    /// Whether the same inputs give the same outputs.
    pub(super) fn is_function(&self) -> bool {
        !self.name.starts_with("Random")
    }
}

/// All operators, by name.
static OPERATORS: &[Operator] = operators! {
    "Abs" 1 Compute(elementwise::absolute);
    "Add" 2 Compute(arithmetic::add);
    "And" 2 Compute(arithmetic::and);
    "ArgMax" 1 Compute(reduction::position_of_maximum);
    "ArgMin" 1 Compute(reduction::position_of_minimum);
    "AveragePool" 1 Compute(pool::average_pool);
    "BatchNormalization" 5 Compute(normalization::batch);
    "Cast" 1 Compute(make::cast);
    "CastLike" 2 Compute(make::cast_like);
    "Ceil" 1 Compute(elementwise::ceiling);
    "Celu" 1 Compute(elementwise::celu);
    "Clip" 1 Compute(elementwise::clip);
    "Concat" 1 Compute(slice::concat);
    "Constant" 0 Compute(make::constant);
    "ConstantOfShape" 1 Compute(make::constant_of_shape);
    "Conv" 2 Compute(convolution::convolution);
    "ConvTranspose" 2 Compute(convolution::transposed);
    "Cos" 1 Compute(elementwise::cosine);
    "CumSum" 2 Compute(reduction::running_sum);
    "DepthToSpace" 1 Compute(pool::depth_to_space);
    "Div" 2 Compute(arithmetic::divide);
    "Dropout" 1 Compute(elementwise::dropout);
    "Einsum" 1 Compute(einsum::einsum);
    "Elu" 1 Compute(elementwise::elu);
    "Equal" 2 Compute(arithmetic::equal);
    "Erf" 1 Compute(elementwise::error_function);
    "Exp" 1 Compute(elementwise::exponential);
    "Expand" 2 Compute(shape::expand);
    "EyeLike" 1 Compute(make::eye_like);
    "Flatten" 1 Compute(shape::flatten);
    "Floor" 1 Compute(elementwise::floor);
    "GRU" 3 Compute(recurrent::gru);
    "Gather" 2 Compute(gather::gather);
    "GatherElements" 2 Compute(gather::gather_elements);
    "GatherND" 2 Compute(gather::gather_tuples);
    "Gelu" 1 Compute(elementwise::gelu);
    "Gemm" 2 Compute(product::gemm);
    "GlobalAveragePool" 1 Compute(pool::global_average_pool);
    "GlobalMaxPool" 1 Compute(pool::global_max_pool);
    "Greater" 2 Compute(arithmetic::greater);
    "GreaterOrEqual" 2 Compute(arithmetic::greater_or_equal);
    "GroupNormalization" 3 Compute(normalization::group);
    "HardSigmoid" 1 Compute(elementwise::hard_sigmoid);
    "HardSwish" 1 Compute(elementwise::hard_swish);
    "Hardmax" 1 Compute(normalization::hardmax);
    "Identity" 1 Compute(elementwise::identity);
    "If" 1 Kernel::If;
    "InstanceNormalization" 3 Compute(normalization::instance);
    "IsInf" 1 Compute(elementwise::is_infinite);
    "IsNaN" 1 Compute(elementwise::is_nan);
    "LSTM" 3 Compute(recurrent::lstm);
    "LayerNormalization" 2 Compute(normalization::layer);
    "LeakyRelu" 1 Compute(elementwise::leaky_rectify);
    "Less" 2 Compute(arithmetic::less);
    "LessOrEqual" 2 Compute(arithmetic::less_or_equal);
    "Log" 1 Compute(elementwise::logarithm);
    "LogSoftmax" 1 Compute(normalization::log_softmax);
    "Loop" 1 Kernel::Loop;
    "LpNormalization" 1 Compute(normalization::lp);
    "MatMul" 2 Compute(product::matmul);
    "Max" 1 Compute(arithmetic::maximum);
    "MaxPool" 1 Compute(pool::max_pool);
    "Mean" 1 Compute(arithmetic::mean);
    "Min" 1 Compute(arithmetic::minimum);
    "Mish" 1 Compute(elementwise::mish);
    "Mod" 2 Compute(arithmetic::modulo);
    "Mul" 2 Compute(arithmetic::multiply);
    "Neg" 1 Compute(elementwise::negate);
    "NonZero" 1 Compute(make::nonzero);
    "Not" 1 Compute(elementwise::not);
    "OneHot" 3 Compute(make::one_hot);
    "Or" 2 Compute(arithmetic::or);
    "PRelu" 2 Compute(elementwise::parametric_rectify);
    "Pad" 1 Compute(pad::pad);
    "Pow" 2 Compute(arithmetic::power);
    "RMSNormalization" 2 Compute(normalization::root_mean_square);
    "RNN" 3 Compute(recurrent::plain);
    "RandomNormal" 0 Compute(random::normal);
    "RandomUniform" 0 Compute(random::uniform);
    "Range" 3 Compute(make::range);
    "Reciprocal" 1 Compute(elementwise::reciprocal);
    "ReduceL1" 1 Compute(reduction::l1);
    "ReduceL2" 1 Compute(reduction::l2);
    "ReduceLogSum" 1 Compute(reduction::log_of_sum);
    "ReduceLogSumExp" 1 Compute(reduction::log_of_sum_of_exponentials);
    "ReduceMax" 1 Compute(reduction::maximum);
    "ReduceMean" 1 Compute(reduction::mean);
    "ReduceMin" 1 Compute(reduction::minimum);
    "ReduceProd" 1 Compute(reduction::product);
    "ReduceSum" 1 Compute(reduction::sum);
    "ReduceSumSquare" 1 Compute(reduction::sum_of_squares);
    "Relu" 1 Compute(elementwise::rectify);
    "Reshape" 2 Compute(shape::reshape);
    "Resize" 1 Compute(resize::resize);
    "Round" 1 Compute(elementwise::round);
    "ScatterElements" 3 Compute(gather::scatter_elements);
    "ScatterND" 3 Compute(gather::scatter_tuples);
    "Selu" 1 Compute(elementwise::selu);
    "Shape" 1 Compute(shape::shape);
    "Sigmoid" 1 Compute(elementwise::sigmoid);
    "Sign" 1 Compute(elementwise::sign);
    "Sin" 1 Compute(elementwise::sine);
    "Size" 1 Compute(shape::count);
    "Slice" 1 Compute(slice::slice);
    "Softmax" 1 Compute(normalization::softmax);
    "Softplus" 1 Compute(elementwise::softplus);
    "Softsign" 1 Compute(elementwise::softsign);
    "SpaceToDepth" 1 Compute(pool::space_to_depth);
    "Split" 1 Compute(slice::split);
    "Sqrt" 1 Compute(elementwise::square_root);
    "Squeeze" 1 Compute(shape::squeeze);
    "Sub" 2 Compute(arithmetic::subtract);
    "Sum" 1 Compute(arithmetic::sum);
    "Tanh" 1 Compute(elementwise::hyperbolic_tangent);
    "ThresholdedRelu" 1 Compute(elementwise::thresholded_rectify);
    "Tile" 2 Compute(shape::tile);
    "TopK" 1 Compute(reduction::top);
    "Transpose" 1 Compute(shape::transpose);
    "Trilu" 1 Compute(make::triangle);
    "Unsqueeze" 1 Compute(shape::unsqueeze);
    "Upsample" 1 Compute(resize::resize);
    "Where" 3 Compute(elementwise::select);
    "Xor" 2 Compute(arithmetic::xor);
};

/// A product whose node holds its weight.
pub(super) static DENSE: Operator = Operator { name: "a dense layer", least_inputs: 1, kernel: Compute(dense::dense) };

/// The operator of this name.
pub(super) fn find(name: &str) -> Option<&'static Operator> {
    let found = OPERATORS.binary_search_by(|operator| operator.name.cmp(name)).ok()?;
    OPERATORS.get(found)
}

/// Refuses a node that lacks inputs, or asks for something that its operator does not do here.
pub(super) fn check(node: &Node) -> Result<(), String> {
    let (least, given) = (node.operator.least_inputs, node.inputs.len());
    if given < least || node.inputs.iter().take(least).any(Option::is_none) {
        return Err(format!("it needs {least} inputs, {given} are given"));
    }
    match node.operator.name {
        "Einsum" => einsum::check(node),
        "GRU" | "LSTM" | "RNN" => recurrent::check(node),
        "MaxPool" => pool::refuse_indices(node),
        "Resize" | "Upsample" => resize::check(node),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_in_order_and_found() {
        assert!(OPERATORS.is_sorted_by(|a, b| a.name < b.name));
        assert!(OPERATORS.iter().all(|operator| find(operator.name).is_some_and(|found| found.name == operator.name)));
        assert!(find("Nonsense").is_none() && find("").is_none());
    }
}
