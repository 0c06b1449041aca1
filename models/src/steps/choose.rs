//! Steps that choose: the greatest values, the best boxes.

use orion_proto::{Datatype, Error, Result, Tensor, encode_bytes_elements};

use super::tensors::{Values, int64, tensor};

/// The greatest of each row, the first of equal ones before the others.
pub(super) fn top_k(x: &Values, k: usize, labels: &[String]) -> Result<Vec<Tensor>> {
    let width = x.width();
    if x.shape.len() < 2 {
        let shape = &x.shape;
        return Err(Error::invalid(format!(
            "input 'x' has shape {shape:?}, it must have rows and values: two dimensions or more"
        )));
    }
    if k > width {
        let shape = &x.shape;
        return Err(Error::invalid(format!("input 'x' has shape {shape:?}, its last dimension must have {k} or more")));
    }
    if !labels.is_empty() && labels.len() != width {
        let (shape, count) = (&x.shape, labels.len());
        return Err(Error::invalid(format!(
            "input 'x' has shape {shape:?}, its last dimension must be {count}, as the labels"
        )));
    }
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for row in x.rows() {
        let mut order: Vec<usize> = (0..row.len()).collect();
        let greater = |one: &usize, other: &usize| row[*other].total_cmp(&row[*one]).then(one.cmp(other));
        if k < order.len() {
            order.select_nth_unstable_by(k, greater);
            order.truncate(k);
        }
        order.sort_unstable_by(greater);
        values.extend(order.iter().map(|at| row[*at]));
        indices.extend(order.iter().map(|at| *at as i64));
    }
    let mut shape = x.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = k;
    }
    let named = (!labels.is_empty()).then(|| {
        let names: Vec<&str> = indices.iter().map(|at| labels[*at as usize].as_str()).collect();
        tensor("labels", Datatype::Bytes, &shape, encode_bytes_elements(&names).to_vec())
    });
    let indices = int64("indices", &shape, &indices);
    let mut outputs = vec![Values { shape, values }.tensor("values"), indices];
    outputs.extend(named);
    Ok(outputs)
}

/// The boxes that stay of each row.
pub(super) fn nms(inputs: &[Tensor], overlap: f32, score: f32, most: usize) -> Result<Vec<Tensor>> {
    let (boxes, scores) = (Values::of(inputs, "boxes")?, Values::of(inputs, "scores")?);
    if boxes.shape[..2] != scores.shape[..2] {
        let (boxes, scores) = (&boxes.shape, &scores.shape);
        return Err(Error::invalid(format!("input 'boxes' has shape {boxes:?}, 'scores' {scores:?}: one score a box")));
    }
    let count = boxes.shape[1];
    let mut indices: Vec<i64> = Vec::new();
    for (row, scores) in scores.rows().enumerate() {
        let of = |at: usize| &boxes.values[(row * count + at) * 4..][..4];
        let mut order: Vec<usize> = (0..count).filter(|at| scores[*at] >= score).collect();
        order.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]).then(one.cmp(other)));
        let mut stay: Vec<usize> = Vec::new();
        for at in order {
            if stay.len() == most {
                break;
            }
            if stay.iter().all(|other| common(of(*other), of(at)) <= overlap) {
                stay.push(at);
            }
        }
        indices.extend(stay.iter().map(|at| *at as i64));
        indices.resize((row + 1) * most, -1);
    }
    // A row without boxes has an answer too.
    indices.resize(boxes.shape[0] * most, -1);
    Ok(vec![int64("indices", &[boxes.shape[0], most], &indices)])
}

/// The share of the union of two boxes that both have.
fn common(one: &[f32], other: &[f32]) -> f32 {
    let side = |low: usize, high: usize| (one[high].min(other[high]) - one[low].max(other[low])).max(0.0);
    let area = |of: &[f32]| (of[2] - of[0]).max(0.0) * (of[3] - of[1]).max(0.0);
    let both = side(0, 2) * side(1, 3);
    let union = area(one) + area(other) - both;
    if union > 0.0 { both / union } else { 0.0 }
}
