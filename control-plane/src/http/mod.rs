//! What every handler shares: extractors, the frame around each response, pagination of errors.
//!
//! Whatever goes wrong before, in or after a handler leaves in the one envelope of [`crate::error`].

pub mod cors;
pub mod current_user;
pub mod docs;
pub mod frame;
pub mod holder;
pub mod host;
pub mod html;
pub mod https;
pub mod idempotency_key;
pub mod input;
pub mod number;
pub mod observe;
pub mod page;
pub mod permission;
pub mod request_id;
pub mod server_timing;
pub mod sse;
pub mod stay;
pub mod text;

use actix_web::Error;
use actix_web::dev::ServiceResponse;

pub use current_user::{CurrentUser, user_from_token};
pub use holder::{Holder, Holding};
pub use input::{OptionalJson, ValidForm, ValidJson, ValidQuery};
pub use page::{Page, PageQuery};
pub use permission::{Allowed, Permission};
pub use request_id::RequestId;
pub use server_timing::ServerTiming;
pub use stay::Stay;

/// What a layer around the handlers gets and gives.
pub type Answer = Result<ServiceResponse, Error>;
