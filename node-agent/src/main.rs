//! The `node-agent` program.

use std::process::ExitCode;

/// One thread takes everything in turn: what blocks has threads of its own, and a connect does not
/// wait until another wakes.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    node_agent::cli::main().await
}
