-- Who is refused whatever they ask: an address, the /64 of an IPv6 address, or a network that an operator names.
CREATE TABLE bans (
    id         UUID PRIMARY KEY,
    network    CIDR NOT NULL,
    reason     VARCHAR(12) NOT NULL CHECK (reason IN ('flood', 'suspicious', 'manual')),
    note       VARCHAR(200),
    made_by    VARCHAR(100) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at TIMESTAMPTZ,
    ended_at   TIMESTAMPTZ,
    changed_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

COMMENT ON COLUMN bans.made_by IS 'system, or the kind and the id of the operator.';
COMMENT ON COLUMN bans.expires_at IS 'Null until somebody lifts it.';
COMMENT ON COLUMN bans.ended_at IS 'When somebody lifted it.';
COMMENT ON COLUMN bans.changed_at IS 'What replicas read the latest changes by.';

CREATE UNIQUE INDEX bans_in_force ON bans (network) WHERE ended_at IS NULL;
CREATE INDEX bans_changed ON bans (changed_at);
CREATE INDEX bans_over ON bans (least(ended_at, expires_at));
