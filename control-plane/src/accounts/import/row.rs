//! One line of an import. Pure: the time comes in.

use chrono::{DateTime, NaiveDateTime, Utc};
use csv::StringRecord;

use crate::accounts::Email;
use crate::accounts::passwords::is_bcrypt;
use crate::http::text::plain;

/// Somebody to be.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) email: Email,
    pub(super) password_hash: String,
    pub(super) full_name: Option<String>,
    pub(super) is_verified: bool,
    pub(super) created_at: DateTime<Utc>,
}

/// Where the header puts each column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    email: usize,
    hashed_password: usize,
    full_name: Option<usize>,
    is_verified: Option<usize>,
    created_at: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header has no column {0}")]
pub struct MissingColumn(&'static str);

/// What is wrong with a line, without what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRow {
    #[error("email is not an address")]
    Email,
    #[error("hashed_password is not a bcrypt hash ($2a$, $2b$ or $2y$, cost 4 to 16)")]
    Hash,
    #[error("full_name has more than 200 characters or control characters")]
    FullName,
    #[error("is_verified is neither true nor false")]
    IsVerified,
    #[error("created_at is not a past time such as 2024-05-01T10:00:00Z")]
    CreatedAt,
}

impl Columns {
    pub(super) fn of(header: &StringRecord) -> Result<Self, MissingColumn> {
        let find = |name: &str| header.iter().position(|it| it.eq_ignore_ascii_case(name));
        let need = |name: &'static str| find(name).ok_or(MissingColumn(name));
        Ok(Self {
            email: need("email")?,
            hashed_password: need("hashed_password")?,
            full_name: find("full_name"),
            is_verified: find("is_verified"),
            created_at: find("created_at"),
        })
    }

    /// An empty field is one that is not there.
    pub(super) fn read(
        &self,
        record: &StringRecord,
        now: DateTime<Utc>,
    ) -> Result<Person, InvalidRow> {
        let field = |column: usize| record.get(column).unwrap_or_default();
        let optional = |column: Option<usize>| column.map(field).filter(|it| !it.is_empty());
        let hash = field(self.hashed_password);
        if !is_bcrypt(hash) {
            return Err(InvalidRow::Hash);
        }
        Ok(Person {
            email: Email::parse(field(self.email)).map_err(|_| InvalidRow::Email)?,
            password_hash: hash.to_owned(),
            full_name: optional(self.full_name).map(name).transpose()?,
            is_verified: optional(self.is_verified).map_or(Ok(false), flag)?,
            created_at: optional(self.created_at).map_or(Ok(now), |text| past(text, now))?,
        })
    }
}

fn name(text: &str) -> Result<String, InvalidRow> {
    if text.chars().count() > 200 || plain(text, &()).is_err() {
        return Err(InvalidRow::FullName);
    }
    Ok(text.to_owned())
}

fn flag(text: &str) -> Result<bool, InvalidRow> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" => Ok(true),
        "false" | "f" | "0" | "no" => Ok(false),
        _ => Err(InvalidRow::IsVerified),
    }
}

/// RFC 3339, or what databases print, which is taken as UTC.
fn past(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, InvalidRow> {
    let time = DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .or_else(|_| {
            DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").map(|it| it.to_utc())
        })
        .or_else(|_| {
            NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").map(|it| it.and_utc())
        })
        .map_err(|_| InvalidRow::CreatedAt)?;
    if time > now || time < DateTime::UNIX_EPOCH {
        return Err(InvalidRow::CreatedAt);
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HASH: &str = "$2b$12$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

    fn read(fields: &[&str]) -> Result<Person, InvalidRow> {
        let header = [
            "email",
            "hashed_password",
            "full_name",
            "is_verified",
            "created_at",
        ];
        let columns = Columns::of(&StringRecord::from(header.to_vec())).unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        columns.read(&StringRecord::from(fields.to_vec()), now)
    }

    #[test]
    fn a_line_is_somebody() {
        let person = read(&[
            "Anna@Example.org",
            HASH,
            "Anna",
            "TRUE",
            "2024-05-01 10:00:00",
        ]);
        let person = person.unwrap();
        assert_eq!(person.email.as_str(), "anna@example.org");
        assert_eq!(person.full_name.as_deref(), Some("Anna"));
        assert!(person.is_verified);
        assert_eq!(person.created_at.to_rfc3339(), "2024-05-01T10:00:00+00:00");
    }

    #[test]
    fn what_is_empty_is_not_there() {
        let person = read(&["anna@example.org", HASH, "", "", ""]).unwrap();
        assert_eq!((person.full_name, person.is_verified), (None, false));
        assert_eq!(person.created_at.timestamp(), 1_800_000_000);
    }

    #[rstest]
    #[case(&["anna", HASH, "", "", ""], InvalidRow::Email)]
    #[case(&["anna@example.org", "plain", "", "", ""], InvalidRow::Hash)]
    #[case(&["anna@example.org", "", "", "", ""], InvalidRow::Hash)]
    #[case(&["anna@example.org", HASH, "a\0b", "", ""], InvalidRow::FullName)]
    #[case(&["anna@example.org", HASH, "", "maybe", ""], InvalidRow::IsVerified)]
    #[case(&["anna@example.org", HASH, "", "", "yesterday"], InvalidRow::CreatedAt)]
    #[case(&["anna@example.org", HASH, "", "", "2999-01-01T00:00:00Z"], InvalidRow::CreatedAt)]
    fn what_is_wrong_is_said(#[case] fields: &[&str], #[case] reason: InvalidRow) {
        assert_eq!(read(fields).unwrap_err(), reason);
        let said = reason.to_string();
        assert!(
            fields
                .iter()
                .all(|field| field.len() < 5 || !said.contains(field))
        );
    }

    #[rstest]
    #[case("2024-05-01T10:00:00Z")]
    #[case("2024-05-01T12:00:00+02:00")]
    #[case("2024-05-01 10:00:00.000")]
    #[case("2024-05-01 10:00:00+00")]
    #[case("2024-05-01 12:00:00.000000+02")]
    fn times_as_databases_print_them(#[case] text: &str) {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert_eq!(past(text, now).unwrap().timestamp(), 1_714_557_600);
    }

    #[test]
    fn the_header_names_the_columns() {
        let columns = Columns::of(&StringRecord::from(vec!["Hashed_Password", "EMAIL"])).unwrap();
        assert_eq!((columns.email, columns.hashed_password), (1, 0));
        let missing = Columns::of(&StringRecord::from(vec!["email"])).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "the header has no column hashed_password"
        );
    }
}
