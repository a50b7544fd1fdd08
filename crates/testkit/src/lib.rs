//! Fixtures for tests: a real daemon and a client that reads as a sentence.
