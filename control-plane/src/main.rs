//! `control-plane`: the service and its operator's commands.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request allocates some twenty small things and frees them on the same thread.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    control_plane::cli::main()
}
