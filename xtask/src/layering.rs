//! The house's floors: a crate imports only what stands above it in [`FLOORS`].
//!
//! Cargo refuses cycles but not shortcuts. This reads the graph that cargo itself sees and names
//! every edge that goes the wrong way, dev-dependencies included but for the crates beside the
//! house. A new crate fails here until it is given its place.

use std::process::Command;

use serde_json::Value;

/// From the bottom up: each may import those before it.
const FLOORS: [&str; 26] = [
    "chain",
    "proto",
    "model",
    "events",
    "sys",
    "access",
    "embedded",
    "store",
    "asset",
    "fetch",
    "upstream",
    "runtimes",
    "inputroot",
    "images",
    "sandbox",
    "worker",
    "history",
    "traces",
    "web",
    "reapi",
    "cluster",
    "vm",
    "vz",
    "guest",
    "settings",
    "actiond",
];

/// Beside the house. Tests may import them, products may not.
const BESIDE: [Beside; 10] = [
    Beside { name: "launch", imports: &[] },
    Beside { name: "testkit", imports: &["launch", "model", "sys", "store", "reapi"] },
    Beside { name: "attack", imports: &["testkit"] },
    Beside { name: "bench", imports: &["model"] },
    Beside { name: "conformance", imports: &["proto", "testkit"] },
    Beside { name: "fleet", imports: &[] },
    Beside { name: "action-tool", imports: &[] },
    Beside { name: "packaging", imports: &["embedded", "runtimes"] },
    Beside { name: "proto-codegen", imports: &[] },
    Beside { name: "xtask", imports: &["launch"] },
];

struct Beside {
    name: &'static str,
    imports: &'static [&'static str],
}

/// `from` imports `to`, both of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    from: String,
    to: String,
    /// A dev-dependency.
    only_tests: bool,
}

/// Every crate that has no place, and every edge that is not allowed, each as a sentence.
fn violations(crates: &[String], edges: &[Edge]) -> Vec<String> {
    let strangers = crates.iter().filter(|name| !has_place(name));
    let strangers =
        strangers.map(|name| format!("{name} has no place: give it one in xtask/src/layering.rs"));
    let wrong = edges.iter().filter(|edge| !is_allowed(edge));
    strangers
        .chain(wrong.map(|edge| format!("{} must not import {}", edge.from, edge.to)))
        .collect()
}

fn has_place(name: &str) -> bool {
    FLOORS.contains(&name) || BESIDE.iter().any(|beside| beside.name == name)
}

fn is_allowed(edge: &Edge) -> bool {
    if let Some(beside) = BESIDE.iter().find(|beside| beside.name == edge.from) {
        return beside.imports.contains(&edge.to.as_str());
    }
    if edge.to == "testkit" {
        return edge.only_tests;
    }
    let floor = |name: &str| FLOORS.iter().position(|floor| *floor == name);
    matches!((floor(&edge.from), floor(&edge.to)), (Some(from), Some(to)) if to < from)
}

/// The workspace's own crates and the edges between them, as `cargo metadata` has them.
fn graph(metadata: &Value) -> (Vec<String>, Vec<Edge>) {
    let packages = metadata["packages"].as_array().expect("cargo metadata has packages");
    let name_of =
        |package: &Value| package["name"].as_str().expect("a package has a name").to_owned();
    let crates: Vec<String> = packages.iter().map(name_of).collect();
    let edges = packages.iter().flat_map(|package| {
        let dependencies = package["dependencies"].as_array().expect("a package has dependencies");
        dependencies.iter().filter(|dependency| dependency["path"].is_string()).map(|dependency| {
            Edge {
                from: name_of(package),
                to: name_of(dependency),
                only_tests: dependency["kind"] == "dev",
            }
        })
    });
    let edges = edges.collect();
    (crates, edges)
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(crate::workspace::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

#[test]
fn the_workspace_keeps_its_layers() {
    let (crates, edges) = graph(&metadata());
    assert!(crates.iter().any(|name| name == "actiond"), "the graph is not ours: {crates:?}");
    assert!(!edges.is_empty(), "a house without stairs was not read right");
    assert_eq!(violations(&crates, &edges), Vec::<String>::new());
}

/// The checker's verdict on a graph with the one edge `from` to `to`.
fn check(from: &str, to: &str, only_tests: bool) -> Vec<String> {
    violations(&[], &[Edge { from: from.into(), to: to.into(), only_tests }])
}

#[test]
fn downwards_is_allowed() {
    assert!(check("worker", "store", false).is_empty());
    assert!(check("actiond", "model", false).is_empty());
    assert!(check("store", "testkit", true).is_empty());
}

#[test]
fn upwards_and_sideways_are_not() {
    assert_eq!(check("store", "reapi", false), ["store must not import reapi"]);
    assert_eq!(check("model", "sys", false), ["model must not import sys"]);
    assert_eq!(check("sandbox", "worker", true), ["sandbox must not import worker"]);
    assert_eq!(check("store", "store", false), ["store must not import store"]);
}

#[test]
fn products_do_not_import_what_stands_beside() {
    assert_eq!(check("worker", "testkit", false), ["worker must not import testkit"]);
    assert_eq!(check("actiond", "xtask", true), ["actiond must not import xtask"]);
    assert_eq!(check("testkit", "actiond", false), ["testkit must not import actiond"]);
}

#[test]
fn a_crate_without_a_place_is_named() {
    let found = violations(&["attic".into()], &[]);
    assert_eq!(found, ["attic has no place: give it one in xtask/src/layering.rs"]);
}

#[test]
fn edges_are_read_from_metadata() {
    let metadata = serde_json::json!({ "packages": [
        { "name": "store", "dependencies": [
            { "name": "bytes", "kind": null },
            { "name": "model", "kind": null, "path": "crates/model" },
            { "name": "testkit", "kind": "dev", "path": "crates/testkit" },
        ]},
    ]});
    let (crates, edges) = graph(&metadata);
    assert_eq!(crates, ["store"]);
    let edge = |to: &str, only_tests| Edge { from: "store".into(), to: to.into(), only_tests };
    assert_eq!(edges, [edge("model", false), edge("testkit", true)]);
}
