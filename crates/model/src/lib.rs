//! Pure types of remote execution: digests, input trees, commands, limits, outcomes.
