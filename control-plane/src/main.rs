//! `control-plane`: the service and its operator's commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    control_plane::cli::main()
}
