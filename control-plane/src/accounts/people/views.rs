//! People on the wire, for administrators.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::store::Summary;
use crate::accounts::routes::views::UserView;
use crate::accounts::{Profile, Role};

/// A line of the list of people.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserSummary)]
pub(super) struct SummaryView {
    id: Uuid,
    #[schema(example = "anna@example.org")]
    email: String,
    #[schema(example = "Anna Example")]
    full_name: Option<String>,
    role: Role,
    is_active: bool,
    is_verified: bool,
    created_at: DateTime<Utc>,
}

/// An account with its role.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Person)]
pub(super) struct PersonView {
    #[serde(flatten)]
    account: UserView,
    role: Role,
}

impl From<Summary> for SummaryView {
    fn from(person: Summary) -> Self {
        Self {
            id: person.id.into(),
            email: person.email,
            full_name: person.full_name,
            role: person.role,
            is_active: person.is_active,
            is_verified: person.is_verified,
            created_at: person.created_at,
        }
    }
}

impl From<Profile> for PersonView {
    fn from(profile: Profile) -> Self {
        Self {
            role: profile.role,
            account: profile.into(),
        }
    }
}
