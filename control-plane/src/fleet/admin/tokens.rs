//! What hosts enrol with.

use chrono::{DateTime, Duration, Utc};
use diesel_async::AsyncConnection;
use serde_json::{Value, json};
use shared::ids::ServerId;
use uuid::Uuid;

use super::By;
use crate::audit::{self, Action, Subject};
use crate::error::{ApiError, Code};
use crate::fleet::Fleet;
use crate::fleet::identity::Enrolment;
use crate::fleet::store::{self, Place, TokenRow};

/// Which host a token is for.
#[derive(Debug, Clone)]
pub(in crate::fleet) enum Wish {
    At(Place),
    /// The host of a server that is in the catalogue.
    Of(ServerId),
}

/// A token, which is shown this once.
pub(in crate::fleet) struct Made {
    pub(in crate::fleet) id: Uuid,
    pub(in crate::fleet) hostname: String,
    pub(in crate::fleet) token: String,
    pub(in crate::fleet) expires_at: DateTime<Utc>,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Made {
    /// What to run on the host, where the plane is reached at `plane`.
    pub(in crate::fleet) fn command(&self, plane: &str) -> String {
        let plane = plane.trim_end_matches('/');
        format!("node-agent enroll --plane {plane} --token {}", self.token)
    }
}

fn described(place: &Place, expires_at: DateTime<Utc>) -> Value {
    json!({ "hostname": place.hostname, "expires_at": expires_at })
}

impl Fleet {
    /// Makes a token with which one host enrols once.
    pub(in crate::fleet) async fn make_token(
        &self,
        wish: Wish,
        life: Duration,
        by: By<'_>,
    ) -> Result<Made, ApiError> {
        let place = match wish {
            Wish::At(place) => place,
            Wish::Of(server) => self.managed(server).await?.place(),
        };
        let (id, expires_at) = (Uuid::now_v7(), Utc::now() + life);
        let enrolment = Enrolment {
            id,
            hostname: Some(place.hostname.clone()),
        };
        let token = self.identity.enrolment_token(&enrolment, expires_at)?;
        let event = by
            .event(Action::MakeEnrolmentToken)
            .on(Subject::EnrolmentToken(id))
            .change(Value::Null, described(&place, expires_at));
        let mut conn = self.db.get().await?;
        conn.transaction(async |conn| {
            store::insert_token(conn, id, &place, expires_at).await?;
            audit::record(conn, &event).await
        })
        .await?;
        Ok(Made {
            id,
            hostname: place.hostname,
            token,
            expires_at,
        })
    }

    /// One page of tokens, the newest first, and how many there are.
    pub(in crate::fleet) async fn tokens(
        &self,
        state: Option<store::TokenState>,
        page: (i64, i64),
    ) -> Result<(Vec<TokenRow>, u64), ApiError> {
        Ok(store::tokens(&mut *self.db.get().await?, state, page).await?)
    }

    /// Takes a token back. One that was used is history.
    pub(in crate::fleet) async fn delete_token(
        &self,
        id: Uuid,
        by: By<'_>,
    ) -> Result<(), ApiError> {
        let event = by
            .event(Action::DeleteEnrolmentToken)
            .on(Subject::EnrolmentToken(id));
        let mut conn = self.db.get().await?;
        conn.transaction(async |conn| {
            let token = store::lock_token(conn, id).await?;
            let token = token.ok_or(Code::EnrolmentTokenNotFound)?;
            if token.used_at.is_some() {
                let error = ApiError::new(Code::Conflict);
                return Err(error.with_message("The token was used; revoke the node instead"));
            }
            store::delete_token(conn, id).await?;
            let before = described(&token.place, token.expires_at);
            audit::record(conn, &event.change(before, Value::Null)).await?;
            Ok(())
        })
        .await
    }
}
