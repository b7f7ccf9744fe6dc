//! Hearing what other replicas say over Redis.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::sleep;

const RETRY: Duration = Duration::from_millis(500);

/// Hands every message of a channel to `hear`, for ever, and an empty one after every gap.
pub(super) async fn listen(client: &redis::Client, channel: &str, hear: impl Fn(&[u8])) {
    loop {
        let listening = async {
            let mut pubsub = client.get_async_pubsub().await?;
            pubsub.subscribe(channel).await?;
            hear(&[]);
            let mut messages = pubsub.on_message();
            while let Some(message) = messages.next().await {
                hear(message.get_payload_bytes());
            }
            redis::RedisResult::Ok(())
        };
        if let Err(error) = listening.await {
            tracing::debug!(%error, channel, "guard.deaf");
        }
        sleep(RETRY).await;
    }
}
