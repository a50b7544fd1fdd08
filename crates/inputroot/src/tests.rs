//! Every strategy passes the same tests, against the real kernel, seen as the action sees it.
//!
//! A thread with the action's user and no capability plays the action, below a descriptor of the
//! input root. That nothing is left behind is tested in `tests/nothing_left.rs`,
//! in a process of its own.

mod actiondfs_only;
mod bench;
mod contents;
mod faults;
mod lifecycle;
mod measure;
mod mutable;
mod outputs;
mod strict;

use crate::mounts::Dialect;
use crate::probe::Variant;
use crate::strategies::Backing;
use bench::Bench;

/// Makes each of the functions a test of each strategy.
macro_rules! for_every_strategy {
    ($($area:ident :: $test:ident),* $(,)?) => {
        for_every_strategy!(
            @strategy [ignore = "only in our own guest's kernel: cargo xtask kernel contract"]
            actiondfs, Variant::ActiondFs, $($area::$test),*);
        for_every_strategy!(@strategy [cfg(test)] erofs_file,
            Variant::Erofs(Backing::File, Dialect::Descriptors), $($area::$test),*);
        for_every_strategy!(@strategy [cfg(test)] erofs_file_by_path,
            Variant::Erofs(Backing::File, Dialect::Paths), $($area::$test),*);
        for_every_strategy!(@strategy [cfg(test)] erofs_loop,
            Variant::Erofs(Backing::Loop, Dialect::Descriptors), $($area::$test),*);
        for_every_strategy!(@strategy [cfg(test)] erofs_loop_by_path,
            Variant::Erofs(Backing::Loop, Dialect::Paths), $($area::$test),*);
        for_every_strategy!(
            @strategy [cfg(test)] tmpfs_overlay, Variant::TmpfsOverlay, $($area::$test),*);
        for_every_strategy!(@strategy [cfg(test)] link_overlay,
            Variant::LinkOverlay(Dialect::Descriptors), $($area::$test),*);
        for_every_strategy!(@strategy [cfg(test)] link_overlay_by_path,
            Variant::LinkOverlay(Dialect::Paths), $($area::$test),*);
        for_every_strategy!(@strategy [cfg(test)] bind, Variant::Bind, $($area::$test),*);
    };
    (@strategy $attribute:tt $name:ident, $variant:expr, $($area:ident :: $test:ident),*) => {
        mod $name {
            use super::*;
            $(
                #[test]
                #$attribute
                fn $test() {
                    if let Some(bench) = Bench::open($variant) {
                        super::$area::$test(&bench);
                        bench.finish();
                    }
                }
            )*
        }
    };
}

for_every_strategy! {
    contents::every_kind_of_entry,
    contents::an_empty_tree,
    contents::many_entries_in_one_directory,
    contents::names_of_all_kinds,
    contents::a_deep_tree,
    contents::sizes_around_blocks,
    contents::long_symlinks,
    contents::blake3,
    contents::a_missing_blob_is_seen_and_not_opened,
    contents::an_empty_file_needs_no_blob,
    contents::equal_directories_at_many_places,
    contents::the_same_tree_by_the_other_digest_function,
    contents::times_and_modes_of_clients,
    outputs::times_and_modes,
    strict::inputs_cannot_be_changed,
    strict::names_are_the_actions_own,
    strict::an_empty_directory_is_the_actions_own,
    strict::inputs_cannot_be_mapped_for_writing,
    strict::new_files_beside_inputs_everywhere,
    strict::own_files_can_be_changed,
    mutable::inputs_can_be_changed,
    mutable::directories_of_inputs_can_be_moved,
    mutable::the_next_action_sees_the_inputs_as_they_were,
    outputs::what_a_strict_action_made,
    outputs::what_a_strict_action_moved,
    outputs::what_a_mutating_action_made,
    outputs::nothing_is_found_through_symlinks,
    outputs::special_files,
    outputs::listings_are_bounded,
    outputs::unreadable_directories_are_read,
    outputs::made_directories,
    outputs::made_directories_in_a_mutable_root,
    outputs::obstructed_directories,
    outputs::an_interrupt_leaves_nothing,
    outputs::a_link_to_an_input_has_its_content,
    lifecycle::a_used_root_is_as_new_for_the_next_action,
    lifecycle::a_root_that_grew_is_replaced,
    lifecycle::two_actions_on_one_tree_do_not_see_each_other,
    lifecycle::deep_and_wide_leftovers_go_away,
    lifecycle::many_at_once,
}

/// There EROFS cannot read a file directly, so the other strategies have to do.
#[test]
fn state_on_tmpfs() {
    let shared_memory = std::path::Path::new("/dev/shm");
    let is_tmpfs = rustix::fs::statfs(shared_memory)
        .is_ok_and(|file_system| file_system.f_type == TMPFS_MAGIC);
    if !is_tmpfs {
        eprintln!("SKIPPED: /dev/shm is no tmpfs");
        return;
    }
    for variant in [
        Variant::Erofs(Backing::Loop, Dialect::Descriptors),
        Variant::TmpfsOverlay,
        Variant::LinkOverlay(Dialect::Descriptors),
        Variant::Bind,
    ] {
        if let Some(bench) = Bench::open_in(shared_memory, variant) {
            contents::every_kind_of_entry(&bench);
            strict::new_files_beside_inputs_everywhere(&bench);
            outputs::what_a_strict_action_made(&bench);
            bench.finish();
        }
    }
}

/// TMPFS_MAGIC of <linux/magic.h>.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
