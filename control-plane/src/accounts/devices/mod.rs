//! Devices: a name and a WireGuard public key, as many as the plan allows.
//!
//! The plan's number holds whatever runs at once: whoever adds a device holds the person's row while
//! the devices are counted. A key is a device of one person once; removing the device ends what is
//! connected with its key.

mod routes;
mod store;

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use shared::ids::{DeviceId, UserId};
use shared::wireguard::PublicKey;

use super::Device;
use crate::app::AppState;
use crate::audit::{self, Action, Event, Subject};
use crate::error::{ApiError, Code};
use crate::http::RequestId;
use crate::tunnels::{self, EndReason};

pub use routes::routes;

/// A person's right to devices, and what they use of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    is_active: bool,
    max_devices: i64,
    devices: i64,
    has_key: bool,
}

impl Room {
    const fn check(self) -> Result<(), Code> {
        if !self.is_active {
            Err(Code::AccountSuspended)
        } else if self.has_key {
            Err(Code::KeyInUse)
        } else if self.devices >= self.max_devices {
            Err(Code::DeviceLimit)
        } else {
            Ok(())
        }
    }
}

async fn add(
    state: &AppState,
    user: UserId,
    name: String,
    key: PublicKey,
    request: &RequestId,
    now: DateTime<Utc>,
) -> Result<Device, ApiError> {
    let device = Device {
        id: DeviceId::generate(),
        name,
        public_key: key.to_base64(),
        last_connected_at: None,
        created_at: now,
    };
    let event = Event::own(Action::AddDevice, user)
        .on(Subject::Device(device.id))
        .in_request(request);
    let mut connection = state.db().get().await?;
    connection
        .transaction(async |connection| {
            let limits = store::lock(connection, user).await?;
            let (is_active, max_devices) = limits.ok_or(Code::Unauthorized)?;
            let (devices, has_key) = store::count(connection, user, &device.public_key).await?;
            let room = Room {
                is_active,
                max_devices: max_devices.into(),
                devices,
                has_key,
            };
            room.check()?;
            store::insert(connection, user, &device).await?;
            audit::record(connection, &event).await?;
            Ok::<_, ApiError>(())
        })
        .await?;
    Ok(device)
}

/// Ends the device's connection before the device goes, so that nothing is left over when this is
/// interrupted, and once more for a connect that ran at the same moment.
async fn remove(
    state: &AppState,
    user: UserId,
    device: DeviceId,
    request: &RequestId,
) -> Result<(), ApiError> {
    let key = {
        let mut connection = state.db().get().await?;
        store::key(&mut connection, user, device).await?
    };
    let key = key.ok_or(Code::DeviceNotFound)?;
    tunnels::end_of_key(state, user, key, EndReason::DeviceRemoved).await?;
    let event = Event::own(Action::RemoveDevice, user)
        .on(Subject::Device(device))
        .in_request(request);
    {
        let mut connection = state.db().get().await?;
        connection
            .transaction(async |connection| {
                if !store::delete(connection, user, device).await? {
                    return Err(ApiError::new(Code::DeviceNotFound));
                }
                Ok(audit::record(connection, &event).await?)
            })
            .await?;
    }
    tunnels::end_of_key(state, user, key, EndReason::DeviceRemoved).await
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::room(true, 1, 0, false, Ok(()))]
    #[case::full(true, 1, 1, false, Err(Code::DeviceLimit))]
    #[case::over_full_after_a_downgrade(true, 1, 5, false, Err(Code::DeviceLimit))]
    #[case::the_same_key_says_so_first(true, 1, 1, true, Err(Code::KeyInUse))]
    #[case::suspended(false, 5, 0, false, Err(Code::AccountSuspended))]
    fn the_plan_decides(
        #[case] is_active: bool,
        #[case] max_devices: i64,
        #[case] devices: i64,
        #[case] has_key: bool,
        #[case] answer: Result<(), Code>,
    ) {
        let room = Room {
            is_active,
            max_devices,
            devices,
            has_key,
        };
        assert_eq!(room.check(), answer);
    }
}
