//! The Remote Asset API: content by its URI. Servers without it are skipped.

use anyhow::{Context as _, bail, ensure};
use testkit::asset::fetch_client::FetchClient;
use testkit::asset::push_client::PushClient;
use testkit::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, PushBlobRequest,
    PushDirectoryRequest, Qualifier,
};
use testkit::google::protobuf::Timestamp;
use testkit::proto;
use testkit::{Digest, DigestFunction};
use tonic::transport::Channel;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::check::{Check, Outcome, must, should};
use crate::expect::{refused, refused_somehow, same};
use crate::server::{Server, unique};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        a_pushed_blob_is_fetched,
        "Push.PushBlob",
        "These APIs associate the identifying information of a resource, as indicated by URI and optionally Qualifiers, with content available in the CAS."
    ),
    must!(
        a_pushed_directory_is_fetched,
        "Push.PushDirectory",
        "These APIs associate the identifying information of a resource, as indicated by URI and optionally Qualifiers, with content available in the CAS."
    ),
    must!(
        any_of_the_pushed_uris_will_do,
        "PushBlobRequest.uris",
        "If multiple URIs are specified, the pushed content will be available to fetch by specifying any of them."
    ),
    must!(
        any_of_the_wanted_uris_will_do,
        "FetchBlobRequest.uris",
        "Servers *MAY* match any one of the supplied URIs."
    ),
    must!(
        what_was_not_pushed_is_not_found,
        "Push",
        "return `NOT_FOUND` for any resource that was not pushed first."
    ),
    must!(
        a_fetch_without_a_uri_is_refused,
        "FetchBlobRequest.uris",
        "Clients *MUST* supply at least one URI."
    ),
    must!(
        a_directory_without_a_uri_is_refused,
        "FetchDirectoryRequest.uris",
        "Clients *MUST* supply at least one URI."
    ),
    must!(
        a_push_without_a_uri_is_refused,
        "Push.PushBlob",
        "`INVALID_ARGUMENT`: One or more arguments to the RPC were invalid."
    ),
    must!(
        a_push_without_a_digest_is_refused,
        "Push.PushBlob",
        "`INVALID_ARGUMENT`: One or more arguments to the RPC were invalid."
    ),
    must!(
        a_qualifier_that_comes_twice_is_refused,
        "FetchBlobRequest.qualifiers",
        "Specified qualifier names *MUST* be unique."
    ),
    must!(
        qualifiers_tell_content_apart,
        "Qualifier",
        "Qualifiers are used to disambiguate or sub-select content that shares a URI."
    ),
    must!(
        the_order_of_qualifiers_does_not_matter,
        "Qualifier",
        "Qualifiers may be supplied in any order."
    ),
    must!(
        a_later_push_replaces_the_content,
        "Push.PushBlob",
        "These APIs associate the identifying information of a resource, as indicated by URI and optionally Qualifiers, with content available in the CAS."
    ),
    must!(
        content_that_is_too_old_is_not_fetched,
        "FetchBlobRequest.oldest_content_accepted",
        "The oldest content the client is willing to accept, as measured from the time it was Push'd"
    ),
    should!(
        content_that_has_expired_is_not_fetched,
        "PushBlobRequest.expire_at",
        "A time after which this content should stop being returned via"
    ),
    should!(
        a_push_of_absent_content_is_refused,
        "Push.PushBlob",
        "Clients *MUST* ensure associated content is available in CAS prior to pushing."
    ),
    should!(
        the_answer_names_its_digest_function,
        "FetchBlobResponse.digest_function",
        "This field SHOULD be set to the digest function that was used by the server to compute"
    ),
    must!(
        instances_are_apart,
        "FetchBlobRequest.instance_name",
        "The instance of the execution system to operate against."
    ),
];

fn fetch(server: &Server) -> FetchClient<Channel> {
    FetchClient::new(server.client.channel())
}

fn push(server: &Server) -> PushClient<Channel> {
    PushClient::new(server.client.channel())
}

/// A URI that no server has heard of.
fn urn() -> String {
    format!("urn:uuid:{}", Uuid::new_v4())
}

fn qualifiers(list: &[(&str, &str)]) -> Vec<Qualifier> {
    let one = |&(name, value): &(&str, &str)| Qualifier { name: name.into(), value: value.into() };
    list.iter().map(one).collect()
}

fn pushed(server: &Server, uris: &[&str], digest: &Digest) -> PushBlobRequest {
    PushBlobRequest {
        instance_name: server.client.instance().to_owned(),
        uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        blob_digest: Some(digest.to_proto()),
        digest_function: server.client.function().to_proto(),
        ..PushBlobRequest::default()
    }
}

fn wanted(server: &Server, uris: &[&str]) -> FetchBlobRequest {
    FetchBlobRequest {
        instance_name: server.client.instance().to_owned(),
        uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        digest_function: server.client.function().to_proto(),
        ..FetchBlobRequest::default()
    }
}

/// The content that is found; `None` for NOT_FOUND, which comes as a status or inside of an answer.
fn found(
    answer: Result<tonic::Response<FetchBlobResponse>, Status>,
) -> anyhow::Result<Option<FetchBlobResponse>> {
    let answer = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == Code::NotFound => return Ok(None),
        Err(status) => return Err(status.into()),
    };
    match answer.status.as_ref().map_or(Code::Ok, |status| Code::from(status.code)) {
        Code::Ok => Ok(Some(answer)),
        Code::NotFound => Ok(None),
        code => bail!("the status in the answer is {code:?}"),
    }
}

/// Fetches, and expects that blob or nothing.
async fn expect(
    server: &Server,
    request: FetchBlobRequest,
    expected: Option<Digest>,
) -> anyhow::Result<()> {
    let answer = found(fetch(server).fetch_blob(request).await)?;
    let digest = answer.and_then(|answer| answer.blob_digest);
    same("blob_digest", digest, expected.map(|digest| digest.to_proto()))
}

async fn a_pushed_blob_is_fetched(server: Server) -> Outcome {
    let digest = server.client.put(unique("asset")).await?;
    let uri = urn();
    push(&server).push_blob(pushed(&server, &[&uri], &digest)).await?;
    let answer = fetch(&server).fetch_blob(wanted(&server, &[&uri])).await;
    let answer = found(answer)?.context("what was pushed is not found")?;
    same("blob_digest", answer.blob_digest, Some(digest.to_proto()))?;
    same("uri", answer.uri, uri)
}

async fn a_pushed_directory_is_fetched(server: Server) -> Outcome {
    let file = server.client.put(unique("asset")).await?;
    let node =
        proto::FileNode { name: "f".into(), digest: Some(file.to_proto()), ..Default::default() };
    let root = proto::Directory { files: vec![node], ..Default::default() };
    let root = server.client.put(prost::Message::encode_to_vec(&root)).await?;
    let uri = urn();
    let request = PushDirectoryRequest {
        instance_name: server.client.instance().to_owned(),
        uris: vec![uri.clone()],
        root_directory_digest: Some(root.to_proto()),
        digest_function: server.client.function().to_proto(),
        ..PushDirectoryRequest::default()
    };
    push(&server).push_directory(request).await?;
    let request = FetchDirectoryRequest {
        instance_name: server.client.instance().to_owned(),
        uris: vec![uri.clone()],
        digest_function: server.client.function().to_proto(),
        ..FetchDirectoryRequest::default()
    };
    let answer = fetch(&server).fetch_directory(request).await?.into_inner();
    let code = answer.status.as_ref().map_or(0, |status| status.code);
    same("the code", Code::from(code), Code::Ok)?;
    same("root_directory_digest", answer.root_directory_digest, Some(root.to_proto()))?;
    // It is no blob of that name.
    expect(&server, wanted(&server, &[&uri]), None).await
}

async fn any_of_the_pushed_uris_will_do(server: Server) -> Outcome {
    let digest = server.client.put(unique("asset")).await?;
    let (one, other) = (urn(), urn());
    push(&server).push_blob(pushed(&server, &[&one, &other], &digest)).await?;
    expect(&server, wanted(&server, &[&one]), Some(digest)).await?;
    expect(&server, wanted(&server, &[&other]), Some(digest)).await
}

async fn any_of_the_wanted_uris_will_do(server: Server) -> Outcome {
    let digest = server.client.put(unique("asset")).await?;
    let (unknown, uri) = (urn(), urn());
    push(&server).push_blob(pushed(&server, &[&uri], &digest)).await?;
    let request = wanted(&server, &[&unknown, &uri]);
    let answer = found(fetch(&server).fetch_blob(request).await)?.context("it is not found")?;
    same("uri", answer.uri, uri)?;
    same("blob_digest", answer.blob_digest, Some(digest.to_proto()))
}

async fn what_was_not_pushed_is_not_found(server: Server) -> Outcome {
    expect(&server, wanted(&server, &[&urn()]), None).await
}

async fn a_fetch_without_a_uri_is_refused(server: Server) -> Outcome {
    refused(fetch(&server).fetch_blob(wanted(&server, &[])).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn a_directory_without_a_uri_is_refused(server: Server) -> Outcome {
    let request = FetchDirectoryRequest {
        instance_name: server.client.instance().to_owned(),
        ..FetchDirectoryRequest::default()
    };
    refused(fetch(&server).fetch_directory(request).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn a_push_without_a_uri_is_refused(server: Server) -> Outcome {
    let digest = server.client.put(unique("asset")).await?;
    let answer = push(&server).push_blob(pushed(&server, &[], &digest)).await;
    refused(answer, &[Code::InvalidArgument])?;
    Ok(())
}

async fn a_push_without_a_digest_is_refused(server: Server) -> Outcome {
    let digest = Digest::empty(server.client.function());
    let request = PushBlobRequest { blob_digest: None, ..pushed(&server, &[&urn()], &digest) };
    refused(push(&server).push_blob(request).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn a_qualifier_that_comes_twice_is_refused(server: Server) -> Outcome {
    let qualifiers = qualifiers(&[("resource_type", "a"), ("resource_type", "b")]);
    let request = FetchBlobRequest { qualifiers, ..wanted(&server, &[&urn()]) };
    refused(fetch(&server).fetch_blob(request).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn qualifiers_tell_content_apart(server: Server) -> Outcome {
    let uri = urn();
    let mut blobs = Vec::new();
    for branch in ["a", "b"] {
        let digest = server.client.put(unique("asset")).await?;
        let qualifiers = qualifiers(&[("vcs.branch", branch)]);
        let request = PushBlobRequest { qualifiers, ..pushed(&server, &[&uri], &digest) };
        push(&server).push_blob(request).await?;
        blobs.push((branch, digest));
    }
    for (branch, digest) in blobs {
        let qualifiers = qualifiers(&[("vcs.branch", branch)]);
        let request = FetchBlobRequest { qualifiers, ..wanted(&server, &[&uri]) };
        expect(&server, request, Some(digest)).await?;
    }
    let qualifiers = qualifiers(&[("vcs.branch", "c")]);
    expect(&server, FetchBlobRequest { qualifiers, ..wanted(&server, &[&uri]) }, None).await
}

async fn the_order_of_qualifiers_does_not_matter(server: Server) -> Outcome {
    let digest = server.client.put(unique("asset")).await?;
    let uri = urn();
    let mut list = qualifiers(&[("vcs.branch", "a"), ("resource_type", "b")]);
    let request = PushBlobRequest { qualifiers: list.clone(), ..pushed(&server, &[&uri], &digest) };
    push(&server).push_blob(request).await?;
    list.reverse();
    let request = FetchBlobRequest { qualifiers: list, ..wanted(&server, &[&uri]) };
    expect(&server, request, Some(digest)).await
}

async fn a_later_push_replaces_the_content(server: Server) -> Outcome {
    let uri = urn();
    for _ in 0..2 {
        let digest = server.client.put(unique("asset")).await?;
        push(&server).push_blob(pushed(&server, &[&uri], &digest)).await?;
        expect(&server, wanted(&server, &[&uri]), Some(digest)).await?;
    }
    Ok(())
}

async fn content_that_is_too_old_is_not_fetched(server: Server) -> Outcome {
    let digest = server.client.put(unique("asset")).await?;
    let uri = urn();
    push(&server).push_blob(pushed(&server, &[&uri], &digest)).await?;
    let not_before = |seconds| FetchBlobRequest {
        oldest_content_accepted: Some(Timestamp { seconds, nanos: 0 }),
        ..wanted(&server, &[&uri])
    };
    // A time long before this API, and one long after its last version.
    expect(&server, not_before(1_000_000_000), Some(digest)).await?;
    expect(&server, not_before(10_000_000_000), None).await
}

async fn content_that_has_expired_is_not_fetched(server: Server) -> Outcome {
    let digest = server.client.put(unique("asset")).await?;
    for (seconds, is_served) in [(10_000_000_000, true), (1_000_000_000, false)] {
        let uri = urn();
        let expire_at = Some(Timestamp { seconds, nanos: 0 });
        let request = PushBlobRequest { expire_at, ..pushed(&server, &[&uri], &digest) };
        let answer = push(&server).push_blob(request).await;
        if is_served {
            answer?;
        } else if let Err(status) = answer {
            // A server may refuse what has no future.
            return refused::<()>(Err(status), &[Code::InvalidArgument]).map(|_| ());
        }
        expect(&server, wanted(&server, &[&uri]), is_served.then_some(digest)).await?;
    }
    Ok(())
}

async fn a_push_of_absent_content_is_refused(server: Server) -> Outcome {
    let digest = server.client.digest(unique("absent"));
    let uri = urn();
    refused_somehow(push(&server).push_blob(pushed(&server, &[&uri], &digest)).await)?;
    expect(&server, wanted(&server, &[&uri]), None).await
}

async fn the_answer_names_its_digest_function(server: Server) -> Outcome {
    for function in server.functions() {
        let server = server.with_function(function);
        let digest = server.client.put(unique("asset")).await?;
        let uri = urn();
        push(&server).push_blob(pushed(&server, &[&uri], &digest)).await?;
        let answer = fetch(&server).fetch_blob(wanted(&server, &[&uri])).await;
        let answer = found(answer)?.context("what was pushed is not found")?;
        let expected = function.to_proto();
        let is_default = function == DigestFunction::Sha256 && answer.digest_function == 0;
        ensure!(
            is_default || answer.digest_function == expected,
            "digest_function is {} for a digest of {function}",
            answer.digest_function
        );
    }
    Ok(())
}

async fn instances_are_apart(server: Server) -> Outcome {
    let digest = server.client.put(unique("asset")).await?;
    let uri = urn();
    push(&server).push_blob(pushed(&server, &[&uri], &digest)).await?;
    let request = FetchBlobRequest {
        instance_name: format!("no-such-instance-{}", Uuid::new_v4()),
        ..wanted(&server, &[&uri])
    };
    match fetch(&server).fetch_blob(request).await {
        Err(_) => Ok(()),
        answer => same("it is found in another instance", found(answer)?.is_some(), false),
    }
}
