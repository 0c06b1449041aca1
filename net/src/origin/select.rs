//! Which files of a repository are a model that Orion loads: most have the same weights in several formats.

use orion_proto::{Error, Result};

use super::RemoteFile;

/// Weights that are loaded, the best first.
const LOADED: [&str; 3] = [".safetensors", ".gguf", ".onnx"];
/// Weights that are not, or only converted; and what else is of no use to a server.
const NOT_LOADED: [&str; 16] = [
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".ot",
    ".tflite",
    ".mlmodel",
    ".mlpackage",
    ".pb",
    ".onnx_data",
    ".xml",
    ".pkl",
    ".npz",
    ".engine",
];
/// What is only for people to look at.
const SHOWN: [&str; 8] = [".md", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf", ".mp4"];

/// The files to take; of a hub's repository the weights of one format, and what is with them.
///
/// # Errors
/// INVALID_ARGUMENT listing the files between which it cannot choose.
pub(super) fn select(files: Vec<RemoteFile>, include: &[String], is_hub: bool) -> Result<Vec<RemoteFile>> {
    if !include.is_empty() {
        return included(files, include);
    }
    if !is_hub {
        return Ok(files);
    }
    let has = |file: &&RemoteFile, ends: &[&str]| ends.iter().any(|end| file.path.to_lowercase().ends_with(end));
    // The root's weights are the model; folders hold it in other formats.
    let weights = |end: &str, in_root: bool| -> Vec<&RemoteFile> {
        files.iter().filter(|file| has(file, &[end]) && (!in_root || !file.path.contains('/'))).collect()
    };
    let found = [true, false].into_iter().flat_map(|in_root| LOADED.map(|end| (end, weights(end, in_root))));
    let Some((end, chosen)) = found.into_iter().find(|(_, found)| !found.is_empty()) else {
        let other: Vec<&str> =
            files.iter().filter(|file| has(file, &NOT_LOADED)).map(|file| file.path.as_str()).collect();
        return Err(Error::invalid(match other.is_empty() {
            true => "it has no weights".to_owned(),
            false => format!(
                "it has weights in none of the formats that are loaded (safetensors, GGUF, ONNX), but {}: download them and \
                 run orion models convert",
                other.join(", ")
            ),
        }));
    };
    if end != ".safetensors" && chosen.len() > 1 && !are_shards(&chosen) {
        let names: Vec<&str> = chosen.iter().map(|file| file.path.as_str()).collect();
        return Err(Error::invalid(format!(
            "it has several models, choose with --include, such as --include '{}': {}",
            names[0],
            names.join(", ")
        )));
    }
    let folder = |file: &RemoteFile| file.path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let home = folder(chosen[0]);
    let chosen: Vec<String> = chosen.iter().map(|file| file.path.clone()).collect();
    let is_weight = |file: &&RemoteFile| has(file, &LOADED) || has(file, &NOT_LOADED);
    let belongs = |file: &RemoteFile| {
        let near = folder(file).is_none() || folder(file) == home;
        let is_hidden = file.path.split('/').any(|part| part.starts_with('.'));
        near && !is_hidden && !is_weight(&file) && !has(&file, &SHOWN)
    };
    Ok(files.iter().filter(|file| chosen.contains(&file.path) || belongs(file)).cloned().collect())
}

fn included(files: Vec<RemoteFile>, include: &[String]) -> Result<Vec<RemoteFile>> {
    let known: Vec<String> = files.iter().take(50).map(|file| file.path.clone()).collect();
    let taken: Vec<RemoteFile> =
        files.into_iter().filter(|file| include.iter().any(|pattern| matches(pattern, &file.path))).collect();
    match taken.is_empty() {
        false => Ok(taken),
        true => Err(Error::invalid(format!("no file matches {}, there are: {}", include.join(", "), known.join(", ")))),
    }
}

/// Whether all are parts of one file: `NAME-00001-of-00003.gguf`.
fn are_shards(files: &[&RemoteFile]) -> bool {
    let stem = |file: &&RemoteFile| {
        let name = file.path.rsplit_once('.').map_or(file.path.as_str(), |(stem, _)| stem);
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(count) && digits(number)).then(|| (stem.to_owned(), count.to_owned()))
    };
    let first = files.first().and_then(stem);
    first.is_some() && files.iter().all(|file| stem(file) == first)
}

/// Whether a path, or its last part, matches a pattern in which `*` is any text and `?` any one letter.
fn matches(pattern: &str, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    [path, name].into_iter().any(|text| {
        let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
        // Where to go on if what came after the last star does not fit.
        let (mut at, mut of, mut star) = (0, 0, None);
        while of < text.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, of));
                    at += 1;
                }
                Some(letter) if *letter == '?' || *letter == text[of] => (at, of) = (at + 1, of + 1),
                _ => match star {
                    Some((from, taken)) => {
                        star = Some((from, taken + 1));
                        (at, of) = (from + 1, taken + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|letter| *letter == '*')
    })
}

#[cfg(test)]
mod tests {
    use super::{super::listing::Digest, *};

    fn chosen(paths: &[&str], include: &[&str]) -> Result<Vec<String>> {
        let file = |path: &&str| RemoteFile {
            path: (*path).to_owned(),
            bytes: 1,
            object: object_store::path::Path::from(*path),
            tag: None,
            changed: 0,
            digest: Digest::Unknown,
        };
        let include: Vec<String> = include.iter().map(|pattern| (*pattern).to_owned()).collect();
        let files = select(paths.iter().map(file).collect(), &include, true)?;
        Ok(files.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn of_the_same_weights_in_several_formats_the_best_is_taken() {
        let all = [
            ".gitattributes",
            "1_Pooling/config.json",
            "README.md",
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/config.json",
            "pytorch_model.bin",
            "tokenizer.json",
            "vocab.txt",
            "tf_model.h5",
            "openvino/openvino_model.xml",
        ];
        assert_eq!(chosen(&all, &[]).unwrap(), ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]);
        assert_eq!(
            chosen(&["config.json", "onnx/model.onnx", "onnx/extra.json", "other/x.json"], &[]).unwrap(),
            ["config.json", "onnx/model.onnx", "onnx/extra.json"]
        );
    }

    #[test]
    fn several_models_are_chosen_from_by_their_user() {
        let all = ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "README.md"];
        let error = chosen(&all, &[]).unwrap_err().message;
        assert!(error.contains("--include") && error.contains("m-Q8_0.gguf"), "{error}");
        assert_eq!(chosen(&all, &["*Q8_0*"]).unwrap(), ["m-Q8_0.gguf"]);
        assert!(chosen(&all, &["*Q5*"]).unwrap_err().message.contains("m-Q4_K_M.gguf"));
        let shards = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        assert_eq!(chosen(&shards, &[]).unwrap(), shards);
        let error = chosen(&["pytorch_model.bin"], &[]).unwrap_err().message;
        assert!(error.contains("orion models convert") && error.contains("pytorch_model.bin"), "{error}");
    }

    #[test]
    fn patterns_match_as_a_shells_do() {
        for (pattern, path, fits) in [
            ("*.gguf", "a/b.gguf", true),
            ("a/*.gguf", "a/b.gguf", true),
            ("b.????", "a/b.gguf", true),
            ("*a*b*", "xaybz", true),
            ("*a*b", "xaybz", false),
            ("", "x", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, path), fits, "{pattern} {path}");
        }
    }
}
