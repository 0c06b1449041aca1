//! Which requests run together: those whose tensors agree in everything but their rows.

use orion_proto::Tensor;

/// Requests that run together, by their number in the batch, and their rows in all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) members: Vec<usize>,
    pub(super) rows: usize,
}

/// Groups of at most `most` rows; a request with more is a group of its own. Requests that are not there were refused.
pub(super) fn groups(requests: &[Option<&[Tensor]>], most: usize) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let shapes = |tensors: &[Tensor]| -> Vec<Vec<i64>> {
        let mut named: Vec<(&str, Vec<i64>)> = tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor.shape.iter().skip(1).copied().collect()))
            .collect();
        named.sort_unstable();
        named.into_iter().map(|(_, shape)| shape).collect()
    };
    let mut open: Vec<(Vec<Vec<i64>>, usize)> = Vec::new();
    for (index, tensors) in requests.iter().enumerate() {
        let Some(tensors) = tensors else { continue };
        let (shape, rows) = (shapes(tensors), tensors.first().map_or(1, Tensor::rows));
        let found = open.iter_mut().find(|(known, _)| *known == shape);
        match found {
            Some((_, at)) if groups[*at].rows.saturating_add(rows) <= most => {
                groups[*at].members.push(index);
                groups[*at].rows += rows;
            }
            found => {
                groups.push(Group { members: vec![index], rows });
                let at = groups.len() - 1;
                match found {
                    Some((_, open)) => *open = at,
                    None => open.push((shape, at)),
                }
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use orion_proto::{Datatype, Payload};

    fn request(shape: &[i64]) -> Vec<Tensor> {
        let count = shape.iter().product::<i64>() as usize;
        vec![Tensor::new("x", Datatype::Uint8, shape.to_vec(), Payload::from(vec![0; count])).unwrap()]
    }

    #[test]
    fn requests_of_one_shape_run_together_up_to_the_limit() {
        let requests = [&[2, 3][..], &[1, 4], &[3, 3], &[2, 3], &[9, 4], &[1, 4], &[0, 3]].map(request);
        let mut given: Vec<Option<&[Tensor]>> = requests.iter().map(|tensors| Some(tensors.as_slice())).collect();
        given.insert(1, None);
        let expected = [(vec![0, 3], 5), (vec![2, 6], 2), (vec![4, 7], 2), (vec![5], 9)];
        let found: Vec<(Vec<usize>, usize)> =
            groups(&given, 5).into_iter().map(|group| (group.members, group.rows)).collect();
        assert_eq!(found.len(), expected.len());
        assert!(expected.iter().all(|group| found.contains(group)), "{found:?}");
    }
}
