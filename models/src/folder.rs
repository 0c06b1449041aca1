//! What a model's path holds, and whether Orion serves it.

use std::path::{Path, PathBuf};

use crate::{
    Family, Manifest, Precision, bert, generation,
    layout::{files_ending, is_gguf, is_onnx, model_type, newest_version, only_gguf, onnx_file},
    magika, nano_ocr, onnx,
    orion_toml::{Kind, OrionToml},
    silero_vad, simulated, steps, training, unreadable, unservable, vision, whisper,
};
use orion_proto::{Code, Error, ModelName, ModelPolicy, ModelSpec, Result, step::Run};

pub(crate) const SERVED: &str = "served today are .gguf and .onnx files, folders of a hub (config.json of model_type \"bert\", \
                      \"llama\", \"mistral\", \"qwen2\", \"qwen3\" or \"whisper\", tokenizer.json, *.safetensors), \
                      folders of models of images (config.json of model_type \"efficientnet-lite\", \"resnet\" or \
                      \"crnn-ocr\", *.safetensors), Magika (config.min.json, model.onnx), Silero VAD (config.json of \
                      model_type \"silero-vad\", model.safetensors), what `orion train` leaves and folders whose orion.toml says kind = \
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
    if let Some(step) = path.to_str().filter(|path| Run::is_path(path)) {
        return step_of(name, path, &Run::of_path(step)?);
    }
    let found = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(Code::NotFound, format!("there is nothing at {}", path.display())),
        _ => unreadable(path, &error),
    })?;
    if !found.is_dir() {
        let settings = OrionToml::default();
        let place = Place { name, path, folder: path.into(), version: "1".into(), settings };
        return match () {
            () if is_onnx(path) => place.onnx(path),
            () if is_gguf(path) => place.gguf(path),
            () => Err(not_a_folder(path)),
        };
    }
    let settings = OrionToml::read(path)?.unwrap_or_default();
    let simulated = settings.kind == Some(Kind::Simulated);
    let (folder, version) = if simulated { (path.into(), "1".into()) } else { newest_version(path)? };
    let place = Place { name, path, folder, version, settings };
    match place.settings.kind.map_or_else(|| recognised(&place.folder), |kind| Ok(Some(kind)))? {
        Some(Kind::Simulated) => place.simulated(),
        Some(Kind::Onnx) => place.onnx(&onnx_file(&place.folder)?),
        Some(Kind::Magika) => place.magika(),
        Some(Kind::SileroVad) => place.silero_vad(),
        Some(Kind::SentenceEmbedding | Kind::TextClassification | Kind::Reranker) => place.bert(),
        None => place.by_model_type(),
    }
}

/// A step has no files.
fn step_of(name: &ModelName, path: &Path, run: &Run) -> Result<Manifest> {
    let (spec, family) = (steps::spec(name, run), Family::Step(Box::new(run.clone())));
    Ok(Manifest { spec, flops_per_row: 0.0, weight_bytes: 0, path: path.into(), family })
}

/// Where a model lies, and what its owner says of it.
struct Place<'a> {
    name: &'a ModelName,
    path: &'a Path,
    /// Of its newest version.
    folder: PathBuf,
    version: String,
    settings: OrionToml,
}

impl Place<'_> {
    fn manifest(&self, spec: ModelSpec, flops_per_row: f64, weight_bytes: u64, family: Family) -> Result<Manifest> {
        let policy = ModelPolicy { sequences: spec.policy.sequences, ..self.settings.policy()? };
        let spec = ModelSpec { policy, ..spec };
        Ok(Manifest { spec, flops_per_row, weight_bytes, path: self.path.into(), family })
    }

    fn max_rows(&self) -> usize {
        self.settings.batching.max_rows
    }

    /// What a folder of a hub says that it is in its config.json, or the only GGUF file of a folder.
    fn by_model_type(&self) -> Result<Manifest> {
        if let Some(gguf) = only_gguf(&self.folder)? {
            return self.gguf(&gguf);
        }
        let model_type = model_type(&self.folder)?;
        match model_type.as_str() {
            generator if generation::ARCHITECTURES.contains(&generator) => {
                self.generator(generation::Source::inspect_folder(&self.folder, &self.settings.generation)?)
            }
            "whisper" => self.whisper(),
            images if vision::MODEL_TYPES.contains(&images) => self.vision(),
            nano_ocr::MODEL_TYPE => self.nano_ocr(),
            training::MODEL_TYPE => self.trained(),
            training::QUESTIONS_TYPE => self.image_question(),
            "bert" => self.bert(),
            _ => Err(unservable(format!("config.json's model_type '{model_type}' is not served yet; {SERVED}"))),
        }
    }

    fn bert(&self) -> Result<Manifest> {
        let precision = self.settings.precision.unwrap_or_default();
        let source = bert::Source::inspect(&self.folder, self.settings.kind, precision)?;
        let spec = source.spec(self.name, self.version.clone(), self.max_rows());
        self.manifest(spec, source.flops(), source.weight_bytes, Family::Bert(source))
    }

    fn gguf(&self, file: &Path) -> Result<Manifest> {
        self.generator(generation::Source::inspect_gguf(file, &self.settings.generation)?)
    }

    fn generator(&self, source: generation::Source) -> Result<Manifest> {
        // Weights are read where they lie in the files, in the precision that they have there.
        if let Some(precision) = self.settings.precision.filter(|precision| *precision != Precision::F32) {
            return Err(unservable(format!(
                "orion.toml says precision = \"{0}\", a text generator runs in its files' own precision: write them in \
                 another with: orion models convert SRC DST --dtype {0}",
                precision.name()
            )));
        }
        let spec = source.spec(self.name, self.version.clone());
        self.manifest(spec, source.flops(), source.weight_bytes, Family::Generation(Box::new(source)))
    }

    fn simulated(&self) -> Result<Manifest> {
        let latency = self.settings.simulated.clone().unwrap_or_default();
        let policy = self.settings.policy()?;
        let spec = simulated::spec(self.name, self.version.clone(), self.max_rows(), &latency, policy);
        let weight_bytes = spec.memory_bytes;
        self.manifest(spec, 0.0, weight_bytes, Family::Simulated(latency))
    }

    fn trained(&self) -> Result<Manifest> {
        let source = training::Source::inspect(&self.folder)?;
        let spec = source.spec(self.name, self.version.clone(), self.max_rows());
        let (flops, weight_bytes) = (source.flops(), source.weight_bytes());
        self.manifest(spec, flops, weight_bytes, Family::Trained(source))
    }

    fn image_question(&self) -> Result<Manifest> {
        let source = training::QuestionsSource::inspect(&self.folder)?;
        let spec = source.spec(self.name, self.version.clone(), self.max_rows());
        let (flops, weight_bytes) = (source.flops(), source.weight_bytes());
        self.manifest(spec, flops, weight_bytes, Family::ImageQuestion(source))
    }

    fn onnx(&self, file: &Path) -> Result<Manifest> {
        let precision = self.settings.precision.unwrap_or_default();
        let source = onnx::Source::inspect(file, precision, self.max_rows())?;
        let spec = source.spec(self.name, self.version.clone(), self.max_rows());
        self.manifest(spec, source.flops, source.weight_bytes, Family::Onnx(source))
    }

    fn magika(&self) -> Result<Manifest> {
        let precision = self.settings.precision.unwrap_or_default();
        let source = magika::Source::inspect(&self.folder, precision, self.max_rows())?;
        let spec = source.spec(self.name, self.version.clone(), self.max_rows());
        let (flops, weight_bytes) = (source.graph.flops, source.graph.weight_bytes);
        self.manifest(spec, flops, weight_bytes, Family::Magika(source))
    }

    fn silero_vad(&self) -> Result<Manifest> {
        let source = silero_vad::Source::inspect(&self.folder, self.settings.precision.unwrap_or_default())?;
        let mut spec = source.spec(self.name, self.version.clone(), self.max_rows());
        spec.policy.sequences = true;
        self.manifest(spec, source.flops(), source.weight_bytes, Family::SileroVad(source))
    }

    fn whisper(&self) -> Result<Manifest> {
        let source = whisper::Source::inspect(&self.folder, self.settings.precision.unwrap_or_default())?;
        let spec = source.spec(self.name, self.version.clone(), self.max_rows());
        let flops = source.config.flops(whisper::TYPICAL_TOKENS);
        self.manifest(spec, flops, source.weight_bytes, Family::Whisper(source))
    }

    fn vision(&self) -> Result<Manifest> {
        let source = vision::Source::inspect(&self.folder, self.settings.precision.unwrap_or_default())?;
        let spec = source.spec(self.name, self.version.clone(), self.max_rows());
        self.manifest(spec, source.flops(), source.weight_bytes(), Family::Vision(source))
    }

    fn nano_ocr(&self) -> Result<Manifest> {
        let source = nano_ocr::Source::inspect(&self.folder, self.settings.precision.unwrap_or_default())?;
        let spec = source.spec(self.name, self.version.clone(), self.max_rows());
        self.manifest(spec, source.flops(), source.weight_bytes(), Family::NanoOcr(source))
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

fn not_a_folder(file: &Path) -> Error {
    let format = file.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
    unservable(match format.as_deref() {
        Some("pt" | "pth" | "bin") => format!(
            "{0} is not served as it is, make a folder of it with: orion models convert {0} FOLDER; {SERVED}",
            file.display()
        ),
        _ => format!("{} is a file, the path must be its folder; {SERVED}", file.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Precision, tiny_bert, tiny_llama};
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
        let Family::Bert(source) = manifest.family else { panic!("a BERT folder") };
        assert_eq!((source.precision, source.tokenizer), (Precision::Bf16, root.path().join("10/tokenizer.json")));
        assert!(manifest.spec.memory_bytes > manifest.weight_bytes / 2 && manifest.flops_per_row > 1e6);
    }

    #[test]
    fn a_generator_runs_in_its_files_precision_and_in_no_other() {
        let root = tempfile::tempdir().unwrap();
        tiny_llama::write(root.path()).unwrap();
        for (precision, served) in [("f32", true), ("f16", false), ("bf16", false)] {
            fs::write(root.path().join("orion.toml"), format!("precision = \"{precision}\"")).unwrap();
            let refused = inspect(&name(), root.path()).err().map(|error| error.message).unwrap_or_default();
            let named = refused.contains(&format!("orion models convert SRC DST --dtype {precision}"));
            assert_eq!((refused.is_empty(), named), (served, !served), "{refused}");
        }
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
            (folder("a.pth", "").join("a.pth"), ["orion models convert", "a.pth FOLDER"]),
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
