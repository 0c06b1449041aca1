//! Files become what a network of images takes.

use orion_proto::{Code, Error, ModelSpec, Result, Tensor};

use super::tensors::{MOST_VALUES, Values};
use crate::{
    ModelRequest,
    imaging::{Area, Filter, Resize, Rows},
    kernels::Threads,
};

/// The images of all requests, decoded side by side.
pub(super) fn images(
    spec: &ModelSpec,
    batch: &[ModelRequest],
    to: (usize, usize),
    mean: &[f32; 3],
    deviation: &[f32; 3],
) -> Vec<Result<Vec<Tensor>>> {
    let rows = Rows::of(spec, batch);
    let all = rows.all();
    let values = 3usize.saturating_mul(to.0).saturating_mul(to.1);
    let most = MOST_VALUES / values.max(1);
    if all.len() > most {
        let text = format!("there are {} images, {most} of this size are taken at once", all.len());
        return batch.iter().map(|_| Err(Error::new(Code::ResourceExhausted, text.clone()))).collect();
    }
    let scaled = |value: u8, channel: usize| (f32::from(value) / 255.0 - mean[channel]) / deviation[channel];
    let one = |row: usize| {
        let image = all[row].decode()?;
        let area = |width, height| Area { left: 0, top: 0, width, height };
        let from = area(image.width, image.height);
        let resize = Resize { from, to, keep: area(to.0, to.1), filter: Filter::Bilinear };
        let pixels = resize.apply::<3>(&image.pixels, image.width);
        // Pixel by pixel becomes channel by channel.
        let plane = |channel| pixels.iter().skip(channel).step_by(3).map(move |value| scaled(*value, channel));
        Ok((0..3).flat_map(plane).collect::<Vec<f32>>())
    };
    let images = Threads::share(all.len(), |row, _| one(row));
    let tensor = |images: Vec<Vec<f32>>| {
        vec![Values { shape: vec![images.len(), 3, to.1, to.0], values: images.concat() }.tensor("y")]
    };
    rows.by_request(images).into_iter().map(|images| images.map(tensor)).collect()
}
