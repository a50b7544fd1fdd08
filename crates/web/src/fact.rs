//! Facts about the store that pages show.

/// One line of the page's description of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The name.
    pub name: &'static str,
    /// The value, for people.
    pub value: String,
}
