-- What each replica says of itself every two seconds. It is worth nothing after a crash of the database, so it is not logged.
CREATE UNLOGGED TABLE replica_reports (
    replica       UUID        PRIMARY KEY,
    at            TIMESTAMPTZ NOT NULL,
    node_sessions INTEGER     NOT NULL,
    viewers       INTEGER     NOT NULL,
    moving_peers  INTEGER     NOT NULL,
    upload_bps    BIGINT      NOT NULL,
    download_bps  BIGINT      NOT NULL
);

COMMENT ON COLUMN replica_reports.upload_bps IS 'Bits a second that clients upload through the nodes whose sessions the replica holds.';

ALTER TABLE connections ADD COLUMN round_trip_us INTEGER;

COMMENT ON COLUMN connections.round_trip_us IS 'The last round trip through the tunnel that was measured: only while somebody looks.';
COMMENT ON COLUMN jobs.sealed IS 'The payload, encrypted: a mail holds a link that opens an account. Empty once the job is done.';

CREATE INDEX jobs_created ON jobs (created_at, id);
