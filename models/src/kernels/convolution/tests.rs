use super::*;
use crate::kernels::{
    Border, Depthwise,
    weight::{PRECISIONS, rounded},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

struct Case {
    size: (usize, usize),
    inputs: usize,
    outputs: usize,
    window: Window,
    limits: Limits,
    borders: [Border; 2],
}

fn window(side: usize, stride: (usize, usize), border: Border) -> Window {
    Window { side, stride, border }
}

fn cases() -> Vec<Case> {
    let after = Border { bottom: 1, right: 1, ..Border::default() };
    let case = |size, inputs, outputs, window: Window, limits, borders| Case {
        size,
        inputs,
        outputs,
        window,
        limits,
        borders,
    };
    let (none, one, two) = (Border::default(), Border::even(1), Border::even(2));
    vec![
        case((1, 1), 1, 1, Window::PIXEL, Limits::NONE, [none, none]),
        case((5, 9), 17, 33, Window::PIXEL, Limits::RELU, [none, one]),
        case((23, 31), 40, 24, Window::PIXEL, Limits::RELU6, [none, none]),
        case((7, 7), 16, 96, Window::PIXEL, Limits::NONE, [two, none]),
        case((8, 6), 24, 47, window(1, (2, 2), none), Limits::NONE, [one, one]),
        case((13, 12), 3, 20, window(3, (2, 2), after), Limits::RELU6, [after, one]),
        case((6, 17), 5, 16, window(3, (1, 1), one), Limits::RELU, [two, none]),
        case((14, 15), 3, 9, window(7, (2, 2), Border::even(3)), Limits::NONE, [Border::even(3), none]),
        case((2, 34), 8, 41, window(2, (1, 1), none), Limits::RELU, [none, none]),
    ]
}

/// A map whose border is zero and whose pixels are drawn.
fn drawn(random: &mut StdRng, (height, width): (usize, usize), channels: usize, border: Border) -> Map {
    let mut map = Map::default();
    map.reshape(Layout { height, width, channels, border });
    // What was there before must not be seen.
    map.values_mut().fill(f32::NAN);
    map.reshape(Layout { height, width, channels, border });
    for row in 0..height {
        map.pixels_mut(row).iter_mut().for_each(|value| *value = random.random::<f32>() - 0.5);
    }
    map
}

fn floats(random: &mut StdRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.random::<f32>() - 0.5).collect()
}

/// The value of an input pixel; zero outside.
fn pixel(x: &Map, row: isize, column: isize, channel: usize) -> f32 {
    let layout = x.layout();
    let inside = |at: isize, size: usize| usize::try_from(at).ok().filter(|at| *at < size);
    match (inside(row, layout.height), inside(column, layout.width)) {
        (Some(row), Some(column)) => x.pixels(row)[column * layout.channels + channel],
        _ => 0.0,
    }
}

/// The sum over the window of one channel of the input.
fn window_sum(x: &Map, window: &Window, (row, column): (usize, usize), channel: usize, taps: &[f32]) -> f32 {
    let at = |index: usize, stride: usize, border: usize, tap: usize| (index * stride + tap) as isize - border as isize;
    let (down, across) = window.stride;
    (0..window.side * window.side)
        .map(|tap| {
            let row = at(row, down, window.border.top, tap / window.side);
            let column = at(column, across, window.border.left, tap % window.side);
            taps[tap] * pixel(x, row, column, channel)
        })
        .sum()
}

#[test]
fn convolutions_agree_with_the_plain_sum_at_every_edge() {
    let mut random = StdRng::seed_from_u64(1);
    for Case { size, inputs, outputs, window, limits, borders } in cases() {
        let area = window.side * window.side;
        let x = drawn(&mut random, size, inputs, borders[0]);
        let (weight, bias) = (floats(&mut random, outputs * inputs * area), floats(&mut random, outputs));
        let (height, width) = window.moved_over(size.0, size.1).unwrap();
        let added = drawn(&mut random, (height, width), outputs, borders[0]);
        for (precision, added) in
            PRECISIONS.into_iter().flat_map(|precision| [(precision, None), (precision, Some(&added))])
        {
            let weight = rounded(&weight, precision);
            let layer = Convolution::new(&weight, bias.clone(), window, limits, precision);
            let [mut out, mut alone] = [0; 2].map(|_| drawn(&mut random, (height, width), outputs, borders[1]));
            layer.forward(Threads::All, &x, &mut out, added);
            layer.forward(Threads::One, &x, &mut alone, added);
            for (index, channel) in (0..height * width).flat_map(|index| (0..outputs).map(move |c| (index, c))) {
                let (row, column) = (index / width, index % width);
                let taps = |input: usize| &weight[(channel * inputs + input) * area..][..area];
                let sums = (0..inputs).map(|input| window_sum(&x, &window, (row, column), input, taps(input)));
                let also = added.map_or(0.0, |added| added.pixels(row)[column * outputs + channel]);
                let want = (sums.sum::<f32>() + bias[channel] + also).clamp(limits.0, limits.1);
                let got = out.pixels(row)[column * outputs + channel];
                let place = format!("{size:?} {inputs}→{outputs} {window:?} at {row},{column},{channel}");
                assert!((got - want).abs() < 2e-5, "{place}: {got} for {want}");
                assert_eq!(got.to_bits(), alone.pixels(row)[column * outputs + channel].to_bits(), "{place}");
            }
            let filled = |values: &[f32]| values.iter().filter(|value| **value != 0.0).count();
            let inside: usize = (0..height).map(|row| filled(out.pixels(row))).sum();
            assert_eq!(
                inside,
                filled(&out.values()[..out.layout().len()]),
                "the border stays zero: {size:?} {window:?}"
            );
        }
    }
}

#[test]
fn depthwise_convolutions_agree_with_the_plain_sum_at_every_edge() {
    let mut random = StdRng::seed_from_u64(2);
    for Case { size, inputs: channels, window, limits, borders, .. } in cases() {
        let area = window.side * window.side;
        let x = drawn(&mut random, size, channels, borders[0]);
        let (weight, bias) = (floats(&mut random, channels * area), floats(&mut random, channels));
        let (height, width) = window.moved_over(size.0, size.1).unwrap();
        let mut out = drawn(&mut random, (height, width), channels, borders[1]);
        Depthwise::new(&weight, bias.clone(), window, limits).forward(Threads::All, &x, &mut out);
        for (index, channel) in (0..height * width).flat_map(|index| (0..channels).map(move |c| (index, c))) {
            let (row, column) = (index / width, index % width);
            let taps = &weight[channel * area..][..area];
            let want =
                (window_sum(&x, &window, (row, column), channel, taps) + bias[channel]).clamp(limits.0, limits.1);
            let got = out.pixels(row)[column * channels + channel];
            assert!((got - want).abs() < 1e-5, "{size:?} {window:?} at {row},{column},{channel}: {got} for {want}");
        }
    }
}
