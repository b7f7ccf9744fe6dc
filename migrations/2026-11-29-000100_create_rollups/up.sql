-- What was moved, by whom, over which server, in which hour of UTC. Every statement that moves a
-- connection's bytes, or begins or ends one, adds the same to these in the same commit.
--
-- Months are partitions that the plane makes ahead; the default one takes what comes without any.
CREATE TABLE usage_hours (
    user_id               UUID        NOT NULL,
    hour                  TIMESTAMPTZ NOT NULL,
    server_id             UUID        NOT NULL,
    bytes_sent            BIGINT      NOT NULL,
    bytes_received        BIGINT      NOT NULL,
    peak_bytes_per_second BIGINT      NOT NULL,
    connects              INTEGER     NOT NULL,
    ends                  INTEGER     NOT NULL,
    connected_seconds     BIGINT      NOT NULL,
    PRIMARY KEY (user_id, hour, server_id)
) PARTITION BY RANGE (hour);

COMMENT ON TABLE usage_hours IS 'No foreign keys: a month is made and dropped without a lock on users, and a row outlives its server. It goes with its user.';
COMMENT ON COLUMN usage_hours.hour IS 'When the bytes were stored, which is up to a minute after they were counted.';
COMMENT ON COLUMN usage_hours.peak_bytes_per_second IS 'The fastest second of one connection, both directions together.';
COMMENT ON COLUMN usage_hours.connected_seconds IS 'Of the connections that ended in the hour, since their beginning.';

-- Rows come in the order of their hours.
CREATE INDEX usage_hours_hour ON usage_hours USING brin (hour);
CREATE TABLE usage_hours_default PARTITION OF usage_hours DEFAULT;

-- The same of days that are over; an hour stands in one of both.
CREATE TABLE usage_days (
    user_id               UUID    NOT NULL,
    day                   DATE    NOT NULL,
    server_id             UUID    NOT NULL,
    bytes_sent            BIGINT  NOT NULL,
    bytes_received        BIGINT  NOT NULL,
    peak_bytes_per_second BIGINT  NOT NULL,
    connects              INTEGER NOT NULL,
    ends                  INTEGER NOT NULL,
    connected_seconds     BIGINT  NOT NULL,
    PRIMARY KEY (user_id, day, server_id)
) PARTITION BY RANGE (day);

CREATE INDEX usage_days_day ON usage_days USING brin (day);
CREATE TABLE usage_days_default PARTITION OF usage_days DEFAULT;

-- The same over all users: what the fleet did stays when a user goes.
CREATE TABLE server_hours (
    server_id             UUID             NOT NULL,
    hour                  TIMESTAMPTZ      NOT NULL,
    bytes_sent            BIGINT           NOT NULL,
    bytes_received        BIGINT           NOT NULL,
    peak_bytes_per_second BIGINT           NOT NULL,
    connects              INTEGER          NOT NULL,
    ends                  INTEGER          NOT NULL,
    connected_seconds     BIGINT           NOT NULL,
    samples               INTEGER          NOT NULL DEFAULT 0,
    load_sum              DOUBLE PRECISION NOT NULL DEFAULT 0,
    load_peak             DOUBLE PRECISION NOT NULL DEFAULT 0,
    peers_sum             BIGINT           NOT NULL DEFAULT 0,
    peers_peak            INTEGER          NOT NULL DEFAULT 0,
    PRIMARY KEY (server_id, hour)
) PARTITION BY RANGE (hour);

COMMENT ON TABLE server_hours IS 'A statement takes its locks last of all.';
COMMENT ON COLUMN server_hours.samples IS 'How often load and peers were looked at: once a minute while the node answers.';

CREATE INDEX server_hours_hour ON server_hours USING brin (hour);
CREATE TABLE server_hours_default PARTITION OF server_hours DEFAULT;

CREATE TABLE server_days (
    server_id             UUID             NOT NULL,
    day                   DATE             NOT NULL,
    bytes_sent            BIGINT           NOT NULL,
    bytes_received        BIGINT           NOT NULL,
    peak_bytes_per_second BIGINT           NOT NULL,
    connects              INTEGER          NOT NULL,
    ends                  INTEGER          NOT NULL,
    connected_seconds     BIGINT           NOT NULL,
    samples               INTEGER          NOT NULL,
    load_sum              DOUBLE PRECISION NOT NULL,
    load_peak             DOUBLE PRECISION NOT NULL,
    peers_sum             BIGINT           NOT NULL,
    peers_peak            INTEGER          NOT NULL,
    PRIMARY KEY (server_id, day)
) PARTITION BY RANGE (day);

CREATE INDEX server_days_day ON server_days USING brin (day);
CREATE TABLE server_days_default PARTITION OF server_days DEFAULT;

CREATE TABLE rollup_state (
    id           BOOLEAN     PRIMARY KEY DEFAULT true,
    closed_until DATE        NOT NULL,
    sampled_at   TIMESTAMPTZ NOT NULL,
    CONSTRAINT one_row CHECK (id)
);

COMMENT ON COLUMN rollup_state.closed_until IS 'The first day that is read from hours; those before stand in the tables of days.';
COMMENT ON COLUMN rollup_state.sampled_at IS 'When the servers'' loads were looked at last.';

INSERT INTO rollup_state (closed_until, sampled_at)
VALUES ((now() AT TIME ZONE 'UTC')::date, '-infinity');

COMMENT ON TABLE quota_usage IS 'What a person used of the quota in a month of UTC. A statement takes its lock after all others but those of rollups.';
