//! The ids of invoices and of what paid them, for whoever changes the key: what they are found by follows.

use crate::secrets::SealedColumn;

pub(super) const INVOICE: &str = "payments.sealed_stripe_id";
pub(super) const INTENT: &str = "payments.sealed_intent_id";

#[derive(Debug)]
pub struct SealedInvoiceIds;

impl SealedColumn for SealedInvoiceIds {
    fn name(&self) -> &'static str {
        INVOICE
    }

    fn stale_sql(&self) -> &'static str {
        "
            SELECT id, sealed_stripe_id AS sealed FROM payments
             WHERE id > $2 AND substring(sealed_stripe_id FOR octet_length($1)) <> $1
             ORDER BY id LIMIT $3"
    }

    fn replace_sql(&self) -> &'static str {
        "
            UPDATE payments p
               SET sealed_stripe_id = changed.new, stripe_hash = changed.hash
              FROM unnest($1, $2, $3, $4) AS changed (id, old, new, hash)
             WHERE p.id = changed.id AND p.sealed_stripe_id = changed.old"
    }
}

#[derive(Debug)]
pub struct SealedIntentIds;

impl SealedColumn for SealedIntentIds {
    fn name(&self) -> &'static str {
        INTENT
    }

    fn stale_sql(&self) -> &'static str {
        "
            SELECT id, sealed_intent_id AS sealed FROM payments
             WHERE id > $2 AND substring(sealed_intent_id FOR octet_length($1)) <> $1
             ORDER BY id LIMIT $3"
    }

    fn replace_sql(&self) -> &'static str {
        "
            UPDATE payments p
               SET sealed_intent_id = changed.new, intent_hash = changed.hash
              FROM unnest($1, $2, $3, $4) AS changed (id, old, new, hash)
             WHERE p.id = changed.id AND p.sealed_intent_id = changed.old"
    }
}
