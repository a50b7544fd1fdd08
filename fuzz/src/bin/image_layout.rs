//! OCI image layouts, as directories: an index, a manifest and a layer of any bytes. Digests fit where a
//! manifest is to be reached.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use images::{ImageName, import};
use libfuzzer_sys::fuzz_target;
use model::{Digest, DigestFunction};
use store::{Store, StoreOptions};

static ROOT: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("fuzz-layout-{}", std::process::id())));
static STORE: LazyLock<Arc<Store>> =
    LazyLock::new(|| Store::open(&ROOT.join("store"), StoreOptions::default()).expect("a store"));

fn blob(content: &[u8]) -> String {
    let hash = Digest::of(DigestFunction::Sha256, content).hex();
    fs::write(ROOT.join("layout/blobs/sha256").join(&hash), content).expect("a blob");
    hash
}

fuzz_target!(|input: (u8, &[u8], &[u8])| {
    let (kind, json, layer) = input;
    let layout = ROOT.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).expect("the layout");
    let text = match kind % 3 {
        // The index itself, a manifest, or a layer.
        0 => json.to_vec(),
        1 => {
            let (hash, size) = (blob(json), json.len());
            format!(r#"{{"manifests":[{{"digest":"sha256:{hash}","size":{size}}}]}}"#).into_bytes()
        }
        _ => {
            let (hash, size) = (blob(layer), layer.len());
            let manifest = format!(r#"{{"layers":[{{"digest":"sha256:{hash}","size":{size}}}]}}"#);
            let (hash, size) = (blob(manifest.as_bytes()), manifest.len());
            format!(r#"{{"manifests":[{{"digest":"sha256:{hash}","size":{size}}}]}}"#).into_bytes()
        }
    };
    fs::write(layout.join("index.json"), text).expect("the index");
    let name: ImageName = "image".parse().expect("a name");
    // An archive of any bytes is read as well.
    let archive = ROOT.join("archive");
    fs::write(&archive, layer).expect("the archive");
    for path in [&layout, &archive] {
        if let Err(error) = import(&STORE, &name, path) {
            assert!(!error.to_string().is_empty());
        }
    }
    fs::remove_dir_all(&layout).expect("the layout is removed");
});
