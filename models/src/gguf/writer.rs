//! Writing GGUF files, so that tests need no download.

use super::Encoding;

/// A file that is being put together.
#[derive(Default)]
pub(crate) struct Writer {
    values: Vec<u8>,
    value_count: u64,
    tensors: Vec<(String, Vec<usize>, Encoding, Vec<u8>)>,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Writer {
    fn value(&mut self, key: &str, kind: u32, bytes: &[u8]) -> &mut Self {
        self.values.extend([&string(key)[..], &kind.to_le_bytes(), bytes].concat());
        self.value_count += 1;
        self
    }

    pub(crate) fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.value(key, 8, &string(text))
    }

    pub(crate) fn number(&mut self, key: &str, number: u32) -> &mut Self {
        self.value(key, 4, &number.to_le_bytes())
    }

    pub(crate) fn float(&mut self, key: &str, number: f32) -> &mut Self {
        self.value(key, 6, &number.to_le_bytes())
    }

    pub(crate) fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.value(key, 7, &[value.into()])
    }

    pub(crate) fn texts(&mut self, key: &str, texts: &[String]) -> &mut Self {
        let elements: Vec<u8> = texts.iter().flat_map(|text| string(text)).collect();
        self.value(key, 9, &[&8u32.to_le_bytes()[..], &(texts.len() as u64).to_le_bytes(), &elements].concat())
    }

    /// An array of 32-bit numbers of this type: 4 unsigned, 5 signed, 6 float.
    pub(crate) fn words(&mut self, key: &str, element: u32, words: &[u32]) -> &mut Self {
        let elements: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.value(key, 9, &[&element.to_le_bytes()[..], &(words.len() as u64).to_le_bytes(), &elements].concat())
    }

    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], encoding: Encoding, data: Vec<u8>) -> &mut Self {
        self.tensors.push((name.into(), shape.into(), encoding, data));
        self
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let counts = [self.tensors.len() as u64, self.value_count].map(u64::to_le_bytes).concat();
        let mut out = [b"GGUF", &3u32.to_le_bytes()[..], &counts, &self.values].concat();
        let mut offset = 0usize;
        for (name, shape, encoding, data) in &self.tensors {
            out.extend([&string(name)[..], &(shape.len() as u32).to_le_bytes()].concat());
            shape.iter().rev().for_each(|dimension| out.extend((*dimension as u64).to_le_bytes()));
            out.extend([&encoding.number().to_le_bytes()[..], &(offset as u64).to_le_bytes()].concat());
            offset += data.len().next_multiple_of(32);
        }
        for (_, _, _, data) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(data);
        }
        out
    }
}
