//! What Diesel believes and what the migrations make.

use std::collections::BTreeMap;

use tests::TestDb;

/// Everything of a schema that a query or a rule can see.
const SCHEMA: &str = "
    SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' '
        || coalesce(character_maximum_length::text, '') || ' ' || is_nullable || ' '
        || coalesce(column_default, '') || ' ' || is_generated
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'comment ' || objoid::regclass || ' ' || objsubid || ' ' || description
    FROM pg_description JOIN pg_class ON pg_class.oid = objoid AND relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'view ' || viewname || ' ' || definition FROM pg_views WHERE schemaname = 'public'
    UNION ALL SELECT 'plan ' || id || ' ' || max_connections FROM plans";

async fn schema(db: &TestDb) -> Vec<String> {
    let own = format!(
        "SELECT q.line FROM ({SCHEMA}) AS q(line) WHERE q.line NOT LIKE '%__diesel_schema_migrations%' ORDER BY 1"
    );
    db.texts(&own).await
}

#[tokio::test(flavor = "multi_thread")]
async fn down_and_up_again_leaves_the_same_schema() {
    let db = TestDb::empty().await;
    let ran = control_plane::db::run(db.url()).await.expect("up");
    let before = schema(&db).await;
    assert!(before.len() > 100, "{} lines", before.len());

    let reverted = control_plane::db::revert(db.url(), ran.len())
        .await
        .expect("down");
    assert_eq!(reverted.len(), ran.len());
    let left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace
                AND relname NOT LIKE '\\_\\_diesel%'";
    assert_eq!(db.number(left).await, 0);

    control_plane::db::run(db.url()).await.expect("up again");
    assert_eq!(schema(&db).await, before);
    assert!(!control_plane::db::pending(db.url()).await.expect("asks"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_migration_can_be_undone_by_itself() {
    let db = TestDb::empty().await;
    let ran = control_plane::db::run(db.url()).await.expect("up");
    let full = schema(&db).await;
    for steps in 1..=ran.len() {
        control_plane::db::revert(db.url(), steps)
            .await
            .expect("down");
        control_plane::db::run(db.url()).await.expect("up again");
    }
    assert_eq!(schema(&db).await, full);
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_rs_is_what_the_migrations_make() {
    let db = TestDb::new().await;
    let columns = db
        .texts(
            "SELECT table_name || '.' || column_name || ' ' || udt_name || ' ' || is_nullable
             FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
             WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name NOT LIKE '\\_\\_diesel%'
               AND NOT (SELECT relispartition FROM pg_class WHERE pg_class.oid = table_name::regclass)
             ORDER BY table_name, ordinal_position",
        )
        .await;
    let in_postgres: Vec<_> = columns.iter().map(|line| described(line)).collect();
    let in_diesel = declared(include_str!("../../../control-plane/src/db/schema.rs"));
    assert_eq!(in_postgres, in_diesel);
}

/// `table.column Type` from Postgres' words.
fn described(line: &str) -> String {
    let types = BTreeMap::from([
        ("uuid", "Uuid"),
        ("varchar", "Varchar"),
        ("bpchar", "Bpchar"),
        ("bool", "Bool"),
        ("date", "Date"),
        ("int2", "Int2"),
        ("int4", "Int4"),
        ("int8", "Int8"),
        ("float8", "Float8"),
        ("timestamptz", "Timestamptz"),
        ("inet", "Inet"),
        ("cidr", "Cidr"),
        ("text", "Text"),
        ("jsonb", "Jsonb"),
        ("bytea", "Bytea"),
        ("_text", "Array<Text>"),
    ]);
    let mut words = line.split(' ');
    let (name, udt, nullable) = (words.next(), words.next(), words.next());
    let known = types.get(udt.unwrap_or_default());
    let known = known.unwrap_or_else(|| panic!("a type that this test does not know: {line}"));
    let name = name.unwrap_or_default();
    match nullable {
        Some("YES") => format!("{name} Nullable<{known}>"),
        _ => format!("{name} {known}"),
    }
}

/// `table.column Type` from the `table!` macros.
fn declared(source: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut table = None;
    for line in source.lines().map(str::trim) {
        if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with(") {")) {
            table = Some(name.to_owned());
        } else if line == "}" {
            table = None;
        } else if let (Some(table), Some((column, kind))) = (&table, line.split_once(" -> ")) {
            lines.push(format!("{table}.{column} {}", kind.trim_end_matches(',')));
        }
    }
    lines
}
