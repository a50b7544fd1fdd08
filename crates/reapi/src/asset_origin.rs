//! `FetchBlob` of what nobody pushed: from its origin, where the operator allows that.
//!
//! A fetch goes on when its client leaves, as the API recommends, so that the next one finds the blob. As many run as there
//! are [turns](crate::asset_turns); the others wait with their clients.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use asset::{Assets, Demands, DemandsError, Names, Origin, OriginError, Record, Wish};
use model::{Digest, DigestFunction, InstanceName};
use prost::Message as _;
use proto::google::protobuf::{self, Any};
use proto::google::rpc::bad_request::FieldViolation;
use proto::google::rpc::{BadRequest, Status as RpcStatus};
use store::Store;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::asset_turns::{Claim, Turn, Turns};
use crate::memory::Reservation;
use crate::{blocking, status};

/// The memory of a fetch: bytes that wait for the disk, and those of the connection.
const FETCH_BYTES: u64 = 1 << 20;

/// The time for a fetch at most, and for one whose client names none: that of 16 GiB at 5 MB/s.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// An origin, and the turns of its fetches.
#[derive(Clone)]
pub(crate) struct Origins {
    origin: Arc<dyn Origin>,
    turns: Turns,
}

/// A request for a blob that is not here.
pub(crate) struct Order {
    pub(crate) store: Arc<Store>,
    pub(crate) reservation: Arc<Reservation>,
    pub(crate) instance: InstanceName,
    pub(crate) names: Names,
    pub(crate) function: DigestFunction,
    pub(crate) timeout: Duration,
    /// The caller's principal, empty for anonymous ones.
    pub(crate) client: Arc<str>,
    /// Whether the caller may fill the store.
    pub(crate) may_write: bool,
}

/// The outcome of an order that was answered by its origins.
pub(crate) enum Delivery {
    /// The blob, and the URI that led to it.
    Fetched(String, Digest),
    /// The error of the last URI, for the `status` of the answer.
    Failed(String, RpcStatus),
    /// No URI is one that an origin opens.
    NotForOrigins,
}

/// The timeout of a request, at most ours.
pub(crate) fn timeout(asked: Option<protobuf::Duration>) -> Result<Duration, Status> {
    let Some(asked) = asked else { return Ok(MAX_TIMEOUT) };
    match (u64::try_from(asked.seconds), u32::try_from(asked.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 && (seconds > 0 || nanos > 0) => {
            Ok(Duration::new(seconds, nanos).min(MAX_TIMEOUT))
        }
        _ => Err(Status::invalid_argument("timeout: not a positive time")),
    }
}

/// The error of qualifiers, with a detail for each one that is not supported.
fn bad_demands(error: &DemandsError) -> Status {
    let violation = |name: &String| FieldViolation {
        field: "qualifiers.name".to_owned(),
        description: format!("\"{name}\" not supported"),
        ..FieldViolation::default()
    };
    let field_violations: Vec<_> = error.unsupported().iter().map(violation).collect();
    let plain = status::of(Code::InvalidArgument, error);
    if field_violations.is_empty() {
        return plain;
    }
    let details = RpcStatus {
        code: plain.code().into(),
        message: plain.message().to_owned(),
        details: vec![Any {
            type_url: "type.googleapis.com/google.rpc.BadRequest".to_owned(),
            value: BadRequest { field_violations }.encode_to_vec(),
        }],
    };
    let message = plain.message().to_owned();
    Status::with_details(plain.code(), message, details.encode_to_vec().into())
}

/// The code that the API has for an error of the origin.
fn code(error: &OriginError) -> Code {
    match error {
        OriginError::Forbidden(_) | OriginError::Refused { .. } => Code::PermissionDenied,
        OriginError::NotFound { .. } => Code::NotFound,
        OriginError::Mismatch { .. } | OriginError::Failed { .. } => Code::Aborted,
        OriginError::TooLarge { .. } => Code::ResourceExhausted,
        OriginError::TimedOut { .. } | OriginError::TooSlow { .. } => Code::DeadlineExceeded,
        OriginError::Store { source, .. } => status::store(source).code(),
    }
}

fn inline(code: Code, message: String) -> RpcStatus {
    RpcStatus { code: code.into(), message, ..RpcStatus::default() }
}

/// A URI that an origin opens.
struct Place {
    uri: String,
    /// Its place among the URIs of the request.
    index: usize,
    host: String,
}

/// An order that goes from one place to the next.
struct Fetch {
    origins: Origins,
    order: Order,
    demands: Arc<Demands>,
    deadline: Instant,
}

impl Origins {
    pub(crate) fn new(origin: Arc<dyn Origin>) -> Self {
        Self { origin, turns: Turns::default() }
    }

    /// Fetches a blob from the first URI that has it.
    pub(crate) async fn fetch(&self, order: Order) -> Result<Delivery, Status> {
        let place = |(index, (uri, _)): (usize, (&str, Digest))| {
            let host = self.origin.host(uri)?;
            Some(Place { uri: uri.to_owned(), index, host })
        };
        let places: Vec<_> = order.names.keys().enumerate().filter_map(place).collect();
        let Some(first) = places.first() else { return Ok(Delivery::NotForOrigins) };
        if !order.may_write {
            let message = "a fetch from the origin fills the store: it needs the right write-cas";
            let status = inline(Code::PermissionDenied, message.to_owned());
            return Ok(Delivery::Failed(first.uri.clone(), status));
        }
        let demands = Arc::new(Demands::of(&order.names).map_err(|error| bad_demands(&error))?);
        let deadline = Instant::now() + order.timeout;
        let fetch = Fetch { origins: self.clone(), order, demands, deadline };
        let Some(turn) = fetch.turn(first).await? else { return Ok(fetch.is_late(first)) };
        // Not before its turn: those who wait hold little.
        fetch.order.reservation.grow_by(FETCH_BYTES)?;
        let fetched = tokio::spawn(async move { fetch.run(places, turn).await });
        fetched.await.unwrap_or_else(|error| Err(status::lost(&error)))
    }
}

impl Fetch {
    /// Waits for a turn; `None` when it did not come in time.
    async fn turn(&self, place: &Place) -> Result<Option<Turn>, Status> {
        let claim = Claim { client: Arc::clone(&self.order.client), host: place.host.clone() };
        let turn = self.origins.turns.turn(claim);
        match tokio::time::timeout_at(self.deadline, turn).await {
            Ok(turn) => turn.map(Some).map_err(|it| status::of(Code::ResourceExhausted, &it)),
            Err(_) => Ok(None),
        }
    }

    fn is_late(&self, place: &Place) -> Delivery {
        let late = OriginError::TimedOut { after: self.order.timeout };
        Delivery::Failed(place.uri.clone(), inline(code(&late), late.to_string()))
    }

    /// Fetches from one place after the other.
    async fn run(self, places: Vec<Place>, first: Turn) -> Result<Delivery, Status> {
        let mut turn = Some(first);
        let mut delivery = Delivery::NotForOrigins;
        for place in places {
            // A slow host must not hold the turn for the next one.
            let turn = match turn.take() {
                Some(turn) => Some(turn),
                None => self.turn(&place).await?,
            };
            let Some(_turn) = turn else { return Ok(self.is_late(&place)) };
            let since = SystemTime::now();
            match self.origins.origin.fetch(self.wish(&place)).await {
                Ok(digest) => {
                    keep(&self.order, &place.uri, Record::of_fetched(digest, since)).await?;
                    return Ok(Delivery::Fetched(place.uri, digest));
                }
                Err(OriginError::Store { source, .. }) => return Err(status::store(source)),
                Err(error) => {
                    // Bazel up to 7 does not look at the status, so that this line is all there is to read.
                    tracing::info!(%error, "a fetch failed");
                    let status = status::of(code(&error), &error);
                    let status = inline(status.code(), status.message().to_owned());
                    delivery = Delivery::Failed(place.uri, status);
                }
            }
        }
        Ok(delivery)
    }

    fn wish(&self, place: &Place) -> Wish {
        Wish {
            uri: place.uri.clone(),
            index: place.index,
            function: self.order.function,
            demands: Arc::clone(&self.demands),
            store: Arc::clone(&self.order.store),
            timeout: self.deadline.saturating_duration_since(Instant::now()),
        }
    }
}

/// Keeps the record of a blob, so that the next one who asks finds it.
async fn keep(order: &Order, uri: &str, record: Record) -> Result<(), Status> {
    let store = Arc::clone(&order.store);
    let (instance, names) = (order.instance.clone(), order.names.of_one(uri));
    blocking::run(move || {
        let kept = Assets::of(&store).push(&instance, &names, &record);
        kept.map_err(|error| status::of(Code::Internal, &error))?;
        store.make_durable().map_err(status::store)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::StoreError;

    #[test]
    fn timeouts() {
        let asked = |seconds, nanos| Some(protobuf::Duration { seconds, nanos });
        assert_eq!(timeout(None).unwrap(), MAX_TIMEOUT);
        assert_eq!(timeout(asked(1, 500_000_000)).unwrap(), Duration::from_millis(1500));
        assert_eq!(timeout(asked(i64::MAX, 0)).unwrap(), MAX_TIMEOUT);
        for (seconds, nanos) in [(0, 0), (-1, 0), (1, -1), (1, 1_000_000_000)] {
            let refused = timeout(asked(seconds, nanos)).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
        }
    }

    #[test]
    fn unsupported_qualifiers_are_named_in_a_detail() {
        let refused = bad_demands(&DemandsError::Unsupported(vec!["vcs.branch".into()]));
        assert_eq!(refused.code(), Code::InvalidArgument);
        let details = RpcStatus::decode(refused.details()).unwrap().details;
        let detail = BadRequest::decode(&*details[0].value).unwrap();
        let [violation] = &*detail.field_violations else { panic!("{detail:?}") };
        let told = (violation.field.as_str(), violation.description.as_str());
        assert_eq!(told, ("qualifiers.name", "\"vcs.branch\" not supported"));
        assert!(bad_demands(&DemandsError::Checksum).details().is_empty());
    }

    #[test]
    fn codes() {
        let host = || "a".to_owned();
        let check = |error: OriginError, expected| assert_eq!(code(&error), expected, "{error}");
        check(OriginError::Forbidden(host()), Code::PermissionDenied);
        check(OriginError::Refused { host: host(), status: 401 }, Code::PermissionDenied);
        check(OriginError::NotFound { host: host(), status: 404 }, Code::NotFound);
        check(OriginError::Failed { host: host(), problem: host() }, Code::Aborted);
        check(OriginError::TooLarge { host: host(), max_bytes: 1 }, Code::ResourceExhausted);
        check(OriginError::TimedOut { after: MAX_TIMEOUT }, Code::DeadlineExceeded);
        let slow = OriginError::TooSlow { host: host(), bytes: 1, seconds: 30 };
        check(slow, Code::DeadlineExceeded);
        check(OriginError::Store { host: host(), source: StoreError::Closed }, Code::Unavailable);
    }
}
