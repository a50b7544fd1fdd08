//! Objects in the protocols of Azure Blob Storage and Google Cloud Storage below the store. The server is Azurite,
//! Microsoft's own emulator, which checks signatures. For Google it is `s3s-fs`, which speaks S3, behind a [`front`] that
//! asks for tokens: the daemon uses Google's XML API, which has the requests of S3. Emulators of Google's service have the
//! JSON API only, or no uploads through the other one.
//!
//! `cargo xtask test` and `cargo xtask e2e upstream` fetch them and name them to this.

mod cloud;
mod front;

use anyhow::ensure;
use testkit::upstream::{Copies, blobs_and_inputs_come, incompressible};
use testkit::{Daemon, Digest, DigestFunction, Kit, Outcome, eventually};

use cloud::{Cloud, Service};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    azure_takes_results_and_gives_them_to_another_daemon,
    azure_is_asked_for_blobs_and_inputs,
    azure_that_lies_is_not_believed_and_replaced,
    azure_is_killed_and_comes_back,
    azure_that_refuses_is_as_good_as_an_empty_one,
    azure_takes_a_signature_in_place_of_a_key,
    secrets_of_azure_are_in_no_log,
    google_takes_results_and_gives_them_to_another_daemon,
    google_is_asked_for_blobs_and_inputs,
    google_that_lies_is_not_believed_and_replaced,
    google_is_killed_and_comes_back,
    google_that_refuses_is_as_good_as_an_empty_one,
    secrets_of_google_are_in_no_log,
}

/// Runs an action with outputs, and tells whether it was a hit.
async fn is_a_hit(daemon: &Daemon, number: usize) -> anyhow::Result<bool> {
    Copies::of("content").is_a_hit(daemon, number).await
}

/// An output of so many times 1 MiB. Returns whether it was a hit, and its digest.
async fn large_output(daemon: &Daemon, times: usize) -> anyhow::Result<(bool, Digest)> {
    let script = format!("for i in $(seq {times}); do cat in; done > out");
    let action = daemon.client().action(&script).input("in", incompressible(1 << 20)).output("out");
    let run = action.run().await?;
    run.succeeded().await?;
    let digest = run.output_file("out")?.digest.clone();
    let digest = Digest::from_proto_field(digest.as_ref(), DigestFunction::Sha256)?;
    assert_eq!(digest.size_bytes(), (times as u64) << 20);
    Ok((run.from_cache(), digest))
}

async fn take_and_give(kit: &Kit, cloud: Cloud) -> Outcome {
    // More than one part.
    let times = 12;
    let first = cloud.above(kit).flag("--upstream-writes=through").start().await?;
    for number in 0..3 {
        assert!(!is_a_hit(&first, number).await?);
    }
    let (is_hit, large) = large_output(&first, times).await?;
    assert!(!is_hit);
    assert_eq!(cloud.get(&large)?.len(), times << 20, "the layout is the documented one");
    let second = cloud.above(kit).flag("--http=127.0.0.1:0").start().await?;
    for number in 0..3 {
        assert!(is_a_hit(&second, number).await?, "action {number} of another daemon");
    }
    assert!(large_output(&second, times).await?.0);
    assert!(second.metric("upstream_received_bytes_total{tier=\"cas\"}")? >= (times as u64) << 20);
    assert_eq!(second.metric("upstream_hits_total{tier=\"ac\"}")?, 4);
    assert_eq!(second.metric("upstream_failures_total{tier=\"cas\"}")?, 0);
    assert_eq!(second.metric("upstream_failures_total{tier=\"ac\"}")?, 0);
    drop(cloud);
    for number in 0..3 {
        assert!(is_a_hit(&second, number).await?, "it is here now");
    }
    assert_eq!(second.client().get(&large).await?.len(), times << 20);
    Ok(())
}

async fn azure_takes_results_and_gives_them_to_another_daemon(kit: Kit) -> Outcome {
    take_and_give(&kit, Cloud::start(&kit, Service::Azure).await?).await
}

async fn blobs_and_inputs(kit: &Kit, service: Service) -> Outcome {
    let cloud = Cloud::start(kit, service).await?;
    let daemon = cloud.above(kit).start().await?;
    blobs_and_inputs_come(kit, &daemon, |content| cloud.put(content)).await
}

async fn azure_is_asked_for_blobs_and_inputs(kit: Kit) -> Outcome {
    blobs_and_inputs(&kit, Service::Azure).await
}

async fn google_is_asked_for_blobs_and_inputs(kit: Kit) -> Outcome {
    blobs_and_inputs(&kit, Service::Google).await
}

async fn lie(kit: &Kit, service: Service) -> Outcome {
    let cloud = Cloud::start(kit, service).await?;
    let through = || cloud.above(kit).flag("--upstream-writes=through");
    let (_, output) = large_output(&through().start().await?, 3).await?;
    let mut forged = cloud.get(&output)?;
    forged[0] ^= 1;
    cloud.put_as(&output, &forged)?;
    let daemon = through().start().await?;
    assert_eq!(daemon.client().missing(&[output]).await?, [output]);
    let (is_hit, again) = large_output(&daemon, 3).await?;
    assert!(!is_hit, "a result with a forged output");
    assert_eq!(again, output);
    eventually("the log says it", || Ok(daemon.log().contains("another content"))).await?;
    let replaced = Digest::of(DigestFunction::Sha256, &cloud.get(&output)?);
    assert_eq!(replaced, output, "the daemon that has the content has replaced it");
    // And so does one of another size.
    cloud.put_as(&output, b"short")?;
    let daemon = through().start().await?;
    assert!(!large_output(&daemon, 3).await?.0);
    assert_eq!(cloud.get(&output)?.len(), 3 << 20);
    Ok(())
}

async fn azure_that_lies_is_not_believed_and_replaced(kit: Kit) -> Outcome {
    lie(&kit, Service::Azure).await
}

async fn killed_and_back(kit: &Kit, service: Service) -> Outcome {
    let mut cloud = Cloud::start(kit, service).await?;
    let daemon = cloud.above(kit).start().await?;
    assert!(!is_a_hit(&daemon, 0).await?);
    cloud.kill()?;
    for number in 1..4 {
        assert!(!is_a_hit(&daemon, number).await?);
    }
    cloud.start_again().await?;
    // Results made in the meantime are copied, and another daemon gets them from there.
    let other = cloud.above(kit).start().await?;
    Copies::of("content").arrives(&other, 3).await
}

async fn azure_is_killed_and_comes_back(kit: Kit) -> Outcome {
    killed_and_back(&kit, Service::Azure).await
}

async fn azure_that_refuses_is_as_good_as_an_empty_one(kit: Kit) -> Outcome {
    let mut cloud = Cloud::start(&kit, Service::Azure).await?;
    let digest = cloud.put(b"content")?;
    cloud.environment.push(format!("AZURE_STORAGE_ACCOUNT_KEY={}", cloud::WRONG_KEY));
    let daemon = cloud.above(&kit).start().await?;
    assert_eq!(daemon.client().missing(&[digest]).await?, [digest]);
    assert!(!is_a_hit(&daemon, 0).await?);
    eventually("the log says it", || Ok(daemon.log().contains("the upstream is down"))).await?;
    ensure!(!daemon.log().contains(cloud::WRONG_KEY), "{}", daemon.log());
    // And so is one whose container does not exist.
    cloud.environment.pop();
    cloud.place = "az://no-such-container".to_owned();
    let daemon = cloud.above(&kit).start().await?;
    assert!(!is_a_hit(&daemon, 0).await?);
    eventually("the log says it", || Ok(daemon.log().contains("ContainerNotFound"))).await
}

async fn azure_takes_a_signature_in_place_of_a_key(kit: Kit) -> Outcome {
    let cloud = Cloud::start(&kit, Service::Azure).await?.with_signature();
    take_and_give(&kit, cloud).await
}

/// Daemons that log everything, with a cloud that is there and with one that is gone.
async fn tells_no(kit: &Kit, mut cloud: Cloud, secrets: &[&str]) -> Outcome {
    let daemon = cloud.above(kit).flag("--log=trace").flag("--upstream-writes=through");
    let daemon = daemon.start().await?;
    assert!(!is_a_hit(&daemon, 0).await?);
    let other = cloud.above(kit).flag("--log=trace").start().await?;
    assert!(is_a_hit(&other, 0).await?);
    cloud.kill()?;
    assert!(!is_a_hit(&daemon, 1).await?);
    for log in [daemon.log(), other.log()] {
        for secret in secrets {
            ensure!(!log.contains(secret), "the log has a secret:\n{log}");
        }
    }
    Ok(())
}

async fn secrets_of_azure_are_in_no_log(kit: Kit) -> Outcome {
    tells_no(&kit, Cloud::start(&kit, Service::Azure).await?, &[cloud::KEY]).await?;
    let cloud = Cloud::start(&kit, Service::Azure).await?.with_signature();
    let signature = cloud.signature();
    tells_no(&kit, cloud, &["sig=", &signature]).await
}

async fn google_takes_results_and_gives_them_to_another_daemon(kit: Kit) -> Outcome {
    take_and_give(&kit, Cloud::start(&kit, Service::Google).await?).await
}

async fn google_that_lies_is_not_believed_and_replaced(kit: Kit) -> Outcome {
    lie(&kit, Service::Google).await
}

async fn google_is_killed_and_comes_back(kit: Kit) -> Outcome {
    killed_and_back(&kit, Service::Google).await
}

async fn google_that_refuses_is_as_good_as_an_empty_one(kit: Kit) -> Outcome {
    let mut cloud = Cloud::start(&kit, Service::Google).await?;
    let digest = cloud.put(b"content")?;
    // No request for a blob has a token.
    cloud.environment.push("GOOGLE_SKIP_SIGNATURE=true".to_owned());
    let daemon = cloud.above(&kit).start().await?;
    assert_eq!(daemon.client().missing(&[digest]).await?, [digest]);
    assert!(!is_a_hit(&daemon, 0).await?);
    eventually("the log says it", || Ok(daemon.log().contains("the upstream is down"))).await
}

async fn secrets_of_google_are_in_no_log(kit: Kit) -> Outcome {
    let cloud = Cloud::start(&kit, Service::Google).await?;
    let key = cloud.private_key()?;
    tells_no(&kit, cloud, &[&key, front::TOKEN]).await
}
