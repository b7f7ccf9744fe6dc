//! Who may change whose account. Pure.

use shared::ids::UserId;

use crate::accounts::Role;
use crate::audit::Actor;

/// Whoever wants to change an account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changer<'a> {
    pub(super) actor: &'a Actor,
    /// An operator token acts as an admin.
    pub(super) role: Role,
}

impl Changer<'_> {
    /// Nobody changes themselves; a superuser changes anybody else, others only those below them.
    pub(super) fn may_change(self, person: UserId, role: Role) -> bool {
        let is_self = *self.actor == Actor::User(person);
        !is_self && (self.role == Role::Superuser || role < self.role)
    }

    /// Nobody but a superuser makes somebody their equal.
    pub(super) fn may_grant(self, role: Role) -> bool {
        self.role == Role::Superuser || role < self.role
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use Role::{Admin, Superuser, Support, User};

    const ROLES: [Role; 4] = [User, Support, Admin, Superuser];

    fn person(number: u128) -> UserId {
        UserId(Uuid::from_u128(number))
    }

    #[test]
    fn people_are_changed_from_above() {
        for (role, below) in [
            (User, &[][..]),
            (Support, &[User]),
            (Admin, &[User, Support]),
            (Superuser, &ROLES),
        ] {
            let actor = Actor::User(person(1));
            let changer = Changer {
                actor: &actor,
                role,
            };
            for other in ROLES {
                let may = below.contains(&other);
                assert_eq!(
                    changer.may_change(person(2), other),
                    may,
                    "{role:?} {other:?}"
                );
                assert_eq!(changer.may_grant(other), may, "{role:?} grants {other:?}");
                assert!(!changer.may_change(person(1), other), "{role:?} themselves");
            }
        }
    }

    #[test]
    fn an_operator_stands_where_an_admin_does() {
        let actor = Actor::Operator {
            token: Uuid::from_u128(1),
            name: "ci".to_owned(),
        };
        let operator = Changer {
            actor: &actor,
            role: Admin,
        };
        assert!(operator.may_change(person(1), User));
        assert!(!operator.may_change(person(1), Admin));
        assert!(!operator.may_grant(Admin));
    }
}
