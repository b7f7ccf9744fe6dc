-- The connections of a node are also the log of its desired state: `revision` is the last revision
-- of the node that touched the row, so "what is past R" is one index range.
CREATE TABLE connections (
    id                     UUID         PRIMARY KEY,
    user_id                UUID         NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    server_id              UUID         REFERENCES vpn_servers (id) ON DELETE SET NULL,
    device_id              UUID         REFERENCES devices (id) ON DELETE SET NULL,
    status                 VARCHAR(13)  NOT NULL DEFAULT 'connecting',
    end_reason             VARCHAR(20),
    client_public_key      VARCHAR(44)  NOT NULL,
    client_ip              INET,
    client_ipv6            INET,
    user_slot              SMALLINT,
    peer_id                BIGINT       NOT NULL,
    revision               BIGINT       NOT NULL,
    idempotency_key        VARCHAR(255),
    supersedes             UUID         REFERENCES connections (id) ON DELETE SET NULL,
    bytes_sent             BIGINT       NOT NULL DEFAULT 0,
    bytes_received         BIGINT       NOT NULL DEFAULT 0,
    counter_generation     BIGINT       NOT NULL DEFAULT 0,
    generation_sent        BIGINT       NOT NULL DEFAULT 0,
    generation_received    BIGINT       NOT NULL DEFAULT 0,
    peak_bytes_per_second  BIGINT       NOT NULL DEFAULT 0,
    claimed_bytes_sent     BIGINT,
    claimed_bytes_received BIGINT,
    last_handshake_at      TIMESTAMPTZ,
    expires_at             TIMESTAMPTZ,
    started_at             TIMESTAMPTZ  NOT NULL DEFAULT now(),
    connected_at           TIMESTAMPTZ,
    ended_at               TIMESTAMPTZ,
    created_at             TIMESTAMPTZ  NOT NULL DEFAULT now(),
    updated_at             TIMESTAMPTZ  NOT NULL DEFAULT now(),
    CONSTRAINT valid_connection_status CHECK (status IN ('connecting', 'connected', 'disconnecting', 'disconnected')),
    CONSTRAINT connected_has_address CHECK (status <> 'connected' OR client_ip IS NOT NULL),
    CONSTRAINT ended_has_time CHECK ((ended_at IS NOT NULL) = (status IN ('disconnecting', 'disconnected')))
);

COMMENT ON COLUMN connections.client_ip IS 'The address inside the tunnel. Where the client comes from is never stored.';
COMMENT ON COLUMN connections.user_slot IS 'One of the plan''s max_connections places; null once it ended or its place went to the connection that replaces it.';
COMMENT ON COLUMN connections.peer_id IS 'The node''s revision that created the peer.';
COMMENT ON COLUMN connections.bytes_sent IS 'What the client uploaded, over all generations of the peer''s counters.';
COMMENT ON COLUMN connections.generation_sent IS 'Of bytes_sent, what belongs to counter_generation.';
COMMENT ON COLUMN connections.status IS 'disconnecting: over for the user, the node has not yet acknowledged.';

CREATE INDEX connections_node_log ON connections (server_id, revision);
CREATE UNIQUE INDEX connections_node_peer ON connections (server_id, peer_id);
CREATE INDEX connections_user ON connections (user_id, started_at DESC);
CREATE UNIQUE INDEX connections_user_slot ON connections (user_id, user_slot) WHERE status IN ('connecting', 'connected');
CREATE UNIQUE INDEX connections_live_address ON connections (server_id, client_ip) WHERE status IN ('connecting', 'connected');
CREATE UNIQUE INDEX connections_live_address_v6 ON connections (server_id, client_ipv6) WHERE status IN ('connecting', 'connected');
CREATE UNIQUE INDEX connections_live_key ON connections (server_id, client_public_key) WHERE status IN ('connecting', 'connected');
CREATE UNIQUE INDEX connections_idempotency ON connections (user_id, idempotency_key) WHERE status IN ('connecting', 'connected');
-- For the foreign keys: removing a device or a person would read the whole table.
CREATE INDEX connections_device ON connections (device_id) WHERE device_id IS NOT NULL;
CREATE INDEX connections_supersedes ON connections (supersedes) WHERE supersedes IS NOT NULL;
CREATE INDEX connections_pending ON connections (updated_at) WHERE status IN ('connecting', 'disconnecting');
