//! An action's life: queue, cache look-up, inputs, run, outputs, publication.
