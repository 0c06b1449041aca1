//! GELU, as graphs of older versions write it out: `x / √2`, its error function, plus 1, times `x`, times ½.

use super::{
    super::{
        attributes::Attributes,
        graph::{Node, Slot},
        operators,
    },
    Fuser,
};

impl Fuser<'_> {
    /// A GELU in place of the last node of one that is written out.
    pub(super) fn gelu(&mut self, node: Node) -> Node {
        let Some((of, steps)) = self.written_out(&node) else { return node };
        let Some(operator) = operators::find("Gelu") else { return node };
        for index in steps {
            self.take(index);
        }
        // It was read by the first step and by the product.
        self.readers.entry(of).and_modify(|count| *count -= 1);
        let label = format!("{} as a whole (Gelu)", node.label);
        Node { operator, label, attributes: Attributes::default(), inputs: vec![Some(of)], ..node }
    }

    /// What the function is of, and the nodes before the last.
    fn written_out(&self, last: &Node) -> Option<(Slot, [usize; 4])> {
        let near = |value: f64, wanted: f64| (value - wanted).abs() < 1e-5;
        // An operator of one input and a number, in any order where that is allowed.
        let with_number = |node: &Node, name: &str, wanted: f64| -> Option<usize> {
            let input = [0, 1]
                .into_iter()
                .find(|input| self.scalar(node, *input).is_some_and(|number| near(number, wanted)))?;
            (node.operator.name == name && (input == 1 || name != "Div")).then_some(1 - input)
        };
        let (product, multiplied) = self.maker(last, with_number(last, "Mul", 0.5)?)?;
        (multiplied.operator.name == "Mul").then_some(())?;
        [0, 1].into_iter().find_map(|input| {
            let (sum, added) = self.maker(multiplied, input)?;
            let (function, erf) = self.maker(added, with_number(added, "Add", 1.0)?)?;
            (erf.operator.name == "Erf").then_some(())?;
            let (quotient, divided) = self.maker(erf, 0)?;
            let of = with_number(divided, "Div", std::f64::consts::SQRT_2)
                .or_else(|| with_number(divided, "Mul", std::f64::consts::FRAC_1_SQRT_2))?;
            let of = (*divided.inputs.get(of)?)?;
            (multiplied.inputs.get(1 - input) == Some(&Some(of))).then_some((of, [product, sum, function, quotient]))
        })
    }
}
