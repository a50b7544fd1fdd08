//! Files that others put into a directory lead nowhere else.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, mknodat};

use super::*;

const NAME: &str = "actiond-1/cas/sha256/ab/ab-4";

/// A directory for objects, and one beside it that nothing may reach.
struct Places {
    _state: tempfile::TempDir,
    top: PathBuf,
    outside: PathBuf,
}

impl Places {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let (top, outside) = (state.path().join("top"), state.path().join("outside"));
        fs::create_dir(&top).unwrap();
        fs::create_dir(&outside).unwrap();
        Self { _state: state, top, outside }
    }

    fn directory(&self) -> Directory {
        Directory::new(&self.top)
    }

    /// The path of the object, whose directories are made.
    fn object(&self) -> PathBuf {
        let path = self.top.join(NAME);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
}

fn write(directory: &Directory, name: &str, content: &str) -> Result<(), CallError> {
    let mut staged = directory.create(name)?;
    staged.write(&[Bytes::copy_from_slice(content.as_bytes())])?;
    staged.publish()
}

fn read(directory: &Directory, name: &str) -> Result<String, CallError> {
    let (mut file, size) = directory.read(name)?;
    assert_eq!(directory.size(name).unwrap(), size);
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content.len() as u64, size);
    Ok(content)
}

fn names(folder: &Path) -> Vec<String> {
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(folder).unwrap().map(name).collect()
}

#[test]
fn objects_are_written_and_read() {
    let places = Places::new();
    let directory = places.directory();
    assert!(matches!(read(&directory, NAME), Err(CallError::Missing)));
    assert!(matches!(directory.size(NAME), Err(CallError::Missing)));
    for content in ["some", "other"] {
        write(&directory, NAME, content).unwrap();
        assert_eq!(read(&directory, NAME).unwrap(), content);
    }
    assert_eq!(fs::read(places.top.join(NAME)).unwrap(), b"other");
    assert_eq!(names(places.object().parent().unwrap()), ["ab-4"]);
}

#[test]
fn a_file_that_is_not_published_is_deleted() {
    let places = Places::new();
    let mut staged = places.directory().create(NAME).unwrap();
    staged.write(&[Bytes::from_static(b"so")]).unwrap();
    let folder = places.object().parent().unwrap().to_owned();
    assert!(names(&folder)[0].starts_with("ab-4#"));
    drop(staged);
    assert!(names(&folder).is_empty());
}

#[test]
fn no_level_is_a_symlink() {
    for level in ["actiond-1", "actiond-1/cas", "actiond-1/cas/sha256", "actiond-1/cas/sha256/ab"] {
        for is_absolute in [true, false] {
            let places = Places::new();
            let target = NAME.strip_prefix(level).unwrap().trim_start_matches('/');
            let target = places.outside.join(target);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(&target, "mine").unwrap();
            let link = places.top.join(level);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            let up = "../".repeat(level.split('/').count());
            let relative = PathBuf::from(format!("{up}outside"));
            symlink(if is_absolute { &places.outside } else { &relative }, &link).unwrap();
            assert_eq!(fs::read(places.top.join(NAME)).unwrap(), b"mine", "the link leads there");
            let directory = places.directory();
            for outcome in [
                directory.size(NAME).map(drop),
                directory.read(NAME).map(drop),
                write(&directory, NAME, "ours"),
                write(&directory, &format!("{NAME}-other"), "ours"),
            ] {
                assert!(matches!(outcome, Err(CallError::Refused(_))), "{level}: {outcome:?}");
            }
            assert_eq!(fs::read(&target).unwrap(), b"mine");
            assert_eq!(names(target.parent().unwrap()), ["ab-4"]);
        }
    }
}

#[test]
fn no_level_is_made_behind_a_symlink() {
    let places = Places::new();
    symlink(&places.outside, places.top.join("actiond-1")).unwrap();
    // A target that does not exist is not made either.
    let refused = write(&places.directory(), NAME, "ours");
    assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");
    assert!(names(&places.outside).is_empty());
    fs::remove_dir(&places.outside).unwrap();
    let refused = write(&places.directory(), NAME, "ours");
    assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");
    assert!(!places.outside.exists());
}

#[test]
fn a_symlink_is_not_an_object() {
    for is_there in [true, false] {
        let places = Places::new();
        let target = places.outside.join("file");
        if is_there {
            fs::write(&target, "mine").unwrap();
        }
        symlink(&target, places.object()).unwrap();
        let directory = places.directory();
        assert!(matches!(directory.size(NAME), Err(CallError::Damaged)));
        assert!(matches!(directory.read(NAME), Err(CallError::Damaged)));
        write(&directory, NAME, "ours").unwrap();
        assert_eq!(read(&directory, NAME).unwrap(), "ours");
        assert_eq!(target.exists(), is_there);
        if is_there {
            assert_eq!(fs::read(&target).unwrap(), b"mine");
        }
    }
}

#[test]
fn a_named_pipe_is_not_an_object() {
    let places = Places::new();
    mknodat(CWD, places.object(), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let directory = places.directory();
    // Each of them would wait for a writer that never comes.
    let (done, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let damaged = [directory.size(NAME).map(drop), directory.read(NAME).map(drop)];
        write(&directory, NAME, "ours").unwrap();
        done.send((damaged, read(&directory, NAME).unwrap())).unwrap();
    });
    let (damaged, content) = waiting.recv_timeout(std::time::Duration::from_secs(300)).unwrap();
    for outcome in damaged {
        assert!(matches!(outcome, Err(CallError::Damaged)), "{outcome:?}");
    }
    assert_eq!(content, "ours");
}

#[test]
fn a_directory_is_not_an_object() {
    let places = Places::new();
    fs::create_dir(places.object()).unwrap();
    let directory = places.directory();
    assert!(matches!(directory.read(NAME), Err(CallError::Damaged)));
    let failed = write(&directory, NAME, "ours");
    assert!(matches!(failed, Err(CallError::Failed(_))), "{failed:?}");
    assert_eq!(names(places.object().parent().unwrap()), ["ab-4"], "no file is left");
}

#[test]
fn no_name_leads_out() {
    let places = Places::new();
    fs::write(places.outside.join("file"), "mine").unwrap();
    let absolute = places.outside.join("file").display().to_string();
    for name in ["../outside/file", "../outside/new/file", &absolute] {
        let directory = places.directory();
        for outcome in [directory.read(name).map(drop), write(&directory, name, "ours")] {
            assert!(matches!(outcome, Err(CallError::Refused(_))), "{name}: {outcome:?}");
        }
    }
    assert_eq!(names(&places.outside), ["file"]);
    assert_eq!(fs::read(places.outside.join("file")).unwrap(), b"mine");
}

#[test]
fn the_path_of_the_directory_may_be_a_symlink() {
    let places = Places::new();
    let link = places.outside.join("link");
    symlink(&places.top, &link).unwrap();
    write(&Directory::new(&link), NAME, "ours").unwrap();
    assert_eq!(read(&places.directory(), NAME).unwrap(), "ours");
}

#[test]
fn a_directory_that_is_gone_is_not_made() {
    let places = Places::new();
    fs::remove_dir(&places.top).unwrap();
    let directory = places.directory();
    for outcome in
        [directory.is_there(), write(&directory, NAME, "ours"), directory.size(NAME).map(drop)]
    {
        assert!(matches!(outcome, Err(CallError::Failed(_))), "{outcome:?}");
    }
    assert!(!places.top.exists());
}
