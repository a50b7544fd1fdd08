//! The spans of an answered operation: one for the action, and one for each of its stages.
//!
//! An event has the duration of each stage and the time of the request. The stages follow each other, so each span of
//! a stage begins where the one before it ended; the moments between two stages, such as the lookup in the action
//! cache, have no span and make the later ones begin too early by as much.
//!
//! A client that sends no trace context still gets its actions in one trace: the id of the trace is made of the
//! invocation's name, so that the actions of one build belong together, also on several servers.

use std::time::{Duration, SystemTime};

use events::{Finished, Stages, Usage};
use model::{Digest, DigestFunction};
use proto::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value};
use proto::opentelemetry::proto::trace::v1::span::SpanKind;
use proto::opentelemetry::proto::trace::v1::status::StatusCode;
use proto::opentelemetry::proto::trace::v1::{Span, SpanFlags, Status};
use uuid::Uuid;

/// The flag of a trace that is recorded (W3C).
const SAMPLED: u32 = 1;

/// The spans of an action, its own one first. None where the client says that its trace is not recorded.
pub(crate) fn spans(finished: &Finished) -> Vec<Span> {
    let context = finished.origin.trace;
    if context.is_some_and(|it| !it.is_sampled) {
        return Vec::new();
    }
    let trace_id = context.map_or_else(|| trace_id_of(finished), |it| it.trace_id);
    let origin = &finished.origin;
    let name = if origin.mnemonic.is_empty() { "action" } else { origin.mnemonic.as_str() };
    let start = nanos(finished.queued_at);
    let Stages { queued_us, total_us, .. } = finished.stages;
    let end = after(after(start, queued_us.unwrap_or(0)), total_us.unwrap_or(0));
    let remote = context.map_or(0, |_| SpanFlags::ContextIsRemoteMask as u32);
    let flags = SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32;
    let action = Span {
        trace_id: trace_id.to_vec().into(),
        span_id: new_span_id().to_vec().into(),
        parent_span_id: context.map(|it| it.parent_id.to_vec()).unwrap_or_default().into(),
        flags: flags | remote,
        name: name.to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: attributes(finished),
        status: status(finished),
        ..Span::default()
    };
    let mut spans = Vec::with_capacity(8);
    spans.push(action);
    let mut at = start;
    for (name, us) in finished.stages.reached() {
        let start = at;
        at = after(at, us);
        spans.push(Span {
            trace_id: spans[0].trace_id.clone(),
            span_id: new_span_id().to_vec().into(),
            parent_span_id: spans[0].span_id.clone(),
            flags,
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: start,
            end_time_unix_nano: at,
            ..Span::default()
        });
    }
    spans
}

/// The id of the trace of an invocation. Those of different principals differ. Without an invocation every action
/// has a trace of its own.
fn trace_id_of(finished: &Finished) -> [u8; 16] {
    let origin = &finished.origin;
    if origin.invocation.is_empty() {
        return Uuid::new_v4().into_bytes();
    }
    // No name has a zero in it.
    let text = format!("{}\0{}", origin.principal, origin.invocation);
    Digest::of(DigestFunction::Sha256, text.as_bytes()).hash().first()
}

fn new_span_id() -> [u8; 8] {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // Each half has bits that are the same in all.
    (high ^ low.rotate_left(32)).to_be_bytes()
}

fn status(finished: &Finished) -> Option<Status> {
    let message = match (&finished.error, finished.exit_code) {
        (Some(failure), _) => failure.message.to_string(),
        (None, Some(code)) if code != 0 => format!("exit {code}"),
        _ => return None,
    };
    Some(Status { message, code: StatusCode::Error.into() })
}

/// The attributes of the action. Everything in an event is bounded, so they are, too.
fn attributes(finished: &Finished) -> Vec<KeyValue> {
    let origin = &finished.origin;
    let mut found = Attributes(Vec::new());
    found.text("actiond.operation", &finished.operation);
    found.text("actiond.instance", &finished.instance);
    found.text("actiond.digest_function", finished.digest_function);
    found.text("actiond.action", &finished.action);
    found.text("actiond.command", finished.command.as_deref().unwrap_or_default());
    found.text("actiond.input_root", finished.input_root.as_deref().unwrap_or_default());
    if let Some(inputs) = finished.inputs {
        found.number("actiond.input_files", inputs.files);
        found.number("actiond.input_bytes", inputs.bytes);
    }
    found.text("actiond.principal", origin.principal.as_str());
    found.text("actiond.tool", origin.tool.as_str());
    found.text("actiond.invocation", origin.invocation.as_str());
    found.text("actiond.mnemonic", origin.mnemonic.as_str());
    found.text("actiond.target", origin.target.as_str());
    found.text("actiond.configuration", origin.configuration.as_str());
    found.text("actiond.worker", &finished.worker);
    found.text("actiond.miss", finished.miss.map(|miss| miss.as_str()).unwrap_or_default());
    found.text("error.type", finished.error.as_ref().map(|it| it.kind).unwrap_or_default());
    found.add("actiond.cached", any_value::Value::BoolValue(finished.cached));
    if let Some(code) = finished.exit_code {
        found.add("process.exit.code", any_value::Value::IntValue(code.into()));
    }
    found.number("actiond.outputs", finished.outputs);
    found.number("actiond.output_bytes", finished.output_bytes);
    if let Some(usage) = finished.usage {
        let Usage { user_us, system_us, max_resident_bytes, read_bytes, written_bytes } = usage;
        found.number("actiond.user_us", user_us);
        found.number("actiond.system_us", system_us);
        found.number("actiond.max_resident_bytes", max_resident_bytes);
        found.number("actiond.read_bytes", read_bytes);
        found.number("actiond.written_bytes", written_bytes);
    }
    found.0
}

struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, name: &str, value: any_value::Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: name.to_owned(), value, ..KeyValue::default() });
    }

    /// Leaves out what is empty.
    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.add(name, any_value::Value::StringValue(text.to_owned()));
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.add(name, any_value::Value::IntValue(number));
    }
}

/// Nanoseconds since 1970.
fn nanos(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

fn after(nanos: u64, us: u64) -> u64 {
    nanos.saturating_add(us.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use events::{Failure, Limits, Origin, TraceContext};

    use super::*;

    const CONTEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn finished(origin: Origin) -> Finished {
        Finished {
            operation: "operations/1".into(),
            instance: String::new(),
            digest_function: "sha256",
            action: "aa/1".into(),
            command: None,
            input_root: None,
            inputs: None,
            origin: Arc::new(origin),
            queued_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            cached: false,
            miss: None,
            limits: Limits::default(),
            exit_code: Some(0),
            error: None,
            stages: Stages {
                queued_us: Some(10),
                run_us: Some(20),
                outputs_us: Some(5),
                total_us: Some(40),
                ..Stages::default()
            },
            usage: None,
            outputs: 1,
            output_bytes: 2,
            worker: "here".into(),
            result: None,
        }
    }

    fn of_invocation(invocation: &str, principal: &str) -> Origin {
        let (invocation, principal) = (invocation.into(), principal.into());
        Origin { invocation, principal, mnemonic: "CppCompile".into(), ..Origin::default() }
    }

    #[test]
    fn the_stages_follow_each_other_in_the_span_of_the_action() {
        let found = spans(&finished(of_invocation("i", "")));
        let times: Vec<_> = found
            .iter()
            .map(|it| (it.name.as_str(), it.start_time_unix_nano, it.end_time_unix_nano))
            .collect();
        let second = 1_000_000_000;
        let expected = [
            ("CppCompile", second, second + 50_000),
            ("queued", second, second + 10_000),
            ("run", second + 10_000, second + 30_000),
            ("outputs", second + 30_000, second + 35_000),
        ];
        assert_eq!(times, expected);
        for stage in &found[1..] {
            assert_eq!(
                (&stage.trace_id, &stage.parent_span_id),
                (&found[0].trace_id, &found[0].span_id)
            );
        }
        assert!(found[0].status.is_none() && found[0].parent_span_id.is_empty());
        assert_eq!((found[0].trace_id.len(), found[0].span_id.len()), (16, 8));
    }

    #[test]
    fn the_clients_span_is_the_parent() {
        let trace = TraceContext::parse(CONTEXT);
        let found = spans(&finished(Origin { trace, ..of_invocation("i", "") }));
        let context = trace.unwrap();
        assert_eq!(found[0].trace_id, context.trace_id.to_vec());
        assert_eq!(found[0].parent_span_id, context.parent_id.to_vec());
        assert_eq!(found[0].flags, 0x301);
        assert_eq!(found[1].flags, 0x101);
        let trace = trace.map(|context| TraceContext { is_sampled: false, ..context });
        assert!(spans(&finished(Origin { trace, ..Origin::default() })).is_empty());
    }

    #[test]
    fn an_invocation_is_a_trace() {
        let id = |invocation, principal| {
            spans(&finished(of_invocation(invocation, principal)))[0].trace_id.clone()
        };
        assert_eq!(id("i", "p"), id("i", "p"));
        assert_ne!(id("i", "p"), id("i", "q"));
        assert_ne!(id("i", "p"), id("j", "p"));
        assert_ne!(id("", "p"), id("", "p"));
    }

    #[test]
    fn a_failure_is_a_status() {
        let check = |exit_code, error, expected: Option<&str>| {
            let finished = Finished { exit_code, error, ..finished(Origin::default()) };
            let status = spans(&finished)[0].status.clone();
            assert_eq!(status.as_ref().map(|it| it.message.as_str()), expected);
        };
        check(Some(0), None, None);
        check(Some(3), None, Some("exit 3"));
        let failure = Failure { kind: "timeout", step: None, message: "took too long".into() };
        check(None, Some(failure), Some("took too long"));
    }
}
