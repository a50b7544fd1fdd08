//! The action cache: hits of results whose blobs are all there.

use std::time::Instant;

use anyhow::{Result, ensure};
use model::proto;

use crate::Load;
use crate::blobs::in_parallel;
use crate::content::{Blob, random_bytes, unique};
use crate::report::Figure;
use crate::sample::per_second;

/// Different results.
const RESULTS: usize = 500;
/// The number of requests for each.
const ROUNDS: usize = 40;

pub(crate) async fn run(load: &mut Load) -> Result<()> {
    let name = "GetActionResult, hits";
    if !load.wants(name) {
        return Ok(());
    }
    let output = Blob::new(random_bytes(100));
    load.client.upload(std::slice::from_ref(&output)).await?;
    let mut requests = Vec::new();
    for _ in 0..RESULTS {
        requests.push(store(load, &output).await?);
    }
    let requests = vec![requests; ROUNDS].concat();
    let hits = requests.len() as f64;
    let started = Instant::now();
    in_parallel(&load.client, requests, |client, request| async move {
        let result = client.action_cache().get_action_result(request).await?.into_inner();
        ensure!(result.output_files.len() == 1);
        Ok(())
    })
    .await?;
    let value = per_second(hits, started);
    load.report.add(name, Figure::Rate { value, unit: "hits/s" }, None);
    Ok(())
}

async fn store(load: &Load, output: &Blob) -> Result<proto::GetActionResultRequest> {
    let action = Blob::new(unique().to_string()).digest.to_proto();
    let file = proto::OutputFile {
        path: "out".into(),
        digest: Some(output.digest.to_proto()),
        ..Default::default()
    };
    let result = proto::ActionResult { output_files: vec![file], ..Default::default() };
    let request = proto::UpdateActionResultRequest {
        action_digest: Some(action.clone()),
        action_result: Some(result),
        ..Default::default()
    };
    load.client.action_cache().update_action_result(request).await?;
    Ok(proto::GetActionResultRequest { action_digest: Some(action), ..Default::default() })
}
