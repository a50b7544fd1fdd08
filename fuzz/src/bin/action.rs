//! Actions and commands of clients: what passes can be run, and nothing in it leads out of the input root.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{ActionMessage, Digest, DigestFunction, RelPath, WorkerPlatform};

fuzz_target!(|input: (&[u8], &[u8])| {
    let (action, command) = input;
    let digest = Digest::of(DigestFunction::Sha256, action);
    let Ok(action) = ActionMessage::parse(digest, action) else { return };
    let Ok(action) = action.with_command(command, &WorkerPlatform::default()) else { return };
    let command = action.command;
    assert!(!command.arguments[0].is_empty(), "there is a program");
    for output in &command.outputs {
        assert_eq!(RelPath::parse(output.path.as_str()).as_ref(), Ok(&output.path));
        let resolved = RelPath::resolve(&command.working_directory, &output.declared);
        assert_eq!(resolved.as_ref(), Ok(&output.path));
    }
    let mut paths: Vec<_> = command.outputs.iter().map(|output| &output.path).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), command.outputs.len(), "no output is there twice");
});
