//! `actiond.internal.v1.History`: running and past actions.
//!
//! A caller sees the actions of those instances alone in which it has the right `read`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use access::Permit;
use events::{Limits, Origin, Stages};
use history::{Archive, AskError, Kind, Live, Page, Record};
use model::{Digest, DigestFunction, DigestFunctions};
use proto::actiond::internal::v1::get_totals_response::Total;
use proto::actiond::internal::v1::list_actions_response::Action;
use proto::actiond::internal::v1::list_records_request::Of;
use proto::actiond::internal::v1::record::Value;
use proto::actiond::internal::v1::{
    self as messages, FollowRecordsRequest, FollowRecordsResponse, GetTotalsRequest,
    GetTotalsResponse, ListActionsRequest, ListActionsResponse, ListRecordsRequest,
    ListRecordsResponse, RecordOrigin,
};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, BoxStream, http};
use tonic::{Code, Extensions, Request, Response, Status};

use crate::grpc::{Call, Methods};
use crate::memory::Reservation;
use crate::{blocking, request, status};

/// Records of one answer, unless the caller asks for fewer.
const RECORDS_MAX: u32 = 1000;

/// The memory of a record and its message, in bytes: names and digests, and a result of usual size.
const RECORD_BYTES: u64 = 4 << 10;

/// The memory of an action in a list, in bytes.
const ACTION_BYTES: u64 = 2 << 10;

/// The service.
#[derive(Clone)]
pub(crate) struct History {
    archive: Archive,
    offered: DigestFunctions,
}

impl History {
    pub(crate) fn new(archive: Archive, offered: DigestFunctions) -> Self {
        Self { archive, offered }
    }
}

impl Methods for History {
    const NAME: &'static str = "actiond.internal.v1.History";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let reservation = call.reservation();
        match method {
            "ListActions" => call.unary(move |request| {
                std::future::ready(self.list_actions(&request, &reservation))
            }),
            "ListRecords" => call
                .unary(move |request| self.clone().list_records(request, Arc::clone(&reservation))),
            "FollowRecords" => call.server_streaming(move |request| {
                std::future::ready(Ok(Response::new(self.follow_records(&request))))
            }),
            "GetTotals" => call.unary(move |request| self.clone().get_totals(request)),
            _ => call.unimplemented(),
        }
    }
}

impl History {
    fn list_actions(
        &self,
        request: &Request<ListActionsRequest>,
        reservation: &Reservation,
    ) -> Result<Response<ListActionsResponse>, Status> {
        let now = Instant::now();
        let (queued, running) = self.archive.now.counts();
        reservation.grow_by(ACTION_BYTES * (queued + running) as u64)?;
        let snapshot = self.archive.now.snapshot();
        let live = snapshot.running.iter().chain(&snapshot.queued);
        let visible = live.filter(|live| is_visible(request.extensions(), &live.instance));
        let actions = visible.filter_map(|live| action(live, now)).collect();
        Ok(Response::new(ListActionsResponse { actions }))
    }

    async fn list_records(
        self,
        request: Request<ListRecordsRequest>,
        reservation: Arc<Reservation>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        let (_, extensions, message) = request.into_parts();
        let limit = if message.limit == 0 { RECORDS_MAX } else { message.limit.min(RECORDS_MAX) };
        let held = if message.executions_only { RECORDS_MAX } else { limit };
        reservation.grow_by(2 * RECORD_BYTES * u64::from(held))?;
        let of = match message.of {
            Some(Of::ActionDigest(digest)) => {
                let (offered, value) = (&self.offered, message.digest_function);
                let function = request::function_of(offered, value, Some(&digest))?;
                Wanted::Action(request::digest("action_digest", Some(&digest), function)?)
            }
            Some(Of::Target(target)) => Wanted::Target(target),
            Some(Of::Invocation(invocation)) => Wanted::Invocation(invocation),
            None => Wanted::All,
        };
        let page = Page::first(limit);
        let executions_only = message.executions_only;
        let records = blocking::run(move || {
            let asked = self.archive.ask(|reader| match &of {
                Wanted::Action(digest) => reader.of_action(digest, page),
                Wanted::Target(target) if executions_only => {
                    let mut records = reader.of_target(target, Page::first(RECORDS_MAX))?;
                    records.retain(|record| record.kind == Kind::Execution);
                    records.truncate(limit as usize);
                    Ok(records)
                }
                Wanted::Target(target) => reader.of_target(target, page),
                Wanted::All if executions_only => reader.recent_executions(limit),
                Wanted::Invocation(invocation) => reader.slowest_of(invocation, limit),
                Wanted::All => reader.recent(page),
            });
            asked.map_err(|error| not_asked(&error))
        })
        .await?;
        let visible = records.iter().filter(|record| is_visible(&extensions, &record.instance));
        Ok(Response::new(ListRecordsResponse { records: visible.map(record).collect() }))
    }

    fn follow_records(
        &self,
        request: &Request<FollowRecordsRequest>,
    ) -> BoxStream<FollowRecordsResponse> {
        let extensions = request.extensions().clone();
        let follower = Some(self.archive.feed.follow());
        let first = futures_util::stream::iter([Ok(FollowRecordsResponse::default())]);
        let rest = futures_util::stream::unfold(
            (follower, extensions),
            |(follower, extensions)| async move {
                let mut follower = follower?;
                loop {
                    let response = match follower.next().await? {
                        Ok(new) if is_visible(&extensions, &new.instance) => {
                            FollowRecordsResponse { record: Some(record(&new)), missed: 0 }
                        }
                        Ok(_) => continue,
                        Err(missed) => FollowRecordsResponse { record: None, missed },
                    };
                    return Some((Ok(response), (Some(follower), extensions)));
                }
            },
        );
        Box::pin(tokio_stream::StreamExt::chain(first, rest))
    }

    async fn get_totals(
        self,
        request: Request<GetTotalsRequest>,
    ) -> Result<Response<GetTotalsResponse>, Status> {
        if let Some(permit) = request.extensions().get::<Permit>()
            && !permit.is_for_all()
        {
            return Err(Status::permission_denied(
                "totals are of all instances, and this principal lacks the right `read` in some",
            ));
        }
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let since = now.saturating_sub(std::time::Duration::from_secs(request.get_ref().seconds));
        let since_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let stats = self.archive.stats();
        let totals = blocking::run(move || {
            let asked = self.archive.ask(|reader| reader.tally_since(since_us));
            asked.map_err(|error| not_asked(&error))
        })
        .await?;
        let total = |tally: history::reader::Tally| Total {
            mnemonic: tally.mnemonic,
            is_lookup: tally.kind == Kind::Lookup,
            miss: tally.miss.map(|miss| miss.as_str().to_owned()).unwrap_or_default(),
            failed: tally.failed,
            events: tally.events,
            run_us: tally.run_us,
            output_bytes: tally.output_bytes,
        };
        Ok(Response::new(GetTotalsResponse {
            totals: totals.into_iter().map(total).collect(),
            dropped_records: stats.dropped,
            history_bytes: stats.used_bytes,
        }))
    }
}

enum Wanted {
    Action(Digest),
    Target(String),
    Invocation(String),
    All,
}

pub(crate) fn not_asked(error: &AskError) -> Status {
    let code = match error {
        AskError::Off => Code::FailedPrecondition,
        AskError::Read(_) => Code::Unavailable,
    };
    status::of(code, error)
}

/// Whether a call with these extensions may see actions of that instance.
fn is_visible(extensions: &Extensions, instance: &str) -> bool {
    extensions.get::<Permit>().is_none_or(|permit| permit.is_for(instance))
}

fn action(live: &Live, now: Instant) -> Option<Action> {
    let us = |since: Instant| {
        u64::try_from(now.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX)
    };
    let function = DigestFunction::from_name(live.digest_function)?;
    let (hash, size) = live.action.split_once('/')?;
    let digest = Digest::parse_hex(function, hash, size.parse().ok()?).ok()?;
    Some(Action {
        operation: live.operation.to_string(),
        instance: live.instance.clone(),
        action_digest: Some(digest.to_proto()),
        digest_function: function.to_proto(),
        origin: Some(origin(&live.origin)),
        queued_for_us: us(live.queued),
        running_for_us: live.started.map(us),
    })
}

fn origin(origin: &Origin) -> RecordOrigin {
    RecordOrigin {
        principal: origin.principal.to_string(),
        tool: origin.tool.to_string(),
        invocation: origin.invocation.to_string(),
        mnemonic: origin.mnemonic.to_string(),
        target: origin.target.to_string(),
        configuration: origin.configuration.to_string(),
    }
}

/// A record as a message.
fn record(record: &Record) -> messages::Record {
    let usage = record.usage.map(|it| {
        [
            ("user_us", Some(it.user_us)),
            ("system_us", Some(it.system_us)),
            ("max_resident_bytes", Some(it.max_resident_bytes)),
            ("read_bytes", Some(it.read_bytes)),
            ("written_bytes", Some(it.written_bytes)),
        ]
    });
    let digest = |digest: Option<Digest>| digest.map(|digest| digest.to_proto());
    messages::Record {
        id: record.id,
        is_lookup: record.kind == Kind::Lookup,
        at_us: record.at_us,
        operation: record.operation.clone(),
        instance: record.instance.clone(),
        action_digest: Some(record.action.to_proto()),
        command_digest: digest(record.command),
        input_root_digest: digest(record.input_root),
        digest_function: record.action.function().to_proto(),
        origin: Some(origin(&record.origin)),
        worker: record.worker.clone(),
        cached: record.cached,
        miss: record.miss.map(|miss| miss.as_str().to_owned()).unwrap_or_default(),
        exit_code: record.exit_code,
        failure: record.failure.clone().unwrap_or_default(),
        message: record.message.clone().unwrap_or_default(),
        outcome: record.outcome().to_owned(),
        stages: values(stages(&record.stages)),
        usage: values(usage.into_iter().flatten()),
        limits: values(limits(&record.limits)),
        outputs: record.outputs,
        output_bytes: record.output_bytes,
        result: record.result.clone().unwrap_or_default(),
        times: record.times,
    }
}

fn stages(stages: &Stages) -> [(&'static str, Option<u64>); 8] {
    [
        ("queued_us", stages.queued_us),
        ("inputs_us", stages.inputs_us),
        ("sandbox_us", stages.sandbox_us),
        ("set_up_us", stages.set_up_us),
        ("run_us", stages.run_us),
        ("end_us", stages.end_us),
        ("outputs_us", stages.outputs_us),
        ("total_us", stages.total_us),
    ]
}

fn limits(limits: &Limits) -> [(&'static str, Option<u64>); 4] {
    [
        ("timeout_us", limits.timeout_us),
        ("memory_bytes", limits.memory_bytes),
        ("cpu_cores", limits.cpu_cores.map(u64::from)),
        ("pids_max", limits.pids_max.map(u64::from)),
    ]
}

fn values(named: impl IntoIterator<Item = (&'static str, Option<u64>)>) -> Vec<Value> {
    let known = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| Value { name: name.to_owned(), value }).collect()
}
