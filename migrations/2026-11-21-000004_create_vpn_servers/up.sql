CREATE TABLE vpn_servers (
    id                 UUID             PRIMARY KEY,
    hostname           VARCHAR(255)     NOT NULL UNIQUE,
    country            VARCHAR(100)     NOT NULL,
    country_code       CHAR(2)          NOT NULL,
    city               VARCHAR(100)     NOT NULL,
    location           VARCHAR(100)     NOT NULL,
    ip_address         INET             NOT NULL,
    endpoint           VARCHAR(262)     NOT NULL,
    public_key         VARCHAR(44)      NOT NULL,
    status             VARCHAR(12)      NOT NULL DEFAULT 'active',
    tier               SMALLINT         NOT NULL DEFAULT 0,
    current_load       DOUBLE PRECISION NOT NULL DEFAULT 0,
    ping               INTEGER          NOT NULL DEFAULT 0,
    available_ips      CIDR             NOT NULL,
    available_ips_v6   CIDR,
    capacity           INTEGER          NOT NULL,
    download_mbps      INTEGER          NOT NULL DEFAULT 1000,
    upload_mbps        INTEGER          NOT NULL DEFAULT 1000,
    protocols          TEXT[]           NOT NULL DEFAULT '{wireguard}',
    streaming_services TEXT[]           NOT NULL DEFAULT '{}',
    features           TEXT[]           NOT NULL DEFAULT '{}',
    created_at         TIMESTAMPTZ      NOT NULL DEFAULT now(),
    updated_at         TIMESTAMPTZ      NOT NULL DEFAULT now(),
    CONSTRAINT valid_server_status CHECK (status IN ('active', 'maintenance', 'offline')),
    CONSTRAINT valid_server_figures CHECK (current_load BETWEEN 0 AND 100 AND ping >= 0 AND capacity >= 0 AND tier >= 0)
);

COMMENT ON COLUMN vpn_servers.status IS 'The operator''s word. Whether the node answers stands in nodes.last_seen_at.';
COMMENT ON COLUMN vpn_servers.ping IS 'Round trip between plane and node in milliseconds.';

-- The agent's side of a server: narrow and often updated, apart from the catalogue above.
CREATE TABLE nodes (
    server_id        UUID        PRIMARY KEY REFERENCES vpn_servers (id) ON DELETE CASCADE,
    desired_revision BIGINT      NOT NULL DEFAULT 0,
    applied_revision BIGINT      NOT NULL DEFAULT 0,
    state_hash       CHAR(32),
    token_epoch      INTEGER     NOT NULL DEFAULT 0,
    session_fence    BIGINT      NOT NULL DEFAULT 0,
    session_replica  UUID,
    draining         BOOLEAN     NOT NULL DEFAULT false,
    peers            INTEGER     NOT NULL DEFAULT 0,
    pool_used        INTEGER     NOT NULL DEFAULT 0,
    boot_id          UUID,
    interface_epoch  UUID,
    agent_version    VARCHAR(50),
    backend          VARCHAR(20),
    protocol         SMALLINT,
    last_seen_at     TIMESTAMPTZ,
    created_at       TIMESTAMPTZ NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

COMMENT ON COLUMN nodes.desired_revision IS 'Grows with every change of the node''s desired peers; the row lock that this takes puts the changes into commit order.';
COMMENT ON COLUMN nodes.token_epoch IS 'Node tokens of an earlier epoch are revoked.';
COMMENT ON COLUMN nodes.session_fence IS 'Grows with every session; whoever holds an older number may write nothing.';
COMMENT ON COLUMN nodes.session_replica IS 'The replica that holds the node''s session.';

CREATE TABLE enrolment_tokens (
    id           UUID         PRIMARY KEY,
    hostname     VARCHAR(255) NOT NULL,
    country      VARCHAR(100) NOT NULL,
    country_code CHAR(2)      NOT NULL,
    city         VARCHAR(100) NOT NULL,
    location     VARCHAR(100) NOT NULL,
    tier         SMALLINT     NOT NULL DEFAULT 0,
    expires_at   TIMESTAMPTZ  NOT NULL,
    used_at      TIMESTAMPTZ,
    server_id    UUID         REFERENCES vpn_servers (id) ON DELETE CASCADE,
    created_at   TIMESTAMPTZ  NOT NULL DEFAULT now()
);
