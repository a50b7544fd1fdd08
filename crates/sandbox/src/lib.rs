//! A process in its namespaces: a pure plan, then its application.
