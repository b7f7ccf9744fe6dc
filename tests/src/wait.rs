//! Waiting for a condition with a deadline.

use std::time::Duration;

use tokio::time::Instant;

const POLL: Duration = Duration::from_millis(5);

/// Stretches a deadline on slow machines: `TEST_TIME_SCALE=8` under emulation.
#[must_use]
pub fn scaled(duration: Duration) -> Duration {
    let scale = std::env::var("TEST_TIME_SCALE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0_f64);
    duration.mul_f64(scale)
}

/// Polls until `probe` gives a value; panics with `what` at the deadline.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + scaled(deadline);
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            Instant::now() < end,
            "{what}: not within {:?}",
            scaled(deadline)
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Polls until `condition` holds; panics with `what` at the deadline.
pub async fn wait_until(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    wait_for(what, deadline, async || condition().await.then_some(())).await;
}
