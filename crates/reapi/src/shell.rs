//! `actiond.internal.v1.Shell`: streams into the sandbox of an action, for a person or a script.
//!
//! The action is one as any other: it is queued, has a slot and a sandbox while it runs, and its limits. Only its
//! streams are one terminal, or pipes, whose other ends are carried over a call in both directions:
//!
//! ```text
//! client ──► input, sizes ──► Session ──► Conversation ──► the action
//!        ◄── output ◄────────────┤◄────────────────┘
//!        ◄── end ◄───────────────┴◄─ Subscription ◄── its slot
//! ```
//!
//! A client that goes away, by whatever end of its call, kills the action. Callers must own the server: a session
//! holds a slot for as long as a person likes, which no client of others is trusted with.

use std::convert::Infallible;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use access::check_instance;
use proto::actiond::internal::v1::run_shell_request::{Part, Start};
use proto::actiond::internal::v1::run_shell_response::{End, Part as Answer};
use proto::actiond::internal::v1::{RunShellRequest, RunShellResponse, ShellSize};
use store::Store;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Code, Request, Response, Status, Streaming};
use worker::{
    Conversation, ConversationError, Done, ExecuteRequest, Subscription, TerminalSize, Worker,
};

use crate::execution::not_taken_on;
use crate::grpc::{Call, Methods};
use crate::memory::Reservation;
use crate::offer::Offer;
use crate::operation::execute_response;
use crate::{below, blocking, origin, request, status};

/// The most bytes of input in a message, and those of a message around them.
const INPUT_BYTES_MAX: usize = 64 << 10;
const MESSAGE_BYTES_MAX: usize = INPUT_BYTES_MAX + (4 << 10);

/// Bytes of output in a message: what a terminal holds.
const OUTPUT_BYTES: usize = 4 << 10;

/// Messages of output that wait for a slow client; the action waits then.
const RESPONSES_WAITING: usize = 16;

/// The memory of a session: a message of input that is decoded, the output that waits, and an Action.
const SESSION_BYTES: u64 = (2 * MESSAGE_BYTES_MAX + RESPONSES_WAITING * OUTPUT_BYTES) as u64;

/// The time for the first message. Clients send it at once.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest session. One that was forgotten gives its slot back, and a working day is shorter.
const SESSION_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// The time for a client to take what an action wrote before its end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The character that ends the input of a terminal (Ctrl-D).
const END_OF_INPUT: u8 = 4;

/// The service.
#[derive(Clone)]
pub(crate) struct Shell {
    store: Arc<Store>,
    worker: Worker,
    offer: Offer,
    /// As many sessions as there are slots: more would only wait.
    places: Arc<Semaphore>,
}

impl Shell {
    pub(crate) fn new(store: Arc<Store>, worker: Worker, offer: Offer) -> Self {
        let places = Arc::new(Semaphore::new(worker.jobs().get()));
        Self { store, worker, offer, places }
    }
}

impl Methods for Shell {
    const NAME: &'static str = "actiond.internal.v1.Shell";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        match method {
            "Run" => {
                let reservation = call.reservation();
                call.both_streaming(MESSAGE_BYTES_MAX, move |request| {
                    self.clone().run(request, Arc::clone(&reservation))
                })
            }
            _ => call.unimplemented(),
        }
    }
}

type Responses = mpsc::Sender<Result<RunShellResponse, Status>>;

impl Shell {
    async fn run(
        self,
        request: Request<Streaming<RunShellRequest>>,
        reservation: Arc<Reservation>,
    ) -> Result<Response<ReceiverStream<Result<RunShellResponse, Status>>>, Status> {
        let is_owner = request.extensions().get::<access::Caller>().is_some_and(|it| it.is_owner);
        if !is_owner {
            return Err(Status::permission_denied(
                "only the owner of the server and root may open a shell, and only at a socket in the file \
                 system, such as the one in the root directory of the server",
            ));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("there are as many shells as the server has slots; end one")
        })?;
        reservation.grow_by(SESSION_BYTES)?;
        let caller = origin::encoded(request.metadata());
        let origin = Arc::new(origin::caller(request.extensions(), &caller).origin());
        let (_, extensions, mut requests) = request.into_parts();
        let first = timeout(START_TIMEOUT, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no first message in time"))??;
        let Some(Part::Start(start)) = first.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("the first message must have `start`"));
        };
        check_instance(&extensions, &start.instance_name)?;
        let size = start.size.as_ref().map(size).transpose()?;
        let to_run = self.to_run(&start, origin)?;
        if self.store.tier().is_some() {
            below::fetch(&self.store, &reservation, [to_run.action], caller).await?;
        }
        tracing::debug!(action = %to_run.action, "a shell");
        let (worker, store) = (self.worker.clone(), Arc::clone(&self.store));
        let (subscription, input, output) = blocking::run(move || {
            let made = match size {
                Some(size) => Conversation::on_terminal(size),
                None => Conversation::through_pipes(),
            };
            let Conversation { input, output, of_action } =
                made.map_err(|error| no_streams(&error))?;
            let submitted = worker.execute_with_streams(&store.blocking(), &to_run, of_action);
            Ok((submitted.map_err(|error| not_taken_on(&error))?, input, output))
        })
        .await?;
        let (responses, receiver) = mpsc::channel(RESPONSES_WAITING);
        let session = Session {
            worker: self.worker,
            subscription,
            output: watched(output, Interest::READABLE)?,
            responses,
            _place: place,
            _reservation: reservation,
        };
        let input = Input {
            stream: watched(input, Interest::WRITABLE)?,
            is_terminal: size.is_some(),
            requests,
        };
        tokio::spawn(session.run(input));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    fn to_run(&self, start: &Start, origin: Arc<events::Origin>) -> Result<ExecuteRequest, Status> {
        let instance = request::instance_name(&self.offer, &start.instance_name)?;
        let action = request::action(
            start.action_digest.as_ref(),
            start.digest_function,
            &self.offer.functions,
            self.store.cas(),
        )?;
        Ok(ExecuteRequest {
            instance,
            action,
            assigned: None,
            skip_cache_lookup: true,
            is_forwarded: false,
            priority: 0,
            origin,
        })
    }
}

/// An action, and the call that talks to it.
struct Session {
    worker: Worker,
    subscription: Subscription,
    output: AsyncFd<OwnedFd>,
    responses: Responses,
    _place: OwnedSemaphorePermit,
    _reservation: Arc<Reservation>,
}

impl Session {
    async fn run(mut self, input: Input) {
        let operation = self.subscription.operation_name().to_owned();
        let named = answer(Answer::Operation(operation.clone()));
        let (output, responses) = (&self.output, &self.responses);
        let ended = tokio::select! {
            // Its first state is there at once.
            done = done(&mut self.subscription) => Ok(done),
            failure = async {
                if responses.send(Ok(named)).await.is_err() {
                    return gone();
                }
                tokio::select! {
                    failure = input.carry() => failure,
                    () = carry_output(output, responses) => gone(),
                    () = responses.closed() => gone(),
                }
            } => Err(failure),
            () = tokio::time::sleep(SESSION_MAX) => {
                Err(Status::deadline_exceeded("the shell was open for 12 hours and was ended"))
            }
        };
        match ended {
            Err(failure) => {
                self.worker.cancel(&operation);
                let _ = timeout(DRAIN_TIMEOUT, self.responses.send(Err(failure))).await;
            }
            Ok(done) => {
                let _ = timeout(DRAIN_TIMEOUT, self.finish(done)).await;
            }
        }
    }

    /// Sends what is left of the output, and the end.
    async fn finish(&self, done: Option<Done>) {
        let mut buffer = [0; OUTPUT_BYTES];
        loop {
            let Ok(place) = self.responses.reserve().await else { return };
            // Everything in the sandbox is dead, so that nothing more comes when there is nothing now.
            match rustix::io::read(self.output.get_ref(), &mut buffer) {
                Ok(count) if count > 0 => place.send(Ok(output(&buffer[..count]))),
                Ok(_) | Err(_) => break,
            }
        }
        for part in end(done) {
            let _ = self.responses.send(Ok(answer(part))).await;
        }
    }
}

/// Registers a descriptor that does not block with the runtime.
fn watched(stream: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>, Status> {
    #[allow(
        deprecated,
        reason = "the other one is unsafe for types that do not own a descriptor; this one does"
    )]
    let watched = AsyncFd::with_interest(stream, interest);
    watched.map_err(|error| status::of_act(Code::Internal, "waiting for the streams", &error))
}

/// The status of streams that could not be made.
fn no_streams(error: &ConversationError) -> Status {
    let code = match error {
        ConversationError::Mount(_) => Code::Internal,
        ConversationError::Terminal(_) | ConversationError::Pipes(_) => Code::ResourceExhausted,
    };
    status::of_act(code, "there are no streams for the shell", error)
}

/// The status for a client that is not there any more.
fn gone() -> Status {
    Status::cancelled("the client is gone")
}

fn answer(part: Answer) -> RunShellResponse {
    RunShellResponse { part: Some(part) }
}

fn output(bytes: &[u8]) -> RunShellResponse {
    answer(Answer::Output(bytes.to_vec().into()))
}

/// The last messages. A program that could not be executed has words about that in its result.
fn end(done: Option<Done>) -> Vec<Answer> {
    let Some(done) = done else {
        let lost = Status::internal("the operation was forgotten");
        let status = Some(status::to_rpc(Err(lost)));
        return vec![Answer::End(End { status, ..End::default() })];
    };
    let result = done.result.as_ref().and_then(|result| {
        <model::proto::ActionResult as prost::Message>::decode(result.message().clone()).ok()
    });
    let result = result.unwrap_or_default();
    let response = execute_response(&done, None);
    let (exit_code, status, message) = (result.exit_code, response.status, response.message);
    let mut parts = Vec::new();
    if !result.stderr_raw.is_empty() {
        parts.push(Answer::Output(result.stderr_raw));
    }
    parts.push(Answer::End(End { exit_code, status, message }));
    parts
}

/// Waits for the answer of an operation.
async fn done(subscription: &mut Subscription) -> Option<Done> {
    loop {
        let state = subscription.next().await?;
        if let Some(done) = &state.done {
            return Some(done.clone());
        }
    }
}

/// Carries output until the client is gone. The end of the output is not that of the action.
async fn carry_output(stream: &AsyncFd<OwnedFd>, responses: &Responses) {
    let mut buffer = [0; OUTPUT_BYTES];
    loop {
        // A place first, so that nothing that was read is lost when this future is dropped.
        let Ok(place) = responses.reserve().await else { return };
        let read = stream
            .async_io(Interest::READABLE, |stream| Ok(rustix::io::read(stream, &mut buffer)?));
        match read.await {
            Ok(count) if count > 0 => place.send(Ok(output(&buffer[..count]))),
            Ok(_) | Err(_) => return pending().await,
        }
    }
}

/// The way of the input.
struct Input {
    requests: Streaming<RunShellRequest>,
    stream: AsyncFd<OwnedFd>,
    is_terminal: bool,
}

impl Input {
    /// Carries input until the client breaks off, and returns why. The end of the input is not that of the action.
    async fn carry(mut self) -> Status {
        loop {
            let part = match self.requests.message().await {
                Ok(Some(RunShellRequest { part })) => part,
                Ok(None) => break,
                Err(status) => return status,
            };
            match part {
                Some(Part::Input(bytes)) => self.write(&bytes).await,
                Some(Part::Size(window)) => match size(&window) {
                    // An error says that the terminal is gone with its action, or that the action has pipes.
                    Ok(size) => {
                        let _ = worker::resize(&self.stream, size);
                    }
                    Err(refusal) => return refusal,
                },
                Some(Part::Start(_)) | None => {
                    return Status::invalid_argument(
                        "a message after the first must have `input` or `size`",
                    );
                }
            }
        }
        if self.is_terminal {
            self.write(&[END_OF_INPUT]).await;
        }
        // Readers of a pipe see its end now.
        drop(self);
        pending().await
    }

    /// Writes all of it, waiting for an action that does not read. An action that is gone reads no more.
    async fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let written = self
                .stream
                .async_io(Interest::WRITABLE, |stream| Ok(rustix::io::write(stream, bytes)?));
            match written.await {
                Ok(count) => bytes = &bytes[count.min(bytes.len())..],
                Err(_) => return,
            }
        }
    }
}

/// The size of a window.
fn size(ShellSize { rows, columns }: &ShellSize) -> Result<TerminalSize, Status> {
    match (u16::try_from(*rows), u16::try_from(*columns)) {
        (Ok(rows), Ok(columns)) => Ok(TerminalSize { rows, columns }),
        _ => Err(Status::invalid_argument("a window has at most 65,535 rows and columns")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_bounds() {
        let of = |rows, columns| size(&ShellSize { rows, columns }).map_err(|it| it.code());
        assert_eq!(of(1, 65_535), Ok(TerminalSize { rows: 1, columns: 65_535 }));
        assert_eq!(of(65_536, 1), Err(Code::InvalidArgument));
        assert_eq!(of(1, u32::MAX), Err(Code::InvalidArgument));
    }

    #[test]
    fn a_lost_operation_is_no_success() {
        let parts = end(None);
        let [Answer::End(end)] = &parts[..] else { panic!("one message") };
        assert_eq!(end.status.as_ref().map(|it| it.code), Some(Code::Internal as i32));
    }
}
