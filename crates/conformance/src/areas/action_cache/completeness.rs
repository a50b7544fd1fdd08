//! Results whose blobs are missing, which are not served.

use prost::Message as _;
use testkit::{Digest, proto};
use tonic::Code;

use super::requests::{is_a_miss, look, some_action, update, with_directory, with_file, worked};
use crate::check::{Check, Outcome, should, skip};
use crate::expect::{refused, same};
use crate::server::{Server, unique};

pub(super) const CHECKS: &[Check] = &[
    should!(
        a_result_with_a_missing_file_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_missing_stdout_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_missing_stderr_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_missing_tree_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_missing_file_in_a_tree_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_missing_root_directory_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_missing_directory_below_its_root_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_missing_file_below_its_root_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_whole_root_directory_is_served,
        "OutputDirectory.root_directory_digest",
        "containing the contents of the directory's root."
    ),
    should!(
        a_result_is_served_once_its_blobs_are_there,
        "ActionCache.GetActionResult",
        "Implementations SHOULD ensure that any blobs referenced from the"
    ),
    should!(
        a_result_of_a_tree_that_is_none_is_a_miss,
        "ActionCache.GetActionResult",
        "`NOT_FOUND`: The requested `ActionResult` is not in the cache."
    ),
];

/// A result is served with all of its blobs, and not without one of them.
async fn misses(server: &Server, result: impl FnOnce(Digest) -> proto::ActionResult) -> Outcome {
    let action = some_action(server).await?;
    let absent = server.client.digest(unique("absent"));
    refuse_or_miss(server, &action, result(absent)).await
}

/// A server may refuse such a result, too.
pub(super) async fn refuse_or_miss(
    server: &Server,
    action: &Digest,
    result: proto::ActionResult,
) -> Outcome {
    if let Err(status) = update(server, action, result).await {
        refused::<()>(Err(status), &[Code::FailedPrecondition, Code::InvalidArgument])?;
    }
    is_a_miss(server, action).await
}

async fn a_result_with_a_missing_file_is_not_served(server: Server) -> Outcome {
    misses(&server, |absent| with_file(&absent)).await
}

async fn a_result_with_missing_stdout_is_not_served(server: Server) -> Outcome {
    let result =
        |it: Digest| proto::ActionResult { stdout_digest: Some(it.to_proto()), ..worked() };
    misses(&server, result).await
}

async fn a_result_with_missing_stderr_is_not_served(server: Server) -> Outcome {
    let result =
        |it: Digest| proto::ActionResult { stderr_digest: Some(it.to_proto()), ..worked() };
    misses(&server, result).await
}

async fn a_result_with_a_missing_tree_is_not_served(server: Server) -> Outcome {
    misses(&server, |absent| with_directory(Some(&absent), None)).await
}

fn directory_with(name: &str, file: &Digest) -> proto::Directory {
    proto::Directory {
        files: vec![proto::FileNode {
            name: name.to_owned(),
            digest: Some(file.to_proto()),
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn a_result_with_a_missing_file_in_a_tree_is_not_served(server: Server) -> Outcome {
    let absent = server.client.digest(unique("absent"));
    let child = directory_with("file", &absent);
    let node = proto::DirectoryNode {
        name: "child".to_owned(),
        digest: Some(server.client.digest(child.encode_to_vec()).to_proto()),
    };
    let root = proto::Directory { directories: vec![node], ..Default::default() };
    let tree = proto::Tree { root: Some(root), children: vec![child] };
    let tree = server.client.put(tree.encode_to_vec()).await?;
    misses(&server, |_| with_directory(Some(&tree), None)).await
}

async fn a_result_with_a_missing_root_directory_is_not_served(server: Server) -> Outcome {
    misses(&server, |absent| with_directory(None, Some(&absent))).await
}

/// A tree of two levels of which everything is stored but the blob that `missing` picks by its level: the
/// file's content is 0, its directory 1, the root 2.
async fn root_without(server: &Server, missing: Option<usize>) -> anyhow::Result<Digest> {
    let content = unique("content");
    let child = directory_with("file", &server.client.digest(&content)).encode_to_vec();
    let node = proto::DirectoryNode {
        name: "child".to_owned(),
        digest: Some(server.client.digest(&child).to_proto()),
    };
    let root = proto::Directory { directories: vec![node], ..Default::default() }.encode_to_vec();
    let digest = server.client.digest(&root);
    for (level, blob) in [content, child, root].into_iter().enumerate() {
        if Some(level) != missing {
            server.client.put(blob).await?;
        }
    }
    Ok(digest)
}

async fn a_result_with_a_missing_directory_below_its_root_is_not_served(server: Server) -> Outcome {
    let root = root_without(&server, Some(1)).await?;
    misses(&server, |_| with_directory(None, Some(&root))).await
}

async fn a_result_with_a_missing_file_below_its_root_is_not_served(server: Server) -> Outcome {
    let root = root_without(&server, Some(0)).await?;
    misses(&server, |_| with_directory(None, Some(&root))).await
}

async fn a_result_with_a_whole_root_directory_is_served(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let root = root_without(&server, None).await?;
    update(&server, &action, with_directory(None, Some(&root))).await?;
    let served = look(&server, &action, |_| ()).await?;
    let expected = with_directory(None, Some(&root)).output_directories;
    same("output_directories", served.output_directories, expected)
}

async fn a_result_is_served_once_its_blobs_are_there(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let content = unique("late");
    let file = server.client.digest(&content);
    if let Err(status) = update(&server, &action, with_file(&file)).await {
        refused::<()>(Err(status), &[Code::FailedPrecondition, Code::InvalidArgument])?;
        return skip("the server takes no result whose blobs are missing");
    }
    is_a_miss(&server, &action).await?;
    server.client.put(content).await?;
    // A server may have dropped the entry at the miss.
    match look(&server, &action, |_| ()).await {
        Ok(served) => same("output_files", served.output_files, with_file(&file).output_files),
        Err(status) => refused::<()>(Err(status), &[Code::NotFound]).map(|_| ()),
    }
}

async fn a_result_of_a_tree_that_is_none_is_a_miss(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let tree = server.client.put([&[0xff; 20][..], &unique("no tree")].concat()).await?;
    refuse_or_miss(&server, &action, with_directory(Some(&tree), None)).await
}
