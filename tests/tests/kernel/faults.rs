//! The fault test against `wireguard.ko`, in a short form: the virtual machine is slow.

use tests::faults::{from_environment, run};
use tests::lab::Backend;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_cut_shared_or_billed_wrongly_while_everything_is_killed() {
    assert_eq!(
        Backend::detect(),
        Backend::Kernel,
        "this kernel has no WireGuard"
    );
    let (seed, length) = from_environment(15);
    run(Backend::Kernel, seed, length).await;
}
