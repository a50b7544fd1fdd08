//! The filter of `ListOperations`: the part of <https://google.aip.dev/160> that operations need.
//!
//! ```text
//! filter     = [term {"AND" term}]
//! term       = ["NOT" | "-"] comparison
//! comparison = "done" [("=" | "!=") ("true" | "false")]
//!            | "name" ("=" | "!=" | ":") value        (":" is "contains")
//!            | "metadata.stage" ("=" | "!=") value    (CACHE_CHECK, QUEUED, EXECUTING, COMPLETED)
//! ```
//! A value is a word or a string in double quotes.

use tonic::{Code, Status};
use worker::{OperationState, Stage};

use crate::status;

/// Longest filter, in bytes: a few names. It bounds the work for each operation.
const MAX_BYTES: usize = 4096;

/// Why a filter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterRefused {
    /// It is longer than any that makes sense.
    #[error("the filter is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// A string has no end.
    #[error("a string in the filter has no end")]
    Unterminated,
    /// Something else stands where a part of the filter was expected.
    #[error("in the filter: `{found}` where {expected} is expected")]
    Unexpected {
        /// The text at that place; empty at the end.
        found: String,
        /// The text that should be there.
        expected: &'static str,
    },
}

impl From<FilterRefused> for Status {
    fn from(error: FilterRefused) -> Self {
        status::of(Code::InvalidArgument, &error)
    }
}

/// All of its terms must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Filter(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    holds: bool,
    condition: Condition,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Done,
    Name(String),
    NameContains(String),
    Stage(Stage),
}

impl Filter {
    /// Reads the `filter` field of a request; an empty one lets everything through.
    pub(crate) fn parse(text: &str) -> Result<Self, FilterRefused> {
        if text.len() > MAX_BYTES {
            return Err(FilterRefused::TooLong);
        }
        let mut tokens = Tokens::of(text)?;
        let mut terms = Vec::new();
        if tokens.is_at_end() {
            return Ok(Self(terms));
        }
        loop {
            terms.push(term(&mut tokens)?);
            if tokens.is_at_end() {
                return Ok(Self(terms));
            }
            tokens.word("AND", "`AND`")?;
        }
    }

    /// Whether it lets that operation through.
    pub(crate) fn matches(&self, name: &str, state: &OperationState) -> bool {
        let is_true = |condition: &Condition| match condition {
            Condition::Done => state.done.is_some(),
            Condition::Name(value) => name == value,
            Condition::NameContains(value) => name.contains(value.as_str()),
            Condition::Stage(stage) => state.stage == *stage,
        };
        self.0.iter().all(|term| is_true(&term.condition) == term.holds)
    }
}

fn term(tokens: &mut Tokens) -> Result<Term, FilterRefused> {
    let negated = tokens.take("NOT") || tokens.take("-");
    let (holds, condition) = comparison(tokens)?;
    Ok(Term { holds: holds != negated, condition })
}

fn comparison(tokens: &mut Tokens) -> Result<(bool, Condition), FilterRefused> {
    const FIELD: &str = "`done`, `name` or `metadata.stage`";
    let field = tokens.next(FIELD)?;
    match field.as_str() {
        "done" if !tokens.is_at_operator() => Ok((true, Condition::Done)),
        "done" => {
            let equal = equality(tokens)?;
            let value = tokens.next("`true` or `false`")?;
            match value.as_str() {
                "true" => Ok((equal, Condition::Done)),
                "false" => Ok((!equal, Condition::Done)),
                _ => Err(unexpected(value, "`true` or `false`")),
            }
        }
        "name" if tokens.take(":") => {
            Ok((true, Condition::NameContains(tokens.next("a part of a name")?)))
        }
        "name" => Ok((equality(tokens)?, Condition::Name(tokens.next("a name")?))),
        "metadata.stage" => {
            let equal = equality(tokens)?;
            let value = tokens.next("a stage")?;
            let stage = match value.as_str() {
                "CACHE_CHECK" => Stage::CacheCheck,
                "QUEUED" => Stage::Queued,
                "EXECUTING" => Stage::Executing,
                "COMPLETED" => Stage::Completed,
                _ => return Err(unexpected(value, "a stage")),
            };
            Ok((equal, Condition::Stage(stage)))
        }
        _ => Err(unexpected(field, FIELD)),
    }
}

fn equality(tokens: &mut Tokens) -> Result<bool, FilterRefused> {
    if tokens.take("=") {
        return Ok(true);
    }
    tokens.word("!=", "`=` or `!=`").map(|()| false)
}

fn unexpected(found: String, expected: &'static str) -> FilterRefused {
    FilterRefused::Unexpected { found: found.chars().take(40).collect(), expected }
}

/// The words, strings and operators of a filter.
struct Tokens(std::iter::Peekable<std::vec::IntoIter<Token>>);

#[derive(PartialEq, Eq)]
struct Token {
    text: String,
    /// A string is never an operator or a keyword.
    is_string: bool,
}

impl Tokens {
    fn of(text: &str) -> Result<Self, FilterRefused> {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let (token, after) = match first {
                '"' => string(&rest[1..])?,
                '-' => split(rest, 1),
                '!' if rest.starts_with("!=") => split(rest, 2),
                '=' | ':' | '(' | ')' | '!' => split(rest, 1),
                _ => {
                    let ends = |c: char| c.is_whitespace() || "=:!()\"".contains(c);
                    split(rest, rest.find(ends).unwrap_or(rest.len()))
                }
            };
            tokens.push(token);
            rest = after.trim_start();
        }
        Ok(Self(tokens.into_iter().peekable()))
    }

    fn is_at_end(&mut self) -> bool {
        self.0.peek().is_none()
    }

    fn is_at_operator(&mut self) -> bool {
        let is_operator = |text: &str| ["=", "!=", ":"].contains(&text);
        self.0.peek().is_some_and(|token| !token.is_string && is_operator(&token.text))
    }

    /// Goes over `text`, if it stands here.
    fn take(&mut self, text: &str) -> bool {
        self.0.next_if(|token| !token.is_string && token.text == text).is_some()
    }

    /// Goes over `text`, which must stand here.
    fn word(&mut self, text: &str, expected: &'static str) -> Result<(), FilterRefused> {
        if self.take(text) { Ok(()) } else { Err(unexpected(self.next(expected)?, expected)) }
    }

    /// The word or string that must stand here.
    fn next(&mut self, expected: &'static str) -> Result<String, FilterRefused> {
        match self.0.next() {
            Some(token) => Ok(token.text),
            None => Err(unexpected(String::new(), expected)),
        }
    }
}

fn split(text: &str, at: usize) -> (Token, &str) {
    let (token, rest) = text.split_at(at);
    (Token { text: token.to_owned(), is_string: false }, rest)
}

fn string(text: &str) -> Result<(Token, &str), FilterRefused> {
    let (string, rest) = text.split_once('"').ok_or(FilterRefused::Unterminated)?;
    Ok((Token { text: string.to_owned(), is_string: true }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Digest, DigestFunction};
    use worker::Done;

    fn state(stage: Stage) -> OperationState {
        let done = (stage == Stage::Completed).then(|| Done {
            result: None,
            cached: false,
            error: None,
            message: String::new(),
            server_log: None,
        });
        let action = Digest::of(DigestFunction::Sha256, b"action");
        OperationState { stage, action, metadata: Default::default(), done }
    }

    /// Checks which of three operations a filter matches.
    fn check(filter: &str, expected: [bool; 3]) {
        let parsed = Filter::parse(filter).unwrap();
        let operations = [
            ("operations/a-1", Stage::Queued),
            ("operations/a-2", Stage::Executing),
            ("operations/b-3", Stage::Completed),
        ];
        let found = operations.map(|(name, stage)| parsed.matches(name, &state(stage)));
        assert_eq!(found, expected, "{filter}");
    }

    #[test]
    fn filters() {
        check("", [true; 3]);
        check("  ", [true; 3]);
        check("done", [false, false, true]);
        check("done = true", [false, false, true]);
        check("done=false", [true, true, false]);
        check("done != true", [true, true, false]);
        check("NOT done", [true, true, false]);
        check("-done", [true, true, false]);
        check("name = \"operations/a-1\"", [true, false, false]);
        check("name = operations/a-1", [true, false, false]);
        check("name != operations/a-1", [false, true, true]);
        check("name:a-", [true, true, false]);
        check("metadata.stage = EXECUTING", [false, true, false]);
        check("metadata.stage != QUEUED AND name : \"a-\"", [false, true, false]);
        check("done=false AND NOT name:\"1\"", [false, true, false]);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in [
            "((no such filter",
            "done = maybe",
            "done =",
            "done : true",
            "name",
            "name = ",
            "name = \"open",
            "state = DONE",
            "metadata.stage = DONE",
            "done OR name:a",
            "done AND",
            "AND",
            "NOT",
            "!",
            "done \"AND\" done",
        ] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Filter::parse(&"d".repeat(5000)), Err(FilterRefused::TooLong));
        let status = Status::from(Filter::parse("done =").unwrap_err());
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}
