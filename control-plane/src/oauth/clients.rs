//! How apps come to be registered: by an operator.

use diesel_async::{AsyncConnection, AsyncPgConnection};

use super::client::Client;
use super::store;
use crate::audit::{self, Action, Actor, Event, Subject};

#[derive(Debug, thiserror::Error)]
pub enum AddClientError {
    #[error("there is an app with this id")]
    Taken,
    #[error(transparent)]
    Database(#[from] diesel::result::Error),
}

/// Registers an app.
pub async fn add_client(
    connection: &mut AsyncPgConnection,
    client: &Client,
    actor: Actor,
) -> Result<(), AddClientError> {
    let event =
        Event::new(Action::AddOauthClient, actor).on(Subject::OauthClient(client.id.clone()));
    connection
        .transaction(async |connection| {
            if !store::insert_client(connection, client).await? {
                return Err(AddClientError::Taken);
            }
            audit::record(connection, &event).await?;
            Ok(())
        })
        .await
}

/// All registered apps, by id.
pub async fn list_clients(connection: &mut AsyncPgConnection) -> diesel::QueryResult<Vec<Client>> {
    store::clients(connection).await
}
