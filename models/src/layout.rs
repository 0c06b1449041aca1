//! How the files of a model lie in its folder.

use std::path::{Path, PathBuf};

use orion_proto::{Error, Result};
use serde::Deserialize;

use crate::{folder::SERVED, unreadable, unservable};

/// The graph of a folder: `model.onnx`, or the only file of its format.
pub(crate) fn onnx_file(folder: &Path) -> Result<PathBuf> {
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

pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gguf"))
}

pub(crate) fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("onnx"))
}

/// The GGUF file of a folder that holds no other model.
pub(crate) fn only_gguf(folder: &Path) -> Result<Option<PathBuf>> {
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

/// The folder that holds the files, and its version: of Triton's `<model>/<version>/` the newest.
pub(crate) fn newest_version(path: &Path) -> Result<(PathBuf, String)> {
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

pub(crate) fn model_type(folder: &Path) -> Result<String> {
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
