//! One round of offers: look at those in need, claim some, make theirs.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use shared::ids::{ConnectionId, DeviceId, ServerId, UserId};
use shared::wireguard::PublicKey;

use super::plan::{Case, Rota, Standing, Step, Tried, step};
use crate::app::AppState;
use crate::error::ApiError;
use crate::fleet::Trouble;
use crate::tunnels::connect::{Move, offer};
use crate::tunnels::end::end;
use crate::tunnels::model::EndReason;
use crate::tunnels::store;

/// Connections looked at in one round.
const LOOKED_AT: usize = 500;
/// Offers made in one round: with the pause between rounds, the rate.
const MADE: usize = 50;
/// Offers under way at once.
const AT_ONCE: usize = 8;

/// A connection that may need an offer, as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tunnels) struct Candidate {
    pub(in crate::tunnels) id: ConnectionId,
    pub(in crate::tunnels) user: UserId,
    pub(in crate::tunnels) server: ServerId,
    pub(in crate::tunnels) device: Option<DeviceId>,
    pub(in crate::tunnels) public_key: PublicKey,
    pub(in crate::tunnels) tried_at: Option<DateTime<Utc>>,
    /// By the database's clock.
    pub(in crate::tunnels) tried_ago: Duration,
    pub(in crate::tunnels) made: Option<bool>,
    /// The live offer and its server.
    pub(in crate::tunnels) offer: Option<(ConnectionId, Option<ServerId>)>,
}

impl Candidate {
    fn case(&self, troubles: &HashMap<ServerId, Trouble>) -> Case {
        Case {
            tried: self.tried_at.map(|_| Tried {
                ago: self.tried_ago,
                made: self.made,
            }),
            offer: self.offer.map(|(connection, server)| Standing {
                connection,
                in_trouble: server.is_none_or(|server| troubles.contains_key(&server)),
            }),
        }
    }
}

/// Looks at the watched connections on servers in trouble, and makes offers for those whose time it
/// is. Costs no query while there are none.
pub(super) async fn round(state: &AppState, rota: &mut Rota) -> Result<(), ApiError> {
    let vpn = &state.config().vpn;
    let troubles = state.fleet().troubles(vpn.offer_after_silence);
    if troubles.is_empty() {
        return Ok(());
    }
    let audience = state.live().audience();
    let needy = audience.owned_on(|server| troubles.contains_key(&server));
    let turn = rota.turn(&needy, LOOKED_AT);
    let Some(mut reached) = turn.last().copied() else {
        return Ok(());
    };
    let mut conn = state.db().get().await?;
    let mut due = Vec::new();
    for candidate in store::candidates(&mut conn, &turn).await? {
        let Some(trouble) = troubles.get(&candidate.server) else {
            continue;
        };
        let step = step(&candidate.case(&troubles), vpn.offer_lifetime);
        if step == Step::Wait {
            continue;
        }
        if due.len() == MADE {
            break;
        }
        if due.len() + 1 == MADE {
            reached = candidate.id;
        }
        due.push((candidate, *trouble, step));
    }
    let claims: Vec<_> = due.iter().map(|(it, trouble, _)| (it, *trouble)).collect();
    let ours = store::claim(&mut conn, &claims).await?;
    drop(conn);
    rota.reached(reached);
    due.retain(|(candidate, ..)| ours.contains(&candidate.id));
    let users: Vec<_> = due.iter().map(|(candidate, ..)| candidate.user).collect();
    let made: Vec<_> = stream::iter(due)
        .map(|(candidate, _, step)| make(state, candidate, step))
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    conclude(state, &made).await?;
    // The sockets of this replica tell at once, those of others with their next look.
    users
        .into_iter()
        .for_each(|user| state.live().changed(user));
    Ok(())
}

/// Says whether there is an offer now; none where that is left to the next attempt.
async fn make(state: &AppState, candidate: Candidate, step: Step) -> Option<(ConnectionId, bool)> {
    let connection = candidate.id;
    if let Step::Replace(stale) = step
        && let Err(error) = end(state, stale, EndReason::Withdrawn, None).await
    {
        tracing::warn!(%connection, %error, "tunnels.offer_not_withdrawn");
        return None;
    }
    let new = Move {
        of: connection,
        from: candidate.server,
        lifetime: state.config().vpn.offer_lifetime,
    };
    let made = offer(
        state,
        candidate.user,
        candidate.public_key,
        candidate.device,
        new,
    )
    .await;
    let outcome = match &made {
        Ok(true) => "made",
        Ok(false) => "no_server",
        Err(_) => "failed",
    };
    metrics::counter!("tunnels_offers_total", "outcome" => outcome).increment(1);
    match made {
        Ok(made) => Some((connection, made)),
        Err(error) => {
            tracing::info!(%connection, %error, "tunnels.offer_failed");
            None
        }
    }
}

/// Stores what came of it.
async fn conclude(state: &AppState, made: &[(ConnectionId, bool)]) -> Result<(), ApiError> {
    if made.is_empty() {
        return Ok(());
    }
    store::conclude(&mut *state.db().get().await?, made).await?;
    tracing::info!(count = made.len(), "tunnels.offered");
    Ok(())
}
