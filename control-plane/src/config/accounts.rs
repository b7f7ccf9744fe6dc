//! Accounts: what an address has to prove, and how long things about people are good or kept.

use std::time::Duration;

use super::reader::Reader;

#[derive(Debug, Clone)]
pub struct AccountsConfig {
    /// Whether a login needs a verified address.
    pub require_verified_email: bool,
    pub verification_ttl: Duration,
    pub password_reset_ttl: Duration,
    pub audit_retention: Duration,
}

impl AccountsConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self {
            require_verified_email: reader.flag("REQUIRE_VERIFIED_EMAIL", false),
            verification_ttl: reader.duration("VERIFICATION_TTL", days(2)),
            password_reset_ttl: reader.duration("PASSWORD_RESET_TTL", Duration::from_secs(3600)),
            audit_retention: reader.duration("AUDIT_RETENTION", days(365)),
        }
    }
}
