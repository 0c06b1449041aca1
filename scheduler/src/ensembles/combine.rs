//! How several answers become one. Pure: answers in, an answer out.

use std::collections::BTreeMap;

use bytes::Bytes;
use orion_proto::{Code, Datatype, Error, Payload, Result, Tensor, bytes_elements, encode_bytes_elements};

use super::{
    Combine,
    declare::{ANSWERED, DISAGREEMENT},
    numbers::{Rows, confidence, fp32, greatest, int32, int64},
};

/// One member's answer, and its weight.
pub(crate) type Given<'a> = (&'a Tensor, f32);

/// What was combined: the answer, or what a stacking model is asked; then how much they differ and how many there were.
pub(crate) fn combine(how: &Combine, given: &[Given<'_>]) -> Result<Vec<Tensor>> {
    let Some((first, _)) = given.first() else {
        return Err(Error::new(Code::Internal, "no member answered"));
    };
    if let Some((odd, _)) = given.iter().find(|(other, _)| other.rows() != first.rows()) {
        let (one, two) = (first.rows(), odd.rows());
        return Err(Error::new(Code::FailedPrecondition, format!("members answered {one} and {two} rows")));
    }
    let float = matches!(first.datatype, Datatype::Fp32 | Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp64);
    let (answer, disagreement) = match (how, float) {
        (Combine::Vote, false) => vote_of_values(given)?,
        (Combine::Vote, true) => vote_of_classes(&first.name, &numbers(given)?),
        (Combine::Mean, _) => mean(&first.name, &alike(given)?),
        (Combine::Best, _) => best(&first.name, &alike(given)?),
        (Combine::Stacking { .. }, _) => stacked(&first.name, &numbers(given)?)?,
    };
    let rows = first.rows();
    let answered = i32::try_from(given.len()).unwrap_or(i32::MAX);
    Ok(vec![answer, fp32(DISAGREEMENT, vec![rows as i64], &disagreement), int32(ANSWERED, answered, rows)])
}

/// Members' values, and their weights.
struct Numbers {
    members: Vec<Rows>,
    weights: Vec<f32>,
}

fn numbers(given: &[Given<'_>]) -> Result<Numbers> {
    let members = given.iter().map(|(tensor, _)| Rows::read(tensor)).collect::<Result<Vec<_>>>()?;
    let weights = given.iter().map(|(_, weight)| *weight).collect();
    Ok(Numbers { members, weights })
}

/// Where what was declared leaves the shape open, answers may differ in it.
fn same_shape(given: &[Given<'_>]) -> Result<()> {
    let first = given[0].0;
    match given.iter().find(|(other, _)| other.shape != first.shape) {
        None => Ok(()),
        Some((odd, _)) => {
            let (one, two) = (&first.shape, &odd.shape);
            let text = format!("members answered output '{}' as {one:?} and {two:?}", first.name);
            Err(Error::new(Code::FailedPrecondition, text))
        }
    }
}

fn alike(given: &[Given<'_>]) -> Result<Numbers> {
    same_shape(given)?;
    numbers(given)
}

impl Numbers {
    fn rows(&self) -> usize {
        self.members[0].rows()
    }

    /// Whether rows are equally long.
    fn same_width(&self) -> bool {
        self.members.iter().all(|member| member.width == self.members[0].width)
    }

    /// The weighted mean of one row.
    fn mean(&self, row: usize) -> Vec<f32> {
        let total: f64 = self.weights.iter().map(|weight| f64::from(*weight)).sum();
        let mut sum = vec![0.0f64; self.members[0].width];
        for (member, weight) in self.members.iter().zip(&self.weights) {
            for (sum, value) in sum.iter_mut().zip(member.row(row)) {
                *sum += f64::from(*weight) * f64::from(*value);
            }
        }
        sum.into_iter().map(|sum| (sum / total) as f32).collect()
    }

    /// How far members are from their mean: the root of the mean square, over members and values.
    fn deviation(&self, row: usize, mean: &[f32]) -> f32 {
        let square = |member: &Rows| {
            let values = member.row(row).iter().zip(mean);
            values.map(|(value, mean)| f64::from(value - mean).powi(2)).sum::<f64>()
        };
        let count = (self.members.len() * mean.len()).max(1);
        (self.members.iter().map(square).sum::<f64>() / count as f64).sqrt() as f32
    }

    /// The share of members, by weight, whose class is not this one.
    fn others(&self, row: usize, class: usize) -> f32 {
        let total: f32 = self.weights.iter().sum();
        let others = self.members.iter().zip(&self.weights).filter(|(member, _)| greatest(member.row(row)) != class);
        others.fold(0.0, |sum, (_, weight)| sum + weight) / total
    }
}

fn mean(name: &str, numbers: &Numbers) -> (Tensor, Vec<f32>) {
    let means: Vec<Vec<f32>> = (0..numbers.rows()).map(|row| numbers.mean(row)).collect();
    let far = means.iter().enumerate().map(|(row, mean)| numbers.deviation(row, mean)).collect();
    (fp32(name, numbers.members[0].shape.clone(), &means.concat()), far)
}

fn best(name: &str, numbers: &Numbers) -> (Tensor, Vec<f32>) {
    let surest = |row: usize| {
        let sure = |(member, weight): (&Rows, &f32)| confidence(member.row(row)) * weight;
        let sure: Vec<f32> = numbers.members.iter().zip(&numbers.weights).map(sure).collect();
        numbers.members[greatest(&sure)].row(row)
    };
    let rows: Vec<&[f32]> = (0..numbers.rows()).map(surest).collect();
    let others = rows.iter().enumerate().map(|(row, chosen)| numbers.others(row, greatest(chosen))).collect();
    (fp32(name, numbers.members[0].shape.clone(), &rows.concat()), others)
}

fn vote_of_classes(name: &str, numbers: &Numbers) -> (Tensor, Vec<f32>) {
    let winner = |row: usize| {
        let votes = numbers.members.iter().zip(&numbers.weights);
        let votes = votes.map(|(member, weight)| {
            let class = greatest(member.row(row));
            (class, *weight, confidence(member.row(row)))
        });
        won(votes)
    };
    let classes: Vec<usize> = (0..numbers.rows()).map(|row| winner(row).0).collect();
    let others = classes.iter().enumerate().map(|(row, class)| numbers.others(row, *class)).collect();
    let classes: Vec<i64> = classes.into_iter().map(|class| class as i64).collect();
    (int64(name, &classes), others)
}

/// Who has most weight; of equal ones the surest, then the least. With it, the share of the others.
fn won<K: Ord + Default>(votes: impl Iterator<Item = (K, f32, f32)>) -> (K, f32) {
    let mut tally: BTreeMap<K, (f32, f32)> = BTreeMap::new();
    let mut total = 0.0;
    for (vote, weight, sure) in votes {
        let entry = tally.entry(vote).or_default();
        (entry.0, entry.1) = (entry.0 + weight, entry.1 + sure * weight);
        total += weight;
    }
    let order = |one: &(f32, f32), other: &(f32, f32)| one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1));
    // Reversed, the last of equal ones is the least.
    let winner = tally.into_iter().rev().max_by(|(_, one), (_, other)| order(one, other));
    winner.map_or_else(|| (K::default(), 0.0), |(vote, (weight, _))| (vote, 1.0 - weight / total))
}

/// Rows of texts or whole numbers, each as its bytes: what most say.
fn vote_of_values(given: &[Given<'_>]) -> Result<(Tensor, Vec<f32>)> {
    same_shape(given)?;
    let (first, rows) = (given[0].0, given[0].0.rows());
    let cut = given.iter().map(|(tensor, weight)| Ok((cut(tensor)?, *weight))).collect::<Result<Vec<_>>>()?;
    let mut chosen = Vec::with_capacity(rows);
    let mut others = Vec::with_capacity(rows);
    for row in 0..rows {
        let votes = cut.iter().map(|(values, weight)| (values.get(row).cloned().unwrap_or_default(), *weight, 0.0));
        let (value, other) = won(votes);
        chosen.push(value);
        others.push(other);
    }
    let data = Payload::from(Bytes::from(chosen.concat()));
    let shape = first.shape.clone();
    Ok((Tensor { name: first.name.clone(), datatype: first.datatype, shape, data }, others))
}

/// Each row's bytes.
fn cut(tensor: &Tensor) -> Result<Vec<Vec<u8>>> {
    let (data, rows) = (tensor.data.contiguous(), tensor.rows());
    if rows == 0 {
        return Ok(Vec::new());
    }
    if tensor.datatype != Datatype::Bytes {
        let width = (data.len() / rows).max(1);
        return Ok(data.chunks(width).map(<[u8]>::to_vec).collect());
    }
    let count = orion_proto::element_count(&tensor.name, &tensor.shape)?;
    let elements = bytes_elements(&tensor.name, &data, count)?;
    let width = (count / rows).max(1);
    Ok(elements.chunks(width).map(encode_bytes_elements).map(|row| row.to_vec()).collect())
}

/// All answers of a row side by side.
fn stacked(name: &str, numbers: &Numbers) -> Result<(Tensor, Vec<f32>)> {
    let far = |row| {
        let mean = if numbers.same_width() { numbers.mean(row) } else { Vec::new() };
        numbers.deviation(row, &mean)
    };
    let width: usize = numbers.members.iter().map(|member| member.width).sum();
    let mut values = Vec::with_capacity(numbers.rows().saturating_mul(width));
    for row in 0..numbers.rows() {
        numbers.members.iter().for_each(|member| values.extend_from_slice(member.row(row)));
    }
    let width = i64::try_from(width).map_err(|_| Error::new(Code::Internal, "the answers are too many"))?;
    let disagreement = (0..numbers.rows()).map(far).collect();
    Ok((fp32(name, vec![numbers.rows() as i64, width], &values), disagreement))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f32> {
        Rows::read(tensor).unwrap().values().to_vec()
    }

    fn combined(how: &Combine, members: &[(&[f32], f32)], shape: [i64; 2]) -> Vec<Tensor> {
        let tensors: Vec<Tensor> = members.iter().map(|(values, _)| fp32("y", shape.to_vec(), values)).collect();
        let given: Vec<Given<'_>> =
            tensors.iter().zip(members).map(|(tensor, (_, weight))| (tensor, *weight)).collect();
        combine(how, &given).unwrap()
    }

    fn classes(tensor: &Tensor) -> Vec<i64> {
        let data = tensor.data.contiguous();
        data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    #[test]
    fn a_mean_is_weighted_and_says_how_far_its_members_are() {
        let all = combined(&Combine::Mean, &[(&[0.0, 1.0, 5.0, 5.0], 1.0), (&[4.0, 1.0, 5.0, 5.0], 3.0)], [2, 2]);
        assert_eq!(values(&all[0]), [3.0, 1.0, 5.0, 5.0]);
        // (9 + 0 + 1 + 0) / 4
        assert_eq!(values(&all[1]), [2.5f32.sqrt(), 0.0]);
        assert_eq!(all[2].data.contiguous().as_ref(), [2, 0, 0, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn most_win_then_the_surest() {
        let (a, b, c): (&[f32], &[f32], &[f32]) = (&[0.9, 0.1, 0.6, 0.4], &[0.2, 0.8, 0.1, 0.9], &[0.4, 0.6, 0.7, 0.3]);
        let all = combined(&Combine::Vote, &[(a, 1.0), (b, 1.0), (c, 1.0)], [2, 2]);
        assert_eq!((classes(&all[0]), all[0].shape.as_slice()), (vec![1, 0], [2].as_slice()));
        assert!(values(&all[1]).iter().all(|share| (share - 1.0 / 3.0).abs() < 1e-6));
        // One against one: the surer. By weight: the heavier.
        assert_eq!(classes(&combined(&Combine::Vote, &[(a, 1.0), (b, 1.0)], [2, 2])[0]), [0, 1]);
        assert_eq!(classes(&combined(&Combine::Vote, &[(a, 1.0), (b, 1.5)], [2, 2])[0]), [1, 1]);
        let best = combined(&Combine::Best, &[(a, 1.0), (b, 1.0), (c, 1.0)], [2, 2]);
        assert_eq!(values(&best[0]), [0.9, 0.1, 0.1, 0.9]);
        assert_eq!(values(&best[1]), [2.0 / 3.0, 2.0 / 3.0]);
    }

    #[test]
    fn texts_are_voted_on_by_rows() {
        let texts = |rows: &[&str]| {
            let data = Payload::from(encode_bytes_elements(rows));
            Tensor::new("label", Datatype::Bytes, vec![rows.len() as i64, 1], data).unwrap()
        };
        let (a, b, c) = (texts(&["cat", "dog"]), texts(&["cat", "eel"]), texts(&["owl", "eel"]));
        let all = combine(&Combine::Vote, &[(&a, 1.0), (&b, 1.0), (&c, 1.0)]).unwrap();
        assert_eq!(all[0], texts(&["cat", "eel"]));
        // Of equal votes the least, whoever comes first.
        assert_eq!(combine(&Combine::Vote, &[(&c, 1.0), (&a, 1.0)]).unwrap()[0], texts(&["cat", "dog"]));
    }

    #[test]
    fn a_stacking_model_is_asked_with_all_answers_side_by_side() {
        let how = Combine::Stacking { model: orion_proto::ModelName::new("s").unwrap(), input: String::new() };
        let all = combined(&how, &[(&[1.0, 2.0, 3.0, 4.0], 1.0), (&[5.0, 6.0, 7.0, 8.0], 1.0)], [2, 2]);
        assert_eq!(
            (values(&all[0]), all[0].shape.as_slice()),
            (vec![1., 2., 5., 6., 3., 4., 7., 8.], [2, 4].as_slice())
        );
    }

    #[test]
    fn what_cannot_be_put_together_is_refused() {
        let (one, two) = (fp32("y", vec![1, 2], &[1.0, 2.0]), fp32("y", vec![2, 1], &[1.0, 2.0]));
        assert!(
            combine(&Combine::Mean, &[(&one, 1.0), (&two, 1.0)]).is_err_and(|e| e.message.contains("1 and 2 rows"))
        );
        let wide = fp32("y", vec![1, 3], &[1.0, 2.0, 3.0]);
        let error = combine(&Combine::Mean, &[(&one, 1.0), (&wide, 1.0)]).unwrap_err();
        assert!(error.message.contains("[1, 2] and [1, 3]"), "{error}");
        for how in [Combine::Mean, Combine::Vote, Combine::Best] {
            for shape in [vec![0, 2], vec![3, 0]] {
                let empty = fp32("y", shape.clone(), &[]);
                for tensor in combine(&how, &[(&empty, 1.0)]).unwrap() {
                    assert!(tensor.check_size().is_ok() && tensor.rows() as i64 == shape[0], "{how:?} {tensor:?}");
                }
            }
        }
        let whole = |width: i64| int64("y", &vec![1; width as usize * 2]);
        let (two, three) = (Tensor { shape: vec![2, 2], ..whole(2) }, Tensor { shape: vec![2, 3], ..whole(3) });
        assert!(combine(&Combine::Vote, &[(&two, 1.0), (&three, 2.0)]).is_err_and(|e| e.message.contains("[2, 3]")));
        // What is no number is chosen last.
        let (nan, number) = (fp32("y", vec![1, 2], &[f32::NAN, 1.0]), fp32("y", vec![1, 2], &[0.4, 0.6]));
        assert_eq!(combine(&Combine::Best, &[(&nan, 1.0), (&number, 1.0)]).unwrap()[0], number);
    }
}
