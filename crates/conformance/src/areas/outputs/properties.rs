//! Properties of output files.

use anyhow::{Context as _, ensure};
use testkit::{Action, proto};
use tonic::Code;

use super::run::succeeds;
use crate::check::{Check, Outcome, must, skip};
use crate::expect::same;
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
    must!(
        an_unknown_node_property_is_refused,
        "Command.output_node_properties",
        "If a property is not recognized by the server, the server will return an `INVALID_ARGUMENT`."
    ),
    must!(
        the_modification_time_is_returned,
        "NodeProperties.mtime",
        "The file's last modification timestamp."
    ),
    must!(the_mode_is_returned, "NodeProperties.unix_mode", "The UNIX file mode, e.g., 0755."),
    must!(
        node_properties_come_only_where_asked_for,
        "OutputFile.node_properties",
        "The supported node properties of the OutputFile, if requested by the Action."
    ),
];

/// An action that asks for these properties of its outputs.
fn with_properties(server: &Server, names: &[&str]) -> anyhow::Result<Action> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let script = "echo > out; touch -d @1234567890 out; chmod 750 out; mkdir dir; cp -p out dir/in; \
        ln -s out link";
    let action = server.action(script)?.output("dir").output("link").output("out");
    Ok(action.change_command(|command| command.output_node_properties = names))
}

fn announces(server: &Server, name: &str) -> Outcome {
    let supported = &server.execution()?.supported_node_properties;
    if supported.iter().any(|it| it == name) {
        return Ok(());
    }
    skip(format!("supported_node_properties does not contain {name}"))
}

async fn an_unknown_node_property_is_refused(server: Server) -> Outcome {
    let run = with_properties(&server, &["actiond-conformance"])?.run().await;
    let code = match run {
        Ok(run) => run.code(),
        Err(error) => error.downcast::<tonic::Status>()?.code(),
    };
    same("the code", code, Code::InvalidArgument)
}

/// The properties of the output file, and of the file in the output directory.
async fn properties(server: &Server, names: &[&str]) -> anyhow::Result<[proto::NodeProperties; 2]> {
    let run = succeeds(with_properties(server, names)?).await?;
    let file = run.output_file("out")?.node_properties.clone();
    let root = run.tree("dir").await?.root.unwrap_or_default();
    let inner = root.files.first().and_then(|file| file.node_properties.clone());
    Ok([file.unwrap_or_default(), inner.unwrap_or_default()])
}

async fn the_modification_time_is_returned(server: Server) -> Outcome {
    announces(&server, "mtime")?;
    for properties in properties(&server, &["mtime"]).await? {
        let mtime = properties.mtime.context("mtime is not set")?;
        same("mtime", (mtime.seconds, mtime.nanos), (1_234_567_890, 0))?;
        ensure!(properties.unix_mode.is_none(), "unix_mode is set");
    }
    Ok(())
}

async fn the_mode_is_returned(server: Server) -> Outcome {
    announces(&server, "unix_mode")?;
    for properties in properties(&server, &["unix_mode"]).await? {
        let mode = properties.unix_mode.context("unix_mode is not set")?;
        same("the permissions", mode & 0o777, 0o750)?;
        ensure!(properties.mtime.is_none(), "mtime is set");
    }
    Ok(())
}

async fn node_properties_come_only_where_asked_for(server: Server) -> Outcome {
    for found in properties(&server, &[]).await? {
        same("node_properties", found, proto::NodeProperties::default())?;
    }
    Ok(())
}
