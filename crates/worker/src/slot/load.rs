//! The action and its inputs before a run: read, parsed and pinned, and fetched where the store has a tier below it.

use events::Origin;
use model::{ActionMessage, ActionSpec, Chain, CommandSpec, Digest};

use super::{Job, Slot};
use crate::below;
use crate::error::ActionError;
use crate::inputs::{self, PinnedTree};
use crate::operation::Operation;

/// An action with its command, or the error of that command.
pub(crate) type Parsed = Result<ActionSpec, model::ActionError>;

/// The machine that an action asks for.
pub(crate) enum Machine {
    /// This one. The action comes with its command if that could be read, so that it is parsed once.
    This(Option<Box<Parsed>>),
    /// Another one, or a root file system that is not here.
    Another,
}

impl Slot {
    /// The whole action and its inputs, all present. The error names all missing blobs of both. Fetches missing blobs
    /// from the tier below the store, where there is one: each round finds a level of directories more, and the files of
    /// those before it. The command is parsed in the first round that finds it, unless it was parsed already.
    pub(super) fn load(
        &self,
        operation: &Operation,
        origin: &Origin,
        action: &ActionMessage,
        parsed: Option<Parsed>,
    ) -> Result<(ActionSpec, PinnedTree), ActionError> {
        let (cas, reading) = (self.shared.store.cas(), &self.shared.reading);
        let mut parsed = parsed;
        let pinned = self.with_tier(operation, origin, || {
            if parsed.is_none() {
                parsed = self.parse_command(action)?;
            }
            if let Some(Err(error)) = &parsed {
                return Err(ActionError::Invalid(Chain(error).to_string()));
            }
            let pinned = self.shared.inputs.load(cas, reading, action.input_root);
            if parsed.is_some() {
                return pinned;
            }
            Err(also_missing(action.command, pinned.err()))
        })?;
        let Some(Ok(action)) = parsed else { return Err(also_missing(action.command, None)) };
        self.shared.ignored_properties.tell(&action.command.properties.ignored);
        Ok((action, pinned))
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
        mut load: impl FnMut() -> Result<T, ActionError>,
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

    /// The machine that the action asks for. It is this one if its command is nowhere to be found.
    pub(crate) fn machine_of(&self, job: &Job) -> Machine {
        let found = self.with_tier(&job.operation, &job.origin, || {
            let parsed = self.parse_command(&job.action)?;
            parsed.ok_or_else(|| ActionError::MissingBlobs(vec![job.action.command]))
        });
        let is_another = match &found {
            Ok(Ok(action)) => self.shared.runtimes.view(&action.command.properties).is_err(),
            Ok(Err(error)) => error.asks_for_another_machine(),
            Err(_) => false,
        };
        if is_another { Machine::Another } else { Machine::This(found.ok().map(Box::new)) }
    }

    /// The action with its command, or the error of the command; `None` if that is missing.
    fn parse_command(&self, action: &ActionMessage) -> Result<Option<Parsed>, ActionError> {
        if let Err(error) = action.check_command_size() {
            return Ok(Some(Err(error)));
        }
        let bytes_max = CommandSpec::parse_bytes_max(action.command.size_bytes());
        let _permit = self.shared.reading.permit(bytes_max);
        let Some(command) = inputs::read(self.shared.store.cas(), &action.command)? else {
            return Ok(None);
        };
        Ok(Some(action.clone().with_command(&command, &self.shared.config.platform)))
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
