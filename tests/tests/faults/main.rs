//! The fault test, on whatever backend this kernel has: what `scripts/faults` runs. It is no part of
//! `scripts/test` while it finds what is not understood yet.

use tests::faults::{from_environment, run};
use tests::lab::Backend;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_cut_shared_or_billed_wrongly_while_everything_is_killed() {
    let (seed, length) = from_environment(45);
    run(Backend::detect(), seed, length).await;
}
