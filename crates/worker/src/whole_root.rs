//! Input roots that are whole root file systems.
//!
//! Some clients put a whole root file system into the input root, tools and all, and expect that it is
//! `/` of the sandbox. An action asks for that with the platform property `rootfs=input-root`.
//!
//! BuildStream is such a client and can't send the property: it has none for that, since the workers that
//! it is made for treat every input root so. Its actions are told by the form in which it wants output
//! directories, and by the mount points `dev`, `proc` and `tmp`, which it adds to every input root. No other
//! client's input roots are known to have all of that.
//!
//! The sandbox's own `/dev`, `/proc` and `/tmp` cover what the input root has there. So nothing below them
//! can be an output.

use model::{
    CommandSpec, Found, InputTree, OutputDirectoryFormat, OutputPath, Properties, RelPath,
};
use runtimes::INPUT_ROOT;

use crate::error::ActionError;

/// The directories of the input root that the sandbox mounts on.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "tmp"];

/// Has an action whose input root has the marks of a whole root file system ask for it as its root,
/// unless it asks for another one.
pub(crate) fn recognize(tree: &InputTree, command: &mut CommandSpec) {
    let Properties {
        rootfs: None, container_image: None, libc: None, requires_bash: false, ..
    } = &command.properties
    else {
        return;
    };
    let is_directory =
        |name: &&str| matches!(tree.lookup_in(0, name.as_bytes()), Some(Found::Directory(_)));
    if command.output_directory_format == OutputDirectoryFormat::DirectoryOnly
        && MOUNT_POINTS.iter().all(is_directory)
    {
        command.properties.rootfs = Some(INPUT_ROOT.to_owned());
    }
}

/// Whether an action asks for its input root as its root.
pub(crate) fn is_wanted(properties: &Properties) -> bool {
    properties.rootfs.as_deref() == Some(INPUT_ROOT)
}

/// Whether the sandbox's own mounts cover a path of the input root of such an action.
pub(crate) fn is_covered(path: &RelPath) -> bool {
    path.components().next().is_some_and(|first| MOUNT_POINTS.contains(&first))
}

/// The mount points that are to be made in the input root of such an action.
///
/// # Errors
/// [`ActionError::Invalid`] if a file or a symlink is in the place of one, or an output would lie below
/// one.
pub(crate) fn missing_mount_points(
    tree: &InputTree,
    command: &CommandSpec,
) -> Result<Vec<RelPath>, ActionError> {
    let mut missing = Vec::new();
    for name in MOUNT_POINTS {
        // Names without a slash, so no error is possible.
        let Ok(path) = RelPath::parse(name) else { continue };
        if let Some(OutputPath { declared, .. }) =
            command.outputs.iter().find(|output| output.path.starts_with(&path))
        {
            return Err(ActionError::Invalid(format!(
                "output `{declared}` lies in `/{name}`, which is the sandbox's own when the input root is \
                 the root; write it elsewhere"
            )));
        }
        match tree.lookup_in(0, name.as_bytes()) {
            Some(Found::Directory(_)) => {}
            None => missing.push(path),
            Some(Found::File { .. } | Found::Symlink { .. }) => {
                return Err(ActionError::Invalid(format!(
                    "`{name}` of the input root is no directory, so the sandbox's own `/{name}` can't be \
                     mounted there, as platform property rootfs={INPUT_ROOT} has it"
                )));
            }
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::sync::Arc;

    use model::{Digest, DigestFunction, Directory, Loaded, TreeLimits, WorkerPlatform, proto};
    use prost::Message as _;

    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    /// An input root with empty directories, empty files, and symlinks.
    fn tree(directories: &[&str], files: &[&str], symlinks: &[&str]) -> InputTree {
        let empty = || Some(Digest::of(FUNCTION, b"").to_proto());
        let root = proto::Directory {
            directories: Vec::from_iter(
                directories
                    .iter()
                    .map(|name| proto::DirectoryNode { name: (*name).to_owned(), digest: empty() }),
            ),
            files: Vec::from_iter(files.iter().map(|name| proto::FileNode {
                name: (*name).to_owned(),
                digest: empty(),
                ..Default::default()
            })),
            symlinks: Vec::from_iter(symlinks.iter().map(|name| proto::SymlinkNode {
                name: (*name).to_owned(),
                target: "elsewhere".to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let blob = root.encode_to_vec();
        let digest = Digest::of(FUNCTION, &blob);
        let blobs = HashMap::from([(digest, blob)]);
        let mut load = |digest: &Digest| -> Loaded<Infallible> {
            let blob = blobs.get(digest).cloned();
            Ok(blob.map(|blob| Arc::new(Directory::parse(blob.into(), FUNCTION).unwrap())))
        };
        InputTree::assemble(digest, TreeLimits::default(), &mut load).unwrap()
    }

    fn command(format: OutputDirectoryFormat, properties: &[(&str, &str)]) -> CommandSpec {
        command_with(format, properties, &["."])
    }

    fn command_with(
        format: OutputDirectoryFormat,
        properties: &[(&str, &str)],
        outputs: &[&str],
    ) -> CommandSpec {
        let properties = properties.iter().map(|(name, value)| proto::platform::Property {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        });
        let platform = proto::Platform { properties: properties.collect() };
        let message = proto::Command {
            arguments: vec!["sh".to_owned()],
            output_directory_format: format.into(),
            output_paths: outputs.iter().map(|path| (*path).to_owned()).collect(),
            ..Default::default()
        };
        let worker = WorkerPlatform::default();
        CommandSpec::parse(&message.encode_to_vec(), Some(&platform), &worker).unwrap()
    }

    const MARKS: OutputDirectoryFormat = OutputDirectoryFormat::DirectoryOnly;

    #[test]
    fn an_input_root_with_all_marks_is_the_root() {
        let check = |tree: &InputTree, mut command: CommandSpec, expected: bool| {
            recognize(tree, &mut command);
            assert_eq!(is_wanted(&command.properties), expected);
        };
        let whole = tree(&["bin", "dev", "proc", "tmp"], &[], &[]);
        check(&whole, command(MARKS, &[("OSFamily", "linux")]), true);
        check(&whole, command(OutputDirectoryFormat::TreeOnly, &[]), false);
        check(&whole, command(OutputDirectoryFormat::TreeAndDirectory, &[]), false);
        for other in ["libc", "rootfs", "container-image"] {
            check(&whole, command(MARKS, &[(other, "x")]), false);
        }
        check(&whole, command(MARKS, &[("requires-bash", "")]), false);
        check(&tree(&["bin", "dev", "proc"], &[], &[]), command(MARKS, &[]), false);
        check(&tree(&["dev", "proc"], &["tmp"], &[]), command(MARKS, &[]), false);
        check(&tree(&["dev", "proc"], &[], &["tmp"]), command(MARKS, &[]), false);
        let asked = command(OutputDirectoryFormat::TreeOnly, &[("rootfs", INPUT_ROOT)]);
        check(&tree(&[], &[], &[]), asked, true);
    }

    #[test]
    fn mount_points_that_are_missing_are_made() {
        let missing = missing_mount_points(&tree(&["proc", "x"], &[], &[]), &command(MARKS, &[]));
        let missing = missing.unwrap();
        assert_eq!(Vec::from_iter(missing.iter().map(RelPath::as_str)), ["dev", "tmp"]);
    }

    #[test]
    fn nothing_but_a_directory_is_mounted_on() {
        for name in MOUNT_POINTS {
            for tree in [tree(&[], &[name], &[]), tree(&[], &[], &[name])] {
                let refused = missing_mount_points(&tree, &command(MARKS, &[])).unwrap_err();
                let ActionError::Invalid(text) = refused else { panic!("{refused}") };
                assert!(text.starts_with(&format!("`{name}` of the input root")), "{text}");
            }
        }
    }

    #[test]
    fn an_output_below_a_mount_point_is_refused() {
        let whole = tree(&MOUNT_POINTS, &[], &[]);
        for (output, is_refused) in [
            ("tmp/out", true),
            ("proc", true),
            ("dev/shm/x", true),
            ("tmpdir/out", false),
            (".", false),
        ] {
            let found = missing_mount_points(&whole, &command_with(MARKS, &[], &[output]));
            assert_eq!(found.is_err(), is_refused, "{output}");
        }
    }
}
