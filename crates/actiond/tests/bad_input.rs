//! Clients that send nonsense, by mistake or on purpose. After each case the same
//! server serves the next.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use prost::Message as _;
use testkit::proto::{self, Directory, DirectoryNode, FileNode, SymlinkNode};
use testkit::{Action, Client, Daemon, Digest, Kit, Outcome, Run};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_action_of_nonsense_is_refused,
    an_action_without_its_parts_is_refused,
    commands_that_can_not_be_run_are_refused,
    output_paths_that_lead_out_are_refused,
    directories_that_are_none_are_refused,
    trees_that_explode_are_refused,
    trees_that_are_too_deep_are_refused,
    sizes_that_lie_are_refused,
    digests_that_are_none_are_refused,
    a_timeout_below_zero_is_refused,
    an_output_below_a_file_is_refused,
    outputs_that_are_too_deep_are_refused_for_good,
    bytes_that_are_not_http_do_no_harm,
    bytes_that_are_not_grpc_do_no_harm,
    half_open_connections_do_no_harm,
    many_connections_are_served,
}

async fn daemon(kit: &Kit) -> anyhow::Result<Daemon> {
    kit.daemon().host_rootfs().start().await
}

/// That an action still runs.
async fn still_serves(client: &Client) -> Outcome {
    let run = client.action("echo fine").do_not_cache().run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "fine\n");
    Ok(())
}

/// That `run` came to nothing by the client's fault.
async fn refused(client: &Client, what: &str, run: Run) -> Outcome {
    assert_eq!(run.code(), Code::InvalidArgument, "{what}: {}", run.message());
    assert!(run.result().is_err(), "{what}");
    assert!(!run.message().is_empty(), "{what}");
    still_serves(client).await
}

async fn execute(client: &Client, action: &Digest) -> anyhow::Result<Run> {
    let message = proto::ExecuteRequest {
        action_digest: Some(action.to_proto()),
        digest_function: client.function().to_proto(),
        ..Default::default()
    };
    let stream = client.execution().execute(message).await?.into_inner();
    Run::collect(client.clone(), stream).await
}

async fn an_action_of_nonsense_is_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    for nonsense in ["this is no Action", "\u{0}\u{0}\u{0}", "\n\u{ff}"] {
        let digest = client.put(nonsense).await?;
        refused(&client, nonsense, execute(&client, &digest).await?).await?;
    }
    // A Command of nonsense, and a root of nonsense.
    let nonsense = client.put("this is no message").await?;
    let (action, blobs) = client.action("true").encode();
    client.put_all(blobs.values().cloned()).await?;
    let good = proto::Action::decode(blobs[&action].as_slice())?;
    let bad_command = proto::Action { command_digest: Some(nonsense.to_proto()), ..good.clone() };
    let bad_root = proto::Action { input_root_digest: Some(nonsense.to_proto()), ..good };
    for (what, action) in [("command", bad_command), ("root", bad_root)] {
        let digest = client.put(action.encode_to_vec()).await?;
        refused(&client, what, execute(&client, &digest).await?).await?;
    }
    Ok(())
}

async fn an_action_without_its_parts_is_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let (action, blobs) = client.action("true").encode();
    client.put_all(blobs.values().cloned()).await?;
    let good = proto::Action::decode(blobs[&action].as_slice())?;
    let no_command = proto::Action { command_digest: None, ..good.clone() };
    let no_root = proto::Action { input_root_digest: None, ..good };
    for (what, action) in [("command", no_command), ("root", no_root)] {
        let digest = client.put(action.encode_to_vec()).await?;
        refused(&client, what, execute(&client, &digest).await?).await?;
    }
    Ok(())
}

async fn commands_that_can_not_be_run_are_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    type Change = fn(&mut proto::Command);
    let variable = |name: &str, value: &str| proto::command::EnvironmentVariable {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let cases: [(&str, Change); 9] = [
        ("no arguments", |command| command.arguments.clear()),
        ("an empty program", |command| command.arguments = vec![String::new()]),
        ("NUL in an argument", |command| command.arguments.push("a\0b".to_owned())),
        ("an absolute working directory", |command| command.working_directory = "/etc".to_owned()),
        ("a working directory above", |command| command.working_directory = "../..".to_owned()),
        ("a working directory with ..", |command| command.working_directory = "a/../..".to_owned()),
        ("NUL in the working directory", |command| command.working_directory = "a\0".to_owned()),
        ("a very long working directory", |command| command.working_directory = "x/".repeat(4000)),
        ("a very deep working directory", |command| {
            command.working_directory = "d/".repeat(200) + "d"
        }),
    ];
    for (what, change) in cases {
        let action = client.action("true").change_command(change);
        refused(&client, what, action.run().await?).await?;
    }
    for (name, value) in [("A=B", "x"), ("", "x"), ("A\0", "x"), ("A", "x\0y")] {
        let variable = variable(name, value);
        let action = client
            .action("true")
            .change_command(|command| command.environment_variables.push(variable));
        refused(&client, &format!("{name:?}={value:?}"), action.run().await?).await?;
    }
    Ok(())
}

async fn output_paths_that_lead_out_are_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let long = "x".repeat(256);
    let deep = "d/".repeat(200) + "out";
    for path in [
        "/etc/passwd",
        "..",
        "../out",
        "a/../../out",
        "a\0b",
        "//out",
        long.as_str(),
        deep.as_str(),
    ] {
        for action in [
            client.action("true").output(path),
            client.action("true").output_file(path),
            client.action("true").output_directory(path),
        ] {
            refused(&client, path, action.run().await?).await?;
        }
    }
    let twice = client.action("true").output("out").output("out");
    refused(&client, "twice", twice.run().await?).await?;
    Ok(())
}

/// An action whose input root is `directory`, which is stored with all that it
/// may name.
async fn with_root(client: &Client, directory: &Directory) -> anyhow::Result<Action> {
    let root = client.put(directory.encode_to_vec()).await?;
    Ok(client.action("true").input_root(root))
}

async fn directories_that_are_none_are_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let blob = client.put("content").await?.to_proto();
    let empty = client.put("").await?.to_proto();
    let file = |name: &str| FileNode {
        name: name.to_owned(),
        digest: Some(blob.clone()),
        ..Default::default()
    };
    let directory =
        |name: &str| DirectoryNode { name: name.to_owned(), digest: Some(empty.clone()) };
    let link = |name: &str, target: &str| SymlinkNode {
        name: name.to_owned(),
        target: target.to_owned(),
        ..Default::default()
    };
    let long = "x".repeat(256);
    let mut cases = Vec::new();
    for name in ["", ".", "..", "/", "a/b", "/etc", "../x", "a\0b", long.as_str()] {
        cases.push(Directory { files: vec![file(name)], ..Default::default() });
        cases.push(Directory { directories: vec![directory(name)], ..Default::default() });
        cases.push(Directory { symlinks: vec![link(name, "target")], ..Default::default() });
    }
    let target = "x".repeat(4096);
    for target in ["a\0b", target.as_str()] {
        cases.push(Directory { symlinks: vec![link("link", target)], ..Default::default() });
    }
    cases.push(Directory { files: vec![file("b"), file("a")], ..Default::default() });
    cases.push(Directory { files: vec![file("a"), file("a")], ..Default::default() });
    cases.push(Directory {
        files: vec![file("a")],
        directories: vec![directory("a")],
        ..Default::default()
    });
    cases.push(Directory {
        symlinks: vec![link("a", "b")],
        directories: vec![directory("a")],
        ..Default::default()
    });
    let no_digest = FileNode { name: "a".to_owned(), ..Default::default() };
    cases.push(Directory { files: vec![no_digest], ..Default::default() });
    let negative = proto::Digest { size_bytes: -1, ..blob.clone() };
    let negative = FileNode { name: "a".to_owned(), digest: Some(negative), ..Default::default() };
    cases.push(Directory { files: vec![negative], ..Default::default() });
    for directory in &cases {
        let action = with_root(&client, directory).await?;
        refused(&client, &format!("{directory:?}"), action.run().await?).await?;
        // The same, one level down.
        let inner = client.put(directory.encode_to_vec()).await?;
        let inner = DirectoryNode { name: "sub".to_owned(), digest: Some(inner.to_proto()) };
        let outer = Directory { directories: vec![inner], ..Default::default() };
        let action = with_root(&client, &outer).await?;
        refused(&client, &format!("below: {directory:?}"), action.run().await?).await?;
    }
    Ok(())
}

/// The root of a tree in which every directory has `width` times the one below.
async fn tower(client: &Client, levels: usize, width: usize) -> anyhow::Result<Digest> {
    let mut digest = client.put(Directory::default().encode_to_vec()).await?;
    for _ in 0..levels {
        let child = |number: usize| DirectoryNode {
            name: format!("d{number}"),
            digest: Some(digest.to_proto()),
        };
        let directories = (0..width).map(child).collect();
        let directory = Directory { directories, ..Default::default() };
        digest = client.put(directory.encode_to_vec()).await?;
    }
    Ok(digest)
}

async fn trees_that_explode_are_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    // 2^60 and 9^20 directories in a few kilobytes.
    for (levels, width) in [(60, 2), (20, 9)] {
        let root = tower(&client, levels, width).await?;
        let run = client.action("true").input_root(root).run().await?;
        // Permanent: clients retry RESOURCE_EXHAUSTED.
        assert_eq!(run.code(), Code::InvalidArgument, "{}", run.message());
        still_serves(&client).await?;
    }
    Ok(())
}

async fn trees_that_are_too_deep_are_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    for levels in [129, 1000] {
        let root = tower(&client, levels, 1).await?;
        let run = client.action("true").input_root(root).run().await?;
        // Permanent: clients retry RESOURCE_EXHAUSTED.
        assert_eq!(run.code(), Code::InvalidArgument, "{}", run.message());
        still_serves(&client).await?;
    }
    Ok(())
}

async fn sizes_that_lie_are_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let digest = client.put("content").await?;
    let lie = Digest::new(digest.function(), *digest.hash(), 1 << 40);
    let file =
        FileNode { name: "f".to_owned(), digest: Some(lie.to_proto()), ..Default::default() };
    let action = with_root(&client, &Directory { files: vec![file], ..Default::default() }).await?;
    let run = action.run().await?;
    // There is no such blob, however much of one there is under that hash.
    assert_eq!(
        (run.code(), run.missing()?),
        (Code::FailedPrecondition, vec![format!("blobs/{lie}")])
    );
    let (action, blobs) = client.action("true").encode();
    client.put_all(blobs.into_values()).await?;
    let lie = Digest::new(action.function(), *action.hash(), action.size_bytes() + 1);
    assert_eq!(execute(&client, &lie).await?.code(), Code::FailedPrecondition);
    still_serves(&client).await
}

async fn digests_that_are_none_are_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let digest = |hash: &str, size_bytes| proto::Digest { hash: hash.to_owned(), size_bytes };
    let good = "0".repeat(64);
    for bad in [
        None,
        Some(digest("", 0)),
        Some(digest("../../../../etc/passwd", 1)),
        Some(digest(&good[1..], 1)),
        Some(digest(&good, -1)),
        Some(digest(&"z".repeat(64), 1)),
    ] {
        let message = proto::ExecuteRequest { action_digest: bad.clone(), ..Default::default() };
        let status = client.execution().execute(message).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad:?}");
        let message = proto::GetActionResultRequest { action_digest: bad, ..Default::default() };
        let status = client.action_cache().get_action_result(message).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    still_serves(&client).await
}

async fn a_timeout_below_zero_is_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, 0), (1, 1_000_000_000)] {
        let timeout = testkit::google::protobuf::Duration { seconds, nanos };
        let action = client.action("true").change_action(|action| action.timeout = Some(timeout));
        refused(&client, &format!("{timeout:?}"), action.run().await?).await?;
    }
    let timeout = testkit::google::protobuf::Duration { seconds: i64::MAX, nanos: 0 };
    let action = client.action("true").change_action(|action| action.timeout = Some(timeout));
    let run = action.run().await?;
    assert!(matches!(run.code(), Code::Ok | Code::InvalidArgument), "{:?}", run.code());
    still_serves(&client).await
}

async fn an_output_below_a_file_is_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let action = client.action("true").input("file", "x").output("file/below/out");
    refused(&client, "below a file", action.run().await?).await?;
    for target in ["/etc", "/proc/1/root", "gone"] {
        let action = client.action("true").symlink("link", target).input("dir/x", "");
        let run = action.output("link/out").run().await?;
        refused(&client, &format!("below a link to {target}"), run).await?;
    }
    Ok(())
}

/// Sends bytes to the daemon's port, and reads its answer to the end or for a
/// while.
fn send(daemon: &Daemon, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = std::net::TcpStream::connect(daemon.address())?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    // The daemon may close the connection before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.take(1 << 20).read_to_end(&mut answer);
    Ok(answer)
}

async fn outputs_that_are_too_deep_are_refused_for_good(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let deep = "mkdir out; cd out; i=0; while [ $i -lt 200 ]; do mkdir d; cd d; i=$((i+1)); done";
    let long = "mkdir out; cd out; n=$(printf %0200d 0); i=0; \
                while [ $i -lt 30 ]; do mkdir $n; cd $n; i=$((i+1)); done";
    for script in [deep, long] {
        let run = client.action(script).output("out").run().await?;
        assert_eq!(run.code(), Code::InvalidArgument, "{}", run.message());
        still_serves(&client).await?;
    }
    Ok(())
}

async fn bytes_that_are_not_http_do_no_harm(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame = |kind: u8, length: usize, stream: u32| {
        let length = &(length as u32).to_be_bytes()[1..];
        [length, &[kind, 0], &stream.to_be_bytes()].concat()
    };
    let mut cases = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        preface.to_vec(),
        [preface.as_slice(), &[0xff; 1000]].concat(),
    ];
    // Frames of every kind, known or not, on stream 0 and 1, with and without room.
    for kind in 0..=20 {
        for stream in [0, 1, 2, u32::MAX] {
            cases.push([preface.as_slice(), &frame(kind, 0, stream)].concat());
            cases.push([preface.as_slice(), &frame(kind, 0xff_ffff, stream)].concat());
        }
    }
    let address = &daemon;
    std::thread::scope(|scope| {
        let senders: Vec<_> =
            cases.iter().map(|case| scope.spawn(move || send(address, case))).collect();
        for sender in senders {
            assert!(matches!(sender.join(), Ok(Ok(_))));
        }
    });
    still_serves(&client).await
}

async fn bytes_that_are_not_grpc_do_no_harm(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let digest = client.put("content").await?;
    // Fields of other types than the server expects them to be.
    let mut other_types = BTreeMap::new();
    other_types.insert("varint for bytes", vec![0x12, 0x02, 0x08, 0x01]);
    other_types.insert("cut off", vec![0x12, 0x7f, 0x0a]);
    other_types.insert("a group", vec![0x13, 0x14]);
    other_types.insert("field 0", vec![0x02, 0x00]);
    for (what, bytes) in other_types {
        let mut grpc = tonic::client::Grpc::new(client.channel());
        grpc.ready().await?;
        let path = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
        let answer: Result<tonic::Response<Vec<u8>>, _> =
            grpc.unary(tonic::Request::new(bytes), path.parse()?, Raw).await;
        assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument, "{what}");
        assert_eq!(client.missing(&[digest]).await?, []);
    }
    still_serves(&client).await
}

/// Messages as bytes.
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Vec<u8>,
        buffer: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        prost::bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        buffer: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<Vec<u8>>, tonic::Status> {
        use prost::bytes::Buf as _;
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

async fn half_open_connections_do_no_harm(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let connect = |_| std::net::TcpStream::connect(daemon.address());
    let idle: Vec<_> = (0..200).map(connect).collect::<Result<_, _>>()?;
    still_serves(&daemon.client()).await?;
    drop(idle);
    still_serves(&daemon.client()).await
}

async fn many_connections_are_served(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let calls = (0..100).map(|number| {
        let client = daemon.client();
        tokio::spawn(async move { client.put(format!("content {number}")).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await??;
    }
    Ok(())
}
