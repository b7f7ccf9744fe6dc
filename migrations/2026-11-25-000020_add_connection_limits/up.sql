ALTER TABLE connections
    ADD COLUMN sealed_psk     BYTEA,
    ADD COLUMN download_bps   BIGINT,
    ADD COLUMN upload_bps     BIGINT,
    ADD COLUMN allowance      BIGINT,
    ADD COLUMN allowance_held BIGINT,
    ADD COLUMN share_at       BIGINT,
    ADD COLUMN consumed       BIGINT NOT NULL DEFAULT 0,
    ADD CONSTRAINT lease_is_whole CHECK (
        (allowance IS NULL) = (allowance_held IS NULL) AND (allowance IS NULL) = (share_at IS NULL)
    );

COMMENT ON COLUMN connections.sealed_psk IS 'The preshared key, encrypted; null once the connection ended.';
COMMENT ON COLUMN connections.allowance IS 'What consumed may come to on the node. Null where the plan had no quota from the beginning, the largest number where it has none any more.';
COMMENT ON COLUMN connections.allowance_held IS 'The largest allowance that the node may have: it comes down to allowance when the node acknowledged it.';
COMMENT ON COLUMN connections.share_at IS 'What consumed may come to before the person''s quota is shared anew.';
COMMENT ON COLUMN connections.consumed IS 'Bytes inside the tunnel that count for the quota, since the peer came to its node, as the node last said.';

-- What ended connections may still use until their nodes have let go of them.
CREATE INDEX connections_ending ON connections (user_id) WHERE status = 'disconnecting';

CREATE TABLE quota_usage (
    user_id  UUID   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    month    DATE   NOT NULL,
    consumed BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, month)
) WITH (fillfactor = 80);

COMMENT ON TABLE quota_usage IS 'What a person used of the quota in a month of UTC. A statement takes its lock last of all.';

CREATE TABLE quota_shares (
    user_id     UUID   PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    version     BIGINT NOT NULL DEFAULT 0,
    month       DATE   NOT NULL,
    quota_bytes BIGINT NOT NULL
) WITH (fillfactor = 80);

COMMENT ON TABLE quota_shares IS 'How a person''s quota was shared out last. A statement takes its lock first of all.';
COMMENT ON COLUMN quota_shares.version IS 'Whoever shares a quota out read this number and writes the next: of two at once one does it again.';
