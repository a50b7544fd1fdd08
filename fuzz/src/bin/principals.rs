//! The file of principals: no text makes its parser fail in another way than by an error, and no error
//! shows a hash.
#![no_main]

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::LazyLock;

use access::Principals;
use libfuzzer_sys::fuzz_target;

/// The one file of this process.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("fuzz-principals-{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600).open(&path).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    path
});

/// `printf %s secret | sha256sum`; libFuzzer may move it, and not make it up.
const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

fuzz_target!(|input: &str| {
    let text = input.replace("HASH", HASH);
    std::fs::write(&*FILE, &text).expect("the file can be written");
    match Principals::read(&FILE) {
        Ok(principals) => assert!(!format!("{principals:?}").contains(HASH)),
        Err(error) => assert!(!format!("{error:?} {error}").contains(HASH), "{error}"),
    }
});
