DROP INDEX connections_offer;
ALTER TABLE connections
    DROP CONSTRAINT valid_offer_reason,
    DROP COLUMN offer_made,
    DROP COLUMN offer_reason,
    DROP COLUMN offer_tried_at,
    DROP COLUMN offered_until;
