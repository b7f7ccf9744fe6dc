ALTER TABLE nodes
    ADD COLUMN drain_requested_at TIMESTAMPTZ,
    ADD COLUMN rotate_key_at      TIMESTAMPTZ,
    ADD COLUMN next_public_key    VARCHAR(44),
    ADD COLUMN last_load          JSONB,
    ADD CONSTRAINT next_key_is_planned CHECK (next_public_key IS NULL OR rotate_key_at IS NOT NULL);

COMMENT ON COLUMN nodes.draining IS 'What the node says: its own word or the operator''s.';
COMMENT ON COLUMN nodes.drain_requested_at IS 'Since when the operator wants no new clients here.';
COMMENT ON COLUMN nodes.rotate_key_at IS 'When the node replaces its WireGuard key; null once it has.';
COMMENT ON COLUMN nodes.next_public_key IS 'The key that it will have then, once the node has made it.';
COMMENT ON COLUMN nodes.last_load IS 'The node''s last report, numbers alone.';

-- A server may be in the catalogue before its host has enrolled; the host brings these.
ALTER TABLE vpn_servers
    ALTER COLUMN ip_address DROP NOT NULL,
    ALTER COLUMN endpoint DROP NOT NULL,
    ALTER COLUMN public_key DROP NOT NULL,
    ALTER COLUMN available_ips DROP NOT NULL,
    ALTER COLUMN capacity SET DEFAULT 0,
    ADD CONSTRAINT enrolled_is_whole CHECK (
        num_nulls(ip_address, endpoint, public_key, available_ips) IN (0, 4));

CREATE INDEX enrolment_tokens_created ON enrolment_tokens (created_at, id);
