//! Each crate is compiled once: programs that are built by themselves resolve the features that they have
//! when they are built with others.
//!
//! Cargo is asked for both lists of features. It compiles nothing for that. A crate that differs here would
//! be compiled twice, and all that imports it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{binaries::OF_A_RELEASE, process, workspace};

/// The features of each crate, by its name, version and source.
type Features = BTreeMap<String, BTreeSet<String>>;

/// The features that cargo resolves for these packages on this machine, without those that only tests need.
fn features_of(packages: &[&str]) -> Features {
    let mut cargo = process::cargo();
    cargo.current_dir(workspace::root()).args(["tree", "--locked", "--edges", "normal"]);
    cargo.args(["--target", &workspace::host_triple().unwrap()]);
    cargo.args(["--prefix", "none", "--no-dedupe", "--format", "{p}|{f}"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    let mut features = Features::new();
    for line in process::output(&mut cargo).unwrap().lines() {
        let Some((name, list)) = line.split_once('|') else { continue };
        let list = list.split(',').filter(|feature| !feature.is_empty()).map(str::to_owned);
        features.entry(name.to_owned()).or_default().extend(list);
    }
    features
}

#[test]
fn the_daemon_alone_is_compiled_as_with_all_programs_of_a_release() {
    let (alone, together) = (features_of(&["actiond"]), features_of(&OF_A_RELEASE));
    assert!(alone.len() > 100, "cargo tree lists {} crates", alone.len());
    let different: Vec<_> = alone
        .iter()
        .filter(|(name, features)| together.get(*name) != Some(features))
        .map(|(name, features)| format!("{name}: {features:?}, not {:?}", together.get(name)))
        .collect();
    assert!(
        different.is_empty(),
        "the feature `clients` of actiond must ask for what differs:\n{}",
        different.join("\n")
    );
}
