//! Test programs side by side, each with its output in one piece.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::note::Note;

/// A test program that has ended.
struct Ended {
    name: String,
    status: ExitStatus,
    time: Duration,
    output: Vec<u8>,
}

/// Runs all of them and prints the output of each when it has ended. `folder` keeps their outputs, and their
/// times for the next run: the longest begin first.
///
/// # Errors
/// Names the programs that failed, after all of them ran.
pub(super) fn run(mut notes: Vec<Note>, folder: &Path) -> Result<()> {
    let times_file = folder.join("times.json");
    let mut times = read_times(&times_file);
    // A program without a time is new: it may be long.
    notes.sort_by_key(|note| times.get(&note.name).copied().unwrap_or(u64::MAX));
    let all = notes.len();
    println!("test: {all} programs, {} at a time", at_a_time());

    let mut failed = Vec::new();
    let queue = Mutex::new(notes);
    let (sender, ended) = mpsc::channel();
    thread::scope(|scope| -> Result<()> {
        for _ in 0..at_a_time() {
            let sender = sender.clone();
            let next = || queue.lock().expect("nobody panics with it").pop();
            scope.spawn(move || {
                while let Some(note) = next() {
                    let result =
                        run_one(&note, folder).with_context(|| format!("cannot run {}", note.name));
                    if sender.send(result).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (number, result) in ended.into_iter().enumerate() {
            let Ended { name, status, time, output } = result?;
            let seconds = time.as_secs_f32();
            print!("{}", String::from_utf8_lossy(&output));
            println!("test: {name} ({} of {all}) {}, {seconds:.1} s", number + 1, said(status));
            times.insert(name.clone(), u64::try_from(time.as_millis())?);
            if !status.success() {
                failed.push(name);
            }
        }
        Ok(())
    })?;
    fs::write(&times_file, serde_json::to_vec(&times)?)
        .with_context(|| format!("cannot write {}", times_file.display()))?;
    if !failed.is_empty() {
        bail!("{} of {all} test programs failed: {}", failed.len(), failed.join(", "));
    }
    Ok(())
}

/// Most tests wait for a daemon, a timer or a disk: one program more than processors keeps these busy.
fn at_a_time() -> usize {
    thread::available_parallelism().map_or(2, usize::from) + 1
}

fn said(status: ExitStatus) -> String {
    if status.success() { "passed".to_owned() } else { format!("FAILED ({status})") }
}

fn run_one(note: &Note, folder: &Path) -> Result<Ended> {
    let log = log(folder, &note.name);
    let output = fs::File::create(&log)?;
    let mut command = note.command()?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let begun = Instant::now();
    let status = command.status()?;
    let time = begun.elapsed();
    Ok(Ended { name: note.name.clone(), status, time, output: fs::read(&log)? })
}

fn log(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{}.log", name.replace('/', ".")))
}

/// How long each program took last time, in milliseconds. A file that is missing or broken only costs the order.
fn read_times(file: &Path) -> BTreeMap<String, u64> {
    fs::read(file).ok().and_then(|it| serde_json::from_slice(&it).ok()).unwrap_or_default()
}
