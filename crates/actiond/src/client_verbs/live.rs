//! `ps`, `kill`, `logs` and `stats`.

use std::process::ExitCode;

use anyhow::Context as _;
use chain::visible;
use proto::actiond::internal::v1::history_client::HistoryClient;
use proto::actiond::internal::v1::list_actions_response::Action;
use proto::actiond::internal::v1::list_records_request::Of;
use proto::actiond::internal::v1::{
    FollowRecordsRequest, GetTotalsRequest, ListActionsRequest, ListRecordsRequest, Record,
};
use proto::google::longrunning::CancelOperationRequest;
use proto::google::longrunning::operations_client::OperationsClient;
use serde_json::json;
use tonic::Code;

use super::{show, totals};
use crate::output::{print, tell};
use crate::server::{self, Authorized, Server};

/// The largest answer that is taken: a thousand records with their results, or ten thousand actions.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The client of the history.
pub(crate) fn history(server: &Server) -> HistoryClient<Authorized> {
    HistoryClient::new(server.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Running actions, and then queued ones.
pub(crate) fn actions(server: &Server) -> anyhow::Result<Vec<Action>> {
    let mut client = history(server);
    let listed = server.wait(client.list_actions(ListActionsRequest {}));
    Ok(listed.map_err(server::said("read"))?.into_inner().actions)
}

/// Cancels an operation. Returns whether the server knows it.
pub(crate) fn cancel(server: &Server, name: &str) -> anyhow::Result<bool> {
    let mut client = OperationsClient::new(server.channel());
    let request = CancelOperationRequest { name: name.to_owned() };
    match server.wait(client.cancel_operation(request)) {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(server::said("execute")(status)),
    }
}

pub(crate) fn ps(server: &Server, json: bool) -> anyhow::Result<()> {
    let actions = actions(server)?;
    if actions.is_empty() && !json {
        return print("no action runs or waits\n");
    }
    let line = if json { show::action_json } else { show::action_line };
    print(&actions.iter().map(line).collect::<String>())
}

pub(crate) fn kill(server: &Server, operations: &[String], json: bool) -> anyhow::Result<ExitCode> {
    let mut all = true;
    for name in operations {
        let outcome = if cancel(server, name)? { "cancelled" } else { "unknown" };
        all &= outcome == "cancelled";
        if json {
            print(&show::line(&json!({ "operation": name, "outcome": outcome })))?;
        } else {
            print(&format!("{}: {outcome}\n", visible(name)))?;
        }
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The records that `logs` shows.
pub(crate) struct Wanted<'a> {
    pub(crate) target: Option<&'a str>,
    pub(crate) lookups: bool,
}

impl Wanted<'_> {
    fn has(&self, record: &Record) -> bool {
        let origin = record.origin.as_ref();
        let target = origin.map_or("", |origin| origin.target.as_str());
        (self.lookups || !record.is_lookup) && self.target.is_none_or(|wanted| wanted == target)
    }
}

/// The last records, the latest first.
pub(crate) fn records(
    server: &Server,
    of: Option<Of>,
    digest_function: i32,
    limit: u32,
) -> anyhow::Result<Vec<Record>> {
    list(server, ListRecordsRequest { of, digest_function, limit, executions_only: false })
}

fn list(server: &Server, request: ListRecordsRequest) -> anyhow::Result<Vec<Record>> {
    let mut client = history(server);
    let listed = server.wait(client.list_records(request)).map_err(server::said("read"))?;
    Ok(listed.into_inner().records)
}

pub(crate) fn logs(
    server: &Server,
    wanted: &Wanted<'_>,
    lines: u32,
    follow: bool,
    json: bool,
) -> anyhow::Result<()> {
    let shown = |record: &Record| match json {
        true => show::line(&show::record_json(record)),
        false => show::record_line(record),
    };
    let mut client = history(server);
    let said = server::said("read");
    // Before the past is asked for, so that nothing is between the two.
    let mut followed = match follow {
        false => None,
        true => {
            let followed = server.wait(client.follow_records(FollowRecordsRequest {}));
            let mut followed = followed.map_err(&said)?.into_inner();
            server.wait(followed.message()).map_err(&said)?;
            Some(followed)
        }
    };
    if lines > 0 {
        let past = list(
            server,
            ListRecordsRequest {
                of: wanted.target.map(|target| Of::Target(target.to_owned())),
                digest_function: 0,
                limit: lines.min(1000),
                executions_only: !wanted.lookups,
            },
        )?;
        let past = past.iter().filter(|record| wanted.has(record)).take(lines as usize);
        let past: Vec<_> = past.collect();
        print(&past.into_iter().rev().map(shown).collect::<String>())?;
    }
    let Some(followed) = &mut followed else { return Ok(()) };
    loop {
        let next = server.wait(followed.message()).map_err(&said)?;
        let next = next.context("the server ended")?;
        if next.missed > 0 {
            tell(format_args!(
                "linux-actiond: {} records were left out: too many came at once",
                next.missed
            ));
        }
        if let Some(record) = next.record.filter(|record| wanted.has(record)) {
            print(&shown(&record))?;
        }
    }
}

pub(crate) fn stats(server: &Server, seconds: u64, json: bool) -> anyhow::Result<()> {
    let mut client = history(server);
    let answer = server.wait(client.get_totals(GetTotalsRequest { seconds }));
    let answer = answer.map_err(server::said("read"))?.into_inner();
    print(&if json { totals::json(&answer, seconds) } else { totals::text(&answer) })
}
