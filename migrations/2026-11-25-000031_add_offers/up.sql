-- An offer is a connection that stands ready on another server: it supersedes the one whose server
-- takes no clients any more, has no place of the plan, and does not end it.
ALTER TABLE connections
    ADD COLUMN offered_until  TIMESTAMPTZ,
    ADD COLUMN offer_tried_at TIMESTAMPTZ,
    ADD COLUMN offer_reason   VARCHAR(12),
    ADD COLUMN offer_made     BOOLEAN,
    ADD CONSTRAINT valid_offer_reason CHECK (offer_reason IN ('draining', 'unreachable'));

COMMENT ON COLUMN connections.offered_until IS 'It is offered in place of the connection that it supersedes, and ends at this time unless its client shakes hands; null on every other connection.';
COMMENT ON COLUMN connections.offer_tried_at IS 'When a replica last set out to make an offer for this connection; only who finds what it read there may.';
COMMENT ON COLUMN connections.offer_reason IS 'Why it did.';
COMMENT ON COLUMN connections.offer_made IS 'What came of it: false where no other server could take the client, null while it is under way.';

-- At most one offer a connection at a time.
CREATE UNIQUE INDEX connections_offer ON connections (supersedes)
    WHERE offered_until IS NOT NULL AND status IN ('connecting', 'connected');
