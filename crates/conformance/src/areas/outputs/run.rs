//! The actions and answers that the checks of this area share.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use prost::Message as _;
use testkit::{Action, Digest, Run, proto};

use crate::server::Server;

pub(super) async fn succeeds(action: Action) -> anyhow::Result<Run> {
    let run = action.run().await?;
    run.succeeded().await?;
    Ok(run)
}

/// All paths of a tree, those of directories with a slash at their end, of symlinks with their target.
pub(super) fn paths(server: &Server, tree: &proto::Tree) -> anyhow::Result<BTreeSet<String>> {
    let children: BTreeMap<Digest, &proto::Directory> =
        tree.children.iter().map(|it| (server.client.digest(it.encode_to_vec()), it)).collect();
    let mut paths = BTreeSet::new();
    let root = tree.root.as_ref().context("the tree has no root")?;
    let mut open = vec![(String::new(), root)];
    while let Some((at, directory)) = open.pop() {
        paths.extend(directory.files.iter().map(|it| format!("{at}{}", it.name)));
        let links = directory.symlinks.iter();
        paths.extend(links.map(|it| format!("{at}{} -> {}", it.name, it.target)));
        for node in &directory.directories {
            let digest = Digest::from_proto_field(node.digest.as_ref(), server.client.function())?;
            let child = children.get(&digest).with_context(|| format!("no child {digest}"))?;
            let path = format!("{at}{}/", node.name);
            paths.insert(path.clone());
            open.push((path, child));
        }
    }
    Ok(paths)
}
