//! The ids of invoices and of what paid them, for whoever changes the key: what they are found by follows.

use crate::secrets::SealedColumn;

pub(super) const INVOICE: &str = "payments.sealed_stripe_id";
pub(super) const INTENT: &str = "payments.sealed_intent_id";

pub const SEALED_INVOICE_IDS: SealedColumn = SealedColumn::new(INVOICE).found_by("stripe_hash");

pub const SEALED_INTENT_IDS: SealedColumn = SealedColumn::new(INTENT).found_by("intent_hash");
