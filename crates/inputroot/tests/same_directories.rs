//! actiondfs reads every directory that the daemon accepts, and reads the same in it.
//!
//! There are two readers of `Directory` messages: the daemon's, which decides whether an action is
//! valid, and the kernel's, which shows its inputs. Where the first says yes and the second no, a
//! valid action fails in a guest; where both say yes and mean different things, it runs with other
//! inputs than its digest says. The kernel's compiles in user space, so they can be compared.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use model::proto::{self, Message};
use model::{Digest, DigestFunction, Directory, Entry};

/// Of which three in five are damaged.
const MESSAGES: usize = 20_000;
/// So many of the damaged ones are valid all the same, at least.
const VALID_THOUGH_DAMAGED: usize = 300;

/// xorshift64: the same messages each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    /// A message, and whether it is damaged.
    fn message(&mut self) -> (Vec<u8>, bool) {
        let whole = self.directory().encode_to_vec();
        let mut message = whole.clone();
        for _ in 0..self.below(5).saturating_sub(1) {
            self.damage(&mut message);
        }
        let is_damaged = message != whole;
        (message, is_damaged)
    }

    /// A canonical directory, with names of all kinds.
    fn directory(&mut self) -> proto::Directory {
        let mut directory = proto::Directory::default();
        for name in self.names() {
            let digest = Digest::of(DigestFunction::Sha256, name.as_bytes());
            let digest = Digest::new(digest.function(), *digest.hash(), self.below(1 << 40) as u64);
            match self.below(3) {
                0 => directory.files.push(proto::FileNode {
                    name,
                    digest: Some(digest.to_proto()),
                    is_executable: self.below(2) == 1,
                    node_properties: (self.below(4) == 0).then(proto::NodeProperties::default),
                }),
                1 => directory
                    .directories
                    .push(proto::DirectoryNode { name, digest: Some(digest.to_proto()) }),
                _ => directory.symlinks.push(proto::SymlinkNode {
                    target: ["x", "../a/b", "/etc/passwd", "ü"][self.below(4)].to_owned(),
                    name,
                    node_properties: None,
                }),
            }
        }
        if self.below(8) == 0 {
            directory.node_properties = Some(proto::NodeProperties::default());
        }
        directory
    }

    fn names(&mut self) -> Vec<String> {
        const PARTS: [&str; 8] = ["a", "b", ".", "..", "-", "ü", "\u{1}", " "];
        let count = self.below(8);
        let long = "n".repeat(250 + self.below(7));
        let mut names: Vec<String> = (0..count)
            .map(|_| (0..=self.below(3)).map(|_| PARTS[self.below(PARTS.len())]).collect())
            .collect();
        names.push(long);
        names.sort();
        names.dedup();
        names.truncate(count);
        names
    }

    fn damage(&mut self, message: &mut Vec<u8>) {
        let Some(last) = message.len().checked_sub(1) else { return };
        let at = self.below(last + 1);
        let end = at + self.below(last + 1 - at);
        match self.below(5) {
            0 => message[at] ^= 1 << self.below(8),
            1 => message[at] = [0, 1, 0x7f, 0x80, b'/', b'.', 0x0a, 0x12][self.below(8)],
            2 => message.truncate(at),
            3 => drop(message.drain(at..end)),
            _ => message.extend_from_within(at..end),
        }
    }
}

/// The kernel's reader as a program, built with the checks of the sanitizers.
fn build(folder: &Path) -> std::path::PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel/actiondfs");
    let program = folder.join("parse_print");
    let status = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-Wall", "-Werror", "-fsanitize=address,undefined"])
        .args([sources.join("parse.c"), sources.join("test/parse_print.c")])
        .arg("-o")
        .arg(&program)
        .status();
    assert!(status.expect("cc runs").success(), "the kernel's reader does not compile");
    program
}

/// The program's answer to each message.
fn kernel_reads(messages: &[(Vec<u8>, bool)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("messages");
    let mut file = std::fs::File::create(&input).unwrap();
    for (message, _) in messages {
        file.write_all(&u32::try_from(message.len()).unwrap().to_le_bytes()).unwrap();
        file.write_all(message).unwrap();
    }
    let input = Stdio::from(std::fs::File::open(input).unwrap());
    let output = Command::new(build(folder.path())).stdin(input).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    let mut answers = Vec::new();
    while let Some(head) = lines.next() {
        let count = head.strip_prefix("accepted ").map_or(0, |count| count.parse().unwrap());
        let entries = lines.by_ref().take(count).map(|line| format!("\n{line}"));
        answers.push(head.to_owned() + &entries.collect::<String>());
    }
    answers
}

/// The answer that the program must give.
fn expected(directory: &Directory) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let entry = |entry: Entry<'_>| match entry {
        Entry::File { name, digest, executable } => {
            let kind = if executable { 'x' } else { 'f' };
            format!("\n{kind} {} {} {}", hex(name), digest.hex(), digest.size_bytes())
        }
        Entry::Directory { name, digest } => {
            format!("\nd {} {} {}", hex(name), digest.hex(), digest.size_bytes())
        }
        Entry::Symlink { name, target } => format!("\ns {} {}", hex(name), hex(target)),
    };
    let entries: String = directory.entries().map(entry).collect();
    format!("accepted {}{entries}", directory.len())
}

#[test]
fn what_the_daemon_accepts_the_kernel_reads_the_same() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let messages: Vec<_> = (0..MESSAGES).map(|_| random.message()).collect();
    let answers = kernel_reads(&messages);
    assert_eq!(answers.len(), messages.len());
    let mut accepted = [0, 0];
    for ((message, is_damaged), answer) in messages.into_iter().zip(answers) {
        let Ok(directory) = Directory::parse(message.clone().into(), DigestFunction::Sha256) else {
            continue;
        };
        accepted[usize::from(is_damaged)] += 1;
        assert_eq!(answer, expected(&directory), "of the message {message:02x?}");
    }
    let [whole, damaged] = accepted;
    assert!(whole > MESSAGES / 4 && damaged > VALID_THOUGH_DAMAGED, "{accepted:?}");
}
