//! An answer as JSON in the form of the Open Inference Protocol, or as a table a tensor.

use std::collections::BTreeMap;

use comfy_table::Cell;
use orion_proto::{
    Datatype, Payload,
    answer::ModelInferResponse,
    element_count,
    inference::{InferOutputTensor, InferParameter, infer_parameter::ParameterChoice},
};
use serde::Serialize;

use crate::{
    Failure,
    table::{figure, render, table},
    tensor_text::{Values, decode},
};

/// Values and rows of a tensor that a table shows.
const VALUES_SHOWN: usize = 6;
const ROWS_SHOWN: usize = 100;
const TEXT_SHOWN: usize = 48;

/// A model's answer.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    model_name: String,
    model_version: String,
    id: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<String, serde_json::Value>,
    outputs: Vec<Output>,
}

#[derive(Debug, Serialize)]
struct Output {
    name: String,
    datatype: &'static str,
    shape: Vec<i64>,
    data: Values,
}

impl Answer {
    /// Reads the wire's answer, checking each tensor's bytes against its shape.
    pub(crate) fn read(wire: ModelInferResponse) -> Result<Self, Failure> {
        let (given, raw) = (wire.head.outputs.len(), wire.raw_output_contents.len());
        if given != raw {
            return Err(Failure::new(format!("the server sent {raw} raw contents for {given} outputs")));
        }
        let outputs = wire.head.outputs.into_iter().zip(&wire.raw_output_contents);
        let parameters = wire.head.parameters.into_iter();
        Ok(Self {
            model_name: wire.head.model_name,
            model_version: wire.head.model_version,
            id: wire.head.id,
            parameters: parameters.map(|(name, value)| (name, parameter(value))).collect(),
            outputs: outputs.map(|(output, data)| Output::read(output, data)).collect::<Result<_, _>>()?,
        })
    }

    /// One table a tensor, rows labelled by the texts that were sent where there is one for each.
    pub(crate) fn as_tables(&self, texts: &[String]) -> String {
        self.outputs.iter().map(|output| output.as_table(texts)).collect::<Vec<_>>().join("\n")
    }
}

impl Output {
    fn read(wire: InferOutputTensor, data: &Payload) -> Result<Self, Failure> {
        let datatype = Datatype::from_name(&wire.datatype)?;
        let count = element_count(&wire.name, &wire.shape)?;
        let data = decode(&wire.name, datatype, &data.contiguous(), count)?;
        Ok(Self { name: wire.name, datatype: datatype.name(), shape: wire.shape, data })
    }

    fn as_table(&self, texts: &[String]) -> String {
        let total = self.data.len();
        let rows = self.shape.first().map_or(1, |&rows| usize::try_from(rows).unwrap_or(0));
        let width = total.checked_div(rows).unwrap_or(0);
        let labelled = texts.len() == rows;
        let normed = width > 1 && self.data.norm(0..0).is_some();
        let mut headings = vec!["row"];
        headings.extend(labelled.then_some("text"));
        headings.push("values");
        headings.extend(normed.then_some("norm"));
        let mut table = table(&headings);
        for row in 0..rows.min(ROWS_SHOWN) {
            let start = row * width;
            let mut cells = vec![figure(row)];
            cells.extend(texts.get(row).filter(|_| labelled).map(|text| Cell::new(shortened(text))));
            cells.push(Cell::new(self.first_values(start, width)));
            cells.extend(self.data.norm(start..start + width).filter(|_| normed).map(|n| figure(format!("{n:.4}"))));
            table.add_row(cells);
        }
        let more = match rows.saturating_sub(ROWS_SHOWN) {
            0 => String::new(),
            left => format!("{left} more rows; -o json prints all\n"),
        };
        format!("{} {} {:?}\n{}{more}", self.name, self.datatype, self.shape, render(table))
    }

    fn first_values(&self, start: usize, width: usize) -> String {
        let mut shown: Vec<String> = (start..start + width.min(VALUES_SHOWN)).map(|at| self.data.show(at)).collect();
        if width > VALUES_SHOWN {
            shown.push(format!("… ({width} values)"));
        }
        shown.join("  ")
    }
}

fn shortened(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(TEXT_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn parameter(value: InferParameter) -> serde_json::Value {
    match value.parameter_choice {
        Some(ParameterChoice::BoolParam(flag)) => flag.into(),
        Some(ParameterChoice::Int64Param(number)) => number.into(),
        Some(ParameterChoice::Uint64Param(number)) => number.into(),
        Some(ParameterChoice::DoubleParam(number)) => number.into(),
        Some(ParameterChoice::StringParam(text)) => text.into(),
        None => serde_json::Value::Null,
    }
}
