//! What a model's path holds, and whether Orion serves it.

use std::path::{Path, PathBuf};

use orion_proto::{Code, Error, ModelName, ModelPolicy, ModelSpec, Result};
use serde::Deserialize;

use crate::{
    Family, Manifest, Precision, embedding, generation, magika, nano_ocr, onnx,
    orion_toml::{Generation, Kind, OrionToml},
    silero_vad, simulated, unreadable, unservable, vision, whisper,
};

const SERVED: &str = "served today are .gguf and .onnx files, folders of a hub (config.json of model_type \"bert\", \
                      \"llama\", \"mistral\", \"qwen2\", \"qwen3\" or \"whisper\", tokenizer.json, *.safetensors), \
                      folders of models of images (config.json of model_type \"efficientnet-lite\", \"resnet\" or \
                      \"crnn-ocr\", *.safetensors), Magika (config.min.json, model.onnx), Silero VAD (config.json of \
                      model_type \"silero-vad\", model.safetensors) and folders whose orion.toml says kind = \
                      \"simulated\"";

/// Says what a model's path holds, from its configuration and headers alone; every length is checked against its file.
///
/// # Errors
/// NOT_FOUND for a path that is not there, INVALID_ARGUMENT for a mistake in `orion.toml`, FAILED_PRECONDITION for what
/// cannot be served, naming what was found and what would be right.
pub fn inspect(name: &ModelName, path: &Path) -> Result<Manifest> {
    inspect_path(name, path).map_err(|error| Error::new(error.code, format!("model '{name}': {error}")))
}

fn inspect_path(name: &ModelName, path: &Path) -> Result<Manifest> {
    let found = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(Code::NotFound, format!("there is nothing at {}", path.display())),
        _ => unreadable(path, &error),
    })?;
    if !found.is_dir() {
        if is_onnx(path) {
            return onnx_manifest(name, path, path, "1".into(), &OrionToml::default());
        }
        if !is_gguf(path) {
            return Err(not_a_folder(path));
        }
        let source = generation::Source::inspect_gguf(path, &Generation::default())?;
        return Ok(generator(name, "1".into(), source, path, ModelPolicy::default()));
    }
    let settings = OrionToml::read(path)?.unwrap_or_default();
    let max_rows = settings.batching.max_rows;
    let policy = settings.policy()?;
    if settings.kind == Some(Kind::Simulated) {
        let latency = settings.simulated.unwrap_or_default();
        let spec = simulated::spec(name, "1".into(), max_rows, &latency, policy);
        let weight_bytes = spec.memory_bytes;
        return Ok(Manifest {
            spec,
            flops_per_row: 0.0,
            weight_bytes,
            path: path.into(),
            family: Family::Simulated(latency),
        });
    }
    let (folder, version) = newest_version(path)?;
    match settings.kind.map_or_else(|| recognised(&folder), |kind| Ok(Some(kind)))? {
        Some(Kind::Onnx) => return onnx_manifest(name, path, &onnx_file(&folder)?, version, &settings),
        Some(Kind::Magika) => {
            let source = magika::Source::inspect(&folder, settings.precision.unwrap_or_default(), max_rows)?;
            return Ok(Manifest {
                spec: ModelSpec { policy, ..source.spec(name, version, max_rows) },
                flops_per_row: source.graph.flops,
                weight_bytes: source.graph.weight_bytes,
                path: path.into(),
                family: Family::Magika(source),
            });
        }
        Some(Kind::SileroVad) => {
            let source = silero_vad::Source::inspect(&folder, settings.precision.unwrap_or_default())?;
            let policy = ModelPolicy { sequences: true, ..policy };
            return Ok(Manifest {
                spec: ModelSpec { policy, ..source.spec(name, version, max_rows) },
                flops_per_row: source.flops(),
                weight_bytes: source.weight_bytes,
                path: path.into(),
                family: Family::SileroVad(source),
            });
        }
        Some(Kind::SentenceEmbedding | Kind::Simulated) | None => {}
    }
    if settings.kind != Some(Kind::SentenceEmbedding) {
        if let Some(gguf) = only_gguf(&folder)? {
            let source = generation::Source::inspect_gguf(&gguf, &settings.generation)?;
            return Ok(generator(name, version, source, path, policy));
        }
        let model_type = model_type(&folder)?;
        if generation::ARCHITECTURES.contains(&model_type.as_str()) {
            let source = generation::Source::inspect_folder(&folder, &settings.generation)?;
            return Ok(generator(name, version, source, path, policy));
        }
        if model_type == "whisper" {
            return inspect_whisper(name, path, &folder, version, settings);
        }
        let images = |spec: ModelSpec, flops_per_row: f64, weight_bytes: u64, family: Family| -> Result<Manifest> {
            check_images(settings.precision)?;
            let spec = ModelSpec { policy: policy.clone(), ..spec };
            Ok(Manifest { spec, flops_per_row, weight_bytes, path: path.into(), family })
        };
        if vision::MODEL_TYPES.contains(&model_type.as_str()) {
            let source = vision::Source::inspect(&folder)?;
            let spec = source.spec(name, version, max_rows);
            return images(spec, source.flops(), source.weight_bytes(), Family::Vision(source));
        }
        if model_type == nano_ocr::MODEL_TYPE {
            let source = nano_ocr::Source::inspect(&folder)?;
            let spec = source.spec(name, version, max_rows);
            return images(spec, source.flops(), source.weight_bytes(), Family::NanoOcr(source));
        }
        if model_type != "bert" {
            return Err(unservable(format!("config.json's model_type '{model_type}' is not served yet; {SERVED}")));
        }
    }
    let source = embedding::Source::inspect(&folder, settings.precision.unwrap_or_default())?;
    Ok(Manifest {
        spec: ModelSpec { policy, ..source.spec(name, version, max_rows) },
        flops_per_row: source.config.flops(embedding::TYPICAL_TOKENS),
        weight_bytes: source.weight_bytes,
        path: path.into(),
        family: Family::Embedding(source),
    })
}

fn generator(
    name: &ModelName,
    version: String,
    source: generation::Source,
    path: &Path,
    policy: ModelPolicy,
) -> Manifest {
    Manifest {
        spec: ModelSpec { policy, ..source.spec(name, version) },
        flops_per_row: source.flops(),
        weight_bytes: source.weight_bytes,
        path: path.into(),
        family: Family::Generation(Box::new(source)),
    }
}

/// Models of images compute in f32 whatever their weights are stored in.
fn check_images(precision: Option<Precision>) -> Result<()> {
    match precision.unwrap_or_default() {
        Precision::F32 => Ok(()),
        other => Err(Error::invalid(format!(
            "orion.toml says precision = \"{}\", models of images compute in \"f32\": leave it out",
            other.name()
        ))),
    }
}

/// What a folder without `kind` in its orion.toml holds, where its files' names or its model_type tell.
fn recognised(folder: &Path) -> Result<Option<Kind>> {
    let (configured, graphs) = (folder.join("config.json").exists(), files_ending(folder, ".onnx")?);
    Ok(match (configured, graphs.is_empty()) {
        (false, false) if magika::is_in(folder) => Some(Kind::Magika),
        (false, false) => Some(Kind::Onnx),
        (true, _) if model_type(folder)? == "silero-vad" => Some(Kind::SileroVad),
        _ => None,
    })
}

fn onnx_manifest(
    name: &ModelName,
    path: &Path,
    file: &Path,
    version: String,
    settings: &OrionToml,
) -> Result<Manifest> {
    let max_rows = settings.batching.max_rows;
    let source = onnx::Source::inspect(file, settings.precision.unwrap_or_default(), max_rows)?;
    Ok(Manifest {
        spec: ModelSpec { policy: settings.policy()?, ..source.spec(name, version, max_rows) },
        flops_per_row: source.flops,
        weight_bytes: source.weight_bytes,
        path: path.into(),
        family: Family::Onnx(source),
    })
}

/// The graph of a folder: `model.onnx`, or the only file of its format.
fn onnx_file(folder: &Path) -> Result<PathBuf> {
    let whole = folder.join("model.onnx");
    match files_ending(folder, ".onnx")?.as_slice() {
        _ if whole.is_file() => Ok(whole),
        [file] => Ok(file.clone()),
        [] => Err(unservable(format!("folder {} has no *.onnx", folder.display()))),
        files => Err(unservable(format!(
            "folder {} has {} *.onnx, it must have one, or one named model.onnx",
            folder.display(),
            files.len()
        ))),
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gguf"))
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("onnx"))
}

/// The GGUF file of a folder that holds no other model.
fn only_gguf(folder: &Path) -> Result<Option<PathBuf>> {
    if folder.join("config.json").exists() {
        return Ok(None);
    }
    let mut files = entries(folder)?.into_iter().map(|name| folder.join(name)).filter(|path| is_gguf(path));
    let Some(first) = files.next() else { return Ok(None) };
    match files.count() {
        0 => Ok(Some(first)),
        more => Err(unservable(format!(
            "folder {} holds {} .gguf files, it must hold one: give the path of the file itself",
            folder.display(),
            more + 1
        ))),
    }
}

fn inspect_whisper(
    name: &ModelName,
    path: &Path,
    folder: &Path,
    version: String,
    settings: OrionToml,
) -> Result<Manifest> {
    let precision = settings.precision.unwrap_or_default();
    if precision != Precision::F32 {
        let asked = precision.name();
        return Err(unservable(format!("orion.toml asks for precision '{asked}', whisper computes in 'f32' alone")));
    }
    let source = whisper::Source::inspect(folder)?;
    Ok(Manifest {
        spec: ModelSpec { policy: settings.policy()?, ..source.spec(name, version, settings.batching.max_rows) },
        flops_per_row: source.config.flops(whisper::TYPICAL_TOKENS),
        weight_bytes: source.weight_bytes,
        path: path.into(),
        family: Family::Whisper(source),
    })
}

/// The folder that holds the files, and its version: of Triton's `<model>/<version>/` the newest.
fn newest_version(path: &Path) -> Result<(PathBuf, String)> {
    let number = |name: &String| name.parse::<u64>().ok().filter(|n| *n > 0 && n.to_string() == *name);
    let has_files = path.join("config.json").exists() || !files_ending(path, ".onnx")?.is_empty();
    let newest = entries(path)?.into_iter().filter(|name| path.join(name).is_dir()).filter_map(|n| number(&n)).max();
    Ok(match newest {
        Some(version) if !has_files => (path.join(version.to_string()), version.to_string()),
        _ => (path.into(), "1".into()),
    })
}

/// The names in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let io = |error: std::io::Error| unreadable(folder, &error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        names.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The files of a folder whose names end so, sorted.
pub(crate) fn files_ending(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.iter().filter(|name| name.ends_with(suffix)).map(|name| folder.join(name)).collect())
}

fn model_type(folder: &Path) -> Result<String> {
    #[derive(Deserialize)]
    struct Typed {
        model_type: Option<String>,
    }
    let path = folder.join("config.json");
    if !path.exists() {
        return Err(unknown_folder(folder)?);
    }
    let text = crate::file::read_text(&path)?;
    let typed: Typed = serde_json::from_slice(&text).map_err(|error| {
        unservable(format!("{} cannot be read: {}", path.display(), error.to_string().to_lowercase()))
    })?;
    typed.model_type.ok_or_else(|| unservable(format!("{} has no model_type; {SERVED}", path.display())))
}

fn unknown_folder(folder: &Path) -> Result<Error> {
    let names = entries(folder)?;
    Ok(match names.is_empty() {
        true => unservable(format!("folder {} is empty; {SERVED}", folder.display())),
        false => {
            let more = if names.len() > 8 { ", …" } else { "" };
            let listed = names.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
            unservable(format!("folder {} has no config.json, it holds: {listed}{more}; {SERVED}", folder.display()))
        }
    })
}

fn not_a_folder(file: &Path) -> Error {
    unservable(format!("{} is a file, the path must be its folder; {SERVED}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Precision, tiny_bert};
    use std::{fs, time::Duration};

    fn name() -> ModelName {
        ModelName::new("m").unwrap()
    }

    fn refusal(path: &Path) -> Error {
        inspect(&name(), path).unwrap_err()
    }

    #[test]
    fn triton_s_newest_version_is_served() {
        let root = tempfile::tempdir().unwrap();
        for version in ["2", "10", "010", "old"] {
            tiny_bert::write(&root.path().join(version));
        }
        let settings = "precision = \"bf16\"\nslo_ms = 20\n[batching]\nmax_rows = 8";
        fs::write(root.path().join("orion.toml"), settings).unwrap();
        let manifest = inspect(&name(), root.path()).unwrap();
        assert_eq!((manifest.spec.version.as_str(), manifest.spec.max_batch_rows), ("10", 8));
        let policy = &manifest.spec.policy;
        assert_eq!((policy.slo, policy.requirements.datatype.as_str()), (Some(Duration::from_millis(20)), "bf16"));
        let Family::Embedding(source) = manifest.family else { panic!("a sentence-embedding folder") };
        assert_eq!((source.precision, source.tokenizer), (Precision::Bf16, root.path().join("10/tokenizer.json")));
        assert!(manifest.spec.memory_bytes > manifest.weight_bytes / 2 && manifest.flops_per_row > 1e6);
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = |file: &str, text: &str| {
            let folder = tempfile::tempdir_in(root.path()).unwrap().keep();
            fs::write(folder.join(file), text).unwrap();
            folder
        };
        let missing = refusal(&root.path().join("nowhere"));
        assert!(missing.code == Code::NotFound && missing.message.contains("nowhere"), "{missing}");
        let gguf = folder("llama.gguf", "GGUF");
        let two = folder("a.gguf", "GGUF");
        fs::write(two.join("b.GGUF"), "").unwrap();
        for (path, words) in [
            (gguf.join("llama.gguf"), ["llama.gguf is not a whole GGUF file", "the version takes 4 bytes"]),
            (gguf, ["llama.gguf is not a whole GGUF file", "the version takes 4 bytes"]),
            (two, ["holds 2 .gguf files", "must hold one"]),
            (folder("a.ONNX", "").join("a.ONNX"), ["a.ONNX: it holds no graph", ""]),
            (folder("a.onnx", "nonsense"), ["a.onnx is not a whole ONNX file", ""]),
            (folder("a.txt", "").join("a.txt"), ["is a file", "its folder"]),
            (folder("weights.bin", ""), ["it holds: weights.bin", "kind = \"simulated\""]),
            (folder("config.json", r#"{"model_type": "t5"}"#), ["'t5'", "\"bert\", \"llama\""]),
            (folder("config.json", r#"{"model_type": "llama"}"#), ["no tokenizer.json", ""]),
            (folder("config.json", "{}"), ["no model_type", "\"bert\", \"llama\""]),
            (folder("config.json", "nonsense"), ["config.json cannot be read", ""]),
            (folder("config.json", r#"{"model_type": "bert"}"#), ["config.json", "missing field `hidden_size`"]),
            (folder("config.json", tiny_bert::CONFIG), ["no tokenizer.json", ""]),
            (folder("config.json", &tiny_bert::CONFIG.replace("gelu", "relu6")), ["hidden_act 'relu6'", "'gelu'"]),
            (
                folder("config.json", &tiny_bert::CONFIG.replace(": 3,", ": 5,")),
                ["hidden_size 48", "num_attention_heads 5"],
            ),
            (
                folder("config.json", &tiny_bert::CONFIG.replace(": 2,", ": 99999,")),
                ["num_hidden_layers is 99999", "1 to 1024"],
            ),
        ] {
            let error = refusal(&path);
            let found =
                words.iter().all(|word| error.message.contains(word)) && error.message.starts_with("model 'm': ");
            assert!(found && error.code == Code::FailedPrecondition, "{error}");
        }
        let two = folder("a.onnx", "");
        fs::write(two.join("b.onnx"), "").unwrap();
        assert!(refusal(&two).message.contains("has 2 *.onnx, it must have one"));
        let mistaken = refusal(&folder("orion.toml", "kind = \"simulated\"\nspeed = 1"));
        assert!(mistaken.code == Code::InvalidArgument && mistaken.message.contains("speed"), "{mistaken}");
    }

    #[test]
    fn weights_that_do_not_fit_the_configuration_are_named() {
        let root = tempfile::tempdir().unwrap();
        tiny_bert::write(root.path());
        let wide = tiny_bert::CONFIG.replace("\"intermediate_size\": 83", "\"intermediate_size\": 84");
        fs::write(root.path().join("config.json"), wide).unwrap();
        let error = refusal(root.path());
        let words = "tensor 'encoder.layer.0.intermediate.dense.weight' has shape [83, 48], it must be [84, 48]";
        assert!(error.message.contains(words), "{error}");
        fs::write(root.path().join("config.json"), tiny_bert::CONFIG.replace("_layers\": 2", "_layers\": 3")).unwrap();
        assert!(
            refusal(root.path()).message.contains("tensor 'encoder.layer.2.attention.self.query.weight' is missing")
        );
        fs::create_dir(root.path().join("1_Pooling")).unwrap();
        fs::write(root.path().join("1_Pooling/config.json"), r#"{"pooling_mode_cls_token": true}"#).unwrap();
        assert!(refusal(root.path()).message.contains("1_Pooling/config.json asks for a pooling"));
    }

    #[test]
    fn a_simulated_folder_is_one_file() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("orion.toml"), "kind = \"simulated\"\nhedge = true\n[simulated]\nmemory_bytes = 5")
            .unwrap();
        let manifest = inspect(&name(), root.path()).unwrap();
        assert_eq!((manifest.spec.family.as_str(), manifest.spec.memory_bytes), ("simulated", 5));
        assert!(manifest.path == root.path() && manifest.spec.policy.hedge);
        let pace = crate::Pace { slowdown: 2.0, copy_bytes_per_second: Some(10.0), ..crate::Pace::default() };
        assert_eq!(manifest.timing(&pace).map(|timing| timing.load_seconds), Some(0.5));
    }
}
