//! A graph whose names are resolved: every value has a slot, every node its operator.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
};

use super::{
    attributes::Attributes,
    element::Element,
    fuse::{Dense, Fused},
    operators::{self, Operator},
    schema::{GraphProto, ModelProto, NodeProto, ValueInfoProto, attribute_proto::Kind, tensor_shape_proto::dimension},
    weight::Weight,
};
use crate::Precision;

/// Versions of ONNX's operators that are known. Older ones broadcast otherwise.
const VERSIONS: std::ops::RangeInclusive<i64> = 7..=25;
/// Where ONNX's own operators are, by either of its names.
const OWN_DOMAINS: [&str; 2] = ["", "ai.onnx"];

/// The place of a value while the graph runs; unique over all bodies.
pub(super) type Slot = usize;

/// One operation.
pub(super) struct Node {
    pub(super) operator: &'static Operator,
    /// How messages call it.
    pub(super) label: String,
    /// The version of ONNX's operators that the file asks for.
    pub(super) version: i64,
    pub(super) attributes: Attributes,
    pub(super) inputs: Vec<Option<Slot>>,
    pub(super) outputs: Vec<Option<Slot>>,
    /// The graphs that it runs, by the name of their attribute.
    pub(super) bodies: Vec<(String, Block)>,
    /// What it does beside, for nodes that followed it.
    pub(super) fused: Fused,
    /// Its weight, where that is packed.
    pub(super) dense: Option<Box<Dense>>,
    /// Values that nobody needs once it has run.
    pub(super) last_uses: Vec<Slot>,
}

/// Nodes in the order in which they run.
#[derive(Default)]
pub(super) struct Block {
    pub(super) inputs: Vec<Slot>,
    pub(super) outputs: Vec<Slot>,
    pub(super) nodes: Vec<Node>,
    /// Its own values that nobody needs once its outputs are taken.
    pub(super) own_outputs: Vec<Slot>,
}

/// A dimension as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dimension {
    Fixed(usize),
    /// Any size; equal names have equal sizes.
    Open(Option<String>),
}

/// A declared input or output of the whole graph.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) element: Element,
    /// None: any rank.
    pub(super) dims: Option<Vec<Dimension>>,
}

/// A whole model.
pub(super) struct Graph {
    pub(super) inputs: Vec<Declared>,
    pub(super) outputs: Vec<Declared>,
    pub(super) block: Block,
    pub(super) weights: Vec<(Slot, Weight)>,
    pub(super) slots: usize,
}

impl Graph {
    /// Resolves a model; `folder` is where the files that it may refer to lie.
    ///
    /// # Errors
    /// A message naming what is wrong; of operators that the evaluator has not, all of them.
    pub(super) fn read(model: &ModelProto, folder: &Path) -> Result<Self, String> {
        let graph = model.graph.as_ref().ok_or("it holds no graph")?;
        let own = |domain: &str| OWN_DOMAINS.contains(&domain);
        let version = model.opset_import.iter().find(|set| own(&set.domain)).map_or(1, |set| set.version);
        if !VERSIONS.contains(&version) {
            let (least, most) = (VERSIONS.start(), VERSIONS.end());
            return Err(format!("it asks for operators of version {version}, {least} to {most} are served"));
        }
        let mut reader =
            Reader { version, folder, slots: 0, scopes: Vec::new(), weights: Vec::new(), unknown: BTreeSet::new() };
        let block = reader.block(graph, true)?;
        if !reader.unknown.is_empty() {
            let names = reader.unknown.into_iter().collect::<Vec<_>>().join(", ");
            return Err(format!("these operators are not served: {names}"));
        }
        let Reader { weights, slots, .. } = reader;
        let weighted: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        let inputs = graph.input.iter().filter(|input| !weighted.contains(input.name.as_str()));
        let inputs = inputs.map(declared).collect::<Result<_, _>>()?;
        let outputs = graph.output.iter().map(declared).collect::<Result<_, _>>()?;
        Ok(Self { inputs, outputs, block, weights, slots })
    }

    /// Bytes that its weights take in memory.
    pub(super) fn weight_bytes(&self, precision: Precision) -> u64 {
        let listed = self.weights.iter().map(|(_, weight)| weight.memory_bytes(precision));
        listed.fold(self.block.weight_bytes(precision), u64::saturating_add)
    }
}

fn declared(value: &ValueInfoProto) -> Result<Declared, String> {
    let name = value.name.clone();
    let tensor = value.r#type.as_ref().and_then(|declared| declared.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| format!("'{name}' is declared as no tensor, only tensors are served"))?;
    let element = Element::from_number(tensor.elem_type.into()).map_err(|problem| format!("'{name}': {problem}"))?;
    let dimension = |dim: &super::schema::tensor_shape_proto::Dimension| match &dim.value {
        // Exporters write 0 and -1 for what they do not know.
        Some(dimension::Value::DimValue(size)) if *size > 0 => {
            usize::try_from(*size).map(Dimension::Fixed).map_err(|_| format!("'{name}' has the dimension {size}"))
        }
        Some(dimension::Value::DimParam(symbol)) if !symbol.is_empty() => Ok(Dimension::Open(Some(symbol.clone()))),
        _ => Ok(Dimension::Open(None)),
    };
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dimension).collect::<Result<Vec<_>, _>>());
    let dims = dims.transpose()?;
    if dims.as_ref().is_some_and(|dims| dims.len() > super::weight::MOST_DIMENSIONS) {
        return Err(format!("'{name}' has more than {} dimensions", super::weight::MOST_DIMENSIONS));
    }
    Ok(Declared { name, element, dims })
}

struct Reader<'a> {
    version: i64,
    folder: &'a Path,
    slots: usize,
    /// Names of the values that the block being read sees, those of the blocks around it first.
    scopes: Vec<HashMap<&'a str, Slot>>,
    weights: Vec<(Slot, Weight)>,
    unknown: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    /// `whole`: the model's own graph, where an initializer may stand among the inputs to give a default.
    fn block(&mut self, graph: &'a GraphProto, whole: bool) -> Result<Block, String> {
        if !graph.sparse_initializer.is_empty() {
            return Err("it holds sparse tensors, which are not served".into());
        }
        self.scopes.push(HashMap::new());
        let weighted: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        for tensor in &graph.initializer {
            let slot = self.define(&tensor.name)?;
            self.weights.push((slot, Weight::read(tensor, self.folder)?));
        }
        let given = graph.input.iter().filter(|input| !(whole && weighted.contains(input.name.as_str())));
        let inputs = given.map(|input| self.define(&input.name)).collect::<Result<Vec<_>, _>>()?;
        let mut nodes = Vec::new();
        for (index, node) in graph.node.iter().enumerate() {
            nodes.extend(self.node(node, index)?);
        }
        let output = |output: &ValueInfoProto| match self.find(&output.name) {
            Some(slot) => Ok(slot),
            // What an unknown operator would have computed is reported with it.
            None if !self.unknown.is_empty() => Ok(0),
            None => Err(format!("output '{}' is not computed", output.name)),
        };
        let outputs = graph.output.iter().map(output).collect::<Result<Vec<_>, _>>()?;
        self.scopes.pop();
        let mut block = Block { inputs, outputs, nodes, own_outputs: Vec::new() };
        block.mark_last_uses();
        Ok(block)
    }

    fn find(&self, name: &str) -> Option<Slot> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name).copied())
    }

    fn define(&mut self, name: &'a str) -> Result<Slot, String> {
        let slot = self.slots;
        self.slots += 1;
        match self.scopes.last_mut().and_then(|scope| scope.insert(name, slot)) {
            None => Ok(slot),
            Some(_) => Err(format!("'{name}' is defined twice")),
        }
    }

    /// None for an operator that is not known, whose name is noted.
    fn node(&mut self, node: &'a NodeProto, index: usize) -> Result<Option<Node>, String> {
        let called = if node.name.is_empty() { format!("{index}") } else { format!("'{}'", node.name) };
        let label = format!("node {called} ({})", node.op_type);
        let at = |problem: String| format!("{label}: {problem}");
        let own = OWN_DOMAINS.contains(&node.domain.as_str());
        let operator = operators::find(&node.op_type).filter(|_| own);
        if operator.is_none() {
            let domain = if own { String::new() } else { format!("{}.", node.domain) };
            self.unknown.insert(format!("{domain}{}", node.op_type));
        }
        let input = |name: &String| match self.find(name) {
            _ if name.is_empty() => Ok(None),
            Some(slot) => Ok(Some(slot)),
            None if !self.unknown.is_empty() => Ok(None),
            None => Err(at(format!("its input '{name}' is not computed before it"))),
        };
        let inputs = node.input.iter().map(input).collect::<Result<Vec<_>, _>>()?;
        let graphs = node.attribute.iter().filter(|attribute| attribute.r#type() == Kind::Graph);
        let mut bodies = Vec::new();
        for attribute in graphs {
            let body = attribute.g.as_ref().ok_or_else(|| at(format!("its graph '{}' is missing", attribute.name)))?;
            bodies.push((attribute.name.clone(), self.block(body, false)?));
        }
        let mut outputs = Vec::new();
        for name in &node.output {
            outputs.push(if name.is_empty() { None } else { Some(self.define(name).map_err(at)?) });
        }
        let Some(operator) = operator else { return Ok(None) };
        let attributes = Attributes::read(node, self.folder).map_err(at)?;
        let version = self.version;
        let node = Node {
            operator,
            label: label.clone(),
            version,
            attributes,
            inputs,
            outputs,
            bodies,
            fused: Fused::default(),
            dense: None,
            last_uses: Vec::new(),
        };
        operators::check(&node).map_err(at)?;
        Ok(Some(node))
    }
}

impl Node {
    /// The values that it reads, those of its bodies too.
    pub(super) fn reads(&self, seen: &mut HashSet<Slot>) {
        seen.extend(self.inputs.iter().flatten());
        for (_, body) in &self.bodies {
            body.reads(seen);
        }
    }
}

impl Block {
    /// Bytes of the tensors that its nodes hold.
    fn weight_bytes(&self, precision: Precision) -> u64 {
        let of_node = |node: &Node| {
            let tensors = node.attributes.tensors().map(|weight| weight.memory_bytes(precision));
            let bodies = node.bodies.iter().map(|(_, body)| body.weight_bytes(precision));
            tensors.chain(bodies).fold(0, u64::saturating_add)
        };
        self.nodes.iter().map(of_node).fold(0, u64::saturating_add)
    }

    /// The values that its nodes and outputs read.
    pub(super) fn reads(&self, seen: &mut HashSet<Slot>) {
        seen.extend(&self.outputs);
        self.nodes.iter().for_each(|node| node.reads(seen));
    }

    /// Notes at each node which of this block's own values are needed no more.
    pub(super) fn mark_last_uses(&mut self) {
        let mut later: HashSet<Slot> = self.outputs.iter().copied().collect();
        let mut own: HashSet<Slot> = self.inputs.iter().copied().collect();
        own.extend(self.nodes.iter().flat_map(|node| node.outputs.iter().flatten()));
        self.own_outputs = later.intersection(&own).copied().collect();
        for node in self.nodes.iter_mut().rev() {
            let mut reads = HashSet::new();
            node.reads(&mut reads);
            reads.extend(node.outputs.iter().flatten());
            node.last_uses = reads.into_iter().filter(|slot| own.contains(slot) && later.insert(*slot)).collect();
        }
    }
}
