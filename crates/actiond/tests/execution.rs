//! `Execution`: an action's way as its client sees it.

use testkit::{Kit, Outcome};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_output_comes_back,
}

async fn an_output_comes_back(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let action = daemon
        .client()
        .action("cp in out; echo hello; echo oops >&2")
        .input("in", "hi")
        .output("out");
    let run = action.run().await?;
    run.succeeded().await?;
    assert_eq!(run.file("out").await?, "hi");
    assert_eq!(run.stdout().await?, "hello\n");
    println!("{:#?}", run);
    assert!(action.run().await?.from_cache());
    Ok(())
}
