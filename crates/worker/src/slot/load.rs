//! The action and its inputs before a run: read, parsed and pinned, and fetched where the store has a tier below it.

use events::Origin;
use model::{ActionMessage, ActionSpec, Chain, CommandSpec, Digest};

use super::{Job, Slot};
use crate::below;
use crate::error::ActionError;
use crate::inputs::{self, PinnedTree};
use crate::operation::Operation;

impl Slot {
    /// The whole action and its inputs, all present. Fetches missing blobs from the tier below the store, where
    /// there is one: each round finds a level of directories more, and the files of those before it.
    pub(super) fn load(
        &self,
        operation: &Operation,
        origin: &Origin,
        action: ActionMessage,
    ) -> Result<(ActionSpec, PinnedTree), ActionError> {
        self.with_tier(operation, origin, || self.load_here(action.clone()))
    }

    /// The inputs of an action for another engine, all present, as is its command, which is not parsed.
    pub(crate) fn load_unread(
        &self,
        operation: &Operation,
        origin: &Origin,
        action: &ActionMessage,
    ) -> Result<PinnedTree, ActionError> {
        let (cas, reading) = (self.shared.store.cas(), &self.shared.reading);
        self.with_tier(operation, origin, || {
            let pinned = self.shared.inputs.load(cas, reading, action.input_root);
            if cas.contains(&action.command) {
                return pinned;
            }
            Err(also_missing(action.command, pinned.err()))
        })
    }

    /// The result of `load` once the tier below the store, where there is one, was asked for missing blobs.
    fn with_tier<T>(
        &self,
        operation: &Operation,
        origin: &Origin,
        load: impl Fn() -> Result<T, ActionError>,
    ) -> Result<T, ActionError> {
        let store = &self.shared.store;
        let Some(tier) = store.tier() else { return load() };
        let is_wanted = || !operation.cancellation.is_requested();
        let (mut pins, mut asked_for) = (Vec::new(), Vec::new());
        loop {
            match load() {
                Err(ActionError::MissingBlobs(missing)) if missing != asked_for && is_wanted() => {
                    let caller = below::caller(origin, &operation.action);
                    pins.push(below::fetch(tier, store.cas(), missing.clone(), caller, &is_wanted));
                    asked_for = missing;
                }
                loaded => return loaded,
            }
        }
    }

    /// Whether the action asks for another machine, or for a root file system that is not here. One whose command is
    /// nowhere to be found does not.
    pub(crate) fn is_for_another_machine(&self, job: &Job) -> bool {
        let cas = self.shared.store.cas();
        let command = self.with_tier(&job.operation, &job.origin, || {
            let missing = || ActionError::MissingBlobs(vec![job.action.command]);
            if cas.contains(&job.action.command) { Ok(()) } else { Err(missing()) }
        });
        if command.is_err() || job.action.check_command_size().is_err() {
            return false;
        }
        let bytes_max = CommandSpec::parse_bytes_max(job.action.command.size_bytes());
        let _permit = self.shared.reading.permit(bytes_max);
        let Ok(Some(command)) = inputs::read(cas, &job.action.command) else { return false };
        match job.action.clone().with_command(&command, &self.shared.config.platform) {
            Ok(action) => self.shared.runtimes.view(&action.command.properties).is_err(),
            Err(error) => error.asks_for_another_machine(),
        }
    }

    /// The whole action and its inputs, all present. The error names all missing
    /// blobs of both.
    fn load_here(&self, action: ActionMessage) -> Result<(ActionSpec, PinnedTree), ActionError> {
        let (cas, reading) = (self.shared.store.cas(), &self.shared.reading);
        let (command, input_root) = (action.command, action.input_root);
        let action = self.with_command(action)?;
        let pinned = self.shared.inputs.load(cas, reading, input_root);
        let Some(action) = action else {
            return Err(also_missing(command, pinned.err()));
        };
        self.shared.ignored_properties.tell(&action.command.properties.ignored);
        Ok((action, pinned?))
    }

    /// The action with its command; `None` if that is missing.
    fn with_command(&self, action: ActionMessage) -> Result<Option<ActionSpec>, ActionError> {
        let invalid = |error| ActionError::Invalid(Chain(&error).to_string());
        action.check_command_size().map_err(invalid)?;
        let bytes_max = CommandSpec::parse_bytes_max(action.command.size_bytes());
        let _permit = self.shared.reading.permit(bytes_max);
        let Some(command) = inputs::read(self.shared.store.cas(), &action.command)? else {
            return Ok(None);
        };
        action.with_command(&command, &self.shared.config.platform).map(Some).map_err(invalid)
    }
}

fn also_missing(command: Digest, inputs: Option<ActionError>) -> ActionError {
    let mut missing = match inputs {
        Some(ActionError::MissingBlobs(missing)) => missing,
        _ => Vec::new(),
    };
    missing.push(command);
    ActionError::MissingBlobs(missing)
}
