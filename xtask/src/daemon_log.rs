//! The log of a daemon that was started with `--log-format json`, as events.
//!
//! Each line is an object with `message` and the event's fields at its top level. `serve-vm` logs the
//! lines of the guest's console as messages that begin with [`GUEST`]; a line of the worker in the
//! guest is a JSON object after that. Lines that are no JSON are messages without fields, such as
//! those of the guest's kernel.

use serde_json::{Map, Value};

/// The start of a message that is a line of the guest's console.
const GUEST: &str = "guest: ";

/// The message of an action that was run to its end, or answered from the cache.
pub(crate) const FINISHED: &str = "action finished";

/// The words before the place where the daemon serves, which it says once it does: a line beside the log.
const SERVING: &str = "serving on ";

/// One event.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Event {
    message: String,
    fields: Map<String, Value>,
}

/// The events of a log, in their order.
pub(crate) fn events(log: &str) -> impl Iterator<Item = Event> {
    log.lines().map(Event::parse)
}

/// The text after `words` in the first message that contains them.
pub(crate) fn after(log: &str, words: &str) -> Option<String> {
    events(log).find_map(|event| Some(event.message.split_once(words)?.1.to_owned()))
}

/// The addresses of the places where the daemon says that it serves; words about TLS follow some of them.
pub(crate) fn places(log: &str) -> impl Iterator<Item = String> {
    events(log).filter_map(|event| {
        let (_, place) = event.message.split_once(SERVING)?;
        place.split_whitespace().next().map(str::to_owned)
    })
}

impl Event {
    /// Parses a line of the log.
    pub(crate) fn parse(line: &str) -> Self {
        let event = Self::parse_object(line);
        match event.message.strip_prefix(GUEST) {
            Some(inner) if inner.starts_with('{') => Self::parse_object(inner),
            _ => event,
        }
    }

    fn parse_object(line: &str) -> Self {
        let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else {
            return Self { message: line.to_owned(), fields: Map::new() };
        };
        match fields.remove("message") {
            Some(Value::String(message)) => Self { message, fields },
            _ => Self { message: String::new(), fields },
        }
    }

    /// The event.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The field with that name, if it is a string.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// The field with that name, if it is a number.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.fields.get(name)?.as_i64()
    }

    /// The field with that name, if it is true or false.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.fields.get(name)?.as_bool()
    }

    /// A number that counts something, such as microseconds.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        self.fields.get(name)?.as_u64()
    }

    /// Whether this is an object of the log, not text beside it.
    pub(crate) fn is_structured(&self) -> bool {
        !self.fields.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_message_and_fields() {
        let event = Event::parse(r#"{"level":"INFO","message":"done","n":-3,"b":true,"s":"x y"}"#);
        assert_eq!(event.message(), "done");
        assert_eq!(event.text("s"), Some("x y"));
        assert_eq!((event.number("n"), event.count("n")), (Some(-3), None));
        assert_eq!(
            (event.flag("b"), event.flag("n"), event.text("none")),
            (Some(true), None, None)
        );
        assert!(event.is_structured());
    }

    #[test]
    fn an_event_of_the_guest_is_taken_out_of_its_line() {
        let inner = r#"{"level":"INFO","message":"done","n":3}"#;
        let line = serde_json::json!({ "message": format!("guest: {inner}") }).to_string();
        assert_eq!(Event::parse(&line), Event::parse(inner));
    }

    #[test]
    fn words_are_found_in_messages_only() {
        let log = "{\"message\":\"began\",\"why\":\"serving on 1\"}\n\
                   linux-actiond: serving on 127.0.0.1:2\nlinux-actiond: serving on 127.0.0.1:3\n";
        assert_eq!(after(log, SERVING).as_deref(), Some("127.0.0.1:2"));
        assert_eq!(after("{\"message\":\"began\"}", SERVING), None);
        let log = format!("{log}linux-actiond: serving on [::1]:4 with TLS\n");
        assert_eq!(places(&log).collect::<Vec<_>>(), ["127.0.0.1:2", "127.0.0.1:3", "[::1]:4"]);
    }

    #[test]
    fn text_is_a_message_without_fields() {
        let event = Event::parse("linux-actiond: serving on 127.0.0.1:1");
        assert_eq!(event.message(), "linux-actiond: serving on 127.0.0.1:1");
        assert!(!event.is_structured());
        let of_kernel = Event::parse(r#"{"message":"guest: [ 0.1] Run /init"}"#);
        assert_eq!(of_kernel.message(), "guest: [ 0.1] Run /init");
    }
}
