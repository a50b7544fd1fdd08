//! Inside a crate, modules that stand side by side import each other in one direction only.
//!
//! Cargo forbids circles between crates; between modules nothing does. This reads each crate's source,
//! finds in which module every path ends, and names each group of siblings that import each other in a
//! circle. A module and its own children may know each other. Tests are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Expr, Item, ItemMod, ItemUse, Meta, Token, UseTree, punctuated::Punctuated, visit::Visit,
};

use crate::workspace;

/// The names of a module, from its crate's root downwards; empty for the root itself.
type ModulePath = Vec<String>;

/// A crate's modules, as they are declared.
#[derive(Debug, Default)]
struct Crate(BTreeMap<ModulePath, Module>);

#[derive(Debug, Default)]
struct Module {
    /// The names of what it defines itself, modules left out.
    defines: BTreeSet<String>,
    /// The names that its `use` declarations bring into scope, each with the path as written.
    imports: Vec<(String, Vec<String>)>,
    /// Paths as written of what it imports whole, with a `*`.
    globs: Vec<Vec<String>>,
    /// Every path as written outside of tests.
    mentions: BTreeSet<Vec<String>>,
}

impl Crate {
    fn read(root: &Path) -> Self {
        let mut read = Self::default();
        let folder = root.parent().expect("a file has a folder").to_owned();
        read.read_file(root, &folder, &Vec::new());
        read
    }

    /// Reads a module's file; its children's files are in `folder`.
    fn read_file(&mut self, file: &Path, folder: &Path, path: &ModulePath) {
        let code = fs::read_to_string(file).unwrap_or_else(|error| {
            panic!("{}: {error}", file.display());
        });
        let parsed = syn::parse_file(&code).unwrap_or_else(|error| {
            panic!("{}: {error}", file.display());
        });
        self.read_items(&parsed.items, folder, path);
    }

    fn read_items(&mut self, items: &[Item], folder: &Path, path: &ModulePath) {
        let mut module = Module::default();
        for item in items {
            if is_test(item) {
                continue;
            }
            match item {
                Item::Mod(child) => self.read_child(child, folder, path),
                Item::Use(item) => module.import(item),
                _ => {
                    module.defines.extend(name_of(item));
                    Mentions(&mut module.mentions).visit_item(item);
                }
            }
        }
        self.0.insert(path.clone(), module);
    }

    fn read_child(&mut self, child: &ItemMod, folder: &Path, path: &ModulePath) {
        let name = child.ident.to_string();
        let below = folder.join(&name);
        let path = [&path[..], std::slice::from_ref(&name)].concat();
        match &child.content {
            Some((_, items)) => self.read_items(items, &below, &path),
            None => {
                let file = file_of(child, folder, &name);
                self.read_file(&file, &below, &path);
            }
        }
    }

    fn has(&self, path: &[String]) -> bool {
        self.0.contains_key(path)
    }

    /// The module in which the path that stands in `module` ends; none for what another crate defines.
    fn resolve(&self, module: &[String], written: &[String], depth: usize) -> Option<ModulePath> {
        /// Imports of imports are followed so far.
        const DEEPEST: usize = 16;
        if depth > DEEPEST {
            return None;
        }
        let (first, rest) = written.split_first()?;
        let (mut at, mut rest) = match first.as_str() {
            "crate" => (Vec::new(), rest),
            "self" => (module.to_vec(), rest),
            "super" => (module[..module.len().checked_sub(1)?].to_vec(), rest),
            _ => {
                let known = self.has(&[module, std::slice::from_ref(first)].concat());
                known.then(|| (module.to_vec(), written))?
            }
        };
        while let Some((name, after)) = rest.split_first() {
            if name == "super" {
                at.pop();
                rest = after;
                continue;
            }
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if self.has(&child) {
                at = child;
                rest = after;
                continue;
            }
            let here = &self.0[&at];
            if here.defines.contains(name) {
                return Some(at);
            }
            if let Some((_, import)) = here.imports.iter().find(|(known, _)| known == name) {
                let target = [&import[..], after].concat();
                return self.resolve(&at, &target, depth + 1).or(Some(at));
            }
            for glob in &here.globs {
                let target = [&glob[..], rest].concat();
                let found = self.resolve(&at, &target, depth + 1);
                let defined = found.filter(|found| self.0[found].defines.contains(name));
                if defined.is_some() {
                    return defined;
                }
            }
            return Some(at);
        }
        Some(at)
    }

    /// For each module with children, which of them import which.
    fn edges(&self) -> BTreeMap<ModulePath, BTreeMap<String, BTreeSet<String>>> {
        let mut edges = BTreeMap::<ModulePath, BTreeMap<String, BTreeSet<String>>>::new();
        for (path, module) in &self.0 {
            let imports = module.imports.iter().map(|(_, written)| written);
            for written in imports.chain(&module.globs).chain(&module.mentions) {
                let Some(target) = self.resolve(path, written, 0) else { continue };
                let common = path.iter().zip(&target).take_while(|(a, b)| a == b).count();
                let (Some(from), Some(to)) = (path.get(common), target.get(common)) else {
                    continue;
                };
                let siblings = edges.entry(path[..common].to_vec()).or_default();
                siblings.entry(from.clone()).or_default().insert(to.clone());
            }
        }
        edges
    }

    /// Each circle as the names in it, with the module that holds them before.
    fn circles(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (parent, siblings) in self.edges() {
            let mut told = BTreeSet::new();
            for name in siblings.keys() {
                let reaches = reachable(&siblings, name);
                if !reaches.contains(name) || told.contains(name) {
                    continue;
                }
                let back = |other: &&String| reachable(&siblings, other).contains(name);
                let circle: Vec<&String> = reaches.iter().filter(back).collect();
                told.extend(circle.iter().map(|name| (*name).clone()));
                let names = circle.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
                found.push(format!(
                    "{}: {names}",
                    [&["crate".to_owned()], &parent[..]].concat().join("::")
                ));
            }
        }
        found
    }
}

impl Module {
    fn import(&mut self, item: &ItemUse) {
        self.import_tree(&item.tree, &mut Vec::new());
    }

    fn import_tree(&mut self, tree: &UseTree, prefix: &mut Vec<String>) {
        let whole = |prefix: &[String], name: String| {
            if name == "self" { prefix.to_vec() } else { [prefix, &[name]].concat() }
        };
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import_tree(&path.tree, prefix);
                prefix.pop();
            }
            UseTree::Name(name) => {
                let written = whole(prefix, name.ident.to_string());
                let last = written.last().cloned().unwrap_or_default();
                self.imports.push((last, written));
            }
            UseTree::Rename(rename) => {
                let written = whole(prefix, rename.ident.to_string());
                self.imports.push((rename.rename.to_string(), written));
            }
            UseTree::Glob(_) => self.globs.push(prefix.clone()),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import_tree(tree, prefix);
                }
            }
        }
    }
}

/// Collects the paths of an item, those in the arguments of macros included.
struct Mentions<'a>(&'a mut BTreeSet<Vec<String>>);

impl<'ast> Visit<'ast> for Mentions<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        self.visit_path(&invoked.path);
        let arguments = invoked.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated);
        for argument in arguments.iter().flatten() {
            // Any lifetime will do, for the paths are copied.
            Visit::visit_expr(self, argument);
        }
    }
}

/// The file of a module that is declared without a body.
fn file_of(child: &ItemMod, folder: &Path, name: &str) -> PathBuf {
    let named = child.attrs.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => Some(&pair.value),
        _ => None,
    });
    assert!(named.is_none(), "{name} has a `#[path]`, which this does not follow");
    let plain = folder.join(format!("{name}.rs"));
    if plain.exists() { plain } else { folder.join(name).join("mod.rs") }
}

fn is_test(item: &Item) -> bool {
    let attributes = match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        Meta::NameValue(_) => false,
    })
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(name.to_string())
}

fn reachable(edges: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(name) = open.pop() {
        for next in edges.get(&name).into_iter().flatten() {
            if found.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    found
}

#[test]
fn the_modules_of_a_crate_are_in_no_circle() {
    let mut circles = Vec::new();
    let crates = fs::read_dir(workspace::root().join("crates")).expect("there are crates");
    let crates = crates.map(|entry| entry.expect("a folder can be read").path());
    for folder in crates.chain([workspace::root().join("xtask")]) {
        let roots = ["lib.rs", "main.rs", "verbs.rs"].map(|name| folder.join("src").join(name));
        let roots = roots.iter().filter(|root| root.exists());
        let name = folder.file_name().expect("a folder has a name").to_string_lossy().into_owned();
        let found: Vec<_> = roots.flat_map(|root| Crate::read(root).circles()).collect();
        circles.extend(found.into_iter().map(|circle| format!("{name}, {circle}")));
    }
    circles.sort();
    assert!(circles.is_empty(), "modules in circles:\n{}", circles.join("\n"));
}

/// The circles in a crate of one file.
fn circles_of(code: &str) -> Vec<String> {
    let mut read = Crate::default();
    let parsed = syn::parse_file(code).expect("the example is Rust");
    read.read_items(&parsed.items, Path::new("nowhere"), &Vec::new());
    read.circles()
}

#[test]
fn siblings_that_import_each_other_are_a_circle() {
    let code = "mod a { use crate::b::B; } mod b { pub struct B; fn f() { super::a::g(); } }";
    assert_eq!(circles_of(code), ["crate: a, b"]);
}

#[test]
fn a_circle_through_the_crates_root_is_found() {
    let code = "pub use a::A; mod a { use crate::b::B; pub struct A; }
        mod b { use crate::A; pub struct B; }";
    assert_eq!(circles_of(code), ["crate: a, b"]);
}

#[test]
fn a_circle_deeper_down_is_found_at_its_level() {
    let code = "mod a { mod c { use super::d::D; } mod d { pub struct D; fn f() {
        assert!(crate::a::c::is()); } } }";
    assert_eq!(circles_of(code), ["crate::a: c, d"]);
}

#[test]
fn one_direction_parents_and_tests_are_no_circle() {
    let code = "use a::A; mod a { pub struct A; mod e { use super::A; }
        #[cfg(test)] mod tests { use crate::b::B; } }
        mod b { use crate::a::A; pub struct B; }";
    assert_eq!(circles_of(code), Vec::<String>::new());
}
