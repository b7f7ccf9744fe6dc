//! Private network namespaces for tests. They need root.

use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use tokio::runtime::Builder;

/// Runs `test` on a thread in a network namespace of its own, with `lo` up. What the test opens
/// or starts is in that namespace too; the namespace ends with the last of it.
pub(crate) fn in_private_netns(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, which needs root");
        run("ip link set lo up");
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command line of words and answers what it printed.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}
