//! `actiond-attacker`: the hostile action.
//!
//! One static program that is uploaded as an input and runs in a sandbox. It
//! tries what it is told to try and prints what came of it; it does not know
//! what ought to come of it, which is the driver's to judge.
//!
//! - [`script`]: system calls as words, so that an attack is one line of data.
//! - [`calls`]: their numbers, by name.
//! - [`errno`]: what the kernel said, by name.
//! - [`raw`]: the one place with unsafe code.
//! - [`hogs`]: programs that take all there is.
//! - [`races`]: programs that go on while others look.
//! - [`survey`]: programs that look around.
//! - [`network`]: programs that try to reach others.

mod calls;
mod errno;
mod hogs;
mod network;
mod races;
mod raw;
mod script;
mod survey;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The error of the attack itself, as one line.
type Outcome = Result<(), String>;

fn run(words: &[&str]) -> Outcome {
    match words {
        ["nothing"] => Ok(()),
        ["calls", script] => script::run(script),
        ["i386", calls] => script::run_i386(calls),
        ["execute", path] => survey::execute(path),
        ["set-user-id"] => survey::set_user_id(),
        ["descriptors"] => survey::descriptors(),
        ["environment"] => survey::environment(),
        ["processes"] => survey::processes(),
        ["host-in-proc"] => survey::host_in_proc(),
        ["credentials"] => survey::credentials(),
        ["mounts"] => survey::mounts(),
        ["paths-with", part] => survey::paths_with(part),
        ["core-limit"] => survey::core_limit(),
        ["walk-up", target] => survey::walk_up(target),
        ["addresses"] => survey::kernel_addresses(),
        ["leftovers"] => survey::leftovers(),
        ["leave"] => races::leave_things(),
        ["connect", address] => network::connect(address),
        ["connect-abstract", name] => network::connect_abstract(name),
        ["connect-path", path] => network::connect_path(path),
        ["network-leftovers"] => network::leave(),
        ["write-on", path] => races::write_on(path),
        ["swap-on", path, target] => races::swap_on(path, target),
        ["descriptor-in-flight", path] => races::descriptor_in_flight(path),
        ["daemons"] => races::daemons(),
        ["stopped"] => races::stopped(),
        ["deaf"] => races::deaf(),
        ["in-vfork"] => races::in_vfork(),
        ["sleep"] => races::sleep(),
        ["spin"] => hogs::spin(),
        ["fork-bomb"] => hogs::fork_bomb(),
        ["threads"] => hogs::threads(),
        ["allocate", bytes] => hogs::allocate(number(bytes)?),
        ["fill", directory] => hogs::fill(directory, hogs::Trace::Named),
        ["fill-unlinked", directory] => hogs::fill(directory, hogs::Trace::Unlinked),
        ["inodes", directory] => hogs::inodes(directory),
        ["links", directory, count] => hogs::links(directory, number(count)?),
        ["deep", directory, levels] => hogs::deep(directory, number(levels)?),
        ["flood", stream] => hogs::flood(stream),
        ["sparse", path, bytes] => hogs::sparse(path, number(bytes)?),
        ["many-open"] => hogs::many_open(),
        ["many-terminals"] => hogs::many_terminals(),
        ["pipes"] => hogs::pipes(),
        ["pipe-size"] => hogs::pipe_size(),
        ["in-flight"] => hogs::in_flight(),
        ["send-one"] => hogs::send_one(),
        ["epoll-watches"] => hogs::epoll_watches(),
        ["watch-one"] => hogs::watch_one(),
        ["timers"] => hogs::timers(),
        ["one-timer"] => hogs::one_timer(),
        ["one-queue"] => hogs::one_queue(),
        ["one-watcher"] => hogs::one_watcher(),
        ["watches"] => hogs::watches(),
        ["queues"] => hogs::queues(),
        other => Err(format!("no such attack: {other:?}")),
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("not a number: {word}"))
}
