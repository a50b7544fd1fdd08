//! A check: a clause of the specification, the calls that prove it, and the verdict.

use std::pin::Pin;

use crate::server::Server;
pub(crate) use crate::skip::{Skip, skip};

/// The end of a check: an error says how the server breaks the clause, or is a [`Skip`].
pub(crate) type Outcome = anyhow::Result<()>;

/// The calls that prove a clause.
pub(crate) type Steps = fn(Server) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// One check.
pub(crate) struct Check {
    /// Says what a conforming server does.
    pub(crate) name: &'static str,
    /// The specification's text.
    pub(crate) clause: Clause,
    /// The calls that prove it.
    pub(crate) steps: Steps,
}

/// A place in the specification.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clause {
    /// The service, method, message, field or enumeration, as `Message.field`.
    pub(crate) at: &'static str,
    /// A sentence of its comment, word for word. A test looks it up in the `.proto` files.
    pub(crate) says: &'static str,
    /// Its weight.
    pub(crate) weight: Weight,
}

/// The weight of a clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Weight {
    /// A server that breaks it does not conform.
    Must,
    /// The specification recommends it, or lets the server choose.
    Should,
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server does as the clause says.
    Passed,
    /// It does not: what was seen.
    Failed(String),
    /// The clause does not apply, or cannot be asked: why.
    Skipped(String),
}

impl Verdict {
    /// The verdict on an outcome. An optional method that the server does not implement is no failure.
    pub(crate) fn of(outcome: Outcome) -> Self {
        let Err(error) = outcome else { return Self::Passed };
        if let Some(Skip(reason)) = error.downcast_ref() {
            return Self::Skipped(reason.clone());
        }
        let status = error.chain().find_map(|cause| cause.downcast_ref::<tonic::Status>());
        match status {
            Some(status) if status.code() == tonic::Code::Unimplemented => {
                Self::Skipped(format!("UNIMPLEMENTED: {}", status.message()))
            }
            _ => Self::Failed(format!("{error:#}")),
        }
    }
}

/// A check of what a server must do: `must!(function, "Place", "Sentence.")`.
macro_rules! must {
    ($steps:ident, $at:literal, $says:literal) => {
        $crate::check::check!($steps, $at, $says, Must)
    };
}

/// The same of what it should do.
macro_rules! should {
    ($steps:ident, $at:literal, $says:literal) => {
        $crate::check::check!($steps, $at, $says, Should)
    };
}

macro_rules! check {
    ($steps:ident, $at:literal, $says:literal, $weight:ident) => {
        $crate::check::Check {
            name: stringify!($steps),
            clause: $crate::check::Clause {
                at: $at,
                says: $says,
                weight: $crate::check::Weight::$weight,
            },
            steps: |server| Box::pin($steps(server)),
        }
    };
}

pub(crate) use {check, must, should};

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    #[test]
    fn a_skip_is_no_pass() {
        let verdict = |error: anyhow::Error| Verdict::of(Err(error));
        assert_eq!(Verdict::of(Ok(())), Verdict::Passed);
        assert_eq!(verdict(Skip("none".into()).into()), Verdict::Skipped("none".into()));
        let unimplemented = Status::unimplemented("no such method");
        let expected = Verdict::Skipped("UNIMPLEMENTED: no such method".into());
        assert_eq!(verdict(unimplemented.clone().into()), expected);
        assert_eq!(verdict(anyhow::Error::from(unimplemented).context("asking")), expected);
        let failed = verdict(Status::internal("broken").into());
        assert!(matches!(failed, Verdict::Failed(text) if text.contains("broken")));
    }
}
