//! An ONNX file before it is loaded: what it takes and gives, how its rows are batched, and what it will need.

use std::path::{Path, PathBuf};

use orion_proto::{ModelName, ModelPolicy, ModelSpec, Result, TensorSpec};

use super::{
    element::Element,
    evaluator::Limits,
    file::OnnxFile,
    graph::{Declared, Dimension, Graph},
    inference::{Inferred, infer},
};
use crate::{Precision, unservable};

/// Sizes that are tried for dimensions of which the file only says that they are open.
const TYPICAL: [usize; 10] = [128, 224, 256, 32, 16, 64, 512, 8, 1, 1024];
/// Memory for values of which nothing is known before they are computed.
const UNKNOWN_BYTES: u64 = 64 << 20;
/// Bytes that one tensor, and all of a run together, may have at least; or several times of what was predicted.
const TENSOR_AT_LEAST: usize = 1 << 30;
const TOGETHER_AT_LEAST: usize = 2 << 30;
const TIMES_PREDICTED: f64 = 4.0;

/// How the rows of requests meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// Joined along the first dimension, which the file leaves open.
    Together,
    /// One after the other: the file's first dimension is 1.
    Alone,
    /// There are none: a request is the file's inputs as they are.
    Whole,
}

/// One input or output at the model's border.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Border {
    pub(super) name: String,
    pub(super) element: Element,
    /// As clients see it: the rows first; -1 for any size.
    pub(super) shape: Vec<i64>,
    /// The graph's tensor has no dimension, a client's has one of one element.
    pub(super) scalar: bool,
}

/// A file whose graph was found to be one that the evaluator runs.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(super) path: PathBuf,
    pub(super) precision: Precision,
    pub(super) inputs: Vec<Border>,
    pub(super) outputs: Vec<Border>,
    pub(super) rows: Rows,
    /// Sizes for open dimensions that the graph takes, the likeliest first.
    pub(super) open_sizes: Vec<usize>,
    /// Floating-point operations for one typical row.
    pub(crate) flops: f64,
    /// Bytes of the file, and of those that it refers to.
    pub(crate) weight_bytes: u64,
    memory_bytes: u64,
    pub(super) limits: Limits,
}

impl Source {
    /// Reads a file's graph.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming the file and what is wrong or not served.
    pub(crate) fn inspect(path: &Path, precision: Precision, max_rows: usize) -> Result<Self> {
        let file = OnnxFile::open(path)?;
        let refused = |problem: String| unservable(format!("{}: {problem}", path.display()));
        let graph = Graph::read(&file.model, folder(path)).map_err(refused)?;
        Self::of(&graph, path, file.bytes, precision, max_rows).map_err(refused)
    }

    pub(super) fn of(
        graph: &Graph,
        path: &Path,
        file_bytes: u64,
        precision: Precision,
        max_rows: usize,
    ) -> std::result::Result<Self, String> {
        if graph.inputs.is_empty() || graph.outputs.is_empty() {
            return Err("its graph must have an input and an output".into());
        }
        if let Some(any) = graph.inputs.iter().find(|input| input.dims.is_none()) {
            return Err(format!("its input '{}' has no declared shape, it must have one", any.name));
        }
        let (open_sizes, first) = open_sizes(graph, precision)?;
        let (rows, constant) = rows(graph, &first, precision, open_sizes[0])?;
        let many = if rows == Rows::Together { max_rows } else { 1 };
        let inferred = |rows: usize| infer(graph, &shapes(&graph.inputs, rows, open_sizes[0]), precision);
        let largest = inferred(many).unwrap_or_default();
        let outputs = first.as_ref().map_or(&[][..], |inferred| inferred.outputs.as_slice());
        let borders = |declared: &[Declared], inferred: &[Option<Vec<usize>>], constant: &[Option<usize>]| {
            let border = |(index, declared): (usize, &Declared)| {
                let known = inferred.get(index).cloned().flatten();
                border(declared, known, rows, constant.get(index).copied().flatten())
            };
            declared.iter().enumerate().map(border).collect()
        };
        let weights: u64 = graph.weight_bytes(precision);
        let working = match first {
            Some(_) => (largest.peak_bytes + 2.0 * largest.largest_bytes) as u64,
            None => UNKNOWN_BYTES,
        };
        Ok(Self {
            path: path.into(),
            precision,
            inputs: borders(&graph.inputs, &[], &[]),
            outputs: borders(&graph.outputs, outputs, &constant),
            rows,
            open_sizes,
            flops: first.as_ref().map_or(0.0, |inferred| inferred.flops),
            weight_bytes: file_bytes.max(graph.weight_bytes(Precision::F32)),
            memory_bytes: weights.saturating_add(working),
            limits: Limits {
                tensor: TENSOR_AT_LEAST.max((largest.largest_bytes * TIMES_PREDICTED) as usize),
                together: TOGETHER_AT_LEAST.max((largest.peak_bytes * TIMES_PREDICTED) as usize),
            },
        })
    }

    /// What it takes and gives once it is loaded.
    pub(crate) fn spec(&self, name: &ModelName, version: String, max_rows: usize) -> ModelSpec {
        let spec = |border: &Border| TensorSpec::new(&border.name, border.element.datatype(), border.shape.as_slice());
        ModelSpec {
            name: name.clone(),
            version,
            family: super::FAMILY.into(),
            inputs: self.inputs.iter().map(spec).collect(),
            outputs: self.outputs.iter().map(spec).collect(),
            max_batch_rows: if self.rows == Rows::Whole { 1 } else { max_rows },
            memory_bytes: self.memory_bytes,
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        }
    }
}

/// Where the files that a model may refer to lie.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The inputs' shapes, of so many rows where the first dimension is open, and of this size wherever else one is.
pub(super) fn shapes(inputs: &[Declared], rows: usize, open: usize) -> Vec<Vec<usize>> {
    let size = |(at, dimension): (usize, &Dimension)| match dimension {
        Dimension::Fixed(size) => *size,
        Dimension::Open(_) if at == 0 => rows,
        Dimension::Open(_) => open,
    };
    let shape = |input: &Declared| input.dims.iter().flatten().enumerate().map(size).collect();
    inputs.iter().map(shape).collect()
}

/// The sizes of open dimensions that the graph takes, and what one row takes with the first of them; all sizes and nothing
/// where none fits a graph that may yet take others.
fn open_sizes(graph: &Graph, precision: Precision) -> std::result::Result<(Vec<usize>, Option<Inferred>), String> {
    let mut fitting = Vec::new();
    let mut first = None;
    let mut problem = None;
    let is_open = |dimension: &Dimension| matches!(dimension, Dimension::Open(_));
    let inner = |input: &Declared| input.dims.iter().flatten().skip(1).any(is_open);
    // Where only the rows are open, all sizes are the same.
    let sizes = if graph.inputs.iter().any(inner) { &TYPICAL[..] } else { &TYPICAL[..1] };
    for &size in sizes {
        match infer(graph, &shapes(&graph.inputs, 1, size), precision) {
            Ok(inferred) => {
                fitting.push(size);
                first.get_or_insert(inferred);
            }
            Err(reason) => problem = problem.or(Some(reason)),
        }
    }
    let open = |input: &Declared| input.dims.iter().flatten().any(is_open);
    match (first, problem) {
        (Some(first), _) => Ok((fitting, Some(first))),
        // Every size is given, so no request can be right.
        (None, Some(problem)) if !graph.inputs.iter().any(open) => Err(problem),
        (None, _) => Ok((sizes.to_vec(), None)),
    }
}

/// How the rows of this graph meet, and of each output the first dimension where it is the same for any number of rows.
fn rows(
    graph: &Graph,
    first: &Option<Inferred>,
    precision: Precision,
    open: usize,
) -> std::result::Result<(Rows, Vec<Option<usize>>), String> {
    let leading = |declared: &Declared| declared.dims.as_ref().map(|dims| dims.first().cloned());
    let inputs: Vec<Option<Dimension>> = graph.inputs.iter().filter_map(leading).collect();
    if inputs.iter().all(|dimension| *dimension == Some(Dimension::Fixed(1))) {
        let known = |index: usize| first.as_ref().and_then(|inferred| inferred.outputs.get(index).cloned().flatten());
        let single = |(index, output): (usize, &Declared)| match known(index) {
            Some(dims) => dims.first() == Some(&1),
            None => leading(output) == Some(Some(Dimension::Fixed(1))),
        };
        let single = graph.outputs.iter().enumerate().all(single);
        return Ok((if single { Rows::Alone } else { Rows::Whole }, Vec::new()));
    }
    if !inputs.iter().all(|dimension| matches!(dimension, Some(Dimension::Open(_)))) {
        return Ok((Rows::Whole, Vec::new()));
    }
    // Outputs follow the rows if they have as many for two and for three rows.
    let [two, three] = [2, 3].map(|rows| {
        let inferred = infer(graph, &shapes(&graph.inputs, rows, open), precision).unwrap_or_default();
        let leading = |index: usize| Some(inferred.outputs.get(index)?.as_ref()?.first().copied());
        (0..graph.outputs.len()).map(leading).collect::<Vec<_>>()
    });
    let mut constant = vec![None; graph.outputs.len()];
    let mut together = true;
    for (index, output) in graph.outputs.iter().enumerate() {
        match (two[index], three[index]) {
            (Some(Some(2)), Some(Some(3))) => {}
            (Some(Some(a)), Some(Some(b))) if a != b => {
                let name = &output.name;
                return Err(format!("its output '{name}' has {a} rows for 2 and {b} for 3: each row must give one"));
            }
            (Some(a), Some(_)) => {
                constant[index] = a;
                together = false;
            }
            // Not known: the file is believed.
            _ => together &= !matches!(leading(output), Some(None | Some(Dimension::Fixed(_)))),
        }
    }
    Ok((if together { Rows::Together } else { Rows::Whole }, constant))
}

/// A declared tensor as clients see it. What the file says nothing of is taken from what was inferred for one row.
fn border(declared: &Declared, inferred: Option<Vec<usize>>, rows: Rows, constant: Option<usize>) -> Border {
    let dims = match (&declared.dims, &inferred) {
        (Some(dims), Some(inferred)) if dims.len() == inferred.len() => Some(dims.clone()),
        (_, Some(inferred)) => Some(vec![Dimension::Open(None); inferred.len()]),
        (dims, None) => dims.clone(),
    };
    let scalar = dims.as_ref().is_some_and(Vec::is_empty);
    let size = |dimension: &Dimension| match dimension {
        Dimension::Fixed(size) => i64::try_from(*size).unwrap_or(-1),
        Dimension::Open(_) => -1,
    };
    let mut shape: Vec<i64> = dims.iter().flatten().map(size).collect();
    if let Some(leading) = shape.first_mut() {
        *leading = match (rows, constant) {
            (Rows::Together | Rows::Alone, _) => -1,
            (Rows::Whole, Some(constant)) => constant as i64,
            (Rows::Whole, None) => *leading,
        };
    }
    if scalar {
        shape = vec![1];
    }
    Border { name: declared.name.clone(), element: declared.element, shape, scalar }
}
