//! Where accounts were logged in: what tells an owner from strangers while somebody guesses a password.
//!
//! - A place is known after a login there, or after a password reset that was confirmed there.
//! - It is stored as a keyed hash that is bound to the account: the rows tell no address, and not that two
//!   accounts have one in common. After a change of `SECRET_KEY` every place is learnt anew.
//! - An account keeps its latest [`MOST`], each for as long as the upkeep has it, and none when it is deleted.

mod store;

pub use store::forget_unused;
pub(crate) use store::remember;
pub(super) use store::{claim_warning, forget_all};

/// Places that an account keeps.
const MOST: i64 = 50;
