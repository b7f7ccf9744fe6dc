//! How hours grow: the one text by which every statement that moves a connection adds to them.
//!
//! What is added is what the connection's row grew by in the same statement, so that hours add up to
//! the rows to the byte and a replay adds nothing.

/// Two queries of a WITH that add to `usage_hours` and `server_hours` what the rows of a query
/// `$moved` before them moved: `user_id`, `server_id`, `sent_more`, `received_more`, `peak_now`,
/// `begun`, `gone` and `seconds`.
///
/// Rows are locked in the order of their keys, so that two statements cannot wait for each other. Postgres does
/// what nothing reads of a WITH from the last query to the first: the row that all users of a server
/// share is locked last, and held for the commit alone.
macro_rules! roll_up {
    ($moved:literal) => {
        concat!(
            "of_servers AS (
                INSERT INTO server_hours AS h (server_id, hour, bytes_sent, bytes_received, peak_bytes_per_second,
                                               connects, ends, connected_seconds)
                SELECT server_id, date_trunc('hour', now(), 'UTC'), sum(sent_more)::bigint, sum(received_more)::bigint,
                       max(peak_now), sum(begun), sum(gone), sum(seconds)::bigint
                  FROM ",
            $moved,
            " WHERE server_id IS NOT NULL AND (sent_more > 0 OR received_more > 0 OR begun > 0 OR gone > 0)
              GROUP BY server_id ORDER BY server_id
                    ON CONFLICT (server_id, hour) DO UPDATE SET ",
            $crate::analytics::rollup::added!(),
            "), of_users AS (
                INSERT INTO usage_hours AS h (user_id, hour, server_id, bytes_sent, bytes_received,
                                              peak_bytes_per_second, connects, ends, connected_seconds)
                SELECT user_id, date_trunc('hour', now(), 'UTC'), server_id, sum(sent_more)::bigint,
                       sum(received_more)::bigint, max(peak_now), sum(begun), sum(gone), sum(seconds)::bigint
                  FROM ",
            $moved,
            " WHERE server_id IS NOT NULL AND (sent_more > 0 OR received_more > 0 OR begun > 0 OR gone > 0)
              GROUP BY user_id, server_id ORDER BY user_id, server_id
                    ON CONFLICT (user_id, hour, server_id) DO UPDATE SET ",
            $crate::analytics::rollup::added!(),
            ")"
        )
    };
}
pub(crate) use roll_up;

macro_rules! added {
    () => {
        "bytes_sent = h.bytes_sent + excluded.bytes_sent,
         bytes_received = h.bytes_received + excluded.bytes_received,
         peak_bytes_per_second = greatest(h.peak_bytes_per_second, excluded.peak_bytes_per_second),
         connects = h.connects + excluded.connects,
         ends = h.ends + excluded.ends,
         connected_seconds = h.connected_seconds + excluded.connected_seconds"
    };
}
pub(crate) use added;

/// The columns `gone` and `seconds` of a statement after which connections `c` are gone for good where
/// `$gone` holds. One that no client could use does not count.
macro_rules! gone_columns {
    ($gone:literal) => {
        concat!(
            "CASE WHEN c.connected_at IS NOT NULL AND ",
            $gone,
            " THEN 1 ELSE 0 END AS gone,
              CASE WHEN c.connected_at IS NOT NULL AND ",
            $gone,
            " THEN greatest(extract(epoch FROM c.ended_at - c.connected_at), 0)::bigint ELSE 0 END AS seconds"
        )
    };
}
pub(crate) use gone_columns;
