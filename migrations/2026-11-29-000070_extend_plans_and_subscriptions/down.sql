DROP VIEW entitlements;
DROP INDEX subscriptions_access;
ALTER TABLE subscriptions
    DROP COLUMN stripe_hash,
    DROP COLUMN sealed_stripe_id,
    DROP COLUMN trial_end,
    DROP COLUMN cancel_at_period_end,
    DROP COLUMN access_until,
    DROP COLUMN throttle_mbps,
    DROP COLUMN lapsed_at;
COMMENT ON COLUMN subscriptions.end_date IS 'Null where nothing expires, as on the free plan.';
ALTER TABLE plans
    DROP CONSTRAINT free_stays,
    DROP COLUMN seal_row,
    DROP COLUMN sealed_price,
    DROP COLUMN trial_days;
