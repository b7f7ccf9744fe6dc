//! Accounts on the wire.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::accounts::{Device, Profile, Role, Subscription};

/// An account with its subscription and devices.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(in crate::accounts) struct UserView {
    id: Uuid,
    #[schema(example = "anna@example.org")]
    email: String,
    #[schema(example = "Anna Example")]
    full_name: Option<String>,
    is_active: bool,
    is_superuser: bool,
    is_verified: bool,
    created_at: DateTime<Utc>,
    subscription: Option<SubscriptionView>,
    devices: Vec<DeviceView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserSubscription)]
pub(in crate::accounts) struct SubscriptionView {
    /// `monthly`, `yearly` or `free`.
    #[schema(example = "monthly")]
    plan_type: String,
    #[schema(example = "premium_monthly")]
    plan: String,
    /// `active`, `past_due` or `canceled`.
    #[schema(example = "active")]
    status: String,
    start_date: DateTime<Utc>,
    end_date: Option<DateTime<Utc>>,
    /// The same as `end_date`.
    expiry_date: Option<DateTime<Utc>>,
    auto_renew: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Device)]
pub(in crate::accounts) struct DeviceView {
    id: Uuid,
    #[schema(example = "Phone")]
    name: String,
    /// WireGuard's, in base64.
    #[schema(example = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")]
    public_key: String,
    last_connected: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

/// The account that logged in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LoginUser {
    id: Uuid,
    #[schema(example = "anna@example.org")]
    email: String,
    #[schema(example = "Anna Example")]
    full_name: Option<String>,
    is_active: bool,
    is_superuser: bool,
    is_verified: bool,
    /// Null where nothing expires.
    subscription_expiry: Option<DateTime<Utc>>,
}

impl From<Profile> for UserView {
    fn from(profile: Profile) -> Self {
        Self {
            id: profile.id.into(),
            email: profile.email,
            full_name: profile.full_name,
            is_active: profile.is_active,
            is_superuser: profile.role == Role::Superuser,
            is_verified: profile.is_verified,
            created_at: profile.created_at,
            subscription: profile.subscription.map(Into::into),
            devices: profile.devices.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Subscription> for SubscriptionView {
    fn from(subscription: Subscription) -> Self {
        Self {
            plan_type: subscription.plan_type,
            plan: subscription.plan,
            status: subscription.status,
            start_date: subscription.start_date,
            end_date: subscription.end_date,
            expiry_date: subscription.end_date,
            auto_renew: subscription.auto_renew,
        }
    }
}

impl From<Device> for DeviceView {
    fn from(device: Device) -> Self {
        Self {
            id: device.id.into(),
            name: device.name,
            public_key: device.public_key,
            last_connected: device.last_connected_at,
            created_at: device.created_at,
        }
    }
}

impl From<Profile> for LoginUser {
    fn from(profile: Profile) -> Self {
        Self {
            id: profile.id.into(),
            email: profile.email,
            full_name: profile.full_name,
            is_active: profile.is_active,
            is_superuser: profile.role == Role::Superuser,
            is_verified: profile.is_verified,
            subscription_expiry: profile.subscription.and_then(|it| it.end_date),
        }
    }
}
