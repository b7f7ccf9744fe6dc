//! An account as its owner sees it.

use chrono::{DateTime, Utc};
use shared::ids::{DeviceId, UserId};

use super::Role;
use crate::error::{ApiError, Code};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub id: UserId,
    pub email: String,
    pub full_name: Option<String>,
    pub role: Role,
    pub is_active: bool,
    pub is_verified: bool,
    pub created_at: DateTime<Utc>,
    /// The running one; nobody has two.
    pub subscription: Option<Subscription>,
    /// Oldest first.
    pub devices: Vec<Device>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub plan: String,
    pub plan_type: String,
    pub status: String,
    pub start_date: DateTime<Utc>,
    pub end_date: Option<DateTime<Utc>>,
    pub auto_renew: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub id: DeviceId,
    pub name: String,
    pub public_key: String,
    pub last_connected_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

impl Profile {
    /// The profile unless the account is suspended.
    pub fn active(self) -> Result<Self, ApiError> {
        if self.is_active {
            Ok(self)
        } else {
            Err(Code::AccountSuspended.into())
        }
    }
}
