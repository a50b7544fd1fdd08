//! Operations that meet a fault.
//!
//! The fault may come before, amid or after what an operation does, or not at all. So what the operation is about may be
//! as before or as after it, as long as the store says the same of it everywhere; all else must be as before.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use rustix::fs::stat;

use super::operation::{AtCall, CONTENTS, Content, FUNCTION, Operation, Step, content, digest};
use super::roots::{Numbers, files};
use super::world::{Difference, World, is_of, tear_unsynced};
use crate::disk::faults::{Armed, Counted, Fault, arm};
use crate::{Deleted, Goals};

/// The differences from the map that a fault explains.
#[derive(Debug, Default)]
struct Allowed {
    /// Blobs that may be there or not.
    blobs: BTreeSet<Content>,
    /// Values of actions.
    results: BTreeMap<Content, Option<Content>>,
    /// Blobs and results that were not synced may be lost.
    loses: bool,
    /// Deletions that were not synced may be undone.
    brings_back: bool,
}

impl World {
    pub(super) fn apply_step(&mut self, step: Step) -> Result<(), Difference> {
        let Some(at) = step.fault else { return self.apply(step.operation) };
        match step.operation {
            Operation::Restart { in_background, same_boot } => {
                let allowed = self.end_faulty(at);
                self.boots += u32::from(!same_boot);
                let loses = self.start_faulty(in_background, at)?;
                self.reconcile(&Allowed { loses: allowed.loses || loses, ..allowed })?;
                self.check_all()?;
                self.note_synced();
                Ok(())
            }
            Operation::Kill { in_background } => {
                self.leave_as_it_is();
                let loses = self.start_faulty(in_background, at)?;
                self.reconcile(&Allowed { loses, ..Allowed::default() })?;
                self.check_all()
            }
            Operation::CutPower { in_background, seed } => {
                self.leave_as_it_is();
                self.lose_power(seed);
                self.start_faulty(in_background, at)?;
                self.reconcile(&Allowed { loses: true, brings_back: true, ..Allowed::default() })?;
                self.check_all()?;
                self.note_synced();
                Ok(())
            }
            operation => self.run_faulty(operation, at),
        }
    }

    /// Has the disk fail. A sync that fails loses what is not on the disk.
    fn arm(&self, counted: Counted, at: AtCall) -> Armed {
        let (root, synced) = (self.root.path().to_owned(), self.synced.clone());
        let lose = move || tear_unsynced(&root, &synced, &mut Numbers(at.loss));
        arm(self.root.path(), counted, at.calls, at.fault, Box::new(lose))
    }

    /// Mends the disk. Returns the call that failed.
    fn mend(&mut self, armed: Armed) -> Option<&'static str> {
        let met = armed.met();
        self.met.extend(met);
        met
    }

    /// Ends the store in order, as far as the disk lets it.
    fn end_faulty(&mut self, at: AtCall) -> Allowed {
        let armed = self.arm(Counted::All, at);
        self.stop();
        if armed.has_synced() {
            // A failure after this, when the end is recorded, takes nothing from the disk any more.
            self.note_synced();
        }
        let met = self.mend(armed);
        match at.cut {
            Some(seed) if met.is_some() => {
                self.lose_power(seed);
                Allowed { loses: true, brings_back: true, ..Allowed::default() }
            }
            _ => Allowed { loses: met == Some("syncfs"), ..Allowed::default() },
        }
    }

    /// Starts on a disk that fails; when the store does not open, on one that works. Returns whether a sync failed.
    fn start_faulty(&mut self, in_background: bool, at: AtCall) -> Result<bool, Difference> {
        let armed = self.arm(Counted::All, at);
        let started = self.start(in_background);
        if started.is_ok() {
            // A thread opens the store until it is open or has failed.
            while !self.store().is_open() && !self.has_failed() {
                std::thread::yield_now();
            }
        }
        let is_open = started.is_ok() && self.store().is_open();
        let met = self.mend(armed);
        if met.is_some() && at.fault == Fault::Dies {
            self.leave_as_it_is();
            self.start(in_background)?;
        } else if !is_open {
            ensure!(met.is_some(), "the store does not open: {started:?}");
            self.stop();
            self.start(in_background)?;
        }
        Ok(met == Some("syncfs"))
    }

    fn has_failed(&self) -> bool {
        self.store().take_failure().is_some()
    }

    fn run_faulty(&mut self, operation: Operation, at: AtCall) -> Result<(), Difference> {
        let armed = self.arm(Counted::OfThisThread, at);
        let mut allowed = Allowed::default();
        let performed = self.perform(operation, &mut allowed);
        if at.fault == Fault::Dies && armed.met().is_some() {
            self.leave_as_it_is();
            self.mend(armed);
            if let Some(seed) = at.cut {
                self.lose_power(seed);
                (allowed.loses, allowed.brings_back) = (true, true);
            }
            performed?;
            self.start(false)?;
            self.reconcile(&allowed)?;
            self.check_all()?;
            if at.cut.is_some() {
                // Everything that is there now was verified on the disk.
                self.note_synced();
            }
            return Ok(());
        }
        if self.mend(armed) == Some("syncfs") {
            self.is_suspect = true;
            allowed.loses = true;
        }
        performed?;
        self.reconcile(&allowed)
    }

    /// Does it, and notes in the map what the store says of it.
    fn perform(&mut self, operation: Operation, allowed: &mut Allowed) -> Result<(), Difference> {
        let store = self.store();
        match operation {
            Operation::Put(number) => {
                let stored = store.cas().put(FUNCTION, &content(number)).is_ok();
                self.note_put(number, stored, allowed);
            }
            Operation::WriteInPieces(number, piece) => {
                let mut writer = store.cas().writer(FUNCTION, Some(digest(number)));
                let written =
                    content(number).chunks(piece).try_for_each(|piece| writer.write(piece));
                let stored = written.and_then(|()| writer.commit()).is_ok();
                self.note_put(number, stored, allowed);
            }
            Operation::GiveUp(number) => {
                let mut writer = store.cas().writer(FUNCTION, None);
                let _ = writer.write(&content(number));
            }
            Operation::Delete(number) => {
                let was_there = self.blobs.contains(&number);
                match store.cas().delete(&digest(number)) {
                    Ok(deleted) => ensure!(
                        was_there == (deleted == Deleted::Gone) || deleted == Deleted::Pinned,
                        "{deleted:?}, and it was there: {was_there}"
                    ),
                    Err(_) => _ = allowed.blobs.insert(number),
                }
                if was_there && self.is_gone(number) {
                    self.remove(number);
                }
            }
            Operation::Evict { to_bytes } => {
                let goals = Goals { used_bytes_max: Some(to_bytes), ..Goals::default() };
                let _ = store.collect_garbage(goals, |_| ControlFlow::Continue(()));
                let is_pinned = |number| self.pins.iter().any(|(pinned, _)| *pinned == number);
                allowed.blobs = (0..CONTENTS).filter(|number| !is_pinned(*number)).collect();
                allowed.results = (0..CONTENTS).map(|number| (number, None)).collect();
                let blobs: Vec<_> = self.blobs.iter().copied().collect();
                for number in blobs {
                    if self.is_gone(number) && allowed.blobs.contains(&number) {
                        self.remove(number);
                    }
                }
                let root = self.root.path();
                self.synced.retain(|path| root.join(path).exists());
            }
            Operation::PutResult(action, value) => {
                let cache = store.action_cache();
                match cache.put("", &digest(action), &content(value)) {
                    Ok(()) => _ = self.results.insert(action, value),
                    Err(_) => _ = allowed.results.insert(action, Some(value)),
                }
                self.synced.retain(|path| !is_of(path, action, "ac"));
            }
            Operation::DeleteResult(action) => {
                let deleted = store.action_cache().delete("", &digest(action));
                match deleted {
                    Ok(_) => _ = self.results.remove(&action),
                    Err(_) => _ = allowed.results.insert(action, None),
                }
                self.synced.retain(|path| !is_of(path, action, "ac"));
            }
            Operation::Sync => {
                if store.make_durable().is_ok() {
                    ensure!(!self.is_suspect, "a sync succeeded after one failed");
                    self.note_synced();
                }
            }
            // They change nothing, or have a fault of their own.
            Operation::Pin(_)
            | Operation::Check(_)
            | Operation::FindMissing
            | Operation::Restart { .. }
            | Operation::Kill { .. }
            | Operation::CutPower { .. } => {}
        }
        Ok(())
    }

    fn note_put(&mut self, number: Content, is_stored: bool, allowed: &mut Allowed) {
        if is_stored {
            self.add(number);
        } else if !self.blobs.contains(&number) {
            allowed.blobs.insert(number);
        }
    }

    /// Looks what is there, which must be what the map says or what is allowed, and takes it into the map.
    fn reconcile(&mut self, allowed: &Allowed) -> Result<(), Difference> {
        let store = self.store();
        for number in 0..CONTENTS {
            let found = store.cas().read(&digest(number)).map_err(|error| error.to_string())?;
            if let Some(found) = &found {
                ensure!(**found == content(number), "{number} is read as something else");
            }
            let is_there = found.is_some();
            let says = store.cas().contains(&digest(number));
            ensure!(says == is_there, "{number}: there {is_there}, and the store says {says}");
            let may_be_lost = allowed.loses && !self.must_stay(number, "cas");
            let may_be_back = allowed.brings_back && self.unlinked.contains(&number);
            let is_expected = match self.blobs.contains(&number) {
                true => is_there || may_be_lost || allowed.blobs.contains(&number),
                false => !is_there || may_be_back || allowed.blobs.contains(&number),
            };
            ensure!(is_expected, "{number}: there {is_there}, which is not as before");
            if is_there {
                self.blobs.insert(number);
            } else if self.blobs.contains(&number) {
                self.remove(number);
            }

            let found = store.action_cache().get("", &digest(number));
            let found = found.map_err(|error| error.to_string())?;
            let expected = self.results.get(&number).copied();
            let may_be_lost = allowed.loses && !self.must_stay(number, "ac");
            let is = |value: Option<Content>| found.as_deref() == value.map(content).as_deref();
            if is(expected) {
                continue;
            }
            match allowed.results.get(&number) {
                Some(value) if is(*value) => match value {
                    Some(value) => _ = self.results.insert(number, *value),
                    None => _ = self.results.remove(&number),
                },
                _ if found.is_none() && may_be_lost => _ = self.results.remove(&number),
                _ => return Err(format!("the result of {number} is another one")),
            }
        }
        self.check_account()
    }

    /// The files on the disk are in the account of the store: it may not take more than it says.
    fn check_account(&self) -> Result<(), Difference> {
        let (store, root) = (self.store(), self.root.path());
        if !store.is_open() {
            return Ok(());
        }
        let mut used = 0;
        for directory in ["cas/blobs", "ac", "quarantine"] {
            for file in files(&root.join(directory)) {
                used += stat(&file).map_or(0, |stat| stat.st_blocks as u64 * 512);
            }
        }
        let says = store.stats().used_bytes;
        ensure!(says >= used, "{used} bytes are used, and the store says {says}");
        Ok(())
    }
}
