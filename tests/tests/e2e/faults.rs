//! The fault test in a short form, with one seed; `scripts/faults` runs it longer and with others.

use tests::faults::{from_environment, run};
use tests::lab::Backend;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_cut_shared_or_billed_wrongly_while_everything_is_killed() {
    let (seed, length) = from_environment(45);
    run(Backend::detect(), seed, length).await;
}
