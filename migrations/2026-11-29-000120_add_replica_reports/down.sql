DROP INDEX jobs_created;

COMMENT ON COLUMN jobs.sealed IS 'The payload, encrypted: a mail holds a link that opens an account. Empty once the job ended.';

ALTER TABLE connections DROP COLUMN round_trip_us;

DROP TABLE replica_reports;
