//! Months of rollups: made ahead, dropped when they are old.

use std::collections::BTreeSet;

use chrono::{Months, NaiveDate};
use diesel::sql_types::Text;
use diesel::{QueryResult, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use crate::db::statement;

/// A table whose partitions are months.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::analytics) struct Table {
    name: &'static str,
    /// What it is partitioned by.
    key: &'static str,
    pub(in crate::analytics) is_hourly: bool,
}

pub(in crate::analytics) const TABLES: [Table; 4] = [
    Table::hours("usage_hours"),
    Table::hours("server_hours"),
    Table::days("usage_days"),
    Table::days("server_days"),
];

impl Table {
    const fn hours(name: &'static str) -> Self {
        Self {
            name,
            key: "hour",
            is_hourly: true,
        }
    }

    const fn days(name: &'static str) -> Self {
        Self {
            name,
            key: "day",
            is_hourly: false,
        }
    }

    fn partition(self, month: NaiveDate) -> String {
        format!("{}_{}", self.name, month.format("%Y_%m"))
    }

    /// The month of one of the table's partitions.
    fn month(self, partition: &str) -> Option<NaiveDate> {
        let month = partition.strip_prefix(self.name)?.strip_prefix('_')?;
        NaiveDate::parse_from_str(&format!("{month}_01"), "%Y_%m_%d").ok()
    }

    /// A literal of the key.
    fn moment(self, day: NaiveDate) -> String {
        if self.is_hourly {
            format!("'{day} 00:00:00+00'")
        } else {
            format!("'{day}'")
        }
    }
}

/// The months of the table that are there.
pub(in crate::analytics) async fn months(
    connection: &mut AsyncPgConnection,
    table: Table,
) -> QueryResult<BTreeSet<NaiveDate>> {
    const SQL: &str = "
        SELECT c.relname::text AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = $1::text::regclass";

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        name: String,
    }

    let rows: Vec<Row> = statement(SQL)
        .bind::<Text, _>(table.name)
        .load(connection)
        .await?;
    let rows = rows.iter();
    Ok(rows.filter_map(|row| table.month(&row.name)).collect())
}

/// Makes the partition of a month; what the default one has of it moves. One to a transaction: whoever reads
/// several tables would be waited for, and wait.
pub(in crate::analytics) async fn make(
    connection: &mut AsyncPgConnection,
    table: Table,
    month: NaiveDate,
) -> QueryResult<()> {
    let Table { name, key, .. } = table;
    let (from, to) = (table.moment(month), table.moment(month + Months::new(1)));
    let partition = table.partition(month);
    // Hours are written over and over, where they stand if there is room.
    let filled = if table.is_hourly { 60 } else { 100 };
    // Nobody writes meanwhile, so that nothing comes into the default partition behind the move; and nobody reads, who
    // would know of the partitions as they were before and find the rows as they are after it.
    let sql = format!(
        "LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE;
         CREATE TABLE {partition} (LIKE {name} INCLUDING ALL) WITH (fillfactor = {filled});
         WITH moved AS (DELETE FROM {name}_default WHERE {key} >= {from} AND {key} < {to} RETURNING *)
         INSERT INTO {partition} SELECT * FROM moved;
         ALTER TABLE {name} ATTACH PARTITION {partition} FOR VALUES FROM ({from}) TO ({to})"
    );
    connection.batch_execute(&sql).await
}

/// Drops the partition of a month. One to a transaction, too.
pub(in crate::analytics) async fn drop(
    connection: &mut AsyncPgConnection,
    table: Table,
    month: NaiveDate,
) -> QueryResult<()> {
    let sql = format!("DROP TABLE IF EXISTS {}", table.partition(month));
    connection.batch_execute(&sql).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_names_its_month() {
        let month = NaiveDate::from_ymd_opt(2026, 2, 1).unwrap();
        for table in TABLES {
            assert_eq!(table.month(&table.partition(month)), Some(month));
            assert_eq!(table.month(&format!("{}_default", table.name)), None);
        }
        assert_eq!(TABLES[0].partition(month), "usage_hours_2026_02");
        assert_eq!(TABLES[0].month("server_hours_2026_02"), None);
    }
}
